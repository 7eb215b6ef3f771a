"`s8fast_labels`: the list for a run's test images and, by folds, for the training images; the report; refused."
import csv
import importlib.util
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from helpers import ON_CPU, assert_sentence, draw_data, file_names, names, read_json, write_folders

from short_runs import few_digits, recipe

from s8fast.data.dataset import load_data
from s8fast.errors import Interrupted
from s8fast.runs.folds import fold_indices, train_folds

FAST = '--model', 'ultimus', '--epochs', 1, '--lr_max', 3e-3, *ON_CPU[:-2], '--valid_pct', 0.25


@pytest.fixture
def labels(call_command, png):
    def labels(*args): return call_command('s8fast_labels', *args, '--data', png, '--device', 'cpu')
    return labels


@pytest.fixture
def without_cleanlab(monkeypatch):
    find = importlib.util.find_spec
    def find_others(name, *more): return None if name == 'cleanlab' else find(name, *more)
    monkeypatch.setattr(importlib.util, 'find_spec', find_others)


def rows_of(folder):
    with (folder/'labels.csv').open(newline='') as f: return list(csv.DictReader(f))


def test_the_list_of_a_run(labels, run, png, tmp_path):
    done = labels(run)
    assert done.returncode == 0, done.stderr
    rows, data = rows_of(run), load_data(png)
    assert rows and done.stdout.startswith(f'{len(rows)} of 20 labels of the test images may be wrong: {run}/labels')
    for row in rows:
        assert data.vocab[data.test_labels[int(row['index'])]] == row['label'] != row['guess']
        assert float(row['label_probability']) <= float(row['guess_probability'])
    shares = [float(row['label_probability']) for row in rows]
    assert shares == sorted(shares) and (run/'labels.png').read_bytes()[:4] == b'\x89PNG'
    (tmp_path/'other').mkdir()
    assert labels(run, '--out', tmp_path/'other').returncode == 0
    assert rows_of(tmp_path/'other') == rows


def test_the_report_without_cleanlab(call_command, run, png, without_cleanlab):
    done = call_command('s8fast_report', run, '--data', png, '--device', 'cpu')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 's8fast[labels]' in (run/'report.html').read_text() and not (run/'labels.png').exists()


def test_folds(call_command, labels, png, tmp_path):
    out = tmp_path/'labels'
    done = labels('--folds', 2, '--out', out, *FAST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f'{out}/labels.csv lists them, labels.png shows the first 25')
    data, rows = load_data(png), rows_of(out)
    for i, fold in enumerate(fold_indices(data.train_labels, 2)):
        record, metrics = read_json(out/f'fold{i}'/'recipe.json'), read_json(out/f'fold{i}'/'metrics.json')
        assert record['data']['n_train'] + record['data']['n_valid'] == 40 and metrics['test']['n'] == len(fold) == 40
    for row in rows: assert data.vocab[data.train_labels[int(row['index'])]] == row['label'] != row['guess']
    # the first is kept, and the second, which is gone, made again
    before = {path: path.read_bytes() for path in (out/'fold0').iterdir()}
    shutil.rmtree(out/'fold1')
    again = labels('--folds', 2, '--out', out, *FAST)
    assert again.returncode == 0 and 'fold 1 of 2: is there already' in again.stdout, again.stderr
    assert before == {path: path.read_bytes() for path in (out/'fold0').iterdir()} and rows_of(out) == rows
    # another recipe, other folds, other images
    there = file_names(out)
    for args, said in ((('--folds', 2, '--epochs', 2), 'another recipe (epochs: 1, 2)'),
                       (('--folds', 4), 'trained on other data (training images: 40, 60')):
        refused = labels('--out', out, *FAST, *args)
        assert refused.returncode == 2 and said in refused.stderr and '--out' in refused.stderr, refused.stderr
    other = write_folders(tmp_path/'data', {part: (255 - images, labels)
                                            for part, (images, labels) in draw_data().items()})
    refused = call_command('s8fast_labels', '--folds', 2, '--out', out, *FAST, '--data', other, '--device', 'cpu')
    assert refused.returncode == 2 and 'trained on other data' in refused.stderr
    assert file_names(out) == there
    # anew, when asked to
    forced = labels('--folds', 2, '--out', out, *FAST, '--force')
    assert forced.returncode == 0 and 'already' not in forced.stdout and rows_of(out) == rows


def test_bad_input(call_command, labels, run, png, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = names(tmp_path)
    def refused(*args, said): assert_sentence(labels(*args), 's8fast_labels', said)
    refused(said='name a run folder, or --folds')
    refused(tmp_path/'none', said='no run folder')
    refused('pretrained:ultimus', said='no run folder')
    refused(run, '--out', tmp_path/'none', said='is no folder')
    refused(run, '--folds', 2, said='plays no part with --folds')
    refused(run, '--epochs', 2, said='--epochs plays no part without --folds')
    refused(run, '--force', said='--force plays no part without --folds')
    refused('--folds', 'x', said="'x'")
    refused('--folds', 1, said='folds=1')
    refused('--folds', 9, said='8 training images')
    refused('--folds', 2, '--out', run, said='is a run folder itself')
    refused('--folds', 2, '--bs', 0, said='bs=0')
    (tmp_path/'mine'/'fold1').mkdir(parents=True)
    (tmp_path/'mine'/'fold1'/'notes.txt').write_text('mine')
    refused('--folds', 2, '--out', tmp_path/'mine', *FAST, said='not empty')
    shutil.rmtree(tmp_path/'mine')
    (tmp_path/'file').write_text('mine')
    refused('--folds', 2, '--out', tmp_path/'file', *FAST, said='file')
    (tmp_path/'file').unlink()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for args in ([run], ['--folds', 2]):
        done = call_command('s8fast_labels', *args, '--data', png, '--device', 'cuda')
        assert_sentence(done, 's8fast_labels', '0 CUDA devices')
    assert names(tmp_path) == before


def test_without_cleanlab(labels, run, tmp_path, monkeypatch, without_cleanlab):
    monkeypatch.chdir(tmp_path)
    before = names(tmp_path)
    for args in ([run], ['--folds', 2, *FAST]):
        assert_sentence(labels(*args), 's8fast_labels', "pip install 's8fast[labels]'")
    assert names(tmp_path) == before


def test_a_class_of_which_there_are_few():
    labels = np.repeat([0, 1], [9, 3])
    assert [len(fold) for fold in fold_indices(labels, 3)] == [4, 4, 4]
    assert all((labels[fold] == 1).sum() == 1 for fold in fold_indices(labels, 3))


def test_a_fold_that_was_stopped_goes_on(tmp_path, one_thread):
    data, short = few_digits(), recipe(valid_pct=.2)
    def stop(line):
        if 'epoch  1/2' in line: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match='fold0: the same command goes on from there') as stopped:
        list(train_folds(short, 2, data, tmp_path, log=stop))
    assert stopped.value.signum == signal.SIGTERM and (tmp_path/'fold0'/'checkpoint'/'state.safetensors').exists()
    lines = []
    assert len(list(train_folds(short, 2, data, tmp_path, log=lines.append))) == 2
    assert any('goes on after epoch 1 of 2' in line for line in lines), lines
