"Wrong things in a checkpoint whose checksum is right: refused with a sentence, or they decide nothing."
import shutil

import pytest
import short_runs
import torch
from forging import forge, read_parts

from s8fast.errors import S8FastError
from s8fast.runs.folder import BEGUN, STATE
from s8fast.runs.train import resume

IN_THE_QUICK_PART = 4  # of all changes, one in so many


def quiet(line): pass


def kind_of(name):
    "Tensors of one part and of one use in it are one kind."
    return name.split('.')[0], name.split('.')[-1]


class Without:
    "A tensor is missing."
    def __init__(self, name): self.name = name
    def __call__(self, tensors, plain): del tensors[self.name]


class Reshaped:
    "A tensor has another shape."
    def __init__(self, name): self.name = name
    def __call__(self, tensors, plain): tensors[self.name] = torch.zeros(3, 3)


class Instead:
    "Something else stands in the plain part, where the path leads."
    def __init__(self, path, bad): self.path, self.bad = path, bad

    def __call__(self, tensors, plain):
        *above, last = self.path
        for key in above: plain = plain[key]
        plain[last] = self.bad


def changes(tensors, plain):
    "Every change that is tried."
    one_of_each_kind = {kind_of(name): name for name in sorted(tensors, reverse=True)}
    for name in sorted(one_of_each_kind.values()):
        yield Without(name)
        yield Reshaped(name)
    for key, value in plain.items():
        a_number = isinstance(value, (int, float))
        for bad in ('x', [1], None, -1) if a_number else ('x', 3, [1], None, -1): yield Instead([key], bad)
    for callback, state in plain['callbacks'].items():
        for key in state:
            for bad in ('x', [1], None) if key == 'seconds' else ('x', [1], None, -1):
                yield Instead(['callbacks', callback, key], bad)
    for key in plain['record']:
        for bad in ('x', 3, [1], None): yield Instead(['record', key], bad)


@pytest.mark.parametrize('part', ['some', pytest.param('others', marks=pytest.mark.slow)])
def test_forged_checkpoints(stopped, one_thread, reference, tmp_path, count, part):
    everything = list(changes(*read_parts(stopped/STATE)))
    some = everything[::IN_THE_QUICK_PART]
    chosen = some if part == 'some' else [change for change in everything if change not in some]
    copy, expected = shutil.copytree(stopped, tmp_path/'copy'), short_runs.results(reference['batch'])[:2]
    for change in chosen:
        forge(stopped/STATE, change)
        try: resume(stopped, short_runs.few_digits(), log=quiet)
        except S8FastError as error: assert str(error).endswith('.'), error
        else: assert short_runs.results(stopped)[:2] == expected  # what was changed decides nothing
        shutil.rmtree(stopped)
        shutil.copytree(copy, stopped)
    count({'forged checkpoints': len(chosen)})


def test_a_run_that_a_later_version_began(stopped, one_thread, count):
    for name in (BEGUN, 'recipe.json'): (stopped/name).unlink()
    forge(stopped/STATE, lambda tensors, plain: plain['record']['record'].update(version=99))
    with pytest.raises(S8FastError, match='version 99'): resume(stopped, short_runs.few_digits(), log=quiet)
    count(['runs of a later version'])
