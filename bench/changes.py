"""Changes to a training that the recipe does not have, for the ablation of `gpu.py`.

  flat_end     epochs by which the cycle ends earlier; its last rate is kept until the end
  bias_rate    the rate of batch norm's biases, as a multiple of the other parameters'
  bn_scale     `fixed`: batch norm's scales stay at 1
  flip         `alternating`: from its second epoch on an image is flipped if it was not in the last one
  ghost        number of images over which batch norm takes its statistics in training
  logit_scale  the network's output is multiplied by it
"""
import copy

import numpy as np
import torch
import torch.nn.functional as F
from common import Scaled
from fastai.callback.core import Callback
from s8fast.training.one_cycle import one_cycle
from s8fast.training.optimizer import decay_groups
from torch import nn

NAMES = 'flat_end', 'bias_rate', 'bn_scale', 'flip', 'ghost', 'logit_scale'


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def fix_scales(model):
    "Batch norm's scales stay what they are at first: 1."
    for norm in batch_norms(model): norm.weight.requires_grad_(False)


def groups_with_own_biases(model):
    "The groups of `decay_groups`, and as a third one the biases of batch norm."
    weights, plain = decay_groups(model)
    own = {id(norm.bias) for norm in batch_norms(model)}
    rest = [parameter for parameter in plain if id(parameter) not in own]
    return [weights, rest, [parameter for parameter in plain if id(parameter) in own]]


class OwnRate(Callback):
    """The biases of batch norm are trained at `multiple` times the rate of the other parameters.

    The optimiser has the groups of `groups_with_own_biases`.
    """
    order = 61  # after OneCycle
    run_valid = False
    def __init__(self, multiple): self.multiple = multiple

    def before_batch(self):
        lr = self.opt.hypers[0]['lr']
        self.opt.set_hypers(lr=[lr, lr, self.multiple*lr])


class FlatEnd(Callback):
    "The cycle ends `epochs` epochs earlier, or half-way where there are fewer; its last values stay until the end."
    order = 61  # after OneCycle
    def __init__(self, epochs): self.epochs = epochs

    def before_fit(self):
        cycle = self.learn.one_cycle
        total = len(cycle.lr_values)
        flat = min(self.epochs*len(self.dls.train), total//2)
        rates, momentums = one_cycle(total - flat, cycle.lr_max, **cycle.shape)
        cycle.lr_values = np.append(rates, [rates[-1]]*flat)
        cycle.mom_values = np.append(momentums, [momentums[-1]]*flat)


def alternate_flips(dl):
    "See `flip` above (Jordan 2024, https://arxiv.org/abs/2404.00498)."
    augment = dl.augment
    shuffle = dl.shuffle_fn
    flipped = torch.rand(dl.n) < .5
    order = []

    def shuffle_fn(idxs):
        order[:] = shuffle(idxs)
        return list(order)

    def draw(n, size):
        flipped.logical_not_()
        draws = type(augment).draw(augment, n, size)
        draws[:, 2] = flipped[order]
        return draws

    dl.shuffle_fn = shuffle_fn
    dl.augment = copy.copy(augment)
    object.__setattr__(dl.augment, 'draw', draw)  # it is frozen


class GhostNorm(nn.BatchNorm2d):
    """Batch norm that takes its statistics over about `images` images at a time in training.

    Hoffer et al. 2017, https://arxiv.org/abs/1705.08741.
    """
    def forward(self, x):
        if not self.training: return super().forward(x)
        groups = x.chunk(max(1, len(x)//self.images))
        share = 1 - (1 - self.momentum)**(1/len(groups))  # all groups together move the statistics as one batch does
        out = [F.batch_norm(group, self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps)
               for group in groups]
        return torch.cat(out)


def in_ghost_batches(model, images):
    "Make every batch norm a `GhostNorm`."
    for norm in batch_norms(model):
        norm.__class__ = GhostNorm
        norm.images = images


def callbacks(arguments):
    "The callbacks of a fit that these changes ask for."
    found = []
    if 'bias_rate' in arguments: found.append(OwnRate(arguments['bias_rate']))
    if 'flat_end' in arguments: found.append(FlatEnd(arguments['flat_end']))
    return found


def change_learner(learn, arguments):
    "Change a `Learner` that has not been trained."
    if 'bn_scale' in arguments: fix_scales(learn.model)
    if 'ghost' in arguments: in_ghost_batches(learn.model, arguments['ghost'])
    if 'logit_scale' in arguments: learn.model = Scaled(learn.model, arguments['logit_scale'])
    if 'flip' in arguments:
        with torch.random.fork_rng(): alternate_flips(learn.dls.train)  # order and augmentation stay the other arms'
    if 'bias_rate' in arguments:
        learn.splitter = groups_with_own_biases
        learn.wd = [*learn.wd, learn.wd[1]]
