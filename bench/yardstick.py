#!/usr/bin/env python3
"""The recipe of the network's author on the same images, split and steps as s8fast's: what s8fast's accuracy is measured against.

SGD with Nesterov momentum 0.9, a rate of 0 that rises to 0.4 at epoch 5 and falls to 0 with the last step, L2 decay 5e-4 of every
parameter, logits times 1/8, padding by reflection, crop, flip, cutout 8, batch 512, 24 epochs: David Page's cifar10-fast
(https://github.com/davidcpage/cifar10-fast). It differs from his program in what the comparison keeps the same: s8fast's network
(pool before batch norm, a bias in the last layer) and precision, an epoch's last, smaller batch, and the validation images held out
(none with `--valid_pct 0`).
PyTorch's momentum holds gradients, his held steps; the two differ where the rate moves. Nothing is tuned here. A run that is stopped
leaves a checkpoint beside `--out`, and the same command goes on from there. A finished one leaves its logits there, in float16.
"""
import argparse, os, sys, time, warnings
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import Scaled, header, pick_device, read_records, run_script, table, write_logits, write_records
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed, trainable_params
from s8fast.callbacks import History
from s8fast.checkpoint import Checkpoint, Interrupted, StopSignals, read_checkpoint
from s8fast.custom_resnet import CustomResNet
from s8fast.files import S8FastError
from s8fast.images import load_data
from s8fast.learner import get_learner, quiet_unless_interactive
from s8fast.loaders import test_dl
from s8fast.metrics import compute_metrics, predict_logits
from s8fast.one_cycle import fit_one_cycle
from s8fast.precision import PRECISIONS, pick_precision
from s8fast.recipe import Recipe
from s8fast.run_folder import remove
from s8fast.seeds import parse_seeds, spread_line, summarise
from torch import optim

LR, MOMENTUM, DECAY, SCALE = .4, .9, 5e-4, 1/8
METHOD = dict(optimizer='SGD', nesterov=True, momentum=MOMENTUM, lr_max=LR, lr_end=0., l2=DECAY, logit_scale=SCALE) # where a record's `recipe` says otherwise, this holds


def sgd(params, lr): return OptimWrapper(params, optim.SGD, lr=lr, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)


def predict_parts(learn, data):
    "Figures and logits of the test images and, where some are held out, of the validation images: two dictionaries."
    figures, logits = {}, {}
    parts = dict(test=test_dl(learn.dls, data))
    if len(learn.dls.valid_ds): parts['valid'] = learn.dls.valid
    for name, dl in parts.items():
        logits[name], targets = predict_logits(learn, dl)
        flipped, _ = predict_logits(learn, dl, flip=True)
        figures[name] = compute_metrics(logits[name], targets, learn.dls.vocab, flipped)
        del figures[name]['per_class']
    return figures, logits


def run(data, recipe, path, logits_path, device):
    "Figures of one run, and its epochs; `path` is its checkpoint, its logits go to `logits_path`. Raises `S8FastError`, and `Interrupted` when a signal came."
    record = dict(data=data.fingerprint, recipe=asdict(recipe), method=METHOD, precision=pick_precision(recipe.precision, device))
    state = read_checkpoint(path)
    if state and state[1]['record'] != record: raise S8FastError(f'{path} was left by a run on other data, with other options or in another precision: finish that one, or begin again with --force.')
    before, done = (state[1]['seconds'], len(state[1]['callbacks']['history']['rows'])) if state else (0., 0)
    set_seed(recipe.seed)
    learn = get_learner(recipe, data, Scaled(CustomResNet(len(data.vocab)), SCALE))
    quiet_unless_interactive(learn)
    learn.opt_func, learn.splitter, learn.wd = sgd, trainable_params, None
    history, start = History(log=lambda line: print(line, file=sys.stderr, flush=True)), time.perf_counter()
    with StopSignals() as stop:
        saver = Checkpoint(path, record, stop=stop, state=state)
        fit_one_cycle(learn, recipe.epochs, LR, div=1e9, moms=(MOMENTUM, MOMENTUM), cbs=[history, saver], done=done)  # a billionth of the peak is as good as nothing
    if saver.stopped: raise Interrupted(f'stopped after epoch {len(history.rows)}, step {saver.batches}: the same command goes on from there.', stop.signum)
    seconds = before + time.perf_counter() - start
    figures, logits = predict_parts(learn, data)
    write_logits(logits_path, logits, data)
    return dict(**record, seed=recipe.seed, environment=header(device), seconds=seconds, history=history.rows, **figures)


def read_runs(path):
    "The runs that this script wrote to `path`; raises `S8FastError`."
    def look(o): o['data'], o['seed'], o['seconds'], Recipe(**o['recipe']), o['test']['accuracy'] + o['test']['accuracy_tta'], 'valid' not in o or o['valid']['accuracy'] + 0
    return read_records(path, look, 'record of such runs')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--seeds', default='0', help='such as 0-2')
    parser.add_argument('--epochs', type=int, default=24)
    parser.add_argument('--bs', type=int, default=512)
    parser.add_argument('--valid_pct', type=float, default=.04, help='share of the training images held out for validation; 0: none')
    parser.add_argument('--precision', default='auto', help=f'auto, {", ".join(PRECISIONS)}')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--out', type=Path, required=True, help='JSON file of all runs, written anew as each one ends; the seeds in it are not run again')
    parser.add_argument('--force', action='store_true', help='begin again what was stopped')
    args = parser.parse_args()
    device, data, seeds = pick_device(args.device), load_data(args.data), parse_seeds(args.seeds)
    recipe = Recipe(epochs=args.epochs, bs=args.bs, valid_pct=args.valid_pct, precision=args.precision, device=args.device,
                    pad=4, cutout=8, pad_mode='reflect', label_smoothing=0., average=0., bn_momentum=.1, wd=0., lr_max=LR, drop_last=False)
    found = read_runs(args.out) if args.out.exists() else []
    if any((o['data'], Recipe(**{**o['recipe'], 'seed': 0})) != (data.fingerprint, recipe) for o in found): raise S8FastError(f'{args.out} has runs on other data or with other options: give another --out.')
    write_records(args.out, found) # what can't be written is said now, not after hours
    for seed in seeds:
        if any(o['seed'] == seed for o in found): continue
        path, logits_path = (args.out.with_name(f'{args.out.stem}-seed{seed}.{o}') for o in ('checkpoint', 'safetensors'))
        if args.force: remove(path)
        found.append(run(data, replace(recipe, seed=seed), path, logits_path, device))
        write_records(args.out, found)
        remove(path)
    print(f"the author's recipe, {data.name} ({data.edition}), {args.epochs} epochs; {header(device)}")
    rows = []
    for o in found:
        valid = f'{o["valid"]["accuracy"]:.2%}' if 'valid' in o else 'none'
        rows.append((o['seed'], f'{o["test"]["accuracy"]:.2%}', f'{o["test"]["accuracy_tta"]:.2%}', valid, f'{o["seconds"]:,.0f}'))
    print(table(('seed', 'test', 'flip TTA', 'validation', 'seconds'), rows))
    for name, key in (('test accuracy', 'accuracy'), ('with flip TTA', 'accuracy_tta')): print(f'{name} {spread_line(summarise([o["test"][key] for o in found]))}')


if __name__ == '__main__': run_script(main)
