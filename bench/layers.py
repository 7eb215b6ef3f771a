#!/usr/bin/env python3
"""The time of each convolution of the network alone, forward and backward, against a matrix product.

In float32 on a CPU each is also measured by Winograd's algorithm; its GFLOP are counted as the direct convolution's.
The rest of a bare step (bench/step.py) is batch norm, pooling, ReLU, casts and the optimiser.
"""
import argparse

import torch
import torch.nn.functional as F
from common import best_time, header, matmul_rate, run_script, table
from s8fast.models.custom_resnet import CustomResNet
from s8fast.models.winograd import winograd_available, winograd_conv2d
from s8fast.training.device import PRECISIONS, keep_freed_memory, pick_device, pick_precision

HEAD = ('convolution', '', 'way', 'forward ms', 'weights ms', 'input ms',
        'forward GFLOP/s', 'weights GFLOP/s', 'input GFLOP/s')


def shapes():
    "`(name, input channels, output channels, height and width)` of each convolution, in order."
    model = CustomResNet().eval()
    found = []
    def note(name):
        def hook(module, args, output): found.append((name, module.in_channels, module.out_channels, output.shape[2]))
        return hook
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d): module.register_forward_hook(note(name))
    with torch.no_grad(): model(torch.randn(1, 3, 32, 32))
    return found


def direct(x, weight): return F.conv2d(x, weight, padding=1)


def find_ways(device, precision):
    "The ways to convolve that this device has, by name."
    ways = dict(direct=direct)
    if device.type == 'cpu' and precision == 'fp32' and winograd_available(): ways['Winograd'] = winograd_conv2d
    return ways


def measure(conv, x, weight, gradient, with_input, device, repeats):
    "Seconds of the forward pass, of the weights' gradient and, `with_input`, of the input's gradient."
    def backward(out, wanted): return lambda: torch.autograd.grad(out, wanted, gradient, retain_graph=True)
    fixed_x, fixed_weight = x.detach(), weight.detach()
    seconds = [best_time(lambda: conv(fixed_x, fixed_weight), device, repeats),
               best_time(backward(conv(fixed_x, weight), weight), device, repeats)]
    if with_input: seconds.append(best_time(backward(conv(x, fixed_weight), x), device, repeats))
    return seconds


def row_of(name, n_in, n_out, size, way, seconds, flop):
    "A row of the table; what was not measured stays empty."
    empty = ['']*(3 - len(seconds))
    times = [f'{1e3*s:.1f}' for s in seconds]
    rates = [f'{flop/s/1e9:,.0f}' for s in seconds]
    return name, f'{n_in}->{n_out} at {size}x{size}', way, *times, *empty, *rates, *empty


def measure_all(bs, repeats, device, precision):
    "The table's rows, and the seconds of all convolutions by the way they are done."
    ways = find_ways(device, precision)
    rows = []
    total = dict.fromkeys(ways, 0.)
    def random(*shape):
        values = torch.randn(*shape, device=device, dtype=PRECISIONS[precision])
        return values.to(memory_format=torch.channels_last)
    for name, n_in, n_out, size in shapes():
        x = random(bs, n_in, size, size).requires_grad_()
        weight = random(n_out, n_in, 3, 3).requires_grad_()
        gradient = random(bs, n_out, size, size)
        flop = 2*bs*n_in*n_out*9*size**2
        for way, conv in ways.items():
            first = n_in == 3  # Winograd's algorithm leaves the first convolution as it is: its time counts for both
            if not (first and way == 'Winograd'):
                seconds = measure(conv, x, weight, gradient, not first, device, repeats)
                rows.append(row_of(name, n_in, n_out, size, way, seconds, flop))
            total[way] += sum(seconds)
    return rows, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--repeats', type=int, default=5, help='calls of each, of which the best counts')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    args = parser.parse_args()
    device = pick_device(args.device)
    precision = pick_precision('auto', device)
    if device.type == 'cpu': keep_freed_memory()
    rows, total = measure_all(args.bs, args.repeats, device, precision)
    print(f'{precision}, channels-last, batch {args.bs}; {header(device)}')
    print(table(HEAD, rows))
    for way, seconds in total.items():
        print(f'{way}: all of them {1e3*seconds:,.0f} ms a step, {seconds/total["direct"]:.2f} of the direct ones')
    print(f'a matrix product in {precision} runs at {matmul_rate(device, precision)/1e9:,.0f} GFLOP/s')


if __name__ == '__main__': run_script(main)
