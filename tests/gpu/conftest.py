"A GPU for the tests of this folder: a real one where there is one, a pretended one in the process that is made for it."
import os
import sys
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback

HERE = Path(__file__).parent
PRETEND = 'S8FAST_PRETEND_CUDA'  # set by tests/pretend_cuda, in whose process the driver is pretended too


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents: item.add_marker(pytest.mark.gpu)


@pytest.fixture
def gpu():
    "The log of what waited on a pretended device, which has no entry on a real one."
    if os.environ.get(PRETEND):
        sys.path.insert(0, str(HERE.parent/'pretend_cuda'))
        from device import pretend
        with pretend() as log: yield log
    elif torch.cuda.is_available(): yield None
    else: pytest.skip('there is no CUDA device; tests/pretend_cuda runs this on a pretended one')


class NoWaits(Callback):
    "A training step that waits for the device raises."
    order = -100

    def before_fit(self): self.steps = 0

    def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training else 'default')

    def after_train(self): torch.cuda.set_sync_debug_mode('default')

    def after_batch(self): self.steps += self.training

    after_cancel_train = after_train
    after_cancel_fit = after_train


@pytest.fixture
def no_waits():
    yield NoWaits()
    torch.cuda.set_sync_debug_mode('default')
