#!/usr/bin/env python3
"""Many short runs one after another in one process: memory stays where it is, and no file is left behind.

A run is an epoch of ULTIMUS on digits, from the Learner to the complete run folder. Every fourth run is stopped after
its second step and resumed. Resident memory is read after each run, once its garbage has been collected and free memory
has gone back to the system. Exits with status 1 when the second half of the runs ends with more memory, open files or
threads than it began with, or when a file is left.
"""
import argparse, gc, os, signal, sys, tempfile, warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

RUN_FILES = {'recipe.json', 'history.csv', 'metrics.json', 'model.safetensors',
             'batch.png', 'schedule.png', 'curves.png'}
WINDOW = 10  # runs whose highest figures are compared
PROC = Path('/proc/self')
PYTORCH_CACHE = 'torchinductor_'  # a folder that PyTorch makes among the temporary files when it is imported


def resident():
    "Resident memory in MB."
    return int((PROC/'statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6


def open_files(): return len(list((PROC/'fd').iterdir()))
def threads(): return len(list((PROC/'task').iterdir()))


def few_digits():
    "The first 320 digits."
    from s8fast.data.dataset import digits
    data = digits()
    return replace(data, train_images=data.train_images[:320], train_labels=data.train_labels[:320])


def silent(line): pass


def stop_and_go(recipe, data, out):
    "Train until a signal comes with the first step's checkpoint, then go on."
    from s8fast.errors import Interrupted
    from s8fast.runs.train import resume, train
    from s8fast.training import checkpoint_callback
    write = checkpoint_callback.write_checkpoint
    def stopping(path, checkpoint):
        write(path, checkpoint)
        if checkpoint.batches == 1: signal.raise_signal(signal.SIGTERM)
    with patch.object(checkpoint_callback, 'write_checkpoint', stopping):
        try: train(recipe, data, out, log=silent, checkpoint_minutes=0)
        except Interrupted: pass
        else: sys.exit('a run did not stop')
    resume(out, data, log=silent)


def run_all(n, folder):
    "Figures after each of `n` runs in `folder`, and the names of files that are missing or should not be there."
    from s8fast.recipe import make_recipe
    from s8fast.runs.train import train
    from s8fast.training.device import give_freed_memory_back
    data = few_digits()
    recipe = make_recipe(model='ultimus', epochs=1, lr_max=3e-3, valid_pct=.1, device='cpu', average=.5)
    found, left = [], []
    for i in range(n):
        out = folder/'runs'/f'{i}'
        if i % 4 == 3: stop_and_go(recipe, data, out)
        else: train(recipe, data, out, log=silent)
        left += sorted({path.name for path in out.iterdir()} ^ RUN_FILES)
        gc.collect()
        give_freed_memory_back()
        found.append((resident(), open_files(), threads()))
    others = [path.name for path in folder.iterdir() if path.name != 'runs']
    return found, left + [name for name in others if not name.startswith(PYTORCH_CACHE)]


def growth(found, half):
    "By how much each figure's highest value of the last runs is above that of the runs before the half."
    last = found[-WINDOW:]
    before = found[max(0, half - WINDOW):half]
    return [max(late) - max(early) for late, early in zip(zip(*last), zip(*before))]


def report(found):
    "A table of the figures after some of the runs."
    from common import table
    n = len(found)
    marks = sorted({0, n//10, n//4, n//2, 3*n//4, n - 1})
    rows = [(i + 1, f'{found[i][0]:.0f}', *found[i][1:]) for i in marks]
    return table(('after run', 'resident MB', 'open files', 'threads'), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=200, help='runs, 4 or more')
    parser.add_argument('--allow_mb', type=float, default=20.,
                        help='growth of resident memory over the second half that is allowed, in MB')
    args = parser.parse_args()
    if args.runs < 4: parser.error('--runs: 4 or more, so that one of them is stopped')
    from common import header
    from s8fast.training.device import pick_device
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # so that whatever is left among the temporary files is seen too
        found, left = run_all(args.runs, Path(folder))
    print(f'{args.runs} runs, {args.runs//4} of them stopped and resumed; {header(pick_device("cpu"))}')
    print(report(found))
    memory, files, workers = growth(found, args.runs//2)
    print(f'second half: {memory:+.1f} MB, {files:+d} open files, {workers:+d} threads; '
          f'left behind: {", ".join(left) or "nothing"}')
    if memory > args.allow_mb or files > 0 or workers > 0 or left: sys.exit(1)


if __name__ == '__main__':
    from common import run_script
    run_script(main)
