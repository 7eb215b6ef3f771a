"A recipe is right, or refused by the name of a choice."
import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SCALAR, TREE

from s8fast.errors import S8FastError
from s8fast.recipe import AUTO, PRESETS, Recipe, choices, differences, make_recipe
from s8fast.runs.record import recipe_of

NAMES = [choice.name for choice in choices()]
MANY = settings(max_examples=200, deadline=None)


@MANY
@given(st.dictionaries(st.sampled_from(NAMES), SCALAR, max_size=5))
def test_any_values_of_choices(values):
    try: recipe = Recipe(**values)
    except S8FastError as error: assert str(error).endswith('.')
    else:
        assert all(getattr(recipe, name) == value for name, value in values.items())
        assert not differences(recipe, Recipe(**asdict(recipe)))
        json.dumps(asdict(recipe), allow_nan=False)


@MANY
@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(NAMES), TREE, max_size=5))
def test_any_dictionary_as_a_recorded_recipe(values):
    try: recipe_of(dict(recipe=values))
    except S8FastError: pass


@pytest.mark.parametrize('name, value', [
    ('epochs', 1.5), ('epochs', True), ('epochs', None), ('bs', '512'), ('bs', None), ('lr_max', '0.1'),
    ('lr_max', None), ('drop_last', 1), ('shape', None), ('device', None), ('wd', 1j), ('wd', AUTO), ('cutout', 8.),
    ('model', None), ('num_workers', 'many')])
def test_a_value_of_another_type(name, value):
    with pytest.raises(S8FastError) as error: Recipe(**{name: value})
    assert f'{name}={value!r} is not allowed: give ' in str(error.value)


@pytest.mark.parametrize('choice', [choice for choice in choices() if choice.low is not None], ids=lambda c: c.name)
def test_a_number_out_of_its_bounds(choice):
    for value in (choice.low - 1, choice.high + 1, float('nan'), float('inf')):
        with pytest.raises(S8FastError, match=f'{choice.name}=.* from {choice.low} to'): Recipe(**{choice.name: value})
    for value in (choice.low, choice.high): choice.check(choice.kind(value))


def test_a_network_brings_its_preset():
    assert make_recipe() == make_recipe(model='custom_resnet') == Recipe()
    small = make_recipe(model='ultimus', wd=.1)
    assert asdict(small) == {**asdict(Recipe()), **PRESETS['ultimus'], 'wd': .1}
    assert make_recipe(model='ultimus', preset='assignment').bs == PRESETS['ultimus']['bs']


def test_a_preset_that_there_is_not():
    with pytest.raises(S8FastError, match="preset='worst' is unknown: give default, final"): make_recipe(preset='worst')
