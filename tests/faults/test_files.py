"Every file of a run folder cut short, with a bit flipped, or with something of another type in it: it is refused with a sentence, or it says what it said."
import json, math, shutil
from dataclasses import asdict

import numpy as np
import pytest
import runs
import torch

from s8fast.checkpoint import read_checkpoint
from s8fast.files import S8FastError, write_json
from s8fast.learner import load_run
from s8fast.recipe import recipe_of
from s8fast.run_folder import BEGUN, STATE, read_history, read_metrics, read_record
from s8fast.training import resume


@pytest.fixture(autouse=True)
def one_thread():
    "As in the processes that the runs here are compared with."
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    undo = runs.draw_less()
    yield
    undo()
    torch.set_num_threads(n)


def said(run):
    "All that can be read from a finished run."
    learn, _, record = load_run(run, runs.few_digits(), 'cpu')
    return asdict(recipe_of(record)), record, read_metrics(run), read_history(run), {k: v.tolist() for k, v in learn.model.state_dict().items()}


@pytest.fixture
def run(reference, tmp_path): return shutil.copytree(reference['batch'], tmp_path/'run')


def damages(raw, rng, flips):
    for n in sorted({0, 1, len(raw)//3, len(raw)//2, len(raw) - 1}): yield 'truncations', raw[:n]
    for at in rng.integers(len(raw), size=flips):
        yield 'bit flips', raw[:at] + bytes([raw[at] ^ (1 << rng.integers(8))]) + raw[at + 1:]


@pytest.mark.parametrize('name', ['recipe.json', 'history.csv', 'metrics.json', 'model.safetensors', 'curves.png', 'schedule.png', 'batch.png'])
def test_finished_run(run, count, name):
    expected, raw, refused = said(run), (run/name).read_bytes(), 0
    cases = list(damages(raw, np.random.default_rng(0), 20))
    for kind, spoilt in cases:
        (run/name).write_bytes(spoilt)
        try: assert said(run) == expected
        except S8FastError as e:
            assert name in str(e) and str(e).endswith('.'), e
            refused += 1
        count([kind])
    assert refused >= len(cases)*.8  # a space that becomes another blank changes nothing
    (run/name).write_bytes(raw)
    assert said(run) == expected


@pytest.fixture
def stopped(tmp_path):
    "A run that was stopped within its second epoch."
    assert runs.run(tmp_path/'run', minutes=0, fault=runs.StopAt(1, 2)) == 143
    return tmp_path/'run'


@pytest.mark.parametrize('name', [STATE, 'recipe.json', 'checkpoint/recipe.json'])
def test_stopped_run(stopped, reference, count, name):
    raw, refused = (stopped/name).read_bytes(), 0
    shutil.copytree(stopped, stopped.parent/'copy')
    cases = list(damages(raw, np.random.default_rng(1), 40 if name == STATE else 12))
    for kind, spoilt in cases:
        (stopped/name).write_bytes(spoilt)
        try: resume(stopped, runs.few_digits(), log=lambda line: None)
        except S8FastError as e:
            assert name.split('/')[-1] in str(e) and str(e).endswith('.'), e
            refused += 1
        else: # it went on: with what was true
            assert runs.results(stopped)[:2] == runs.results(reference['batch'])[:2]
            shutil.rmtree(stopped)
            shutil.copytree(stopped.parent/'copy', stopped)
        count([kind])
    assert refused >= len(cases)*.7
    (stopped/name).write_bytes(raw)
    resume(stopped, runs.few_digits(), log=lambda line: None)
    assert runs.results(stopped) == runs.results(reference['batch'])


def fields(obj, at=()):
    "The path of every field; of a list only the first item."
    for k in obj if isinstance(obj, dict) else range(min(1, len(obj))):
        yield (*at, k)
        if isinstance(obj[k], (dict, list)): yield from fields(obj[k], (*at, k))


def wrong_types(value):
    "Values that cannot stand where `value` stands."
    if isinstance(value, bool): return 3, 'x', [], {}, 0.5
    if isinstance(value, (int, float)): return 'x', [], {}, True, math.inf
    if isinstance(value, str): return 3, [], {}, True, 0.5
    if value is None: return [], {}
    return 3, 'x', None, True


@pytest.mark.parametrize('name', ['recipe.json', 'metrics.json'])
def test_wrong_types_in_every_field(run, count, name):
    whole = json.loads((run/name).read_text())
    del whole['sha256']  # as by hand
    (run/name).write_text(json.dumps(whole))
    metrics = json.loads((run/'metrics.json').read_text())
    for o in ('files', 'sha256'): metrics.pop(o, None)
    if name == 'recipe.json': (run/'metrics.json').write_text(json.dumps({**metrics, 'files': {}}))
    said(run)
    n = 0
    for path in fields(whole):
        *above, last = path
        for bad in wrong_types(follow(whole, path)):
            spoilt = json.loads(json.dumps(whole))
            follow(spoilt, above)[last] = bad
            (run/name).write_text(json.dumps(spoilt))
            try: read_metrics(run) if name == 'metrics.json' else recipe_of(read_record(run))
            except S8FastError: n += 1
            else: pytest.fail(f'{name}: {path} = {bad!r} was believed')
        free = path == ('version',) or path[0] in ('versions', 'seconds', 'files', 'recipe') and len(path) > 1 or path[-2:-1] == ('per_class',)
        if isinstance(last, int) or free: continue  # an item of a list, or of a dictionary whose keys are not fixed
        spoilt = json.loads(json.dumps(whole))
        del follow(spoilt, above)[last]
        (run/name).write_text(json.dumps(spoilt))
        with pytest.raises(S8FastError): read_metrics(run) if name == 'metrics.json' else recipe_of(read_record(run))
        n += 1
    assert n > 100
    count({'fields of a wrong type, or left out': n})


def follow(obj, path):
    for k in path: obj = obj[k]
    return obj


def spoil_state(run, change):
    "Write the checkpoint again, with its right checksum, after `change(tensors, plain)`."
    from s8fast.checkpoint import save_tensors
    tensors, plain = read_checkpoint(run/STATE)
    change(tensors, plain)
    save_tensors(run/STATE, tensors, plain)


def test_wrong_things_in_a_checkpoint_whose_checksum_is_right(stopped, reference, count):
    tensors, plain = read_checkpoint(stopped/STATE)
    raw, n = (stopped/STATE).read_bytes(), 0
    def put(where, k, v): where[k] = v
    some = sorted({o for k in tensors for o in [min(n for n in tensors if n.split('.')[0] == k.split('.')[0] and n.split('.')[-1] == k.split('.')[-1])]})  # one of each kind
    changes = [lambda t, p, k=k: t.pop(k) for k in some]
    changes += [lambda t, p, k=k: put(t, k, torch.zeros(3, 3)) for k in some]
    changes += [lambda t, p, k=k, bad=bad: put(p, k, bad) for k in plain for bad in ('x', 3, [1], None, -1) if not (isinstance(plain[k], (int, float)) and bad == 3)]
    changes += [lambda t, p, cb=cb, k=k, bad=bad: put(p['callbacks'][cb], k, bad) for cb, o in plain['callbacks'].items() for k in o for bad in ('x', [1], None, -1) if k != 'seconds' or bad != -1]
    changes += [lambda t, p, k=k, bad=bad: put(p['record'], k, bad) for k in plain['record'] for bad in ('x', 3, [1], None)]
    for change in changes:
        spoil_state(stopped, change)
        try: resume(stopped, runs.few_digits(), log=lambda line: None)
        except S8FastError as e: assert str(e).endswith('.'), e
        else:  # what was changed decides nothing
            assert runs.results(stopped)[:2] == runs.results(reference['batch'])[:2]
            (stopped/'checkpoint').mkdir()
        n += 1
        (stopped/STATE).write_bytes(raw)
    count({'forged checkpoints': n})


NEW_IN_4 = 'pad_mode', 'label_smoothing', 'average', 'bn_momentum'

def test_a_run_that_an_earlier_version_began(tmp_path, count):
    old = dict(average=0., label_smoothing=0.)  # what version 3 did
    assert runs.run(tmp_path/'whole', **old) == 0
    assert runs.run(tmp_path/'run', minutes=0, fault=runs.StopAt(1, 2), **old) == 143
    def downgrade(record):
        for k in NEW_IN_4: del record['recipe'][k]
        record['version'] = 3
    for path in (tmp_path/'run'/BEGUN, tmp_path/'run'/'recipe.json'):
        record = json.loads(path.read_text())
        downgrade(record)
        del record['sha256']
        write_json(path, record)
    spoil_state(tmp_path/'run', lambda t, p: downgrade(p['record']['record']))
    resume(tmp_path/'run', runs.few_digits(), log=lambda line: None)
    assert runs.results(tmp_path/'run')[:2] == runs.results(tmp_path/'whole')[:2]
    count(['runs of an earlier version'])


def test_a_run_that_a_later_version_began(stopped, count):
    for o in (BEGUN, 'recipe.json'): (stopped/o).unlink()
    spoil_state(stopped, lambda t, p: p['record']['record'].update(version=99))
    with pytest.raises(S8FastError, match='version 99'): resume(stopped, runs.few_digits(), log=lambda line: None)
    count(['runs of a later version'])


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_weights_that_are_no_numbers(run, count, bad):
    from safetensors.torch import load_file, save_file
    state = load_file(run/'model.safetensors')
    state['fc.bias'][0] = bad
    save_file(state, run/'model.safetensors')
    (run/'metrics.json').unlink()  # it has the file's checksum
    with pytest.raises(S8FastError, match='nan or infinite'): load_run(run, runs.few_digits(), 'cpu')
    count(['weights that are no numbers'])
