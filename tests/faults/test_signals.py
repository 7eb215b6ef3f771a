"Ctrl-C, SIGTERM, a disk that takes no more, a loss that explodes: the commands, from their arguments to their exit status."
import os, signal, subprocess

import pytest
import runs
from conftest import script
from s8fast.checkpoint import Checkpoint, Interrupted
from s8fast.training import resume, train as train_run

FLAGS = '--data', 'digits', '--valid_pct', .7, '--device', 'cpu', '--num_workers', 0, '--no_report', '--lr_max', 2e-3, '--model', 'ultimus', '--bs', 32


@pytest.fixture
def train(tmp_path): return lambda *args, **kwargs: runs.Command(tmp_path, 's8fast_train', *args, **kwargs)

def names(root): return sorted(str(o.relative_to(root)) for o in root.rglob('*') if o.is_file())


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp('whole')
    assert runs.Command(root, 's8fast_train', *FLAGS, '--epochs', 4, '--out', root/'run').wait()[0] == 0
    return root/'run'


def assert_stopped(out, status, stderr, expected):
    assert status == expected, stderr
    assert stderr.startswith('s8fast_train: Stopped by SIG') and f's8fast_train --resume {out} goes on from there.' in stderr and stderr.count('\n') == 1
    assert 'checkpoint/state.safetensors' in names(out) and not (out/'metrics.json').exists()


def test_as_processes(whole, tmp_path, count):
    out = tmp_path/'run'
    command = [script('s8fast_train'), *map(str, FLAGS), '--epochs', '4', '--out', str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    for line in process.stdout:
        if line.startswith('epoch  2'): break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert_stopped(out, process.returncode, stderr, 130)
    done = subprocess.run([script('s8fast_train'), '--resume', out, '--no_report'], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == '' and 'goes on after epoch' in done.stdout
    assert runs.results(out)[:3] == runs.results(whole)[:3]
    count(['signals'])


@pytest.mark.parametrize('signum, expected', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_resume_goes_on(whole, train, tmp_path, count, signum, expected):
    out = tmp_path/'run'
    process = train(*FLAGS, '--epochs', 4, '--out', out).until('epoch  2')
    process.kill(signum)
    status, _, stderr = process.wait()
    assert_stopped(out, status, stderr, expected)
    status, stdout, stderr = train('--resume', out, '--no_report').wait()
    assert status == 0 and stderr == '' and 'goes on after epoch' in stdout
    assert runs.results(out) == runs.results(whole)
    status, stdout, _ = train('--resume', out, '--no_report').wait()
    assert status == 0 and 'is a finished run' in stdout and 'there is nothing to do' in stdout
    assert runs.results(out) == runs.results(whole)
    count(['signals'])


def test_a_signal_to_the_processes_of_the_loader_too(train, tmp_path, count):
    "As a terminal, or a batch system, sends it: to the whole group."
    for signum, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path/signum.name
        process = train(*FLAGS, '--epochs', 500, '--out', out, '--pipeline', 'item', '--num_workers', 2, session=True).until('epoch  2')
        os.killpg(process.process.pid, signum)
        status, _, stderr = process.wait()
        assert_stopped(out, status, stderr, expected)
    count(['signals']*2)


def test_a_second_ctrl_c_ends_at_once(train, tmp_path, count):
    out, noted = tmp_path/'run', tmp_path/'noted'
    process = train(*FLAGS, '--epochs', 50, '--out', out, fault=runs.Hang(noted)).until('epoch  2')
    process.kill(signal.SIGINT)
    runs.until_there(noted, process.process)
    process.kill(signal.SIGINT)
    assert process.wait()[0] == -signal.SIGINT
    status, _, stderr = train('--resume', out, '--epochs', 49).wait()
    assert status == 2 and 'epochs: 50, 49' in stderr  # the checkpoint is whole and says what it was begun with
    count(['signals'])


@pytest.mark.parametrize('signum, expected', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_training_began(train, tmp_path, count, signum, expected):
    out = tmp_path/'run'
    process = train('--data', 'digits', '--device', 'cpu', '--out', out, '--no_report').until('custom_resnet on digits')  # the finder comes next
    process.kill(signum)
    status, _, stderr = process.wait()
    assert status == expected and 'Interrupted before training began' in stderr and 'Traceback' not in stderr, stderr
    assert names(out) == ['checkpoint/lock', 'checkpoint/recipe.json']
    count(['signals'])


def test_two_runs_on_one_folder(train, tmp_path, count):
    first = train(*FLAGS, '--epochs', 500, '--out', tmp_path/'run').until('epoch  1')
    for args in (['--out', tmp_path/'run', *FLAGS], ['--out', tmp_path/'run', '--force', *FLAGS], ['--resume', tmp_path/'run']):
        status, _, stderr = train(*args).wait()
        assert status == 2 and 'Another run is at work' in stderr and stderr.count('\n') == 1
    assert runs.wait(first.process, 0) is None
    first.kill(signal.SIGKILL)
    first.wait()
    count(['second processes on one folder']*3)


def test_a_file_that_may_grow_no_further(train, tmp_path, count):
    "The system's own refusal: a limit on the size of files, below that of a checkpoint."
    status, _, stderr = train(*FLAGS, '--epochs', 2, '--out', tmp_path/'run', limit=50_000).wait()
    assert status == 2 and 'state.safetensors could not be written (File too large)' in stderr and stderr.count('\n') == 1, stderr
    assert names(tmp_path/'run') == ['checkpoint/lock', 'checkpoint/recipe.json', 'history.csv', 'recipe.json']
    assert train('--resume', tmp_path/'run', '--no_report').wait()[0] == 0
    count(['failing writes'])


def test_a_loss_that_explodes(train, tmp_path, count):
    flags = ['--data', 'digits', '--device', 'cpu', '--model', 'ultimus', '--precision', 'fp32', '--epochs', 2, '--bs', 64, '--no_report', '--out', tmp_path/'run']
    status, _, stderr = train(*flags, '--lr_max', 1e30, '--div', 1).wait()
    assert status == 3 and stderr.count('\n') == 1, stderr
    for o in ('not finite in epoch 1, step 2 of', 'learning rate 1.00e+30', 'the first layer with such an output is', '--force', '--lr_max'): assert o in stderr
    assert not (tmp_path/'run'/'metrics.json').exists()
    assert train(*flags, '--force', '--lr_max', 1e-3).wait()[0] == 0
    count(['losses that are not finite'])


@pytest.mark.parametrize('pipeline', ['batch', 'item'])
def test_a_run_without_validation_images_goes_on(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, '_write', Checkpoint._write)  # is put back after StopAt
    data, recipe = runs.few_digits(), runs.recipe(pipeline, valid_pct=0.)
    def quiet(line): pass
    train_run(recipe, data, tmp_path/'whole', log=quiet)
    runs.StopAt(1, 1).install()
    with pytest.raises(Interrupted): train_run(recipe, data, tmp_path/'run', log=quiet, checkpoint_minutes=0)
    monkeypatch.undo()
    resume(tmp_path/'run', data, quiet)
    assert runs.results(tmp_path/'run') == runs.results(tmp_path/'whole')
