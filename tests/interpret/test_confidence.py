"How sure a network is: the surest images, and images of none of the classes; test_report.py has the page."
import shutil
from dataclasses import replace

import numpy as np
import torch

from s8fast.interpret.confidence import doubts, measure_unfamiliar, plot_selective, selective, selective_text
from s8fast.interpret.confidence import unfamiliar_section
from s8fast.interpret.predictions import Predictions, predict
from s8fast.runs.evaluate import load_run


def predictions(logits, targets, temperature=None):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    names, images = tuple('abcdefghij'[:logits.shape[1]]), np.zeros((len(logits), 32, 32, 3), np.uint8)
    return Predictions(images, logits, torch.as_tensor(targets), names, temperature)


def test_a_network_that_was_trained_on_digits(digits_run, tmp_path):
    run = shutil.copytree(digits_run.folder, tmp_path/'run')
    learn, data, _ = load_run(run, 'digits', 'cpu')
    p = predict(learn, 'test', data)
    found = measure_unfamiliar(learn, p, data, 8)
    assert 'digits' not in [kind.name for kind in found] and len(found) == 5
    assert all(len(kind.p.logits) == 8 and 0 <= kind.auroc <= 1 for kind in found)
    own = measure_unfamiliar(learn, p, replace(data, name='numbers'), 8)  # nobody knows what these classes are
    assert [kind.name for kind in own] == ['uniform noise', 'Gaussian noise']
    again = measure_unfamiliar(learn, p, data, 8)
    assert [kind[2:] for kind in found] == [kind[2:] for kind in again]


def test_an_overflow_is_no_error(digits_run):
    learn, data, _ = load_run(digits_run.folder, 'digits', 'cpu')
    p = predict(learn, 'test', data)
    for parameter in learn.model.parameters(): parameter.data.fill_(torch.inf)
    found = measure_unfamiliar(learn, p, data, 4)
    assert [kind.auroc for kind in found] == [None]*5
    assert all(row[3] == 'none' for row in unfamiliar_section(found, ()).rows)


def test_the_surest_images():
    sure = predictions([[0, 1, 0], [0, 0, 100], [0, 200, 0], [300, 0, 0]], [0, 2, 1, 0])
    assert (sure.probs.amax(1)[1:] == 1).all() and doubts(sure.logits).argsort().tolist() == [3, 2, 1, 0]
    assert selective(sure).accuracies.tolist() == selective(sure).best.tolist() == [1, 1, 1, .75]
    assert selective(sure).kept() == 3 and '75.00% are at least 99% right: for that, 1 of 4' in selective_text(sure)
    wrong = predictions([[300, 0, 0], [0, 1, 0]], [1, 1])
    assert selective(wrong).kept() == 0 and selective_text(wrong).startswith('No part of the images')
    for p in (sure, wrong, predictions([[1, 0]], [0]), predictions([[1, 0]], [1], 2.)): plot_selective(p)


def test_the_temperature_may_change_the_order():
    p = predictions([[4, 3.5, 0, 0, 0, 0], [4, 2.9, 2.9, 2.9, 2.9, 2.9]], [0, 0], .1)
    assert doubts(p.logits).argsort().tolist() != doubts(p.scaled).argsort().tolist()
