"Runs of earlier versions can be read, and gone on with."
import json
import shutil
import tarfile

import pytest
import short_runs
import torch
from forging import forge
from helpers import RESULTS, ROOT, edit_json

from s8fast.errors import Interrupted
from s8fast.files import write_json
from s8fast.models.zoo import MODELS
from s8fast.runs.folder import BEGUN, STATE, Run
from s8fast.runs.summary import read_summary
from s8fast.runs.train import resume, train
from s8fast.training.checkpoint import read_checkpoint
from s8fast.training.checkpoint_callback import SaveCheckpoint

RECORDED = sorted(path.parent for path in RESULTS.rglob('recipe.json') if (path.parent/'metrics.json').exists())
UNFINISHED = ROOT/'tests'/'data_files'/'unfinished-run-of-version-6.tar.xz'

#: How far the weights of the run below may be from those of another processor: measured with AVX2 in place of AVX-512,
#: whose rounding Adam's division enlarges. Between its checkpoint and its end they move by four times as much.
ANOTHER_PROCESSOR = 3e-3


def quiet(line): pass


# Recorded runs

@pytest.mark.parametrize('folder', RECORDED, ids=lambda folder: str(folder.relative_to(RESULTS)))
def test_a_recorded_run_can_be_read(folder, tmp_path):
    "Its text files; of one, the pictures were drawn again since."
    for name in ('recipe.json', 'history.csv', 'metrics.json'): shutil.copy(folder/name, tmp_path)
    run = Run(tmp_path)
    written = json.loads((folder/'recipe.json').read_text())
    assert run.state == 'finished' and run.recipe.model in MODELS
    assert run.recipe.epochs == written['recipe']['epochs'] == run.metrics['epochs'] == len(run.history)
    assert run.record['chosen']['lr_max'] == written['chosen']['lr_max']
    assert run.metrics['test']['accuracy'] == json.loads((folder/'metrics.json').read_text())['test']['accuracy']


@pytest.mark.parametrize('path', sorted(RESULTS.rglob('summary.json')), ids=lambda path: path.parent.name)
def test_a_recorded_summary_can_be_read(path):
    summary = read_summary(path.parent)
    assert summary['accuracy']['n'] == len(summary['runs']) == len(list(path.parent.glob('seed*/recipe.json')))


def test_there_are_recorded_runs(): assert len(RECORDED) >= 14


# An unfinished run of version 6: ULTIMUS on a few digits, stopped after the third step of its second epoch

@pytest.fixture
def unfinished(tmp_path):
    with tarfile.open(UNFINISHED) as f: f.extractall(tmp_path/'old', filter='data')
    return tmp_path/'old'


@pytest.fixture
def recipe(): return short_runs.recipe(average=0.)


def weights(state):
    "All that was trained, in one vector."
    trained = [tensor for name, tensor in sorted(state.items()) if tensor.is_floating_point() and 'running' not in name]
    return torch.cat([tensor.double().flatten() for tensor in trained])


def distance(a, b): return float((a - b).norm()/b.norm())


def test_an_unfinished_run_of_version_6_can_be_read(unfinished, recipe):
    run = Run(unfinished)
    assert run.state == 'stopped' and run.is_unfinished
    assert run.recipe == recipe and run.checkpoint.batches == 3 and len(run.checkpoint.rows) == 1
    assert run.record['chosen']['winograd'] == 'none'


def test_an_unfinished_run_of_version_6_goes_on(unfinished, recipe, one_thread, tmp_path, monkeypatch):
    "It ends as the same run of today; to the last bit where this processor computes as that one did."
    from safetensors.torch import load_file
    old, data, out = read_checkpoint(unfinished/STATE), short_runs.few_digits(), tmp_path/'new'
    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoint, 'write', SaveCheckpoint.write)
        short_runs.StopAt(1, 2).install()
        with pytest.raises(Interrupted): train(recipe, data, out, log=quiet, checkpoint_minutes=0)
    new = read_checkpoint(out/STATE)
    assert new.batches == old.batches and new.now.plain['python'] == old.now.plain['python']
    same_processor = all(tensor.equal(old.model[name]) for name, tensor in new.model.items())
    assert distance(weights(new.model), weights(old.model)) < ANOTHER_PROCESSOR

    resume(unfinished, data, quiet)
    train(recipe, data, tmp_path/'whole', log=quiet)
    found, expected = (load_file(folder/'model.safetensors') for folder in (unfinished, tmp_path/'whole'))
    assert distance(weights(found), weights(expected)) < ANOTHER_PROCESSOR
    if same_processor:
        assert short_runs.results(unfinished)[:2] == short_runs.results(tmp_path/'whole')[:2]
    assert Run(unfinished).state == 'finished' and Run(unfinished).recipe == recipe


# A run of version 3, which had fewer choices

NEW_SINCE_3 = 'pad_mode', 'label_smoothing', 'average', 'bn_momentum'


def as_in_version_3(record):
    "The content of a recipe.json, or of its beginning, as that version wrote it."
    for name in NEW_SINCE_3: del record['recipe'][name]
    record.pop('winograd', None)
    if 'chosen' in record: del record['chosen']['winograd']
    record['version'] = 3


def test_a_run_that_version_3_began_goes_on(tmp_path, one_thread, count):
    as_then = dict(average=0., label_smoothing=0.)  # what it did
    whole, run = tmp_path/'whole', tmp_path/'run'
    assert short_runs.run(whole, **as_then) == 0
    assert short_runs.run(run, minutes=0, fault=short_runs.StopAt(1, 2), **as_then) == 143
    for path in (run/BEGUN, run/'recipe.json'):
        edit_json(path, as_in_version_3)
        write_json(path, json.loads(path.read_text()))
    forge(run/STATE, lambda tensors, plain: as_in_version_3(plain['record']['record']))
    resume(run, short_runs.few_digits(), log=quiet)
    assert short_runs.results(run)[:2] == short_runs.results(whole)[:2]
    count(['runs of an earlier version'])
