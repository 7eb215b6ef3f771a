#!/usr/bin/env python3
"""Choices side by side on validation images: one row a choice, with n, mean and deviation over seeds. Test images are never looked at.

Each positional argument is a row: changes to the recipe, or to what the network is built with, separated by commas, such as
`wd=0.1,cutout=0` or `residual=False`; `default` is the recipe as it stands. All rows see the same split; a seed draws the same first
weights, order and augmentation in every row that has the same network. Accuracy is the last epoch's.
"""
import argparse, ast, contextlib, json, os, statistics, sys, time, warnings
from dataclasses import asdict, fields, replace
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import header, pick_device, table
from fastai.torch_core import set_seed
from s8fast.callbacks import History
from s8fast.files import S8FastError
from s8fast.images import load_data
from s8fast.one_cycle import find_lr_range, fit_one_cycle
from s8fast.recipe import MODELS, Recipe
from s8fast.learner import get_learner


def parse_row(text, common):
    "The recipe of a row, and arguments of its network."
    changes, arguments, known = {}, {}, {o.name for o in fields(Recipe)}
    for part in text.split(',') if text != 'default' else ():
        name, is_there, value = part.partition('=')
        if not is_there: raise S8FastError(f'{part!r} is no change: give name=value, or "default".')
        with contextlib.suppress(ValueError, SyntaxError): value = ast.literal_eval(value)
        (changes if name in known else arguments)[name] = value
    recipe = Recipe(**{**common, **changes})
    try: make(recipe, arguments, 10)
    except (TypeError, ValueError) as e: raise S8FastError(f'{text!r} changes neither the recipe nor the network ({e}).') from e
    return recipe, arguments


def make(recipe, arguments, n_classes): return MODELS[recipe.model].make(n_classes, **arguments)


def trial(recipe, arguments, data):
    "What the last epoch reached, the validation accuracy of each epoch, the peak rate, seconds, validation images."
    learn = get_learner(recipe, data)
    if arguments:
        set_seed(recipe.seed)
        learn.model = make(recipe, arguments, len(data.vocab)).to(learn.dls.device)
    start, history = time.perf_counter(), History()
    with learn.no_bar(), learn.no_logging():
        lr_max = recipe.lr_max or find_lr_range(learn).lr_max
        fit_one_cycle(learn, recipe.epochs, lr_max, recipe.div, recipe.pct_start, recipe.shape, (recipe.mom_max, recipe.mom_min), cbs=history)
    return {**history.rows[-1], 'valid_accuracies': [o['valid_accuracy'] for o in history.rows], 'lr_max': lr_max,
            'seconds': time.perf_counter() - start, 'n_valid': len(learn.dls.valid_ds)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='+', help='"default", or changes such as wd=0.1,cutout=0')
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--model', default='custom_resnet', help='as for s8fast_train')
    parser.add_argument('--epochs', type=int, default=24)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--valid_pct', type=float, default=.1, help='share of the training images to measure on')
    parser.add_argument('--bs', type=int, help="images a batch; left out: the network's own")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--out', type=Path, help='JSON file of all trials, written anew as each one ends')
    args = parser.parse_args()
    common = dict(model=args.model, epochs=args.epochs, bs=args.bs, valid_pct=args.valid_pct, device=args.device)
    try:
        device, rows, data = pick_device(args.device), {o: parse_row(o, common) for o in args.rows}, load_data(args.data)
        if args.out and args.out.exists(): raise S8FastError(f'{args.out} is there already: give another --out.')
    except S8FastError as e:
        print(f'study.py: {e}', file=sys.stderr)
        sys.exit(2)
    found = []
    for seed in dict.fromkeys(args.seeds):
        for text, (recipe, arguments) in rows.items():
            recipe = replace(recipe, seed=seed)
            found.append(dict(row=text, recipe=asdict(recipe), arguments=arguments, data=data.fingerprint, **trial(recipe, arguments, data)))
            print(f'{text}, seed {seed}: {found[-1]["valid_accuracy"]:.2%} in {found[-1]["seconds"]:.0f} s', file=sys.stderr, flush=True)
            if args.out: args.out.write_text(json.dumps(found, indent=1) + '\n')
    print(f'{data.name} ({data.edition}), {found[0]["n_valid"]:,} validation images, {args.model}, {args.epochs} epochs; {header(device)}')
    lines = []
    for text in rows:
        mine = [o for o in found if o['row'] == text]
        means = {k: statistics.mean(o[k] for o in mine) for k in ('valid_accuracy', 'valid_loss', 'train_accuracy', 'lr_max')}
        deviation = f'{statistics.stdev(o["valid_accuracy"] for o in mine):.2%}' if len(mine) > 1 else ''
        lines.append((text, len(mine), f'{means["valid_accuracy"]:.2%}', deviation, f'{means["valid_loss"]:.4f}', f'{means["train_accuracy"]:.2%}', f'{means["lr_max"]:.2e}'))
    print(table(('choice', 'n', 'valid accuracy', 'deviation', 'valid loss', 'train accuracy', 'lr_max'), lines))


if __name__ == '__main__': main()
