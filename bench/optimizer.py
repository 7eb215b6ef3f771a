#!/usr/bin/env python3
"""The optimiser's step alone, on the custom ResNet's parameters: s8fast's fused AdamW, PyTorch's AdamW, fastai's Adam.

A further row is what the exponential moving average of the weights adds to a step.
The rows take turns, round after round. The gradients are there already, and clearing them is not timed.
"""
import argparse, time
from functools import partial
from types import SimpleNamespace

import torch
from common import header, run_script, spread, table, wait
from fastai.optimizer import Adam, OptimWrapper
from s8fast.models.custom_resnet import CustomResNet
from s8fast.recipe import Recipe
from s8fast.training.device import pick_device
from s8fast.training.optimizer import WeightAverage, decay_groups, fused_adam

FUSED = 's8fast, fused AdamW'
OPTIMIZERS = {FUSED: fused_adam, "PyTorch's AdamW": partial(OptimWrapper, opt=torch.optim.AdamW), "fastai's Adam": Adam}


def optimizer_step(make, device):
    "The step of an optimiser on a network of its own."
    model = CustomResNet().to(device)
    for p in model.parameters(): p.grad = 1e-3*torch.randn_like(p)
    opt = make(decay_groups(model), lr=1e-3)
    opt.set_hypers(wd=[Recipe().wd, 0.])
    return opt.step


def average_step(device):
    "What the average of the weights does after a step."
    average = WeightAverage(100)
    average.learn = SimpleNamespace(model=CustomResNet().to(device), training=True)
    average.before_train()
    return average.after_batch


def seconds_of(step, n, device):
    "Seconds of each of `n` steps without the first."
    seconds = []
    for _ in range(n):
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=10, help='steps in a turn; the first is not counted')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each row')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    args = parser.parse_args()
    device = pick_device(args.device)
    steps = {name: optimizer_step(make, device) for name, make in OPTIMIZERS.items()}
    steps["s8fast's average of the weights"] = average_step(device)
    found = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items(): found[name] += seconds_of(step, args.steps, device)
    best = spread(found[FUSED])[1]
    rows = []
    for name, seconds in found.items():
        n, *times = spread(seconds)
        rows.append((name, n, *(f'{1e3*t:.2f}' for t in times), f'{times[0]/best:.2f}'))
    print(header(device))
    print(table(('milliseconds a step', 'n', 'median', 'min', 'max', 'to fused'), rows))


if __name__ == '__main__': run_script(main)
