"`--seeds`: a run for each seed in a folder of its own, and a summary."
import shutil

import pytest
from helpers import ULTIMUS, assert_sentence, read_json

RUN = '--epochs', 1, '--lr_max', 0.003, *ULTIMUS


@pytest.fixture(scope='module')
def two_seeds(finished_run, png):
    "The seeds 0 and 1."
    return finished_run('two_seeds', '--data', png, *RUN, '--seeds', '0,1')


def seed_folders(out): return [out/'seed0', out/'seed1']


def test_the_summary(two_seeds):
    runs = seed_folders(two_seeds.folder)
    accuracies = [read_json(run/'metrics.json')['test']['accuracy'] for run in runs]
    summary = read_json(two_seeds.folder/'summary.json')
    assert summary['accuracy']['n'] == 2 and summary['accuracy']['mean'] == pytest.approx(sum(accuracies)/2)
    assert [run['seed'] for run in summary['runs']] == [0, 1]
    assert [read_json(run/'recipe.json')['recipe']['seed'] for run in runs] == [0, 1]
    assert 'test accuracy' in two_seeds.stdout.splitlines()[-3]
    first, second = ((run/'model.safetensors').read_bytes() for run in runs)
    assert first != second


@pytest.fixture
def copied(two_seeds, tmp_path):
    "A copy of the folder of both seeds."
    return shutil.copytree(two_seeds.folder, tmp_path/'runs')


def test_a_further_seed_leaves_the_others_as_they_are(copied, call_command, png):
    before = [(run/'model.safetensors').read_bytes() for run in seed_folders(copied)]
    done = call_command('s8fast_train', '--data', png, '--out', copied, *RUN, '--seeds', '0-2')
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('is there already') == 2 and 'n = 3' in done.stdout
    assert [(run/'model.safetensors').read_bytes() for run in seed_folders(copied)] == before
    assert (copied/'seed2'/'metrics.json').is_file()


def test_the_report_of_several_seeds(copied, call_command, png):
    done = call_command('s8fast_report', copied, '--data', png, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    assert 'seed1/report.html' in (copied/'report.html').read_text()
    assert all((run/'report.html').is_file() for run in seed_folders(copied))


@pytest.mark.parametrize('flags, part', [
    (['--seeds', '0-1', '--wd', .1], 'wd: 0.05, 0.1'),
    (['--seeds', 'all'], "'all' is no seed"),
    (['--seeds', '0', '--seed', 1], '--seeds and --seed')])
def test_what_is_refused(two_seeds, call_command, png, flags, part):
    done = call_command('s8fast_train', '--data', png, '--out', two_seeds.folder, *RUN, *flags)
    assert_sentence(done, 's8fast_train', part)
