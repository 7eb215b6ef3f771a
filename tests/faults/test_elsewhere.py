"A run folder brought to a processor that lacks what the run was computed with."
from dataclasses import asdict, replace

import pytest
import runs
import torch

from s8fast.checkpoint import Checkpoint, Interrupted, read_checkpoint
from s8fast.files import S8FastError, write_json
from s8fast.learner import load_run
from s8fast.precision import Autocast
from s8fast.report import write_report
from s8fast.run_folder import BEGUN, RECIPE_VERSION, STATE, open_run, read_record
from s8fast.training import resume, train
from s8fast.winograd import WinogradConv2d, transforms, winograd_available, winograd_layers


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


def test_it_goes_on_in_another_precision_when_asked(has_bf16, monkeypatch, tmp_path):
    "Said, recorded, and from then on the run's own: a further stop and a kill before the next checkpoint change nothing of it."
    monkeypatch.setattr(Checkpoint, '_write', Checkpoint._write)  # is put back after StopAt
    out, data, lines, write = tmp_path/'run', runs.few_digits(), [], Checkpoint._write
    recipe = runs.recipe(precision='auto', model='custom_resnet')
    has_bf16(True)
    runs.StopAt(0, 2).install()
    with pytest.raises(Interrupted): train(recipe, data, out, log=lines.append, checkpoint_minutes=0)
    n, before = read_checkpoint(out/STATE)[1]['batches'], (out/'recipe.json').read_bytes()

    has_bf16(False)
    with pytest.raises(S8FastError, match='--precision fp32'): resume(out, data, lines.append)
    for other in ('bf16', 'fp16'):
        with pytest.raises(S8FastError, match=other): resume(out, data, lines.append, precision=other)
    assert (out/'recipe.json').read_bytes() == before

    monkeypatch.setattr(Checkpoint, '_write', write)
    runs.StopAt(1, 1).install()
    with pytest.raises(Interrupted): resume(out, data, lines.append, 0, precision='fp32')
    assert any(f'goes on in fp32, as asked: up to step {n} it was bf16' in o for o in lines)
    chosen = read_record(out)['chosen']
    assert chosen['precision'] == 'fp32' and chosen['earlier_precisions'] == [dict(precision='bf16', until_step=n)]
    assert chosen['winograd'] == winograd_available()
    (out/'recipe.json').write_bytes(before)  # as if the process had been killed before it was written

    monkeypatch.setattr(Checkpoint, '_write', write)
    resume(out, data, lines.append)
    record = read_record(out)
    assert record['chosen'] == chosen and record['recipe'] == asdict(recipe)
    learn, _, _ = load_run(out, data, 'cpu')
    assert not any(isinstance(o, Autocast) for o in learn.cbs)
    assert f'bf16 up to step {n}' in write_report(out, data, 'cpu').read_text()


def test_another_precision_before_the_first_step(has_bf16, tmp_path):
    "Begun and stopped in the finder, where there is no checkpoint yet: it begins in the precision that it is asked for."
    out, data = tmp_path/'run', runs.few_digits()
    has_bf16(True)
    with open_run(out): write_json(out/BEGUN, dict(version=RECIPE_VERSION, id='0', recipe=asdict(runs.recipe(precision='bf16', epochs=1)), data='<memory>'))
    has_bf16(False)
    with pytest.raises(S8FastError, match='no hardware for bf16'): resume(out, data, lambda line: None)
    resume(out, data, lambda line: None, precision='fp32')
    chosen = read_record(out)['chosen']
    assert chosen['precision'] == 'fp32' and 'earlier_precisions' not in chosen and read_record(out)['recipe']['precision'] == 'bf16'


@pytest.mark.skipif(not winograd_available(), reason='no C compiler, or not x86-64')
def test_a_winograd_run_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(Checkpoint, '_write', Checkpoint._write)  # is put back after StopAt
    out, data, lines = tmp_path/'run', runs.few_digits(), []
    runs.StopAt(0, 1).install()
    with pytest.raises(Interrupted): train(runs.recipe(model='custom_resnet', precision='fp32', epochs=1), data, out, log=lines.append, checkpoint_minutes=0)
    assert ', Winograd;' in lines[0] and read_record(out)['chosen']['winograd'] is True

    def again(): transforms.cache_clear(), winograd_available.cache_clear()
    again()
    try:
        with monkeypatch.context() as m:
            m.setenv('CC', str(tmp_path/'none'))
            lines.clear()
            resume(out, data, lines.append)
    finally: again()
    assert ', Winograd;' not in lines[0] and any('convolutions by Winograd, which cannot be had here' in o for o in lines)
    assert winograd_layers(load_run(out, data, 'cpu')[0].model)


def test_a_run_stays_without_winograd(monkeypatch, tmp_path):
    "What was computed without it goes on without it."
    monkeypatch.setattr(Checkpoint, '_write', Checkpoint._write)
    out, data, lines = tmp_path/'run', runs.few_digits(), []
    runs.StopAt(0, 1).install()
    with pytest.raises(Interrupted), monkeypatch.context() as m:
        m.setattr('s8fast.winograd.winograd_available', lambda: False)
        train(runs.recipe(model='custom_resnet', precision='fp32', epochs=1), data, out, log=lines.append, checkpoint_minutes=0)
    assert read_record(out)['chosen']['winograd'] is False
    lines.clear()
    resume(out, data, lines.append)
    assert ', Winograd;' not in lines[0] and read_record(out)['chosen']['winograd'] is False and not any('not what the run' in o for o in lines)
    assert not any(isinstance(m, WinogradConv2d) for m in load_run(out, data, 'cpu')[0].model.modules())
