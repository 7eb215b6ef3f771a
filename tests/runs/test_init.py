"Runs that begin with the weights of another one: the last layer new or not, frozen at first, stopped, and refused."
import shutil
from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback
from helpers import assert_sentence, file_names, read_json
from safetensors.torch import load_file
from short_runs import few_digits, recipe

from s8fast.errors import Interrupted
from s8fast.models.weights import weights_digest
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
