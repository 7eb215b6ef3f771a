"What a machine does to a run: no memory, disk or shared memory, odd outputs, locks. A sentence each, and nothing lost."
import errno
import io
import os
import subprocess
import sys
from unittest import mock

import filelock
import pytest
import short_runs
import torch
from fastai.learner import Learner
from helpers import ON_CPU, assert_sentence, names, script

import s8fast.runs.train
from s8fast.errors import S8FastError
from s8fast.files import hold
from s8fast.runs.folder import Run
from s8fast.runs.train import resume, train
from s8fast.training.checkpoint_callback import SaveCheckpoint

SHORT = ('--data', 'digits', '--model', 'ultimus', *ON_CPU, '--bs', 64, '--epochs', 1, '--lr_max', 1e-3,
         '--valid_pct', .7)

ACCELERATOR_ERROR = getattr(torch, 'AcceleratorError', RuntimeError)  # of a GPU that others have filled


def quiet(line): pass

def fails(error):
    def fail(*args, **kwargs): raise error
    return fail


# Before a run owns its folder

NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you "
                         'tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)')
NO_SHARED_MEMORY = RuntimeError('unable to write to file </torch_117_3>: No space left on device (28)')
FULL_TMPDIR = RuntimeError('[enforce fail at inline_container.cc:664] . unexpected pos 7409280 vs 7409168')
FAULTS = [
    (NO_MEMORY, 'smaller --bs'), (MemoryError(), 'smaller --bs'), (NO_SHARED_MEMORY, '--num_workers 0'),
    (RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.'), '--num_workers'),
    (RuntimeError('received 0 items of ancdata'), 'ulimit'), (FULL_TMPDIR, 'TMPDIR'),
    (torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), 'The GPU has no memory'),
    (ACCELERATOR_ERROR('CUDA error: out of memory'), 'The GPU has no memory'),
    (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate'), 'The GPU has no memory'),
    (RuntimeError('CUDA error: no kernel image is available for execution'), 'has no kernels for the GPU'),
    (RuntimeError("can't start new thread"), 'end other programs'),
    (OSError(errno.EMFILE, 'Too many open files'), 'ulimit'),
    (PermissionError(13, 'Permission denied', '/x/y'), '/x/y')]

@pytest.mark.parametrize('error, says', FAULTS, ids=[says.strip('-') for _, says in FAULTS])
@pytest.mark.parametrize('place', ['get_learner', 'find_lr_range', 'load_data'])
def test_a_fault_before_the_run_owns_its_folder_leaves_nothing(tmp_path, monkeypatch, place, error, says):
    monkeypatch.setattr(s8fast.runs.train, place, fails(error))
    with pytest.raises(S8FastError) as refused:
        train(short_runs.recipe(lr_max='auto'), short_runs.few_digits(), tmp_path/'run', log=quiet)
    assert says in str(refused.value) and '\n' not in str(refused.value) and names(tmp_path) == []


def test_a_bug_leaves_nothing_either(tmp_path, monkeypatch):
    monkeypatch.setattr(s8fast.runs.train, 'get_learner', fails(KeyError('wd')))
    with pytest.raises(KeyError): train(short_runs.recipe(), short_runs.few_digits(), tmp_path/'run', log=quiet)
    assert names(tmp_path) == []


def test_a_fault_in_training_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    data, out = short_runs.few_digits(), tmp_path/'run'
    after = SaveCheckpoint.after_epoch
    def full(saver):
        after(saver)
        raise NO_MEMORY
    monkeypatch.setattr(SaveCheckpoint, 'after_epoch', full)
    with pytest.raises(S8FastError, match='no memory'): train(short_runs.recipe(), data, out, log=quiet)
    monkeypatch.undo()
    assert Run(out).state == 'stopped'
    resume(out, data, log=quiet)
    assert Run(out).state == 'finished'


def test_the_finder_when_the_temporary_folder_is_full(call_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Learner, 'save', fails(FULL_TMPDIR))
    flags = '--data', 'digits', '--model', 'ultimus', '--device', 'cpu'
    assert_sentence(call_command('s8fast_lr_find', *flags), 's8fast_lr_find', 'temporary folder', 'TMPDIR')
    assert names(tmp_path) == []


# Data

def test_a_class_of_one_image_is_trained_on(tmp_path):
    from dataclasses import replace
    data = short_runs.few_digits()
    keep = (data.train_labels != 3) | (data.train_labels == 3).cumsum().__eq__(1) & (data.train_labels == 3)
    few = replace(data, train_images=data.train_images[keep], train_labels=data.train_labels[keep])
    with pytest.warns(UserWarning, match='Class 3 has one training image'):
        metrics = train(short_runs.recipe(epochs=1), few, tmp_path/'run', log=quiet)
    assert metrics['valid']['per_class']['3']['support'] == 0 and metrics['test']['per_class']['3']['support'] > 0


def test_a_transform_that_makes_no_image():
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    from s8fast.data.loaders import get_dls
    for wrong in (A.Normalize(), ToTensorV2(), A.Resize(16, 16)):
        with pytest.raises(S8FastError, match='without Normalize and ToTensorV2'):
            get_dls(short_runs.few_digits(), bs=32, valid_pct=.1, pipeline='item', augment=A.Compose([wrong]))


# Outputs

def run_through_a_shell(line, **env):
    return subprocess.run(['sh', '-c', line], env={**os.environ, **env}, capture_output=True, text=True,
                          errors='replace')

def train_line(out): return ' '.join(map(str, [script('s8fast_train'), *SHORT, '--out', out]))


C_LOCALE = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
OUTPUTS = {'no stdout': ('--no_report >&-', {}), 'no stderr': ('--no_report 2>&-', {}),
           'nothing at all': ('--no_report >&- 2>&- <&-', {}), 'ascii': ('', dict(PYTHONIOENCODING='ascii')),
           'cp1252': ('--no_report', dict(PYTHONIOENCODING='cp1252')), 'the C locale': ('--no_report', C_LOCALE)}
SOME = 'ascii',

@pytest.mark.parametrize('output', [pytest.param(o, marks=() if o in SOME else pytest.mark.slow) for o in OUTPUTS])
def test_an_output_that_can_show_little(tmp_path, output):
    end, env = OUTPUTS[output]
    out = tmp_path/'größe ∂'
    done = run_through_a_shell(f"{train_line(repr(str(out)))} {end}", **env)
    assert done.returncode == 0, done.stderr
    assert {'metrics.json', 'model.safetensors', 'curves.png'} <= {path.name for path in out.iterdir()}
    assert (out/'report.html').exists() == ('--no_report' not in end)


def test_head_takes_the_first_epoch_and_leaves_its_checkpoint(tmp_path):
    command = train_line(tmp_path/'run').replace('--epochs 1', '--epochs 3')
    done = run_through_a_shell(f'{command} | grep -m1 epoch')
    assert 'epoch  1/3' in done.stdout
    assert Run(tmp_path/'run').state in ('stopped', 'finished')  # the epoch that was shown is kept
    if Run(tmp_path/'run').state == 'stopped':
        assert len(Run(tmp_path/'run').checkpoint.rows) >= 1


class Odd:
    "A stream that can do next to nothing."
    def write(self, text): return len(text)
    def flush(self): pass

def closed():
    stream = io.StringIO()
    stream.close()
    return stream

@pytest.mark.parametrize('make', [Odd, closed, lambda: None], ids=['without isatty', 'closed', 'none'])
def test_python_with_another_standard_output(tmp_path, monkeypatch, make):
    monkeypatch.setattr(sys, 'stdout', make())
    train(short_runs.recipe(epochs=1), short_runs.few_digits(), tmp_path/'run', log=quiet)
    monkeypatch.undo()
    assert Run(tmp_path/'run').state == 'finished'


# Locks

@pytest.mark.parametrize('error', [
    OSError(errno.ENOLCK, 'No locks available'), OSError(errno.ENOSYS, 'Function not implemented'),
    NotImplementedError('FileSystem does not appear to support flock; use SoftFileLock instead')])
def test_a_file_system_without_locks(tmp_path, error):
    with mock.patch.object(filelock.FileLock, 'acquire', side_effect=error):
        with pytest.raises(S8FastError, match='file system has no locks') as refused:
            train(short_runs.recipe(), short_runs.few_digits(), tmp_path/'run', log=quiet)
    assert str(refused.value).endswith('.') and names(tmp_path) == []


def test_a_lock_file_of_another_host(tmp_path):
    "Where a file system has no locks a file stands for one, and stays when its process is killed elsewhere."
    (tmp_path/'lock').write_text('4711\nnode12\n')
    with mock.patch.object(filelock.FileLock, 'acquire', side_effect=filelock.Timeout(str(tmp_path/'lock'))):
        with pytest.raises(S8FastError) as refused, hold(tmp_path/'lock'): pass
    assert str(tmp_path/'lock') in str(refused.value) and 'remove that file' in str(refused.value)
