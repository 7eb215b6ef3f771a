"What the benchmarks share: the device and its speed, the images, tables, and the files that they write."
import json, os, platform, statistics, sys, time
from dataclasses import replace

import numpy as np
import torch
from s8fast.data.images import split
from s8fast.errors import Interrupted, S8FastError, reason
from s8fast.files import write_text, write_whole
from s8fast.recipe import AUTO, Recipe
from s8fast.training.device import PRECISIONS
from safetensors.torch import save
from torch import nn


class Scaled(nn.Module):
    "A network whose logits are multiplied by `scale`."
    def __init__(self, model, scale):
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, x): return self.scale*self.model(x)


# A script and its options

def run_script(main):
    "Run a script's `main`. A user's error is one sentence and exit status 2; a signal gives that signal's status."
    try: main()
    except (S8FastError, Interrupted) as e:
        print(f'{os.path.basename(sys.argv[0])}: {e}', file=sys.stderr)
        sys.exit(e.status)


# The device

def header(device, *more):
    "The device and the versions, on one line."
    import fastai
    from s8fast.runs.record import environment
    found = environment(device)['device']
    threads = f'{found["threads"]} threads of {os.cpu_count()} cores'
    parts = [f'{found["name"]} ({found["type"]}, {threads})', f'torch {torch.__version__}',
             f'fastai {fastai.__version__}', f'python {platform.python_version()}']
    return ', '.join([*parts, *more])


def wait(device):
    "Wait until the device has done what was asked of it."
    if device.type == 'cuda': torch.cuda.synchronize(device)
    if device.type == 'mps': torch.mps.synchronize()


def best_time(function, device, repeats):
    "The best of `repeats` calls, in seconds, after one that is not counted."
    best = float('inf')
    for i in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        if i: best = min(best, time.perf_counter() - start)
    return best


def matmul_rate(device, precision, n=None, repeats=5):
    "Operations a second of an n by n matrix product in `precision`: the best of `repeats`. A multiply-add counts two."
    n = n or (8192 if device.type == 'cuda' else 2048)
    a, b = (torch.randn(n, n, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
    return 2*n**3/best_time(lambda: a @ b, device, repeats)


# The images

def enough(data, n):
    "`data` with its training images repeated until there are at least `n` of them. Timings don't depend on that."
    times = -(-n//len(data.train_labels))
    if times <= 1: return data
    return replace(data, train_images=data.train_images.repeat(times, 0), train_labels=data.train_labels.repeat(times))


def part(data, share):
    "`data` with that share of its training images, stratified."
    if share == 1: return data
    keep = split(data.train_labels, share)[1]
    images = np.ascontiguousarray(data.train_images[keep])
    return replace(data, train_images=images, train_labels=data.train_labels[keep])


# Tables

def as_text(value):
    "A cell of a table: text as it is, numbers to three digits."
    if isinstance(value, str): return value
    if isinstance(value, int): return f'{value:,}'
    return f'{value:.3g}' if value < 100 else f'{value:,.0f}'


def table(head, rows):
    "Rows of text and numbers as aligned lines. The first column is flush left, the others flush right."
    cells = [[as_text(value) for value in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = []
    for first, *rest in cells:
        aligned = [text.rjust(width) for text, width in zip(rest, widths[1:])]
        lines.append('  '.join([first.ljust(widths[0]), *aligned]).rstrip())
    return '\n'.join(lines)


def spread(values):
    "n, median, lowest and highest of a row's measurements."
    return len(values), statistics.median(values), min(values), max(values)


# Files

def make_folder(path):
    "Make a folder where it is missing. Raises `S8FastError`."
    try: path.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise S8FastError(f'{path} cannot be made ({e.strerror}): give another folder.') from e


def as_finite_json(figures):
    "The figures as JSON gives them back. Raises `ValueError` for nan and infinities."
    return json.loads(json.dumps(figures, allow_nan=False))


def write_records(path, records):
    "Write a list of dictionaries to the JSON file `path`. Raises `S8FastError`."
    write_text(path, json.dumps(records, indent=1) + '\n')


def read_records(path, look, what):
    "What `write_records` wrote to `path`. Raises `S8FastError` when `look` fails on a record: it is no `what` then."
    try:
        records = json.loads(path.read_text())
        for record in records: look(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        raise S8FastError(f'{path} is no {what} ({reason(e)}).') from e
    return records


def recorded_recipe(values):
    "The `Recipe` of a record, also of one from before `auto` was a word and Winograd's use no choice of the recipe."
    choices = {name: AUTO if value is None else value for name, value in values.items() if name != 'winograd'}
    return Recipe(**choices)


def write_logits(path, logits, data):
    """Write a run's logits, `{part: [n, n_classes]}`, in float16 to a safetensors file. Raises `S8FastError`.

    The fingerprint of the `ImageData` goes with them.
    """
    tensors = {name: values.half().contiguous() for name, values in logits.items()}
    content = save(tensors, dict(data=data.fingerprint))  # one key: the order of several is not the same every time
    write_whole(path, lambda tmp: tmp.write_bytes(content))
