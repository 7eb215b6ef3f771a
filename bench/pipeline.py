#!/usr/bin/env python3
"""Images a second of loading and augmenting alone: the item pipeline with 0, 1 and 2 workers, and the batch pipeline.

The rows take turns. A turn goes over at most `--images` images.
It includes the start of the workers, as every epoch does.
"""
import argparse, os, time, warnings
from itertools import islice

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import enough, header, run_script, spread, table, wait
from s8fast.data.dataset import load_data
from s8fast.data.loaders import get_dls
from s8fast.training.device import pick_device

REFERENCE = 'item, 0 workers'


def make_loaders(data, bs, device):
    "The training loaders that are compared, by name."
    loaders = {}
    for n in (0, 1, 2):
        loaders[f'item, {n} workers'] = get_dls(data, bs, pipeline='item', num_workers=n, device=device).train
    loaders['batch'] = get_dls(data, bs, pipeline='batch', device=device).train
    return loaders


def rate(dl, n_batches, device):
    "Images a second of `n_batches` batches."
    wait(device)
    start = time.perf_counter()
    n = sum(len(y) for x, y in islice(dl, n_batches))
    wait(device)
    return n/(time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--images', type=int, default=20_000, help='images in a turn, at most')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each row')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    args = parser.parse_args()
    device = pick_device(args.device)
    data = enough(load_data(args.data), 24*args.bs)
    loaders = make_loaders(data, args.bs, device)
    n_batches = max(1, args.images//args.bs)
    found = {name: [] for name in loaders}
    for _ in range(args.rounds):
        for name, dl in loaders.items(): found[name].append(rate(dl, n_batches, device))
    reference = spread(found[REFERENCE])[1]
    rows = []
    for name, rates in found.items():
        n, *figures = spread(rates)
        rows.append((name, n, *(f'{figure:,.0f}' for figure in figures), f'{figures[0]/reference:.1f}'))
    print(f'{data.name} ({data.edition}), batch {args.bs}; {header(device)}')
    print(table(('images/s', 'n', 'median', 'min', 'max', f'to {REFERENCE}'), rows))


if __name__ == '__main__': run_script(main)
