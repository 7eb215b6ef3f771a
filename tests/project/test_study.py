"bench/study.py: choices side by side on validation images, and the picture of them."
import copy
import importlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import SGD
from helpers import BENCH, assert_sentence
from PIL import Image
from short_runs import few_digits
from torch import nn

from s8fast.recipe import Recipe, make_recipe
from s8fast.training.learner import get_learner

ROWS = 'lr_max=0.003', 'lr_max=0.003,wd=0.5'


@pytest.fixture(scope='module')
def study(once):
    "A study of two rows and two seeds: its arguments, its file, what it printed."
    arguments = '--model', 'ultimus', '--epochs', 1, '--bs', 64, '--share', .3, '--averages', '.5', '--device', 'cpu', \
                '--seeds', '0-1'
    def make(folder):
        folder.mkdir()
        command = [sys.executable, BENCH/'study.py', *ROWS, *arguments, '--out', folder/'study.json']
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                              env={**os.environ, 'PYTHONWARNINGS': 'ignore'})
        assert done.returncode == 0, done.stderr
        (folder/'stdout').write_text(done.stdout)
    folder = once('study', make)
    return SimpleNamespace(arguments=arguments, path=folder/'study.json', stdout=(folder/'stdout').read_text())


def cells(line): return line.replace('|', ' ').split()


def test_a_study(study):
    trials = json.loads(study.path.read_text())
    found = [(trial['row'], trial['recipe']['seed'], trial['recipe']['wd']) for trial in trials]
    assert found == [(row, seed, wd) for seed in (0, 1) for row, wd in zip(ROWS, (.05, .5))]
    assert all(trial['n_train'] + trial['n_valid'] == 431 for trial in trials)
    assert all(set(trial['averages']) == {'0.5', '0.5, statistics estimated'} for trial in trials)
    mean = sum(trial['accuracy'] for trial in trials if trial['recipe']['wd'] == .5)/2
    assert [ROWS[1], 'none', '2', f'{mean:.2%}'] in [cells(line)[:4] for line in study.stdout.splitlines()]


def test_a_study_goes_on(study, tmp_path, call_command):
    out = tmp_path/'study.json'
    out.write_bytes(study.path.read_bytes())
    row = 'lr_max=0.01,first_weights=dirac+whitening,flip=alternating,eps=0.001,logit_scale=0.5'
    again = call_command(BENCH/'study.py', *ROWS, row, *study.arguments, '--out', out)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(' in ') == 2 == again.stderr.count(f'{row}, seed')  # the trials that were missing
    trials, more = (json.loads(path.read_text()) for path in (study.path, out))
    arguments = dict(first_weights='dirac+whitening', flip='alternating', eps=.001, logit_scale=.5)
    assert more[:4] == trials and [(trial['row'], trial['arguments']) for trial in more[4:]] == [(row, arguments)]*2
    first, second = ([cells(line) for line in text.splitlines()] for text in (study.stdout, again.stdout))
    assert all(line in second for line in first if line[:1] == ['lr_max=0.003'])  # as it was


# What it refuses

REFUSED = [
    ('depth=3', 'neither the recipe nor the network'),
    ('valid_pct=0', 'valid_pct: above 0'),
    ('first_weights=ones', 'kaiming, dirac, whitening'),
    ('first_weights=', 'kaiming, dirac, whitening'),
    ('flip=never', 'random or alternating'),
    ('pipeline=item,flip=alternating', 'batch pipeline'),
    ('eps=0', 'eps: a number above 0'),
    ('ghost=many', 'ghost: a number above 0'),
    ('sam_images=128', 'with sam'),
    ('width=0.5', 'custom ResNet only'),
    ('model=custom_resnet,width=0.01', 'from 1/64 to 1'),
]

@pytest.mark.parametrize('row, says', REFUSED)
def test_a_row_that_makes_no_sense(study, row, says, call_command):
    before = study.path.read_bytes()
    done = call_command(BENCH/'study.py', row, *study.arguments, '--out', study.path)
    assert_sentence(done, 'study.py', says)
    assert study.path.read_bytes() == before


def test_a_file_of_another_study(study, call_command):
    before = study.path.read_bytes()
    done = call_command(BENCH/'study.py', 'wd=0.1', *study.arguments, '--share', .2, '--out', study.path)
    assert_sentence(done, 'study.py', 'other images')
    assert study.path.read_bytes() == before


def test_a_file_that_is_no_study(study, tmp_path, call_command):
    (tmp_path/'history.csv').write_text('epoch,lr\n')
    done = call_command(BENCH/'study.py', 'wd=0.1', *study.arguments, '--out', tmp_path/'history.csv')
    assert_sentence(done, 'study.py', 'no study')
    assert (tmp_path/'history.csv').read_text() == 'epoch,lr\n'


def test_a_file_that_cannot_be_written(study, tmp_path, call_command):
    done = call_command(BENCH/'study.py', 'wd=0.1', *study.arguments, '--out', tmp_path/'none'/'study.json')
    assert_sentence(done, 'study.py', 'none')
    assert not (tmp_path/'none').exists()


# Its parts

@pytest.fixture
def module(monkeypatch):
    "The study as a module."
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module('study')


@pytest.fixture
def learn():
    "A Learner of the custom ResNet on a few digits."
    return get_learner(Recipe(bs=256, precision='fp32', device='cpu'), few_digits(600, 10), winograd=False)


def convolutions(learn):
    "The weights of the custom ResNet's eight convolutions."
    blocks = [block for block in learn.model.modules() if isinstance(getattr(block, 'conv', None), nn.Conv2d)]
    return [block.conv.weight for block in blocks]


def begun_with(module, learn, name):
    "Whether each convolution got other weights."
    weights = convolutions(learn)
    before = [weight.detach().clone() for weight in weights]
    module.FIRST_WEIGHTS[name](learn)
    return [not weight.equal(old) for weight, old in zip(weights, before)]


def test_kaimings_first_weights(module, learn): assert begun_with(module, learn, 'kaiming') == [True]*8


def test_diracs_first_weights_hand_channels_on(module, learn):
    assert begun_with(module, learn, 'dirac') == [True]*8
    x = torch.randn(2, 128, 8, 8)
    assert learn.model.layer1[1].conv1.conv(x).allclose(x, atol=1e-5)  # all channels
    assert learn.model.layer2.conv(x)[:, :128].allclose(x, atol=1e-5)  # the first half of the filters does it


def test_whitening_first_weights_are_components(module, learn):
    assert begun_with(module, learn, 'whitening') == [True] + [False]*7
    weight = convolutions(learn)[0]
    rows = weight.detach().flatten(1)[:54]
    assert rows[:27].equal(-rows[27:])
    x = next(iter(learn.dls.train))[0].as_subclass(torch.Tensor)  # another batch
    out = torch.conv2d(x, weight[:27]).detach().transpose(0, 1).flatten(1)
    assert (torch.corrcoef(out) - torch.eye(27)).abs()[:5, :5].max() < .3


def test_flips_alternate(module, learn):
    dl = learn.dls.train
    orders, draws = [], []
    module.alternate_flips(dl)
    shuffle, draw = dl.shuffle_fn, dl.augment.draw

    def note_order(idxs):
        orders.append(shuffle(idxs))
        return list(orders[-1])

    def note_draws(n, size):
        draws.append(draw(n, size))
        return draws[-1]

    dl.shuffle_fn = note_order
    object.__setattr__(dl.augment, 'draw', note_draws)
    flipped = torch.zeros(3, dl.n, dtype=torch.bool)
    for epoch in range(3):
        for _ in dl: pass
        flipped[epoch, orders[epoch]] = draws[epoch][:, 2].bool()
    assert .4 < flipped[0].float().mean() < .6
    assert flipped[1].equal(~flipped[0]) and flipped[2].equal(flipped[0])


@pytest.fixture
def make(module): return lambda **changes: module.make(Recipe(), changes, 10)


def test_networks_by_their_size(make):
    assert make() is None and make(eps=1e-3) is None  # the recipe's own
    assert sum(weights.numel() for weights in make(width=1).parameters()) == 6_573_130
    assert make(width=.5).fc.weight.shape == (10, 256)


def test_ghost_batches_and_scaled_logits(make, learn):
    own, x = learn.model, torch.randn(64, 3, 32, 32)
    ghost, scaled = make(ghost=32), make(logit_scale=.125)
    ghost.load_state_dict(own.state_dict())
    with torch.no_grad():
        halves = torch.cat([own.train()(half) for half in x.split(32)])
        assert ghost.train()(x).allclose(halves, atol=1e-4) and not ghost(x).allclose(own(x), atol=1e-2)
        scaled.model.load_state_dict(own.state_dict())  # with the running statistics of now
        assert scaled.eval()(x).allclose(own.eval()(x)*.125, atol=1e-5)


def test_ghost_batches_move_the_statistics_as_one_batch(module):
    ghost, one = module.GhostNorm(3), nn.BatchNorm2d(3)
    ghost.images = 8
    x = torch.randn(8, 3, 4, 4).repeat(4, 1, 1, 1)  # groups that are alike
    for norm in (ghost, one): norm(x)
    assert ghost.running_mean.allclose(one.running_mean, atol=1e-6)


def test_adams_constants(module, monkeypatch):
    seen = []
    def note(learn, *args, **kwargs):
        learn.create_opt()
        seen.append(learn.opt)
    monkeypatch.setattr(module, 'fit_one_cycle', note)
    recipe = make_recipe(model='ultimus', lr_max=1e-3, valid_pct=.1, device='cpu')
    module.trial(recipe, dict(eps=.1, sqr_mom=.5), few_digits(), [])
    assert all((hyper['eps'], hyper['sqr_mom']) == (.1, .5) for hyper in seen[0].hypers)
    assert {(group['eps'], group['betas'][1]) for group in seen[0].opt.param_groups} == {(.1, .5)}


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize('images, epochs', [(0, 0), (4, 0), (0, 1)])
def test_sharpness_aware_minimization(module, images, epochs):
    "A step takes the gradient at weights half a unit up the gradient of so many images, from that epoch on."
    x, y = torch.randn(8, 3, 6, 6), torch.arange(8) % 3
    loss, model = nn.CrossEntropyLoss(), small_network()
    before, climbed = copy.deepcopy(model), copy.deepcopy(model)
    def gradient(network, n): return torch.autograd.grad(loss(network(x[:n]), y[:n]), list(network.parameters()))

    up = gradient(before, images or 8)  # moves its running statistics too
    length = sum(grad.square().sum() for grad in up)**.5
    for weights, grad in zip(climbed.parameters(), up): weights.data += .5*grad/length
    wanted = gradient(climbed if not epochs else copy.deepcopy(before), 8)

    batch = DataLoader(list(zip(x, y)), bs=8)
    callbacks = [module.Sam(.5, images, epochs), module.NoValidation()]
    learner = Learner(DataLoaders(batch, batch), model, loss, SGD, cbs=callbacks)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1.)
    for weights, old, grad in zip(model.parameters(), before.parameters(), wanted):
        assert weights.allclose(old - grad, atol=1e-5) and grad.abs().max() > 1e-8
    floats = [(new, old) for new, old in zip(model.buffers(), before.buffers()) if new.is_floating_point()]
    assert all(new.allclose(old, atol=1e-6) for new, old in floats) and model[1].momentum == .1


def test_the_picture_of_a_study(study, tmp_path, call_command):
    picture = tmp_path/'study.png'
    done = call_command(BENCH/'plot_study.py', study.path, '--averages', '0,.5', '--out', picture)
    assert done.returncode == 0, done.stderr
    with Image.open(picture) as image: assert len(image.convert('RGB').getcolors(1 << 24)) > 10


def test_the_picture_of_no_study(study, tmp_path, call_command):
    broken = tmp_path/'broken.json'
    broken.write_text('[{"row": "default"}]')
    done = call_command(BENCH/'plot_study.py', study.path, broken, '--out', tmp_path/'none.png')
    assert_sentence(done, 'plot_study.py', broken)
    assert not (tmp_path/'none.png').exists()
