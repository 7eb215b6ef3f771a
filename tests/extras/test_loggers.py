"`s8fast_train --log`: the run in TensorBoard and in Weights & Biases, beside its own folder."
import csv

import pytest
from helpers import TINY, assert_sentence, read_json

pytestmark = pytest.mark.slow
FAST = '--model', 'ultimus', *TINY, '--epochs', 2, '--lr_max', 3e-3


def test_tensorboard(run_command, png, tmp_path):
    "The losses of the epochs are those of history.csv; --force takes the earlier ones away with the run."
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    out = tmp_path/'run'
    for force in ([], ['--force']):
        done = run_command('s8fast_train', '--data', png, '--out', out, *FAST, '--log', 'tensorboard', *force)
        assert done.returncode == 0, done.stderr
    found = reader.EventAccumulator(str(out/'tensorboard'))
    found.Reload()
    with (out/'history.csv').open(newline='') as f: rows = list(csv.DictReader(f))
    losses = [event.value for event in found.Scalars('valid_loss')]
    assert losses == pytest.approx([float(row['valid_loss']) for row in rows], rel=1e-4)
    assert len(found.Scalars('lr_0')) >= 2
    assert run_command('s8fast_evaluate', out, '--data', png, '--device', 'cpu').returncode == 0


def test_wandb(run_command, png, tmp_path):
    "Offline: nothing is sent. The weights are those of a run without it."
    pytest.importorskip('wandb')
    env = dict(WANDB_MODE='offline', WANDB_DIR=str(tmp_path), WANDB_SILENT='true')
    for name, more in (('logged', ['--log', 'wandb']), ('alone', [])):
        done = run_command('s8fast_train', '--data', png, '--out', tmp_path/name, *FAST, *more, env=env)
        assert done.returncode == 0, done.stderr
    assert list((tmp_path/'wandb').glob('offline-run-*/*.wandb'))
    digests = [read_json(tmp_path/name/'metrics.json')['files']['model.safetensors'] for name in ('logged', 'alone')]
    assert digests[0] == digests[1]


def test_wandb_without_a_login(run_command, png, tmp_path):
    pytest.importorskip('wandb')
    env = dict(WANDB_DIR=str(tmp_path), HOME=str(tmp_path), NETRC=str(tmp_path/'netrc'), WANDB_SILENT='true')
    done = run_command('s8fast_train', '--data', png, '--out', tmp_path/'run', *FAST, '--log', 'wandb', env=env)
    assert done.returncode == 2 and 'wandb login' in done.stderr and 'Traceback' not in done.stderr, done.stderr
    assert not (tmp_path/'run').exists()


def test_what_is_refused_begins_nothing(run_command, png, tmp_path):
    pytest.importorskip('wandb')
    (tmp_path/'run').write_text('a file')
    env = dict(WANDB_MODE='offline', WANDB_DIR=str(tmp_path), WANDB_SILENT='true')
    done = run_command('s8fast_train', '--data', png, '--out', tmp_path/'run', *FAST, '--log', 'wandb', env=env)
    assert done.returncode == 2 and 'is a file, not a folder' in done.stderr, done.stderr
    assert not (tmp_path/'wandb').exists()


def test_one_run_only(call_command):
    done = call_command('s8fast_train', '--seeds', '0-1', '--log', 'wandb')
    assert_sentence(done, 's8fast_train', '--log is for one run')
