"Bad input: exit status 2, one sentence that names the thing and the way out, before data is read; nothing left behind."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fastai.learner import Learner
from helpers import COMMANDS, ULTIMUS, assert_sentence, draw_data, names, write_folders

from s8fast.data.dataset import load_folder


@pytest.fixture
def refused(call_command, tmp_path, monkeypatch):
    "Call a command that must refuse; every file under `tmp_path`, with the cache in it, is afterwards as before."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    def refused(name, *args, parts=()):
        before = names(tmp_path)
        assert_sentence(call_command(name, *args), name, *parts)
        assert names(tmp_path) == before
    return refused


@pytest.fixture
def folders(tmp_path): return write_folders(tmp_path/'data', draw_data(2, 1))


@pytest.fixture
def no_data(monkeypatch):
    def load(data): pytest.fail('the data was read before the input was refused')
    for module in ('runs.train', 'training.learner'): monkeypatch.setattr(f's8fast.{module}.load_data', load)


# The data

def test_every_command_checks_the_data(refused, png_run, folders):
    broken = folders/'test'/'cat'/'0003.png'
    broken.write_text('not an image')
    refused('s8fast_train', '--data', folders, '--out', 'run', parts=[broken])
    refused('s8fast_lr_find', '--data', folders, '--out', 'find.png', parts=[broken])
    refused('s8fast_evaluate', png_run.folder, '--data', folders, parts=[broken])


def test_a_folder_that_is_not_there(refused, monkeypatch):
    refused('s8fast_train', '--data', 'no/such/folder', '--out', 'run', parts=['no/such/folder', '--data'])
    monkeypatch.setenv('S8FAST_DATA', '/no/such/folder')
    refused('s8fast_train', '--out', 'run', parts=['/no/such/folder', '--data'])


def test_a_batch_larger_than_the_set(refused, folders):
    load_folder(folders)  # the cache of good data may stay
    for rate in ('auto', 0.01):
        refused('s8fast_train', '--out', 'run', '--lr_max', rate, '--data', folders, '--valid_pct', 0.5, '--bs', 11,
                '--device', 'cpu', parts=['11', '10 training images', 'bs'])
    refused('s8fast_lr_find', '--data', 'digits', '--bs', 1381, '--device', 'cpu',
            parts=['1381', '1380 training images', 'bs'])


@pytest.mark.parametrize('valid_pct', [0.1, 0.9, 1])
def test_a_validation_share_that_leaves_a_class_out(refused, folders, valid_pct):
    load_folder(folders)
    refused('s8fast_train', '--data', folders, '--out', 'run', '--bs', 1, '--valid_pct', valid_pct,
            parts=[f'valid_pct={float(valid_pct)}', 'of 20 images', 'each of the 10 classes'])


# The output

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('force', [(), ('--force',)], ids=['plain', 'force'])
def test_an_output_folder_that_is_a_file(refused, tmp_path, force):
    (tmp_path/'file').write_text('mine')
    train = 's8fast_train', '--data', 'digits', *force, '--out'
    refused(*train, 'file', parts=['file', 'not a folder', '--out'])
    refused(*train, 'file/run', parts=['file/run', 'cannot be written', '--out'])
    refused(*train, 'o'*300, parts=['o'*300, '--out'])
    assert (tmp_path/'file').read_text() == 'mine'


@pytest.mark.usefixtures('no_data')
def test_an_output_folder_that_is_not_empty(refused, tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run'/'notes.txt').write_text('mine')
    refused('s8fast_train', '--data', 'digits', '--out', 'run', parts=['run', 'not empty', '--force'])
    assert (tmp_path/'run'/'notes.txt').read_text() == 'mine'


@pytest.mark.usefixtures('no_data')
def test_an_output_folder_without_write_permission(refused, tmp_path, monkeypatch):
    (tmp_path/'locked').mkdir(mode=0o555)
    if os.geteuid() == 0:  # nothing is locked for root
        monkeypatch.setattr(os, 'access', lambda path, mode, **kwargs: Path(path).name != 'locked')
    for out in ('locked', 'locked/run'):
        refused('s8fast_train', '--data', 'digits', '--out', out, parts=[out, 'read-only', '--out'])


@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('out', ['missing/find.png', 'find.xyz', '.'])
def test_an_output_file_of_the_finder(refused, out):
    refused('s8fast_lr_find', '--data', 'digits', '--out', out, parts=[out, '--out'])


# Choices that the recipe refuses

CHOICES = dict(
    model=('resnet50', ''), epochs=(0, -1), bs=(0, -8), seed=(-1, 2**32), lr_max=(0, -0.1, 'nan', 'inf', '-inf'),
    div=(0, -1, 0.5, 'nan', 'inf'), pct_start=(0, 1, -1, 'nan'), shape=('step', ''), mom_max=(1.5, 'nan'),
    mom_min=(-0.1, 'inf'), wd=(-1, 'nan', 'inf'), pad=(-1, 33), cutout=(-1, 33), valid_pct=(-0.1, 1.1, 'nan'),
    split_seed=(-1,), pipeline=('fast', ''), num_workers=(-1,), precision=('fp8', ''),
    device=('tpu', 'cuda:x', 'xpu', ''), pad_mode=('mirror', ''), label_smoothing=(-.1, 1.5, 'nan'),
    average=(-1, 'inf'), bn_momentum=(-.1, 1.1, 'nan'), preset=('worst', ''))
REFUSED = [(option, value) for option, values in CHOICES.items() for value in values]

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('option, value', REFUSED)
def test_a_choice_that_makes_no_sense(refused, option, value):
    shown = repr(value) if option in ('precision', 'device') else f'{option}='
    refused('s8fast_train', '--data', 'digits', '--out', 'run', f'--{option}={value}', parts=[shown, 'give'])


@pytest.mark.parametrize('option, value', [
    ('start_lr', 0), ('start_lr', -1e-3), ('start_lr', 'nan'), ('end_lr', 0), ('end_lr', 'inf'), ('end_lr', 1e-9),
    ('num_it', 0), ('num_it', -3), ('num_it', 5), ('bs', 0), ('wd', 'nan')])
def test_a_choice_of_the_finder(refused, monkeypatch, option, value):
    monkeypatch.setattr(Learner, 'lr_find', lambda *args, **kwargs: pytest.fail('a search began'))
    refused('s8fast_lr_find', '--data', 'digits', '--model', 'ultimus', '--out', 'find.png', '--num_workers', 0,
            '--device', 'cpu', f'--{option}={value}', parts=[option])


# What the parser can't read: one sentence as well, without the page of usage

UNREADABLE = [
    ('s8fast_train', ['--epochs', 'many'], ['epochs', "'many'"]),
    ('s8fast_train', ['--epochs', '1.5'], ['epochs', "'1.5'"]),
    ('s8fast_train', ['--bs', '1.5'], ['bs', "'1.5'"]),
    ('s8fast_train', ['--lr_max', 'fast'], ['lr_max', "'fast'"]),
    ('s8fast_train', ['--wd', 'weak'], ['wd', "'weak'"]),
    ('s8fast_train', ['--pad', 'wide'], ['pad', "'wide'"]),
    ('s8fast_train', ['--cutout', 'big'], ['cutout', "'big'"]),
    ('s8fast_train', ['--label_smoothing', 'soft'], ['label_smoothing', "'soft'"]),
    ('s8fast_train', ['--average', 'some'], ['average', "'some'"]),
    ('s8fast_train', ['--num_workers', '1.5'], ['num_workers', "'1.5'"]),
    ('s8fast_train', ['--num_workers', 'many'], ['num_workers', "'many'"]),
    ('s8fast_train', ['--div', 'steep'], ['div', "'steep'"]),
    ('s8fast_train', ['--channels_last', 'perhaps'], ['channels_last', "'perhaps'"]),
    ('s8fast_train', ['--speed', '9'], ['--speed']),
    ('s8fast_train', ['--epochs'], ['epochs']),
    ('s8fast_train', ['run'], ["run"]),
    ('s8fast_lr_find', ['--num_it', 'many'], ['num_it', "'many'"]),
    ('s8fast_lr_find', ['--num_workers', 'many'], ['num_workers', "'many'"]),
    ('s8fast_lr_find', ['--speed', '9'], ['--speed']),
    ('s8fast_lr_find', ['--out'], ['out']),
    ('s8fast_evaluate', [], ['run']),
    ('s8fast_evaluate', ['run', '--speed', '9'], ['--speed']),
    ('s8fast_evaluate', ['run', '--part'], ['part']),
    ('s8fast_report', ['run', '--speed', '9'], ['--speed']),
    ('s8fast_report', ['--compare'], ['compare']),
]

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('command, args, parts', UNREADABLE)
def test_what_the_parser_cannot_read(refused, command, args, parts):
    refused(command, *args, parts=parts)


def test_a_part_that_there_is_not(refused, png_run):
    refused('s8fast_evaluate', png_run.folder, '--data', 'digits', '--part', 'all', parts=["'all'", 'valid'])


# What this machine has not

WITHOUT_DEVICE = {'s8fast_study', 's8fast_export', 's8fast_publish', 's8fast_labels',
                  's8fast_app'}  # the last two want their extra first

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('command', sorted({*COMMANDS} - WITHOUT_DEVICE))
def test_cuda_that_is_not_there(refused, monkeypatch, command, png_run):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    takes_run = 's8fast_evaluate', 's8fast_report', 's8fast_calibrate', 's8fast_predict', 's8fast_robustness'
    run = [png_run.folder] if command in takes_run else []
    if command == 's8fast_predict': run.append('x.png')
    for device in ('cuda', 'cuda:1'):
        refused(command, *run, '--device', device, parts=[device, '0 CUDA devices', '--device'])


@pytest.mark.usefixtures('no_data')
def test_fp16_without_cuda(refused):
    refused('s8fast_train', '--data', 'digits', '--precision', 'fp16', '--device', 'cpu',
            parts=['fp16', 'CUDA', '--precision'])


@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('command', ['s8fast_train', 's8fast_lr_find'])
def test_bf16_without_hardware(refused, monkeypatch, command):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', dict, raising=False)
    refused(command, '--data', 'digits', '--precision', 'bf16', '--device', 'cpu',
            parts=['bf16', 'no hardware', '--precision'])


@pytest.mark.slow
def test_compile_without_a_compiler(run_command, tmp_path):
    cache = str(tmp_path/'cache')
    done = run_command('s8fast_train', '--data', 'digits', '--out', tmp_path/'run', '--lr_max', 1e-3, '--compile',
                       *ULTIMUS, env=dict(CXX='/no/such/compiler', TORCHINDUCTOR_CACHE_DIR=cache))
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith('s8fast_train: torch.compile failed')]
    assert len(sentences) == 1 and '--compile' in sentences[0], done.stderr
    assert not {'metrics.json', 'model.safetensors'} & set(names(tmp_path/'run'))


WITHOUT_FORK = '''
import multiprocessing, sys
multiprocessing.set_start_method(sys.argv.pop(1))
from s8fast.cli import s8fast_train
s8fast_train()
'''

def train_without_fork(tmp_path, method, *more):
    flags = '--data', 'digits', '--device', 'cpu', '--pipeline', 'item', '--epochs', 1, '--lr_max', 1e-3, '--bs', 64, \
            '--model', 'ultimus', '--valid_pct', 0.7, '--no_report', '--out', tmp_path/'run', *more
    command = [sys.executable, '-c', WITHOUT_FORK, method, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True)


def test_workers_where_python_does_not_fork(tmp_path):
    done = train_without_fork(tmp_path, 'forkserver', '--num_workers', 2)
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert 'num_workers=2' in done.stderr and 'forkserver' in done.stderr and names(tmp_path) == []


@pytest.mark.slow
def test_no_workers_are_chosen_where_python_does_not_fork(tmp_path):
    done = train_without_fork(tmp_path, 'spawn')
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path/'run'/'recipe.json').read_text())['chosen']['num_workers'] == 0


# The same as a process of its own

def test_as_a_process(run_command, folders, tmp_path):
    broken = folders/'train'/'dog'/'0010.png'
    broken.write_bytes(broken.read_bytes()[:100])
    cwd = tmp_path/'cwd'
    cwd.mkdir()
    done = run_command('s8fast_lr_find', '--data', folders, '--out', 'find.png', cwd=cwd)
    assert_sentence(done, 's8fast_lr_find', broken, 'replace')
    assert names(cwd) == []


@pytest.mark.slow
@pytest.mark.parametrize('args, parts', [
    (['s8fast_train', '--data', 'no/such/folder', '--out', 'run'], ['no/such/folder', '--data']),
    (['s8fast_evaluate', 'no/such/run', '--data', 'digits'], ['no/such/run', 'recipe.json'])])
def test_the_other_commands_as_processes(run_command, tmp_path, args, parts):
    assert_sentence(run_command(*args, cwd=tmp_path), args[0], *parts)
    assert names(tmp_path) == []
