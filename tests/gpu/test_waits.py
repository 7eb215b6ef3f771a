"No training step waits for the device, in any precision, with or without fastai's bar."
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientClip
from short_runs import few_digits
from small_networks import NarrowResNet

from s8fast.recipe import Recipe
from s8fast.training.history import History
from s8fast.training.learner import computing, get_learner, quiet_unless_interactive
from s8fast.training.nonfinite import StopOnNonFinite
from s8fast.training.one_cycle import fit_one_cycle

PRECISIONS = 'fp32', 'bf16', 'fp16'


def make(precision='fp32', interactive=False, **choices):
    "A Learner with a narrow ResNet on the device."
    short = dict(bs=14, lr_max=1e-3, valid_pct=.2, device='cuda', precision=precision)
    recipe = Recipe(**{**short, **choices})
    torch.manual_seed(0)
    learn = get_learner(recipe, few_digits(50, 10), model=NarrowResNet(10))
    if interactive: learn.recorder.train_metrics = True
    else: quiet_unless_interactive(learn)
    return learn


def fit(learn, *callbacks, n_epoch=2):
    fit_one_cycle(learn, n_epoch, 1e-3, cbs=[History(), StopOnNonFinite(), *callbacks])
    return learn


@pytest.mark.parametrize('precision', PRECISIONS)
def test_no_step_waits(gpu, no_waits, precision, monkeypatch):
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    fit(make(precision), no_waits)
    assert no_waits.steps == 6


def test_no_step_waits_with_a_bar(gpu, no_waits):
    learn = make(interactive=True)
    learn.progress.looked = float('inf')  # the bar's looks at the loss are allowed to wait
    fit(learn, no_waits)
    assert no_waits.steps == 6 and len(learn.recorder.values[-1]) == 4


def test_nothing_is_sent_to_the_device_in_a_step(gpu):
    if gpu is None: pytest.skip('a real GPU keeps no log')
    class Watch(Callback):
        sent = ()
        def before_batch(self): self.n = len(gpu.events)
        def after_batch(self): self.sent = (*self.sent, *gpu.events[self.n:]) if self.training else self.sent
    watch = Watch()
    fit(make(), watch)
    assert watch.sent == ()


def test_a_wait_is_noticed(gpu, no_waits):
    class Asks(Callback):
        def after_batch(self): self.loss.item()
    with pytest.raises(RuntimeError): fit(make(), no_waits, Asks())


@pytest.mark.slow
def test_float16_ends_with_the_weights_of_fastais_mixed_precision(gpu, monkeypatch):
    def weights(fastais):
        learn = make('fp16', deterministic=True)
        if fastais: monkeypatch.setattr(type(learn.float16), 'before_step', MixedPrecision.before_step)
        with computing(Recipe(deterministic=True)): fit(learn)
        monkeypatch.undo()
        return [value.cpu() for value in learn.model.state_dict().values()]
    for ours, theirs in zip(weights(False), weights(True), strict=True): assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_float16_lets_gradients_be_clipped(gpu, monkeypatch):
    "fastai's GradientClip unscales them first, which the fused step would come before."
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    norms = []
    class Look(Callback):
        order = 12  # after GradientClip
        def before_step(self): norms.append(torch.cat([p.grad.ravel() for p in self.model.parameters()]).norm().item())
    learn = make('fp16', average=0.)
    learn.float16.kwargs['init_scale'] = 256.
    fit(learn, GradientClip(.01), Look(), n_epoch=1)
    assert len(norms) == 3 and max(norms) < .0101


@pytest.mark.slow
def test_float16_leaves_out_a_step_that_overflows(gpu, monkeypatch):
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    scales = []
    class Watch(Callback):
        order = 20  # after the scaler's update
        def before_backward(self):
            if self.train_iter == 1: self.learn.loss_grad = self.loss_grad*1e38
            self.before = self.model.fc.weight.detach().clone()
        def after_step(self): scales.append((self.scaler.get_scale(), self.model.fc.weight.equal(self.before)))
    learn = make('fp16', average=0.)
    learn.float16.kwargs['init_scale'] = 256.
    fit(learn, Watch(), n_epoch=1)
    assert [same for _, same in scales] == [False, True, False]
    assert scales[1][0] == scales[0][0]/2


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_no_float64_on_the_device(gpu, precision):
    "An MPS device has none, and a GPU is slow with it."
    if gpu is None: pytest.skip('a real GPU keeps no log')
    fit(make(precision))
    assert [event for event in gpu.events if event.kind == 'float64'] == []
