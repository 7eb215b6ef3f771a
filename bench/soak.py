#!/usr/bin/env python3
"""Many short runs one after another in one process: memory stays where it is, and no file is left behind.

A run is an epoch of ULTIMUS on digits, from the Learner to the complete run folder, every fourth one stopped after its second step
and resumed. Resident memory is read after each run, when what it left has been collected and what is free has gone back to the system. Exits with status 1 when the second half
of the runs ends with more memory, open files or threads than it began with, or when a file is left.
"""
import argparse, gc, os, signal, sys, tempfile, warnings
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')


def resident(): return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6
def open_files(): return len(list(Path('/proc/self/fd').iterdir()))
def threads(): return len(list(Path('/proc/self/task').iterdir()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=200)
    parser.add_argument('--allow_mb', type=float, default=20., help='growth of resident memory over the second half, in MB')
    args = parser.parse_args()

    from common import header, pick_device, table
    from s8fast.images import digits
    from s8fast.precision import give_freed_memory_back
    from s8fast.recipe import Recipe
    from s8fast.training import resume, train
    data = digits()
    data = replace(data, train_images=data.train_images[:320], train_labels=data.train_labels[:320])
    recipe = Recipe('ultimus', epochs=1, lr_max=3e-3, valid_pct=.1, device='cpu', average=.5)
    complete = {'recipe.json', 'history.csv', 'metrics.json', 'model.safetensors', 'batch.png', 'schedule.png', 'curves.png'}
    found, left = [], []

    with tempfile.TemporaryDirectory() as tmp:
        tempfile.tempdir = tmp  # what anything leaves among the temporary files is seen too
        for i in range(args.runs):
            out = Path(tmp)/'runs'/f'{i}'
            if i % 4 == 3: stop_and_go(train, resume, recipe, data, out)
            else: train(recipe, data, out, log=lambda line: None)
            left += sorted({o.name for o in out.iterdir()} ^ complete)
            gc.collect()
            give_freed_memory_back()
            found.append((resident(), open_files(), threads()))
        left += [str(o.relative_to(tmp)) for o in Path(tmp).iterdir() if o.name != 'runs']

    half = args.runs//2
    print(f'{args.runs} runs, {args.runs//4} of them stopped and resumed; {header(pick_device("cpu"))}')
    marks = sorted({0, args.runs//10, args.runs//4, half, 3*args.runs//4, args.runs - 1})
    print(table(('after run', 'resident MB', 'open files', 'threads'), [(i + 1, f'{found[i][0]:.0f}', *found[i][1:]) for i in marks]))
    growth = [max(b[k] for b in found[-10:]) - max(b[k] for b in found[max(0, half - 10):half]) for k in range(3)]
    print(f'second half: {growth[0]:+.1f} MB, {growth[1]:+d} open files, {growth[2]:+d} threads; left behind: {", ".join(left) or "nothing"}')
    if growth[0] > args.allow_mb or growth[1] > 0 or growth[2] > 0 or left: sys.exit(1)


def stop_and_go(train, resume, recipe, data, out):
    "Train until a signal comes with the first step's checkpoint, then go on."
    from s8fast import checkpoint
    from s8fast.checkpoint import Interrupted
    write = checkpoint.Checkpoint._write
    def stopping(self):
        write(self)
        if self.batches == 1: signal.raise_signal(signal.SIGTERM)
    checkpoint.Checkpoint._write = stopping
    try: train(recipe, data, out, log=lambda line: None, checkpoint_minutes=0)
    except Interrupted: pass
    else: sys.exit('a run did not stop')
    finally: checkpoint.Checkpoint._write = write
    resume(out, data, log=lambda line: None)


if __name__ == '__main__': main()
