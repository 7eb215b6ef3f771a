"""What all phases of `gpu.py` share: the kit, its clock, units of measurement and the file that a phase keeps them in.

A phase is a row of units, such as a seed, an arm or a timing block. Each is measured whole or not at all, and its
phase's file is written anew when it ends.
"""
import gc, os, signal, subprocess, tempfile, time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

import torch
from common import as_finite_json
from s8fast.data.images import ImageData
from s8fast.errors import S8FastError, reason
from s8fast.files import read_json, write_json
from s8fast.runs.record import environment
from typing_extensions import NotRequired, TypedDict

ROOT = Path(__file__).resolve().parent.parent
VERSION = 1
MARGIN = 1.1  # a unit may take so many times as long as the longest of its kind
#: In the order in which they are measured; `gpu.py` says what each of them is.
PHASES = 'tests', 'speed', 'runs', 'ablation', 'float16', 'together'


# Time

class OutOfTime(BaseException):
    "The minutes are over. It is no `Exception`: whatever is being measured must not catch it."


class Clock:
    "The minutes of a call."
    def __init__(self, start, minutes): self.end = start + 60*minutes
    def left(self): return self.end - time.monotonic()

    @contextmanager
    def watch(self):
        "Raises `OutOfTime` within the block when the minutes are over."
        def stop(*signal_and_frame): raise OutOfTime
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(.01, self.left()), 1.)
        try: yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


# The kit and its units

@dataclass(frozen=True)
class Kit:
    "What a call measures on."
    source: str           # of `--data`
    data: ImageData       # what it stands for
    device: torch.device
    folder: Path          # for temporary files
    rehearse: bool        # on a CPU, with as little as possible of everything


class Unit(NamedTuple):
    "One measurement."
    name: str
    kind: str              # units of one kind take about the same time
    seconds: float         # that it may take, as long as none of its kind was measured
    measure: Callable      # returns its figures, a dictionary for JSON
    line: Callable = str   # of the figures: what the table says of them


class Measured(TypedDict):
    "A unit as its phase's file has it."
    name: str
    kind: str
    seconds: float
    figures: NotRequired[dict[str, Any]]
    error: NotRequired[str]  # a sentence, where it failed


class Content(TypedDict):
    "A phase's file."
    version: int
    phase: str
    facts: dict[str, Any]  # of `find_facts`
    units: list[Measured]


def commit():
    "The commit of the checkout, with `-dirty` after it where files were changed; None without git."
    command = 'git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'
    try: done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError: return None
    return done.stdout.strip() or None


def find_facts(kit):
    "Device, versions, images and commit: what stands at the head of each file."
    found = environment(kit.device)
    data = dict(name=kit.data.name, edition=kit.data.edition, fingerprint=kit.data.fingerprint)
    cuda = dict(cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    return dict(device=found['device'], versions={**found['versions'], **cuda}, data=data, commit=commit(),
                rehearsal=kit.rehearse)


# A phase's file

def read_phase(path):
    "The `Content` of a phase's file. Raises `S8FastError` when it is damaged."
    return read_json(path, Content, VERSION)


class PhaseFile:
    "The file of a phase, with the units that were measured in this call and in earlier ones."
    def __init__(self, folder, phase, facts, retry=False):
        self.path = folder/f'{phase}.json'
        self.content = dict(version=VERSION, phase=phase, facts=facts, units=[])
        if not self.path.exists(): return
        before = read_phase(self.path)
        check_same(self.path, before['facts'], facts)
        self.content['units'] = [unit for unit in before['units'] if not (retry and 'error' in unit)]

    def has(self, unit): return any(one['name'] == unit.name for one in self.content['units'])

    def figures(self, name):
        "The figures of a unit; None where it was not measured, or failed."
        return next((one.get('figures') for one in self.content['units'] if one['name'] == name), None)

    def estimate(self, unit):
        "Seconds that a unit may take: a little more than the longest of its kind did."
        same = [one['seconds'] for one in self.content['units'] if one['kind'] == unit.kind and 'error' not in one]
        return MARGIN*max(same) if same else unit.seconds

    def add(self, measured):
        self.content['units'].append(measured)
        write_json(self.path, self.content)


def check_same(path, before, now):
    "Raises `S8FastError` when a file has figures of another device or of other images."
    def named(facts): return facts['device']['name'], facts['data']['fingerprint'][:16], facts['rehearsal']
    def made(facts): return facts['commit'], facts['versions']['torch']
    if made(before) != made(now):
        raise S8FastError(f'{path} has figures of commit {before["commit"]} with torch {before["versions"]["torch"]}, '
                          'and this is another: give another --out.')
    if named(before) == named(now): return
    raise S8FastError(f'{path} has figures of {before["device"]["name"]} and of images {named(before)[1]}, and this '
                      f'call would add those of {now["device"]["name"]} and {named(now)[1]}: give another --out.')


# Measuring

def sentence(error):
    "What an exception says, as a sentence."
    if isinstance(error, S8FastError): return reason(error)
    return f'{type(error).__name__}: {reason(error) or "no message"}.'


def clean_up(device, failed):
    "Let go of what a unit left in memory. Raises `S8FastError` when the device answers no more after one that failed."
    gc.collect()
    if device.type != 'cuda' or not failed: return
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except RuntimeError as e:
        raise S8FastError(f'The GPU answers no more ({reason(e)}): the same command, given again, goes on after the '
                          'unit that failed.') from e


def measure(unit):
    "A unit's line in the file. What it raises becomes a sentence in it."
    start = time.monotonic()
    found = {}
    try: found['figures'] = as_finite_json(unit.measure())
    except Exception as e: found['error'] = sentence(e)
    return dict(name=unit.name, kind=unit.kind, seconds=round(time.monotonic() - start, 3), **found)


# Processes

def end_group(process):
    "End a process and its children, where they are still at work."
    if process.poll() is not None: return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_children(commands):
    "Run processes at the same time, to their ends: exit status and output of each. Leaving this ends them all."
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    processes, outputs = [], []
    try:
        for command in commands:
            outputs.append(tempfile.TemporaryFile())
            processes.append(subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                              stdout=outputs[-1], stderr=subprocess.STDOUT, start_new_session=True))
        statuses = [process.wait() for process in processes]
        return list(zip(statuses, map(read_output, outputs)))
    finally:
        for process in processes: end_group(process)
        for output in outputs: output.close()


def read_output(file):
    "What a process wrote to its file, without the path of the checkout."
    file.seek(0)
    return file.read().decode(errors='replace').replace(f'{ROOT}/', '')
