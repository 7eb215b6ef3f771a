"The wheel: metadata from settings.ini, every file that the package reads; and that it works where it is installed."
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from helpers import COMMANDS, ROOT, assert_sentence, settings

import s8fast

BUILD = '''
import sys
from setuptools import build_meta
folder = sys.argv[1]  # which setuptools replaces
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
'''
TO_BUILD = 'settings.ini setup.py pyproject.toml MANIFEST.in LICENSE CONTRIBUTING.md README.md'.split()
PRETRAINED = {str(path.relative_to(ROOT)) for path in (ROOT/'s8fast'/'pretrained').iterdir()}
READ_BY_THE_PACKAGE = {'s8fast/models/winograd.c', 's8fast/interpret/report.html.jinja', 's8fast/deploy/card.md.jinja',
                       *PRETRAINED}


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A wheel and an sdist, built offline from a copy of the project."
    pytest.importorskip('setuptools', '77', reason='building needs setuptools>=77, as pyproject.toml says')
    copy, dist = tmp_path_factory.mktemp('project'), tmp_path_factory.mktemp('dist')
    for name in TO_BUILD:
        if (ROOT/name).exists(): shutil.copy(ROOT/name, copy)
    shutil.copytree(ROOT/'s8fast', copy/'s8fast', ignore=shutil.ignore_patterns('__pycache__'))
    done = subprocess.run([sys.executable, '-c', BUILD, dist], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = dist.glob('*.whl'), dist.glob('*.tar.gz')
    return wheel, sdist


@pytest.fixture(scope='module')
def wheel(built):
    "The wheel's files as `{path: bytes}`."
    with zipfile.ZipFile(built[0]) as f: return {name: f.read(name) for name in f.namelist()}


def metadata(wheel, name):
    "The text of a file of the wheel's .dist-info."
    return next(raw.decode() for path, raw in wheel.items() if path.endswith(f'.dist-info/{name}'))


# Metadata

def test_metadata_is_that_of_settings(wheel):
    cfg = settings()
    meta = Parser().parsestr(metadata(wheel, 'METADATA'))
    assert (meta['Name'], meta['Version'], meta['Summary']) == (cfg['lib_name'], cfg['version'], cfg['description'])
    assert (meta['License-Expression'] or meta['License']) == {'apache2': 'Apache-2.0'}[cfg['license']]
    assert meta['License-File'] == 'LICENSE'
    assert meta['Requires-Python'] == f'>={cfg["min_python"]}' and meta['Author'] == cfg['author']
    assert cfg['git_url'] in meta.as_string()
    assert not [line for line in meta.get_all('Classifier') if line.startswith('License')]


def names(requirements): return sorted(re.match(r'[\w.-]+', text)[0].lower() for text in requirements)


def pins(requirements):
    "The versions that are asked for, without markers."
    return {tuple(sorted(re.findall(r'[<>=!~]=?[\d.]+', text.partition(';')[0]))) for text in requirements}


def test_requirements_are_those_of_settings(wheel):
    cfg = settings()
    lines = Parser().parsestr(metadata(wheel, 'METADATA')).get_all('Requires-Dist')
    lines = [re.sub(r'[\s"\']', '', line) for line in lines]
    keys = {key.removesuffix('_requirements'): key for key in cfg if key.endswith('_requirements')}
    assert {'dev', 'export', 'hub', 'app', 'tensorboard', 'wandb', 'accelerate', 'ray', 'datasets', 'timm',
            'labels'} == set(keys)
    by_extra = {'requirements': [line for line in lines if 'extra==' not in line]}
    for extra, key in keys.items():
        by_extra[key] = [line for line in lines if f'extra=={extra}' in line.partition(';')[2]]
    for key, found in by_extra.items():
        assert names(found) == names(cfg[key].split()) and pins(found) == pins(cfg[key].split())


# Contents

def test_the_wheel_holds_the_whole_package(wheel):
    files = {path for path in wheel if '.dist-info/' not in path}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT/'s8fast').rglob('*.py')}
    assert files == modules | READ_BY_THE_PACKAGE
    assert 's8fast/pretrained/custom_resnet.safetensors' in files
    for folder in ('data', 'models', 'training', 'runs', 'interpret', 'deploy'):
        assert f's8fast/{folder}/__init__.py' in files
    for path in READ_BY_THE_PACKAGE: assert wheel[path] == (ROOT/path).read_bytes()


def test_the_wheel_holds_its_commands(wheel):
    section = metadata(wheel, 'entry_points.txt').partition('[console_scripts]')[2].partition('[nbdev]')[0]
    commands = {line.replace(' ', '') for line in section.split('\n') if line}
    assert commands == set(settings()['console_scripts'].split())
    assert metadata(wheel, 'licenses/LICENSE').lstrip().startswith('Apache License')


def test_the_sdist_holds_what_its_build_reads(built):
    with tarfile.open(built[1]) as f: files = {name.partition('/')[2] for name in f.getnames()}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'LICENSE', 's8fast/data/dataset.py'} <= files
    assert READ_BY_THE_PACKAGE <= files


def test_version_and_owner_stand_in_one_place():
    cfg = settings()
    assert s8fast.__version__ == cfg['version']  # which nbdev writes
    own = rf'version\s*=\s*["\']{re.escape(cfg["version"])}|{cfg["user"]}/{cfg["repo"]}|{cfg["user"]}\.github\.io'
    for name in ('setup.py', 'pyproject.toml', 'Makefile', 'CONTRIBUTING.md'):
        assert not re.search(own, (ROOT/name).read_text()), name
    assert '[project]' not in (ROOT/'pyproject.toml').read_text()


# Installed where nothing of the checkout is

@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    "The Python of an environment that has the wheel, and its requirements from this environment."
    env = tmp_path_factory.mktemp('environment')/'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', env], check=True)
    python = env/'bin'/'python'
    install = [sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', '--quiet',
               '--disable-pip-version-check', built[0]]
    done = subprocess.run(list(map(str, install)), capture_output=True, text=True)
    if 'No module named pip' in done.stderr: pytest.skip('pip is not here')
    assert done.returncode == 0, done.stderr
    site = next((env/'lib').glob('python*'))/'site-packages'
    (site/'requirements.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return python


def run_installed(python, *command, cwd):
    "Run something of that environment from `cwd`, where no checkout is to be found."
    variables = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    return subprocess.run(list(map(str, command)), env=variables, cwd=cwd, capture_output=True, text=True)


LOOK = '''
from importlib.resources import files
import s8fast
from s8fast.interpret.report import render
from s8fast.models.winograd import winograd_available
print(s8fast.__file__)
print(files('s8fast.models').joinpath('winograd.c').is_file(), winograd_available())
print(files('s8fast.interpret').joinpath('report.html.jinja').is_file())
'''

def test_the_installed_package_finds_its_files(installed, tmp_path):
    from s8fast.models.winograd import winograd_available
    done = run_installed(installed, installed, '-c', LOOK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where, winograd, page = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed.parent.parent)
    assert winograd == f'True {winograd_available()}' and page == 'True'


@pytest.mark.parametrize('name', COMMANDS)
def test_an_installed_command(installed, tmp_path, name):
    done = run_installed(installed, installed.with_name(name), '--version', cwd=tmp_path)
    assert done.returncode == 0 and s8fast.__version__ in done.stdout, done.stderr


def test_an_installed_command_refuses(installed, tmp_path):
    done = run_installed(installed, installed.with_name('s8fast_train'), '--epochs', 'many', cwd=tmp_path)
    assert_sentence(done, 's8fast_train', '--epochs', "'many'")


@pytest.mark.slow
def test_an_installed_command_trains_and_reports(installed, tmp_path):
    flags = '--data', 'digits', '--model', 'ultimus', '--epochs', 1, '--lr_max', 2e-3, '--device', 'cpu', '--out', 'run'
    done = run_installed(installed, installed.with_name('s8fast_train'), *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'run'/'report.html').is_file()
