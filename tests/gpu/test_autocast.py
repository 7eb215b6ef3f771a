"Whatever ends a forward pass, autocast is off afterwards, and the next run in float32 computes in float32."
import pytest
import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from short_runs import few_digits
from small_networks import NarrowResNet

from s8fast.recipe import Recipe
from s8fast.training.learner import get_learner, quiet_unless_interactive
from s8fast.training.one_cycle import fit_one_cycle


class Stumbles(NarrowResNet):
    "Raises in its first forward pass."
    def __init__(self, error):
        super().__init__(10)
        self.error = error

    def forward(self, x):
        error, self.error = self.error, None
        if error: raise error
        return super().forward(x)


def make(precision, model):
    recipe = Recipe(bs=20, lr_max=1e-3, valid_pct=.2, device='cuda', precision=precision, average=0.)
    learn = get_learner(recipe, few_digits(50, 10), model=model)
    quiet_unless_interactive(learn)
    return learn


def dtypes_of_a_fit(learn):
    seen = set()
    def note(layer, args, output): seen.add(output.dtype)
    with learn.model.layer2.conv.register_forward_hook(note): fit_one_cycle(learn, 1, 1e-3)
    return seen


ERRORS = {'Ctrl-C': KeyboardInterrupt, 'cancelled batch': CancelBatchException,
          'out of memory': lambda: torch.cuda.OutOfMemoryError('CUDA out of memory')}


@pytest.mark.parametrize('precision', [pytest.param('fp16', marks=pytest.mark.slow), 'bf16'])
@pytest.mark.parametrize('name', ERRORS)
def test_a_forward_pass_that_is_broken_off(gpu, monkeypatch, precision, name):
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    error = ERRORS[name]()
    learn = make(precision, Stumbles(error))
    try: fit_one_cycle(learn, 1, 1e-3)
    except BaseException as raised: assert raised is error
    assert not torch.is_autocast_enabled('cuda')
    assert dtypes_of_a_fit(make('fp32', learn.model)) == {torch.float32}
    half = torch.float16 if precision == 'fp16' else torch.bfloat16
    assert dtypes_of_a_fit(make(precision, learn.model)) == {half}
    assert 'forward' not in vars(learn.model)


def test_a_batch_that_is_given_up_before_the_network(gpu, monkeypatch):
    "Nothing is left on the network for its next call."
    monkeypatch.setattr('sys.stdout.isatty', lambda: False)
    class GivesUp(Callback):
        order = 11  # after autocast is prepared
        def before_batch(self): raise CancelFitException
    learn = make('bf16', Stumbles(None))
    fit_one_cycle(learn, 1, 1e-3, cbs=GivesUp())
    assert 'forward' not in vars(learn.model)
