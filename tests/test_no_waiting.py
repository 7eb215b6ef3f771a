"Between an epoch's first and last training step nothing asks the device for a value: on a GPU that would wait for it."
from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback

from s8fast.callbacks import History, StopOnNonFinite
from s8fast.images import digits
from s8fast.one_cycle import fit_one_cycle
from s8fast.recipe import Recipe
from s8fast.learner import get_learner, quiet_unless_interactive

ASKS = 'item tolist cpu numpy __bool__ __float__ __int__ __index__'.split()


class Watch(Callback):
    "Notes which of a tensor's methods that need its value are called while an epoch trains."
    order = -100
    def __init__(self): self.asked, self.on, self.steps = set(), False, 0
    def before_batch(self): self.on = self.training
    def after_batch(self): self.steps += self.training
    def after_train(self): self.on = False

    def patch(self, monkeypatch):
        for name in ASKS:
            def asks(x, *args, name=name, old=getattr(torch.Tensor, name), **kwargs):
                if self.on: self.asked.add(name)
                return old(x, *args, **kwargs)
            monkeypatch.setattr(torch.Tensor, name, asks)


@pytest.fixture
def few():
    d = digits()
    return replace(d, train_images=d.train_images[:200], train_labels=d.train_labels[:200], test_images=d.test_images[:20], test_labels=d.test_labels[:20])


def watched(learn, monkeypatch, *cbs):
    watch = Watch()
    watch.patch(monkeypatch)
    fit_one_cycle(learn, 1, 1e-3, cbs=[watch, History(), StopOnNonFinite(), *cbs])
    assert watch.steps == len(learn.dls.train)
    return watch.asked


def make(few, monkeypatch):
    monkeypatch.setattr('s8fast.callbacks._waits', lambda device: True)  # as if the CPU were a GPU, where Winograd's convolutions are not used
    learn = get_learner(Recipe(bs=32, lr_max=1e-3, precision='fp32', winograd=False, device='cpu', valid_pct=.1), few)
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)  # a bar asks for the loss at each step
    quiet_unless_interactive(learn)
    return learn


def test_no_step_asks_for_a_value(few, monkeypatch):
    assert watched(make(few, monkeypatch), monkeypatch) == set()


def test_the_watch_notices(few, monkeypatch):
    class Asks(Callback):
        def after_batch(self): self.loss.item()
    assert watched(make(few, monkeypatch), monkeypatch, Asks()) == {'item'}


def test_the_running_loss_of_fastai_would_ask(few, monkeypatch):
    learn = make(few, monkeypatch)
    learn.remove_cbs([o for o in learn.cbs if type(o).__name__ == 'LossOnDevice'])
    assert 'cpu' in watched(learn, monkeypatch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_no_step_waits_for_the_gpu(few, monkeypatch):
    class Strict(Callback):
        "PyTorch raises at whatever waits for the device, from the first step to the last."
        order = -100
        def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training else 'default')
        def after_train(self): torch.cuda.set_sync_debug_mode('default')
        after_cancel_train = after_train
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    learn = get_learner(Recipe(bs=32, lr_max=1e-3, precision='fp32', device='cuda', valid_pct=.1), few)
    quiet_unless_interactive(learn)
    try: fit_one_cycle(learn, 1, 1e-3, cbs=[Strict(), History()])
    finally: torch.cuda.set_sync_debug_mode('default')
