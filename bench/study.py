#!/usr/bin/env python3
"""Choices side by side on validation images: one row a choice, with n, mean and deviation over seeds. Test images are never looked at.

Each positional argument is a row: changes to the recipe, or to what the network is built with, separated by commas, such as
`wd=0.1,cutout=0` or `residual=False`; `default` is the recipe as it stands. All rows see the same split; a seed draws the same first
weights, order and augmentation in every row that has the same network. Accuracy is the last epoch's.
"""
import argparse, ast, contextlib, json, os, statistics, sys, time, warnings
from dataclasses import fields
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import header, pick_device, table
from s8fast.callbacks import History
from s8fast.images import S8FastError, load_data
from s8fast.one_cycle import find_lr_range, fit_one_cycle
from s8fast.recipe import MODELS, Recipe
from s8fast.training import get_learner, quiet_unless_interactive


def parse_row(text):
    "Changes to the recipe and arguments of the network, two dictionaries."
    changes, arguments, known = {}, {}, {o.name for o in fields(Recipe)}
    for part in text.split(',') if text != 'default' else ():
        name, is_there, value = part.partition('=')
        if not is_there: raise S8FastError(f'{part!r} is no change: give name=value, or "default".')
        with contextlib.suppress(ValueError, SyntaxError): value = ast.literal_eval(value)
        (changes if name in known else arguments)[name] = value
    return changes, arguments


def trial(recipe, arguments, data):
    "Validation accuracy and loss after the last epoch, training accuracy in it, seconds, and the peak rate."
    learn = get_learner(recipe, data)
    if arguments:
        from fastai.torch_core import set_seed
        set_seed(recipe.seed)
        learn.model = MODELS[recipe.model].make(len(data.vocab), **arguments).to(learn.dls.device)
    quiet_unless_interactive(learn)
    learn.remove_cbs([o for o in learn.cbs if type(o).__name__ == 'ProgressCallback'])
    start, lr_max = time.perf_counter(), recipe.lr_max or find_lr_range(learn).lr_max
    history = History()
    with learn.no_logging():
        fit_one_cycle(learn, recipe.epochs, lr_max, recipe.div, recipe.pct_start, recipe.shape, (recipe.mom_max, recipe.mom_min), cbs=history)
    return {**history.rows[-1], 'seconds': time.perf_counter() - start, 'lr_max': lr_max, 'valid_accuracies': [o['valid_accuracy'] for o in history.rows]}


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
    parser.add_argument('--out', type=Path, help='JSON file that each trial is added to as it ends')
    args = parser.parse_args()
    try: rows = [(text, parse_row(text)) for text in args.rows]
    except S8FastError as e: sys.exit(f'study.py: {e}')
    device, data = pick_device(args.device), load_data(args.data)
    found = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    for seed in args.seeds:
        for text, (changes, arguments) in rows:
            recipe = Recipe(**{**dict(model=args.model, epochs=args.epochs, bs=args.bs, valid_pct=args.valid_pct, seed=seed, device=args.device), **changes})
            found.append(dict(row=text, seed=seed, epochs=recipe.epochs, model=recipe.model, **trial(recipe, arguments, data)))
            print(f'{text}, seed {seed}: {found[-1]["valid_accuracy"]:.2%} in {found[-1]["seconds"]:.0f} s', file=sys.stderr, flush=True)
            if args.out: args.out.write_text(json.dumps(found, indent=1) + '\n')
    n_valid = len(get_learner(Recipe(valid_pct=args.valid_pct, bs=args.bs, device=args.device), data).dls.valid_ds)
    print(f'{data.name} ({data.edition}), {n_valid:,} validation images, {args.model}, {args.epochs} epochs; {header(device)}')
    lines = []
    for text, _ in rows:
        mine = [o for o in found if o['row'] == text and o['epochs'] == args.epochs and o['model'] == args.model]
        accuracies = [o['valid_accuracy'] for o in mine]
        spread = f'{statistics.stdev(accuracies):.2%}' if len(mine) > 1 else ''
        means = {k: statistics.mean(o[k] for o in mine) for k in ('valid_loss', 'train_accuracy', 'lr_max')}
        lines.append((text, len(mine), f'{statistics.mean(accuracies):.2%}', spread, f'{means["valid_loss"]:.4f}', f'{means["train_accuracy"]:.2%}', f'{means["lr_max"]:.2e}'))
    print(table(('choice', 'n', 'valid accuracy', 'deviation', 'valid loss', 'train accuracy', 'lr_max'), lines))


if __name__ == '__main__': main()
