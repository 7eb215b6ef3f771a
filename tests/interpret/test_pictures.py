"Pictures are decoration: none costs a result, whatever backend is set; and text from outside is shown as it is."
import os
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import short_runs
import torch
from helpers import ON_CPU, assert_sentence, draw_data, read_json, write_folders

import s8fast.interpret.report
import s8fast.runs.pictures
from s8fast.data.loaders import get_dls
from s8fast.figures import as_text
from s8fast.interpret.compare import compare_runs
from s8fast.interpret.plots import plot_confusion, plot_misclassified, plot_top_losses
from s8fast.interpret.predictions import Predictions
from s8fast.interpret.report import write_report
from s8fast.runs.train import train

NAMES = '$5_$10', '_hidden', 'caf\udce9', 'a^b_{c', '<b>bold&', '%s %d', 'naïve ∂ → 猫', '\\frac', '$', 'x'*80
SHORT = '--model', 'ultimus', *ON_CPU, '--epochs', 1, '--lr_max', 1e-3, '--valid_pct', .125


def quiet(line): pass


# Text from outside

@pytest.fixture(scope='module')
def odd(once):
    "A data set whose class names are odd ones, in image folders."
    return once('odd_names', lambda folder: write_folders(folder, draw_data(8, 2), vocab=NAMES))


@pytest.mark.filterwarnings('ignore:Glyph')
def test_odd_class_names_from_training_to_report(call_command, odd, tmp_path):
    run = tmp_path/'_$run_$1'
    done = call_command('s8fast_train', '--data', odd, '--out', run, *SHORT)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    pictures = {path.name for path in run.glob('*.png')}
    assert {'batch.png', 'confusion.png', 'misclassified.png', 'gradcam.png'} <= pictures
    page = (run/'report.html').read_text()
    assert '&lt;b&gt;bold&amp;' in page and '<b>bold' not in page
    assert r'caf\udce9' in page and '$5_$10' in page and 'were not drawn' not in page
    done = call_command('s8fast_evaluate', run, '--data', odd, '--device', 'cpu')
    assert done.returncode == 0 and '$5_$10' in done.stdout and r'caf\udce9' in done.stdout, done.stderr
    assert '_$run_$1' in compare_runs([run, run], tmp_path/'both.html').read_text()


@pytest.mark.filterwarnings('ignore:Glyph')
def test_names_are_shown_letter_by_letter(tmp_path):
    n = len(NAMES)
    logits = np.roll(np.eye(n, dtype=np.float32)*9, 1, axis=1)
    p = Predictions(np.zeros((n, 32, 32, 3), np.uint8), torch.from_numpy(logits), torch.arange(n), NAMES)
    for fig in (plot_confusion(p), plot_misclassified(p), plot_top_losses(p)):
        fig.canvas.draw()  # mathematics would fail here
        shown = ' '.join(text.get_text() for text in fig.findobj(match=lambda o: hasattr(o, 'get_text')))
        assert as_text('$5_$10') in shown and r'caf\udce9' in shown


def test_a_batch_is_shown_with_any_names():
    data = replace(short_runs.few_digits(), vocab=NAMES)
    for pipeline in ('batch', 'item'):
        dls = get_dls(data, bs=32, valid_pct=.1, pipeline=pipeline, num_workers=0)
        dls.show_batch(max_n=9)
        plt.gcf().canvas.draw()
        assert all(ax.get_title() in map(as_text, NAMES) for ax in plt.gcf().axes)
        plt.close('all')


# A picture that fails

def broken(*args, **kwargs): raise ValueError('Expected end of text, found $')

def test_a_picture_of_the_training_that_fails(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(s8fast.runs.pictures, 'plot_batch', broken)
    metrics = train(short_runs.recipe(epochs=1), short_runs.few_digits(), tmp_path/'run', log=lines.append)
    assert read_json(tmp_path/'run'/'metrics.json')['test'] == metrics['test']
    assert not (tmp_path/'run'/'batch.png').exists() and not (tmp_path/'run'/'checkpoint').exists()
    assert any('batch.png was not drawn (ValueError: Expected end' in line for line in lines)
    monkeypatch.undo()
    write_report(tmp_path/'run', short_runs.few_digits(), 'cpu')
    assert (tmp_path/'run'/'batch.png').exists()  # the report draws what is missing


def test_a_picture_of_the_report_that_fails(run, png, monkeypatch):
    monkeypatch.setattr(s8fast.interpret.report, 'plot_gradcam', broken)
    (run/'gradcam.png').write_bytes(b'of an earlier report')
    with pytest.warns(UserWarning, match='gradcam.png was not drawn'): path = write_report(run, png, 'cpu')
    page = path.read_text()
    assert 'Pictures that are missing' in page and 'Expected end of text' in page
    assert not (run/'gradcam.png').exists() and (run/'confusion.png').exists()


def test_metrics_vouch_for_no_picture(run, png):
    assert set(read_json(run/'metrics.json')['files']) == {'recipe.json', 'history.csv', 'model.safetensors'}
    (run/'curves.png').write_bytes(b'drawn by hand')
    write_report(run, png, 'cpu')


# Whatever the backend

@pytest.mark.parametrize('backend', ['nonsense', pytest.param('module://no_such_backend', marks=pytest.mark.slow)])
def test_a_backend_that_is_not_there(run_command, tmp_path, backend):
    flags = '--data', 'digits', '--out', tmp_path/'run', *SHORT[:-1], .7, '--bs', 64, '--no_report'
    done = run_command('s8fast_train', *flags, env=dict(MPLBACKEND=backend))
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert {'metrics.json', 'curves.png', 'batch.png'} <= {path.name for path in (tmp_path/'run').iterdir()}


IN_A_SCRIPT = '''
import sys
from s8fast.training.history import plot_history
from s8fast.figures import save_figure
row = dict(epoch=1, lr=1e-3, train_loss=2., train_accuracy=.1, valid_loss=2., valid_accuracy=.2, seconds=1.)
save_figure(plot_history([row]), sys.argv[1])
'''

def test_a_script_needs_no_backend_either(tmp_path):
    done = subprocess.run([sys.executable, '-c', IN_A_SCRIPT, tmp_path/'a.png'], capture_output=True, text=True,
                          env={**os.environ, 'MPLBACKEND': 'module://no_such_backend'})
    assert done.returncode == 0 and (tmp_path/'a.png').read_bytes()[:4] == b'\x89PNG', done.stderr


# Two writers

def test_two_reports_of_one_run_at_once(run, png):
    both = [short_runs.Command(run.parent, 's8fast_report', run, '--data', png, '--device', 'cpu') for _ in range(2)]
    for command in both: assert command.wait()[0] == 0
    assert (run/'report.html').read_text().rstrip().endswith('</html>') and not list(run.glob('*.tmp'))


def test_compare_needs_a_file_to_write(call_command, png_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = '--compare', png_run.folder, png_run.folder, '--out'
    assert_sentence(call_command('s8fast_report', *args, '.'), 's8fast_report', '. is a folder', '--out')
