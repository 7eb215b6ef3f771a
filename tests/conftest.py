"Commands to run, data sets drawn on the spot, and an environment that keeps every test off the network and out of the user's folders."
import os
for o in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(o, '2')  # before torch is imported

import pickle, runpy, struct, subprocess, sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.font_manager  # builds the font cache here rather than in a command
import numpy as np
import pytest
from PIL import Image

VOCAB = 'airplane automobile bird cat deer dog frog horse ship truck'.split()


@pytest.fixture(scope='session', autouse=True)
def environment(tmp_path_factory):
    "No data, no network, no picture windows; caches and downloads in a folder of the session."
    home = tmp_path_factory.mktemp('home')
    with pytest.MonkeyPatch.context() as m:
        m.delenv('S8FAST_DATA', raising=False)
        m.setenv('MPLCONFIGDIR', matplotlib.get_cachedir())
        m.setenv('XDG_CACHE_HOME', str(home/'cache'))
        m.setenv('FASTAI_HOME', str(home/'fastai'))
        m.setenv('MPLBACKEND', 'Agg')
        m.setenv('NO_ALBUMENTATIONS_UPDATE', '1')
        for o in ('http_proxy', 'https_proxy'): m.setenv(o, 'http://127.0.0.1:9')  # nothing listens there
        m.setenv('no_proxy', '127.0.0.1')
        yield


def script(name): return Path(sys.executable).with_name(name)


@pytest.fixture(scope='session')
def run_command(tmp_path_factory):
    "Run an installed command as a process; stdout and stderr are pipes."
    def run(name, *args, env=None, cwd=None):
        return subprocess.run([script(name), *map(str, args)], env={**os.environ, **(env or {})}, cwd=cwd or tmp_path_factory.mktemp('cwd'),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return run


@pytest.fixture
def call_command(monkeypatch, capsys):
    "Run an installed command, or the script of a path, in this process: argument parsing, exit status and output, without a second import of fastai."
    def call(name, *args):
        capsys.readouterr()
        path = name if isinstance(name, Path) else script(name)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        monkeypatch.syspath_prepend(path.parent)
        status = 0
        try: runpy.run_path(sys.argv[0], run_name='__main__')
        except SystemExit as stop: status = stop.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)
    return call


def draw_images(labels, seed):
    "A noisy shade of gray for each class and a color for each image, uint8 `[n, 32, 32, 3]`."
    rng = np.random.default_rng(seed)
    shade = 20 + 22*labels[:, None, None, None] + rng.integers(0, 9, (len(labels), 1, 1, 3))
    return (shade + rng.integers(0, 9, (len(labels), 32, 32, 3))).astype(np.uint8)


def draw_data(n_train=8, n_test=2):
    "`{part: (images, labels)}` with that many images of each of ten classes, sorted by class."
    labels = {part: np.repeat(np.arange(10), n) for part, n in (('train', n_train), ('test', n_test))}
    return {part: (draw_images(y, seed), y) for seed, (part, y) in enumerate(labels.items())}


def write_folders(root, data, ext='png', vocab=VOCAB):
    "Image folders `{train,test}/<class>/`."
    for part, (images, labels) in data.items():
        for i, (im, y) in enumerate(zip(images, labels)):
            (root/part/vocab[y]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(im).save(root/part/vocab[y]/f'{i:04}.{ext}')
    return root


class Python2Pickler(pickle._Pickler):
    "Writes bytes and text as Python 2 wrote a `str`: so are CIFAR-10's own batches."
    dispatch = pickle._Pickler.dispatch.copy()
    def save_str(self, o):
        raw = o.encode('latin1') if isinstance(o, str) else o
        self.write(pickle.BINSTRING + struct.pack('<i', len(raw)) + raw)
        self.memoize(o)
    dispatch[bytes] = dispatch[str] = save_str


def write_pickle(path, obj):
    with path.open('wb') as f: Python2Pickler(f, protocol=2).dump(obj)


def batch(images, labels):
    "The content of a batch file: channels first, one row an image."
    return {'batch_label': 'a batch', 'labels': [int(o) for o in labels], 'data': images.transpose(0, 3, 1, 2).reshape(len(images), 3072),
            'filenames': [f'{i}.png' for i in range(len(images))]}


def write_batches(root, data, vocab=VOCAB):
    "CIFAR-10's original layout, `cifar-10-batches-py`."
    root.mkdir(parents=True)
    write_pickle(root/'batches.meta', {'num_cases_per_batch': 10000, 'label_names': list(vocab), 'num_vis': 3072})
    images, labels = data['train']
    for i, idx in enumerate(np.array_split(np.arange(len(labels)), 5), 1): write_pickle(root/f'data_batch_{i}', batch(images[idx], labels[idx]))
    write_pickle(root/'test_batch', batch(*data['test']))
    return root


@pytest.fixture(scope='session')
def data(): return draw_data()

@pytest.fixture(scope='session')
def png(tmp_path_factory, data): return write_folders(tmp_path_factory.mktemp('png'), data)

@pytest.fixture(scope='session')
def jpeg(tmp_path_factory, data): return write_folders(tmp_path_factory.mktemp('jpeg'), data, 'jpg')

@pytest.fixture(scope='session')
def batches(tmp_path_factory, data): return write_batches(tmp_path_factory.mktemp('original')/'cifar-10-batches-py', data)


TINY = '--bs', 16, '--valid_pct', 0.125, '--num_workers', 0, '--device', 'cpu', '--no_report'

@pytest.fixture(scope='session')
def train_run(run_command, tmp_path_factory):
    "Train on a data set for two epochs; the run folder, and the process that made it."
    def train(data, *args):
        out = tmp_path_factory.mktemp('runs')/'new'/'run'
        done = run_command('s8fast_train', '--data', data, '--out', out, '--epochs', 2, '--lr_max', 0.003, *TINY, *args)
        assert done.returncode == 0, done.stderr
        return out, done
    return train

@pytest.fixture(scope='session')
def png_run(train_run, png): return train_run(png)


CASES = Counter()

@pytest.fixture
def count():
    "Called with a dictionary or a list: the faults that a test has tried, for the line at the end."
    return CASES.update

def pytest_sessionfinish(session):
    if hasattr(session.config, 'workeroutput'): session.config.workeroutput['cases'] = dict(CASES)

@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error): CASES.update(getattr(node, 'workeroutput', {}).get('cases', {}))

def pytest_terminal_summary(terminalreporter):
    if CASES: terminalreporter.write_line('faults tried: ' + ', '.join(f'{n} {name}' for name, n in sorted(CASES.items())))

@pytest.fixture(scope='session')
def reference(tmp_path_factory):
    "Short runs that were never stopped, one for each pipeline."
    import runs  # in faults/
    root = tmp_path_factory.mktemp('reference')
    for o in ('batch', 'item'): assert runs.run(root/o, o) == 0
    return {o: root/o for o in ('batch', 'item')}
