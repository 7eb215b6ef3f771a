"""Short runs on digits in processes of their own, which a test can kill or break.

The processes are forked from a server that has imported everything and computed nothing, so that each starts at once.
"""
import csv, dataclasses, functools, io, json, multiprocessing, os, sys, threading, time, zlib
from pathlib import Path

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['s8fast.cli', 's8fast.training', 's8fast.report'])
EPOCHS, REFUSED = 2, 2


@functools.cache
def few_digits():
    from s8fast.images import digits
    d = digits()
    return dataclasses.replace(d, train_images=d.train_images[:150], train_labels=d.train_labels[:150], test_images=d.test_images[:40], test_labels=d.test_labels[:40])


def recipe(pipeline='batch', **kwargs):
    from s8fast.recipe import Recipe
    return Recipe(**{**dict(model='ultimus', epochs=EPOCHS, bs=32, lr_max=5e-3, valid_pct=.1, pipeline=pipeline, num_workers=0, precision='fp32', device='cpu', average=.5, label_smoothing=.1), **kwargs})


def draw_less():
    "Pictures of a checksum of what they would show: the drawing itself would be half of the time that such a run takes."
    import matplotlib.pyplot as plt
    from fastai.data.core import TfmdDL
    from s8fast import training
    def plain(o):
        if isinstance(o, TfmdDL): return [zlib.crc32(x.numpy().tobytes()) for x in o.one_batch()]
        if isinstance(o, (list, tuple)): return [plain(x) for x in o]
        return {k: v for k, v in o.items() if k != 'seconds'} if isinstance(o, dict) else o
    def small(*args, **kwargs):
        fig = plt.figure(figsize=(1, 1))
        fig.text(0, .5, zlib.crc32(repr(plain(args)).encode()))
        return fig
    old = TfmdDL.show_batch, training.plot_history, training.plot_schedule
    TfmdDL.show_batch = training.plot_history = training.plot_schedule = small
    def undo(): TfmdDL.show_batch, training.plot_history, training.plot_schedule = old
    return undo


def train_or_go_on(out, data, pipeline='batch', minutes=None, fault=None, says=None, replace=False, **kwargs):
    "What a user does: go on with the run if there is one to go on with, begin it otherwise. Exits with the command's status."
    import torch
    from s8fast.checkpoint import Interrupted
    from s8fast.files import S8FastError
    from s8fast.run_folder import is_unfinished
    from s8fast.training import resume, train
    torch.set_num_threads(1)
    draw_less()
    out, lines = Path(out), io.StringIO()
    def log(line): print(line, file=lines)
    if fault: fault.install()
    try:
        if not replace and (is_unfinished(out) or (out/'metrics.json').exists()): resume(out, data, log, minutes)
        else: train(recipe(pipeline, **kwargs), data, out, True, log, minutes)
    except (S8FastError, Interrupted) as e:
        print(e, file=lines)
        status = e.status
    else: status = 0
    if says: Path(says).write_text(lines.getvalue())
    sys.exit(status)


ASKING = threading.Lock()  # multiprocessing asks for all children when it starts one, and each of them can be asked by one thread at a time

def start(out, *args, **kwargs):
    process = CONTEXT.Process(target=train_or_go_on, args=(str(out), few_digits(), *args), kwargs=kwargs)
    with ASKING: process.start()
    return process


def wait(process, seconds=600):
    "The exit status; None when the process is still at work after so many seconds."
    end = time.monotonic() + seconds
    while True:
        with ASKING: status = process.exitcode
        if status is not None or time.monotonic() > end: return status
        time.sleep(.005)


def run(out, *args, **kwargs):
    "The exit status of `train_or_go_on`."
    return wait(start(out, *args, **kwargs))


def until_there(path, process):
    "Wait until `path` is there, written by `process`."
    while not path.exists():
        assert wait(process, 0) is None, f'it ended with {wait(process)}'
        time.sleep(.01)


def results(out):
    "All that a run says and that its end must have in common with one that was never stopped: weights, history and figures without the clock, pictures."
    metrics = json.loads((out/'metrics.json').read_text())
    for o in ('seconds', 'sha256'): metrics.pop(o)
    metrics['files'].pop('history.csv') # its last column is the clock
    with (out/'history.csv').open(newline='') as f: rows = [{k: v for k, v in o.items() if k != 'seconds'} for o in csv.DictReader(f)]
    return (out/'model.safetensors').read_bytes(), rows, metrics, sorted(o.name for o in out.iterdir())


class BreakWrite:
    "Lets the `n`-th file that is written fail: no space left, cut short, or the process gone before the file has its name."
    def __init__(self, n, how): self.n, self.how = n, how

    def install(self):
        import errno
        from s8fast import files
        flush, seen = files.flush, []
        def broken(path):
            if Path(path).is_file():
                seen.append(path)
                if len(seen) == self.n + 1:
                    if self.how == 'crash': os._exit(9)
                    if self.how == 'short': os.truncate(path, os.path.getsize(path)//2)
                    code = errno.ENOSPC if self.how == 'no space' else errno.EIO
                    raise OSError(code, os.strerror(code))
            return flush(path)
        files.flush = broken


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
        from s8fast.checkpoint import Checkpoint
        write = Checkpoint._write
        def stopping(checkpoint):
            write(checkpoint)
            if checkpoint.learn.epoch == self.epoch and checkpoint.batches == self.step: signal.raise_signal(signal.SIGTERM)
        Checkpoint._write = stopping


class Hang:
    "The first signal is noted, `path` is written, and nothing goes on from there."
    def __init__(self, path): self.path = path

    def install(self):
        from s8fast.checkpoint import StopSignals
        note = StopSignals._note
        def hanging(stop, signum, frame):
            note(stop, signum, frame)
            self.path.touch()
            time.sleep(600)
        StopSignals._note = hanging


def call(name, argv, stdout, stderr, limit, session, fault):
    "A command as its script calls it, with its output in two files."
    import resource, signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests themselves were started with
    multiprocessing.set_start_method('fork', force=True)  # for a loader's workers, as in a process that was not forked from a server
    if session: os.setsid()
    if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for fd, path in ((1, stdout), (2, stderr)): os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
    sys.stdout, sys.stderr, sys.argv = open(1, 'w', buffering=1, closefd=False), open(2, 'w', closefd=False), [name, *argv]
    import s8fast.cli
    if fault: fault.install()
    try: getattr(s8fast.cli, name)()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


class Command:
    "A command in a process of its own that has nothing left to import."
    def __init__(self, root, name, *args, limit=0, session=False, fault=None):
        self.out, self.err = (Path(root)/f'{time.monotonic_ns()}.{o}' for o in ('out', 'err'))
        self.out.touch()
        self.process = CONTEXT.Process(target=call, args=(name, list(map(str, args)), str(self.out), str(self.err), limit, session, fault))
        with ASKING: self.process.start()

    def until(self, text):
        "Wait for it to say `text`."
        while text not in self.out.read_text():
            if wait(self.process, 0) is not None and text not in self.out.read_text(): raise AssertionError(f'it ended before it said {text!r}: {self.err.read_text()}')
            time.sleep(.01)
        return self

    def kill(self, signum): os.kill(self.process.pid, signum)

    def wait(self):
        "Its exit status, and what it said on both."
        return wait(self.process), self.out.read_text(), self.err.read_text()
