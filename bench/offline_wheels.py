#!/usr/bin/env python3
"""Download the wheels that a machine without a network still needs to run s8fast.

The machine has Linux on x86-64, Python 3.12, PyTorch 2.11, torchvision, numpy, scipy, scikit-learn, pandas, matplotlib
and what these need; `--there` names more that it has. What s8fast needs on top is looked up in settings.ini, resolved
by pip against that PyTorch, and written to the folder. fastai's requirement spacy is left out, since only fastai.text
imports it, and so is opencv-python, in whose place s8fast has opencv-python-headless.
"""
import argparse, json, subprocess, sys, tempfile
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHON = '3.12'
THERE = 'torch==2.11.* torchvision numpy scipy scikit-learn pandas matplotlib'.split()
LEFT_OUT = {'spacy', 'opencv-python'}
ONLY_SOURCE = 'grad-cam',  # its author publishes no wheel, so one is built
PLATFORMS = [*(f'manylinux_2_{n}_x86_64' for n in range(28, 16, -1)), 'manylinux2014_x86_64', 'manylinux1_x86_64']
FOR_MACHINE = ['--only-binary=:all:', '--implementation=cp', f'--python-version={PYTHON}',
               *(f'--platform={name}' for name in PLATFORMS)]
#: What the markers of a requirement ask for.
MARKERS = dict(python_version=PYTHON, python_full_version=f'{PYTHON}.0', implementation_name='cpython', os_name='posix',
               platform_python_implementation='CPython', platform_machine='x86_64', platform_system='Linux',
               sys_platform='linux')


def leave(sentence):
    "End with a sentence and exit status 2."
    print(f'offline_wheels.py: {sentence}', file=sys.stderr)
    sys.exit(2)


def pip(*arguments):
    "Run pip; where it fails, what it said ends this script."
    done = subprocess.run([sys.executable, '-m', 'pip', *map(str, arguments)], capture_output=True, text=True)
    if not done.returncode: return
    said = [line for line in done.stderr.splitlines() if line.startswith('ERROR')] or done.stderr.splitlines()
    leave(f'pip {arguments[0]} failed ({" ".join(said[-2:])[:400]}): see to the package index, or change --also.')


def make_folder(path):
    "Make the folder where it is missing. One that holds wheels is refused: two versions of a package stop pip there."
    try: path.mkdir(parents=True, exist_ok=True)
    except OSError as e: leave(f'{path} cannot be made ({e.strerror}): give another folder.')
    if any(path.glob('*.whl')): leave(f'{path} holds wheels already: give an empty folder.')


def requirements():
    "What a user of s8fast installs, as settings.ini says it."
    parser = ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']['requirements'].split()


def resolve(folder, wanted):
    "The metadata of all that pip would install for `wanted`, by name; wheels in `folder` count."
    with tempfile.TemporaryDirectory() as there:
        report = Path(there)/'report.json'
        pip('install', '--dry-run', '--quiet', '--ignore-installed', f'--report={report}', f'--target={there}',
            f'--find-links={folder}', *FOR_MACHINE, *wanted)
        found = json.loads(report.read_text())['install']
    return {canonicalize_name(one['metadata']['name']): one['metadata'] for one in found}


def applies(requirement, extras):
    "Whether a requirement holds on that machine, for a package that was asked for with `extras`."
    if requirement.marker is None: return True
    return any(requirement.marker.evaluate({**MARKERS, 'extra': extra}) for extra in ('', *extras))


def needed(wanted, found):
    "The names of all that `wanted` needs, by the metadata in `found`."
    seen = set()  # names with their extras
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        asked = name, frozenset(one.extras)
        if asked in seen or name in LEFT_OUT or name not in found: continue
        seen.add(asked)
        own = [Requirement(text) for text in found[name].get('requires_dist', [])]
        waiting += [requirement for requirement in own if applies(requirement, one.extras)]
    return {name for name, _ in seen}


def build(folder, there):
    "Build the wheels that nobody publishes."
    for name in ONLY_SOURCE:
        if name not in there: pip('wheel', '--quiet', '--no-deps', f'--wheel-dir={folder}', name)


def download(folder, names, found):
    "Download the wheels of `names` in the versions that were resolved."
    pins = [f'{name}=={found[name]["version"]}' for name in sorted(names)]
    if pins: pip('download', '--quiet', '--no-deps', f'--dest={folder}', f'--find-links={folder}', *FOR_MACHINE, *pins)


def report(folder):
    "Every wheel with its size, the sum, and the commands for the machine."
    wheels = sorted(folder.glob('*.whl'))
    for path in wheels: print(f'{path.stat().st_size/1e6:7.2f} MB  {path.name}')
    print(f'{sum(path.stat().st_size for path in wheels)/1e6:7.2f} MB  in {len(wheels)} wheels\n')
    print('On the machine, in the folder of the checkout:')
    print(f'  python3 -m pip install --no-index --no-deps --find-links {folder} {folder}/*.whl')
    print('  python3 -m pip install --no-index --no-deps --no-build-isolation -e .')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, metavar='DIR', help='where the wheels go; it is made where it is missing')
    parser.add_argument('--there', nargs='+', default=[], metavar='NAME',
                        help='packages that the machine has too, such as opencv-python-headless')
    parser.add_argument('--also', nargs='+', default=[], metavar='NAME',
                        help='packages to bring too, such as nbdev==2.4.14, torchinfo, pytest')
    args = parser.parse_args()
    there = [*THERE, *args.there]
    wanted = [*requirements(), *args.also]
    make_folder(args.folder)
    build(args.folder, args.there)
    found = resolve(args.folder, [*wanted, *there])
    download(args.folder, needed(wanted, found) - needed(there, found), found)
    report(args.folder)


if __name__ == '__main__': main()
