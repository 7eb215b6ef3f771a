"A run that is killed with SIGKILL at any moment, again and again, and taken up each time ends as if it had not been."
import json
import os
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import short_runs

from s8fast.runs.folder import BEGUN, STATE, Run
from s8fast.training.checkpoint import read_checkpoint


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    return short_runs.wait(process)


def place(out):
    "Where the run is: what a checkpoint of it says."
    if (out/'metrics.json').exists(): return 'complete'
    checkpoint = read_checkpoint(out/STATE)  # the last one is whole, whenever the process was killed
    if checkpoint: return 'within an epoch' if checkpoint.batches else 'after an epoch'
    return 'begun' if (out/BEGUN).exists() else 'nothing yet'


class Killer:
    "Kills short runs of one pipeline at random moments, and notes where it found them."
    EPOCHS = 5

    def __init__(self, pipeline, folder, seed):
        self.pipeline, self.folder = pipeline, folder
        self.rng = np.random.default_rng(seed)
        self.places = Counter()
        folder.mkdir()

    def run(self, out, minutes=0):
        "A run to its end; 0 minutes: with a checkpoint after every step."
        return short_runs.run(out, self.pipeline, minutes, epochs=self.EPOCHS)

    def measure(self):
        "What a run that is never stopped leaves, and the seconds that it takes here."
        assert self.run(self.folder/'never stopped', None) == 0
        self.expected = short_runs.results(self.folder/'never stopped')
        began = time.perf_counter()
        assert self.run(self.folder/'whole') == 0
        self.span = time.perf_counter() - began
        assert short_runs.results(self.folder/'whole') == self.expected

    def kill_once(self, out, minutes):
        "Go on with the run and kill it at a random moment; False when it was done before."
        process = short_runs.start(out, self.pipeline, minutes, epochs=self.EPOCHS)
        if short_runs.wait(process, self.rng.uniform(.05, .8)*self.span) is None: kill(process)
        status = short_runs.wait(process)
        if status == 0: return False
        assert status == -signal.SIGKILL
        self.places[place(out)] += 1
        return True

    def kill_and_go_on(self, kills):
        "Where so many kills found the runs. A run gets up to four of them."
        self.measure()
        n = 0
        while self.places.total() < kills:
            n += 1
            out, minutes = self.folder/f'run{n}', 0 if n % 2 else None  # checkpoints after every step, or every epoch
            for _ in range(4):
                if not self.kill_once(out, minutes): break
            assert self.run(out) == 0, self.places
            assert short_runs.results(out) == self.expected
        return self.places


def count_places(count, places): count({f'kills ({name})': n for name, n in places.items()})


def test_killed_at_a_few_random_moments(tmp_path, count):
    places = Killer('batch', tmp_path/'batch', 2).kill_and_go_on(3)
    count_places(count, places)


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path, count):
    killers = [Killer(pipeline, tmp_path/pipeline, seed) for seed, pipeline in enumerate(('batch', 'item'))]
    with ThreadPoolExecutor(2) as pool: found = list(pool.map(lambda killer: killer.kill_and_go_on(10), killers))
    places = sum(found, Counter())
    assert places.total() >= 20 and places['within an epoch'] and places['after an epoch']
    count_places(count, places)


def test_a_killed_run_leaves_no_lock(tmp_path, count):
    process = short_runs.start(tmp_path/'run', 'batch', 0, epochs=12)
    short_runs.until_there(tmp_path/'run'/STATE, process)
    assert short_runs.run(tmp_path/'run') == short_runs.REFUSED  # it is at work
    kill(process)
    assert short_runs.run(tmp_path/'run') == 0
    count(['second processes on one folder'])


def test_killed_while_it_clears_up(reference, tmp_path, count):
    expected = short_runs.results(reference['batch'])[:3]
    for n in range(20):
        out = tmp_path/f'run{n}'
        status = short_runs.run(out, fault=short_runs.CrashAtUnlink(n))
        if status == 0: break
        assert status == 9 and short_runs.run(out) == 0
        assert short_runs.results(out)[:3] == expected
    assert n >= 2  # the two files that resume needs
    count({'crashes while clearing up': n})


@pytest.mark.parametrize('earlier', ['stopped', pytest.param('finished', marks=pytest.mark.slow)])
def test_killed_while_it_replaces_a_run(reference, tmp_path, count, earlier):
    before = reference['batch']
    if earlier == 'stopped':
        before = tmp_path/'stopped'
        assert short_runs.run(before, fault=short_runs.StopAt(1, 2), minutes=0) == 143

    def crashed(n):
        "Crash at the n-th file that is removed; False when there was none."
        out = shutil.copytree(before, tmp_path/f'run{n}')
        status = short_runs.run(out, fault=short_runs.CrashAtUnlink(n), replace=True, seed=1)
        if status == 0: return False
        assert status == 9 and (Run(out).is_unfinished or json.loads((out/'metrics.json').read_text()))
        assert short_runs.run(out) == 0
        assert json.loads((out/'recipe.json').read_text())['recipe']['seed'] == 1
        return True

    with ThreadPoolExecutor(2) as pool: crashes = sum(pool.map(crashed, range(13)))
    assert 4 <= crashes < 13  # the last ones had nothing left to remove
    count({'crashes while clearing up': crashes})


@pytest.mark.slow
def test_killed_while_it_looks_for_the_rate(tmp_path, count):
    whole, out = tmp_path/'whole', tmp_path/'run'
    assert short_runs.run(whole, lr_max='auto') == 0
    process = short_runs.start(out, lr_max='auto')
    short_runs.until_there(out/BEGUN, process)
    time.sleep(.2)
    assert not (out/'recipe.json').exists()  # it has found none yet
    kill(process)
    stopped = short_runs.run(out, fault=short_runs.StopAt(1, 2), minutes=0)
    assert stopped == 143  # and once more, with the rate that was found
    assert short_runs.run(out) == 0
    assert short_runs.results(out) == short_runs.results(whole)
    count(['kills (in the finder)'])
