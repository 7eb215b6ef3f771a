"bench/yardstick.py: the recipe of the network's author; it goes on where it was stopped."
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import BENCH, RESULTS, assert_sentence, draw_data, without, write_folders
from safetensors.torch import load_file

YARDSTICK = BENCH/'yardstick.py'
RECORD = (RESULTS/'yardstick-jpeg.json').read_text()


@pytest.mark.parametrize('out, content, says', [
    ('file/out.json', None, 'not be written'),
    ('none.json', '{"seed": 0}', 'is no record of such runs'),
    ('other.json', RECORD, 'other data')], ids=['no folder', 'no record', 'of other data'])
def test_what_it_refuses_before_it_trains(tmp_path, call_command, out, content, says):
    (tmp_path/'file').touch()
    if content: (tmp_path/out).write_text(content)
    assert_sentence(call_command(YARDSTICK, '--device', 'cpu', '--out', tmp_path/out), 'yardstick.py', says)
    if content: assert (tmp_path/out).read_text() == content


def without_clock(path):
    "The runs of a record without the seconds."
    runs = [without(run, 'seconds') for run in json.loads(path.read_text())]
    for run in runs: run['history'] = [without(row, 'seconds') for row in run['history']]
    return runs


def stop_within_an_epoch(args, state):
    "Start the script, and send it SIGINT when there is a checkpoint; its exit status and what it said."
    command = [sys.executable, YARDSTICK, *args]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        while not state.exists() and process.poll() is None: time.sleep(.01)
        process.send_signal(signal.SIGINT)
        _, says = process.communicate()
    return process.returncode, says


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(tmp_path, call_command):
    "Stopped within the second epoch, the same command ends with the figures of a run that was not."
    data = write_folders(tmp_path/'data', draw_data(25, 2))
    args = '--device', 'cpu', '--data', data, '--epochs', 2, '--bs', 64
    whole, out = tmp_path/'whole.json', tmp_path/'out.json'
    state = tmp_path/'out-seed0.checkpoint'
    done = call_command(YARDSTICK, *args, '--out', whole)
    assert done.returncode == 0, done.stderr

    status, says = stop_within_an_epoch([*args, '--out', out], state)
    assert status == 130 and 'goes on from there' in says and json.loads(out.read_text()) == [], says
    other = call_command(YARDSTICK, *args, '--out', out, '--bs', 32)
    assert_sentence(other, 'yardstick.py', 'other options')
    assert state.exists()

    done = call_command(YARDSTICK, *args, '--out', out)
    assert done.returncode == 0, done.stderr
    runs = without_clock(whole), without_clock(out)
    assert runs[0] == runs[1] and len(runs[0]) == 1 and not state.exists()
    logits = [(tmp_path/f'{name}-seed0.safetensors').read_bytes() for name in ('whole', 'out')]
    assert logits[0] == logits[1]


def test_a_checkpoint_that_is_none_is_refused_or_replaced(tmp_path, call_command):
    data = write_folders(tmp_path/'data', draw_data(8, 2))
    (tmp_path/'out-seed0.checkpoint').write_text('epoch,lr\n')
    args = '--device', 'cpu', '--data', data, '--epochs', 1, '--bs', 64, '--valid_pct', 0, '--precision', 'fp32', \
           '--out', tmp_path/'out.json'
    assert_sentence(call_command(YARDSTICK, *args), 'yardstick.py', 'is damaged', '--force')
    done = call_command(YARDSTICK, *args, '--force')
    assert done.returncode == 0 and 'none' in done.stdout, done.stderr
    found, = json.loads((tmp_path/'out.json').read_text())
    assert 'valid' not in found and found['precision'] == 'fp32' and found['recipe']['valid_pct'] == 0
    assert found['history'][0]['valid_loss'] is None
    logits = load_file(tmp_path/'out-seed0.safetensors')
    assert set(logits) == {'test'} and logits['test'].dtype == torch.float16
    right = logits['test'].argmax(1) == torch.arange(10).repeat_interleave(2)
    assert right.double().mean() == found['test']['accuracy']
