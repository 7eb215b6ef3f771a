"report.html: complete, self-contained, and refusing what is no run."
import shutil

import pytest
from helpers import TINY, VOCAB, assert_sentence, draw_data, read_json, write_folders
from pages import assert_self_contained
from safetensors.torch import load_file

PICTURES = 'confusion', 'reliability', 'selective', 'misclassified', 'labels', 'top_losses', 'gradcam', 'unfamiliar'
WITH_REPORT = TINY[:-1]


def assert_complete(page, metrics):
    "The page has its sections and every figure of `metrics`."
    for part in ('test', 'valid'):
        for name in ('accuracy', 'accuracy_tta'): assert f'{metrics[part][name]:.2%}' in page
    for name in ('Epochs', 'Recipe', 'Classes', 'Calibration'): assert f'<h2>{name}</h2>' in page


def test_the_report_of_the_resnet(call_command, resnet_run, png, tmp_path):
    run = shutil.copytree(resnet_run.folder, tmp_path/'run')
    done = call_command('s8fast_report', run, '--data', png, '--device', 'cpu')
    assert done.returncode == 0 and done.stdout.strip() == str(run/'report.html'), done.stderr
    page = (run/'report.html').read_text()
    assert assert_self_contained(page) == 11  # eight of its own, and batch, schedule and curves
    assert 'What attends' not in page and 'GradCAM at layer3' in page
    for name in PICTURES: assert (run/f'{name}.png').read_bytes()[:4] == b'\x89PNG'
    assert_complete(page, read_json(run/'metrics.json'))


def test_the_report_of_ultimus(call_command, png_run, run, png):
    assert png_run.stdout.startswith('ultimus on cifar10')
    recipe = read_json(run/'recipe.json')['recipe']
    assert (recipe['model'], recipe['cutout'], recipe['bs']) == ('ultimus', 0, 16)  # its preset, and what was given
    weights = load_file(run/'model.safetensors')
    trained = [tensor for name, tensor in weights.items() if 'running' not in name and 'tracked' not in name]
    assert sum(tensor.numel() for tensor in trained) == 26_074
    assert call_command('s8fast_report', run, '--data', png, '--device', 'cpu').returncode == 0
    page = (run/'report.html').read_text()
    assert assert_self_contained(page) == 12 and '<h2>What attends to what</h2>' in page
    assert (run/'attention.png').exists()
    for part in ('risk-coverage', '20 images of each kind', '>digits</', 'labels of the test'): assert part in page
    assert 'GradCAM at conv3' in page and '<h1>ultimus on cifar10: run</h1>' in page
    assert_complete(page, read_json(run/'metrics.json'))


def test_train_writes_it_unless_told_not_to(call_command, png, tmp_path):
    run = tmp_path/'run'
    done = call_command('s8fast_train', '--data', png, '--out', run, '--model', 'ultimus', '--epochs', 1,
                        '--lr_max', 1e-3, *WITH_REPORT)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f'report: {run/"report.html"}', done.stderr
    assert (run/'report.html').is_file()


def test_class_names_are_escaped(call_command, tmp_path):
    data, run = tmp_path/'data', tmp_path/'run'
    write_folders(data, draw_data(8, 2), vocab=['<b>bold', *VOCAB[1:]])
    done = call_command('s8fast_train', '--data', data, '--out', run, '--model', 'ultimus', '--epochs', 1,
                        '--lr_max', 1e-3, *WITH_REPORT)
    assert done.returncode == 0, done.stderr
    page = (run/'report.html').read_text()
    assert '&lt;b&gt;bold' in page and '<b>bold' not in page


@pytest.mark.parametrize('args, parts', [
    ([], ['No run', '--compare']),
    (['no/such/run', '--data', 'digits'], ['no/such/run', 'recipe.json']),
    (['RUN', '--data', 'digits'], ['The data is not what', 'data: digits, cifar10', 'PNG files']),
    (['RUN', '--data', 'PNG', '--layers', 'layer9'], ['layer9', 'conv3.conv']),
    (['RUN', '--data', 'PNG', '--layers', 'fc'], ['Layer fc has no height'])])
def test_what_is_refused(call_command, run, png, args, parts):
    before = {path.name for path in run.iterdir()}
    args = [{'RUN': run, 'PNG': png}.get(arg, arg) for arg in args]
    assert_sentence(call_command('s8fast_report', *args, '--device', 'cpu'), 's8fast_report', *parts)
    assert {path.name for path in run.iterdir()} == before


def test_a_run_without_figures(call_command, run, png):
    (run/'metrics.json').unlink()
    done = call_command('s8fast_report', run, '--data', png, '--device', 'cpu')
    assert_sentence(done, 's8fast_report', 'metrics.json', 'finish')
