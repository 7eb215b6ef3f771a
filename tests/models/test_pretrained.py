"Networks that come with the library: the figures beside them are theirs, on the images that they speak of."
import os

import pytest
from helpers import assert_sentence

from s8fast.data.dataset import load_data
from s8fast.models.pretrained import pretrained_names, read_pretrained
from s8fast.runs.evaluate import evaluate_run

ROOT = os.environ.get('S8FAST_DATA')  # read before the tests' environment hides it


def test_a_pretrained_network_on_other_images(call_command, png):
    args = '--data', png, '--device', 'cpu'
    done = call_command('s8fast_evaluate', 'pretrained:custom_resnet', *args)
    assert_sentence(done, 's8fast_evaluate', 'pretrained:custom_resnet was trained on', 'original batches')
    done = call_command('s8fast_evaluate', 'pretrained:nothing', *args)
    assert_sentence(done, 's8fast_evaluate', 'no pretrained network', 'custom_resnet')


@pytest.mark.skipif(not ROOT, reason='S8FAST_DATA names no folder with the real images')
@pytest.mark.parametrize('name', pretrained_names())
def test_the_figures_of_a_pretrained_network_are_of_its_weights(name):
    facts = read_pretrained(name)
    data = load_data(ROOT)
    if data.fingerprint != facts['record']['data']['fingerprint']: pytest.skip('S8FAST_DATA has other images')
    found = evaluate_run(f'pretrained:{name}', data)
    assert abs(found['accuracy'] - facts['test']['accuracy']) <= .001  # another processor decides some images otherwise
