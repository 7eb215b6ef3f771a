"--help and --version: every option with its meaning and default, without waiting for PyTorch."
import re
import subprocess
import sys

import pytest
from helpers import COMMANDS, script

import s8fast
from s8fast.models.zoo import MODELS
from s8fast.recipe import PRESETS, choices

HEAVY = {'torch', 'fastai', 'numpy', 'matplotlib', 'PIL', 'sklearn', 'albumentations', 'cv2'}


@pytest.mark.parametrize('name', COMMANDS)
def test_help_needs_no_heavy_import(name):
    done = subprocess.run([sys.executable, '-X', 'importtime', script(name), '--help'], capture_output=True, text=True)
    imported = {line.rpartition('|')[2].strip().split('.')[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0 and done.stdout.startswith('usage: ') and 's8fast' in imported
    assert not imported & HEAVY


@pytest.mark.parametrize('name', COMMANDS)
def test_version(call_command, name):
    done = call_command(name, '--version')
    assert done.returncode == 0 and done.stderr == ''
    assert re.fullmatch(rf'{name}\b.* {re.escape(s8fast.__version__)}\n', done.stdout), done.stdout


def read_help(text):
    "`{option: its lines as one}`."
    paragraphs = [found.partition('\n\n')[0] for found in re.split(r'\n  (?=\S)', text)[1:]]  # without group titles
    return {text.split()[0].strip('-,'): ' '.join(text.split()) for text in paragraphs}


@pytest.fixture
def shown(call_command): return lambda name: read_help(call_command(name, '--help').stdout)


@pytest.mark.parametrize('name', COMMANDS)
def test_every_option_is_explained(shown, name):
    for option, text in shown(name).items():
        assert len(text) > len(option) + 15, text


def without_blanks(text): return re.sub(r'\s', '', text)


@pytest.mark.parametrize('choice', choices(), ids=lambda choice: choice.name)
def test_a_choices_line_says_its_meaning_and_default(shown, choice):
    line, default = without_blanks(shown('s8fast_train')[choice.name]), choice.default
    if isinstance(default, float): default = f'{default:.6g}'
    if isinstance(default, bool): default = int(default)
    assert choice.help and without_blanks(choice.help) in line and f'(default:{default})' in line
    assert line == without_blanks(shown('s8fast_lr_find')[choice.name])


def test_the_networks_and_presets_are_named(shown):
    options = shown('s8fast_train')
    for name in MODELS: assert re.search(rf'\b{name}\b', options['model'])
    for name in set(PRESETS) - set(MODELS): assert re.search(rf'\b{name}\b', options['preset'])
