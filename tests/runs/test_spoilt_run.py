"A run folder in which something is missing, damaged or of another run is refused by evaluate and report."
import re
import shutil

import pytest
import torch
from helpers import assert_sentence, edit_recipe, named, names
from safetensors.torch import load_file, save_file

from s8fast.data.dataset import load_folder
from s8fast.runs.record import RECIPE_VERSION


# Each function spoils the run and returns what the refusal has to say

def no_run(run):
    shutil.rmtree(run)
    return run, 'is no run folder'

def no_recipe(run):
    (run/'recipe.json').unlink()
    return run, 'is no run folder', 'recipe.json'

def half_a_recipe(run):
    path = run/'recipe.json'
    path.write_text(path.read_text()[:100])
    return path, 'train again'

def recipe_of_something_else(run):
    path = run/'recipe.json'
    path.write_text('{"flour": 500}')
    return path, 'train again'

def recipe_of_bytes(run):
    path = run/'recipe.json'
    path.write_bytes(b'\xff\xfe\x00')
    return path, 'train again'

def changed_recipe(run):
    path = run/'recipe.json'
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 3'))
    return path, 'sha256', 'train again'

def impossible_recipe(run):
    edit_recipe(run, lambda record: record['recipe'].update(epochs=-2))
    return run/'recipe.json', 'epochs=-2', 'train again'

def unknown_choice(run):
    edit_recipe(run, lambda record: record['recipe'].update(speed=9))
    return run/'recipe.json', "'speed'"

def newer_recipe(run):
    path = run/'recipe.json'
    newer = re.sub(rf'"version": {RECIPE_VERSION}\b', '"version": 99', path.read_text())
    path.write_text(newer)
    return path, 'version 99', 'upgrade'

def no_weights(run):
    path = run/'model.safetensors'
    path.unlink()
    return path, 'is missing', 'train again'

def other_weights(run):
    path = run/'model.safetensors'
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    return path, 'SHA-256', 'train again'

def weights_without_a_digest(run):
    "As of a run whose figures are gone: they hold the checksums of the rest."
    (run/'metrics.json').unlink()
    return run/'model.safetensors'

def half_the_weights(run):
    path = weights_without_a_digest(run)
    path.write_bytes(path.read_bytes()[:1000])
    return path, 'does not hold the weights'

def weights_of_another_network(run):
    path = weights_without_a_digest(run)
    save_file(torch.nn.Linear(2, 2).state_dict(), path)
    return path, 'does not hold the weights', 'is missing'

def weights_of_other_shapes(run):
    path = weights_without_a_digest(run)
    save_file({**load_file(path), 'fc.bias': torch.zeros(7)}, path)
    return path, 'does not hold the weights', 'fc.bias'

def a_flipped_bit_in_the_header(run):
    path = weights_without_a_digest(run)
    raw = bytearray(path.read_bytes())
    raw[20] ^= 0x80
    path.write_bytes(raw)
    return path, 'does not hold the weights'

def a_pickle_for_weights(run):
    path = weights_without_a_digest(run)
    torch.save({}, path)
    return path, 'does not hold the weights'

SPOILT = (no_run, no_recipe, half_a_recipe, recipe_of_something_else, recipe_of_bytes, changed_recipe,
          impossible_recipe, unknown_choice, newer_recipe, no_weights, other_weights, half_the_weights,
          weights_of_another_network, weights_of_other_shapes, a_flipped_bit_in_the_header, a_pickle_for_weights)

@pytest.mark.parametrize('spoil', SPOILT, ids=named)
def test_a_run_folder_that_is_spoilt(call_command, run, png, tmp_path, spoil):
    parts = spoil(run)
    load_folder(png)
    before = names(tmp_path)
    for command in ('s8fast_evaluate', 's8fast_report'):
        assert_sentence(call_command(command, run, '--data', png, '--device', 'cpu'), command, *parts)
    assert names(tmp_path) == before


def test_a_run_on_other_data(call_command, run):
    done = call_command('s8fast_evaluate', run, '--data', 'digits', '--device', 'cpu')
    assert_sentence(done, 's8fast_evaluate', 'digits', 'PNG files', run)
