"Several runs on one page: what differs between them, and what there is nothing to compare with."
import re
import shutil

import pytest
from helpers import assert_sentence, edit_json, edit_recipe
from pages import assert_self_contained

#: Choices that the first version's recipes did not have yet.
NOT_YET = ('model', 'pipeline', 'pad', 'cutout', 'deterministic', 'pad_mode', 'label_smoothing', 'average',
           'bn_momentum')


@pytest.fixture
def other(run, tmp_path): return shutil.copytree(run, tmp_path/'other')


def compared(call_command, tmp_path, *runs):
    "The page that compares the runs."
    done = call_command('s8fast_report', '--compare', *runs, '--out', tmp_path/'both.html')
    assert done.returncode == 0, done.stderr
    return (tmp_path/'both.html').read_text()


def test_only_what_differs_is_shown(call_command, run, other, tmp_path):
    edit_recipe(other, lambda record: record['recipe'].update(wd=0.125))
    page = compared(call_command, tmp_path, run, other)
    assert assert_self_contained(page) == 1
    assert '<td>wd</td><td>0.05</td><td>0.125</td>' in page and '<td>seed</td>' not in page


def as_in_the_first_version(record):
    for name in NOT_YET: del record['recipe'][name]
    del record['chosen']['winograd']
    record.update(version=1, model='ultimus')


def figures_of_the_first_version(metrics):
    for name in ('version', 'files'): metrics.pop(name, None)


def test_with_a_run_of_the_first_version(call_command, run, other, tmp_path):
    "What its recipe did not say yet is filled in as it was then."
    edit_recipe(other, as_in_the_first_version)
    edit_json(other/'metrics.json', figures_of_the_first_version)
    page = compared(call_command, tmp_path, run, other)
    rows = ('pipeline', 'batch', 'item'), ('pad_mode', 'reflect', 'zeros'), ('pad', '0', '4'), ('cutout', '0', '8')
    for row in rows: assert ''.join(f'<td>{cell}</td>' for cell in row) in page, row
    assert not re.search('<td>(model|label_smoothing|average)</td>', page)


@pytest.mark.parametrize('args, parts', [
    (['--compare', 'RUN'], ['1 run', 'two or more']),
    (['--compare', 'RUN', 'no/such/run'], ['no/such/run', 'recipe.json']),
    (['--compare', 'RUN', 'RUN', '--out', 'missing/both.html'], ['missing/both.html', '--out'])])
def test_what_is_refused(call_command, run, args, parts):
    before = {path.name for path in run.iterdir()}
    args = [run if arg == 'RUN' else arg for arg in args]
    assert_sentence(call_command('s8fast_report', *args), 's8fast_report', *parts)
    assert {path.name for path in run.iterdir()} == before
