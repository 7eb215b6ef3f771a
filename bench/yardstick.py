#!/usr/bin/env python3
"""The recipe of the network's author, with s8fast's images, split and steps: the reference for s8fast's accuracy.

SGD with Nesterov momentum 0.9; a rate that rises from 0 to 0.4 at epoch 5 and falls to 0 with the last step; L2 decay
5e-4 of every parameter; logits times 1/8; reflection padding, crop, flip, cutout 8; batch 512; 24 epochs. This is David
Page's cifar10-fast (https://github.com/davidcpage/cifar10-fast). It differs from his program in what the comparison
holds fixed: s8fast's network (pool before batch norm, a bias in the last layer) and precision, an epoch's last, smaller
batch, and the validation images held out (none with `--valid_pct 0`).
PyTorch's momentum accumulates gradients, his accumulates steps; the two differ where the rate changes. Nothing is tuned
here. A run that is stopped leaves a checkpoint beside `--out`, and the same command resumes it. A finished run leaves
its logits there, in float16.
"""
import argparse, os, sys, time, warnings
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import (Scaled, header, read_records, recorded_recipe, run_script, table, write_logits,
                    write_records)
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed, trainable_params
from s8fast.data.dataset import load_data
from s8fast.data.loaders import test_dl
from s8fast.errors import Interrupted, S8FastError
from s8fast.files import remove
from s8fast.models.custom_resnet import CustomResNet
from s8fast.recipe import Recipe
from s8fast.runs.seeds import parse_seeds
from s8fast.runs.signals import StopSignals
from s8fast.runs.summary import spread_line, summarise
from s8fast.training.checkpoint import read_checkpoint
from s8fast.training.checkpoint_callback import SaveCheckpoint
from s8fast.training.device import PRECISIONS, pick_device, pick_precision
from s8fast.training.history import History
from s8fast.training.learner import check_names, get_learner, quiet_unless_interactive
from s8fast.training.metrics import compute_metrics, predict_logits
from s8fast.training.one_cycle import fit_one_cycle
from torch import optim

LR = .4
MOMENTUM = .9
DECAY = 5e-4
SCALE = 1/8
DIV = 1e9  # a billionth of the peak is as good as a rate of zero
#: Where a record's `recipe` says otherwise, this holds.
METHOD = dict(optimizer='SGD', nesterov=True, momentum=MOMENTUM, lr_max=LR, lr_end=0., l2=DECAY, logit_scale=SCALE)


def sgd(params, lr):
    return OptimWrapper(params, optim.SGD, lr=lr, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)


def make_learner(data, recipe):
    "A `Learner` with the author's optimiser and scale of the logits."
    set_seed(recipe.seed)
    learn = get_learner(recipe, data, Scaled(CustomResNet(len(data.vocab)), SCALE))
    quiet_unless_interactive(learn)
    learn.opt_func = sgd
    learn.splitter = trainable_params
    learn.wd = None
    return learn


def predict_parts(learn, data):
    "Figures and logits of the test images and, where some are held out, of the validation images: two dictionaries."
    loaders = dict(test=test_dl(learn.dls, data))
    if len(learn.dls.valid_ds): loaders['valid'] = learn.dls.valid
    figures, logits = {}, {}
    for name, dl in loaders.items():
        logits[name], targets = predict_logits(learn, dl)
        flipped, _ = predict_logits(learn, dl, flip=True)
        figures[name] = compute_metrics(logits[name], targets, learn.dls.vocab, flipped)
        del figures[name]['per_class']
    return figures, logits


def print_line(line): print(line, file=sys.stderr, flush=True)


def fit(learn, recipe, record, path, checkpoint):
    "Train, from the checkpoint if there is one. Returns the history's rows. Raises `Interrupted` when a signal came."
    history = History(log=print_line)
    with StopSignals() as stop:
        saver = SaveCheckpoint(path, record, stop=stop, checkpoint=checkpoint)
        fit_one_cycle(learn, recipe.epochs, LR, div=DIV, moms=(MOMENTUM, MOMENTUM), cbs=[history, saver],
                      done=len(checkpoint.rows) if checkpoint else 0)
    if saver.stopped:
        where = f'epoch {len(history.rows)}, step {saver.batches}'
        raise Interrupted(f'stopped after {where}: the same command goes on from there.', stop.signum)
    return history.rows


def run(data, recipe, path, logits_path, device):
    """Figures and history of one run.

    `path` is its checkpoint; its logits go to `logits_path`. Raises `S8FastError`, and `Interrupted` after a signal.
    """
    precision = pick_precision(recipe.precision, device)
    record = dict(data=data.fingerprint, recipe=asdict(recipe), method=METHOD, precision=precision)
    checkpoint = read_checkpoint(path)
    if checkpoint and checkpoint.record != record:
        raise S8FastError(f'{path} was left by a run on other data, with other options or in another precision: '
                          'finish that one, or begin again with --force.')
    learn = make_learner(data, recipe)
    before = checkpoint.seconds if checkpoint else 0.
    start = time.perf_counter()
    rows = fit(learn, recipe, record, path, checkpoint)
    seconds = before + time.perf_counter() - start
    figures, logits = predict_parts(learn, data)
    write_logits(logits_path, logits, data)
    return dict(**record, seed=recipe.seed, environment=header(device), seconds=seconds, history=rows, **figures)


def read_runs(path):
    "The runs that this script wrote to `path`. Raises `S8FastError`."
    def look(run):
        for name in ('data', 'seed', 'seconds'): run[name]
        recorded_recipe(run['recipe'])
        run['test']['accuracy'] + run['test']['accuracy_tta']
        if 'valid' in run: run['valid']['accuracy'] + 0
    return read_records(path, look, 'record of such runs')


def make_recipe(args):
    "The author's choices as far as the recipe has them."
    return Recipe(epochs=args.epochs, bs=args.bs, valid_pct=args.valid_pct, precision=args.precision,
                  device=args.device, lr_max=LR, wd=0., pad=4, pad_mode='reflect', cutout=8, label_smoothing=0.,
                  average=0., bn_momentum=.1, drop_last=False)


def same_runs(run, data, recipe):
    "Whether a recorded run is on this data and with this recipe, whatever its seed."
    return run['data'] == data.fingerprint and replace(recorded_recipe(run['recipe']), seed=recipe.seed) == recipe


def report(found):
    "A table of the runs, and a line each for the test accuracy without and with the mirror image."
    rows = []
    for run in found:
        test = run['test']
        valid = f'{run["valid"]["accuracy"]:.2%}' if 'valid' in run else 'none'
        rows.append((run['seed'], f'{test["accuracy"]:.2%}', f'{test["accuracy_tta"]:.2%}', valid,
                     f'{run["seconds"]:,.0f}'))
    lines = [table(('seed', 'test', 'flip TTA', 'validation', 'seconds'), rows)]
    for name, key in (('test accuracy', 'accuracy'), ('with flip TTA', 'accuracy_tta')):
        lines.append(f'{name} {spread_line(summarise([run["test"][key] for run in found]))}')
    return '\n'.join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--seeds', default='0', help='such as 0-2')
    parser.add_argument('--epochs', type=int, default=24, help='of a run')
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--valid_pct', type=float, default=.04,
                        help='share of the training images held out for validation; 0: none')
    parser.add_argument('--precision', default='auto', help=f'auto, {", ".join(PRECISIONS)}')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    parser.add_argument('--out', type=Path, required=True,
                        help='JSON file of all runs, written anew as each one ends; the seeds in it are not run again')
    parser.add_argument('--force', action='store_true', help='begin again what was stopped')
    return parser.parse_args()


def main():
    args = parse()
    device = pick_device(args.device)
    data = load_data(args.data)
    seeds = parse_seeds(args.seeds)
    recipe = make_recipe(args)
    check_names(recipe)
    found = read_runs(args.out) if args.out.exists() else []
    if not all(same_runs(run, data, recipe) for run in found):
        raise S8FastError(f'{args.out} has runs on other data or with other options: give another --out.')
    write_records(args.out, found)  # a file that cannot be written is said now, not after hours
    for seed in seeds:
        if any(run['seed'] == seed for run in found): continue
        path, logits_path = (args.out.with_name(f'{args.out.stem}-seed{seed}.{suffix}')
                             for suffix in ('checkpoint', 'safetensors'))
        if args.force: remove(path)
        found.append(run(data, replace(recipe, seed=seed), path, logits_path, device))
        write_records(args.out, found)
        remove(path)
    print(f"the author's recipe, {data.name} ({data.edition}), {args.epochs} epochs; {header(device)}")
    print(report(found))


if __name__ == '__main__': run_script(main)
