"A run folder brought to a processor that lacks what the run was computed with."
from dataclasses import replace

import pytest
import runs
import torch

from s8fast.callbacks import Autocast
from s8fast.checkpoint import Checkpoint, Interrupted
from s8fast.files import S8FastError
from s8fast.learner import load_run
from s8fast.training import resume, train


@pytest.fixture
def has_bf16(monkeypatch):
    "Says whether this processor has bfloat16, whatever is true; without it PyTorch computes the same, slowly."
    def has_bf16(there): monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx512_bf16=there), raising=False)
    return has_bf16


def test_a_bf16_run_without_bf16(has_bf16, monkeypatch, tmp_path):
    monkeypatch.setattr(Checkpoint, '_write', Checkpoint._write)  # is put back after StopAt
    out, data = tmp_path/'run', runs.few_digits()
    data = replace(data, train_images=data.train_images[:100], train_labels=data.train_labels[:100])
    def quiet(line): pass
    def is_bf16(): return any(isinstance(o, Autocast) for o in load_run(out, data, 'cpu')[0].cbs)
    has_bf16(True)
    runs.StopAt(0, 1).install()
    with pytest.raises(Interrupted): train(runs.recipe(precision='auto', epochs=1), data, out, log=quiet, checkpoint_minutes=0)

    has_bf16(False)
    before = {o: o.read_bytes() for o in out.rglob('*') if o.is_file()}
    with pytest.raises(S8FastError, match='begun in bf16, for which this cpu has no hardware'): resume(out, data, quiet)
    assert {o: o.read_bytes() for o in out.rglob('*') if o.is_file()} == before

    has_bf16(True)
    resume(out, data, quiet)
    assert is_bf16()
    has_bf16(False)
    assert not is_bf16()
