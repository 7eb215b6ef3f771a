"What several test files need: small data sets in every layout, run folders and their files, sentences on stderr."
import csv
import json
import pickle
import signal
import struct
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT/'bench'
RESULTS = ROOT/'results'
COMMANDS = ('s8fast_train', 's8fast_study', 's8fast_lr_find', 's8fast_evaluate', 's8fast_calibrate', 's8fast_report',
            's8fast_robustness', 's8fast_labels', 's8fast_predict', 's8fast_export', 's8fast_publish', 's8fast_app')
VOCAB = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
TRAIN_FILES = {'recipe.json', 'history.csv', 'metrics.json', 'model.safetensors', 'batch.png', 'schedule.png',
               'curves.png'}

# A short training: small batches, ten validation images, no report.
ON_CPU = '--bs', 16, '--num_workers', 0, '--device', 'cpu'
TINY = *ON_CPU, '--valid_pct', 0.125, '--no_report'
ULTIMUS = '--model', 'ultimus', *TINY


class FinishedRun(NamedTuple):
    "A run folder, and what the process that made it said."
    folder: Path
    stdout: str
    stderr: str


def script(name):
    "The path of an installed command."
    return Path(sys.executable).with_name(name)


def take_signals_again():
    "In a process, as `preexec_fn`: tests that run in the background are started with a terminal's signals ignored."
    for o in (signal.SIGINT, signal.SIGHUP): signal.signal(o, signal.SIG_DFL)


def names(root):
    "Every file and folder below `root`, relative to it."
    return sorted(str(path.relative_to(root)) for path in root.rglob('*'))


def file_names(root):
    "Every file below `root`, relative to it."
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def read_json(path): return json.loads(Path(path).read_text())


def history_rows(run):
    "The rows of a run's history.csv as text."
    with (run/'history.csv').open(newline='') as f: return list(csv.DictReader(f))


def without(row, *keys): return {k: v for k, v in row.items() if k not in keys}


def edit_json(path, change):
    "Change a JSON file by hand: it then has no checksum."
    obj = read_json(path)
    obj.pop('sha256', None)
    change(obj)
    path.write_text(json.dumps(obj))


def edit_recipe(run, change):
    "Change a run's recipe.json by hand; its figures then vouch for no file."
    edit_json(run/'recipe.json', change)
    edit_json(run/'metrics.json', lambda metrics: metrics.update(files={}))


def assert_sentence(done, name, *parts, status=2):
    "A command refused: nothing on standard output, one sentence with all `parts` on standard error."
    assert done.returncode == status and done.stdout == '', (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith(f'{name}: ') and done.stderr.endswith('.\n'), done.stderr
    assert done.stderr.count('\n') == 1, done.stderr
    assert 'Traceback' not in done.stderr and 'usage:' not in done.stderr
    for part in parts: assert str(part) in done.stderr, (part, done.stderr)


def named(function): return function.__name__


# Data sets

def draw_images(labels, seed):
    "A noisy shade of gray for each class and a color for each image, uint8 `[n, 32, 32, 3]`."
    rng = np.random.default_rng(seed)
    n = len(labels)
    shade = 20 + 22*labels[:, None, None, None] + rng.integers(0, 9, (n, 1, 1, 3))
    return (shade + rng.integers(0, 9, (n, 32, 32, 3))).astype(np.uint8)


def draw_data(n_train=8, n_test=2):
    "`{part: (images, labels)}` with that many images of each of ten classes, sorted by class."
    data = {}
    for seed, (part, n) in enumerate((('train', n_train), ('test', n_test))):
        labels = np.repeat(np.arange(10), n)
        data[part] = draw_images(labels, seed), labels
    return data


def write_folders(root, data, ext='png', vocab=VOCAB):
    "Image folders `{train,test}/<class>/`."
    for part, (images, labels) in data.items():
        for i, (image, label) in enumerate(zip(images, labels)):
            folder = root/part/vocab[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder/f'{i:04}.{ext}')
    return root


class Python2Pickler(pickle._Pickler):
    "Writes bytes and text as Python 2 wrote a `str`: so are CIFAR-10's own batches."
    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, text):
        raw = text.encode('latin1') if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack('<i', len(raw)) + raw)
        self.memoize(text)
    dispatch[bytes] = dispatch[str] = save_str


def write_pickle(path, obj):
    with path.open('wb') as f: Python2Pickler(f, protocol=2).dump(obj)


def change_pickle(path, **changes):
    "Write a batch again with other entries; None takes one out."
    batch = {**pickle.loads(path.read_bytes(), encoding='latin1'), **changes}
    write_pickle(path, {k: v for k, v in batch.items() if v is not None})


def batch_of(images, labels):
    "The content of a batch file: channels first, one row an image."
    return {'batch_label': 'a batch',
            'labels': [int(label) for label in labels],
            'data': images.transpose(0, 3, 1, 2).reshape(len(images), 3072),
            'filenames': [f'{i}.png' for i in range(len(images))]}


def write_batches(root, data, vocab=VOCAB):
    "CIFAR-10's original layout, `cifar-10-batches-py`."
    root.mkdir(parents=True)
    meta = {'num_cases_per_batch': 10000, 'label_names': list(vocab), 'num_vis': 3072}
    write_pickle(root/'batches.meta', meta)
    images, labels = data['train']
    for i, part in enumerate(np.array_split(np.arange(len(labels)), 5), 1):
        write_pickle(root/f'data_batch_{i}', batch_of(images[part], labels[part]))
    write_pickle(root/'test_batch', batch_of(*data['test']))
    return root


# The project

def settings(root=ROOT):
    "settings.ini as a mapping."
    parser = ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']
