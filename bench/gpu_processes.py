"The phases of `gpu.py` that start processes: the project's tests and notebooks, and runs at the same time on one GPU."
import json, sys, tempfile, time
from pathlib import Path

from gpu_units import Unit, run_children
from s8fast.errors import S8FastError

TAIL = 4000  # characters of an output that are kept
NONE_COLLECTED = 5  # pytest's exit status
AT_ONCE = 1, 2, 4
SECONDS_OF_RUN = 60  # with the start of its process; each further one adds a third
READ = 'import ast, sys; ast.parse(open(sys.argv[1]).read())'


# Tests and notebooks

def commands_of_tests(rehearse):
    "The commands that test; in a rehearsal those that see whether these are there."
    pytest = [sys.executable, '-m', 'pytest']
    notebooks = 'tools/run_notebooks.py'
    if rehearse: return dict(tests=[*pytest, '--version'], notebooks=[sys.executable, '-c', READ, notebooks])
    return dict(tests=[*pytest, '-m', 'gpu', '-q', '-rfEs', 'tests'], notebooks=[sys.executable, notebooks])


def run_tests(command):
    "Whether a command passed, and the end of its output."
    (status, said), = run_children([command])
    outcome = {0: 'passed', NONE_COLLECTED: 'no test was collected'}.get(status, 'failed')
    return dict(outcome=outcome, status=status, command=' '.join(['python', *command[1:]]), tail=said[-TAIL:])


def line_of_tests(figures):
    last = figures['tail'].strip().splitlines()[-1:]
    return ': '.join([figures['outcome'], *last])


def tests(kit, file):
    "The units of this phase."
    for name, command in commands_of_tests(kit.rehearse).items():
        yield Unit(name, name, 240., lambda command=command: run_tests(command), line_of_tests)


# Runs at the same time

def command_of_run(kit, seed, out):
    "The command of one run, as a user gives it."
    source = kit.source if kit.source == 'digits' else Path(kit.source).absolute()
    small = ['--model', 'ultimus', '--epochs', 1, '--bs', 256, '--lr_max', .001] if kit.rehearse else []
    return [sys.executable, '-m', 's8fast', 'train', '--data', source, '--preset', 'final', '--device', kit.device,
            '--seed', seed, '--out', out, '--no_report', *small]


def run_together(kit, n):
    "Train `n` seeds at the same time, each in a process of its own."
    with tempfile.TemporaryDirectory(dir=kit.folder) as folder:
        outs = [Path(folder)/f'seed{seed}' for seed in range(n)]
        start = time.monotonic()
        ended = run_children([command_of_run(kit, seed, out) for seed, out in enumerate(outs)])
        seconds = time.monotonic() - start
        for status, said in ended:
            if status: raise S8FastError(f'A run ended with exit status {status} ({said.strip()[-200:]}).')
        metrics = [json.loads((out/'metrics.json').read_text()) for out in outs]
    training = [one['seconds']['training'] for one in metrics]
    return dict(at_once=n, seconds=seconds, runs_an_hour=3600*n/seconds, training=training,
                accuracy=[one['test']['accuracy'] for one in metrics])


def line_of_together(figures):
    return f'{figures["runs_an_hour"]:.0f} runs an hour, {max(figures["training"]):.1f} s of training each'


def together(kit, file):
    "The units of this phase."
    for n in AT_ONCE[:1] if kit.rehearse else AT_ONCE:
        name = f'{n} at a time'
        yield Unit(name, name, SECONDS_OF_RUN*(n + 2)/3, lambda n=n: run_together(kit, n), line_of_together)
