#!/usr/bin/env python3
"""What a study of thousands of runs costs beside its runs: runs of nothing, each of which leaves a finished folder.

One row of figures for the study in one process, with `--cores N` also for one on a Ray cluster of N cores that the
script starts on this machine. The rest is said of the study as it then stands: what the same command needs to find that
there is nothing to do, the summary, the page, and the shared folder.
"""
import argparse, shutil, tempfile, time
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

from common import run_script, table
from s8fast.data.dataset import digits
from s8fast.errors import need_extra
from s8fast.files import file_digest, read_json, write_json
from s8fast.interpret.study import write_study_page
from s8fast.recipe import make_recipe
from s8fast.runs import study as studies
from s8fast.runs.cluster import on_cluster
from s8fast.runs.record import RECIPE_VERSION
from s8fast.runs.study_file import BASE
from s8fast.runs.train import train

ARMS = 10


def make_study():
    "Ten arms that differ."
    base = make_recipe('ultimus', epochs=1, lr_max=1e-3, device='cpu', precision='fp32')
    return {BASE: base, **{f'smoothing{i}': replace(base, label_smoothing=i/100) for i in range(1, ARMS)}}


def leave_folder(task, template):
    "What a run leaves, without the run: files of the same size, written in the same way."
    task.folder.mkdir(parents=True, exist_ok=True)
    for name in ('history.csv', 'model.safetensors'): shutil.copy(template/name, task.folder)
    recipe, metrics = (read_json(template/name, dict, RECIPE_VERSION) for name in ('recipe.json', 'metrics.json'))
    write_json(task.folder/'recipe.json', {**recipe, 'recipe': asdict(task.recipe)})
    files = {**metrics['files'], 'recipe.json': file_digest(task.folder/'recipe.json')}
    write_json(task.folder/'metrics.json', {**metrics, 'files': files})


def timed(function, *args, **kwargs):
    "What it returns, and its seconds."
    start = time.perf_counter()
    found = function(*args, **kwargs)
    return found, time.perf_counter() - start


class Clock:
    "Seconds that are spent in runs of nothing."
    seconds = 0.


def in_one_process(template, clock):
    "The way of a study in this process."
    def do(tasks):
        for task in tasks:
            _, seconds = timed(leave_folder, task, template)
            clock.seconds += seconds
            yield task, ''
    return lambda *_: do


def on_nodes(template, cores):
    "The way of a study on a cluster."
    def do(task, *_):
        leave_folder(task, template)
        return '', 'here'
    def way(state, data, *_):
        import ray
        return lambda tasks: on_cluster(tasks, 'digits', state.out, ray.get_runtime_context().gcs_address, 1, None, do)
    return way


def run(study, seeds, data, out, way):
    "The study, and its seconds."
    with mock.patch.object(studies, '_way', way):
        return timed(studies.run_study, study, seeds, data, out, log=lambda line: None)


def size(folder): return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def measure(n_seeds, cores, tmp):
    "Rows of what was measured."
    study, seeds, data = make_study(), range(n_seeds), digits()
    train(study[BASE], data, tmp/'template', log=lambda line: None)
    n, clock = len(study)*n_seeds, Clock()
    _, seconds = run(study, seeds, data, tmp/'one', in_one_process(tmp/'template', clock))
    rows = [('the study in one process, beside its runs', seconds - clock.seconds, 1000*(seconds - clock.seconds)/n)]
    _, again = run(study, seeds, data, tmp/'one', in_one_process(tmp/'template', clock))
    rows.append(('the same command once more: nothing to do', again, 1000*again/n))
    results, seconds = timed(studies.read_results, study, tmp/'one', 'valid', {})
    rows.append(('reading the results of all run folders', seconds, 1000*seconds/n))
    facts = studies.data_facts(data)
    summary, seconds = timed(studies.summarise_study, study, results, 'valid', facts)
    rows.append(('the summary of results that are known', seconds, 1000*seconds/n))
    _, seconds = timed(write_json, tmp/'one'/'summary.json', summary)
    rows.append((f'writing summary.json, {size(tmp/"one")/n/1e3:,.0f} KB a run beside it', seconds, 1000*seconds/n))
    _, seconds = timed(write_study_page, tmp/'one')
    rows.append(('writing report.html', seconds, 1000*seconds/n))
    if cores: rows.append(measure_cluster(study, seeds, data, cores, tmp))
    files = {name: (tmp/'one'/name).stat().st_size for name in ('summary.json', 'report.html')}
    return n, rows, files


def measure_cluster(study, seeds, data, cores, tmp):
    "The row of a Ray cluster of this machine."
    import ray
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    n = len(study)*len(seeds)
    _, seconds = run(study, seeds, data, tmp/'cluster', on_nodes(tmp/'template', cores))
    ray.shutdown()
    return f'the study on a cluster of {cores} cores of this machine, with its runs', seconds, 1000*seconds/n


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=200, help=f'number of seeds, of {ARMS} arms (default: 200)')
    parser.add_argument('--cores', type=int, help='of a Ray cluster on this machine')
    args = parser.parse_args()
    if args.cores: need_extra('ray', 'ray')
    with tempfile.TemporaryDirectory() as tmp: n, rows, files = measure(args.seeds, args.cores, Path(tmp))
    print(f'{n:,} runs of nothing, {ARMS} arms')
    print(table(('', 'seconds', 'ms a run'), rows))
    print(', '.join(f'{name} {bytes_/1e3:,.0f} KB' for name, bytes_ in files.items()))


if __name__ == '__main__': run_script(main)
