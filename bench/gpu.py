#!/usr/bin/env python3
"""Everything that a machine with a GPU is to be asked, within so many minutes; the same command goes on.

The phases, in their order:

  tests     the project's tests for a GPU, and every notebook
  speed     rates of the device, and a training step with its parts
  runs      24 epochs on all training images: `--preset final`, the author's recipe, `--preset assignment`
  ablation  choices of the recipe, each alone changed, on validation images
  float16   `--preset final` in float16
  together  runs at the same time on one GPU

A phase has one JSON file in `--out`. It is written anew when a unit of the phase, such as a seed or an arm, is done.
A unit that is in it is not measured again. No unit begins that will not end within the minutes, as far as the earlier
ones tell, and one that does not end then is given up. What fails is a sentence in the file. Nothing uses the network.
`--report` writes a page of what the files say.
"""
import time

STARTED = time.monotonic()

import argparse, os, sys, tempfile, warnings
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

from common import make_folder, run_script
from gpu_ablation import ablation
from gpu_processes import tests, together
from gpu_report import write_report
from gpu_runs import float16, runs
from gpu_speed import speed
from gpu_units import PHASES, ROOT, Clock, Kit, OutOfTime, PhaseFile, clean_up, find_facts, measure
from s8fast.data.dataset import load_data
from s8fast.errors import S8FastError
from s8fast.training.device import pick_device

UNITS = dict(tests=tests, speed=speed, runs=runs, ablation=ablation, float16=float16, together=together)
REPORT = ROOT/'results'/'gpu.md'


# What is measured on

def pick_phases(name):
    "The names of the phases to measure. Raises `S8FastError`."
    if name is None: return list(PHASES)
    if name not in PHASES: raise S8FastError(f'phase {name!r} is unknown: give {", ".join(PHASES)}.')
    return [name]


def pick(rehearse):
    "The device. Raises `S8FastError` where there is no GPU and this is no rehearsal."
    device = pick_device('cpu' if rehearse else 'auto')
    if device.type == 'cuda' or rehearse: return device
    raise S8FastError('There is no CUDA device here: measure on a machine that has one, or give --rehearse.')


def pick_data(source, rehearse):
    "The images: those of `--data`, or in a rehearsal a few of them."
    if source is None: raise S8FastError('No images were named: give --data and the folder cifar-10-batches-py.')
    data = load_data(source)
    if not rehearse: return data
    return replace(data, train_images=data.train_images[:40], train_labels=data.train_labels[:40],
                   test_images=data.test_images[:20], test_labels=data.test_labels[:20])


# Measuring

def print_line(phase, measured, unit):
    "A row of the table."
    says = unit.line(measured['figures']) if 'figures' in measured else f'failed: {measured["error"]}'
    print(f'{phase:9} {unit.name:32} {measured["seconds"]:7.1f} s  {says}', flush=True)


def measure_unit(file, unit, clock, device, minutes, is_first):
    "Measure a unit and write it down. Returns whether it ended within the minutes."
    try:
        with clock.watch(): measured = measure(unit)
    except OutOfTime:
        if is_first:
            error = f'It took longer than the {minutes:g} minutes of a call: give more of them.'
            file.add(dict(name=unit.name, kind=unit.kind, seconds=60*minutes, error=error))
        print(f'{unit.name} was given up, for the minutes are over: the same command goes on there.')
        return False
    file.add(measured)
    print_line(file.content['phase'], measured, unit)
    clean_up(device, 'error' in measured)
    return True


def measure_all(kit, files, clock, minutes):
    "Measure what the files lack, as long as there is time."
    is_first = True
    for phase, file in files.items():
        for unit in UNITS[phase](kit, file):
            if file.has(unit): continue
            needs = file.estimate(unit)
            if not is_first and needs > clock.left():
                print(f'{phase}: {unit.name} may take {needs:.0f} s, and {max(0, clock.left()):.0f} s are left: '
                      'the same command goes on there.')
                return
            if not measure_unit(file, unit, clock, kit.device, minutes, is_first): return
            is_first = False
    print(f'{", ".join(files)}: all is measured.')


def measure_phases(args):
    "Measure within the minutes."
    names = pick_phases(args.only)
    if args.out is None: raise S8FastError('No folder was named for the files: give --out.')
    if not args.minutes > 0:
        print(f'{args.minutes:g} minutes: nothing was measured.')
        return
    device = pick(args.rehearse)
    data = pick_data(args.data, args.rehearse)
    make_folder(args.out)
    clock = Clock(STARTED, args.minutes)
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(args.data, data, device, Path(folder), args.rehearse)
        facts = find_facts(kit)
        files = {name: PhaseFile(args.out, name, facts, args.retry) for name in names}
        print(f'{facts["device"]["name"]}, torch {facts["versions"]["torch"]}, {data.name} ({data.edition})')
        measure_all(kit, files, clock, args.minutes)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='the folder cifar-10-batches-py, or what s8fast_train takes')
    parser.add_argument('--out', type=Path, help='folder of the JSON files; it is made where it is missing')
    parser.add_argument('--minutes', type=float, default=9., help='of this call, its start counted')
    parser.add_argument('--only', metavar='PHASE', help=f'one of {", ".join(PHASES)}')
    parser.add_argument('--retry', action='store_true', help='measure the units again that failed')
    parser.add_argument('--rehearse', action='store_true', help='on a CPU, with as little as possible of everything')
    parser.add_argument('--report', type=Path, metavar='DIR', help='write a page of the files in this folder instead')
    parser.add_argument('--to', type=Path, default=REPORT, help='file of that page')
    return parser.parse_args()


def main():
    args = parse()
    if args.report: print(f'{write_report(args.report, args.to)} is written.')
    else: measure_phases(args)


if __name__ == '__main__': run_script(main)
