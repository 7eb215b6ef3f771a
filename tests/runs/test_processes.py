"Several processes that train one network: the same run, stopped, killed, refused."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import (ROOT, TRAIN_FILES, ULTIMUS, assert_sentence, history_rows, read_json, script,
                     take_signals_again, without)
from safetensors.torch import load_file

# Of the 70 training images, the last batch has one: process 0 has none of it.
SHORT = *ULTIMUS, '--bs', 23, '--epochs', 3, '--lr_max', 5e-3, '--precision', 'fp32', '--processes', 2
TORCHRUN = sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2'


@pytest.fixture
def start(monkeypatch):
    "Start a command; what still runs after the test is ended."
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    started = []
    def start(*command):
        started.append(subprocess.Popen(list(map(str, command)), text=True, stdout=subprocess.PIPE, cwd=ROOT,
                                        stderr=subprocess.PIPE, preexec_fn=take_signals_again))
        return started[-1]
    yield start
    for one in started:
        one.terminate()
        one.communicate()


def end(process):
    "Exit status, standard output and standard error."
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def after_epoch(process, n):
    "Wait for the line of an epoch."
    for line in process.stdout:
        if line.startswith(f'epoch  {n}/'): return
    raise AssertionError(process.stderr.read())


def children(process):
    "Its processes, those with the lowest rank first."
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process.pid)], capture_output=True, text=True).stdout
    return sorted(map(int, found.split()))


def weights(run): return (run/'model.safetensors').read_bytes()


def test_two_processes_leave_the_run_folder_of_one(start, call_command, png, tmp_path):
    run = tmp_path/'run'
    with_report = [o for o in SHORT if o != '--no_report']
    status, out, err = end(start(script('s8fast_train'), '--data', png, *with_report, '--out', run))
    assert (status, err) == (0, '')
    assert {path.name for path in run.iterdir()} >= {*TRAIN_FILES, 'report.html'}
    assert [line.split()[0] for line in out.splitlines()].count('epoch') == 3
    assert read_json(run/'recipe.json')['chosen']['processes'] == 2
    # every image was seen once an epoch, and the figures are those of one process on these weights
    metrics = read_json(run/'metrics.json')
    assert (metrics['test']['n'], metrics['valid']['n']) == (20, 10)
    done = call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu')
    assert f'accuracy {metrics["test"]["accuracy"]:.2%}' in done.stdout
    assert f'loss {metrics["test"]["loss"]:.4f}' in done.stdout
    shares = {float(row['train_accuracy'])*70 for row in history_rows(run)}
    assert all(abs(share - round(share)) < 1e-3 for share in shares)


@pytest.mark.slow
def test_one_that_is_killed_ends_the_other(start, png, tmp_path):
    process = start(script('s8fast_train'), '--data', png, *SHORT, '--epochs', 200, '--out', tmp_path/'run')
    after_epoch(process, 1)
    begun = time.monotonic()
    os.kill(children(process)[1], signal.SIGKILL)
    status, _, err = end(process)
    assert status == 128 + signal.SIGKILL and time.monotonic() - begun < 30
    assert 'Another process of this run has ended' in err and 'Process 1 was ended by SIGKILL.' in err
    assert f'--resume {tmp_path/"run"} goes on from there' in err and 'Traceback' not in err


def test_bad_input(call_command, png, tmp_path):
    def train(*args): return call_command('s8fast_train', '--data', png, '--out', tmp_path/'run', *args)
    assert_sentence(train('--processes', 0), 's8fast_train', 'processes=0')
    assert_sentence(train('--processes', 1000, '--device', 'cpu'), 's8fast_train', '1000 processes need 1000 CPU cores')
    assert_sentence(train('--processes', 2, '--seeds', '0-1'), 's8fast_train', 'leave --seeds out')
    assert_sentence(train(*ULTIMUS, '--sync_bn'), 's8fast_train', '--sync_bn is for several processes on GPUs')
    assert not (tmp_path/'run').exists()


@pytest.mark.parametrize('environment, said', [
    (dict(WORLD_SIZE='2'), 'WORLD_SIZE=2 is in the environment, without RANK'),
    (dict(WORLD_SIZE='two'), 'WORLD_SIZE=two is in the environment')])
def test_half_a_launcher(call_command, png, tmp_path, monkeypatch, environment, said):
    for name, value in environment.items(): monkeypatch.setenv(name, value)
    done = call_command('s8fast_train', '--data', png, '--out', tmp_path/'run', *ULTIMUS)
    assert_sentence(done, 's8fast_train', said)
    assert not (tmp_path/'run').exists()


@pytest.mark.slow
def test_a_port_that_is_taken(start, png, tmp_path, monkeypatch):
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    here = dict(WORLD_SIZE='2', RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(store.port))
    for name, value in here.items(): monkeypatch.setenv(name, value)
    status, out, err = end(start(script('s8fast_train'), '--data', png, '--out', tmp_path/'run', *ULTIMUS))
    assert (status, out) == (2, '') and err.count('\n') == 1 and 'is in use: give another MASTER_PORT.' in err


@pytest.mark.slow
def test_the_item_pipeline_is_refused(start, png, tmp_path):
    args = '--data', png, *SHORT, '--pipeline', 'item', '--out', tmp_path/'run'
    status, out, err = end(start(script('s8fast_train'), *args))
    assert status == 2 and err.count('\n') == 1 and '--pipeline item makes its batches image by image' in err
    assert not (tmp_path/'run').exists()


@pytest.fixture(scope='module')
def whole(run_command, png, tmp_path_factory):
    "A run that was not stopped."
    run = tmp_path_factory.mktemp('processes')/'whole'
    args = '--data', png, *SHORT, '--epochs', 12, '--out', run
    done = run_command('s8fast_train', *args, env=dict(OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed(start, whole, png, tmp_path, signum):
    run = tmp_path/'run'
    process = start(script('s8fast_train'), '--data', png, *SHORT, '--epochs', 12, '--out', run)
    after_epoch(process, 2)
    process.send_signal(signum)
    status, _, err = end(process)
    assert status == 128 + signum and err.count('\n') == 1 and f'Stopped by {signum.name} after epoch' in err
    status, out, err = end(start(script('s8fast_train'), '--resume', run, '--processes', 2, '--no_report'))
    assert (status, err) == (0, '') and 'goes on after epoch' in out and 'not what the run was begun with' not in out
    assert weights(run) == weights(whole)
    rows = [[without(row, 'seconds') for row in history_rows(folder)] for folder in (whole, run)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_resumed_in_one_process(start, call_command, png, tmp_path):
    process = start(script('s8fast_train'), '--data', png, *SHORT, '--epochs', 12, '--out', tmp_path/'run')
    after_epoch(process, 2)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 143
    done = call_command('s8fast_train', '--resume', tmp_path/'run', '--no_report')
    assert done.returncode == 0 and 'processes 2, now 1. The rest of it may differ in the last digits.' in done.stdout


@pytest.mark.slow
def test_process_0_is_killed(start, png, tmp_path):
    process = start(script('s8fast_train'), '--data', png, *SHORT, '--epochs', 200, '--out', tmp_path/'run')
    after_epoch(process, 1)
    os.kill(children(process)[0], signal.SIGKILL)
    status, _, err = end(process)
    assert status == 128 + signal.SIGKILL and 'Process 0 was ended by SIGKILL.' in err
    assert 's8fast_train, process 1: Another process of this run has ended' in err and 'Traceback' not in err


@pytest.mark.slow
def test_the_launcher_is_killed(start, png, tmp_path):
    "The processes that it has started write a checkpoint, and end."
    process = start(script('s8fast_train'), '--data', png, *SHORT, '--epochs', 200, '--out', tmp_path/'run')
    after_epoch(process, 1)
    left = children(process)
    process.kill()
    until = time.monotonic() + 30
    while any(Path(f'/proc/{pid}').exists() for pid in left) and time.monotonic() < until: time.sleep(.1)
    assert len(left) == 2 and not any(Path(f'/proc/{pid}').exists() for pid in left)
    assert (tmp_path/'run'/'checkpoint'/'state.safetensors').exists()


@pytest.mark.slow
def test_torchrun(start, png, tmp_path):
    args = '-m', 's8fast', 'train', '--data', png, *SHORT[:-2]
    assert end(start(*TORCHRUN, *args, '--out', tmp_path/'torchrun'))[0] == 0
    assert end(start(script('s8fast_train'), '--data', png, *SHORT, '--out', tmp_path/'ours'))[0] == 0
    found = [load_file(tmp_path/name/'model.safetensors') for name in ('torchrun', 'ours')]
    for name, tensor in found[0].items(): assert torch.allclose(tensor, found[1][name], atol=1e-4), name
    process = start(*TORCHRUN, *args, '--epochs', 200, '--out', tmp_path/'stopped')
    after_epoch(process, 1)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 1  # torchrun's own, whatever its processes end with
    assert (tmp_path/'stopped'/'checkpoint'/'state.safetensors').exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite(start, png, tmp_path):
    args = '--data', png, *SHORT, '--lr_max', 1e6, '--div', 1, '--out', tmp_path/'run'
    status, _, err = end(start(script('s8fast_train'), *args))
    assert status == 3 and err.count('\n') == 1 and 'The loss is not finite in epoch' in err


def test_one_process_is_none_started(call_command, png, tmp_path):
    done = call_command('s8fast_train', '--data', png, *ULTIMUS, '--epochs', 1, '--lr_max', 5e-3, '--processes', 1,
                        '--out', tmp_path/'run')
    assert done.returncode == 0 and 'processes' not in read_json(tmp_path/'run'/'recipe.json')['chosen']
