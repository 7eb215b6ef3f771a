"The page that `gpu.py --report` writes of the files that it measured."
import statistics

from gpu_ablation import ARMS, DEFAULT
from gpu_units import PHASES, read_phase
from s8fast.errors import S8FastError
from s8fast.files import write_text
from s8fast.runs.summary import summarise

TITLES = dict(tests='Tests and notebooks', speed='Speed', runs='Whole runs', ablation='Ablation', float16='float16',
              together='Runs at the same time')
PARTS = 'data', 'forward', 'backward', 'optimiser'
OUTPUT_LINES = 15  # of a command that failed


# Text

def markdown(head, rows):
    "A table in Markdown; its first column is flush left, the others flush right."
    lines = [head, [':--', *['--:']*(len(head) - 1)], *rows]
    return '\n'.join('| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in line) + ' |' for line in lines)


def with_deviation(values):
    "Mean and sample standard deviation of shares, in percent."
    found = summarise(values)
    deviation = '' if found['sd'] is None else f' ± {100*found["sd"]:.2f}'
    return f'{found["mean"]:.2%}{deviation}'


def with_range(values, form):
    "Median, lowest and highest value."
    median, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return median if len(values) == 1 else f'{median} ({low} to {high})'


def with_interval(values, form):
    "The mean with its 95% interval."
    found = summarise(values)
    if found['interval'] is None: return form.format(found['mean'])
    low, high = (form.format(value) for value in found['interval'])
    return f'{form.format(found["mean"])} ({low} to {high})'


# Sections; each is given the figures of its phase's units that did not fail

def tests(found):
    rows = [(f'`{one["command"]}`', one['outcome']) for one in found]
    blocks = [markdown(('command', 'outcome'), rows)]
    for one in found:
        if one['outcome'] != 'failed': continue
        tail = '\n'.join(one['tail'].splitlines()[-OUTPUT_LINES:])
        blocks.append(f'The end of what `{one["command"]}` said:\n\n```\n{tail}\n```')
    return blocks


def rates(found):
    "The rows of the device's rates."
    rows = []
    for one in found:
        if 'flop_a_second' in one:
            rows.append((f'matrix product, {one["precision"]}', f'{one["flop_a_second"]/1e12:,.1f} TFLOP/s'))
        if 'bytes_a_second' in one:
            rows.append(('copy on the device, read and written', f'{one["bytes_a_second"]/1e9:,.0f} GB/s'))
    return rows


def row_of_step(one, reference):
    "A row's figures, in milliseconds, and how they compare with the bare loop's."
    parts = [f'{one["parts"][part]:.2f}' for part in PARTS]
    return (one['row'], with_range(one['blocks'], '{:.2f}'), f'{one["median"]/reference:.2f}', *parts,
            f'{one["images_a_second"]:,.0f}')


def speed(found):
    blocks = []
    if rows := rates(found): blocks.append(markdown(('rate', ''), rows))
    steps = [one for one in found if 'row' in one]
    if not steps: return blocks
    head = ('milliseconds a step', 'median of the blocks', f'to {steps[0]["row"]}', *PARTS, 'images/s')
    blocks.append(markdown(head, [row_of_step(one, steps[0]['median']) for one in steps]))
    first = steps[0]
    blocks.append(f'Batch {first["bs"]}, steps a block: {first["steps"]}, timed by events in the queue of the device; '
                  'nothing waits within a block. The parts are means over the steps.')
    return blocks


def row_of_runs(name, found):
    "A recipe's figures over its seeds."
    own = [one for one in found if one['recipe'] == name]
    accuracies = [one['accuracy'] for one in own]
    return (name, own[0]['precision'], len(own), with_deviation(accuracies), with_interval(accuracies, '{:.2%}'),
            with_deviation([one['accuracy_tta'] for one in own]), with_range([one['seconds'] for one in own], '{:.1f}'),
            f'{statistics.median(one["share"] for one in own):.0%}')


def runs(found):
    names = dict.fromkeys(one['recipe'] for one in found)
    head = ('recipe', 'precision', 'n', 'test accuracy', '95% interval of the mean', 'with flip TTA',
            'seconds of training', 'of the matrix rate')
    first = found[0]
    floor = first['flop']/first['matrix_rate']
    return [markdown(head, [row_of_runs(name, found) for name in names]),
            f'{first["epochs"]} epochs of {first["n_train"]:,} images; mean ± sample standard deviation over seeds, '
            f'the median of the seconds. A run has {first["flop"]/1e15:.2f} PFLOP in convolutions, which take '
            f'{floor:.1f} s at the {first["matrix_rate"]/1e12:,.0f} TFLOP/s of a matrix product in '
            f'{first["precision"]}; the last column is the share of that rate. An epoch before warmed the device up.']


def row_of_arm(arm, found, default):
    "An arm's figures, and its differences from the default of the same seeds."
    own = {one['seed']: one for one in found if one['arm'] == arm}
    seeds = [seed for seed in own if seed in default]
    accuracy = with_deviation([one['accuracy'] for one in own.values()])
    if arm == DEFAULT or not seeds: return arm, len(own), accuracy, '', ''
    points = [100*(own[seed]['accuracy'] - default[seed]['accuracy']) for seed in seeds]
    losses = [own[seed]['loss'] - default[seed]['loss'] for seed in seeds]
    return f'`{arm}`', len(seeds), accuracy, with_interval(points, '{:+.2f}'), with_interval(losses, '{:+.4f}')


def ablation(found):
    default = {one['seed']: one for one in found if one['arm'] == DEFAULT}
    arms = [arm for arm in ARMS if any(one['arm'] == arm for one in found)]
    head = ('changed', 'n', 'validation accuracy', 'difference in points', 'difference of the loss')
    first = found[0]
    return [markdown(head, [row_of_arm(arm, found, default) for arm in arms]),
            f'{first["n_train"]:,} training images, accuracy and loss on {first["n_valid"]:,} others; the test images '
            'were not used. Differences are from the default with the same seed: mean and 95% t interval over seeds.']


def together(found):
    rows = [(one['at_once'], f'{one["seconds"]:.1f}', with_range(one['training'], '{:.1f}'),
             f'{one["runs_an_hour"]:.1f}') for one in found]
    return [markdown(('at a time', 'seconds of all', 'seconds of training', 'runs an hour'), rows),
            'Each run is a process of its own, whose start counts.']


SECTIONS = dict(tests=tests, speed=speed, runs=runs, ablation=ablation, float16=runs, together=together)


# The page

def section(phase, content):
    "The lines of a phase."
    found = [unit['figures'] for unit in content['units'] if 'figures' in unit]
    failed = [f'- {unit["name"]} failed: {unit["error"]}' for unit in content['units'] if 'error' in unit]
    blocks = [f'## {TITLES[phase]}', *(SECTIONS[phase](found) if found else []), '\n'.join(failed)]
    return '\n\n'.join(filter(None, blocks))


def head(contents):
    "What was measured on: a row for each file."
    rows = []
    for phase, content in contents.items():
        facts = content['facts']
        versions = ', '.join(f'{name} {facts["versions"][name]}' for name in ('torch', 'cuda', 'fastai', 'python'))
        data = f'{facts["data"]["name"]} ({facts["data"]["edition"]}), {facts["data"]["fingerprint"][:16]}'
        rows.append((f'{phase}.json', len(content['units']), facts['device']['name'], versions, data,
                     (facts['commit'] or 'not known')[:12]))
    return markdown(('file', 'units', 'device', 'versions', 'images', 'commit'), rows)


def page(contents):
    "The whole page."
    blocks = ['# On a GPU',
              'Measured by `python bench/gpu.py --data cifar-10-batches-py --out DIR`, written by '
              '`python bench/gpu.py --report DIR`.', head(contents)]
    if any(content['facts']['rehearsal'] for content in contents.values()):
        blocks.append('**A rehearsal on a CPU: its figures say nothing.**')
    blocks += [section(phase, content) for phase, content in contents.items()]
    return '\n\n'.join(blocks) + '\n'


def write_report(folder, to):
    "Write the page of the files in `folder` to the file `to`, and return that. Raises `S8FastError`."
    paths = {phase: folder/f'{phase}.json' for phase in PHASES}
    contents = {phase: read_phase(path) for phase, path in paths.items() if path.is_file()}
    if not contents: raise S8FastError(f'{folder} has no file of this kit: give the --out of bench/gpu.py.')
    try: text = page(contents)
    except (LookupError, TypeError, ValueError) as e:
        raise S8FastError(f'{folder} has files of another version of this kit ({e!r}): measure anew.') from e
    write_text(to, text)
    return to
