"Options that would play no part are refused, short runs look like what they are, and the next step is always named."
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios

import pytest
import short_runs
from helpers import ON_CPU, ROOT, assert_sentence, file_names, read_json, script

import s8fast.interpret.report
from s8fast.recipe import make_recipe
from s8fast.runs.folder import STATE, Run
from s8fast.runs.record import upgrade_recipe
from s8fast.training.learner import get_learner
from s8fast.training.optimizer import WeightAverage

SHORT = '--data', 'digits', '--model', 'ultimus', *ON_CPU[:2], '--device', 'cpu', '--valid_pct', .7, '--epochs', 1
EXPLODES = *SHORT, '--lr_max', 1e6


# Options that play no part

@pytest.mark.parametrize('command, args, parts', [
    ('s8fast_report', ['RUN', '--out', 'x.html'], ['--out plays no part', 'run folder']),
    ('s8fast_report', ['--compare', 'RUN', 'RUN', '--layers', 'prep'], ['--layers plays no part']),
    ('s8fast_report', ['--compare', 'RUN', 'RUN', '--data', 'digits'], ['--data plays no part']),
    ('s8fast_report', ['--compare', 'RUN', 'RUN', '--device', 'cpu'], ['--device plays no part']),
    ('s8fast_train', ['--num_workers', 2], ['--num_workers plays no part', 'pipeline=batch']),
    ('s8fast_train', ['--pad', 0, '--pad_mode', 'zeros'], ['--pad_mode plays no part', 'pad=0']),
    ('s8fast_train', ['--preset', 'final', '--split_seed', 1], ['--split_seed plays no part', 'valid_pct=0']),
    ('s8fast_lr_find', ['--num_workers', 3], ['--num_workers plays no part'])])
def test_an_option_that_plays_no_part(call_command, png_run, tmp_path, monkeypatch, command, args, parts):
    monkeypatch.chdir(tmp_path)
    args = [png_run.folder if arg == 'RUN' else arg for arg in args]
    assert_sentence(call_command(command, *args), command, *parts, 'leave it out')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args, part', [
    (['--epochs', '0.5'], "'0.5'"), (['--fast'], '--fast'), (['--lr', 1e-3], '--lr')])
def test_no_page_of_usage(call_command, args, part):
    assert_sentence(call_command('s8fast_train', *args), 's8fast_train', part)


def test_an_empty_data_folder_starts_no_download(call_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_sentence(call_command('s8fast_train', '--data', ''), 's8fast_train', '--data', 'empty')
    assert not list(tmp_path.iterdir())


# A short run: the average's reach follows its length

@pytest.mark.parametrize('epochs, average, horizon', [
    (24, 1., 44), (48, 1., 44), (12, 1., 22), (1, 1., 44/24), (6, 4., 44)])
def test_the_horizon_of_the_average(epochs, average, horizon):
    recipe = make_recipe('ultimus', epochs=epochs, average=average, bs=32, device='cpu')
    learn = get_learner(recipe, 'digits')
    found, = (cb.horizon for cb in learn.cbs if isinstance(cb, WeightAverage))
    assert len(learn.dls.train) == 44 and found == pytest.approx(horizon)


@pytest.mark.parametrize('version', range(4, 8))
def test_a_recorded_recipe_keeps_its_meaning(version):
    old = dict(version=version, recipe=dict(epochs=6, average=.5, winograd=True))
    new = upgrade_recipe(old)['recipe']
    assert new['average']*6/24 == pytest.approx(.5)  # epochs, as then
    whole = dict(version=version, recipe=dict(epochs=24, average=.5, winograd=True))
    assert upgrade_recipe(whole)['recipe']['average'] == .5
    assert upgrade_recipe(dict(old, version=8))['recipe']['average'] == .5


def test_recorded_runs_of_24_epochs_say_what_they_said():
    for path in (ROOT/'results').rglob('recipe.json'):
        recorded = json.loads(path.read_text())
        if recorded['recipe'].get('epochs') == 24 and 'average' in recorded['recipe']:
            assert Run(path.parent).record['recipe']['average'] == recorded['recipe']['average']


# After a run that has no result

def test_after_a_loss_that_is_not_finite(call_command, tmp_path):
    out = tmp_path/'run'
    assert call_command('s8fast_train', *EXPLODES, '--out', out).returncode == 3
    done = call_command('s8fast_train', *EXPLODES, '--out', out)
    assert_sentence(done, 's8fast_train', 'ended without a result', 'not finite', '--force replaces it')
    assert '--resume' not in done.stderr
    refused = call_command('s8fast_train', *SHORT, '--data', 'no/such/data', '--out', out, '--force')
    assert refused.returncode == 2 and Run(out).failure  # which changes nothing
    done = call_command('s8fast_train', *SHORT, '--lr_max', 1e-3, '--out', out, '--force', '--no_report')
    assert done.returncode == 0 and 'checkpoint/failed.txt' not in file_names(out), done.stderr


# After a report that was interrupted

@pytest.mark.slow
def test_ctrl_c_in_the_report_and_then_resume(call_command, tmp_path, monkeypatch):
    out = tmp_path/'run'
    def interrupted(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(s8fast.interpret.report, 'predict', interrupted)
    done = call_command('s8fast_train', *SHORT, '--lr_max', 1e-3, '--out', out)
    assert done.returncode == 130 and f's8fast_report {out} writes the report' in done.stderr, done.stderr
    assert Run(out).state == 'finished'
    monkeypatch.undo()
    done = call_command('s8fast_train', '--resume', out)
    assert done.returncode == 0 and (out/'report.html').exists(), done.stderr
    done = call_command('s8fast_train', '--resume', out)
    assert 'there is nothing to do' in done.stdout and 'report: ' not in done.stdout


def test_resume_does_not_look_for_data_to_write_a_report(call_command, run):
    done = call_command('s8fast_train', '--resume', run)
    assert done.returncode == 0 and f's8fast_report {run} --data DIR' in done.stdout, done.stderr


# Signals and terminals

def test_a_window_that_is_closed(tmp_path):
    "The terminal is gone: nothing can be written to it, and the step is finished all the same."
    ours, theirs = pty.openpty()
    out = tmp_path/'run'
    flags = *SHORT[:-1], 500, '--lr_max', 1e-3, '--out', out, '--no_report'
    def take_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests themselves were started with
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    process = subprocess.Popen([script('s8fast_train'), *map(str, flags)], stdin=theirs, stdout=theirs, stderr=theirs,
                               start_new_session=True, preexec_fn=take_terminal)
    os.close(theirs)
    try:
        while not (out/STATE).exists() and process.poll() is None:
            if select.select([ours], [], [], .1)[0]: os.read(ours, 65536)
        os.close(ours)
        assert process.wait(60) == 128 + signal.SIGHUP
    finally: process.kill()
    assert Run(out).state == 'stopped' and Run(out).checkpoint.rows


def test_a_terminal_that_is_closed(tmp_path):
    out = tmp_path/'run'
    flags = *SHORT[:-1], 100, '--lr_max', 1e-3, '--out', out, '--no_report'
    command = short_runs.Command(tmp_path, 's8fast_train', *flags).until('epoch  2/')
    for _ in range(2): command.kill(signal.SIGHUP)  # the shell sends one, the system another
    status, _, said = command.wait()
    assert status == 128 + signal.SIGHUP and 'Stopped by SIGHUP' in said and '--resume' in said
    assert Run(out).state == 'stopped'


@pytest.mark.parametrize('name', ['s8fast_train', 's8fast_report'])
def test_help_in_forty_columns(run_command, name):
    done = run_command(name, '--help', env=dict(COLUMNS='40'))
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80


# The module

def run_module(*args):
    done = subprocess.run([sys.executable, '-m', 's8fast', *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr

def test_as_a_module(tmp_path):
    assert run_module('train', '--version') == (0, run_module('--version')[1].replace('s8fast ', 's8fast_train '), '')
    status, out, _ = run_module()
    assert status == 0 and all(name in out for name in ('train', 'lr_find', 'evaluate', 'report'))
    status, out, err = run_module('fly')
    assert (status, out) == (2, '') and "no command 'fly'" in err
    status, out, err = run_module('train', *SHORT, '--lr_max', 1e-3, '--no_report', '--out', tmp_path/'run')
    assert status == 0 and read_json(tmp_path/'run'/'metrics.json')['epochs'] == 1, err
