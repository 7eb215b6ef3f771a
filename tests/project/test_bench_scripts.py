"The other scripts of bench/: what is kept of a run, data that is not there, wheels for a machine without a network."
import importlib

import pytest
import torch
from helpers import BENCH, assert_sentence, edit_json
from safetensors.torch import load_file

from s8fast.interpret.predictions import predict


@pytest.mark.parametrize('script', ['pipeline', 'startup', 'step', 'train'])
def test_data_that_is_not_there(script, tmp_path, call_command):
    more = ['--scaling'] if script == 'train' else []
    done = call_command(BENCH/f'{script}.py', '--data', tmp_path/'none', *more)
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert done.stderr.startswith(f'{script}.py: ') and 'none' in done.stderr


def test_what_is_kept_of_a_run(png_run, png, tmp_path, call_command):
    "Its own files, logits that give its figures, weights in half the bytes."
    run, out = png_run.folder, tmp_path/'kept'
    done = call_command(BENCH/'record.py', run, out, '--data', png, '--device', 'cpu', '--weights', '--pictures')
    assert done.returncode == 0, done.stderr
    for name in ('recipe.json', 'history.csv', 'metrics.json', 'curves.png'):
        assert (out/name).read_bytes() == (run/name).read_bytes()
    logits = load_file(out/'logits.safetensors')
    assert set(logits) == {'test', 'valid'}
    for part, found in logits.items(): assert found.equal(predict(run, part, png, 'cpu').logits.half())
    assert (out/'weights.safetensors').stat().st_size < .6*(run/'model.safetensors').stat().st_size
    kept = load_file(out/'weights.safetensors')
    for name, tensor in load_file(run/'model.safetensors').items():
        assert kept[name].equal(tensor.half() if tensor.is_floating_point() else tensor)


def test_the_device_of_the_run_is_waited_for(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    from common import wait
    waited = []
    monkeypatch.setattr(torch.cuda, 'synchronize', waited.append)
    for name in ('cpu', 'cuda:1'): wait(torch.device(name))
    assert waited == [torch.device('cuda:1')]


def test_a_run_with_figures_that_are_not_its_own_is_not_kept(run, png, tmp_path, call_command):
    edit_json(run/'metrics.json', lambda metrics: metrics['test'].update(accuracy=.99))
    done = call_command(BENCH/'record.py', run, tmp_path/'none', '--data', png, '--device', 'cpu')
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert 'metrics.json says 99.00%' in done.stderr and not (tmp_path/'none').exists()


# Wheels for a machine without a network

METADATA = {
    'a': dict(requires_dist=['B[fast]>=1', 'spacy', 'never; python_version < "3.12"',
                             'elsewhere; sys_platform == "win32"']),
    'b': dict(requires_dist=['c; extra == "fast"', 'd; extra == "slow"', 'a']),
    'c': {}, 'd': {}, 'spacy': {}, 'never': {}, 'elsewhere': {}}

def test_what_a_package_needs_on_that_machine(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    needed = importlib.import_module('offline_wheels').needed
    assert needed(['a==1'], METADATA) == {'a', 'b', 'c'}
    assert needed(['b'], METADATA) == {'a', 'b', 'c'}  # for `fast`, which a asks for
    assert needed(['c', 'not-found'], METADATA) == {'c'}


@pytest.mark.parametrize('folder, says', [('full', 'holds wheels already'), ('file/wheels', 'cannot be made')])
def test_folders_for_wheels_that_are_refused(folder, says, tmp_path, call_command):
    (tmp_path/'full').mkdir()
    (tmp_path/'full'/'a.whl').touch()
    (tmp_path/'file').touch()
    done = call_command(BENCH/'offline_wheels.py', tmp_path/folder)
    assert_sentence(done, 'offline_wheels.py', says)
