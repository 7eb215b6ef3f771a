#!/usr/bin/env python3
"""From the command to the first training step, on data that is in the cache: where the seconds go.

Each run is a process of its own. The first one, which fills the caches, is not counted.
"""
import argparse, json, os, subprocess, sys, time

CHILD = '''
import json, os, sys, time
laps = {}
last = START
def lap(name):
    global last
    now = time.time()
    laps[name] = now - last
    last = now
lap('python')
import torch
lap('import torch')
from fastai.vision.core import PILImage
from fastai.learner import Learner
lap('import fastai')
from s8fast.recipe import Recipe
from s8fast.training.learner import get_learner, quiet_unless_interactive
from s8fast.data.dataset import load_data
lap('import s8fast')
from fastai.callback.core import Callback, CancelFitException
from s8fast.training.one_cycle import fit_one_cycle
data = load_data(sys.argv[1])
lap('load data')
recipe = Recipe(lr_max=1e-3, bs=min(512, len(data.train_labels)//2), pipeline=sys.argv[2])
learn = get_learner(recipe, data)
quiet_unless_interactive(learn)
lap('Learner')
class First(Callback):
    def before_batch(self): raise CancelFitException
fit_one_cycle(learn, 1, 1e-3, cbs=First())
lap('first batch')
print(json.dumps(laps))
'''


def run_child(data, pipeline):
    "Seconds by stage of one process."
    env = {'NO_ALBUMENTATIONS_UPDATE': '1', 'PYTHONWARNINGS': 'ignore', **os.environ}
    program = CHILD.replace('START', repr(time.time()), 1)
    command = [sys.executable, '-c', program, data, pipeline]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def rows_of(pipeline, runs):
    "The table's rows of one pipeline: each stage, and all of them."
    from common import spread
    def row(name, seconds): return f'{pipeline}: {name}', *(f'{value:.2f}' for value in spread(seconds)[1:])
    rows = [row(stage, [laps[stage] for laps in runs]) for stage in runs[0]]
    return [*rows, row('all', [sum(laps.values()) for laps in runs])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--rounds', type=int, default=5, help='counted runs of each row')
    parser.add_argument('--pipelines', nargs='+', default=['batch', 'item'], help='batch, item or both')
    args = parser.parse_args()
    from common import header, table
    from s8fast.data.dataset import load_data
    from s8fast.training.device import pick_device
    load_data(args.data)  # an error in it is said here
    found = {pipeline: [] for pipeline in args.pipelines}
    for i in range(args.rounds + 1):
        for pipeline, runs in found.items():
            laps = run_child(args.data, pipeline)
            if i: runs.append(laps)
    print(f'data {os.path.basename(args.data)}, n = {args.rounds}; {header(pick_device("auto"))}')
    rows = [row for pipeline, runs in found.items() for row in rows_of(pipeline, runs)]
    print(table(('seconds to the first step', 'median', 'min', 'max'), rows))


if __name__ == '__main__':
    from common import run_script
    run_script(main)
