"""Short runs on a few digits in processes of their own, which a test can kill, interrupt or break.

The processes are forked from a server that has imported everything and computed nothing, so that each starts at once.
"""
import csv
import dataclasses
import functools
import io
import json
import multiprocessing
import os
import sys
import threading
import time
import zlib
from pathlib import Path

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['s8fast.cli', 's8fast.runs.train', 's8fast.runs.seeds', 's8fast.interpret.report'])
EPOCHS = 2
REFUSED = 2


@functools.cache
def few_digits(n_train=150, n_test=40):
    "So many of the digits, in memory."
    from s8fast.data.dataset import digits
    whole = digits()
    return dataclasses.replace(whole,
                               train_images=whole.train_images[:n_train], train_labels=whole.train_labels[:n_train],
                               test_images=whole.test_images[:n_test], test_labels=whole.test_labels[:n_test])


def recipe(pipeline='batch', model='ultimus', **choices):
    "The recipe of a short run: ULTIMUS, five steps an epoch, with an average of the weights and smoothed labels."
    from s8fast.recipe import make_recipe
    short = dict(epochs=EPOCHS, bs=32, lr_max=5e-3, valid_pct=.1, num_workers=0, precision='fp32', device='cpu',
                 average=.5, label_smoothing=.1)
    return make_recipe(model=model, **{**short, 'pipeline': pipeline, **choices})


# What a process does

def plain(shown):
    "What a picture would show, without the clock, in types whose text says it all."
    from fastai.learner import Learner
    if isinstance(shown, Learner): return [zlib.crc32(x.cpu().numpy().tobytes()) for x in shown.dls.one_batch()]
    if isinstance(shown, (list, tuple)): return [plain(x) for x in shown]
    if isinstance(shown, dict): return {k: v for k, v in shown.items() if k != 'seconds'}
    return shown


def small_picture(*args, **kwargs):
    "A picture of the checksum of what would be shown."
    from s8fast.figures import subplots
    figure, _ = subplots(figsize=(1, 1))
    figure.text(0, .5, zlib.crc32(repr(plain(args)).encode()))
    return figure


def draw_less():
    "Let a run draw small pictures: the drawing would be half of the time that it takes. Returns what undoes it."
    from s8fast.runs import pictures
    names = 'plot_batch', 'plot_history', 'plot_schedule'
    originals = [getattr(pictures, name) for name in names]
    for name in names: setattr(pictures, name, small_picture)

    def undo():
        for name, original in zip(names, originals): setattr(pictures, name, original)
    return undo


def train_or_go_on(out, data, pipeline='batch', minutes=None, fault=None, says=None, replace=False, **choices):
    "What a user does: go on with the run if there is one, else begin it. Exits with the command's status."
    import torch
    from s8fast.errors import Interrupted, S8FastError
    from s8fast.runs.folder import Run
    from s8fast.runs.train import resume, train
    torch.set_num_threads(1)
    draw_less()
    out, lines = Path(out), io.StringIO()
    def log(line): print(line, file=lines)
    if fault: fault.install()
    status = 0
    try:
        if not replace and (Run(out).is_unfinished or (out/'metrics.json').exists()): resume(out, data, log, minutes)
        else: train(recipe(pipeline, **choices), data, out, force=True, log=log, checkpoint_minutes=minutes)
    except (S8FastError, Interrupted) as error:
        print(error, file=lines)
        status = error.status
    if says: Path(says).write_text(lines.getvalue())
    sys.exit(status)


# Starting, waiting, reading

ASKING = threading.Lock()  # starting a process asks for all children, and each can be asked by one thread at a time

def start(out, *args, **choices):
    "Begin `train_or_go_on` in a process of its own."
    process = CONTEXT.Process(target=train_or_go_on, args=(str(out), few_digits(), *args), kwargs=choices)
    with ASKING: process.start()
    return process


def wait(process, seconds=600):
    "The exit status; None when the process is still at work after so many seconds."
    end = time.monotonic() + seconds
    while True:
        with ASKING: status = process.exitcode
        if status is not None or time.monotonic() > end: return status
        time.sleep(.005)


def run(out, *args, **choices):
    "The exit status of `train_or_go_on`."
    return wait(start(out, *args, **choices))


def until_there(path, process):
    "Wait until `path` is there, written by `process`."
    while not path.exists():
        assert wait(process, 0) is None, f'it ended with {wait(process)}'
        time.sleep(.01)


def results(out):
    "What a run shares with one that was never stopped: weights, history and figures but for the clock, pictures."
    metrics = json.loads((out/'metrics.json').read_text())
    for name in ('seconds', 'sha256'): metrics.pop(name)
    metrics['files'].pop('history.csv')  # its last column is the clock
    with (out/'history.csv').open(newline='') as f: rows = list(csv.DictReader(f))
    for row in rows: row.pop('seconds')
    weights = (out/'model.safetensors').read_bytes()
    return weights, rows, metrics, sorted(path.name for path in out.iterdir())


# Faults

class BreakWrite:
    "Lets the `n`-th file that is written fail: no space left, cut short, or the process gone before it has its name."
    def __init__(self, n, how): self.n, self.how = n, how

    def install(self):
        from s8fast import files
        flush, seen = files.flush, []
        def broken(path):
            if Path(path).is_file():
                seen.append(path)
                if len(seen) == self.n + 1: self.fail(path)
            return flush(path)
        files.flush = broken

    def fail(self, path):
        import errno
        if self.how == 'crash': os._exit(9)
        if self.how == 'short': os.truncate(path, os.path.getsize(path)//2)
        code = errno.ENOSPC if self.how == 'no space' else errno.EIO
        raise OSError(code, os.strerror(code))


class CrashAtUnlink:
    "Ends the process when it is about to remove the `n`-th file that it removes by itself."
    def __init__(self, n): self.n = n

    def install(self):
        unlink = Path.unlink
        def crashing(path, *args, **kwargs):
            if path.exists():
                if self.n == 0: os._exit(9)
                self.n -= 1
            return unlink(path, *args, **kwargs)
        Path.unlink = crashing


class StopAt:
    "SIGTERM comes while the checkpoint after `step` of `epoch` (from 0) is written: the run stops after the next step."
    def __init__(self, epoch, step): self.epoch, self.step = epoch, step

    def install(self):
        import signal
        from s8fast.training.checkpoint_callback import SaveCheckpoint
        write = SaveCheckpoint.write
        def stopping(saver):
            write(saver)
            here = saver.learn.epoch, saver.batches
            if here == (self.epoch, self.step): signal.raise_signal(signal.SIGTERM)
        SaveCheckpoint.write = stopping


class Hang:
    "The first signal is noted, `path` is written, and nothing goes on from there."
    def __init__(self, path): self.path = path

    def install(self):
        from s8fast.runs.signals import StopSignals
        note = StopSignals._note
        def hanging(stop, signum, frame):
            note(stop, signum, frame)
            self.path.touch()
            time.sleep(600)
        StopSignals._note = hanging


# Commands

def call(name, argv, stdout, stderr, limit, session, fault, pictures):
    "A command as its script calls it, with its output in two files."
    import resource
    import signal
    import s8fast.cli
    import s8fast.cli_evaluate
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests themselves were started with
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    multiprocessing.set_start_method('fork', force=True)  # for a loader's workers, as in a process of its own
    if not pictures: draw_less()
    if session: os.setsid()
    if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for fd, path in ((1, stdout), (2, stderr)): os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
    sys.stdout = open(1, 'w', buffering=1, closefd=False)
    sys.stderr = open(2, 'w', closefd=False)
    sys.argv = [name, *argv]
    if fault: fault.install()
    try: getattr(s8fast.cli, name, getattr(s8fast.cli_evaluate, name, None))()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


class Command:
    "A command in a process of its own that has nothing left to import."
    def __init__(self, root, name, *args, limit=0, session=False, fault=None, pictures=False):
        number = time.monotonic_ns()
        self.out, self.err = Path(root)/f'{number}.out', Path(root)/f'{number}.err'
        self.out.touch()
        what = name, list(map(str, args)), str(self.out), str(self.err), limit, session, fault, pictures
        self.process = CONTEXT.Process(target=call, args=what)
        with ASKING: self.process.start()

    def until(self, text):
        "Wait for it to say `text`."
        while text not in self.out.read_text():
            ended = wait(self.process, 0) is not None
            if ended and text not in self.out.read_text():
                raise AssertionError(f'it ended before it said {text!r}: {self.err.read_text()}')
            time.sleep(.01)
        return self

    def kill(self, signum): os.kill(self.process.pid, signum)

    def wait(self):
        "Its exit status, and what it said on both."
        status = wait(self.process)
        return status, self.out.read_text(), self.err.read_text()
