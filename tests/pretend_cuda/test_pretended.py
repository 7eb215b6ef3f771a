"The tests of tests/gpu on a pretended device, in a process of their own, into which the driver is loaded first."
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from device import build

GPU_TESTS = HERE.parent/'gpu'


@pytest.fixture(scope='session')
def driver(once):
    "The environment of a process with the pretended driver."
    if sys.platform != 'linux': pytest.skip('the pretended device is for Linux')
    if torch.cuda.is_available(): pytest.skip('there is a real CUDA device: tests/gpu runs on it')
    if torch.version.cuda is None: pytest.skip('this PyTorch was built without CUDA')
    if not shutil.which('g++'): pytest.skip('there is no C++ compiler (g++) to build the pretended driver with')
    return build(once('driver', Path.mkdir))


def run_gpu_tests(driver, marker):
    command = [sys.executable, '-m', 'pytest', '-q', '-m', marker, '-p', 'no:cacheprovider', GPU_TESTS]
    env = {**os.environ, **driver, 'S8FAST_PRETEND_CUDA': '1', 'OMP_NUM_THREADS': '1'}
    env.pop('PYTEST_XDIST_WORKER', None)
    done = subprocess.run(command, env=env, cwd=HERE.parent.parent, capture_output=True, text=True)
    said = done.stdout[-8000:] + done.stderr[-2000:]
    assert done.returncode == 0 and ' passed' in said and 'skipped' not in done.stdout.splitlines()[-1], said


def test_on_a_pretended_gpu(driver): run_gpu_tests(driver, 'not slow')


@pytest.mark.slow
def test_slow_ones_on_a_pretended_gpu(driver): run_gpu_tests(driver, 'slow')
