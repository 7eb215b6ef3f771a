"`s8fast_study`: arms by seeds, each run an ordinary run folder; stopped, helped, refused."
import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import assert_sentence, edit_json, file_names, read_json, script, take_signals_again

STUDY = '''
[base]
model = "ultimus"
epochs = 1
bs = 16
lr_max = 3e-3
valid_pct = 0.125
device = "cpu"
precision = "fp32"

[arms.smoothing]
label_smoothing = 0.1
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path/'small.toml'
    path.write_text(STUDY)
    return path


@pytest.fixture
def study(call_command, file, png, tmp_path):
    "The command in this process."
    def study(*args, out=tmp_path/'out'): return call_command('s8fast_study', file, '--data', png, '--out', out, *args)
    return study


def digests(out):
    "SHA-256 of the weights of each run."
    return {path.parent.relative_to(out).as_posix(): read_json(path)['files']['model.safetensors']
            for path in out.rglob('metrics.json')}


def test_arms_by_seeds(study, file, png, tmp_path, call_command):
    "Every run is what s8fast_train makes; the summary has their validation figures, in pairs."
    assert study('--seeds', '0-1', '--dry_run').stdout == '2 arms, 2 seeds: 4 runs, 4 of them to do\n'
    assert not (tmp_path/'out').exists()
    done = study('--seeds', '0-1')
    assert done.returncode == 0 and 'difference to the base' in done.stdout, done.stderr
    out = tmp_path/'out'
    assert set(digests(out)) == {f'{arm}/seed{seed}' for arm in ('base', 'smoothing') for seed in (0, 1)}
    summary = read_json(out/'summary.json')
    for arm in ('base', 'smoothing'):
        for seed in '01':
            metrics = read_json(out/arm/f'seed{seed}'/'metrics.json')
            assert summary['arms'][arm]['accuracy'][seed] == metrics['valid']['accuracy']
    assert summary['part'] == 'valid' and summary['arms']['smoothing']['difference']['n'] == 2
    page = (out/'report.html').read_text(encoding='utf8')
    assert 'smoothing' in page and 'validation accuracy' in page and 'src="data:image/png' in page
    args = ('--model', 'ultimus', '--epochs', 1, '--bs', 16, '--lr_max', 3e-3, '--valid_pct', .125, '--device', 'cpu',
            '--precision', 'fp32', '--seed', 1, '--label_smoothing', .1, '--no_report')
    assert call_command('s8fast_train', '--data', png, '--out', tmp_path/'alone', *args).returncode == 0
    alone = read_json(tmp_path/'alone'/'metrics.json')['files']['model.safetensors']
    assert digests(out)['smoothing/seed1'] == alone
    again = study('--seeds', '0-2', '--dry_run').stdout
    assert again.startswith('2 arms, 3 seeds: 6 runs, 2 of them to do, about ') and 's a run' in again
    assert call_command('s8fast_report', '--compare', out/'base'/'seed0', out/'smoothing'/'seed0', '--out',
                        tmp_path/'x.html').returncode == 0


def test_a_failed_run_is_counted(study, file, tmp_path):
    file.write_text(STUDY + '[arms.explodes]\nlr_max = 1e6\nlabel_smoothing = 0.0\naverage = 0.0\n')
    done = study('--seeds', '0')
    assert done.returncode == 0 and 'failed: The loss' in done.stdout, done.stderr
    summary = read_json(tmp_path/'out'/'summary.json')
    assert summary['arms']['explodes']['failed'] == [0] and summary['arms']['explodes']['mean'] is None
    assert '0 of them to do' in study('--seeds', '0').stdout


@pytest.mark.slow
def test_stopped_and_gone_on_with(file, png, tmp_path, study):
    "A signal ends it with its status; the same command goes on, and nothing is trained twice."
    command = [script('s8fast_study'), file, '--seeds', '0-1', '--data', png, '--out', tmp_path/'out']
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    while 'epoch' not in (line := process.stdout.readline()): assert line
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and 'Traceback' not in err, err
    before = digests(tmp_path/'out')
    assert len(before) < 4
    assert study('--seeds', '0-1').returncode == 0
    after = digests(tmp_path/'out')
    assert len(after) == 4 and all(after[name] == digest for name, digest in before.items())


# Several processes

def start(file, *args, epochs=1):
    "The command with runs of one thread, two of them at a time."
    file.write_text(STUDY.replace('epochs = 1', f'epochs = {epochs}'))
    command = [script('s8fast_study'), file, '--seeds', '0-1', '--threads', 1, *args]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=env, preexec_fn=take_signals_again)


def workers_of(process):
    "Process numbers of its workers."
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        try: stat, words = (path/'stat').read_text(), (path/'cmdline').read_bytes()
        except OSError: continue
        parent = int(stat.rpartition(')')[2].split()[1])
        if parent == process.pid and b'spawn_main' in words: found.append(int(path.name))
    return found


def wait_for(look, seconds=120):
    "What `look()` gives, once that is something."
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until: time.sleep(.05)
    assert found
    return found


def with_checkpoint(out, n):
    "The runs that are under way with a checkpoint, once there are `n`."
    found = [path.parent.parent for path in out.glob('*/*/checkpoint/state.safetensors')]
    return len(found) >= n and found


def began(runs): return {run: (run/'recipe.json').stat().st_mtime_ns for run in runs}


@pytest.mark.slow
def test_a_worker_that_is_killed(file, png, tmp_path, study):
    "Its run goes on from the checkpoint, and every run is what it is in one process."
    process = start(file, '--data', png, '--out', tmp_path/'two', '--workers', 2, epochs=20)
    runs = began(wait_for(lambda: with_checkpoint(tmp_path/'two', 2)))
    os.kill(workers_of(process)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and 'its process was ended from outside' in out and '4 of 4: ' in out, err
    assert began(runs) == runs and 'Traceback' not in err
    process = start(file, '--data', png, '--out', tmp_path/'one', epochs=20)
    assert process.wait(300) == 0
    assert digests(tmp_path/'one') == digests(tmp_path/'two') and len(digests(tmp_path/'one')) == 4


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_study(file, png, tmp_path, signum):
    "Whatever ends it, no process is left, and the same command goes on from the checkpoints."
    process = start(file, '--data', png, '--out', tmp_path/'out', '--workers', 2, epochs=20)
    runs = began(wait_for(lambda: with_checkpoint(tmp_path/'out', 2)))
    workers = workers_of(process)
    process.send_signal(signum)
    err = process.communicate(timeout=60)[1]
    assert len(list((tmp_path/'out').glob('*/*'))) == 2  # no further run was begun
    assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    if signum != signal.SIGKILL: assert err.splitlines() == ['s8fast_study: Interrupted: the same command goes on with '
                                                             'the study.']
    wait_for(lambda: not any(Path(f'/proc/{pid}').exists() for pid in workers), 30)
    process = start(file, '--data', png, '--out', tmp_path/'out', '--workers', 2, epochs=20)
    assert process.wait(300) == 0 and began(runs) == runs and len(digests(tmp_path/'out')) == 4


@pytest.mark.slow
def test_a_second_one_helps(file, png, tmp_path):
    "Two at once on one folder: every run is there once, none was made twice."
    command = [str(part) for part in (script('s8fast_study'), file, '--seeds', '0-1', '--data', png, '--out',
                                      tmp_path/'out')]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
            for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], [err for _, err in said]
    assert len(digests(tmp_path/'out')) == 4
    assert sum(out.count('epoch  1/1') for out, _ in said) == 4


def test_test_figures_once_seen(study, file, tmp_path):
    assert study('--seeds', '0', '--test').returncode == 0
    assert read_json(tmp_path/'out'/'summary.json')['part'] == 'test'
    file.write_text(STUDY + '[arms.other]\nwd = 0.0\n')
    before = file_names(tmp_path)
    assert_sentence(study('--seeds', '0'), 's8fast_study', "so 'other' cannot be added")
    assert file_names(tmp_path) == before


@pytest.mark.parametrize('text, said', [
    ('[arms.a]\nfly = 1', "'fly'"), ('[base]\nepochs = 0\n[arms.a]\nwd = 1', 'epochs=0'),
    ('[arms.a]\nwd = 1\n[arms.a]\nwd = 2', 'is no study'), ('[arms.a]', "same choices as 'base'"),
    ('[arms.a]\nwd = 1\n[arms.b]\nwd = 1', "same choices as 'a'"), ('[arms."../x"]\nwd = 1', 'cannot be a folder'),
    ('arms = 3', 'no arms'), ('[base]\nseed = 1\n[arms.a]\nwd = 1', '--seeds'), ('\xff\x00', 'is no study'),
    ('base = 1\n[arms.a]\nwd = 1', 'is no table'), ('[base]\nmodel = "none"\n[arms.a]\nwd = 1', 'none')])
def test_bad_studies(study, file, tmp_path, text, said):
    file.write_text(text, encoding='latin1')
    assert_sentence(study('--seeds', '0'), 's8fast_study', said)
    assert not (tmp_path/'out').exists()


def test_bad_options(study, call_command, file, run, png, tmp_path):
    assert_sentence(study('--seeds', 'many'), 's8fast_study', "'many'")
    assert_sentence(study(), 's8fast_study', '--seeds')
    assert_sentence(study('--seeds', 0, '--workers', 0), 's8fast_study', '--workers 0')
    assert_sentence(study('--seeds', 0, '--workers', 999), 's8fast_study', '999 processes need 999 CPU cores')
    assert_sentence(study('--seeds', 0, '--workers', 'two'), 's8fast_study', "'two'")
    assert_sentence(study('--seeds', 0, '--threads', 0), 's8fast_study', '--threads 0')
    assert_sentence(study('--seeds', 0, '--workers', 2, '--ray', 'auto'), 's8fast_study', 'give one of them')
    if not importlib.util.find_spec('ray'):
        assert_sentence(study('--seeds', 0, '--ray', 'auto'), 's8fast_study', "pip install 's8fast[ray]'")
    assert not (tmp_path/'out').exists()
    assert_sentence(study('--seeds', 0, out=run), 's8fast_study', 'is a run folder itself')
    assert_sentence(call_command('s8fast_study', tmp_path/'none.toml', '--seeds', 0), 's8fast_study', 'cannot be read')
    file.write_text(STUDY.replace('0.125', '0.0'))
    assert_sentence(study('--seeds', 0), 's8fast_study', 'hold no images out')


def test_a_folder_of_another_study(study, file, tmp_path):
    assert study('--seeds', '0').returncode == 0
    file.write_text(STUDY.replace('epochs = 1', 'epochs = 2'))
    assert_sentence(study('--seeds', '0'), 's8fast_study', 'another recipe', 'epochs')
    file.write_text(STUDY)
    edit_json(tmp_path/'out'/'summary.json', lambda summary: summary.update(arms=7))
    assert_sentence(study('--seeds', '0'), 's8fast_study', 'summary.json is damaged')
