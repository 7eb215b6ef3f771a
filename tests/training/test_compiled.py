"A compiled network is looked at as another one: the layer where nan began is named, and autocast is around its call."
import pytest
import torch
from fastai.callback.core import Callback
from short_runs import few_digits
from small_networks import NarrowResNet
from torch import nn

from s8fast.recipe import Recipe
from s8fast.training.learner import get_learner, quiet_unless_interactive
from s8fast.training.nonfinite import StopOnNonFinite
from s8fast.training.one_cycle import fit_one_cycle


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    "`compile` traces the network and compiles nothing."
    compile = nn.Module.compile
    def trace(model, **kwargs): return compile(model, dynamic=False, backend='eager')
    monkeypatch.setattr(nn.Module, 'compile', trace)
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    yield
    torch._dynamo.reset()


def make(**choices):
    short = dict(bs=48, lr_max=1e-3, valid_pct=.2, average=0., device='cpu', precision='fp32', channels_last=False)
    learn = get_learner(Recipe(**{**short, **choices}), few_digits(120, 20), model=NarrowResNet(10))
    quiet_unless_interactive(learn)
    return learn


@pytest.mark.parametrize('compile', [False, True])
def test_the_layer_with_nan_is_named(compile):
    class Poison(Callback):
        def after_train(self): nn.init.constant_(self.model.layer2.conv.weight, float('nan'))
    stop = StopOnNonFinite()
    with pytest.raises(Exception, match='not finite in epoch 1, validation .* is layer2.conv'):
        fit_one_cycle(make(compile=compile), 1, 1e-3, cbs=[stop, Poison()])


def test_autocast_is_around_a_compiled_network():
    seen = []
    class Look(Callback):
        order = 9  # before autocast makes predictions float32
        def after_pred(self): seen.append((self.pred.dtype, torch.is_autocast_enabled('cpu')))
    learn = make(compile=True)
    from s8fast.training.device import Autocast
    learn.add_cb(Autocast(torch.bfloat16))
    fit_one_cycle(learn, 1, 1e-3, cbs=Look())
    assert set(seen) == {(torch.bfloat16, False)}
    assert '_compiled_call_impl' in vars(learn.model) and 'forward' not in vars(learn.model)
