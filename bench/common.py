"What the benchmarks share: which device, what was measured on it, and a table."
import json, os, platform, statistics, sys

import torch
from s8fast.checkpoint import Interrupted
from s8fast.files import S8FastError, reason, write_text
from s8fast.precision import PRECISIONS, pick_device
from torch import nn


class Scaled(nn.Module):
    "A network whose logits are multiplied by `scale`."
    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale
    def forward(self, x): return self.scale*self.model(x)


def run_script(main):
    "Run a script's `main`: what its user can put right is a sentence and exit status 2, a stop its signal's status."
    try: main()
    except (S8FastError, Interrupted) as e:
        print(f'{os.path.basename(sys.argv[0])}: {e}', file=sys.stderr)
        sys.exit(e.status)


def header(device, *more):
    "Device and versions, one line."
    import fastai
    from s8fast.run_folder import environment
    what = environment(device)['device']
    return ', '.join([f'{what["name"]} ({what["type"]}, {what["threads"]} threads of {os.cpu_count()} cores)', f'torch {torch.__version__}',
                      f'fastai {fastai.__version__}', f'python {platform.python_version()}', *more])


def enough(data, n):
    "`data` with its training images repeated until there are `n` of them: a clock doesn't mind."
    from dataclasses import replace
    times = -(-n//len(data.train_labels))
    return replace(data, train_images=data.train_images.repeat(times, 0), train_labels=data.train_labels.repeat(times)) if times > 1 else data


def part(data, share):
    "`data` with that share of its training images, the classes in proportion."
    from dataclasses import replace

    import numpy as np
    from s8fast.images import split
    if share == 1: return data
    keep = split(data.train_labels, share)[1]
    return replace(data, train_images=np.ascontiguousarray(data.train_images[keep]), train_labels=data.train_labels[keep])


def numbers(text):
    "`.5,1,2` as a list, for an option of a command."
    return [float(o) for o in text.split(',')]


def wait(device):
    "Until the device has done what was asked of it."
    if device.type == 'cuda': torch.cuda.synchronize()
    if device.type == 'mps': torch.mps.synchronize()


def matmul_rate(device, precision, n=None, repeats=5):
    "Multiply-adds per second, times two, of an n by n matrix product in `precision`: the best of `repeats`."
    import time
    n = n or (8192 if device.type == 'cuda' else 2048)
    a, b = (torch.randn(n, n, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
    best = float('inf')
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2*n**3/best


def table(head, rows):
    "Rows of text and numbers as aligned lines; the first column to the left."
    rows = [[o if isinstance(o, str) else f'{o:,}' if isinstance(o, int) else f'{o:.3g}' if o < 100 else f'{o:,.0f}' for o in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(o.ljust(w) if i == 0 else o.rjust(w) for i, (o, w) in enumerate(zip(row, widths))).rstrip() for row in rows)


def spread(seconds):
    "n, median, lowest and highest of a row's measurements."
    return len(seconds), statistics.median(seconds), min(seconds), max(seconds)


def write_records(path, records):
    "A list of dictionaries to the JSON file `path`; raises `S8FastError`."
    write_text(path, json.dumps(records, indent=1) + '\n')


def read_records(path, look, what):
    "What `write_records` wrote to `path`; raises `S8FastError` where that is not `what`: where `look` stumbles over one of them."
    try:
        records = json.loads(path.read_text())
        for o in records: look(o)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e: raise S8FastError(f'{path} is no {what} ({reason(e)}).') from e
    return records


def write_logits(path, logits, data):
    "A run's logits, `{part: [n, n_classes]}`, in float16 to a safetensors file with the fingerprint of the `ImageData`; raises `S8FastError`."
    from s8fast.files import write_whole
    from safetensors.torch import save
    raw = save({part: o.half().contiguous() for part, o in logits.items()}, dict(data=data.fingerprint, split='test: all test images, in order; valid: the validation images, in order'))
    write_whole(path, lambda tmp: tmp.write_bytes(raw))


def read_study(path):
    "The trials that `study.py` wrote to `path`; raises `S8FastError`."
    def look(o): o['row'], o['arguments'], o['data'], o['share'], o['recipe']['average'], o['accuracy'] + sum(a['accuracy'] for a in o['averages'].values())
    return read_records(path, look, 'study')
