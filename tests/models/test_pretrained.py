"Networks that come with the library: the figures beside them are theirs, on the images that they speak of."
import os

import pytest
from helpers import assert_sentence

from s8fast.data.dataset import load_data
from s8fast.models.pretrained import pretrained_files, pretrained_names, read_facts
from s8fast.runs.evaluate import evaluate_run

ROOT = os.environ.get('S8FAST_DATA')  # read before the tests' environment hides it


def test_a_pretrained_network_on_other_images(call_command, png):
    done = call_command('s8fast_evaluate', 'pretrained:custom_resnet', '--data', png, '--device', 'cpu')
    assert done.returncode == 0 and done.stdout.startswith('accuracy '), done.stderr
    assert 'figures beside pretrained:custom_resnet are of other images' in done.stderr and 'PNG files' in done.stderr


@pytest.mark.parametrize('args, parts', [
    (['pretrained:custom_resnet', '--data', 'digits'], ['pretrained:custom_resnet was trained on', 'classes']),
    (['pretrained:custom_resnet', '--data', 'digits', '--part', 'valid'], ['no validation images']),
    (['pretrained:nothing', '--data', 'digits'], ['no pretrained network', 'custom_resnet']),
    (['pretrained:../../x', '--data', 'digits'], ['no pretrained network'])])
def test_what_no_pretrained_network_can_do(call_command, args, parts):
    assert_sentence(call_command('s8fast_evaluate', *args, '--device', 'cpu'), 's8fast_evaluate', *parts)


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason='S8FAST_DATA names no folder with the real images')
@pytest.mark.parametrize('name', pretrained_names())
def test_the_figures_of_a_pretrained_network_are_of_its_weights(name):
    facts = read_facts(pretrained_files(name))
    data = load_data(ROOT)
    if data.edition != facts['record']['data']['edition']: pytest.skip(f'S8FAST_DATA has {data.edition}')
    same = data.fingerprint == facts['record']['data']['fingerprint']
    found = evaluate_run(f'pretrained:{name}', data)
    allowed = .001 if same else .004  # another processor decides some images otherwise; 25 images may be others
    assert abs(found['accuracy'] - facts['test']['accuracy']) <= allowed
