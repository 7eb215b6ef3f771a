"A checkpoint's file: read back as it was written, and never believed when it was changed."
import pytest
import torch
from forging import read_parts, write_parts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s8fast.errors import S8FastError
from s8fast.training.checkpoint import CHECKPOINT_VERSION, Checkpoint, Generators, Progress
from s8fast.training.checkpoint import read_checkpoint, write_checkpoint

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some_checkpoint():
    "Small, with something in every part."
    progress = Progress(torch.tensor([2.5, 2.]), torch.tensor([.1, .2], dtype=torch.float64), torch.tensor(2.2), 2, [2],
                        [[2., 2.1, None]])
    now = Generators({'torch': torch.arange(4, dtype=torch.uint8)}, dict(python=[3, [1, 2], None]))
    return Checkpoint(model={'fc.weight': torch.arange(6.).reshape(2, 3)}, optimizer={0: {'exp_avg': torch.ones(2, 3)}},
                      progress=progress, now=now, begin=None, batches=0, seconds=1.5, record=dict(id='x'),
                      callbacks=dict(history=({'loss': torch.tensor(3.)}, dict(rows=[1, 2]))))


def test_it_is_read_back(tmp_path):
    written = some_checkpoint()
    write_checkpoint(tmp_path/'state', written)
    found = read_checkpoint(tmp_path/'state')
    assert found.model['fc.weight'].equal(written.model['fc.weight'])
    assert found.optimizer[0]['exp_avg'].equal(torch.ones(2, 3))
    assert found.progress.values == written.progress.values and found.progress.lrs.equal(written.progress.lrs)
    assert found.now.plain == written.now.plain and found.begin is None and found.scaler is None
    assert (found.batches, found.seconds, found.record, found.rows) == (0, 1.5, dict(id='x'), [1, 2])


def test_there_is_none(tmp_path): assert read_checkpoint(tmp_path/'state') is None


def test_one_of_a_later_version(tmp_path):
    write_checkpoint(tmp_path/'state', some_checkpoint())
    tensors, plain = read_parts(tmp_path/'state')
    write_parts(tmp_path/'state', tensors, {**plain, 'version': CHECKPOINT_VERSION + 1})
    with pytest.raises(S8FastError, match=f'version {CHECKPOINT_VERSION + 1}'): read_checkpoint(tmp_path/'state')


@MANY
@given(st.data())
def test_one_that_was_changed_is_never_believed(tmp_path, data):
    path = tmp_path/'state'
    tensors = dict(x=torch.arange(6.).reshape(2, 3), n=torch.tensor(3))
    plain = dict(version=CHECKPOINT_VERSION, rows=[1, 2.5])
    write_parts(path, tensors, plain)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[:data.draw(st.integers(0, len(raw)))])
    try: found, rest = read_parts(path)
    except S8FastError as error: assert str(path) in str(error)
    else:
        assert rest == plain and found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
