#!/usr/bin/env python3
"""Choices side by side on validation images: one row a choice, with n, mean and deviation over seeds. Test images are never looked at.

Each positional argument is a row: changes to the recipe, or to what the network is built with, separated by commas, such as
`wd=0.1,cutout=0` or `residual=False`; `default` is the recipe as it stands. Choices that the recipe does not have: one or more of
`FIRST_WEIGHTS` below, such as `first_weights=dirac+whitening`; `flip=alternating`; `eps` and `sqr_mom` of Adam; `logit_scale`, by which
the network's output is multiplied; `ghost`, the images that batch norm takes its statistics of in training; `sam`, the radius of
sharpness-aware minimization, with `sam_images`, the images of a batch whose gradient it climbs, and `sam_from`, the epochs before it begins;
`width`, a share of the custom ResNet's channels, for trials in a fraction of the time. All rows see the same split; a seed draws the same
first weights, order and augmentation in every row that does not change them. Accuracy is that of the model after the last epoch: of the
recipe's own average, or with `average=0` of the weights themselves. With `--averages` also that of averages that reach back so many
epochs, kept beside the same training. A trial that `--out` holds is not run again.
"""
import argparse, ast, contextlib, copy, itertools, os, statistics, sys, time, warnings
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

import torch
import torch.nn.functional as F
from common import Scaled, header, numbers, part, pick_device, read_study, run_script, table, write_records
from fastai.callback.core import Callback, CancelValidException
from fastai.torch_core import set_seed
from s8fast.custom_resnet import CustomResNet, ResBlock, conv_block
from s8fast.files import S8FastError
from s8fast.images import load_data
from s8fast.learner import deterministic, get_learner
from s8fast.metrics import compute_metrics, predict_logits
from s8fast.one_cycle import find_lr_range, fit_one_cycle
from s8fast.optimizer import WeightAverage, fused_adam
from s8fast.precision import autocast_of
from s8fast.recipe import MODELS, Recipe
from s8fast.seeds import parse_seeds
from torch import nn
from torch.optim.swa_utils import update_bn

FIGURES = 'accuracy', 'loss'
OF_ADAM, OF_ANY_NETWORK, OF_SAM = ('eps', 'sqr_mom'), ('logit_scale', 'ghost', 'width'), ('sam', 'sam_images', 'sam_from')


class NoValidation(Callback):
    "The end of the training is all that is measured."
    order = 80
    def before_validate(self): raise CancelValidException


class Beside(WeightAverage):
    "An average that stays beside the weights."
    def _show(self, average): pass
    def after_fit(self): pass


class Sam(Callback):
    "Sharpness-aware minimization (Foret et al. 2021, https://arxiv.org/abs/2010.01412): a step's gradient is that at weights moved by `radius` up the gradient of the batch's first `images` images (0: of all), from epoch `epochs` on. Batch norm's running statistics are those of the weights not moved."
    order = 20 # under autocast already
    def __init__(self, radius, images=0, epochs=0): self.radius, self.images, self.epochs, self.norms = radius, images, epochs, {}

    def before_batch(self):
        if not self.training or self.epoch < self.epochs or hasattr(self.learn, 'lr_finder'): return
        n, weights = self.images or len(self.xb[0]), list(self.model.parameters())
        self.learn.loss_func(self.model(self.xb[0][:n]).float(), self.yb[0][:n]).backward()
        self.kept = [o.detach().clone() for o in weights]
        with torch.no_grad():
            gradients = [o.grad for o in weights]
            length = torch.stack(torch._foreach_norm(gradients)).norm()
            torch._foreach_add_(weights, torch._foreach_mul(gradients, self.radius/(length + 1e-12)))
        self.model.zero_grad()
        self.norms = {m: m.momentum for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)}
        for m in self.norms: m.momentum = 0.

    def before_step(self):
        if not self.norms: return
        with torch.no_grad(): torch._foreach_copy_(list(self.model.parameters()), self.kept)
        for m, momentum in self.norms.items(): m.momentum = momentum
        self.norms = {}


def kaiming(learn):
    "Normal first weights of convolutions, scaled for ReLU (He et al. 2015, https://arxiv.org/abs/1502.01852)."
    for m in learn.model.modules():
        if isinstance(m, nn.Conv2d): nn.init.kaiming_normal_(m.weight, nonlinearity='relu')


def dirac(learn):
    "The first filters of each convolution hand a channel of its input on (Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1706.00388; partly so: Jordan 2024, https://arxiv.org/abs/2404.00498)."
    for m in learn.model.modules():
        if isinstance(m, nn.Conv2d): nn.init.dirac_(m.weight.data[:m.in_channels])


def whitening(learn):
    "The first convolution begins with the principal components of 3x3 patches of a training batch, and their negatives, each as long as a filter is by default (after https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/, where they stay fixed)."
    weight = next(m for m in learn.model.modules() if isinstance(m, nn.Conv2d)).weight.data
    patches = F.unfold(next(iter(learn.dls.train))[0].as_subclass(torch.Tensor), weight.shape[2:]).transpose(1, 2).flatten(0, 1)
    components = torch.linalg.eigh(torch.cov(patches.T))[1].T.flip(0) # [n, n], rows; that of the largest variance first
    components = torch.cat([components, -components]).view(-1, *weight.shape[1:])[:len(weight)]
    weight[:len(components)] = components*weight.flatten(1).norm(dim=1).mean()


FIRST_WEIGHTS = dict(kaiming=kaiming, dirac=dirac, whitening=whitening)


def alternate_flips(dl):
    "From an image's second showing on it is flipped if it was not at the last one, instead of at random (Jordan 2024, https://arxiv.org/abs/2404.00498)."
    augment, shuffle, flipped, order = dl.augment, dl.shuffle_fn, torch.rand(dl.n) < .5, []

    def shuffle_fn(idxs):
        order[:] = shuffle(idxs)
        return list(order)

    def draw(n, size):
        flipped.logical_not_()
        draws = type(augment).draw(augment, n, size)
        draws[:, 2] = flipped[order]
        return draws

    dl.shuffle_fn, dl.augment = shuffle_fn, copy.copy(augment)
    object.__setattr__(dl.augment, 'draw', draw) # it is frozen


class Narrow(CustomResNet):
    "The custom ResNet with a share `width` of its channels."
    def __init__(self, n_classes, width):
        super().__init__(n_classes)
        a, b, c, d = (round(width*o) for o in (64, 128, 256, 512))
        self.prep   = conv_block(3, a)
        self.layer1 = nn.Sequential(conv_block(a, b, pool=True), ResBlock(b))
        self.layer2 = conv_block(b, c, pool=True)
        self.layer3 = nn.Sequential(conv_block(c, d, pool=True), ResBlock(d))
        self.fc     = nn.Linear(d, n_classes)


class GhostNorm(nn.BatchNorm2d):
    "Batch norm that takes its statistics of about `images` images at a time in training (Hoffer et al. 2017, https://arxiv.org/abs/1705.08741)."
    def forward(self, x):
        if not self.training: return super().forward(x)
        groups = x.chunk(max(1, len(x)//self.images))
        share = 1 - (1 - self.momentum)**(1/len(groups)) # all groups together move the running statistics as one batch does
        return torch.cat([F.batch_norm(o, self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps) for o in groups])


def parse_row(text, common):
    "The recipe of a row, and what it changes beside it: arguments of the network, and what the recipe does not have."
    changes, arguments, known = {}, {}, {o.name for o in fields(Recipe)}
    for change in text.split(',') if text != 'default' else ():
        name, is_there, value = change.partition('=')
        if not is_there: raise S8FastError(f'{change!r} is no change: give name=value, or "default".')
        with contextlib.suppress(ValueError, SyntaxError): value = ast.literal_eval(value)
        (changes if name in known else arguments)[name] = value
    recipe = Recipe(**{**common, **changes})
    try:
        for name in (*OF_ADAM, *OF_ANY_NETWORK, *OF_SAM):
            if name in arguments and not (isinstance(arguments[name], (int, float)) and arguments[name] > 0): raise ValueError(f'{name}: a number above 0')
        make(recipe, arguments, 10)
        if not {*first_weights(arguments)} <= {*FIRST_WEIGHTS}: raise ValueError(f'first_weights: {", ".join(FIRST_WEIGHTS)}')
        if not all('sam' in arguments and isinstance(arguments[o], int) for o in OF_SAM[1:] if o in arguments): raise ValueError('sam_images, sam_from: a whole number, with sam')
        if arguments.get('flip', 'random') not in ('random', 'alternating'): raise ValueError('flip: random or alternating')
        if 'flip' in arguments and recipe.pipeline != 'batch': raise ValueError('flip: for the batch pipeline only')
        if not recipe.valid_pct: raise ValueError('valid_pct: above 0, since a study measures on validation images')
    except (TypeError, ValueError) as e: raise S8FastError(f'{text!r} changes neither the recipe nor the network ({e}).') from e
    return recipe, arguments


def first_weights(arguments): return str(arguments['first_weights']).split('+') if 'first_weights' in arguments else []


def make(recipe, arguments, n_classes):
    "The network, or None where a row changes nothing of it: it is the recipe's own then."
    own = {k: v for k, v in arguments.items() if k not in ('first_weights', 'flip', *OF_ADAM, *OF_ANY_NETWORK, *OF_SAM)}
    if not own and not {*arguments} & {*OF_ANY_NETWORK}: return None
    if 'width' in arguments and recipe.model != 'custom_resnet': raise ValueError('width: for the custom ResNet only')
    if not 1/64 <= arguments.get('width', 1) <= 1: raise ValueError('width: a share of the channels, from 1/64 to 1')
    make = partial(Narrow, width=arguments['width']) if 'width' in arguments else MODELS[recipe.model].make
    model = make(n_classes, **own)
    for m in model.modules():
        if 'ghost' in arguments and isinstance(m, nn.BatchNorm2d): m.__class__, m.images = GhostNorm, arguments['ghost']
    return Scaled(model, arguments['logit_scale']) if 'logit_scale' in arguments else model


def figures(learn):
    found = compute_metrics(*predict_logits(learn, learn.dls.valid), learn.dls.vocab)
    return {k: found[k] for k in FIGURES}


def estimate_statistics(learn, n=40):
    "Batch norm's statistics anew for the weights as they are: the mean over `n` augmented training batches."
    batches = itertools.islice(itertools.chain.from_iterable(itertools.repeat(learn.dls.train)), n)
    with learn.no_bar(), autocast_of(learn): update_bn((x.as_subclass(torch.Tensor) for x, _ in batches), learn.model)


def trial(recipe, arguments, data, averages):
    "Figures on the validation images after the last epoch and of each average, the peak rate, seconds, validation images."
    set_seed(recipe.seed)
    learn = get_learner(recipe, data, make(recipe, arguments, len(data.vocab)))
    with torch.random.fork_rng(): # order and augmentation stay those of the other rows
        for name in first_weights(arguments): FIRST_WEIGHTS[name](learn)
        if arguments.get('flip') == 'alternating': alternate_flips(learn.dls.train)
    learn.opt_func = partial(fused_adam, **{k: v for k, v in arguments.items() if k in OF_ADAM})
    if 'sam' in arguments: learn.add_cb(Sam(arguments['sam'], arguments.get('sam_images', 0), arguments.get('sam_from', 0)))
    start, beside = time.perf_counter(), {f'{o:g}': Beside(max(1., o*len(learn.dls.train))) for o in averages}
    with learn.no_bar(), learn.no_logging(), deterministic(recipe):
        lr_max = recipe.lr_max or find_lr_range(learn).lr_max
        fit_one_cycle(learn, recipe.epochs, lr_max, recipe.div, recipe.pct_start, recipe.shape, (recipe.mom_max, recipe.mom_min), cbs=[NoValidation(), *beside.values()])
    found = dict(figures(learn), averages={}, lr_max=lr_max, seconds=time.perf_counter() - start, n_train=len(learn.dls.train_ds), n_valid=len(learn.dls.valid_ds))
    for name, o in beside.items():
        learn.model.load_state_dict({**learn.model.state_dict(), **o.mine})
        found['averages'][name] = figures(learn)
        estimate_statistics(learn)
        found['averages'][f'{name}, statistics estimated'] = figures(learn)
    return found


def is_trial(found, text, recipe, arguments, averages):
    "Whether the trial `found`, of a file, is this one."
    kept = {o for o in found['averages'] if ',' not in o} # the others are estimated beside them
    return (found['row'], found['recipe'], found['arguments'], kept) == (text, asdict(recipe), arguments, {f'{o:g}' for o in averages})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='+', help='"default", or changes such as wd=0.1,cutout=0')
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--model', default='custom_resnet', help='as for s8fast_train')
    parser.add_argument('--epochs', type=int, default=24)
    parser.add_argument('--seeds', default='0', help='such as 0-2')
    parser.add_argument('--averages', type=numbers, default=[], help='epochs that averages of the weights reach back, such as .5,1,2')
    parser.add_argument('--valid_pct', type=float, default=.1, help='share of the training images to measure on')
    parser.add_argument('--share', type=float, default=1., help='of the training images to train and measure on')
    parser.add_argument('--bs', type=int, help="images a batch; left out: the network's own")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--out', type=Path, help='JSON file of all trials, written anew as each one ends; what it holds is gone on with')
    args = parser.parse_args()
    common = dict(model=args.model, epochs=args.epochs, bs=args.bs, valid_pct=args.valid_pct, device=args.device)
    device, seeds, rows, data = pick_device(args.device), parse_seeds(args.seeds), {o: parse_row(o, common) for o in args.rows}, part(load_data(args.data), args.share)
    found = read_study(args.out) if args.out and args.out.exists() else []
    if any((o['data'], o['share']) != (data.fingerprint, args.share) for o in found): raise S8FastError(f'{args.out} has trials on other images: give another --out.')
    if args.out: write_records(args.out, found) # what can't be written is said now, not after hours
    asked = []
    for seed in seeds:
        for text, (recipe, arguments) in rows.items():
            recipe = replace(recipe, seed=seed)
            there = [o for o in found if is_trial(o, text, recipe, arguments, args.averages)]
            if not there:
                found.append(dict(row=text, recipe=asdict(recipe), arguments=arguments, data=data.fingerprint, share=args.share, **trial(recipe, arguments, data, args.averages)))
                last = {recipe.average or 'none': found[-1], **found[-1]['averages']}
                print(f'{text}, seed {seed}: {", ".join(f"average {k}: {o[FIGURES[0]]:.2%}" for k, o in last.items())} in {found[-1]["seconds"]:.0f} s', file=sys.stderr, flush=True)
                if args.out: write_records(args.out, found)
            asked.append((there or found)[-1])
    print(f'{data.name} ({data.edition}), {asked[0]["n_train"]:,} training, {asked[0]["n_valid"]:,} validation images, {args.model}, {args.epochs} epochs; {header(device)}')
    lines = []
    for text in rows:
        mine = [o for o in asked if o['row'] == text]
        for average in (None, *mine[0]['averages']):
            of = [o if average is None else o['averages'][average] for o in mine]
            mean = {k: statistics.mean(o[k] for o in of) for k in FIGURES}
            deviation = f'{statistics.stdev(o["accuracy"] for o in of):.2%}' if len(of) > 1 else ''
            lines.append((text, average or rows[text][0].average or 'none', len(of), f'{mean["accuracy"]:.2%}', deviation, f'{mean["loss"]:.4f}', f'{statistics.mean(o["lr_max"] for o in mine):.2e}'))
    print(table(('choice', 'average', 'n', 'accuracy', 'deviation', 'loss', 'lr_max'), lines))


if __name__ == '__main__': run_script(main)
