"bench/gpu.py: everything that a machine with a GPU is asked, rehearsed on a CPU; and the page of what it measured."
import importlib
import runpy
import shutil
import sys

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from helpers import BENCH, assert_sentence, edit_json, read_json
from short_runs import few_digits
from torch import nn

from s8fast.recipe import Recipe
from s8fast.runs.summary import summarise
from s8fast.training.learner import get_learner
from s8fast.training.one_cycle import fit_one_cycle, one_cycle
from s8fast.training.optimizer import fused_adam

pytestmark = pytest.mark.slow

KIT = BENCH/'gpu.py'
PHASES = ['tests', 'speed', 'runs', 'ablation', 'float16', 'together']
REHEARSE = '--rehearse', '--data', 'digits', '--minutes', 5


@pytest.fixture(scope='module')
def rehearsed(tmp_path_factory):
    "The folder of a rehearsal of all phases."
    out = tmp_path_factory.mktemp('rehearsed')/'new'/'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        patch.setattr(sys, 'argv', [str(KIT), *map(str, REHEARSE), '--out', str(out)])
        runpy.run_path(str(KIT), run_name='__main__')
    return out


@pytest.fixture
def out(rehearsed, tmp_path):
    "A copy of its files, to change."
    return shutil.copytree(rehearsed, tmp_path/'out')


@pytest.fixture
def kit(monkeypatch):
    "`kit(name)`: a module of the kit."
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module


def contents(folder): return {path.name: path.read_bytes() for path in folder.iterdir()}


def without_unit(path, name):
    "Take a unit out of a phase's file."
    edit_json(path, lambda content: content.update(units=[one for one in content['units'] if one['name'] != name]))


# The rehearsal

def test_every_unit_of_the_rehearsal_has_figures(rehearsed):
    assert sorted(contents(rehearsed)) == sorted(f'{phase}.json' for phase in PHASES)
    for phase in PHASES:
        content = read_json(rehearsed/f'{phase}.json')
        assert content['phase'] == phase and content['units']
        assert [unit for unit in content['units'] if 'error' in unit] == []
        facts = content['facts']
        assert facts['rehearsal'] and facts['device']['type'] == 'cpu' and facts['data']['name'] == 'digits'
        assert facts['versions']['torch'] == torch.__version__.split('+')[0] and 'commit' in facts


def test_every_arm_has_only_validation_figures(rehearsed, kit):
    units = read_json(rehearsed/'ablation.json')['units']
    assert [unit['figures']['arm'] for unit in units] == list(kit('gpu_ablation').ARMS)
    figures = {'arm', 'seed', 'accuracy', 'loss', 'lr_max', 'seconds', 'n_train', 'n_valid'}
    assert all(set(unit['figures']) == figures for unit in units)
    assert len({unit['figures']['lr_max'] for unit in units}) == 1  # the default's


def test_the_parts_of_a_step_make_it_up(rehearsed):
    for unit in read_json(rehearsed/'speed.json')['units']:
        if 'parts' not in unit['figures']: continue
        assert list(unit['figures']['parts']) == ['data', 'forward', 'backward', 'optimiser']
        assert sum(unit['figures']['parts'].values()) == pytest.approx(unit['figures']['median'], rel=1e-6)


# It goes on

def test_what_is_measured_is_not_measured_again(out, call_command):
    before = contents(out)
    done = call_command(KIT, *REHEARSE, '--out', out)
    assert done.returncode == 0 and 'all is measured' in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 2 and contents(out) == before


def test_only_what_is_missing_is_measured(out, call_command):
    path = out/'ablation.json'
    before = read_json(path)['units']
    without_unit(path, 'wd=0.3, seed 0')
    done = call_command(KIT, *REHEARSE, '--out', out, '--only', 'ablation')
    assert done.returncode == 0 and done.stdout.count('seed 0') == 1, done.stderr
    *kept, new = read_json(path)['units']
    assert kept == [unit for unit in before if unit['name'] != 'wd=0.3, seed 0']
    old, = [unit for unit in before if unit['name'] == 'wd=0.3, seed 0']
    assert new['figures']['accuracy'] == old['figures']['accuracy']  # at the default's rate


def test_no_minutes_measure_nothing(tmp_path, call_command):
    done = call_command(KIT, *REHEARSE, '--minutes', 0, '--out', tmp_path/'out')
    assert done.returncode == 0 and done.stdout == '0 minutes: nothing was measured.\n', done.stderr
    assert not (tmp_path/'out').exists()


def test_a_unit_that_does_not_fit_is_not_begun(out, call_command):
    "But for the first one of a call, which has all of its minutes."
    for name in ('matrix product, fp16', 'copy'): without_unit(out/'speed.json', name)
    edit_json(out/'speed.json', lambda content: content['units'][0].update(seconds=1000.))
    done = call_command(KIT, *REHEARSE, '--out', out, '--only', 'speed')
    assert done.returncode == 0 and 'copy may take 1100 s' in done.stdout, done.stderr
    assert 'TFLOP/s' in done.stdout and 'GB/s' not in done.stdout


def test_a_unit_that_takes_too_long_is_given_up(out, call_command, monkeypatch, kit):
    "Having had all the minutes of a call, it failed; a later call can measure it with more of them."
    without_unit(out/'speed.json', 'copy')
    monkeypatch.setattr(kit('gpu_speed'), 'best_time', lambda *args: sleep_on())
    monkeypatch.setattr(kit('gpu_units').Clock, 'left', lambda clock: .2)
    monkeypatch.setattr(kit('gpu_units').PhaseFile, 'estimate', lambda file, unit: 0.)
    done = call_command(KIT, *REHEARSE, '--out', out, '--only', 'speed')
    assert done.returncode == 0 and 'copy was given up' in done.stdout, done.stderr
    last = read_json(out/'speed.json')['units'][-1]
    assert last['name'] == 'copy' and last['error'].startswith('It took longer than the 5 minutes')
    monkeypatch.undo()
    again = call_command(KIT, *REHEARSE, '--out', out, '--only', 'speed', '--retry')
    assert again.returncode == 0 and 'GB/s' in again.stdout, again.stderr


def sleep_on():
    while True: pass


def test_what_fails_is_a_sentence_and_the_rest_goes_on(out, call_command, monkeypatch, kit, tmp_path):
    for name in ('copy', 'matrix product, fp16'): without_unit(out/'speed.json', name)
    def fail(*args): raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(kit('gpu_speed'), 'matmul_rate', fail)
    done = call_command(KIT, *REHEARSE, '--out', out, '--only', 'speed')
    assert done.returncode == 0 and 'failed: OutOfMemoryError: CUDA out of memory.' in done.stdout, done.stderr
    assert [unit['name'] for unit in read_json(out/'speed.json')['units'][-2:]] == ['matrix product, fp16', 'copy']
    page = tmp_path/'gpu.md'
    call_command(KIT, '--report', out, '--to', page)
    assert '- matrix product, fp16 failed: OutOfMemoryError: CUDA out of memory.' in page.read_text()


# What it refuses

@pytest.mark.parametrize('args, says', [
    (['--only', 'weather'], "phase 'weather' is unknown"),
    (['--data', 'none'], 'none'),
    (['--minutes', 'nan', '--only', 'none'], 'unknown')], ids=['phase', 'data', 'phase first'])
def test_bad_input(args, says, tmp_path, call_command):
    assert_sentence(call_command(KIT, *REHEARSE, '--out', tmp_path/'out', *args), 'gpu.py', says)
    assert not (tmp_path/'out').exists()


@pytest.mark.parametrize('args, says', [
    (['--rehearse', '--data', 'digits'], '--out'),
    (['--rehearse', '--out', 'out'], '--data'),
    (['--report', 'none'], 'none has no file of this kit')])
def test_folders_that_are_not_there(args, says, call_command):
    assert_sentence(call_command(KIT, *args), 'gpu.py', says)


def test_without_a_gpu(tmp_path, call_command, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    done = call_command(KIT, '--data', 'digits', '--out', tmp_path/'out')
    assert_sentence(done, 'gpu.py', 'no CUDA device', '--rehearse')


def test_a_damaged_file(out, call_command, tmp_path):
    text = (out/'runs.json').read_text()
    (out/'runs.json').write_text(text.replace('"seed": 0', '"seed": 1'))
    before = contents(out)
    assert_sentence(call_command(KIT, *REHEARSE, '--out', out), 'gpu.py', out/'runs.json', 'is damaged')
    assert_sentence(call_command(KIT, '--report', out, '--to', tmp_path/'gpu.md'), 'gpu.py', out/'runs.json')
    assert contents(out) == before and not (tmp_path/'gpu.md').exists()


def test_files_of_another_device(out, call_command):
    edit_json(out/'float16.json', lambda content: content['facts']['device'].update(name='another'))
    assert_sentence(call_command(KIT, *REHEARSE, '--out', out), 'gpu.py', out/'float16.json', 'give another --out')


# Processes

WAIT = """
import pathlib, sys, time
own, other, status = sys.argv[1:]
pathlib.Path(own).touch()
while not pathlib.Path(other).exists(): time.sleep(.01)
print('both have begun')
sys.exit(int(status))
"""

def test_processes_run_at_the_same_time(kit, tmp_path):
    first, second = tmp_path/'first', tmp_path/'second'
    commands = [sys.executable, '-c', WAIT, first, second, 0], [sys.executable, '-c', WAIT, second, first, 3]
    ended = kit('gpu_units').run_children(commands)
    assert ended == [(0, 'both have begun\n'), (3, 'both have begun\n')]


# The page

def cells(page):
    "The rows of all tables of the page, by their first cell."
    lines = [line.strip('| ').split(' | ') for line in page.splitlines() if line.startswith('|')]
    return {first: rest for first, *rest in lines}


def test_the_page_has_the_figures_of_the_files(out, call_command, tmp_path):
    "Also where there are several seeds: mean, deviation, paired difference with its interval."
    gains = .01, .03
    def more_seeds(content):
        content['units'] = []
        for seed, gain in enumerate(gains):
            for arm, accuracy in {'default': .9 + seed/100, 'average=0': .9 + seed/100 + gain}.items():
                figures = dict(arm=arm, seed=seed, accuracy=accuracy, loss=.5, lr_max=.003, seconds=1.,
                               n_train=45_000, n_valid=5_000)
                unit = dict(name=f'{arm}, seed {seed}', kind='trial', seconds=1., figures=figures)
                content['units'].append(unit)
    edit_json(out/'ablation.json', more_seeds)
    done = call_command(KIT, '--report', out, '--to', tmp_path/'gpu.md')
    assert done.returncode == 0 and done.stdout == f'{tmp_path/"gpu.md"} is written.\n', done.stderr
    page = (tmp_path/'gpu.md').read_text()
    found = cells(page)
    low, high = summarise([100*gain for gain in gains])['interval']
    assert found['default'][:2] == ['2', '90.50% ± 0.71']
    assert found['`average=0`'][:3] == ['2', '92.50% ± 2.12', f'+2.00 ({low:+.2f} to {high:+.2f})']
    for unit in read_json(out/'runs.json')['units']:
        figures = unit['figures']
        if figures['recipe'] == 'final': continue  # float16 has a row of that name too
        assert found[figures['recipe']][1:3] == ['1', f'{figures["accuracy"]:.2%}']
        assert found[figures['recipe']][5] == f'{figures["seconds"]:.1f}'
    for unit in read_json(out/'speed.json')['units']:
        if 'row' in unit['figures']: assert found[unit['name']][0] == f'{unit["figures"]["median"]:.2f}'
    assert 'A rehearsal on a CPU' in page and '45,000 training images' in page


# Changes that the ablation makes

def small_learner(kit, arguments):
    "A network with two batch norms and 40 images, and its changes."
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
                          nn.Flatten(), nn.Linear(16, 3))
    images = DataLoader(list(zip(torch.randn(40, 3, 6, 6), torch.arange(40) % 3)), bs=8)
    groups = kit('changes').groups_with_own_biases if 'bias_rate' in arguments else kit('changes').decay_groups
    learn = Learner(DataLoaders(images, images), model, nn.CrossEntropyLoss(), fused_adam, splitter=groups, wd=[.1, 0.])
    kit('changes').change_learner(learn, arguments)
    return learn


def fit(kit, learn, arguments, seen=()):
    with learn.no_bar(), learn.no_logging():
        fit_one_cycle(learn, 4, .01, div=10, cbs=[*kit('changes').callbacks(arguments), *seen])


def test_a_flat_end(kit):
    arguments = dict(flat_end=2)
    learn = small_learner(kit, arguments)
    fit(kit, learn, arguments)
    rates, momentums = one_cycle(10, .01, div=10)
    assert learn.recorder.hps['lr'] == pytest.approx([*rates, *[.001]*10])
    assert learn.recorder.hps['mom'] == pytest.approx([*momentums, *[.95]*10])


def test_biases_at_their_own_rate(kit):
    learn = small_learner(kit, dict(bias_rate=4))
    fit(kit, learn, dict(bias_rate=4))
    last, plain, own = learn.opt.hypers
    assert last['lr'] == plain['lr'] == pytest.approx(.001) and own['lr'] == pytest.approx(.004)
    assert (last['wd'], plain['wd'], own['wd']) == (.1, 0., 0.)
    biases = {id(learn.model[1].bias), id(learn.model[4].bias)}
    assert {id(parameter) for parameter in learn.opt.param_lists[2]} == biases


def test_scales_that_are_fixed(kit):
    learn = small_learner(kit, dict(bn_scale='fixed'))
    fit(kit, learn, {})
    for norm in (learn.model[1], learn.model[4]): assert norm.weight.eq(1).all() and norm.bias.abs().max() > 0


def test_flips_that_alternate(kit):
    learn = get_learner(Recipe(bs=256, precision='fp32', device='cpu'), few_digits(600, 10))
    kit('changes').change_learner(learn, dict(flip='alternating'))
    dl = learn.dls.train
    orders, draws = [], []
    shuffle, draw = dl.shuffle_fn, dl.augment.draw

    def note_order(idxs):
        orders.append(shuffle(idxs))
        return list(orders[-1])

    def note_draws(n, size):
        draws.append(draw(n, size))
        return draws[-1]

    dl.shuffle_fn = note_order
    object.__setattr__(dl.augment, 'draw', note_draws)
    flipped = torch.zeros(3, dl.n, dtype=torch.bool)
    for epoch in range(3):
        for _ in dl: pass
        flipped[epoch, orders[epoch]] = draws[epoch][:, 2].bool()
    assert .4 < flipped[0].float().mean() < .6
    assert flipped[1].equal(~flipped[0]) and flipped[2].equal(flipped[0])


def test_ghost_batches_and_scaled_logits(kit):
    own, x = small_learner(kit, {}).model, torch.randn(64, 3, 6, 6)
    ghost, scaled = (small_learner(kit, arguments).model for arguments in (dict(ghost=32), dict(logit_scale=.125)))
    ghost.load_state_dict(own.state_dict())
    scaled.model.load_state_dict(own.state_dict())
    with torch.no_grad():
        assert scaled.eval()(x).allclose(own.eval()(x)*.125, atol=1e-5)
        halves = torch.cat([own.train()(half) for half in x.split(32)])
        assert ghost.train()(x).allclose(halves, atol=1e-4) and not ghost(x).allclose(own(x), atol=1e-2)


def test_ghost_batches_move_the_statistics_as_one_batch(kit):
    ghost, one = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    kit('changes').in_ghost_batches(ghost, 8)
    x = torch.randn(8, 3, 4, 4).repeat(4, 1, 1, 1)  # groups that are alike
    for norm in (ghost, one): norm(x)
    assert ghost.running_mean.allclose(one.running_mean, atol=1e-6)
