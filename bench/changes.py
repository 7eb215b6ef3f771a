"Changes to a training that the recipe does not have, for `study.py`: rates of their own, a flat end, fixed scales."
import numpy as np
from fastai.callback.core import Callback
from s8fast.training.one_cycle import one_cycle
from s8fast.training.optimizer import decay_groups
from torch import nn


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


def callbacks(arguments):
    "The callbacks of a fit that these changes ask for."
    found = []
    if 'bias_rate' in arguments: found.append(OwnRate(arguments['bias_rate']))
    if 'flat_end' in arguments: found.append(FlatEnd(arguments['flat_end']))
    return found


def change_learner(learn, arguments):
    "Change a `Learner` that has not been trained."
    if 'bn_scale' in arguments: fix_scales(learn.model)
    if 'bias_rate' in arguments:
        learn.splitter = groups_with_own_biases
        learn.wd = [*learn.wd, learn.wd[1]]
