"One run in two processes as accelerate's `notebook_launcher` starts them. Its `launch` starts several on GPUs only."
import socket
import subprocess
import sys

import pytest
from helpers import ROOT, read_json

pytestmark = pytest.mark.slow
PROGRAM = '''
import sys
from accelerate import notebook_launcher
from s8fast.data.dataset import load_data
from s8fast.recipe import make_recipe
from s8fast.runs.train import train

data, out, port = sys.argv[1:]
recipe = make_recipe(model='ultimus', bs=16, epochs=1, lr_max=3e-3, valid_pct=.125, device='cpu')
notebook_launcher(train, (recipe, load_data(data), out), num_processes=2, use_port=port)
'''


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_notebook_launcher(png, tmp_path):
    "Images in memory, which every process has."
    pytest.importorskip('accelerate')
    (tmp_path/'program.py').write_text(PROGRAM)
    command = [sys.executable, tmp_path/'program.py', png, tmp_path/'run', free_port()]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('epoch  1/1') == 1
    assert read_json(tmp_path/'run'/'recipe.json')['chosen']['processes'] == 2
