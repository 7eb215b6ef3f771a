"Between an epoch's first and last training step nothing asks the device for a value: on a GPU that would wait for it."
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from short_runs import few_digits
from small_networks import NarrowResNet

from s8fast.recipe import Recipe
from s8fast.training.history import History
from s8fast.training.learner import get_learner, quiet_unless_interactive
from s8fast.training.nonfinite import StopOnNonFinite
from s8fast.training.one_cycle import fit_one_cycle
from s8fast.training.recorder import _SmoothLoss

ASKS = 'item tolist cpu numpy __bool__ __float__ __int__ __index__'.split()


class Watch(Callback):
    "Notes which of a tensor's methods that need its value are called while an epoch trains."
    order = -100

    def __init__(self):
        self.asked = set()
        self.on = False
        self.steps = 0

    def before_batch(self): self.on = self.training
    def after_batch(self): self.steps += self.training
    def after_train(self): self.on = False

    def patch(self, monkeypatch):
        for name in ASKS: monkeypatch.setattr(torch.Tensor, name, self.watched(name, getattr(torch.Tensor, name)))

    def watched(self, name, method):
        def asks(tensor, *args, **kwargs):
            if self.on: self.asked.add(name)
            return method(tensor, *args, **kwargs)
        return asks


def watched(learn, monkeypatch, *callbacks):
    "What is asked for in one epoch."
    watch = Watch()
    watch.patch(monkeypatch)
    fit_one_cycle(learn, 1, 1e-3, cbs=[watch, History(), StopOnNonFinite(), *callbacks])
    assert watch.steps == len(learn.dls.train)
    return watch.asked


@pytest.fixture
def learn(monkeypatch):
    "A narrow ResNet on a CPU that is taken for a GPU, where Winograd's convolutions are not used."
    for module in ('recorder', 'nonfinite'):
        monkeypatch.setattr(f's8fast.training.{module}.reading_waits', lambda device: True)
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)  # a bar asks for the loss at each step
    recipe = Recipe(bs=16, lr_max=1e-3, precision='fp32', device='cpu', valid_pct=.2)
    learn = get_learner(recipe, few_digits(80, 10), model=NarrowResNet(10), winograd=False)
    quiet_unless_interactive(learn)
    return learn


def test_no_step_asks_for_a_value(learn, monkeypatch):
    assert watched(learn, monkeypatch) == set()


def test_the_watch_notices(learn, monkeypatch):
    class Asks(Callback):
        def after_batch(self): self.loss.item()
    assert watched(learn, monkeypatch, Asks()) == {'item'}


def test_the_running_loss_of_fastai_would_ask(learn, monkeypatch):
    learn.remove_cbs([callback for callback in learn.cbs if type(callback).__name__ == 'LossOnDevice'])
    assert 'cpu' in watched(learn, monkeypatch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_no_step_waits_for_the_gpu(monkeypatch):
    class Strict(Callback):
        "PyTorch raises at whatever waits for the device, from the first step to the last."
        order = -100
        def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training else 'default')
        def after_train(self): torch.cuda.set_sync_debug_mode('default')
        after_cancel_train = after_train
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    recipe = Recipe(bs=32, lr_max=1e-3, precision='fp32', device='cuda', valid_pct=.1)
    learn = get_learner(recipe, few_digits(200, 20))
    quiet_unless_interactive(learn)
    try: fit_one_cycle(learn, 1, 1e-3, cbs=[Strict(), History()])
    finally: torch.cuda.set_sync_debug_mode('default')


def test_a_first_loss_that_is_not_on_the_device(monkeypatch):
    "fastai's loss is a zero on the CPU until a batch was computed; a callback may cancel the first one."
    devices = []
    monkeypatch.setattr(torch, 'lerp', lambda loss, mean, weight: devices.extend([loss.device.type, mean.device.type]))
    mean = _SmoothLoss(torch.device('meta'))
    mean.reset()
    mean.accumulate(SimpleNamespace(loss=torch.tensor(0.)))
    assert devices == ['meta', 'meta']
