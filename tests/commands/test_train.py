"s8fast_train: on every layout and pipeline, into a folder that may hold an earlier run."
import pytest
from helpers import TRAIN_FILES, ULTIMUS, assert_sentence, read_json

from s8fast.runs.record import RUN_FILES

ONE_EPOCH = '--epochs', 1, '--lr_max', 1e-3


def test_force_replaces_the_run_and_nothing_else(call_command, png, tmp_path):
    run, foreign = tmp_path/'run', tmp_path/'run'/'notes.txt'
    run.mkdir()
    for name in RUN_FILES: (run/name).write_text('of an earlier run')
    foreign.write_text('mine')
    done = call_command('s8fast_train', '--data', png, '--out', run, '--force', *ONE_EPOCH, *ULTIMUS)
    assert done.returncode == 0 and foreign.read_text() == 'mine', done.stderr
    assert {path.name for path in run.iterdir()} == {*TRAIN_FILES, 'notes.txt'}  # the rest would be of another run
    assert not any(path.read_bytes() == b'of an earlier run' for path in run.iterdir())


def test_trains_on_the_original_batches(call_command, batches, png, tmp_path):
    done = call_command('s8fast_train', '--data', batches.parent, '--out', tmp_path/'run', *ONE_EPOCH, *ULTIMUS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('ultimus on cifar10 (original batches): 70 training')
    done = call_command('s8fast_evaluate', tmp_path/'run', '--data', png, '--device', 'cpu')
    assert done.returncode == 0, done.stderr  # the same images from files


def test_the_item_pipeline_from_training_to_report(call_command, png, tmp_path):
    run = tmp_path/'run'
    done = call_command('s8fast_train', '--data', png, '--out', run, *ONE_EPOCH, '--pipeline', 'item', *ULTIMUS[:-1])
    assert done.returncode == 0 and 'item pipeline' in done.stdout and (run/'report.html').is_file(), done.stderr
    assert read_json(run/'recipe.json')['recipe']['pipeline'] == 'item'
    accuracy = read_json(run/'metrics.json')['test']['accuracy']
    done = call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu')
    assert done.stdout.startswith(f'accuracy {accuracy:.2%} ')


@pytest.mark.parametrize('args, parts', [
    (['--resume', 'RUN', '--out', 'other'], ['leave --out out']),
    (['--resume', 'RUN', '--force'], ['leave --force out']),
    (['--resume', 'RUN', '--recipe', 'RUN'], ['leave --recipe out']),
    (['--resume', 'no/such/run'], ['no/such/run is no run folder']),
    (['--recipe', 'no/such/run'], ['no run folder']),
    (['--checkpoint_minutes', '-1'], ['checkpoint_minutes=-1.0']),
    (['--checkpoint_minutes', 'nan'], ['checkpoint_minutes=nan']),
    (['--recipe', 'RUN', '--preset', 'default'], ['--recipe and --preset']),
    (['--seeds', '0-1', '--seed', '1'], ['--seeds and --seed'])])
def test_options_that_do_not_go_together(call_command, png_run, tmp_path, monkeypatch, args, parts):
    monkeypatch.chdir(tmp_path)
    args = [png_run.folder if arg == 'RUN' else arg for arg in args]
    assert_sentence(call_command('s8fast_train', *args), 's8fast_train', *parts)
    assert not list(tmp_path.iterdir())


def test_weights_that_explode(call_command, png, tmp_path):
    "A decay that multiplies every weight by a billion a step."
    run = tmp_path/'run'
    done = call_command('s8fast_train', '--data', png, '--out', run, '--epochs', 1, '--lr_max', 1e3, '--wd', 1e6,
                        '--div', 1, *ULTIMUS)
    assert done.returncode == 3 and done.stderr.count('\n') == 1, done.stderr
    for part in ('not finite', 'epoch 1, step', '--lr_max than 1.00e+03', '--force', run):
        assert str(part) in done.stderr
    assert not {'metrics.json', 'model.safetensors'} & {path.name for path in run.iterdir()}  # no result
