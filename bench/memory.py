#!/usr/bin/env python3
"""What `keep_freed_memory` gives: a bare training step on the CPU with and without it.

The precision is the one that s8fast picks here. Each row is a process of its own, the two kinds in turn.
The ratio is of their medians.
"""
import argparse, json, platform, resource, statistics, subprocess, sys, time

WARM_UP = 2


def measure(keep, n, bs):
    "Print the seconds of `n` steps of the custom ResNet, after a warm-up, and the peak memory in MB, as JSON."
    import torch
    from s8fast.training.device import keep_freed_memory, pick_precision
    if keep: keep_freed_memory()
    precision = pick_precision('auto', 'cpu')
    step = make_step(bs, precision)
    seconds = []
    for _ in range(n + WARM_UP):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
    print(json.dumps(dict(seconds=seconds[WARM_UP:], peak=peak, precision=precision, torch=torch.__version__,
                          threads=torch.get_num_threads())))


def make_step(bs, precision):
    "A function that does a training step on one random batch."
    import torch
    import torch.nn.functional as F
    from s8fast.models.custom_resnet import CustomResNet
    from s8fast.training.device import PRECISIONS
    torch.manual_seed(0)
    model = CustomResNet().to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    x = torch.randn(bs, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (bs,))
    def step():
        with torch.autocast('cpu', PRECISIONS[precision], enabled=precision != 'fp32'): logits = model(x)
        F.cross_entropy(logits.float(), y).backward()
        opt.step()
        opt.zero_grad()
    return step


def run_worker(kind, args):
    "What `measure` prints in a process of its own."
    command = [sys.executable, __file__, '--worker', kind, '--steps', str(args.steps), '--bs', str(args.bs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', type=int, default=3, help='processes of each kind')
    parser.add_argument('--steps', type=int, default=6, help='counted steps in each')
    parser.add_argument('--bs', type=int, default=512, help='images a step')
    parser.add_argument('--worker', choices=('plain', 'keep'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker: return measure(args.worker == 'keep', args.steps, args.bs)
    found = dict(plain=[], keep=[])
    for _ in range(args.pairs):
        for kind, runs in found.items(): runs.append(run_worker(kind, args))
    one = found['plain'][0]
    print(f'{one["precision"]}, channels-last, batch {args.bs}, {one["threads"]} threads, {platform.machine()}, '
          f'torch {one["torch"]}, python {platform.python_version()}')
    print(f'{"":6}{"n":>4}  {"median s":>9}  {"min":>6}  {"max":>6}  {"images/s":>8}  {"peak MB":>8}')
    medians = {}
    for kind, runs in found.items():
        seconds = [second for run in runs for second in run['seconds']]
        median = medians[kind] = statistics.median(seconds)
        peak = max(run['peak'] for run in runs)
        print(f'{kind:6}{len(seconds):4}  {median:9.3f}  {min(seconds):6.3f}  {max(seconds):6.3f}  '
              f'{args.bs/median:8.0f}  {peak:8}')
    print(f'ratio plain/keep: {medians["plain"]/medians["keep"]:.2f}')


if __name__ == '__main__': main()
