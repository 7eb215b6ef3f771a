"Each file of a run cut short, with a bit flipped, or with something of another type: refused, or it says what it said."
import json
import math
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import short_runs

from s8fast.errors import S8FastError
from s8fast.runs.evaluate import load_run
from s8fast.runs.folder import STATE
from s8fast.runs.record import read_metrics, read_record, recipe_of
from s8fast.runs.train import resume
from s8fast.training.history import read_history

FILES = 'recipe.json', 'history.csv', 'metrics.json', 'model.safetensors'
PICTURES = 'curves.png', 'schedule.png', 'batch.png'


def quiet(line): pass


def damages(raw, rng, flips):
    "The kind of damage, and the file with it: cut at five places, one bit of it flipped so many times."
    for n in sorted({0, 1, len(raw)//3, len(raw)//2, len(raw) - 1}): yield 'truncations', raw[:n]
    for at in rng.integers(len(raw), size=flips):
        flipped = bytes([raw[at] ^ (1 << rng.integers(8))])
        yield 'bit flips', raw[:at] + flipped + raw[at + 1:]


# A finished run

@pytest.fixture
def run(reference, tmp_path): return shutil.copytree(reference['batch'], tmp_path/'run')


def said(run):
    "All that can be read from a finished run."
    learn, _, record = load_run(run, short_runs.few_digits(), 'cpu')
    weights = {name: tensor.tolist() for name, tensor in learn.model.state_dict().items()}
    return asdict(recipe_of(record)), record, read_metrics(run), read_history(run), weights


@pytest.mark.parametrize('name', FILES)
def test_a_file_of_a_finished_run(run, count, name):
    expected, raw, refused = said(run), (run/name).read_bytes(), 0
    cases = list(damages(raw, np.random.default_rng(0), 20))
    for kind, spoilt in cases:
        (run/name).write_bytes(spoilt)
        try: assert said(run) == expected
        except S8FastError as error:
            assert name in str(error) and str(error).endswith('.'), error
            refused += 1
        count([kind])
    assert refused >= len(cases)*.8  # a space that becomes another blank changes nothing
    (run/name).write_bytes(raw)
    assert said(run) == expected


@pytest.mark.parametrize('name', PICTURES)
def test_a_picture_is_decoration(run, count, name):
    expected, raw = said(run), (run/name).read_bytes()
    for kind, spoilt in damages(raw, np.random.default_rng(0), 20):
        (run/name).write_bytes(spoilt)
        assert said(run) == expected
        count([kind])


# A run that was stopped

@pytest.mark.parametrize('name', [STATE, 'recipe.json', 'checkpoint/recipe.json'])
def test_a_file_of_a_stopped_run(stopped, one_thread, reference, tmp_path, count, name):
    raw, refused = (stopped/name).read_bytes(), 0
    copy = shutil.copytree(stopped, tmp_path/'copy')
    cases = list(damages(raw, np.random.default_rng(1), 40 if name == STATE else 12))
    for kind, spoilt in cases:
        (stopped/name).write_bytes(spoilt)
        try: resume(stopped, short_runs.few_digits(), log=quiet)
        except S8FastError as error:
            assert name.split('/')[-1] in str(error) and str(error).endswith('.'), error
            refused += 1
        else:  # it went on: with what was true
            assert short_runs.results(stopped)[:2] == short_runs.results(reference['batch'])[:2]
            shutil.rmtree(stopped)
            shutil.copytree(copy, stopped)
        count([kind])
    assert refused >= len(cases)*.7
    (stopped/name).write_bytes(raw)
    resume(stopped, short_runs.few_digits(), log=quiet)
    assert short_runs.results(stopped) == short_runs.results(reference['batch'])


# Something of another type

def fields(obj, at=()):
    "The path of every field; of a list only the first item."
    for key in obj if isinstance(obj, dict) else range(min(1, len(obj))):
        yield (*at, key)
        if isinstance(obj[key], (dict, list)): yield from fields(obj[key], (*at, key))


def follow(obj, path):
    for key in path: obj = obj[key]
    return obj


def changed(whole, path, **new):
    "A copy in which the field has the value `to`, or is left out."
    copied = json.loads(json.dumps(whole))
    *above, last = path
    if 'to' in new: follow(copied, above)[last] = new['to']
    else: del follow(copied, above)[last]
    return copied


def wrong_types(value):
    "Values that cannot stand where `value` stands."
    if isinstance(value, bool): return 3, 'x', [], {}, 0.5
    if isinstance(value, (int, float)): return 'x', [], {}, True, math.inf
    if isinstance(value, str): return 3, [], {}, True, 0.5
    if value is None: return [], {}
    return 3, 'x', None, True


def may_be_absent(path):
    "An item of a list, or of a dictionary whose keys are not fixed; a part without images."
    free = path[0] in ('versions', 'seconds', 'files', 'recipe') and len(path) > 1
    may = ('version',), ('valid',), ('temperature',), ('data', 'stats')
    calibrated = str(path[-1]).endswith('_calibrated')
    return isinstance(path[-1], int) or path in may or calibrated or free or path[-2:-1] == ('per_class',)


def spoilt_fields(whole):
    "What is changed, and the content with it."
    for path in fields(whole):
        for bad in wrong_types(follow(whole, path)): yield f'{path} = {bad!r}', changed(whole, path, to=bad)
        if not may_be_absent(path): yield f'no {path}', changed(whole, path)


@pytest.mark.parametrize('name, read', [('recipe.json', lambda run: recipe_of(read_record(run))),
                                        ('metrics.json', read_metrics)])
def test_wrong_types_in_every_field(run, count, name, read):
    whole = json.loads((run/name).read_text())
    del whole['sha256']  # as by hand
    n = 0
    for what, spoilt in spoilt_fields(whole):
        (run/name).write_text(json.dumps(spoilt))
        with pytest.raises(S8FastError):
            read(run)
            pytest.fail(f'{name}: {what} was believed')
        n += 1
    (run/name).write_text(json.dumps(whole))
    read(run)
    assert n > 100
    count({'fields of a wrong type, or left out': n})
