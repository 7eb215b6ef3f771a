#!/usr/bin/env python3
"""From the command to the first training step, on data that is in the cache: where the seconds go.

Each run is a process of its own; the first one, which fills the caches, is not counted.
"""
import argparse, json, os, subprocess, sys, time

CHILD = '''
import json, os, sys, time
laps, last = {}, START
def lap(name):
    global last
    now = time.time()
    laps[name], last = now - last, now
lap('python')
import torch
lap('import torch')
from fastai.vision.core import PILImage
from fastai.learner import Learner
lap('import fastai')
from s8fast.recipe import Recipe
from s8fast.learner import get_learner, quiet_unless_interactive
from s8fast.images import load_data
lap('import s8fast')
from fastai.callback.core import Callback, CancelFitException
from s8fast.one_cycle import fit_one_cycle
data = load_data(sys.argv[1])
lap('load data')
learn = get_learner(Recipe(lr_max=1e-3, bs=min(512, len(data.train_labels)//2), pipeline=sys.argv[2]), data)
quiet_unless_interactive(learn)
lap('Learner')
class First(Callback):
    def before_batch(self): raise CancelFitException
fit_one_cycle(learn, 1, 1e-3, cbs=First())
lap('first batch')
print(json.dumps(laps))
'''


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--pipelines', nargs='+', default=['batch', 'item'])
    args = parser.parse_args()
    from s8fast.images import load_data
    load_data(args.data)  # what is wrong with it is said here
    found = {o: [] for o in args.pipelines}
    env = {'NO_ALBUMENTATIONS_UPDATE': '1', 'PYTHONWARNINGS': 'ignore', **os.environ}
    for i in range(args.rounds + 1):
        for o, laps in found.items():
            command = [sys.executable, '-c', CHILD.replace('START', repr(time.time()), 1), args.data, o]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
            if i: laps.append(done)
    from common import header, pick_device, spread, table
    print(f'data {os.path.basename(args.data)}, n = {args.rounds}; {header(pick_device("auto"))}')
    rows = []
    for o, laps in found.items():
        for k in laps[0]: rows.append((f'{o}: {k}', *(f'{v:.2f}' for v in spread([l[k] for l in laps])[1:])))
        rows.append((f'{o}: all', *(f'{v:.2f}' for v in spread([sum(l.values()) for l in laps])[1:])))
    print(table(('seconds to the first step', 'median', 'min', 'max'), rows))


if __name__ == '__main__':
    from common import run_script
    run_script(main)
