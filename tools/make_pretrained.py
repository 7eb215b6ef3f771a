#!/usr/bin/env python3
"""Make a finished run's network one that comes with the library: s8fast/pretrained/NAME.safetensors and NAME.json.

The weights are rounded to float16, and the figures in the JSON file are measured with these.
"""
import argparse
from pathlib import Path

from s8fast.data.loaders import test_dl
from s8fast.errors import S8FastError
from s8fast.files import file_digest, write_json
from s8fast.models.pretrained import FOLDER, VERSION
from s8fast.models.weights import load_model, save_model
from s8fast.runs.evaluate import load_run
from s8fast.runs.folder import Run
from s8fast.runs.trained import find_trained
from s8fast.training.metrics import evaluate, metrics_table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, help='a finished run folder')
    parser.add_argument('name', help='of the network, such as custom_resnet')
    parser.add_argument('--data', help='what the run was trained on, as for s8fast_evaluate')
    args = parser.parse_args()
    run = Run(args.run)
    learn, data, record = load_run(run.folder, args.data)
    FOLDER.mkdir(exist_ok=True)
    weights = FOLDER/f'{args.name}.safetensors.tmp'  # the one that is there stays until its figures are measured
    save_model(weights, learn.model, half=True)
    load_model(weights, learn.model, half=True)
    temperature = run.metrics.get('temperature', {}).get('value')
    test = evaluate(learn, test_dl(learn.dls, data), temperature=temperature)
    write_json(FOLDER/f'{args.name}.json', dict(
        version=VERSION, model=run.recipe.model, vocab=list(data.vocab), stats=[list(o) for o in data.stats],
        temperature=temperature, temperature_from=find_trained(run.folder).temperature_from, dtype='float16',
        weights=file_digest(weights), record=record, test=test))
    weights.rename(FOLDER/f'{args.name}.safetensors')
    print(metrics_table(test))


if __name__ == '__main__':
    try: main()
    except S8FastError as e: raise SystemExit(f'make_pretrained.py: {e}')
