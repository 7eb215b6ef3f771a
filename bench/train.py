#!/usr/bin/env python3
"""A whole run as a user starts it: wall seconds of its stages, peak memory, and the share of the device's matrix rate.

Each run is a process of its own, `s8fast_train` with the report, on data that is already in the cache. With `--scaling` it trains on
parts of the images and for several numbers of epochs instead, to see that the cost grows with both as a straight line does.
"""
import argparse, json, os, subprocess, sys, tempfile, time, warnings
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

MULTIPLY_ADDS = 379.3e6  # of one image forward, its convolutions counted as direct ones; training takes three times that


def run_once(data, flags, out):
    "Seconds of a run's stages by the process's own clock, its whole time, and its peak memory in GB."
    start = time.perf_counter()
    child = subprocess.Popen([Path(sys.executable).with_name('s8fast_train'), '--data', data, '--out', out, '--force', *flags], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status: sys.exit(f's8fast_train failed: exit status {os.waitstatus_to_exitcode(status)}')
    metrics, record = (json.loads((Path(out)/o).read_text()) for o in ('metrics.json', 'recipe.json'))
    return time.perf_counter() - start, metrics['seconds'], usage.ru_maxrss*1024/1e9, metrics, record


def whole(args):
    from common import header, matmul_rate, pick_device, table
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as tmp:
        total, seconds, peak, metrics, record = run_once(args.data, ['--epochs', str(args.epochs), '--device', args.device, *args.flags], args.out or f'{tmp}/run')
    data = record['data']
    print(f'{data["name"]} ({data["edition"]}), {args.epochs} epochs of {data["n_train"]:,} images; {header(device)}')
    rest = total - sum(seconds.values())
    print(table(('stage', 'seconds', 'share'), [(k, f'{v:.1f}', f'{v/total:.1%}') for k, v in {**seconds, 'imports, report': rest, 'all': total}.items()]))
    precision = record['chosen']['precision']
    rate, flop = matmul_rate(device, precision), 2*3*MULTIPLY_ADDS*data['n_train']*args.epochs
    print(f'peak memory {peak:.2f} GB; test accuracy {metrics["test"]["accuracy"]:.2%}')
    print(f'{flop/1e15:.3f} PFLOP in {seconds["training"]:.1f} s of training and validation: {flop/seconds["training"]/1e12:.2f} TFLOP/s, '
          f'{flop/seconds["training"]/rate:.0%} of the {rate/1e12:.2f} TFLOP/s of a matrix product in {precision}')


def scaling(args):
    from common import header, part, pick_device, table
    from s8fast.images import load_data
    from s8fast.recipe import Recipe
    from s8fast.training import train
    device, data = pick_device(args.device), load_data(args.data)

    def seconds(share, epochs):
        some = part(data, share)
        with tempfile.TemporaryDirectory() as tmp:
            found = train(Recipe(epochs=epochs, lr_max=1e-3, device=args.device, bs=args.bs), some, f'{tmp}/run', log=lambda line: None)
        n = epochs*(len(some.train_labels) - found['valid']['n'])
        return n, found['seconds']['training']
    seconds(args.shares[0], 1)  # warm-up
    rows = [(share, epochs, *seconds(share, epochs)) for share, epochs in [(args.shares[0], e) for e in args.epoch_counts] + [(s, 1) for s in args.shares[1:]]]
    print(f'{data.name} ({data.edition}), batch {args.bs}; {header(device)}')
    print(table(('share of the images', 'epochs', 'images trained', 'seconds', 'images/s'), [(f'{a:.4g}', b, n, f'{s:.1f}', f'{n/s:,.0f}') for a, b, n, s in rows]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--epochs', type=int, default=24)
    parser.add_argument('--out', help='keep the run in this folder')
    parser.add_argument('--bs', type=int, default=512, help='images a batch, with --scaling')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--scaling', action='store_true', help='time against images and epochs')
    parser.add_argument('--shares', type=float, nargs='+', default=[1/16, 1/4, 1/2, 1], help='of the training images, with --scaling')
    parser.add_argument('--epoch_counts', type=int, nargs='+', default=[1, 2, 4, 8], help='on the first share, with --scaling')
    args, args.flags = parser.parse_known_args()
    scaling(args) if args.scaling else whole(args)


if __name__ == '__main__':
    from common import run_script
    run_script(main)
