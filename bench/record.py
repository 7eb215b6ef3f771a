#!/usr/bin/env python3
"""A finished run as `results/` keeps it: recipe, history, metrics, and its logits in float16; weights (float16) and pictures where asked.

The logits, `test` and, where images were held out, `valid`, are predicted anew; the accuracy that they give is held against the run's.
"""
import argparse, shutil
from pathlib import Path

from common import run_script, write_logits
from s8fast.files import S8FastError, write_whole
from s8fast.learner import load_run
from s8fast.loaders import test_dl
from s8fast.metrics import predict_logits
from s8fast.run_folder import read_history, read_metrics
from safetensors.torch import save

FILES = 'recipe.json', 'history.csv', 'metrics.json'
TOLERANCE = .001  # of the share that is right: another device may tip an image or two


def predict_parts(learn, data, metrics):
    "`{part: logits}` of a run. Raises `S8FastError` when they don't give its figures."
    found = {}
    for part, dl in (('test', test_dl(learn.dls, data)), ('valid', learn.dls.valid)):
        if part not in metrics: continue
        found[part], targets = predict_logits(learn, dl)
        accuracy = (found[part].half().argmax(1) == targets).double().mean().item()
        print(f'{part}: {accuracy:.2%} by the logits in float16, {metrics[part]["accuracy"]:.2%} in metrics.json')
        if abs(accuracy - metrics[part]['accuracy']) > TOLERANCE:
            raise S8FastError(f'The weights give an accuracy of {accuracy:.2%} on the {part} images, and metrics.json says {metrics[part]["accuracy"]:.2%}: evaluate the run where it was trained.')
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, help='a finished run folder')
    parser.add_argument('out', type=Path, help='folder to write; what it has of another run is replaced')
    parser.add_argument('--data', help='what the run was trained on, as for s8fast_evaluate')
    parser.add_argument('--weights', action='store_true', help='weights.safetensors too, in float16')
    parser.add_argument('--pictures', action='store_true', help='the pictures too')
    parser.add_argument('--device', default='auto')
    args = parser.parse_args()
    metrics, _ = read_metrics(args.run), read_history(args.run)
    learn, data, _ = load_run(args.run, args.data, args.device)
    logits = predict_parts(learn, data, metrics)
    try: args.out.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise S8FastError(f'{args.out} cannot be made ({e.strerror}): give another folder.') from e
    for name in FILES: copy(args.run/name, args.out/name)
    write_logits(args.out/'logits.safetensors', logits, data)
    if args.weights:
        raw = save({k: v.half() if v.is_floating_point() else v for k, v in learn.model.state_dict().items()}, dict(data=data.fingerprint))
        write_whole(args.out/'weights.safetensors', lambda tmp: tmp.write_bytes(raw))
    if args.pictures:
        for o in sorted(args.run.glob('*.png')): copy(o, args.out/o.name)
    print(f'recorded in {args.out}')


def copy(path, to): write_whole(to, lambda tmp: shutil.copyfile(path, tmp))


if __name__ == '__main__': run_script(main)
