"Ctrl-C, SIGTERM, a disk that takes no more, weights that explode: the commands, from arguments to exit status."
import os
import signal
import subprocess

import pytest
import short_runs
from helpers import file_names, read_json, script

from s8fast.errors import Interrupted
from s8fast.runs.train import resume
from s8fast.runs.train import train as train_run
from s8fast.training.checkpoint_callback import SaveCheckpoint

ON_DIGITS = '--data', 'digits', '--valid_pct', .7, '--device', 'cpu', '--num_workers', 0, '--no_report'
FLAGS = *ON_DIGITS, '--lr_max', 2e-3, '--model', 'ultimus', '--bs', 32
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture
def train(tmp_path):
    "Start `s8fast_train` in a process of its own."
    return lambda *args, **kwargs: short_runs.Command(tmp_path, 's8fast_train', *args, **kwargs)


@pytest.fixture(scope='module')
def whole(once):
    "A run of four epochs that was never stopped."
    def make(folder):
        folder.mkdir()
        command = short_runs.Command(folder, 's8fast_train', *FLAGS, '--epochs', 4, '--out', folder/'run')
        assert command.wait()[0] == 0
    return once('never_stopped', make)/'run'


def assert_stopped(out, status, stderr, expected):
    assert status == expected, stderr
    assert stderr.startswith('s8fast_train: Stopped by SIG') and stderr.count('\n') == 1
    assert f's8fast_train --resume {out} goes on from there.' in stderr
    assert 'checkpoint/state.safetensors' in file_names(out) and not (out/'metrics.json').exists()


@pytest.mark.slow
def test_as_processes(whole, tmp_path, count):
    out = tmp_path/'run'
    command = [script('s8fast_train'), *map(str, FLAGS), '--epochs', '4', '--out', str(out)]
    def listen(): signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    for line in process.stdout:
        if line.startswith('epoch  2'): break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert_stopped(out, process.returncode, stderr, 130)
    done = subprocess.run([script('s8fast_train'), '--resume', out, '--no_report'], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == '' and 'goes on after epoch' in done.stdout
    assert short_runs.results(out)[:2] == short_runs.results(whole)[:2]  # its pictures are larger
    assert read_json(out/'metrics.json')['test'] == read_json(whole/'metrics.json')['test']
    count(['signals'])


@pytest.mark.parametrize('signum, expected', SIGNALS)
def test_a_signal_stops_and_resume_goes_on(whole, train, tmp_path, count, signum, expected):
    out = tmp_path/'run'
    process = train(*FLAGS, '--epochs', 4, '--out', out).until('epoch  2')
    process.kill(signum)
    status, _, stderr = process.wait()
    assert_stopped(out, status, stderr, expected)
    status, stdout, stderr = train('--resume', out, '--no_report').wait()
    assert status == 0 and stderr == '' and 'goes on after epoch' in stdout
    assert short_runs.results(out) == short_runs.results(whole)
    status, stdout, _ = train('--resume', out, '--no_report').wait()
    assert status == 0 and 'is a finished run' in stdout and 'there is nothing to do' in stdout
    assert short_runs.results(out) == short_runs.results(whole)
    count(['signals'])


@pytest.mark.parametrize('signum, expected', SIGNALS)
def test_a_signal_to_the_processes_of_the_loader_too(train, tmp_path, count, signum, expected):
    "As a terminal, or a batch system, sends it: to the whole group."
    workers = '--pipeline', 'item', '--num_workers', 2
    process = train(*FLAGS, '--epochs', 500, '--out', tmp_path/'run', *workers, session=True).until('epoch  2')
    os.killpg(process.process.pid, signum)
    status, _, stderr = process.wait()
    assert_stopped(tmp_path/'run', status, stderr, expected)
    count(['signals'])


def test_a_second_ctrl_c_ends_at_once(train, tmp_path, count):
    out, noted = tmp_path/'run', tmp_path/'noted'
    process = train(*FLAGS, '--epochs', 50, '--out', out, fault=short_runs.Hang(noted)).until('epoch  2')
    process.kill(signal.SIGINT)
    short_runs.until_there(noted, process.process)
    process.kill(signal.SIGINT)
    assert process.wait()[0] == -signal.SIGINT
    status, _, stderr = train('--resume', out, '--epochs', 49).wait()
    assert status == 2 and 'epochs: 50, 49' in stderr  # the checkpoint is whole and says what it was begun with
    count(['signals'])


@pytest.mark.parametrize('signum, expected', SIGNALS)
def test_a_signal_before_training_began(train, tmp_path, count, signum, expected):
    out = tmp_path/'run'
    process = train('--data', 'digits', '--device', 'cpu', '--out', out, '--no_report')
    process.until('custom_resnet on digits').kill(signum)  # the finder comes next
    status, _, stderr = process.wait()
    assert status == expected and 'Interrupted before training began' in stderr and 'Traceback' not in stderr, stderr
    assert file_names(out) == ['checkpoint/lock', 'checkpoint/recipe.json']
    count(['signals'])


def test_two_runs_on_one_folder(train, tmp_path, count):
    first = train(*FLAGS, '--epochs', 500, '--out', tmp_path/'run').until('epoch  1')
    for args in (['--out', tmp_path/'run', *FLAGS], ['--out', tmp_path/'run', '--force', *FLAGS],
                 ['--resume', tmp_path/'run']):
        status, _, stderr = train(*args).wait()
        assert status == 2 and 'Another run is at work' in stderr and stderr.count('\n') == 1
    assert short_runs.wait(first.process, 0) is None
    first.kill(signal.SIGKILL)
    first.wait()
    count(['second processes on one folder']*3)


def test_a_file_that_may_grow_no_further(train, tmp_path, count):
    "The system's own refusal: a limit on the size of files, below that of a checkpoint."
    out = tmp_path/'run'
    status, _, stderr = train(*FLAGS, '--epochs', 2, '--out', out, limit=50_000).wait()
    assert status == 2 and stderr.count('\n') == 1, stderr
    assert 'state.safetensors could not be written (File too large)' in stderr
    assert file_names(out) == ['checkpoint/lock', 'checkpoint/recipe.json', 'history.csv', 'recipe.json']
    assert train('--resume', out, '--no_report').wait()[0] == 0
    count(['failing writes'])


def test_weights_that_explode(train, tmp_path, count):
    "A decay that multiplies every weight by a billion a step."
    flags = *ON_DIGITS, '--model', 'ultimus', '--precision', 'fp32', '--epochs', 2, '--bs', 64, '--out', tmp_path/'run'
    status, _, stderr = train(*flags, '--lr_max', 1e3, '--wd', 1e6, '--div', 1).wait()
    assert status == 3 and stderr.count('\n') == 1, stderr
    for part in ('not finite in epoch 1, step', 'learning rate 1.00e+03', 'the first layer with such an output is',
                 '--force', '--lr_max'): assert part in stderr, stderr
    assert not (tmp_path/'run'/'metrics.json').exists()
    assert train(*flags, '--force', '--lr_max', 1e-3).wait()[0] == 0
    count(['losses that are not finite'])


@pytest.mark.parametrize('pipeline', ['batch', 'item'])
def test_a_run_without_validation_images_goes_on(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(SaveCheckpoint, 'write', SaveCheckpoint.write)  # is put back after StopAt
    data, recipe = short_runs.few_digits(), short_runs.recipe(pipeline, valid_pct=0.)
    whole, out = tmp_path/'whole', tmp_path/'run'
    def quiet(line): pass
    train_run(recipe, data, whole, log=quiet)
    short_runs.StopAt(1, 1).install()
    with pytest.raises(Interrupted): train_run(recipe, data, out, log=quiet, checkpoint_minutes=0)
    monkeypatch.undo()
    resume(out, data, quiet)
    assert short_runs.results(out) == short_runs.results(whole)
