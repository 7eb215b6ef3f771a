"What the report says about confidence: the surest images, and images of none of the classes."
import re
import shutil

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


def test_the_sections(call_command, run, png):
    assert call_command('s8fast_report', run, '--data', png, '--device', 'cpu').returncode == 0
    page = (run/'report.html').read_text()
    words = re.sub(r'base64,[^"]*', '', page)
    for kind in ('uniform noise', 'colour clouds', 'gratings', 'digits'): assert f'>{kind}</' in words
    assert '20 images of each kind' in words and 'risk-coverage' in words
    assert all((run/f'{name}.png').read_bytes()[:4] == b'\x89PNG' for name in ('selective', 'unfamiliar'))


def test_a_network_that_was_trained_on_digits(digits_run, tmp_path):
    run = shutil.copytree(digits_run.folder, tmp_path/'run')
    learn, data, _ = load_run(run, 'digits', 'cpu')
    p = predict(learn, 'test', data)
    found = measure_unfamiliar(learn, p, data, 8)
    assert 'digits' not in [kind.name for kind in found] and len(found) == 5
    assert all(len(kind.p.logits) == 8 and 0 <= kind.auroc <= 1 for kind in found)
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
    sure = predictions([[300, 0, 0], [0, 200, 0], [0, 0, 100], [0, 1, 0]], [0, 1, 2, 0])
    assert (sure.probs.amax(1)[:3] == 1).all() and doubts(sure.logits).argsort().tolist() == [0, 1, 2, 3]
    assert selective(sure).accuracies.tolist() == selective(sure).best.tolist() == [1, 1, 1, .75]
    assert selective(sure).kept() == 3 and '75.00% are 99% right: for that, 1 of 4' in selective_text(sure)
    wrong = predictions([[300, 0, 0], [0, 1, 0]], [1, 1])
    assert selective(wrong).kept() == 0 and selective_text(wrong).startswith('No part of the images')
    for p in (sure, wrong, predictions([[1, 0]], [0]), predictions([[1, 0]], [1], 2.)): plot_selective(p)


def test_the_temperature_may_change_the_order():
    p = predictions([[4, 3.5, 0, 0, 0, 0], [4, 2.9, 2.9, 2.9, 2.9, 2.9]], [0, 0], .1)
    assert doubts(p.logits).argsort().tolist() != doubts(p.scaled).argsort().tolist()
