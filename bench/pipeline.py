#!/usr/bin/env python3
"""Images a second of loading and augmenting alone, nothing trained: the item pipeline with 0, 1 and 2 workers, and the batch pipeline.

The rows take turns. A turn goes over at most `--images` images; starting the workers is in it, as it is in every epoch.
"""
import argparse, os, time, warnings
from itertools import islice

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import enough, header, pick_device, run_script, spread, table, wait
from s8fast.images import load_data
from s8fast.loaders import get_dls


def rate(dl, n_batches, device):
    "Images a second of `n_batches` batches."
    wait(device)
    start, n = time.perf_counter(), 0
    for x, y in islice(dl, n_batches): n += len(y)
    wait(device)
    return n/(time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--images', type=int, default=20_000, help='images in a turn, at most')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each row')
    parser.add_argument('--device', default='auto')
    args = parser.parse_args()
    device, data = pick_device(args.device), enough(load_data(args.data), 24*args.bs)
    dl = {f'item, {n} workers': get_dls(data, args.bs, pipeline='item', num_workers=n, device=device).train for n in (0, 1, 2)}
    dl['batch'] = get_dls(data, args.bs, pipeline='batch', device=device).train
    found = {k: [] for k in dl}
    for _ in range(args.rounds):
        for k, o in dl.items(): found[k].append(rate(o, max(1, args.images//args.bs), device))
    print(f'{data.name} ({data.edition}), batch {args.bs}; {header(device)}')
    ref = spread(found['item, 0 workers'])[1]
    print(table(('images/s', 'n', 'median', 'min', 'max', 'to item, 0 workers'),
                [(k, n, *(f'{o:,.0f}' for o in (m, low, high)), f'{m/ref:.1f}') for k, v in found.items() for n, m, low, high in [spread(v)]]))


if __name__ == '__main__': run_script(main)
