"Fixtures of all tests: no network and nobody's folders, data sets drawn on the spot, commands to call, finished runs."
import os
os.environ.setdefault('OMP_NUM_THREADS', '2')  # before torch is imported
os.environ.setdefault('MKL_NUM_THREADS', os.environ['OMP_NUM_THREADS'])

import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.font_manager  # builds the font cache here rather than in a command
import pytest
from filelock import FileLock

pytest.register_assert_rewrite('helpers', 'pages', 'short_runs', 'peaks')  # their assertions say what they compared
from helpers import TINY, ULTIMUS, FinishedRun, draw_data, script, write_batches, write_folders


# Around every test

@pytest.fixture(scope='session', autouse=True)
def environment(tmp_path_factory):
    "No data, no network, no picture windows; caches and downloads in a folder of the session."
    home = tmp_path_factory.mktemp('home')
    variables = dict(MPLCONFIGDIR=matplotlib.get_cachedir(), MPLBACKEND='Agg', NO_ALBUMENTATIONS_UPDATE='1',
                     XDG_CACHE_HOME=str(home/'cache'), FASTAI_HOME=str(home/'fastai'), no_proxy='127.0.0.1',
                     http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9')  # nothing listens there
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('S8FAST_DATA', raising=False)
        for name, value in variables.items(): patch.setenv(name, value)
        yield


@pytest.fixture(scope='session')
def once(tmp_path_factory):
    "`once(name, make)`: the folder `name`, which `make(folder)` fills once for all processes of these tests."
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base)/'made_once'
    root.mkdir(exist_ok=True)

    def once(name, make):
        folder, done = root/name, root/f'{name}.done'
        with FileLock(root/f'{name}.lock'):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder
    return once


# Commands

@pytest.fixture(scope='session')
def run_command(tmp_path_factory):
    "Run an installed command as a process; stdout and stderr are pipes."
    def run(name, *args, env=None, cwd=None):
        command = [script(name), *map(str, args)]
        return subprocess.run(command, env={**os.environ, **(env or {})}, cwd=cwd or tmp_path_factory.mktemp('cwd'),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return run


@pytest.fixture
def call_command(monkeypatch, capsys):
    "Run an installed command, or the script of a path, in this process, which has imported fastai already."
    def call(name, *args):
        capsys.readouterr()
        path = name if isinstance(name, Path) else script(name)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        monkeypatch.syspath_prepend(path.parent)
        status = 0
        try: runpy.run_path(str(path), run_name='__main__')
        except SystemExit as stop: status = stop.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)
    return call


# Data sets of 80 training and 20 test images

@pytest.fixture(scope='session')
def data(): return draw_data()

@pytest.fixture(scope='session')
def png(once, data): return once('png', lambda folder: write_folders(folder, data))

@pytest.fixture(scope='session')
def jpeg(once, data): return once('jpeg', lambda folder: write_folders(folder, data, 'jpg'))

@pytest.fixture(scope='session')
def batches(once, data):
    return once('original', lambda folder: write_batches(folder/'cifar-10-batches-py', data))/'cifar-10-batches-py'


# Finished runs, shared by all tests: copy one before changing it

@pytest.fixture(scope='session')
def finished_run(once):
    "`finished_run(name, args...)`: a run that the command trained in a process of its own, once."
    import short_runs
    def finished_run(name, *args):
        def make(folder):
            folder.mkdir()
            out = folder/'new'/'run'
            command = short_runs.Command(folder, 's8fast_train', '--out', out, '--lr_max', 0.003, *args, pictures=True)
            status, stdout, stderr = command.wait()
            assert status == 0, stderr
            (folder/'stdout').write_text(stdout)
            (folder/'stderr').write_text(stderr)
        folder = once(name, make)
        return FinishedRun(folder/'new'/'run', (folder/'stdout').read_text(), (folder/'stderr').read_text())
    return finished_run

@pytest.fixture(scope='session')
def png_run(finished_run, png):
    "ULTIMUS, two epochs, on the folders of PNG files."
    return finished_run('png_run', '--data', png, '--epochs', 2, *ULTIMUS)

@pytest.fixture(scope='session')
def resnet_run(finished_run, png):
    "The custom ResNet, one epoch, on the folders of PNG files."
    return finished_run('resnet_run', '--data', png, '--epochs', 1, *TINY)

@pytest.fixture(scope='session')
def digits_run(finished_run):
    "ULTIMUS, one epoch, on the digits."
    return finished_run('digits_run', '--data', 'digits', '--epochs', 1, *ULTIMUS, '--bs', 128, '--valid_pct', 0.1)

@pytest.fixture(scope='session')
def found_run(finished_run, png):
    "ULTIMUS at a rate that was found."
    return finished_run('found_run', '--data', png, '--epochs', 1, *ULTIMUS, '--lr_max', 'auto', '--bs', 4)

@pytest.fixture(scope='session')
def final_run(finished_run, png):
    "ULTIMUS on all training images, two epochs, with its report."
    return finished_run('final_run', '--data', png, '--epochs', 2, '--preset', 'final', *ULTIMUS[:-3])

@pytest.fixture
def run(png_run, tmp_path):
    "A copy of a finished run, to be spoilt."
    return shutil.copytree(png_run.folder, tmp_path/'run')

@pytest.fixture(scope='session')
def reference(once):
    "Short runs on a few digits that were never stopped, one for each pipeline."
    import short_runs
    def make(folder):
        for pipeline in ('batch', 'item'): assert short_runs.run(folder/pipeline, pipeline) == 0
    folder = once('reference', make)
    return {pipeline: folder/pipeline for pipeline in ('batch', 'item')}


@pytest.fixture
def one_thread():
    "As in the processes that the runs here are compared with; small pictures, as there."
    import short_runs
    import torch
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    undo = short_runs.draw_less()
    yield
    undo()
    torch.set_num_threads(n)


# How many faults were tried

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
    tried = ', '.join(f'{n} {name}' for name, n in sorted(CASES.items()))
    if tried: terminalreporter.write_line(f'faults tried: {CASES.total()}: {tried}')
