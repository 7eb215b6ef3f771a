"`valid_pct=0`: all training images train and none are held out, from the command line to the report."
import re

import pytest
from helpers import ULTIMUS, assert_sentence, history_rows, read_json

from s8fast.errors import S8FastError
from s8fast.interpret.predictions import predict
from s8fast.runs.evaluate import load_run
from s8fast.training.history import COLUMNS
from s8fast.training.metrics import evaluate

FINAL = '--preset', 'final', *ULTIMUS[:-3]
EPOCH = r'epoch +\d/2  lr \S+  train loss \S+ acc +\S+%  \S+ s'


def test_all_training_images_train(final_run):
    record, metrics = (read_json(final_run.folder/name) for name in ('recipe.json', 'metrics.json'))
    assert record['recipe']['valid_pct'] == 0
    assert (record['data']['n_train'], record['data']['n_valid']) == (80, 0)
    assert 'valid' not in metrics and metrics['test']['n'] == 20


def test_its_history_has_no_validation_figures(final_run):
    rows = history_rows(final_run.folder)
    assert len(rows) == 2 and tuple(rows[0]) == COLUMNS
    assert all(row['valid_loss'] == row['valid_accuracy'] == '' and 0 < float(row['train_loss']) for row in rows)
    head, *epochs, temperature, last, _ = final_run.stdout.splitlines()
    assert ': 80 training, 0 validation, 20 test images;' in head and 'valid' not in ''.join(epochs) + last
    assert temperature.startswith('no temperature: no images were held out')
    assert all(re.fullmatch(EPOCH, line) for line in epochs)
    assert final_run.stderr == ''


def test_its_report_says_so(final_run):
    text = (final_run.folder/'report.html').read_text()
    assert 'no choice was made on this run' in text
    assert 'valid loss' not in text and '<td>none' not in text and '>validation</th>' not in text


def test_what_asks_for_validation_figures_gets_a_sentence(final_run, call_command, png):
    run = final_run.folder
    assert call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu').stdout.startswith('accuracy ')
    done = call_command('s8fast_evaluate', run, '--data', png, '--part', 'valid', '--device', 'cpu')
    assert_sentence(done, 's8fast_evaluate', 'valid_pct=0')
    with pytest.raises(S8FastError, match='no validation images'): predict(run, 'valid', png, 'cpu')
    learn, _, _ = load_run(run, png, 'cpu')
    with pytest.raises(S8FastError, match='no images to predict'): evaluate(learn, learn.dls.valid)


def test_beside_a_run_with_validation_images(final_run, png_run, call_command, tmp_path):
    for other in (png_run.folder, final_run.folder):
        page = tmp_path/'both.html'
        done = call_command('s8fast_report', final_run.folder, '--compare', other, '--out', page)
        assert done.returncode == 0, done.stderr
        text = page.read_text()
        assert 'alt="Training loss and accuracy' in text and 'not every run has validation images' in text
        assert ('<td>valid_pct</td>' in text) == (other == png_run.folder)


@pytest.mark.slow
def test_several_seeds(call_command, png, tmp_path):
    out = tmp_path/'runs'
    done = call_command('s8fast_train', '--data', png, '--out', out, '--epochs', 1, *FINAL, '--lr_max', 3e-3,
                        '--seeds', '0-1')
    assert done.returncode == 0, done.stderr
    summary = read_json(out/'summary.json')
    assert [run['valid_accuracy'] for run in summary['runs']] == [None, None] and summary['data']['n_valid'] == 0
    assert re.search(r'^ +0 +\S+% +\S+% +none +3.00e-03', done.stdout, re.M), done.stdout
    text = (out/'report.html').read_text()
    assert text.count('<td>none</td>') == 2 and 'alt="Training loss and accuracy' in text


def test_the_finder_takes_all_images(call_command, png, tmp_path):
    done = call_command('s8fast_lr_find', '--data', png, '--out', tmp_path/'lr.png', *FINAL)
    assert done.returncode == 0 and 'LRMAX' in done.stdout, done.stderr


@pytest.mark.parametrize('command', ['s8fast_train', 's8fast_lr_find'])
def test_the_preset_beside_a_share_held_out(command, call_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call_command(command, '--data', 'digits', '--preset', 'final', '--valid_pct', 0.125)
    assert_sentence(done, command, '--preset final', '--valid_pct 0.125')
    assert not list(tmp_path.iterdir())
