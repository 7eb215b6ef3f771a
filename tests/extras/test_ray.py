"A study on a Ray cluster of two nodes in this machine, one of which is killed; and what is refused."
import importlib
import os
import signal
import socket
import subprocess
import time

import pytest
from helpers import assert_sentence, names, read_json, script, take_signals_again

from s8fast.errors import S8FastError
from s8fast.recipe import make_recipe

pytestmark = pytest.mark.slow
pytest.importorskip('ray')
ONE_THREAD = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
STUDY = '''
[base]
model = "ultimus"
epochs = 3
bs = 64
lr_max = 3e-3
valid_pct = 0.1
device = "cpu"
precision = "fp32"

[arms.smoothing]
label_smoothing = 0.1
'''

FAILS = STUDY.replace('3e-3', '1e6\nlabel_smoothing = 0.0\naverage = 0.0').replace('label_smoothing = 0.1', 'wd = 0.1')


@pytest.fixture(scope='module')
def cluster():
    "A head without cores, and nothing else."
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, include_dashboard=False))
    yield cluster
    cluster.shutdown()


@pytest.fixture
def study(tmp_path):
    "Start the command."
    file = tmp_path/'study.toml'
    file.write_text(STUDY)
    def study(*args, text=STUDY, seeds='0-1'):
        file.write_text(text)
        command = [script('s8fast_study'), file, '--data', 'digits', '--seeds', seeds, *args]
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=ONE_THREAD, cwd=tmp_path, preexec_fn=take_signals_again)
    return study


def finish(process, timeout=300):
    "What a command said, and its exit status."
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def weights(out): return {path.parent.relative_to(out).as_posix(): path.read_bytes()
                          for path in out.rglob('model.safetensors')}


def wait_for(look, seconds=120):
    "What `look()` gives, once that is something."
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until: time.sleep(.1)
    return found


def under_way(out, n):
    "The recipe files of `n` runs that have written a checkpoint and go on."
    found = [path.parent.parent/'recipe.json' for path in out.glob('*/*/checkpoint/state.safetensors')]
    return found if len(found) >= n else None


def test_a_node_that_is_lost(cluster, study, tmp_path):
    "Every run is there, none began twice, and the weights are those of a study in one process."
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        process = study('--ray', cluster.address, '--out', tmp_path/'far')
        recipes = wait_for(lambda: under_way(tmp_path/'far', 2))
        assert recipes
        began = {path: path.stat().st_mtime_ns for path in recipes}
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        done = finish(process)
    finally:
        for node in nodes: cluster.remove_node(node)
    assert done.returncode == 0, done.stderr
    assert '2 runs at a time' in done.stdout and '4 of 4: ' in done.stdout and ', on ' in done.stdout
    assert {path: path.stat().st_mtime_ns for path in recipes} == began
    assert not list((tmp_path/'far').glob('.study-*'))
    assert finish(study('--out', tmp_path/'near')).returncode == 0
    near, far = weights(tmp_path/'near'), weights(tmp_path/'far')
    assert len(near) == 4 and near == far


def test_ctrl_c_leaves_checkpoints(cluster, study, tmp_path):
    "And the same command goes on, on a cluster or without one."
    node = cluster.add_node(num_cpus=1)
    try:
        process = study('--ray', cluster.address, '--out', tmp_path/'out', seeds='0')
        recipe, = wait_for(lambda: under_way(tmp_path/'out', 1))
        process.send_signal(signal.SIGINT)
        done = finish(process, 60)
    finally: cluster.remove_node(node)
    assert done.returncode == 130 and done.stderr == ('s8fast_study: Interrupted: the same command goes on with the '
                                                      'study.\n')
    assert (recipe.parent/'checkpoint'/'state.safetensors').exists()
    began = recipe.stat().st_mtime_ns
    done = finish(study('--out', tmp_path/'out', seeds='0'))
    assert done.returncode == 0 and recipe.stat().st_mtime_ns == began, done.stderr


def test_an_error_on_a_node(cluster, study, tmp_path):
    "Is said here."
    node = cluster.add_node(num_cpus=1)
    try:
        done = finish(study('--ray', cluster.address, '--threads', '2', '--out', tmp_path/'out'))
        assert done.returncode == 2 and done.stderr.endswith('give --threads 1.\n')
        assert names(tmp_path) == ['study.toml']
        done = finish(study('--ray', cluster.address, '--out', tmp_path/'out', text=FAILS, seeds='0'))
        assert done.returncode == 0 and done.stdout.count('failed: The loss') == 2, done.stderr
        assert read_json(tmp_path/'out'/'summary.json')['arms']['base']['failed'] == [0]
    finally: cluster.remove_node(node)


def test_a_node_that_differs(tmp_path):
    "One that does not see the folder, or has another version, says so and trains nothing."
    from s8fast import __version__
    from s8fast.runs.cluster import _on_node
    with pytest.raises(S8FastError, match='does not see .*none: give an --out'):
        _on_node(None, 'digits', 1, tmp_path/'none'/'.study', __version__)
    with pytest.raises(S8FastError, match='and this one 0.0.1: install the same'):
        _on_node(None, 'digits', 1, tmp_path, '0.0.1')


def test_a_node_that_lacks_what_is_to_run(cluster, tmp_path, monkeypatch):
    "A module that is here and not there, as s8fast may be."
    from s8fast.runs.cluster import on_cluster
    from s8fast.runs.workers import Task
    (tmp_path/'only_here.py').write_text('def do(*_): pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    do = importlib.import_module('only_here').do
    node = cluster.add_node(num_cpus=1)
    try:
        task = Task('base', make_recipe('ultimus', device='cpu'), tmp_path/'out'/'base'/'seed0')
        with pytest.raises(S8FastError, match='has no s8fast, or not this one'):
            list(on_cluster([task], 'digits', tmp_path/'out', cluster.address, 1, do=do))
    finally: cluster.remove_node(node)
    assert not (tmp_path/'out').exists()


def test_nobody_answers(study, tmp_path):
    "Said in seconds: somebody who is no cluster, no address."
    with socket.create_server(('127.0.0.1', 0)) as other:
        for address in (f'127.0.0.1:{other.getsockname()[1]}', 'nonsense'):
            began = time.monotonic()
            assert_sentence(finish(study('--ray', address)), 's8fast_study', f'answers at {address}')
            assert time.monotonic() - began < 60
    assert_sentence(finish(study('--ray', 'ray://127.0.0.1:10001')), 's8fast_study', '--ray auto')
    assert names(tmp_path) == ['study.toml']
