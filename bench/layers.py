#!/usr/bin/env python3
"""Where a training step's arithmetic goes: each convolution of the network alone, forward and backward, against a matrix product.

In float32 on a CPU each is measured by Winograd's algorithm too; its GFLOP are counted as the direct convolution's. What these times leave of a bare step (bench/step.py) is all that batch norm, pooling, ReLU, casts and the optimiser take together.
"""
import argparse, time

import torch
import torch.nn.functional as F
from common import header, matmul_rate, pick_device, run_script, table, wait
from s8fast.custom_resnet import CustomResNet
from s8fast.precision import PRECISIONS, keep_freed_memory, pick_precision
from s8fast.winograd import winograd_available, winograd_conv2d


def shapes(bs):
    "`(name, input channels, output channels, height and width)` of each convolution, in order."
    model, found = CustomResNet().eval(), []
    def note(name): return lambda m, args, output: found.append((name, m.in_channels, m.out_channels, output.shape[2]))
    for name, m in model.named_modules():
        if isinstance(m, torch.nn.Conv2d): m.register_forward_hook(note(name))
    with torch.no_grad(): model(torch.randn(1, 3, 32, 32))
    return found


def clock(f, device, repeats):
    "The best of `repeats` calls, in seconds."
    best = float('inf')
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        f()
        wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--device', default='auto')
    args = parser.parse_args()
    device = pick_device(args.device)
    precision = pick_precision('auto', device)
    ways = dict(direct=lambda x, w: F.conv2d(x, w, padding=1))
    if device.type == 'cpu' and precision == 'fp32' and winograd_available(): ways['Winograd'] = winograd_conv2d
    how, rows, total = dict(device=device, dtype=PRECISIONS[precision]), [], dict.fromkeys(ways, 0.)
    if device.type == 'cpu': keep_freed_memory()
    for name, n_in, n_out, size in shapes(args.bs):
        x, w, g = (torch.randn(*o, **how).to(memory_format=torch.channels_last).requires_grad_()
                   for o in ((args.bs, n_in, size, size), (n_out, n_in, 3, 3), (args.bs, n_out, size, size)))
        g, flop = g.detach(), 2*args.bs*n_in*n_out*9*size**2
        for way, conv in ways.items():
            if way == 'Winograd' and n_in == 3:  # is left as it was
                total[way] += sum(seconds)
                continue
            seconds = [clock(lambda: conv(x.detach(), w.detach()), device, args.repeats)]
            out = conv(x.detach(), w)
            seconds.append(clock(lambda: torch.autograd.grad(out, w, g, retain_graph=True), device, args.repeats))
            if n_in > 3:
                out = conv(x, w.detach())
                seconds.append(clock(lambda: torch.autograd.grad(out, x, g, retain_graph=True), device, args.repeats))
            total[way] += sum(seconds)
            rows.append((name, f'{n_in}->{n_out} at {size}x{size}', way, *(f'{1e3*s:.1f}' for s in seconds), *[''][:3 - len(seconds)],
                         *(f'{flop/s/1e9:,.0f}' for s in seconds), *[''][:3 - len(seconds)]))
    print(f'{precision}, channels-last, batch {args.bs}; {header(device)}')
    print(table(('convolution', '', 'way', 'forward ms', 'weights ms', 'input ms', 'forward GFLOP/s', 'weights GFLOP/s', 'input GFLOP/s'), rows))
    for way, seconds in total.items(): print(f'{way}: all of them {1e3*seconds:,.0f} ms a step, {seconds/total["direct"]:.2f} of the direct ones')
    print(f'a matrix product in {precision} runs at {matmul_rate(device, precision)/1e9:,.0f} GFLOP/s')


if __name__ == '__main__': run_script(main)
