"""The ablation of `gpu.py`: the default, and the default with one choice changed, on validation images.

Every seed goes through all arms before the next one begins, so it can stop anywhere. A seed's arms have the rate that
the finder proposed for its default, and the same split, first weights, order and augmentation where they do not change
them. The test images are not used.
"""
from dataclasses import replace
from functools import partial

import study
from gpu_units import Unit
from s8fast.errors import S8FastError
from s8fast.recipe import AUTO

DEFAULT = 'default'
#: Each arm as a row of `study.py`.
ARMS = (DEFAULT, 'average=0', 'label_smoothing=0.1', 'label_smoothing=0.0', 'pad_mode=zeros', 'wd=0.3', 'wd=1.2',
        'div=10,flat_end=2', 'div=25', 'div=50', 'bias_rate=4', 'bias_rate=16', 'bn_scale=fixed', 'flip=alternating',
        'ghost=32', 'logit_scale=0.125', 'shape=cosine')
SEEDS = 20
VALID_PCT = .1
SECONDS_OF_TRIAL = 60


def name_of(arm, seed): return f'{arm}, seed {seed}'


def choices(kit):
    "What all arms have in common, and changes that none of them is measured without."
    device = dict(device=str(kit.device))
    if not kit.rehearse: return dict(epochs=24, valid_pct=VALID_PCT, **device), {}
    return dict(epochs=1, valid_pct=.5, bs=10, **device), dict(width=1/16)


def measure(kit, file, arm, seed):
    "Accuracy and loss of an arm on the validation images."
    common, more = choices(kit)
    recipe, arguments = study.parse_row(arm, common)
    default = file.figures(name_of(DEFAULT, seed))
    if arm != DEFAULT and default is None:
        raise S8FastError(f'The default of seed {seed} failed, so there is no rate for its arms.')
    lr_max = default['lr_max'] if default else AUTO
    found = study.trial(replace(recipe, seed=seed, lr_max=lr_max), {**arguments, **more}, kit.data, [])
    del found['averages']
    return dict(arm=arm, seed=seed, **found)


def line(figures): return f'{figures["accuracy"]:.2%}, loss {figures["loss"]:.4f}, rate {figures["lr_max"]:.2e}'


def ablation(kit, file):
    "The units of this phase."
    for seed in range(1 if kit.rehearse else SEEDS):
        for arm in ARMS:
            yield Unit(name_of(arm, seed), 'trial', SECONDS_OF_TRIAL, partial(measure, kit, file, arm, seed), line)
