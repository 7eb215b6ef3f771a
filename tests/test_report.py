"The report and the comparison: complete, self-contained, and refusing what is no run."
import json, re, shutil

import pytest
from conftest import TINY, VOCAB, draw_data, write_folders
from safetensors.torch import load_file
from test_bad_input import assert_sentence

from s8fast.recipe import Recipe

PICTURES = 'confusion', 'reliability', 'misclassified', 'top_losses', 'gradcam'


@pytest.fixture
def run(png_run, tmp_path): return shutil.copytree(png_run[0], tmp_path/'run')


def edit(run, change):
    "Change a run's recipe.json by hand: it, and the figures, then have no checksum."
    for name, change in (('recipe.json', change), ('metrics.json', lambda metrics: metrics.update(files={}))):
        obj = json.loads((run/name).read_text())
        obj.pop('sha256', None)
        change(obj)
        (run/name).write_text(json.dumps(obj))


def assert_self_contained(page):
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page) and '<script' not in page and '://' not in page
    images = re.findall('<img [^>]*>', page)
    assert images and all(re.search('alt="[^"]{10,}"', o) for o in images)
    return len(images)


def test_report(call_command, run, png):
    done = call_command('s8fast_report', run, '--data', png, '--device', 'cpu')
    assert done.returncode == 0 and done.stdout.strip() == str(run/'report.html'), done.stderr
    page = (run/'report.html').read_text()
    assert assert_self_contained(page) == 8 and 'What attends' not in page  # five of its own, and batch, schedule and curves
    for o in PICTURES: assert (run/f'{o}.png').read_bytes()[:4] == b'\x89PNG'
    metrics = json.loads((run/'metrics.json').read_text())
    for part in ('test', 'valid'):
        for name in ('accuracy', 'accuracy_tta'): assert f'{metrics[part][name]:.2%}' in page
    for name in ('Epochs', 'Recipe', 'Classes', 'Calibration'): assert f'<h2>{name}</h2>' in page


def test_another_network_trains_and_is_reported(call_command, train_run, png):
    run, done = train_run(png, '--model', 'ultimus')
    assert done.stdout.startswith('ultimus on cifar10')
    recipe = json.loads((run/'recipe.json').read_text())['recipe']
    assert (recipe['model'], recipe['cutout'], recipe['bs']) == ('ultimus', 0, 16)  # its own, and what was given
    assert sum(o.numel() for k, o in load_file(run/'model.safetensors').items() if 'running' not in k and 'tracked' not in k) == 26_074
    accuracy = json.loads((run/'metrics.json').read_text())['test']['accuracy']
    assert f'{accuracy:.2%}' in call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu').stdout
    assert call_command('s8fast_report', run, '--data', png, '--device', 'cpu').returncode == 0
    page = (run/'report.html').read_text()
    assert assert_self_contained(page) == 9 and '<h2>What attends to what</h2>' in page and (run/'attention.png').exists()
    assert 'GradCAM at conv3' in page and '<h1>ultimus on cifar10: run</h1>' in page


def test_train_writes_the_report_unless_told_not_to(call_command, png, tmp_path):
    flags = [o for o in TINY if o != '--no_report']
    done = call_command('s8fast_train', '--data', png, '--out', tmp_path/'run', '--epochs', 1, '--lr_max', 1e-3, *flags)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f'report: {tmp_path/"run"/"report.html"}'
    assert (tmp_path/'run'/'report.html').is_file()


def test_class_names_are_escaped(call_command, tmp_path):
    data = write_folders(tmp_path/'data', draw_data(8, 2), vocab=['<b>bold', *VOCAB[1:]])
    assert call_command('s8fast_train', '--data', data, '--out', tmp_path/'run', '--epochs', 1, '--lr_max', 1e-3, *TINY).returncode == 0
    assert call_command('s8fast_report', tmp_path/'run', '--data', data, '--device', 'cpu').returncode == 0
    page = (tmp_path/'run'/'report.html').read_text()
    assert '&lt;b&gt;bold' in page and '<b>bold' not in page


def test_compare(call_command, run, tmp_path):
    other = shutil.copytree(run, tmp_path/'other')
    edit(other, lambda record: record['recipe'].update(wd=0.125))
    done = call_command('s8fast_report', '--compare', run, other, '--out', tmp_path/'both.html')
    assert done.returncode == 0, done.stderr
    page = (tmp_path/'both.html').read_text()
    assert assert_self_contained(page) == 1
    assert f'<td>wd</td><td>{Recipe().wd}</td><td>0.125</td>' in page and '<td>seed</td>' not in page  # only what differs


def test_compare_with_the_first_runs(call_command, run, tmp_path):
    "Their recipes did not say yet by what network and pipeline, padding, cutout, labels and average: it is filled in as it was then."
    other = shutil.copytree(run, tmp_path/'other')
    def as_then(record):
        for name in ('model', 'pipeline', 'pad', 'cutout', 'deterministic', 'pad_mode', 'label_smoothing', 'average', 'bn_momentum', 'winograd'): del record['recipe'][name]
        del record['chosen']['winograd']
        record.update(version=1, model='custom_resnet')
    edit(other, as_then)
    (other/'metrics.json').write_text(json.dumps({k: v for k, v in json.loads((other/'metrics.json').read_text()).items() if k not in ('version', 'files', 'sha256')}))
    assert call_command('s8fast_report', '--compare', run, other, '--out', tmp_path/'both.html').returncode == 0
    page = (tmp_path/'both.html').read_text()
    for row in ('pipeline</td><td>batch</td><td>item', 'pad_mode</td><td>reflect</td><td>zeros', 'label_smoothing</td><td>0.2</td><td>0.0', 'average</td><td>1.0</td><td>0.0'): assert f'<td>{row}</td>' in page, row
    assert not re.search('<td>(model|pad|cutout)</td>', page)


@pytest.mark.parametrize('args, parts', [
    ([], ['No run', '--compare']),
    (['no/such/run', '--data', 'digits'], ['no/such/run', 'recipe.json']),
    (['RUN', '--data', 'digits'], ['The data (digits, ', 'is not what', 'PNG files']),
    (['RUN', '--data', 'PNG', '--layers', 'layer9'], ['layer9', 'layer3.1.conv2']),
    (['RUN', '--data', 'PNG', '--layers', 'fc'], ['Layer fc has no height']),
    (['--compare', 'RUN'], ['1 run', 'two or more']),
    (['--compare', 'RUN', 'no/such/run'], ['no/such/run', 'recipe.json']),
    (['--compare', 'RUN', 'RUN', '--out', 'missing/both.html'], ['missing/both.html', '--out'])])
def test_refused(call_command, run, png, args, parts):
    before = {o.name for o in run.iterdir()}
    args = [{'RUN': run, 'PNG': png}.get(o, o) for o in args]
    assert_sentence(call_command('s8fast_report', *args, '--device', 'cpu'), 's8fast_report', *parts)
    assert {o.name for o in run.iterdir()} == before


def test_run_without_figures(call_command, run, png):
    (run/'metrics.json').unlink()
    assert_sentence(call_command('s8fast_report', run, '--data', png, '--device', 'cpu'), 's8fast_report', 'metrics.json', 'finish')
