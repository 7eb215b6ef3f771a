#!/usr/bin/env python3
"""The optimiser's step alone: the fused AdamW of s8fast, PyTorch's AdamW as it comes, fastai's Adam; and what the average of the
weights adds to a step. The custom ResNet's parameters.

The rows take turns, round after round. Gradients are there already; clearing them is not timed.
"""
import argparse, time
from functools import partial
from types import SimpleNamespace

import torch
from common import header, pick_device, run_script, spread, table, wait
from fastai.optimizer import Adam, OptimWrapper
from s8fast.custom_resnet import CustomResNet
from s8fast.optimizer import WeightAverage, decay_groups, fused_adam
from s8fast.recipe import Recipe

OPTIMIZERS = {'s8fast, fused AdamW': fused_adam, "PyTorch's AdamW": partial(OptimWrapper, opt=torch.optim.AdamW), "fastai's Adam": Adam}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=10, help='steps in a turn; the first is not counted')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each row')
    parser.add_argument('--device', default='auto')
    args = parser.parse_args()
    device, steps = pick_device(args.device), {}
    for name, make in OPTIMIZERS.items():
        model = CustomResNet().to(device)
        for p in model.parameters(): p.grad = 1e-3*torch.randn_like(p)
        opt = make(decay_groups(model), lr=1e-3)
        opt.set_hypers(wd=[Recipe().wd, 0.])
        steps[name] = opt.step
    average = WeightAverage(100)
    average.learn = SimpleNamespace(model=CustomResNet().to(device), training=True)
    average.before_train()
    steps["s8fast's average of the weights"] = average.after_batch
    found = {k: [] for k in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            for i in range(args.steps):
                wait(device)
                start = time.perf_counter()
                step()
                wait(device)
                if i: found[name].append(time.perf_counter() - start)
    print(header(device))
    best = spread(found['s8fast, fused AdamW'])[1]
    rows = [(k, n, *(f'{1e3*o:.2f}' for o in (m, low, high)), f'{m/best:.2f}') for k, v in found.items() for n, m, low, high in [spread(v)]]
    print(table(('milliseconds a step', 'n', 'median', 'min', 'max', 'to fused'), rows))


if __name__ == '__main__': run_script(main)
