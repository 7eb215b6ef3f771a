"The commands end to end: what they leave, print and repeat."
import csv, inspect, json, os, pty, re, select, subprocess, sys
from dataclasses import MISSING, asdict, fields

import pytest
from conftest import TINY, VOCAB, script

from s8fast import cli
from s8fast.callbacks import COLUMNS
from s8fast.files import S8FastError
from s8fast.images import load_cifar10
from s8fast.learner import evaluate_run
from s8fast.one_cycle import find_lr_range
from s8fast.recipe import MODELS, PRESETS, Recipe
from s8fast.run_folder import RUN_FILES

FILES = {'recipe.json', 'history.csv', 'metrics.json', 'model.safetensors', 'batch.png', 'lr_find.png', 'schedule.png', 'curves.png'}
COMMANDS = 's8fast_train', 's8fast_lr_find', 's8fast_evaluate', 's8fast_report'
DEFAULTS = {o.name: o.default for o in fields(Recipe)}


def read_history(run):
    with (run/'history.csv').open(newline='') as f: return list(csv.DictReader(f))

def read_json(path): return json.loads(path.read_text())


@pytest.fixture(scope='session')
def digits_run(train_run): return train_run('digits', '--model', 'ultimus', '--epochs', 1, '--bs', 128, '--valid_pct', 0.1)

@pytest.fixture(scope='session')
def found_run(train_run, png): return train_run(png, '--model', 'ultimus', '--epochs', 1, '--lr_max', 'auto', '--bs', 4)


def test_train_leaves_a_whole_run(digits_run):
    run, _ = digits_run
    assert {o.name for o in run.iterdir()} == FILES - {'lr_find.png'}  # there was nothing to find
    assert all((run/o).read_bytes()[:8] == b'\x89PNG\r\n\x1a\n' for o in ('batch.png', 'schedule.png', 'curves.png'))
    record = read_json(run/'recipe.json')
    assert Recipe(**record['recipe']) == Recipe(model='ultimus', epochs=1, bs=128, lr_max=0.003, valid_pct=0.1, num_workers=0, device='cpu')
    assert record['data']['name'] == 'digits' and record['data']['n_train'] == 1294 and record['data']['n_valid'] == 144
    assert {'python', 'torch', 'fastai', 's8fast'} <= set(record['versions']) and record['device']['type'] == 'cpu'


def test_several_seeds(png, call_command, tmp_path):
    args = 's8fast_train', '--data', png, '--out', tmp_path/'runs', '--model', 'ultimus', '--epochs', 1, '--lr_max', 0.003, *TINY
    first = call_command(*args, '--seeds', '0,1')
    assert first.returncode == 0, first.stderr
    runs = [tmp_path/'runs'/f'seed{o}' for o in (0, 1)]
    accuracies = [read_json(o/'metrics.json')['test']['accuracy'] for o in runs]
    summary = read_json(tmp_path/'runs'/'summary.json')
    assert summary['accuracy']['n'] == 2 and summary['accuracy']['mean'] == pytest.approx(sum(accuracies)/2) and [o['seed'] for o in summary['runs']] == [0, 1]
    assert [read_json(o/'recipe.json')['recipe']['seed'] for o in runs] == [0, 1] and 'test accuracy' in first.stdout.splitlines()[-3]
    raw = [(o/'model.safetensors').read_bytes() for o in runs]
    assert raw[0] != raw[1]
    again = call_command(*args, '--seeds', '0-2')
    assert again.returncode == 0 and again.stdout.count('is there already') == 2 and 'n = 3' in again.stdout
    assert [(o/'model.safetensors').read_bytes() for o in runs] == raw
    shown = call_command('s8fast_report', tmp_path/'runs', '--data', png, '--device', 'cpu')
    assert shown.returncode == 0 and 'seed2/report.html' in (tmp_path/'runs'/'report.html').read_text() and (runs[0]/'report.html').is_file()
    for flags, part in ((['--seeds', '0-1', '--wd', .1], 'wd: 0.05, 0.1'), (['--seeds', 'all'], "'all' is no seed"), (['--seeds', '0', '--seed', 1], '--seeds and --seed')):
        bad = call_command(*args, *flags)
        assert bad.returncode == 2 and part in bad.stderr and bad.stderr.count('\n') == 1


def test_history_and_metrics_agree(png_run):
    run, _ = png_run
    rows, metrics = read_history(run), read_json(run/'metrics.json')
    assert tuple(rows[0]) == COLUMNS and [o['epoch'] for o in rows] == ['1', '2']
    assert metrics['epochs'] == 2 and metrics['valid']['n'] == 10 and metrics['test']['n'] == 20
    for name in ('loss', 'accuracy'): assert metrics['valid'][name] == pytest.approx(float(rows[-1][f'valid_{name}']), rel=1e-2)
    assert list(metrics['test']['per_class']) == VOCAB
    assert {'accuracy', 'accuracy_tta', 'loss', 'ece'} <= set(metrics['test'])
    assert {'startup', 'training', 'evaluation'} <= set(metrics['seconds'])


def test_schedule_ends_where_it_began(png_run):
    run, _ = png_run
    assert float(read_history(run)[-1]['lr']) == pytest.approx(0.003/Recipe.div, rel=1e-4)


def test_one_plain_line_an_epoch_without_a_terminal(png_run):
    run, done = png_run
    head, *epochs, last = done.stdout.splitlines()
    assert head.startswith('custom_resnet on cifar10 (PNG files): 70 training, 10 validation, 20 test images; cpu, ')
    for i, (line, row) in enumerate(zip(epochs, read_history(run), strict=True), 1):
        shown = re.fullmatch(rf'epoch +{i}/2  lr (\S+)  train loss (\S+) acc +(\S+)%  valid loss (\S+) acc +(\S+)%  (\S+) s', line).groups()
        for column, text in zip(COLUMNS[1:], shown, strict=True):
            percent = 100 if column.endswith('accuracy') else 1
            assert float(text) == pytest.approx(float(row[column])*percent, rel=1e-2, abs=0.05 if column == 'seconds' else 0), column
    assert last.startswith(f'test accuracy {read_json(run/"metrics.json")["test"]["accuracy"]:.2%}') and last.endswith(str(run))
    assert not re.search('[\r\x1b\b█]', done.stdout) and done.stderr == ''


def test_terminal_gets_a_bar_and_a_table(png, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([script('s8fast_train'), '--data', png, '--out', tmp_path/'run', '--epochs', '1', '--lr_max', '1e-3', *map(str, TINY)],
                               stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b''
    while select.select([ours], [], [], 300)[0]:
        try: new = os.read(ours, 65536)
        except OSError: break  # Linux's way to say that the other end is closed
        if not new: break
        shown += new
    os.close(ours)
    text = shown.decode()
    assert process.wait() == 0, text
    assert '\r' in text.replace('\r\n', '') and '%' in text  # a line drawn over
    assert all(o in text for o in ('epoch', 'train_loss', 'valid_loss', 'accuracy'))
    assert len(read_history(tmp_path/'run')) == 1


def test_evaluate_agrees_with_metrics(call_command, png_run, png):
    run, _ = png_run
    for part in ('test', 'valid'):
        done, metrics = call_command('s8fast_evaluate', run, '--data', png, '--part', part, '--device', 'cpu'), read_json(run/'metrics.json')[part]
        assert done.returncode == 0
        summary, _, head, *rows = done.stdout.splitlines()
        assert summary == (f'accuracy {metrics["accuracy"]:.2%}  (with flip TTA {metrics["accuracy_tta"]:.2%})  loss {metrics["loss"]:.4f}  '
                           f'ece {metrics["ece"]:.4f}  n {metrics["n"]}')
        assert head.split() == ['class', 'precision', 'recall', 'f1', 'support']
        expect = {c: [f'{o[k]:.2%}' for k in ('precision', 'recall', 'f1')] + [str(o['support'])] for c, o in metrics['per_class'].items()}
        assert {name: values for name, *values in map(str.split, rows)} == expect


def test_evaluate_takes_the_runs_own_images(call_command, png_run, jpeg, digits_run):
    "The same classes in another edition are other images, and its split another split; the digits need not be named."
    done = call_command('s8fast_evaluate', png_run[0], '--data', jpeg, '--device', 'cpu')
    assert done.returncode == 2 and 'JPEG files' in done.stderr and 'PNG files' in done.stderr and done.stderr.count('\n') == 1, done.stderr
    run, _ = digits_run
    assert call_command('s8fast_evaluate', run, '--device', 'cpu').stdout.startswith(f'accuracy {read_json(run/"metrics.json")["test"]["accuracy"]:.2%} ')


def test_evaluate_with_shifts(call_command, png_run, png):
    run, _ = png_run
    done = call_command('s8fast_evaluate', run, '--data', png, '--shifts', '--device', 'cpu')
    metrics, shifted = read_json(run/'metrics.json')['test'], evaluate_run(run, png, shifts=True, device='cpu')['accuracy_tta_shifts']
    assert done.returncode == 0
    assert done.stdout.startswith(f'accuracy {metrics["accuracy"]:.2%}  (with flip TTA {metrics["accuracy_tta"]:.2%}, with flip and shift TTA {shifted:.2%})')


def test_evaluate_writes_nothing(call_command, png_run, png):
    run, _ = png_run
    def state(): return {o: o.stat().st_mtime_ns for o in run.rglob('*')}
    before = state()
    assert call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu').returncode == 0
    assert state() == before


def test_same_recipe_and_seed_twice(train_run, png_run, png):
    (a, _), (b, _) = png_run, train_run(png)
    assert (a/'model.safetensors').read_bytes() == (b/'model.safetensors').read_bytes()
    for part in ('test', 'valid'): assert read_json(a/'metrics.json')[part] == read_json(b/'metrics.json')[part]
    for x, y in zip(read_history(a), read_history(b), strict=True): assert {**x, 'seconds': 0} == {**y, 'seconds': 0}


def test_train_finds_its_learning_rate(found_run):
    run, done = found_run
    assert done.stderr == ''
    assert {o.name for o in run.iterdir()} == FILES
    record = read_json(run/'recipe.json')
    found, lr_max = record['lr_find'], record['chosen']['lr_max']
    assert record['recipe']['lr_max'] is None and 0 < found['lr_min'] <= found['lr_max'] == lr_max
    assert len(found['lrs']) == len(found['losses']) >= 10
    assert f'LRMIN {found["lr_min"]:.2e}, LRMAX {lr_max:.2e}' in done.stdout
    assert float(read_history(run)[-1]['lr']) == pytest.approx(lr_max/Recipe.div, rel=1e-4)


def test_lr_find(call_command, tmp_path):
    done = call_command('s8fast_lr_find', '--data', 'digits', '--out', tmp_path/'find.png', '--bs', 4, '--num_it', 30, '--device', 'cpu')
    assert done.returncode == 0
    (a, low), (b, high), (c, plot) = map(str.split, done.stdout.splitlines())
    assert (a, b, c, plot) == ('LRMIN', 'LRMAX', 'plot:', str(tmp_path/'find.png')) and 1e-6 <= float(low) <= float(high) <= 10
    assert (tmp_path/'find.png').read_bytes().startswith(b'\x89PNG')
    assert [o.name for o in tmp_path.iterdir()] == ['find.png']


def test_lr_find_of_a_run(found_run, call_command, png, tmp_path):
    chosen, recipe = (read_json(found_run[0]/'recipe.json')[k] for k in ('chosen', 'recipe'))
    done = call_command('s8fast_lr_find', '--recipe', found_run[0], '--data', png, '--out', tmp_path/'find.png')
    assert done.returncode == 0 and f'LRMAX {chosen["lr_max"]:.3e}\n' in done.stdout and recipe != asdict(Recipe()), done.stderr


def test_choices_reach_the_finder(call_command, monkeypatch, tmp_path):
    made = []
    def note(recipe, data):
        made.append(recipe)
        raise S8FastError('that is enough')
    monkeypatch.setattr('s8fast.learner.get_learner', note)
    for args in (['--preset', 'assignment', '--wd', .1, '--drop_last', '--wd-bn-bias'], []): call_command('s8fast_lr_find', *args, '--out', tmp_path/'find.png')
    assert made == [Recipe(**{**PRESETS['assignment'], 'wd': .1}, drop_last=True, wd_bn_bias=True), Recipe()]


def test_force_replaces_the_run_and_nothing_else(call_command, png, tmp_path):
    run, foreign = tmp_path/'run', tmp_path/'run'/'notes.txt'
    run.mkdir()
    for o in RUN_FILES: (run/o).write_text('of an earlier run')
    foreign.write_text('mine')
    done = call_command('s8fast_train', '--data', png, '--out', run, '--force', '--epochs', 1, '--lr_max', 1e-3, *TINY)
    assert done.returncode == 0 and foreign.read_text() == 'mine'
    assert {o.name for o in run.iterdir()} == {*FILES, 'notes.txt'} - {'lr_find.png'}  # what is not written anew would be of another run
    assert not any(o.read_bytes() == b'of an earlier run' for o in run.iterdir())


def test_trains_on_the_original_batches(call_command, batches, png, tmp_path):
    done = call_command('s8fast_train', '--data', batches.parent, '--out', tmp_path/'run', '--epochs', 1, '--lr_max', 1e-3, *TINY)
    assert done.returncode == 0 and done.stdout.startswith('custom_resnet on cifar10 (original batches): 70 training')
    assert call_command('s8fast_evaluate', tmp_path/'run', '--data', png, '--device', 'cpu').returncode == 0  # the same images from files


def test_item_pipeline_from_training_to_report(call_command, png, tmp_path):
    flags = [o for o in TINY if o != '--no_report']
    done = call_command('s8fast_train', '--data', png, '--out', tmp_path/'run', '--epochs', 1, '--lr_max', 1e-3, '--pipeline', 'item', *flags)
    assert done.returncode == 0 and 'item pipeline' in done.stdout and (tmp_path/'run'/'report.html').is_file()
    assert read_json(tmp_path/'run'/'recipe.json')['recipe']['pipeline'] == 'item'
    accuracy = read_json(tmp_path/'run'/'metrics.json')['test']['accuracy']
    assert call_command('s8fast_evaluate', tmp_path/'run', '--data', png, '--device', 'cpu').stdout.startswith(f'accuracy {accuracy:.2%} ')


def test_layouts_hold_the_same_data(png, jpeg, batches, data):
    a, b, c = (load_cifar10(o, cache=False) for o in (png, batches, jpeg))
    assert a.fingerprint == b.fingerprint and a.vocab == b.vocab == c.vocab == tuple(VOCAB)
    assert (a.edition, b.edition, c.edition) == ('PNG files', 'original batches', 'JPEG files')
    for part in ('train', 'test'):
        images, labels = data[part]
        assert (getattr(a, f'{part}_images') == images).all()
        for o in (a, b, c): assert (getattr(o, f'{part}_labels') == labels).all()
        off = getattr(c, f'{part}_images').astype(int) - images
        assert off.any() and abs(off).mean() < 8  # a lossy codec, but the same pictures


def test_cache_lies_in_the_users_cache_folder(png, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    first = load_cifar10(png).fingerprint
    file, = (o for o in tmp_path.rglob('*') if o.is_file())
    assert file.parent == tmp_path/'s8fast' and load_cifar10(png).fingerprint == first


@pytest.mark.parametrize('name', COMMANDS)
def test_help_needs_no_heavy_import(name):
    done = subprocess.run([sys.executable, '-X', 'importtime', script(name), '--help'], capture_output=True, text=True)
    imported = {o.rpartition('|')[2].strip().split('.')[0] for o in done.stderr.splitlines()}
    assert done.returncode == 0 and done.stdout.startswith('usage: ') and 's8fast' in imported
    assert not imported & {'torch', 'fastai', 'numpy', 'matplotlib', 'PIL', 'sklearn', 'albumentations', 'cv2'}


def read_help(text):
    "`{option: its lines as one}`; fastcore 2 writes `--lr-max` where fastcore 1 writes `--lr_max`."
    return {o.split()[0].lstrip('-').replace('-', '_'): ' '.join(o.split()) for o in re.split(r'\n  (?=\S)', text)[1:]}


@pytest.mark.parametrize('name', COMMANDS)
def test_help_explains_every_option(call_command, name):
    shown, options = read_help(call_command(name, '--help').stdout), inspect.signature(getattr(cli, name)).parameters
    for option, o in options.items():
        assert len(shown[option]) > len(option) + 20
        if o.default not in (None, o.empty): assert f'(default: {o.default})' in shown[option]


def test_help_lists_the_recipe(call_command):
    shown = read_help(call_command('s8fast_train', '--help').stdout)
    for name in MODELS: assert re.search(rf'\b{name}\b', shown['model'])
    for name, default in DEFAULTS.items(): assert f'(default: {"auto" if default is None else default})' in shown[name]


def test_defaults_are_the_recipes():
    def options(f): return {k: o.default for k, o in inspect.signature(f).parameters.items()}
    recipe = {k: 'auto' if v is None else v for k, v in DEFAULTS.items()}
    train, find = options(cli.s8fast_train), options(cli.s8fast_lr_find)
    assert MISSING not in DEFAULTS.values()
    assert {k: v for k, v in train.items() if k not in ('data', 'out', 'force', 'no_report', 'recipe', 'resume', 'checkpoint_minutes', 'preset', 'seeds')} == recipe
    finder = {k: v for k, v in options(find_lr_range).items() if k != 'learn'}
    assert {k: v for k, v in find.items() if k not in ('data', 'out', 'preset', 'recipe')} == {**{k: recipe[k] for k in find if k in recipe}, **finder}


def test_every_option_reaches_the_recipe(call_command, monkeypatch):
    other = dict(model='ultimus', epochs=3, bs=7, seed=5, lr_max=0.02, div=9., pct_start=.3, shape='cosine', mom_max=.9, mom_min=.8, wd=.1, wd_bn_bias=True, pad=2, cutout=3, valid_pct=.2,
                 split_seed=3, drop_last=True, pipeline='item', num_workers=1, precision='fp32', channels_last=False, winograd=False, compile=True, device='cpu', deterministic=True,
                 pad_mode='zeros', label_smoothing=.3, average=2.5, bn_momentum=.2)
    assert other.keys() == DEFAULTS.keys() and all(DEFAULTS[k] != v for k, v in other.items())
    calls = []
    monkeypatch.setattr('s8fast.training.train', lambda *args, **kwargs: calls.append((*args, *kwargs.values())))
    flags = [o for k, v in other.items() for o in ([f'--{k}'] if v is True else [f'--{k}', v])]
    call_command('s8fast_train', *flags, '--data', 'somewhere', '--out', 'there', '--force', '--no-report')
    call_command('s8fast_train', '--no_report')
    call_command('s8fast_train', '--checkpoint-minutes', 2.5, '--no_report')
    call_command('s8fast_train', '--preset', 'assignment', '--average', 1, '--no_report')
    assert calls == [(Recipe(**other), 'somewhere', 'there', True, None), (Recipe(), None, 'runs/run', False, None), (Recipe(), None, 'runs/run', False, 2.5),
                     (Recipe(**{**PRESETS['assignment'], 'average': 1.}), None, 'runs/run', False, None)]


def test_a_recipe_makes_the_run_again(call_command, png_run, png, tmp_path):
    run, _ = png_run
    for recipe in (run, run/'recipe.json'):
        done = call_command('s8fast_train', '--recipe', recipe, '--data', png, '--out', tmp_path/'again', '--no_report', '--force')
        assert done.returncode == 0, done.stderr
        assert (tmp_path/'again'/'model.safetensors').read_bytes() == (run/'model.safetensors').read_bytes()
    call_command('s8fast_train', '--recipe', run, '--data', png, '--out', tmp_path/'other', '--no_report', '--epochs', 1, '--seed', 0)
    a, b = (read_json(o/'recipe.json')['recipe'] for o in (run, tmp_path/'other'))
    assert {k: (a[k], b[k]) for k in a if a[k] != b[k]} == {'epochs': (2, 1)}


@pytest.mark.parametrize('args, parts', [
    (['--resume', 'RUN', '--out', 'other'], ['leave --out out']), (['--resume', 'RUN', '--force'], ['leave --force out']),
    (['--resume', 'RUN', '--recipe', 'RUN'], ['leave --recipe out']), (['--resume', 'no/such/run'], ['no/such/run is no run folder']),
    (['--recipe', 'no/such/run'], ['no run folder']), (['--checkpoint_minutes', '-1'], ['checkpoint_minutes=-1.0']), (['--checkpoint_minutes', 'nan'], ['checkpoint_minutes=nan']),
    (['--recipe', 'RUN', '--preset', 'default'], ['--recipe and --preset']), (['--seeds', '0-1', '--seed', '1'], ['--seeds and --seed'])])
def test_what_resume_and_recipe_refuse(call_command, png_run, tmp_path, monkeypatch, args, parts):
    monkeypatch.chdir(tmp_path)
    done = call_command('s8fast_train', *(png_run[0] if o == 'RUN' else o for o in args))
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and all(o in done.stderr for o in parts), done.stderr
    assert not list(tmp_path.iterdir())


def test_deterministic_is_recorded_and_changes_nothing_on_a_cpu(call_command, png_run, png, tmp_path):
    import torch
    done = call_command('s8fast_train', '--recipe', png_run[0], '--data', png, '--out', tmp_path/'run', '--no_report', '--deterministic')
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path/'run'/'recipe.json')['recipe']['deterministic'] is True and not torch.are_deterministic_algorithms_enabled()
    assert (tmp_path/'run'/'model.safetensors').read_bytes() == (png_run[0]/'model.safetensors').read_bytes()
