"A run that is killed with SIGKILL at any moment, again and again, and taken up each time ends as if nothing had happened."
import json, os, shutil, signal, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import runs

from s8fast.checkpoint import read_checkpoint
from s8fast.run_folder import BEGUN, STATE, is_unfinished

KILLS = 20


def place(out):
    "Where the run is: what a checkpoint of it says."
    if (out/'metrics.json').exists(): return 'complete'
    state = read_checkpoint(out/STATE)  # the last one is whole, whenever the process was killed
    if state: return 'within an epoch' if state[1]['batches'] else 'after an epoch'
    return 'begun' if (out/'checkpoint'/'recipe.json').exists() else 'nothing yet'


def test_killed_at_random_moments(tmp_path, count):
    with ThreadPoolExecutor(2) as pool: places = sum(pool.map(kill_and_go_on, ('batch', 'item'), (tmp_path/'batch', tmp_path/'item')), Counter())
    assert places.total() >= KILLS and places['within an epoch'] and places['after an epoch']
    count({f'kills ({o})': n for o, n in places.items()})


def kill_and_go_on(pipeline, folder):
    "Where half of the kills found the run."
    rng, places, chain = np.random.default_rng(0 if pipeline == 'batch' else 1), Counter(), 0
    folder.mkdir()
    def run(out, minutes=0): return runs.run(out, pipeline, minutes, epochs=5)  # 0 minutes: a checkpoint after every step
    assert run(folder/'never stopped', None) == 0
    expected = runs.results(folder/'never stopped')
    began = time.perf_counter()
    assert run(folder/'whole') == 0
    span = time.perf_counter() - began  # what a run takes here
    assert runs.results(folder/'whole') == expected
    while places.total() < KILLS//2:
        out, chain = folder/f'run{chain}', chain + 1
        for _ in range(4):
            process = runs.start(out, pipeline, 0 if chain % 2 else None, epochs=5)  # a checkpoint after every step, or after every epoch
            if runs.wait(process, rng.uniform(.05, .8)*span) is None: os.kill(process.pid, signal.SIGKILL)
            status = runs.wait(process)
            if status == 0: break
            assert status == -signal.SIGKILL
            places[place(out)] += 1
        assert run(out) == 0, places
        assert runs.results(out) == expected
    return places


def test_a_killed_run_leaves_no_lock(tmp_path, count):
    process = runs.start(tmp_path/'run', 'batch', 0, epochs=12)
    runs.until_there(tmp_path/'run'/STATE, process)
    assert runs.run(tmp_path/'run') == runs.REFUSED  # it is at work
    os.kill(process.pid, signal.SIGKILL)
    runs.wait(process)
    assert runs.run(tmp_path/'run') == 0
    count(['second processes on one folder'])


def test_killed_while_it_clears_up(reference, tmp_path, count):
    for n in range(20):
        out = tmp_path/f'run{n}'
        if (status := runs.run(out, fault=runs.CrashAtUnlink(n))) == 0: break
        assert status == 9 and runs.run(out) == 0
        assert runs.results(out)[:3] == runs.results(reference['batch'])[:3]
    assert n >= 2  # the two files that resume needs
    count({'crashes while clearing up': n})


@pytest.mark.parametrize('earlier', ['finished', 'stopped'])
def test_killed_while_it_replaces_a_run(reference, tmp_path, count, earlier):
    if earlier == 'stopped': assert runs.run(tmp_path/'stopped', fault=runs.StopAt(1, 2), minutes=0) == 143
    def one(n):
        out = shutil.copytree(reference['batch'] if earlier == 'finished' else tmp_path/'stopped', tmp_path/f'run{n}')
        status = runs.run(out, fault=runs.CrashAtUnlink(n), replace=True, seed=1)
        if status == 0: return 0
        assert status == 9 and (is_unfinished(out) or json.loads((out/'metrics.json').read_text()))  # the last thing removed is the lock
        assert runs.run(out) == 0
        assert json.loads((out/'recipe.json').read_text())['recipe']['seed'] == 1
        return 1
    with ThreadPoolExecutor(2) as pool: n = sum(pool.map(one, range(13)))
    assert 4 <= n < 13  # the last ones had nothing left to remove
    count({'crashes while clearing up': n})


def test_killed_while_it_looks_for_the_rate(tmp_path, count):
    assert runs.run(tmp_path/'whole', lr_max=None) == 0
    process = runs.start(tmp_path/'run', lr_max=None)
    runs.until_there(tmp_path/'run'/BEGUN, process)
    time.sleep(.5)
    assert not (tmp_path/'run'/'recipe.json').exists()  # it has found none yet
    os.kill(process.pid, signal.SIGKILL)
    runs.wait(process)
    assert runs.run(tmp_path/'run', fault=runs.StopAt(1, 2), minutes=0) == 143  # and once more, with the rate that was found
    assert runs.run(tmp_path/'run') == 0
    assert runs.results(tmp_path/'run') == runs.results(tmp_path/'whole')
    count(['kills (in the finder)'])
