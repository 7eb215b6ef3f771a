"""The ablation of `gpu.py`: the default, and the default with one choice changed, on validation images.

Every seed goes through all arms before the next one begins, so it can stop anywhere. A seed's arms have the rate that
the finder proposed for its default, and the same split, first weights, order and augmentation where they do not change
them. The test images are not used.
"""
import time
from functools import partial

import changes
from fastai.torch_core import set_seed
from gpu_runs import fit
from gpu_units import Unit
from s8fast.errors import S8FastError
from s8fast.recipe import AUTO, make_recipe
from s8fast.training.learner import get_learner
from s8fast.training.metrics import compute_metrics, predict_logits

DEFAULT = 'default'
#: Changes of each arm, to the recipe or as `changes.py` has them.
ARMS = {DEFAULT: {}, 'average=0': dict(average=0.), 'label_smoothing=0.1': dict(label_smoothing=.1),
        'label_smoothing=0.0': dict(label_smoothing=0.), 'pad_mode=zeros': dict(pad_mode='zeros'),
        'wd=0.3': dict(wd=.3), 'wd=1.2': dict(wd=1.2), 'div=10,flat_end=2': dict(div=10., flat_end=2),
        'div=25': dict(div=25.), 'div=50': dict(div=50.), 'bias_rate=4': dict(bias_rate=4),
        'bias_rate=16': dict(bias_rate=16), 'bn_scale=fixed': dict(bn_scale='fixed'),
        'flip=alternating': dict(flip='alternating'), 'ghost=32': dict(ghost=32),
        'logit_scale=0.125': dict(logit_scale=.125), 'shape=cosine': dict(shape='cosine')}
SEEDS = 20
VALID_PCT = .1
SECONDS_OF_TRIAL = 60


def name_of(arm, seed): return f'{arm}, seed {seed}'


def choices(kit):
    "What all arms have in common."
    small = dict(model='ultimus', epochs=1, valid_pct=.5, bs=10)
    return dict(device=str(kit.device), **(small if kit.rehearse else dict(epochs=24, valid_pct=VALID_PCT)))


def measure(kit, file, arm, seed):
    "Accuracy and loss of an arm on the validation images."
    default = file.figures(name_of(DEFAULT, seed))
    if arm != DEFAULT and default is None:
        raise S8FastError(f'The default of seed {seed} failed, so there is no rate for its arms.')
    lr_max = default['lr_max'] if default else AUTO
    of_recipe = {name: value for name, value in ARMS[arm].items() if name not in changes.NAMES}
    recipe = make_recipe(**choices(kit), **of_recipe, seed=seed, lr_max=lr_max)
    set_seed(seed)
    learn = get_learner(recipe, kit.data)
    changes.change_learner(learn, ARMS[arm])
    start = time.perf_counter()
    lr_max = fit(learn, recipe, changes.callbacks(ARMS[arm]))
    found = compute_metrics(*predict_logits(learn, learn.dls.valid), learn.dls.vocab)
    return dict(arm=arm, seed=seed, accuracy=found['accuracy'], loss=found['loss'], lr_max=lr_max,
                seconds=time.perf_counter() - start, n_train=len(learn.dls.train_ds), n_valid=len(learn.dls.valid_ds))


def line(figures): return f'{figures["accuracy"]:.2%}, loss {figures["loss"]:.4f}, rate {figures["lr_max"]:.2e}'


def ablation(kit, file):
    "The units of this phase."
    for seed in range(1 if kit.rehearse else SEEDS):
        for arm in ARMS:
            yield Unit(name_of(arm, seed), 'trial', SECONDS_OF_TRIAL, partial(measure, kit, file, arm, seed), line)
