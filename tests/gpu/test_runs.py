"A run on the device: stopped and resumed, evaluated, reported, looked at, beside the same run on a CPU."
import itertools
import signal
import warnings

import pytest
import short_runs
import torch
from helpers import read_json
from short_runs import few_digits

from s8fast.errors import Interrupted
from s8fast.interpret.gradcam import GradCAM, normalized
from s8fast.interpret.predictions import predict
from s8fast.interpret.report import write_report
from s8fast.runs.evaluate import evaluate_run, load_run
from s8fast.runs.folder import Run
from s8fast.runs.seeds import train_seeds
from s8fast.runs.signals import StopSignals
from s8fast.runs.train import resume, train
from s8fast.training.checkpoint_callback import SaveCheckpoint
from s8fast.training.learner import get_learner
from s8fast.training.lr_find import find_lr_range

DATA = few_digits(120, 30)


def quiet(line): pass


def recipe(precision='fp32', **choices):
    "A short run of ULTIMUS on the device; `deterministic`, so that a real GPU gives the same bits again."
    return short_runs.recipe(**{**dict(device='cuda', precision=precision, deterministic=True), **choices})


@pytest.fixture
def draw_less():
    undo = short_runs.draw_less()
    yield
    undo()


class ToldAtTheThirdLook(StopSignals):
    "SIGTERM is there when it is looked for the third time."
    def __init__(self):
        super().__init__()
        self.looks = itertools.count(1)

    @property
    def signum(self): return signal.SIGTERM if next(self.looks) >= 3 else None

    @signum.setter
    def signum(self, value): pass


SLOW = [pytest.param(precision, marks=pytest.mark.slow) for precision in ('bf16', 'fp16')]

@pytest.mark.parametrize('precision', ['fp32', *SLOW])
def test_stopped_within_an_epoch_and_resumed(gpu, draw_less, tmp_path, monkeypatch, precision):
    data = few_digits(100, 20)
    whole = train(recipe(precision), data, tmp_path/'whole', log=quiet)
    monkeypatch.setattr('s8fast.runs.train.StopSignals', ToldAtTheThirdLook)
    with pytest.raises(Interrupted): train(recipe(precision), data, tmp_path/'stopped', log=quiet)
    monkeypatch.setattr('s8fast.runs.train.StopSignals', StopSignals)
    assert Run(tmp_path/'stopped').state == 'stopped' and Run(tmp_path/'stopped').checkpoint.batches
    resumed = resume(tmp_path/'stopped', data, log=quiet)
    for part in ('test', 'valid'): assert resumed[part] == whole[part]
    same = [(tmp_path/name/'model.safetensors').read_bytes() for name in ('whole', 'stopped')]
    assert same[0] == same[1]


@pytest.fixture
def run(gpu, tmp_path):
    train(recipe(), DATA, tmp_path/'run', log=quiet)
    return tmp_path/'run'


def test_what_comes_after_a_run(gpu, run):
    record, metrics = read_json(run/'recipe.json'), read_json(run/'metrics.json')
    assert record['chosen']['device'].startswith('cuda') and record['chosen']['cudnn_benchmark'] is False
    assert evaluate_run(run, DATA)['accuracy'] == metrics['test']['accuracy']
    p = predict(run, 'test', DATA)
    assert p.metrics()['accuracy'] == metrics['test']['accuracy'] and p.probs.device.type == 'cpu'
    with warnings.catch_warnings():
        warnings.filterwarnings('error', category=UserWarning, module='s8fast')  # a picture that fails is a warning
        assert write_report(run, DATA).exists()
    learn, _, _ = load_run(run, DATA)
    assert learn.model.conv2.conv.weight.is_contiguous(memory_format=torch.channels_last)
    with GradCAM(learn.model, 'conv3') as cam: maps = cam(normalized(p.images[:4], learn), p.preds[:4].tolist())
    assert maps.shape == (4, 32, 32) and maps.isfinite().all()


def test_the_same_on_a_cpu(gpu, draw_less, run, tmp_path):
    "Of one step, for float32 sums in another order drift apart."
    one = dict(epochs=1, bs=108, average=0.)
    for device in ('cuda', 'cpu'): train(recipe(**one, device=device), DATA, tmp_path/device, log=quiet)
    there, here = (torch.tensor([row['train_loss'] for row in Run(tmp_path/o).history]) for o in ('cuda', 'cpu'))
    assert torch.allclose(there, here, rtol=1e-4)
    assert evaluate_run(run, DATA, device='cpu')['loss'] == pytest.approx(evaluate_run(run, DATA)['loss'], rel=1e-3)


def test_finder(gpu):
    found = find_lr_range(get_learner(recipe(bs=16), DATA), num_it=12)
    assert 0 < found.lr_min <= found.lr_max and len(found.losses) > 2


@pytest.mark.slow
def test_seeds(gpu, draw_less, tmp_path):
    summary = train_seeds(recipe(epochs=1), [0, 1], DATA, tmp_path/'two', log=quiet)
    assert [o['seed'] for o in summary['runs']] == [0, 1]


def test_a_checkpoint_that_costs_too_much_is_left_out(gpu, draw_less, tmp_path, monkeypatch):
    written = []
    write = SaveCheckpoint.write
    def slow(saver):
        write(saver)
        written.append(saver.epoch)
        saver.cost = 1000.
    monkeypatch.setattr(SaveCheckpoint, 'write', slow)
    train(recipe(epochs=3), DATA, tmp_path/'gpu', log=quiet)
    assert written == [0, 2]
    train(recipe(epochs=3, device='cpu'), DATA, tmp_path/'cpu', log=quiet)
    assert written == [0, 2, 0, 1, 2]
