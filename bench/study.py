#!/usr/bin/env python3
"""Choices side by side on validation images: one row a choice, with n, mean and deviation over seeds.

Test images are never looked at. Each positional argument is a row: changes to the recipe, or to the arguments of the
network, separated by commas, such as `wd=0.1,cutout=0` or `residual=False`; `default` is the recipe as it stands.
Changes that the recipe does not have:

  first_weights  one or more of kaiming, dirac, whitening, such as `dirac+whitening`
  flip           `alternating`
  eps, sqr_mom   of Adam
  logit_scale    the network's output is multiplied by it
  ghost          number of images over which batch norm takes its statistics in training
  sam            radius of sharpness-aware minimization; `sam_images`, the images of a batch whose gradient it climbs;
                 `sam_from`, the epochs before it begins
  width          a share of the custom ResNet's channels, for trials in a fraction of the time
  flat_end       epochs by which the cycle ends earlier; its last rate is kept until the end
  bias_rate      the rate of batch norm's biases, as a multiple of the other parameters'
  bn_scale       `fixed`: batch norm's scales stay at 1

All rows have the same split. A seed gives the same first weights, order and augmentation in every row that does not
change them. Accuracy is that of the model after the last epoch: of the recipe's own average, or with `average=0` of the
weights themselves. With `--averages` also that of averages with other horizons, kept beside the same training.
A trial that `--out` holds is not run again.
"""
import argparse, ast, contextlib, copy, itertools, os, statistics, sys, time, warnings
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

import changes
import torch
import torch.nn.functional as F
from common import (Scaled, header, numbers, part, read_study, recorded_recipe, run_script, table,
                    write_records)
from fastai.callback.core import Callback, CancelValidException
from fastai.torch_core import set_seed
from s8fast.data.dataset import load_data
from s8fast.errors import S8FastError
from s8fast.models.custom_resnet import CustomResNet, ResBlock, conv_block
from s8fast.models.zoo import get_network
from s8fast.recipe import AUTO, Recipe, make_recipe
from s8fast.runs.seeds import parse_seeds
from s8fast.training.device import autocast_of, pick_device
from s8fast.training.learner import check_names, computing, get_learner
from s8fast.training.lr_find import find_lr_range
from s8fast.training.metrics import compute_metrics, predict_logits
from s8fast.training.one_cycle import fit_one_cycle
from s8fast.training.optimizer import WeightAverage, fused_adam
from torch import nn
from torch.optim.swa_utils import update_bn

FIGURES = 'accuracy', 'loss'
OF_ADAM = 'eps', 'sqr_mom'
OF_ANY_NETWORK = 'logit_scale', 'ghost', 'width'
OF_SAM = 'sam', 'sam_images', 'sam_from'
OF_RATES = 'flat_end', 'bias_rate'
NOT_OF_THE_NETWORK = 'first_weights', 'flip', 'bn_scale', *OF_ADAM, *OF_ANY_NETWORK, *OF_SAM, *OF_RATES


# Callbacks

class NoValidation(Callback):
    "Only the end of the training is measured."
    order = 80
    def before_validate(self): raise CancelValidException


class Beside(WeightAverage):
    "An average that stays beside the weights."
    def _show(self, average): pass
    def after_fit(self): pass


class Sam(Callback):
    """Sharpness-aware minimization (Foret et al. 2021, https://arxiv.org/abs/2010.01412), from epoch `epochs` on.

    A step's gradient is taken at weights that are moved by `radius` up the gradient of the batch's first `images`
    images (0: of all). Batch norm's running statistics are those of the weights before the move.
    """
    order = 20  # after the Autocast callback
    def __init__(self, radius, images=0, epochs=0):
        self.radius = radius
        self.images = images
        self.epochs = epochs
        self.norms = {}  # batch norm's momentum while the weights are moved

    def before_batch(self):
        if not self.training or self.epoch < self.epochs or hasattr(self.learn, 'lr_finder'): return
        n = self.images or len(self.xb[0])
        weights = list(self.model.parameters())
        self.learn.loss_func(self.model(self.xb[0][:n]).float(), self.yb[0][:n]).backward()
        self.kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            gradients = [weight.grad for weight in weights]
            length = torch.stack(torch._foreach_norm(gradients)).norm()
            torch._foreach_add_(weights, torch._foreach_mul(gradients, self.radius/(length + 1e-12)))
        self.model.zero_grad()
        self.norms = {m: m.momentum for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)}
        for norm in self.norms: norm.momentum = 0.

    def before_step(self):
        if not self.norms: return
        with torch.no_grad(): torch._foreach_copy_(list(self.model.parameters()), self.kept)
        for norm, momentum in self.norms.items(): norm.momentum = momentum
        self.norms = {}


# First weights

def convolutions(learn):
    return [module for module in learn.model.modules() if isinstance(module, nn.Conv2d)]


def kaiming(learn):
    "Normal first weights of convolutions, scaled for ReLU (He et al. 2015, https://arxiv.org/abs/1502.01852)."
    for conv in convolutions(learn): nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')


def dirac(learn):
    """The first filters of each convolution pass a channel of its input on.

    Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1706.00388. For a part of the filters only: Jordan 2024,
    https://arxiv.org/abs/2404.00498.
    """
    for conv in convolutions(learn): nn.init.dirac_(conv.weight.data[:conv.in_channels])


def whitening(learn):
    """The first convolution begins with the principal components of a training batch's 3x3 patches.

    Their negatives follow. Each is as long as a filter is by default. In
    https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/ they stay fixed.
    """
    weight = convolutions(learn)[0].weight.data
    x = next(iter(learn.dls.train))[0].as_subclass(torch.Tensor)
    patches = F.unfold(x, weight.shape[2:]).transpose(1, 2).flatten(0, 1)
    components = torch.linalg.eigh(torch.cov(patches.T))[1].T.flip(0)  # [n, n]; the largest variance first
    components = torch.cat([components, -components]).view(-1, *weight.shape[1:])[:len(weight)]
    weight[:len(components)] = components*weight.flatten(1).norm(dim=1).mean()


FIRST_WEIGHTS = dict(kaiming=kaiming, dirac=dirac, whitening=whitening)


# Flips and networks

def alternate_flips(dl):
    "From its second epoch on an image is flipped if it was not in the last one (Jordan 2024, see `dirac`)."
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


class Narrow(CustomResNet):
    "The custom ResNet with a share `width` of its channels."
    def __init__(self, n_classes, width):
        super().__init__(n_classes)
        a, b, c, d = (round(width*n) for n in (64, 128, 256, 512))
        self.prep = conv_block(3, a)
        self.layer1 = nn.Sequential(conv_block(a, b, pool=True), ResBlock(b))
        self.layer2 = conv_block(b, c, pool=True)
        self.layer3 = nn.Sequential(conv_block(c, d, pool=True), ResBlock(d))
        self.fc = nn.Linear(d, n_classes)


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


def make(recipe, arguments, n_classes):
    "The network, or None where a row changes nothing of it: it is the recipe's own then."
    own = {name: value for name, value in arguments.items() if name not in NOT_OF_THE_NETWORK}
    if not own and not {*arguments} & {*OF_ANY_NETWORK}: return None
    if 'width' in arguments and recipe.model != 'custom_resnet': raise ValueError('width: for the custom ResNet only')
    if not 1/64 <= arguments.get('width', 1) <= 1: raise ValueError('width: a share of the channels, from 1/64 to 1')
    if 'width' in arguments: model = Narrow(n_classes, width=arguments['width'], **own)
    else: model = get_network(recipe.model).make(n_classes, **own)
    if 'ghost' in arguments:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = GhostNorm
                module.images = arguments['ghost']
    return Scaled(model, arguments['logit_scale']) if 'logit_scale' in arguments else model


# A row

def is_above_zero(value): return isinstance(value, (int, float)) and value > 0


def first_weights(arguments): return str(arguments['first_weights']).split('+') if 'first_weights' in arguments else []


def check_arguments(recipe, arguments):
    "Raises `ValueError` for a change that makes no sense."
    for name in (*OF_ADAM, *OF_ANY_NETWORK, *OF_SAM, *OF_RATES):
        if name in arguments and not is_above_zero(arguments[name]): raise ValueError(f'{name}: a number above 0')
    make(recipe, arguments, 10)
    if not {*first_weights(arguments)} <= {*FIRST_WEIGHTS}:
        raise ValueError(f'first_weights: {", ".join(FIRST_WEIGHTS)}')
    for name in OF_SAM[1:]:
        if name in arguments and not ('sam' in arguments and isinstance(arguments[name], int)):
            raise ValueError('sam_images, sam_from: a whole number, with sam')
    if arguments.get('flip', 'random') not in ('random', 'alternating'):
        raise ValueError('flip: random or alternating')
    if arguments.get('bn_scale', 'fixed') != 'fixed': raise ValueError('bn_scale: fixed')
    if 'flip' in arguments and recipe.pipeline != 'batch': raise ValueError('flip: for the batch pipeline only')
    if not recipe.valid_pct: raise ValueError('valid_pct: above 0, since a study measures on validation images')


def parse_changes(text):
    "The changes of a row, `{name: value}`."
    found = {}
    for change in text.split(',') if text != 'default' else ():
        name, is_there, value = change.partition('=')
        if not is_there: raise S8FastError(f'{change!r} is no change: give name=value, or "default".')
        with contextlib.suppress(ValueError, SyntaxError): value = ast.literal_eval(value)
        found[name] = value
    return found


def parse_row(text, common):
    "The recipe of a row, and the changes that are none of the recipe's. Raises `S8FastError`."
    found = parse_changes(text)
    known = {field.name for field in fields(Recipe)}
    arguments = {name: value for name, value in found.items() if name not in known}
    recipe = make_recipe(**{**common, **{name: value for name, value in found.items() if name in known}})
    check_names(recipe)
    try: check_arguments(recipe, arguments)
    except (TypeError, ValueError) as e:
        raise S8FastError(f'{text!r} changes neither the recipe nor the network ({e}).') from e
    return recipe, arguments


# A trial

def figures(learn):
    "Accuracy and loss on the validation images."
    found = compute_metrics(*predict_logits(learn, learn.dls.valid), learn.dls.vocab)
    return {name: found[name] for name in FIGURES}


def estimate_statistics(learn, n=40):
    "Estimate batch norm's statistics anew for the weights as they are: the mean over `n` augmented training batches."
    endless = itertools.chain.from_iterable(itertools.repeat(learn.dls.train))
    images = (x.as_subclass(torch.Tensor) for x, _ in itertools.islice(endless, n))
    with learn.no_bar(), autocast_of(learn): update_bn(images, learn.model)


def make_learner(recipe, arguments, data):
    "The `Learner` of a row."
    set_seed(recipe.seed)
    learn = get_learner(recipe, data, make(recipe, arguments, len(data.vocab)))
    with torch.random.fork_rng():  # order and augmentation stay those of the other rows
        for name in first_weights(arguments): FIRST_WEIGHTS[name](learn)
        if arguments.get('flip') == 'alternating': alternate_flips(learn.dls.train)
    of_adam = {name: value for name, value in arguments.items() if name in OF_ADAM}
    learn.opt_func = partial(fused_adam, **of_adam)
    changes.change_learner(learn, arguments)
    if 'sam' in arguments:
        learn.add_cb(Sam(arguments['sam'], arguments.get('sam_images', 0), arguments.get('sam_from', 0)))
    return learn


def fit(learn, recipe, cbs):
    "Train without a word; returns the peak rate."
    with learn.no_bar(), learn.no_logging(), computing(recipe):
        lr_max = find_lr_range(learn).lr_max if recipe.lr_max == AUTO else recipe.lr_max
        moms = recipe.mom_max, recipe.mom_min
        fit_one_cycle(learn, recipe.epochs, lr_max, recipe.div, recipe.pct_start, recipe.shape, moms,
                      cbs=[NoValidation(), *cbs])
    return lr_max


def figures_of_averages(learn, beside):
    "Figures of each average, with the statistics of batch norm that it has and with new ones."
    found = {}
    for name, kept in beside.items():
        learn.model.load_state_dict({**learn.model.state_dict(), **kept.average})
        found[name] = figures(learn)
        estimate_statistics(learn)
        found[f'{name}, statistics estimated'] = figures(learn)
    return found


def trial(recipe, arguments, data, averages):
    "Figures on the validation images after the last epoch and of each average, the peak rate, seconds, images."
    learn = make_learner(recipe, arguments, data)
    start = time.perf_counter()
    beside = {f'{horizon:g}': Beside(max(1., horizon*len(learn.dls.train))) for horizon in averages}
    lr_max = fit(learn, recipe, [*beside.values(), *changes.callbacks(arguments)])
    found = dict(figures(learn), averages={}, lr_max=lr_max, seconds=time.perf_counter() - start,
                 n_train=len(learn.dls.train_ds), n_valid=len(learn.dls.valid_ds))
    found['averages'] = figures_of_averages(learn, beside)
    return found


def is_trial(found, text, recipe, arguments, averages):
    "Whether the trial `found`, of a file, is this one."
    kept = {name for name in found['averages'] if ',' not in name}  # the others are estimated beside them
    wanted = {f'{horizon:g}' for horizon in averages}
    same_choices = recorded_recipe(found['recipe']) == recipe and found['arguments'] == arguments
    return found['row'] == text and same_choices and kept == wanted


# The study

def print_trial(text, recipe, found):
    last = {recipe.average or 'none': found, **found['averages']}
    accuracies = ', '.join(f'average {name}: {values["accuracy"]:.2%}' for name, values in last.items())
    print(f'{text}, seed {recipe.seed}: {accuracies} in {found["seconds"]:.0f} s', file=sys.stderr, flush=True)


def run_missing(args, rows, seeds, data, found):
    "Run the trials that `found` lacks, add them to it, and return those that were asked for."
    asked = []
    for seed in seeds:
        for text, (recipe, arguments) in rows.items():
            recipe = replace(recipe, seed=seed)
            there = [old for old in found if is_trial(old, text, recipe, arguments, args.averages)]
            if not there:
                measured = trial(recipe, arguments, data, args.averages)
                found.append(dict(row=text, recipe=asdict(recipe), arguments=arguments, data=data.fingerprint,
                                  share=args.share, **measured))
                print_trial(text, recipe, found[-1])
                if args.out: write_records(args.out, found)
            asked.append((there or found)[-1])
    return asked


def row_of(text, name, own, trials):
    "A line of the table: a row's figures of one average, over its seeds; `name` None: of the recipe's own."
    values = [found if name is None else found['averages'][name] for found in trials]
    accuracies = [value['accuracy'] for value in values]
    loss = statistics.mean(value['loss'] for value in values)
    lr_max = statistics.mean(found['lr_max'] for found in trials)
    deviation = f'{statistics.stdev(accuracies):.2%}' if len(values) > 1 else ''
    return (text, name or own or 'none', len(values), f'{statistics.mean(accuracies):.2%}', deviation, f'{loss:.4f}',
            f'{lr_max:.2e}')


def report(rows, asked):
    "The table of all rows."
    lines = []
    for text, (recipe, _) in rows.items():
        trials = [found for found in asked if found['row'] == text]
        for name in (None, *trials[0]['averages']): lines.append(row_of(text, name, recipe.average, trials))
    return table(('choice', 'average', 'n', 'accuracy', 'deviation', 'loss', 'lr_max'), lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='+', help='"default", or changes such as wd=0.1,cutout=0')
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--model', default='custom_resnet', help='as for s8fast_train')
    parser.add_argument('--epochs', type=int, default=24, help='of a trial')
    parser.add_argument('--seeds', default='0', help='such as 0-2')
    parser.add_argument('--averages', type=numbers, default=[],
                        help='horizons in epochs of further averages of the weights, such as .5,1,2')
    parser.add_argument('--valid_pct', type=float, default=.1, help='share of the training images to measure on')
    parser.add_argument('--share', type=float, default=1., help='of the training images to train and measure on')
    parser.add_argument('--bs', type=int, help="images a batch; left out: the network's own")
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    parser.add_argument('--out', type=Path,
                        help='JSON file of all trials, written anew as each one ends; the trials in it are kept')
    return parser.parse_args()


def main():
    args = parse()
    common = dict(model=args.model, epochs=args.epochs, valid_pct=args.valid_pct, device=args.device)
    if args.bs is not None: common['bs'] = args.bs
    device = pick_device(args.device)
    seeds = parse_seeds(args.seeds)
    rows = {text: parse_row(text, common) for text in args.rows}
    data = part(load_data(args.data), args.share)
    found = read_study(args.out) if args.out and args.out.exists() else []
    if any((old['data'], old['share']) != (data.fingerprint, args.share) for old in found):
        raise S8FastError(f'{args.out} has trials on other images: give another --out.')
    if args.out: write_records(args.out, found)  # a file that cannot be written is said now, not after hours
    asked = run_missing(args, rows, seeds, data, found)
    images = f'{asked[0]["n_train"]:,} training, {asked[0]["n_valid"]:,} validation images'
    print(f'{data.name} ({data.edition}), {images}, {args.model}, {args.epochs} epochs; {header(device)}')
    print(report(rows, asked))


if __name__ == '__main__': run_script(main)
