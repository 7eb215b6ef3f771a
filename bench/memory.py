#!/usr/bin/env python3
"""What `keep_freed_memory` gives: a bare training step on the CPU with and without it, in the precision that s8fast picks here.

Each row is a process of its own, the two kinds in turn; the ratio is of their medians.
"""
import argparse, json, platform, resource, statistics, subprocess, sys, time


def steps(keep, n, bs):
    "Seconds of `n` steps of the custom ResNet after two of warm-up, and the peak memory in MB, as JSON on standard output."
    import torch
    import torch.nn.functional as F
    from s8fast.custom_resnet import CustomResNet
    from s8fast.precision import PRECISIONS, keep_freed_memory, pick_precision
    if keep: keep_freed_memory()
    torch.manual_seed(0)
    model = CustomResNet().to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    x = torch.randn(bs, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y, seconds, precision = torch.randint(0, 10, (bs,)), [], pick_precision('auto', 'cpu')
    for _ in range(n + 2):
        start = time.perf_counter()
        with torch.autocast('cpu', PRECISIONS[precision], enabled=precision != 'fp32'): logits = model(x)
        F.cross_entropy(logits.float(), y).backward()
        opt.step()
        opt.zero_grad()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(dict(seconds=seconds[2:], peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, precision=precision, torch=torch.__version__, threads=torch.get_num_threads())))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--pairs', type=int, default=3, help='processes of each kind')
    parser.add_argument('--steps', type=int, default=6, help='counted steps in each')
    parser.add_argument('--bs', type=int, default=512, help='images a step')
    parser.add_argument('--worker', choices=('plain', 'keep'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker: return steps(args.worker == 'keep', args.steps, args.bs)
    found = {'plain': [], 'keep': []}
    for _ in range(args.pairs):
        for kind, runs in found.items():
            command = [sys.executable, __file__, '--worker', kind, '--steps', str(args.steps), '--bs', str(args.bs)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    one = found['plain'][0]
    print(f'{one["precision"]}, channels-last, batch {args.bs}, {one["threads"]} threads, {platform.machine()}, torch {one["torch"]}, python {platform.python_version()}')
    print(f'{"":6}{"n":>4}  {"median s":>9}  {"min":>6}  {"max":>6}  {"images/s":>8}  {"peak MB":>8}')
    medians = {}
    for kind, runs in found.items():
        seconds = [s for o in runs for s in o['seconds']]
        medians[kind] = m = statistics.median(seconds)
        print(f'{kind:6}{len(seconds):4}  {m:9.3f}  {min(seconds):6.3f}  {max(seconds):6.3f}  {args.bs/m:8.0f}  {max(o["peak"] for o in runs):8}')
    print(f'ratio plain/keep: {medians["plain"]/medians["keep"]:.2f}')


if __name__ == '__main__': main()
