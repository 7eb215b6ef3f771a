"fastai knows callbacks by the names of their classes: none of ours has the name of one of fastai's."
import importlib
import os
import pkgutil
import subprocess
import sys

import fastai.callback
import pytest
import s8fast
from fastai.callback.core import Callback

from s8fast.recipe import make_recipe
from s8fast.training.learner import get_learner


def classes_in(package):
    "The names of the callbacks that a package defines."
    found = set()
    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
        if module.name.endswith('__main__'): continue
        try: loaded = importlib.import_module(module.name)
        except ImportError: continue  # a callback for a library that is not there
        for o in vars(loaded).values():
            if isinstance(o, type) and issubclass(o, Callback) and o.__module__ == module.name: found.add(o.__name__)
    return found


def test_no_callback_has_a_name_of_fastais():
    ours, theirs = classes_in(s8fast), classes_in(fastai.callback)
    assert {'History', 'WeightAverage', 'SaveCheckpoint', 'OneCycle'} <= ours and 'ChannelsLast' in theirs
    assert not ours & theirs


def test_a_learner_keeps_no_attribute_that_load_learner_asks_for():
    learn = get_learner(make_recipe('ultimus', device='cpu'), 'digits')
    assert not hasattr(learn, 'channels_last') and not hasattr(learn, 'mixed_precision')


LOAD = '''
import sys
import numpy as np
from fastai.learner import load_learner
from fastai.vision.core import PILImage
learn = load_learner(sys.argv[1])
image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
with learn.no_bar(): print(learn.predict(PILImage.create(image))[0])
'''

@pytest.mark.slow
@pytest.mark.parametrize('pipeline', ['batch', 'item'])
def test_an_exported_learner_is_loaded_and_predicts_a_photograph(tmp_path, pipeline):
    recipe = make_recipe('custom_resnet', device='cpu', pipeline=pipeline, num_workers=0)
    learn = get_learner(recipe, 'digits')
    learn.path = tmp_path
    learn.export('learner.pkl')
    assert os.path.getsize(tmp_path/'learner.pkl') < 27_000_000  # the weights; the digits alone are 5.5 MB more
    done = subprocess.run([sys.executable, '-c', LOAD, tmp_path/'learner.pkl'], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in list('0123456789'), done.stderr
