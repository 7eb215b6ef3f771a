"""The phases of `gpu.py` that train whole runs on all training images, and evaluate them on the test images.

Seconds are those of training alone: an epoch of another `Learner` has warmed the device up, and the range of rates was
found before. No checkpoint is written.
"""
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import yardstick
from common import matmul_rate, wait
from fastai.callback.core import Callback, CancelValidException
from gpu_units import Unit
from s8fast.data.loaders import test_dl
from s8fast.recipe import AUTO, make_recipe
from s8fast.training.device import pick_precision
from s8fast.training.learner import computing, get_learner
from s8fast.training.lr_find import find_lr_range
from s8fast.training.metrics import evaluate
from s8fast.training.nonfinite import StopOnNonFinite
from s8fast.training.one_cycle import fit_one_cycle
from train import MULTIPLY_ADDS

FIRST_SEEDS = range(5)
MORE_SEEDS = range(5, 20)
SECONDS_OF_RUN = 60
FIGURES = 'accuracy', 'accuracy_tta', 'loss', 'ece'


class NoValidation(Callback):
    "Only the end of the training is measured."
    order = 80
    def before_validate(self): raise CancelValidException


def peak(learn, recipe):
    "The highest rate: what the recipe says, or what is found."
    if recipe.lr_max != AUTO: return recipe.lr_max
    with learn.no_bar(), learn.no_logging(), computing(recipe): return find_lr_range(learn).lr_max


def fit(learn, recipe, cbs=()):
    "Train without a word; returns the highest rate."
    lr_max, moms = peak(learn, recipe), (recipe.mom_max, recipe.mom_min)
    with learn.no_bar(), learn.no_logging(), computing(recipe):
        fit_one_cycle(learn, recipe.epochs, lr_max, recipe.div, recipe.pct_start, recipe.shape, moms,
                      cbs=[NoValidation(), *cbs])
    return lr_max


class Ours:
    "A run of one of s8fast's presets."
    def __init__(self, preset, **choices): self.recipe = make_recipe(preset=preset, **choices)

    def learner(self, data, seed): return get_learner(replace(self.recipe, seed=seed), data)

    def peak(self, learn): return peak(learn, self.recipe)

    def fit(self, learn, lr_max, epochs):
        fit(learn, replace(self.recipe, lr_max=lr_max, epochs=epochs), [StopOnNonFinite()])


class Author:
    "A run of the recipe of the network's author."
    def __init__(self, **choices): self.recipe = yardstick.make_recipe(SimpleNamespace(**choices))

    def learner(self, data, seed): return yardstick.make_learner(data, replace(self.recipe, seed=seed))

    def peak(self, learn): return yardstick.LR

    def fit(self, learn, lr_max, epochs):
        moms = yardstick.MOMENTUM, yardstick.MOMENTUM
        with learn.no_bar(), learn.no_logging(), computing(self.recipe):
            fit_one_cycle(learn, epochs, lr_max, div=yardstick.DIV, moms=moms, cbs=[StopOnNonFinite()])


class Runs:
    "Whole runs in this process; each kind of them warms up once."
    def __init__(self, kit, precision=AUTO):
        self.kit = kit
        self.precision = pick_precision(precision, kit.device)
        epochs, bs = (1, 16) if kit.rehearse else (24, 512)
        choices = dict(epochs=epochs, bs=bs, precision=self.precision, device=str(kit.device))
        small = dict(model='ultimus') if kit.rehearse else {}
        self.ways = dict(final=Ours('final', **small, **choices),
                         author=Author(valid_pct=0., **choices),
                         assignment=Ours('assignment', valid_pct=0., **small, **choices))
        self.warm = set()

    def warm_up(self, name):
        "Train an epoch that is not counted, as long as none was; and see how fast the device multiplies."
        if name in self.warm: return
        way = self.ways[name]
        learn = way.learner(self.kit.data, seed=0)
        way.fit(learn, 1e-3, 1)
        self.rate = matmul_rate(self.kit.device, self.precision, 64 if self.kit.rehearse else None)
        self.warm.add(name)

    def measure(self, name, seed):
        "Train one run; its figures on the test images, and its seconds."
        self.warm_up(name)
        way, data = self.ways[name], self.kit.data
        learn = way.learner(data, seed)
        lr_max = way.peak(learn)
        seconds = self.seconds(lambda: way.fit(learn, lr_max, way.recipe.epochs))
        found = evaluate(learn, test_dl(learn.dls, data))
        flop = 2*3*MULTIPLY_ADDS*len(data.train_labels)*way.recipe.epochs
        return dict(recipe=name, seed=seed, lr_max=lr_max, precision=self.precision, seconds=seconds, flop=flop,
                    matrix_rate=self.rate, share=flop/seconds/self.rate, epochs=way.recipe.epochs,
                    n_train=len(data.train_labels), **{figure: found[figure] for figure in FIGURES})

    def seconds(self, fit):
        "Seconds of a fit, which the device has then finished."
        wait(self.kit.device)
        start = time.perf_counter()
        fit()
        wait(self.kit.device)
        return time.perf_counter() - start

    def unit(self, name, seed):
        return Unit(f'{name}, seed {seed}', name, SECONDS_OF_RUN, partial(self.measure, name, seed), line)


def line(figures):
    return (f'{figures["accuracy"]:.2%}, with flip TTA {figures["accuracy_tta"]:.2%}, {figures["seconds"]:.1f} s, '
            f'{figures["share"]:.0%} of the matrix rate in {figures["precision"]}')


def order(names):
    "Recipe and seed of each run: the first recipe's first seeds, then the others', then more seeds of all in turn."
    first, *others = names
    runs = [(first, seed) for seed in FIRST_SEEDS]
    runs += [(name, seed) for seed in FIRST_SEEDS for name in others]
    return runs + [(name, seed) for seed in MORE_SEEDS for name in names]


def runs(kit, file):
    "The units of this phase: three recipes in turn, seed by seed."
    them = Runs(kit)
    for name, seed in [(name, 0) for name in them.ways] if kit.rehearse else order(list(them.ways)):
        yield them.unit(name, seed)


def float16(kit, file):
    "The units of this phase: the default in float16, as a GPU without bfloat16 trains it."
    them = Runs(kit, 'fp32' if kit.rehearse else 'fp16')
    for seed in range(1 if kit.rehearse else 3): yield them.unit('final', seed)
