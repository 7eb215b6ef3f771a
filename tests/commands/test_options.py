"The options of a training come from the recipe: each reaches it, by the network's preset and by `--preset` too."
import pytest

from s8fast.errors import S8FastError
from s8fast.recipe import PRESETS, Recipe, choices, make_recipe

#: For each choice a value that is not its default.
OTHER = dict(model='ultimus', epochs=3, bs=7, seed=5, lr_max=0.02, div=9., pct_start=.3, shape='cosine', mom_max=.9,
             mom_min=.8, wd=.1, wd_bn_bias=True, pad=2, cutout=3, valid_pct=.2, split_seed=3, drop_last=True,
             pipeline='item', num_workers=1, precision='fp32', channels_last=False, compile=True, device='cpu',
             deterministic=True, pad_mode='zeros', label_smoothing=.3, average=2.5, bn_momentum=.2,
             cam_layer='layer2', init='pretrained:custom_resnet', freeze_epochs=1)


def flag(name, value):
    "The words of an option."
    if value is True: return [f'--{name}']
    return [f'--{name}', 0 if value is False else value]


@pytest.fixture
def trained(call_command, monkeypatch):
    "`trained(args...)`: what the command calls `train` with, the recipe and the rest by name."
    calls = []
    def note(recipe, data, out, force=False, **rest):
        calls.append(dict(recipe=recipe, data=data, out=str(out), force=force, **rest))
    monkeypatch.setattr('s8fast.runs.train.train', note)
    def trained(*args):
        done = call_command('s8fast_train', '--no_report', *args)
        assert done.returncode == 0, done.stderr
        return calls.pop()
    return trained


def test_every_choice_has_another_value_here():
    assert OTHER.keys() == {choice.name for choice in choices()}
    assert all(getattr(Recipe(), name) != value for name, value in OTHER.items())


@pytest.mark.parametrize('name', OTHER)
def test_an_option_reaches_the_recipe(trained, name):
    value = OTHER[name]
    more = dict(pipeline='item') if name == 'num_workers' else {}  # beside the batch pipeline it plays no part
    beside = [word for o in more.items() for word in flag(*o)]
    expected = make_recipe(**{name: value}, **more)
    assert trained(*flag(name, value), *beside)['recipe'] == expected
    assert trained(*flag(name.replace('_', '-'), value), *beside)['recipe'] == expected


def test_all_options_at_once(trained):
    flags = [word for name, value in OTHER.items() for word in flag(name, value)]
    call = trained(*flags, '--data', 'somewhere', '--out', 'there', '--force')
    assert call['recipe'] == Recipe(**OTHER)
    assert (call['data'], call['out'], call['force']) == ('somewhere', 'there', True)


def test_no_option_at_all(trained):
    call = trained()
    assert call['recipe'] == Recipe()
    assert (call['data'], call['out'], call['force']) == (None, 'runs/run', False)
    assert call['checkpoint_minutes'] is None and call['winograd'] is True


def test_what_is_no_choice_of_the_recipe(trained):
    call = trained('--checkpoint-minutes', 2.5, '--winograd', 0)
    assert call['recipe'] == Recipe() and call['checkpoint_minutes'] == 2.5 and call['winograd'] is False


@pytest.mark.parametrize('preset', PRESETS)
def test_a_preset(trained, preset):
    assert trained('--preset', preset)['recipe'] == Recipe(**PRESETS[preset])
    assert trained('--preset', preset, '--average', 1.5)['recipe'] == Recipe(**{**PRESETS[preset], 'average': 1.5})


@pytest.mark.parametrize('model', ['custom_resnet', 'ultimus', 'ultimus_no_blocks'])
def test_a_network_applies_its_preset_beneath(trained, model):
    given = trained('--model', model, '--preset', 'final', '--epochs', 2)['recipe']
    assert given == Recipe(**{**PRESETS.get(model, {}), 'model': model, 'valid_pct': 0., 'epochs': 2})


def test_choices_reach_the_finder(call_command, monkeypatch, tmp_path):
    made = []
    def note(recipe, data, *args, **kwargs):
        made.append(recipe)
        raise S8FastError('That is enough.')
    monkeypatch.setattr('s8fast.training.learner.get_learner', note)
    plot = '--out', tmp_path/'find.png'
    call_command('s8fast_lr_find', '--preset', 'assignment', '--wd', .1, '--drop_last', '--wd-bn-bias', *plot)
    call_command('s8fast_lr_find', *plot)
    assert made == [make_recipe(preset='assignment', wd=.1, drop_last=True, wd_bn_bias=True), Recipe()]
