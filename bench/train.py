#!/usr/bin/env python3
"""A whole run as a user starts it: wall seconds of its stages, peak memory, and the share of the device's matrix rate.

The run is a process of its own, `s8fast_train` with the report, on data that is already in the cache. Options that this
script does not know go to it. With `--scaling` it trains on parts of the images and for several numbers of epochs
instead, to see whether the cost grows linearly with both.
"""
import argparse, json, os, subprocess, sys, tempfile, time, warnings
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

MULTIPLY_ADDS = 379.3e6  # of one image forward, by direct convolutions; training takes three times that


class Measured(NamedTuple):
    "A run that was measured from outside."
    total: float   # wall seconds of the process
    peak: float    # its peak memory in GB
    metrics: dict  # the run's metrics.json
    record: dict   # the run's recipe.json


def run_once(data, flags, out):
    "Train in a process of its own, into the folder `out`."
    start = time.perf_counter()
    command = [Path(sys.executable).with_name('s8fast_train'), '--data', data, '--out', out, '--force', *flags]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status: sys.exit(f's8fast_train failed: exit status {os.waitstatus_to_exitcode(status)}')
    total = time.perf_counter() - start
    metrics, record = (json.loads((Path(out)/name).read_text()) for name in ('metrics.json', 'recipe.json'))
    return Measured(total, usage.ru_maxrss*1024/1e9, metrics, record)


def measure_whole(args):
    "Train once and print what it took."
    from common import header, matmul_rate, table
    from s8fast.training.device import pick_device
    device = pick_device(args.device)
    flags = ['--epochs', str(args.epochs), '--device', args.device, *args.flags]
    with tempfile.TemporaryDirectory() as folder: run = run_once(args.data, flags, args.out or f'{folder}/run')
    data = run.record['data']
    seconds = run.metrics['seconds']
    images = f'{data["name"]} ({data["edition"]}), {args.epochs} epochs of {data["n_train"]:,} images'
    print(f'{images}; {header(device)}')
    stages = {**seconds, 'imports, report': run.total - sum(seconds.values()), 'all': run.total}
    rows = [(name, f'{value:.1f}', f'{value/run.total:.1%}') for name, value in stages.items()]
    print(table(('stage', 'seconds', 'share'), rows))
    print(f'peak memory {run.peak:.2f} GB; test accuracy {run.metrics["test"]["accuracy"]:.2%}')
    precision = run.record['chosen']['precision']
    rate = matmul_rate(device, precision)
    flop = 2*3*MULTIPLY_ADDS*data['n_train']*args.epochs
    reached = flop/seconds['training']
    print(f'{flop/1e15:.3f} PFLOP in {seconds["training"]:.1f} s of training and validation: '
          f'{reached/1e12:.2f} TFLOP/s, {reached/rate:.0%} of the {rate/1e12:.2f} TFLOP/s of a matrix product '
          f'in {precision}')


def time_training(data, share, epochs, args):
    "Images trained, and seconds of training, on a share of the images."
    from common import part
    from s8fast.recipe import Recipe
    from s8fast.runs.train import train
    some = part(data, share)
    recipe = Recipe(epochs=epochs, lr_max=1e-3, device=args.device, bs=args.bs)
    with tempfile.TemporaryDirectory() as folder:
        metrics = train(recipe, some, f'{folder}/run', log=lambda line: None)
    n_train = len(some.train_labels) - metrics['valid']['n']
    return epochs*n_train, metrics['seconds']['training']


def measure_scaling(args):
    "Train on parts of the images and for several numbers of epochs, and print the time of each."
    from common import header, table
    from s8fast.data.dataset import load_data
    from s8fast.training.device import pick_device
    device = pick_device(args.device)
    data = load_data(args.data)
    first, *others = args.shares
    time_training(data, first, 1, args)  # warm-up
    rows = []
    for share, epochs in [*((first, epochs) for epochs in args.epoch_counts), *((share, 1) for share in others)]:
        n, seconds = time_training(data, share, epochs, args)
        rows.append((f'{share:.4g}', epochs, n, f'{seconds:.1f}', f'{n/seconds:,.0f}'))
    print(f'{data.name} ({data.edition}), batch {args.bs}; {header(device)}')
    print(table(('share of the images', 'epochs', 'images trained', 'seconds', 'images/s'), rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--epochs', type=int, default=24, help='of the run')
    parser.add_argument('--out', help='keep the run in this folder')
    parser.add_argument('--bs', type=int, default=512, help='images a batch, with --scaling')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    parser.add_argument('--scaling', action='store_true', help='time against images and epochs')
    parser.add_argument('--shares', type=float, nargs='+', default=[1/16, 1/4, 1/2, 1],
                        help='of the training images, with --scaling')
    parser.add_argument('--epoch_counts', type=int, nargs='+', default=[1, 2, 4, 8],
                        help='on the first share, with --scaling')
    args, args.flags = parser.parse_known_args()
    if args.scaling: measure_scaling(args)
    else: measure_whole(args)


if __name__ == '__main__':
    from common import run_script
    run_script(main)
