"CIFAR-10 itself, where `$S8FAST_DATA` names its folder."
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from helpers import VOCAB

from s8fast.data.dataset import load_folder
from s8fast.data.images import CIFAR10_STATS, split
from s8fast.recipe import Recipe
from s8fast.runs.train import train

ROOT = os.environ.get('S8FAST_DATA')  # read before the tests' environment hides it
pytestmark = pytest.mark.skipif(not ROOT, reason='S8FAST_DATA names no folder with the real images')


@pytest.fixture(scope='module')
def cifar10(): return load_folder(ROOT, cache=False)


def test_parts_and_classes(cifar10):
    assert cifar10.name == 'cifar10' and cifar10.vocab == tuple(VOCAB)
    for part, n in (('train', 50_000), ('test', 10_000)):
        images, labels = (getattr(cifar10, f'{part}_{kind}') for kind in ('images', 'labels'))
        assert images.shape == (n, 32, 32, 3) and images.dtype == np.uint8 and labels.dtype == np.int64
        assert np.bincount(labels).tolist() == [n//10]*10


def test_statistics(cifar10):
    mean = cifar10.train_images.reshape(-1, 3).mean(0)
    pieces = np.array_split(cifar10.train_images, 50)  # the squares of all at once would take gigabytes
    squares = [(piece.reshape(-1, 3).astype(np.float32)**2).mean(0) for piece in pieces]
    std = np.sqrt(np.mean(squares, axis=0) - mean**2)
    assert mean/255 == pytest.approx(CIFAR10_STATS[0], abs=0.01)
    assert std/255 == pytest.approx(CIFAR10_STATS[1], abs=0.01)


def test_split_is_stratified(cifar10):
    for valid_pct, n in ((0.04, 2_000), (0.1, 5_000)):
        parts = split(cifar10.train_labels, valid_pct)
        assert [len(part) for part in parts] == [50_000 - n, n] and len(np.union1d(*parts)) == 50_000
        assert np.bincount(cifar10.train_labels[parts[1]]).tolist() == [n//10]*10


def test_pictures_of_a_class_look_alike_in_both_parts(cifar10):
    "The mean image of a class is nearest to that of the same class; labels in another order in one part would not fit."
    def means(images, labels): return np.stack([images[labels == label].mean(0).ravel() for label in range(10)])
    train = means(cifar10.train_images, cifar10.train_labels)
    test = means(cifar10.test_images, cifar10.test_labels)
    distance = ((test[:, None] - train)**2).mean(-1)
    assert distance.argmin(1).tolist() == list(range(10))


@pytest.mark.slow
def test_training_learns(cifar10, tmp_path):
    few = split(cifar10.train_labels, 512/50_000)[1]
    some = split(cifar10.test_labels, 0.02)[1]
    data = replace(cifar10, train_images=cifar10.train_images[few], train_labels=cifar10.train_labels[few],
                   test_images=cifar10.test_images[some], test_labels=cifar10.test_labels[some])
    lines = []
    recipe = Recipe(epochs=2, bs=16, lr_max=3e-3, div=10., num_workers=0)
    metrics = train(recipe, data, tmp_path/'run', log=lines.append)
    assert '492 training, 20 validation, 200 test images' in lines[0]
    first, second = (float(line.split('train loss')[1].split()[0]) for line in lines[1:3])
    assert second < first and max(second, metrics['test']['loss']) < math.log(10)  # what guessing costs
