"A run folder brought to a processor that lacks what the run was computed with."
from dataclasses import asdict

import pytest
import short_runs
import torch
from small_networks import NarrowResNet

from s8fast.errors import Interrupted, S8FastError
from s8fast.files import write_json
from s8fast.interpret.report import write_report
from s8fast.models.winograd import WinogradConv2d, transforms, winograd_available, winograd_layers
from s8fast.models.zoo import MODELS, Network
from s8fast.runs.evaluate import load_run
from s8fast.runs.folder import BEGUN, STATE, open_run
from s8fast.runs.record import RECIPE_VERSION, read_record
from s8fast.runs.train import resume, train
from s8fast.training.checkpoint import read_checkpoint
from s8fast.training.checkpoint_callback import SaveCheckpoint
from s8fast.training.device import Autocast

needs_winograd = pytest.mark.skipif(not winograd_available(), reason='no C compiler, or not x86-64')


def quiet(line): pass


@pytest.fixture
def has_bf16(monkeypatch):
    "Says whether this processor has bfloat16, whatever is true; without it PyTorch computes the same, slowly."
    def has_bf16(there):
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx512_bf16=there), raising=False)
    return has_bf16


@pytest.fixture
def stop_at(monkeypatch):
    "`stop_at(epoch, step, run, args...)`: call `run`, which is stopped there."
    write = SaveCheckpoint.write
    def stop_at(epoch, step, run, *args, **kwargs):
        monkeypatch.setattr(SaveCheckpoint, 'write', write)
        short_runs.StopAt(epoch, step).install()
        with pytest.raises(Interrupted): run(*args, checkpoint_minutes=0, **kwargs)
        monkeypatch.setattr(SaveCheckpoint, 'write', write)
    return stop_at


@pytest.fixture
def narrow(monkeypatch):
    "The name of the custom ResNet stands for the narrow one."
    monkeypatch.setitem(MODELS, 'custom_resnet', Network(NarrowResNet, 'layer3'))


def contents(out): return {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}


def is_bf16(out, data): return any(isinstance(callback, Autocast) for callback in load_run(out, data, 'cpu')[0].cbs)


# Precision

def test_a_bf16_run_without_bf16(has_bf16, stop_at, tmp_path):
    out, data = tmp_path/'run', short_runs.few_digits(100)
    has_bf16(True)
    stop_at(0, 1, train, short_runs.recipe(precision='auto', epochs=1), data, out, log=quiet)

    has_bf16(False)
    before = contents(out)
    with pytest.raises(S8FastError, match='begun in bf16, for which this cpu has no hardware'): resume(out, data, quiet)
    assert contents(out) == before

    has_bf16(True)
    resume(out, data, quiet)
    assert is_bf16(out, data)
    has_bf16(False)
    assert not is_bf16(out, data)


def test_it_goes_on_in_another_precision_when_asked(has_bf16, stop_at, narrow, tmp_path):
    "Said, recorded, and from then on the run's own: a further stop, and a kill before a checkpoint, change nothing."
    out, data, lines = tmp_path/'run', short_runs.few_digits(), []
    recipe = short_runs.recipe(precision='auto', model='custom_resnet')
    has_bf16(True)
    stop_at(0, 2, train, recipe, data, out, log=lines.append)
    n, before = read_checkpoint(out/STATE).batches, (out/'recipe.json').read_bytes()

    has_bf16(False)
    with pytest.raises(S8FastError, match='--precision fp32'): resume(out, data, lines.append)
    for other in ('bf16', 'fp16'):
        with pytest.raises(S8FastError, match=other): resume(out, data, lines.append, precision=other)
    assert (out/'recipe.json').read_bytes() == before

    stop_at(1, 1, resume, out, data, lines.append, precision='fp32')
    assert any(f'goes on in fp32, as asked: up to step {n} it was bf16' in line for line in lines)
    chosen = read_record(out)['chosen']
    assert chosen['precision'] == 'fp32' and chosen['earlier_precisions'] == [dict(precision='bf16', until_step=n)]
    assert chosen['winograd'] == ('used' if winograd_available() else 'none')
    (out/'recipe.json').write_bytes(before)  # as if the process had been killed before it was written

    resume(out, data, lines.append)
    record = read_record(out)
    assert record['chosen'] == chosen and record['recipe'] == asdict(recipe)
    assert not is_bf16(out, data)
    assert f'bf16 up to step {n}' in write_report(out, data, 'cpu').read_text()


def test_another_precision_before_the_first_step(has_bf16, tmp_path):
    "Stopped in the finder, where there is no checkpoint yet: it begins in the precision that it is asked for."
    out, data = tmp_path/'run', short_runs.few_digits()
    recipe = short_runs.recipe(precision='bf16', epochs=1)
    has_bf16(True)
    begun = dict(version=RECIPE_VERSION, id='0', recipe=asdict(recipe), data='<memory>', winograd=True)
    with open_run(out): write_json(out/BEGUN, begun)
    has_bf16(False)
    with pytest.raises(S8FastError, match='no hardware for bf16'): resume(out, data, quiet)
    resume(out, data, quiet, precision='fp32')
    record = read_record(out)
    assert record['chosen']['precision'] == 'fp32' and 'earlier_precisions' not in record['chosen']
    assert record['recipe']['precision'] == 'bf16'


# Winograd's convolutions

def of_the_resnet(): return short_runs.recipe(model='custom_resnet', precision='fp32', epochs=1)


@pytest.fixture
def forget_the_compiler():
    "The compiled transforms are asked for again, now and afterwards."
    def forget():
        transforms.cache_clear()
        winograd_available.cache_clear()
    forget()
    yield forget
    forget()


@needs_winograd
def test_a_winograd_run_without_a_compiler(forget_the_compiler, stop_at, narrow, monkeypatch, tmp_path):
    out, data, lines = tmp_path/'run', short_runs.few_digits(), []
    stop_at(0, 1, train, of_the_resnet(), data, out, log=lines.append)
    assert ', Winograd;' in lines[0] and read_record(out)['chosen']['winograd'] == 'used'

    forget_the_compiler()
    with monkeypatch.context() as patch:
        patch.setenv('CC', str(tmp_path/'none'))
        lines.clear()
        resume(out, data, lines.append)
    forget_the_compiler()
    assert not any(', Winograd;' in line for line in lines)
    assert any('convolutions by Winograd, which cannot be had here' in line for line in lines)
    assert winograd_layers(load_run(out, data, 'cpu')[0].model)


def test_a_run_stays_without_winograd(stop_at, narrow, monkeypatch, tmp_path):
    "What was computed without it goes on without it."
    out, data, lines = tmp_path/'run', short_runs.few_digits(), []
    with monkeypatch.context() as patch:
        patch.setattr('s8fast.models.winograd.winograd_available', lambda: False)
        stop_at(0, 1, train, of_the_resnet(), data, out, log=lines.append)
    assert read_record(out)['chosen']['winograd'] == 'none'
    assert_goes_on_without_winograd(out, data, 'none')


def test_a_run_for_which_winograd_was_left_out(stop_at, narrow, tmp_path):
    out, data = tmp_path/'run', short_runs.few_digits()
    stop_at(0, 1, train, of_the_resnet(), data, out, log=quiet, winograd=False)
    assert read_record(out)['chosen']['winograd'] == 'off'
    assert_goes_on_without_winograd(out, data, 'off')


def assert_goes_on_without_winograd(out, data, word):
    lines = []
    resume(out, data, lines.append)
    assert not any(', Winograd;' in line or 'not what the run' in line for line in lines)
    assert read_record(out)['chosen']['winograd'] == word
    layers = load_run(out, data, 'cpu')[0].model.modules()
    assert not any(isinstance(layer, WinogradConv2d) for layer in layers)
