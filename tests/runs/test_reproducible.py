"The same recipe and seed make the same run, to the last bit."
import pytest
import torch
from helpers import history_rows, read_json, without


def without_clock(run): return [without(row, 'seconds') for row in history_rows(run)]


@pytest.mark.parametrize('given', ['run folder', 'recipe.json'])
def test_a_recipe_makes_the_run_again(call_command, png_run, png, tmp_path, given):
    run, again = png_run.folder, tmp_path/'again'
    recipe = run if given == 'run folder' else run/'recipe.json'
    done = call_command('s8fast_train', '--recipe', recipe, '--data', png, '--out', again, '--no_report')
    assert done.returncode == 0, done.stderr
    assert (again/'model.safetensors').read_bytes() == (run/'model.safetensors').read_bytes()
    for part in ('test', 'valid'): assert read_json(again/'metrics.json')[part] == read_json(run/'metrics.json')[part]
    assert without_clock(again) == without_clock(run)


def test_choices_beside_a_recipe_change_it(call_command, png_run, png, tmp_path):
    done = call_command('s8fast_train', '--recipe', png_run.folder, '--data', png, '--out', tmp_path/'other',
                        '--no_report', '--epochs', 1, '--seed', 0)
    assert done.returncode == 0, done.stderr
    old, new = (read_json(folder/'recipe.json')['recipe'] for folder in (png_run.folder, tmp_path/'other'))
    assert {name: (old[name], new[name]) for name in old if old[name] != new[name]} == {'epochs': (2, 1)}


def test_deterministic_is_recorded_and_changes_nothing_on_a_cpu(call_command, png_run, png, tmp_path):
    done = call_command('s8fast_train', '--recipe', png_run.folder, '--data', png, '--out', tmp_path/'run',
                        '--no_report', '--deterministic')
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path/'run'/'recipe.json')['recipe']['deterministic'] is True
    assert not torch.are_deterministic_algorithms_enabled()
    weights = [(folder/'model.safetensors').read_bytes() for folder in (tmp_path/'run', png_run.folder)]
    assert weights[0] == weights[1]
