"The study of choices on validation images and its picture; the yardstick."
import copy, importlib, json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest
import torch
from conftest import draw_data, write_folders
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import SGD
from PIL import Image
from s8fast.interpret import predict
from s8fast.learner import get_learner
from s8fast.recipe import Recipe
from safetensors.torch import load_file
from torch import nn

BENCH = Path(__file__).resolve().parent.parent/'bench'


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp('study')/'study.json'
    args = '--model', 'ultimus', '--epochs', 1, '--bs', 64, '--share', .3, '--averages', '.5', '--device', 'cpu', '--seeds', '0-1', '--out', out
    return args, subprocess.run([sys.executable, BENCH/'study.py', 'lr_max=0.003', 'lr_max=0.003,wd=0.5', *map(str, args)], capture_output=True, text=True, env={**os.environ, 'PYTHONWARNINGS': 'ignore'})


def test_study(study):
    args, done = study
    assert done.returncode == 0, done.stderr
    trials = json.loads(args[-1].read_text())
    assert [(o['row'], o['recipe']['seed'], o['recipe']['wd']) for o in trials] == [(row, seed, wd) for seed in (0, 1) for row, wd in (('lr_max=0.003', .05), ('lr_max=0.003,wd=0.5', .5))]
    assert all(o['n_train'] + o['n_valid'] == 431 and set(o['averages']) == {'0.5', '0.5, statistics estimated'} for o in trials)
    mean = sum(o['accuracy'] for o in trials if o['recipe']['wd'] == .5)/2
    assert ['lr_max=0.003,wd=0.5', 'none', '2', f'{mean:.2%}'] in [o.replace('|', ' ').split()[:4] for o in done.stdout.splitlines()], done.stdout


def test_study_goes_on(study, tmp_path, call_command):
    args, done = study
    out = tmp_path/'study.json'
    out.write_bytes(args[-1].read_bytes())
    row = 'lr_max=0.01,first_weights=dirac+whitening,flip=alternating,eps=0.001,logit_scale=0.5'
    again = call_command(BENCH/'study.py', 'lr_max=0.003', 'lr_max=0.003,wd=0.5', row, *args[:-1], out)
    assert again.returncode == 0 and again.stderr.count(' in ') == 2 == again.stderr.count(f'{row}, seed'), again.stderr # the trials that were missing
    trials, more = (json.loads(o.read_text()) for o in (args[-1], out))
    assert more[:4] == trials and [(o['row'], o['arguments']) for o in more[4:]] == [(row, dict(first_weights='dirac+whitening', flip='alternating', eps=.001, logit_scale=.5))]*2
    words = [[line.replace('|', ' ').split() for line in o.stdout.splitlines()] for o in (done, again)]
    assert all(line in words[1] for line in words[0] if line[:1] == ['lr_max=0.003']), again.stdout # as it was


@pytest.mark.parametrize('row, change, says', [('depth=3', {}, 'neither the recipe nor the network'), ('valid_pct=0', {}, 'valid_pct: above 0'), ('first_weights=ones', {}, 'kaiming, dirac, whitening'), ('flip=never', {}, 'random or alternating'), ('pipeline=item,flip=alternating', {}, 'batch pipeline'), ('first_weights=', {}, 'kaiming, dirac, whitening'), ('eps=0', {}, 'eps: a number above 0'), ('ghost=many', {}, 'ghost: a number above 0'), ('sam_images=128', {}, 'with sam'), ('width=0.5', {}, 'custom ResNet only'), ('model=custom_resnet,width=0.01', {}, 'from 1/64 to 1'), ('wd=0.1', dict(share='.2'), 'other images'), ('wd=0.1', dict(out='history.csv'), 'no study'), ('wd=0.1', dict(out='none/study.json'), 'none')])
def test_study_refuses(study, row, change, says, tmp_path, call_command):
    args, out = study[0], study[0][-1]
    if 'out' in change:
        out = tmp_path/change['out']
        if out.parent.exists(): out.write_text('epoch,lr\n')
    before, done = out.exists() and out.read_bytes(), call_command(BENCH/'study.py', row, *args[:-1], out, *(o for k, v in change.items() if k != 'out' for o in (f'--{k}', v)))
    assert done.returncode == 2 and says in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert (out.exists() and out.read_bytes()) == before


@pytest.fixture
def parts(monkeypatch):
    "The study as a module, and a Learner on digits."
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module('study'), get_learner(Recipe(bs=256, precision='fp32', winograd=False, device='cpu'), 'digits')


def test_first_weights_of_a_study(parts):
    study, learn = parts
    convs = [o.conv.weight for o in learn.model.modules() if isinstance(getattr(o, 'conv', None), nn.Conv2d)]
    for name, first in study.FIRST_WEIGHTS.items():
        before = [o.detach().clone() for o in convs]
        first(learn)
        assert [not o.equal(b) for o, b in zip(convs, before)] == [name != 'whitening' or i == 0 for i in range(8)]
        if name == 'dirac':
            x = torch.randn(2, 128, 8, 8)
            assert learn.model.layer1[1].conv1.conv(x).allclose(x, atol=1e-5) and learn.model.layer2.conv(x)[:, :128].allclose(x, atol=1e-5) # all channels are handed on, or the first half of the filters does it
        if name == 'whitening':
            rows = convs[0].detach().flatten(1)[:54]
            x = next(iter(learn.dls.train))[0].as_subclass(torch.Tensor)
            out = torch.conv2d(x, convs[0][:27]).detach().transpose(0, 1).flatten(1)
            assert rows[:27].equal(-rows[27:]) and (torch.corrcoef(out) - torch.eye(27)).abs()[:5, :5].max() < .3 # what it puts out hangs little together, on another batch too


def test_alternating_flip_of_a_study(parts):
    study, learn = parts
    dl, shown = learn.dls.train, []
    study.alternate_flips(dl)
    shuffle, draw = dl.shuffle_fn, dl.augment.draw
    dl.shuffle_fn = lambda idxs: shown.append([shuffle(idxs)]) or list(shown[-1][0])
    object.__setattr__(dl.augment, 'draw', lambda n, size: shown[-1].append(draw(n, size)) or shown[-1][1])
    flipped = torch.zeros(3, dl.n, dtype=torch.bool)
    for epoch in range(3):
        for _ in dl: pass
        order, draws = shown[epoch]
        flipped[epoch, order] = draws[:, 2].bool()
    assert .4 < flipped[0].float().mean() < .6 and flipped[1].equal(~flipped[0]) and flipped[2].equal(flipped[0])


def test_networks_of_a_study(parts):
    study, learn = parts
    own, recipe = learn.model, Recipe()
    make = lambda **changes: study.make(recipe, changes, 10)
    assert make() is None and make(eps=1e-3) is None # the recipe's own
    assert sum(o.numel() for o in make(width=1).parameters()) == 6573130 and make(width=.5).fc.weight.shape == (10, 256)
    x = torch.randn(64, 3, 32, 32)
    ghost, scaled = make(ghost=32), make(logit_scale=.125)
    ghost.load_state_dict(own.state_dict())
    with torch.no_grad():
        halves = torch.cat([own.train()(o) for o in x.split(32)])
        assert ghost.train()(x).allclose(halves, atol=1e-4) and not ghost(x).allclose(own(x), atol=1e-2)
        scaled.model.load_state_dict(own.state_dict()) # with the running statistics of now
        assert scaled.eval()(x).allclose(own.eval()(x)*.125, atol=1e-5)
    norm, same = study.GhostNorm(3), nn.BatchNorm2d(3)
    norm.images, x = 8, torch.randn(8, 3, 4, 4).repeat(4, 1, 1, 1) # groups that are alike
    for o in (norm, same): o(x)
    assert norm.running_mean.allclose(same.running_mean, atol=1e-6) # all groups move them as one batch does


def test_adam_of_a_study(parts, monkeypatch):
    study, seen = parts[0], []
    monkeypatch.setattr(study, 'fit_one_cycle', lambda learn, *args, **kwargs: learn.create_opt() or seen.append(learn.opt))
    study.trial(Recipe(model='ultimus', lr_max=1e-3, device='cpu'), dict(eps=.1, sqr_mom=.5), study.load_data('digits'), [])
    assert all((o['eps'], o['sqr_mom']) == (.1, .5) for o in seen[0].hypers) and {(o['eps'], o['betas'][1]) for o in seen[0].opt.param_groups} == {(.1, .5)}


@pytest.mark.parametrize('images, epochs', [(0, 0), (4, 0), (0, 1)])
def test_sharpness_of_a_study(parts, images, epochs):
    study, (x, y) = parts[0], (torch.randn(8, 3, 6, 6), torch.arange(8) % 3)
    loss, model = nn.CrossEntropyLoss(), nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    first, climbed = copy.deepcopy(model), copy.deepcopy(model)
    gradient = lambda m, n: torch.autograd.grad(loss(m(x[:n]), y[:n]), list(m.parameters()))
    up = gradient(first, images or 8) # moves its running statistics too
    length = sum(o.square().sum() for o in up)**.5
    for o, g in zip(climbed.parameters(), up): o.data += .5*g/length
    wanted = gradient(climbed if not epochs else copy.deepcopy(first), 8)
    batch = DataLoader([(a, b) for a, b in zip(x, y)], bs=8)
    learn = Learner(DataLoaders(batch, batch), model, loss, SGD, cbs=[study.Sam(.5, images, epochs), study.NoValidation()])
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1.)
    for o, before, g in zip(model.parameters(), first.parameters(), wanted): assert o.allclose(before - g, atol=1e-5) and not g.allclose(torch.zeros_like(g))
    assert all(a.allclose(b, atol=1e-6) for a, b in zip(model.buffers(), first.buffers()) if a.is_floating_point()) and model[1].momentum == .1


def test_picture_of_a_study(study, tmp_path, call_command):
    whole, broken = study[0][-1], tmp_path/'broken.json'
    assert call_command(BENCH/'plot_study.py', whole, '--averages', '0,.5', '--out', tmp_path/'study.png').returncode == 0
    with Image.open(tmp_path/'study.png') as im: assert len(im.convert('RGB').getcolors(1 << 24)) > 10
    broken.write_text('[{"row": "default"}]')
    done = call_command(BENCH/'plot_study.py', whole, broken, '--out', tmp_path/'none.png')
    assert done.returncode == 2 and done.stderr.startswith(f'plot_study.py: {broken} ') and done.stderr.count('\n') == 1 and not (tmp_path/'none.png').exists()


@pytest.mark.parametrize('script', ['pipeline', 'startup', 'step', 'train'])
def test_data_that_is_not_there(script, tmp_path, call_command):
    done = call_command(BENCH/f'{script}.py', '--data', tmp_path/'none', *(['--scaling'] if script == 'train' else []))
    assert done.returncode == 2 and done.stderr.startswith(f'{script}.py: ') and 'none' in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_yardstick_refuses(tmp_path, call_command):
    "Before it trains: what can't be written, what is no record of runs, a record of other ones."
    (tmp_path/'file').touch()
    (tmp_path/'none.json').write_text('{"seed": 0}')
    record = (BENCH.parent/'results'/'yardstick-jpeg.json').read_text()
    (tmp_path/'other.json').write_text(record)
    for out, says in ((tmp_path/'file'/'out.json', 'not be written'), (tmp_path/'none.json', 'is no record of such runs'), (tmp_path/'other.json', 'other data')):
        done = call_command(BENCH/'yardstick.py', '--device', 'cpu', '--out', out)
        assert done.returncode == 2 and done.stderr.startswith('yardstick.py: ') and says in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert (tmp_path/'other.json').read_text() == record


def test_yardstick_goes_on(tmp_path, call_command):
    "Stopped within the second epoch, the same command ends with the figures of a run that was not; a checkpoint that is none is refused, or replaced when asked."
    data = write_folders(tmp_path/'data', draw_data(25, 2))
    args = '--device', 'cpu', '--data', data, '--epochs', 2, '--bs', 64, '--out'
    whole, out, state = tmp_path/'whole.json', tmp_path/'out.json', tmp_path/'out-seed0.checkpoint'
    (tmp_path/'whole-seed0.checkpoint').write_text('epoch,lr\n')
    spoilt = call_command(BENCH/'yardstick.py', *args, whole)
    assert spoilt.returncode == 2 and 'is damaged' in spoilt.stderr and '--force' in spoilt.stderr and spoilt.stderr.count('\n') == 1, spoilt.stderr
    assert (done := call_command(BENCH/'yardstick.py', *args, whole, '--force')).returncode == 0, done.stderr
    with subprocess.Popen([sys.executable, BENCH/'yardstick.py', *map(str, args), out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as stopped:
        while not state.exists() and stopped.poll() is None: time.sleep(.01)
        stopped.send_signal(signal.SIGINT)
        says = stopped.communicate()[1]
    assert stopped.returncode == 130 and 'goes on from there' in says and json.loads(out.read_text()) == [], says
    other = call_command(BENCH/'yardstick.py', *args, out, '--bs', 32)
    assert other.returncode == 2 and 'other options' in other.stderr and state.exists()
    assert (done := call_command(BENCH/'yardstick.py', *args, out)).returncode == 0, done.stderr
    a, b = ([{k: v for k, v in o.items() if k != 'seconds'} for o in json.loads(f.read_text())] for f in (whole, out))
    for o in (*a[0]['history'], *b[0]['history']): del o['seconds']
    assert a == b and len(a) == 1 and not state.exists()
    assert (tmp_path/'whole-seed0.safetensors').read_bytes() == (tmp_path/'out-seed0.safetensors').read_bytes()


def test_yardstick_without_validation_images(tmp_path, call_command):
    data, out = write_folders(tmp_path/'data', draw_data(8, 2)), tmp_path/'out.json'
    done = call_command(BENCH/'yardstick.py', '--device', 'cpu', '--data', data, '--epochs', 1, '--bs', 64, '--valid_pct', 0, '--precision', 'fp32', '--out', out)
    assert done.returncode == 0 and 'none' in done.stdout, done.stderr
    found, = json.loads(out.read_text())
    assert 'valid' not in found and found['precision'] == 'fp32' and found['recipe']['valid_pct'] == 0 and found['history'][0]['valid_loss'] is None
    logits = load_file(tmp_path/'out-seed0.safetensors')
    assert set(logits) == {'test'} and logits['test'].dtype == torch.float16
    assert (logits['test'].argmax(1) == torch.arange(10).repeat_interleave(2)).double().mean() == found['test']['accuracy']


def test_record(png_run, png, tmp_path, call_command):
    "What is kept of a run: its own files, logits that give its figures, weights in half the bytes; of figures that aren't its own, nothing."
    run, out = png_run[0], tmp_path/'kept'
    args = '--data', png, '--device', 'cpu'
    done = call_command(BENCH/'record.py', run, out, *args, '--weights', '--pictures')
    assert done.returncode == 0, done.stderr
    assert all((out/o).read_bytes() == (run/o).read_bytes() for o in ('recipe.json', 'history.csv', 'metrics.json', 'curves.png'))
    logits, weights = load_file(out/'logits.safetensors'), load_file(out/'weights.safetensors')
    for part, o in logits.items(): assert o.equal(predict(run, part, png, 'cpu').logits.half())
    assert set(logits) == {'test', 'valid'} and (out/'weights.safetensors').stat().st_size < .51*(run/'model.safetensors').stat().st_size
    assert all(v.equal(weights[k].float()) or (v.half() == weights[k]).all() for k, v in load_file(run/'model.safetensors').items())
    changed = tmp_path/'changed'
    shutil.copytree(run, changed)
    metrics = json.loads((run/'metrics.json').read_text())
    del metrics['sha256']
    metrics['test']['accuracy'] = .99
    (changed/'metrics.json').write_text(json.dumps(metrics))
    refused = call_command(BENCH/'record.py', changed, tmp_path/'none', *args)
    assert refused.returncode == 2 and 'metrics.json says 99.00%' in refused.stderr and refused.stderr.count('\n') == 1 and not (tmp_path/'none').exists(), refused.stderr
