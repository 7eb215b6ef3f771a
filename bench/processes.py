#!/usr/bin/env python3
"""One training run in one and in two processes: images a second, and the share of a step that the exchange takes.

On a CPU: two processes of one thread each, beside one of one thread and one of two. On GPUs: two, beside one.
The rows take turns. Each turn starts its processes anew with torchrun, and its first steps are not counted. The
exchange is the time in which a process sends its gradients and waits for those of the others, slower ones included.
"""
import argparse, json, os, statistics, subprocess, sys, time, warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

import torch
from common import enough, header, run_script, spread, table, wait
from fastai.callback.core import Callback, CancelFitException
from s8fast.data.dataset import load_data
from s8fast.errors import S8FastError
from s8fast.processes import together
from s8fast.recipe import Recipe
from s8fast.training import data_parallel
from s8fast.training.device import pick_device
from s8fast.training.learner import computing, get_learner
from s8fast.training.one_cycle import fit_one_cycle

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2


class Row(NamedTuple):
    "What is compared."
    processes: int
    threads: int  # of each of them

    @property
    def name(self):
        def some(n, word): return f'{n} {word}{"es" if n > 1 and word == "process" else "s" if n > 1 else ""}'
        return f'{some(self.processes, "process")}, {some(self.threads, "thread")} each'


# In each process

class Clock(Callback):
    "Seconds of every step, and of its exchange."
    order = 99
    def __init__(self, steps): self.n, self.ends, self.exchanged = steps + WARM_UP, [], []

    def exchange(self, *args):
        "`sum_over_processes`, timed."
        device = args[0][0].device
        wait(device)
        start = time.perf_counter()
        EXCHANGE(*args)
        wait(device)
        self.exchanged.append(time.perf_counter() - start)

    def after_batch(self):
        wait(self.loss.device)
        self.ends.append(time.perf_counter())
        if len(self.ends) > self.n: raise CancelFitException

    def seconds(self):
        "Of the steps that count, and of their exchanges; without exchange zeros."
        steps = [b - a for a, b in zip(self.ends, self.ends[1:])][WARM_UP:]
        return steps, self.exchanged[1 + WARM_UP:] or [0.]*len(steps)


EXCHANGE = data_parallel.sum_over_processes


def train(args):
    "Some steps of the default recipe; process 0 prints what they took."
    with together() as ours:
        data = enough(load_data(args.data), (args.steps + WARM_UP + 3)*args.bs)
        recipe = Recipe(bs=args.bs, device=args.device, valid_pct=0., drop_last=True)
        clock = Clock(args.steps)
        with computing(recipe), mock.patch.object(data_parallel, 'sum_over_processes', clock.exchange):
            learn = get_learner(recipe, data)
            with learn.no_bar(), learn.no_logging(): fit_one_cycle(learn, 24, 1e-3, cbs=clock)
        steps, exchanges = clock.seconds()
        if ours.is_first: print(json.dumps(dict(steps=steps, exchanges=exchanges)))


# The turns

def turn(row, args):
    "Seconds of the steps and of the exchanges of a row."
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', row.processes,
               __file__, '--turn', '--data', args.data, '--bs', args.bs, '--steps', args.steps, '--device', args.device]
    paths = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'OMP_NUM_THREADS': str(row.threads), 'PYTHONPATH': paths}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    if done.returncode: raise S8FastError(f'{row.name} failed ({done.stderr.strip()[-300:]}).')
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args):
    "Run all turns and print the table."
    device = pick_device(args.device)
    threads = torch.get_num_threads()
    if device.type == 'cuda': rows = [Row(1, threads), Row(2, max(1, threads//2))]
    else: rows = [Row(1, 1), Row(2, 1), Row(1, 2)]
    found = {row: dict(steps=[], exchanges=[]) for row in rows}
    for _ in range(args.rounds):
        for row in rows:
            for name, seconds in turn(row, args).items(): found[row][name] += seconds
    reference = statistics.median(found[rows[-1] if device.type == 'cpu' else rows[0]]['steps'])
    lines = []
    for row, one in found.items():
        n, median, low, high = spread(one['steps'])
        exchange = statistics.median(one['exchanges'])
        lines.append((row.name, n, *(f'{1e3*value:,.0f}' for value in (median, low, high)), f'{args.bs/median:,.0f}',
                      f'{reference/median:.2f}', f'{exchange/median:.1%}'))
    print(f'default recipe, batch {args.bs} in all; {header(device)}')
    print(table(('ms a step', 'n', 'median', 'min', 'max', 'images/s', 'speed', 'exchange'), lines))
    print(f'speed: relative to {(rows[-1] if device.type == "cpu" else rows[0]).name}.')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--bs', type=int, default=512, help='images a batch, of all processes together')
    parser.add_argument('--steps', type=int, default=4, help='of a turn')
    parser.add_argument('--rounds', type=int, default=3, help='turns of each row')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    parser.add_argument('--turn', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn: train(args)
    else: measure(args)


if __name__ == '__main__': run_script(main)
