"Runs that begin with the weights of another one: the last layer new or not, frozen at first, stopped, and refused."
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback
from helpers import assert_sentence, file_names, read_json
from safetensors.torch import load_file
from short_runs import few_digits, recipe
from torch import nn

from s8fast.errors import Interrupted, S8FastError
from s8fast.models.own import add_network
from s8fast.models.weights import weights_digest
from s8fast.models.zoo import MODELS
from s8fast.runs.train import resume, train
from s8fast.runs.trained import load_network
from s8fast.training.checkpoint_callback import SaveCheckpoint

HEAD = {'fc.weight', 'fc.bias'}  # the last layer of ULTIMUS


def quiet(line): pass


@pytest.fixture(scope='module')
def base(once):
    "A finished run on a few digits."
    return once('base_for_init', lambda folder: train(recipe(), few_digits(), folder, log=quiet))


@pytest.fixture
def parity():
    "The digits with two classes, odd and even."
    data = few_digits()
    return replace(data, name='parity', train_labels=data.train_labels % 2, test_labels=data.test_labels % 2,
                   vocab=('even', 'odd'))


def weights(run): return load_file(run/'model.safetensors')


def still(**choices):
    "A recipe whose body hardly moves: one epoch, at the lowest of rates."
    return recipe(epochs=2, lr_max=1e-12, wd=0., average=0., **choices)


def test_what_is_taken_and_what_is_new(base, parity, tmp_path):
    lines = []
    train(still(init=str(base)), parity, tmp_path/'other', log=lines.append)
    assert f'begins with the weights of {base}, with a new last layer (fc.weight, fc.bias)' in lines
    before, after = weights(base), weights(tmp_path/'other')
    for name, tensor in after.items():
        if name in HEAD: assert tensor.shape != before[name].shape
        elif 'running' not in name and tensor.is_floating_point():
            assert torch.allclose(tensor, before[name], atol=1e-8), name
    began = weights_digest(load_network(base, 'cpu').model)
    assert read_json(tmp_path/'other'/'recipe.json')['chosen']['init'] == began


def test_the_same_classes_keep_the_last_layer(base, tmp_path):
    lines = []
    train(still(init=str(base)), few_digits(), tmp_path/'same', log=lines.append)
    assert f'begins with the weights of {base}, its last layer too' in lines
    for name in HEAD: assert torch.allclose(weights(tmp_path/'same')[name], weights(base)[name], atol=1e-8)
    train(still(), few_digits(), tmp_path/'new', log=quiet)
    assert not torch.allclose(weights(tmp_path/'new')['fc.weight'], weights(base)['fc.weight'], atol=1e-2)
    assert 'init' not in read_json(tmp_path/'new'/'recipe.json')['chosen']


@pytest.mark.parametrize('stop_at', [2, 7])
def test_stopped_while_the_body_is_frozen_or_afterwards(base, parity, tmp_path, monkeypatch, stop_at):
    "Five steps an epoch, the first of which trains the last layer alone."
    frozen = recipe(init=str(base), freeze_epochs=1)
    train(frozen, parity, tmp_path/'whole', log=quiet)
    steps, real = [], SaveCheckpoint.after_batch
    def after_batch(self):
        real(self)
        steps.append(1)
        if self.training and len(steps) == stop_at: raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoint, 'after_batch', after_batch)
        with pytest.raises(Interrupted): train(frozen, parity, tmp_path/'run', log=quiet, checkpoint_minutes=0)
    resume(tmp_path/'run', parity, log=quiet)
    whole, resumed = weights(tmp_path/'whole'), weights(tmp_path/'run')
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_frozen_layers_do_not_decay(base, parity, tmp_path):
    "As long as the body is frozen, neither gradients nor weight decay change it."
    short = recipe(init=str(base), freeze_epochs=1, epochs=2, lr_max=1e-2, wd=10., average=0.)
    seen = []
    class Look(Callback):
        def after_epoch(self): seen.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
    train(short, parity, tmp_path/'run', log=quiet, cbs=[Look()])
    before = weights(base)
    norms = {name for name in before if '.norm' in name or 'bn' in name}
    body = {name for name in seen[0] if name not in HEAD and name.endswith('weight') and before[name].ndim > 1}
    assert len(body) > 5 and not body & norms
    assert all(torch.equal(seen[0][name], before[name]) for name in body)
    assert not any(torch.equal(seen[1][name], before[name]) for name in body)


class Body(nn.Module):
    "A network with the attributes `body` and `n`; its head has a row of logits more for every eight classes."
    def __init__(self, n_classes, step=1):
        super().__init__()
        self.n, rows = n_classes, -(-n_classes//step)*step
        self.stem = nn.Conv2d(3, 4, 3, stride=4)
        self.body = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        self.head = nn.Linear(4, rows)

    def forward(self, x): return self.head(self.body(self.stem(x)).mean((2, 3)))[:, :self.n]


@pytest.fixture
def own():
    "Networks of one's own, for this test."
    before = dict(MODELS)
    for name, step in (('plain', 1), ('padded', 8)): add_network(partial(Body, step=step), name)
    yield
    for name in MODELS.keys() - before: del MODELS[name]


@pytest.mark.usefixtures('own')
@pytest.mark.filterwarnings('error:You are shadowing')
def test_a_network_whose_attributes_have_the_names_of_ours(parity, tmp_path):
    train(recipe(model='plain'), few_digits(), tmp_path/'base', log=quiet)
    learns = []
    class Look(Callback):
        def before_batch(self): learns.append({k for k, p in self.model.named_parameters() if p.requires_grad})
    begun = recipe(model='plain', init=str(tmp_path/'base'), freeze_epochs=1)
    train(begun, parity, tmp_path/'run', log=quiet, cbs=[Look()])
    frozen = {'body.0.weight', 'body.0.bias', 'head.weight', 'head.bias'}
    assert learns[0] == frozen and learns[-1] == frozen | {f'{o}.{k}' for o in ('stem', 'body.1') for k in
                                                           ('weight', 'bias')}


@pytest.mark.usefixtures('own')
def test_a_last_layer_that_cannot_be_told(parity, tmp_path):
    train(recipe(model='padded'), few_digits(), tmp_path/'base', log=quiet)
    other = replace(few_digits(), vocab=tuple('abcdefghijkl'))
    begun = recipe(model='padded', init=str(tmp_path/'base'))
    with pytest.raises(S8FastError, match='Which layer of padded is the last one'):
        train(begun, other, tmp_path/'run', log=quiet)
    assert not (tmp_path/'run').exists()
    lines = []
    train(begun, parity, tmp_path/'fewer', log=lines.append)  # there the shapes differ
    assert [line for line in lines if 'new last layer (head.weight, head.bias)' in line]


def test_a_relative_path_is_of_the_folder_where_the_run_began(base, tmp_path, monkeypatch):
    "Stopped before there is a record, resumed where another run has that name."
    (tmp_path/'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path/'base').symlink_to(base)
    train(recipe(seed=3), few_digits(), tmp_path/'elsewhere'/'base', log=quiet)
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr('s8fast.runs.train.begin_with', stop)
        with pytest.raises(Interrupted): train(recipe(init='base'), few_digits(), tmp_path/'run', log=quiet)
    monkeypatch.chdir(tmp_path/'elsewhere')
    resume(tmp_path/'run', few_digits(), log=quiet)
    began = weights_digest(load_network(base, 'cpu').model)
    assert read_json(tmp_path/'run'/'recipe.json')['chosen']['init'] == began


def test_a_study_and_folds_are_refused_before_they_train(call_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'study.toml').write_text('[base]\nmodel = "ultimus"\n[arms.late]\ninit = "nowhere"\n')
    done = call_command('s8fast_study', 'study.toml', '--data', 'digits', '--seeds', 0, '--out', 'study')
    assert_sentence(done, 's8fast_study', "runs of 'late' cannot begin", 'nowhere is no run folder')
    done = call_command('s8fast_labels', '--folds', 2, '--data', 'digits', '--model', 'ultimus', '--init',
                        'pretrained:ultimus', '--out', 'folds')
    assert_sentence(done, 's8fast_labels', 'may have seen the images that a fold holds out')
    assert file_names(tmp_path) == ['study.toml']


def test_commands(call_command, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ('--data', 'digits', '--model', 'ultimus', '--bs', 256, '--device', 'cpu', '--init', base)
    done = call_command('s8fast_lr_find', *short, '--num_it', 10)
    assert done.returncode == 0 and f'begins with the weights of {base}, its last layer too' in done.stdout, done.stderr
    done = call_command('s8fast_train', *short, '--epochs', 2, '--freeze_epochs', 1, '--lr_max', 1e-3,
                        '--out', 'run', '--no_report')
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path/'run'/'recipe.json')['recipe']
    assert (found['init'], found['freeze_epochs']) == (str(base), 1)


REFUSED = [
    (('--init', 'nowhere'), 'nowhere is no run folder'),
    (('--init', 'pretrained:none'), "no pretrained network 'none'"),
    (('--init', 'pretrained:custom_resnet'), 'trains ultimus: give --model custom_resnet'),
    (('--freeze_epochs', 1), 'give init too'), (('--init', ''), 'no run folder'),
    (('--init', 'pretrained:ultimus', '--freeze_epochs', 2), 'give less than 2'),
    (('--init', 'pretrained:ultimus', '--freeze_epochs', -1), 'freeze_epochs=-1')]

@pytest.mark.parametrize('options, says', REFUSED)
def test_refused(call_command, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    train = '--data', 'digits', '--model', 'ultimus', '--epochs', 2, '--out', 'run'
    assert_sentence(call_command('s8fast_train', *train, *options), 's8fast_train', says)
    assert file_names(tmp_path) == []


def test_weights_that_are_damaged(call_command, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path/'spoilt')
    before = file_names(tmp_path)
    path = tmp_path/'spoilt'/'model.safetensors'
    path.write_bytes(path.read_bytes()[:-4])
    done = call_command('s8fast_train', '--data', 'digits', '--model', 'ultimus', '--init', 'spoilt', '--out', 'run')
    assert_sentence(done, 's8fast_train', 'model.safetensors')
    assert file_names(tmp_path) == before
