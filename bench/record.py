#!/usr/bin/env python3
"""Keep a finished run as `results/` has it: recipe, history, metrics, and its logits in float16.

Its robustness.json and labels.csv too, where it has them.
With `--weights` also its weights in float16, with `--pictures` its pictures.
The logits, of `test` and where images were held out of `valid`, are predicted anew.
Their accuracy has to be the one that the run reports.
"""
import argparse, shutil
from pathlib import Path

from common import make_folder, run_script, write_logits
from s8fast.data.loaders import test_dl
from s8fast.errors import S8FastError
from s8fast.files import write_whole
from s8fast.models.weights import save_model
from s8fast.runs.evaluate import load_run
from s8fast.runs.record import read_metrics
from s8fast.training.history import read_history
from s8fast.training.metrics import predict_logits

FILES = 'recipe.json', 'history.csv', 'metrics.json'
WHERE_THERE = 'robustness.json', 'labels.csv'  # what was measured of it afterwards
TOLERANCE = .001  # difference of accuracy that is allowed: another device may decide an image or two otherwise


def check_accuracy(part, logits, targets, reported):
    "Raises `S8FastError` when the logits don't give the accuracy that the run reports."
    accuracy = (logits.half().argmax(1) == targets).double().mean().item()
    print(f'{part}: {accuracy:.2%} by the logits in float16, {reported:.2%} in metrics.json')
    if abs(accuracy - reported) > TOLERANCE:
        raise S8FastError(f'The weights give an accuracy of {accuracy:.2%} on the {part} images, and metrics.json says '
                          f'{reported:.2%}: evaluate the run where it was trained.')


def predict_parts(learn, data, metrics):
    "`{part: logits}` of a run. Raises `S8FastError` when they don't give its figures."
    loaders = dict(test=test_dl(learn.dls, data), valid=learn.dls.valid)
    found = {}
    for part, dl in loaders.items():
        if part not in metrics: continue
        found[part], targets = predict_logits(learn, dl)
        check_accuracy(part, found[part], targets, metrics[part]['accuracy'])
    return found


def copy(path, to): write_whole(to, lambda tmp: shutil.copyfile(path, tmp))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, help='a finished run folder')
    parser.add_argument('out', type=Path, help='folder to write; files of another run in it are replaced')
    parser.add_argument('--data', help='what the run was trained on, as for s8fast_evaluate')
    parser.add_argument('--weights', action='store_true', help='weights.safetensors too, in float16')
    parser.add_argument('--pictures', action='store_true', help='the pictures too')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    args = parser.parse_args()
    metrics = read_metrics(args.run)
    read_history(args.run)  # raises when the run is not finished
    learn, data, _ = load_run(args.run, args.data, args.device)
    logits = predict_parts(learn, data, metrics)
    make_folder(args.out)
    for name in FILES: copy(args.run/name, args.out/name)
    for name in WHERE_THERE:
        if (args.run/name).is_file(): copy(args.run/name, args.out/name)
    write_logits(args.out/'logits.safetensors', logits, data)
    if args.weights: save_model(args.out/'weights.safetensors', learn.model, half=True)
    if args.pictures:
        for path in sorted(args.run.glob('*.png')): copy(path, args.out/path.name)
    print(f'recorded in {args.out}')


if __name__ == '__main__': run_script(main)
