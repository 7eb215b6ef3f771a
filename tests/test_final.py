"`valid_pct=0`: all training images train and none are held out, from the command line to the report."
import csv, json, re

import pytest
from conftest import TINY
from s8fast.callbacks import COLUMNS
from s8fast.files import S8FastError
from s8fast.interpret import predict
from s8fast.learner import load_run
from s8fast.metrics import evaluate

FLAGS = '--model', 'ultimus', '--bs', 16, '--num_workers', 0, '--device', 'cpu', '--lr_max', 3e-3


@pytest.fixture(scope='module')
def final_run(run_command, png, tmp_path_factory):
    "A run of the preset with its report, and the process that made it."
    out = tmp_path_factory.mktemp('final')/'run'
    done = run_command('s8fast_train', '--data', png, '--out', out, '--epochs', 2, '--preset', 'final', *FLAGS)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    return out, done


def test_all_training_images_train(final_run):
    run, done = final_run
    record, metrics = (json.loads((run/o).read_text()) for o in ('recipe.json', 'metrics.json'))
    assert record['recipe']['valid_pct'] == 0 and (record['data']['n_train'], record['data']['n_valid']) == (80, 0)
    assert 'valid' not in metrics and metrics['test']['n'] == 20
    with (run/'history.csv').open(newline='') as f: rows = list(csv.DictReader(f))
    assert len(rows) == 2 and tuple(rows[0]) == COLUMNS
    assert all(o['valid_loss'] == o['valid_accuracy'] == '' and 0 < float(o['train_loss']) for o in rows)
    head, *epochs, last, _ = done.stdout.splitlines()
    assert ': 80 training, 0 validation, 20 test images;' in head and 'valid' not in ''.join(epochs) + last
    assert all(re.fullmatch(r'epoch +\d/2  lr \S+  train loss \S+ acc +\S+%  \S+ s', o) for o in epochs)


def test_its_report_says_so(final_run):
    text = (final_run[0]/'report.html').read_text()
    assert 'no choice was made on this run' in text and 'valid loss' not in text and '<td>none' not in text
    assert '>validation</th>' not in text


def test_what_asks_for_validation_figures_gets_a_sentence(final_run, call_command, png):
    run, _ = final_run
    assert call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu').stdout.startswith('accuracy ')
    done = call_command('s8fast_evaluate', run, '--data', png, '--part', 'valid', '--device', 'cpu')
    assert done.returncode == 2 and 'valid_pct=0' in done.stderr and done.stderr.count('\n') == 1, done.stderr
    with pytest.raises(S8FastError, match='no validation images'): predict(run, 'valid', png, 'cpu')
    learn, _, _ = load_run(run, png, 'cpu')
    with pytest.raises(S8FastError, match='no images to predict'): evaluate(learn, learn.dls.valid)


def test_beside_a_run_with_validation_images(final_run, png_run, call_command, tmp_path):
    for others, what in (([png_run[0]], 'Training'), ([final_run[0]], 'Training')):
        done = call_command('s8fast_report', final_run[0], '--compare', *others, '--out', tmp_path/'both.html')
        assert done.returncode == 0, done.stderr
        text = (tmp_path/'both.html').read_text()
        assert f'alt="{what} loss and accuracy' in text and 'not every run has validation images' in text
        assert ('<td>valid_pct</td>' in text) == (others == [png_run[0]])


def test_several_seeds(call_command, png, tmp_path):
    args = '--data', png, '--out', tmp_path/'runs', '--epochs', 1, '--preset', 'final', *FLAGS
    done = call_command('s8fast_train', *args, '--seeds', '0-1')
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path/'runs'/'summary.json').read_text())
    assert [o['valid_accuracy'] for o in summary['runs']] == [None, None] and summary['data']['n_valid'] == 0
    assert re.search(r'^ +0 +\S+% +\S+% +none +3.00e-03', done.stdout, re.M), done.stdout
    text = (tmp_path/'runs'/'report.html').read_text()
    assert text.count('<td>none</td>') == 2 and 'alt="Training loss and accuracy' in text


def test_the_finder_takes_all_images(call_command, png, tmp_path):
    done = call_command('s8fast_lr_find', '--data', png, '--out', tmp_path/'lr.png', '--preset', 'final', *FLAGS[:-2])
    assert done.returncode == 0 and 'LRMAX' in done.stdout, done.stderr


@pytest.mark.parametrize('command', ['s8fast_train', 's8fast_lr_find'])
def test_final_beside_a_share_held_out(command, call_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call_command(command, '--data', 'digits', '--preset', 'final', *TINY[2:4])
    assert done.returncode == 2 and '--preset final' in done.stderr and '--valid_pct 0.125' in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert not list(tmp_path.iterdir())
