"Bad input: exit status 2, one line on standard error that names the thing and the way out, and nothing left behind."
import json, os, pickle, re, shutil, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, draw_data, write_batches, write_folders, write_pickle
from fastai.learner import Learner
from PIL import Image
from safetensors.torch import load_file, save_file

from s8fast.files import S8FastError
from s8fast.images import load_cifar10, read_image
from s8fast.recipe import Recipe
from s8fast.run_folder import RECIPE_VERSION


def names(root): return sorted(str(o.relative_to(root)) for o in root.rglob('*'))


def assert_sentence(done, name, *parts):
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith(f'{name}: ') and done.stderr.endswith('.\n') and done.stderr.count('\n') == 1, done.stderr
    assert 'Traceback' not in done.stderr
    for o in parts: assert str(o) in done.stderr


@pytest.fixture
def refused(call_command, tmp_path, monkeypatch):
    "Call a command that must refuse; every file under `tmp_path`, with the cache in it, is afterwards as before."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    def refused(name, *args, parts=()):
        before = names(tmp_path)
        assert_sentence(call_command(name, *args), name, *parts)
        assert names(tmp_path) == before
    return refused


@pytest.fixture
def folders(tmp_path): return write_folders(tmp_path/'data', draw_data(2, 1))

@pytest.fixture
def original(tmp_path): return write_batches(tmp_path/'cifar-10-batches-py', draw_data(5, 1))


# The data folder

def no_folder(root): shutil.rmtree(root); return root, 'There is no data folder', '--data'
def a_file(root): return next(root.rglob('*.png')), 'There is no data folder', '--data'
def empty(root): shutil.rmtree(root); root.mkdir(); return root, 'holds neither', 'give the folder'
def no_test_part(root): shutil.rmtree(root/'test'); return root/'test', 'has no class folders'
def empty_part(root): shutil.rmtree(root/'train'); (root/'train').mkdir(); return root/'train', 'has no class folders'
def class_missing_in_train(root): shutil.rmtree(root/'train'/'frog'); return 'frog', root/'train', 'add'
def class_missing_in_test(root): shutil.rmtree(root/'test'/'ship'); return 'ship', root/'test', 'add'
def class_empty(root): shutil.rmtree(root/'train'/'cat'); (root/'train'/'cat').mkdir(); return 'cat', root/'train', 'add'
def class_missing_in_both(root):
    for part in ('train', 'test'): shutil.rmtree(root/part/'deer')
    return 'deer', root

@pytest.mark.parametrize('spoil', [no_folder, a_file, empty, no_test_part, empty_part, class_missing_in_train, class_missing_in_test, class_empty,
                                   class_missing_in_both], ids=lambda f: f.__name__)
def test_data_folder(refused, folders, spoil):
    parts = spoil(folders)
    refused('s8fast_train', '--data', parts[0] if spoil is a_file else folders, '--out', 'run', parts=parts)


def test_a_name_that_is_too_long_for_the_file_system(refused):
    refused('s8fast_train', '--data', 'd'*300, '--out', 'run', parts=['d'*300, 'data folder'])


def test_variable_names_a_folder_that_is_not_there(refused, monkeypatch):
    monkeypatch.setenv('S8FAST_DATA', '/no/such/folder')
    refused('s8fast_train', '--out', 'run', parts=['/no/such/folder', '--data'])


def test_every_command_checks_the_data(refused, png_run, folders):
    broken = folders/'test'/'cat'/'0003.png'
    broken.write_text('not an image')
    refused('s8fast_train', '--data', folders, '--out', 'run', parts=[broken])
    refused('s8fast_lr_find', '--data', folders, '--out', 'find.png', parts=[broken])
    refused('s8fast_evaluate', png_run[0], '--data', folders, parts=[broken])


# Image files

def text(path): path.write_text('not an image'); return 'is not a PNG or JPEG image'
def no_bytes(path): path.write_bytes(b''); return 'is not a PNG or JPEG image'
def half_a_png(path): path.write_bytes(path.read_bytes()[:path.stat().st_size//2]); return 'is damaged'
def half_a_jpeg(path):
    Image.open(path).save(path, 'JPEG')
    path.write_bytes(path.read_bytes()[:-200]); return 'is damaged'
def a_gif(path): Image.open(path).save(path, 'GIF'); return 'is not a PNG or JPEG image'
def too_wide(path): Image.new('RGB', (33, 32)).save(path); return 'is 33x32 RGB, not 32x32 RGB'
def too_big(path): Image.new('RGB', (224, 224)).save(path); return 'is 224x224 RGB, not 32x32 RGB'
def gray(path): Image.open(path).convert('L').save(path); return 'is 32x32 L, not 32x32 RGB'
def transparent(path): Image.open(path).convert('RGBA').save(path); return 'is 32x32 RGBA, not 32x32 RGB'
def palette(path): Image.open(path).convert('P').save(path); return 'is 32x32 P, not 32x32 RGB'
def a_folder(path): path.unlink(); path.mkdir(); return 'is no file'
def a_pipe(path): path.unlink(); os.mkfifo(path); return 'is no file'
def a_dead_link(path): path.unlink(); path.symlink_to('nowhere'); return 'is damaged'

@pytest.mark.parametrize('spoil', [text, no_bytes, half_a_png, half_a_jpeg, a_gif, too_wide, too_big, gray, transparent, palette, a_folder, a_pipe,
                                   a_dead_link], ids=lambda f: f.__name__)
def test_image_file(refused, folders, spoil):
    path = folders/'train'/'dog'/'0010.png'
    refused('s8fast_train', '--data', folders, '--out', 'run', parts=[path, spoil(path), 'replace or remove it'])


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_file_damaged_anywhere_is_read_whole_or_named(tmp_path, kind):
    image, path, refusals = draw_data(1, 1)['train'][0][3], tmp_path/'image', 0
    Image.fromarray(image).save(path, kind)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    def damaged():
        for n in range(0, len(whole), 3): yield whole[:n]
        for _ in range(300):
            raw = np.frombuffer(whole, np.uint8).copy()
            raw[rng.integers(len(raw), size=2)] = rng.integers(256, size=2)
            yield raw.tobytes()
    for raw in damaged():
        path.write_bytes(raw)
        try: assert read_image(path).shape == (32, 32, 3)
        except S8FastError as e: assert str(path) in str(e); refusals += 1
    assert refusals > len(whole)//3 - 20  # most truncations at the least


# Batch files

class Touch:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system, (f'touch {self.path}',)

def rewrite(path, **kwargs):
    obj = pickle.loads(path.read_bytes(), encoding='latin1')
    write_pickle(path, {k: v for k, v in {**obj, **kwargs}.items() if v is not None})

def truncated(root): o = root/'data_batch_2'; o.write_bytes(o.read_bytes()[:-5000]); return o, 'is damaged'
def no_pickle(root): o = root/'data_batch_4'; o.write_text('<html>404</html>'); return o, 'is damaged'
def wrong_shape(root): o = root/'data_batch_3'; rewrite(o, data=np.zeros((10, 3071), np.uint8)); return o, 'wrong shape', '[10, 3071]'
def wrong_type(root): o = root/'data_batch_3'; rewrite(o, data=np.zeros((10, 3072), np.float32)); return o, 'wrong shape', 'float32'
def without_data(root): o = root/'test_batch'; rewrite(o, data=None); return o, 'wrong shape'
def no_images(root): o = root/'test_batch'; rewrite(o, data=np.zeros((0, 3072), np.uint8), labels=[]); return o, 'wrong shape'
def label_too_high(root): o = root/'data_batch_1'; rewrite(o, labels=[10]*10); return o, 'labels', '0 to 9'
def label_of_text(root): o = root/'data_batch_1'; rewrite(o, labels=['cat']*10); return o, 'labels'
def too_few_labels(root): o = root/'data_batch_1'; rewrite(o, labels=[0]); return o, 'labels', '10 images'
def a_list(root): o = root/'data_batch_1'; write_pickle(o, [1, 2]); return o, 'a list, not a dictionary'
def batch_missing(root): o = root/'data_batch_5'; o.unlink(); return o, 'is missing'
def no_test_batch(root): o = root/'test_batch'; o.unlink(); return o, 'is missing'
def meta_missing(root): o = root/'batches.meta'; o.unlink(); return o, 'is missing'
def meta_without_names(root): o = root/'batches.meta'; write_pickle(o, {'num_vis': 3072}); return o, 'label_names'
def class_missing(root): o = root/'test_batch'; rewrite(o, labels=[0]*10); return 'automobile', root, 'test images'
def an_object(root): o = root/'data_batch_1'; rewrite(o, data=Touch(root/'touched')); return o, 'system', 'trust'
def a_builtin(root): o = root/'data_batch_1'; o.write_bytes(b'c__builtin__\neval\n(S"1"\ntR.'); return o, 'eval', 'trust'

@pytest.mark.parametrize('spoil', [truncated, no_pickle, wrong_shape, wrong_type, without_data, no_images, label_too_high, label_of_text,
                                   too_few_labels, a_list, batch_missing, no_test_batch, meta_missing, meta_without_names, class_missing,
                                   an_object, a_builtin], ids=lambda f: f.__name__)
def test_batch_file(refused, original, spoil):
    refused('s8fast_train', '--data', original, '--out', 'run', parts=[*spoil(original), 'download'])
    assert not (original/'touched').exists()


# The output folder

@pytest.fixture
def no_data(monkeypatch):
    for o in ('training', 'learner'): monkeypatch.setattr(f's8fast.{o}.load_data', lambda data: pytest.fail('the data was read before the input was refused'))

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('force', [(), ('--force',)], ids=['plain', 'force'])
def test_output_folder(refused, tmp_path, force):
    (tmp_path/'file').write_text('mine')
    refused('s8fast_train', '--data', 'digits', '--out', 'file', *force, parts=['file', 'not a folder', '--out'])
    refused('s8fast_train', '--data', 'digits', '--out', 'file/run', *force, parts=['file/run', 'cannot be written', '--out'])
    refused('s8fast_train', '--data', 'digits', '--out', 'o'*300, *force, parts=['o'*300, '--out'])
    assert (tmp_path/'file').read_text() == 'mine'

@pytest.mark.usefixtures('no_data')
def test_output_folder_that_is_not_empty(refused, tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run'/'notes.txt').write_text('mine')
    refused('s8fast_train', '--data', 'digits', '--out', 'run', parts=['run', 'not empty', '--force'])
    assert (tmp_path/'run'/'notes.txt').read_text() == 'mine'

@pytest.mark.usefixtures('no_data')
def test_output_folder_without_write_permission(refused, tmp_path, monkeypatch):
    (tmp_path/'locked').mkdir(mode=0o555)
    if os.geteuid() == 0: monkeypatch.setattr(os, 'access', lambda path, mode, **kwargs: Path(path).name != 'locked')  # nothing is locked for root
    for out in ('locked', 'locked/run'): refused('s8fast_train', '--data', 'digits', '--out', out, parts=[out, 'read-only', '--out'])

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('out', ['missing/find.png', 'find.xyz', '.'])
def test_output_file_of_the_finder(refused, out):
    refused('s8fast_lr_find', '--data', 'digits', '--out', out, parts=[out, '--out'])


# Choices

CHOICES = dict(
    model=('resnet50', ''), epochs=(0, -1), bs=(0, -8, 1.5, 'many'), seed=(-1, 2**32), lr_max=(0, -0.1, 'nan', 'inf', '-inf', 'fast'), div=(0, -1, 0.5, 'nan', 'inf'),
    pct_start=(0, 1, -1, 'nan'), shape=('step', ''), mom_max=(1.5, 'nan'), mom_min=(-0.1, 'inf'), wd=(-1, 'nan', 'inf', 'weak'),
    pad=(-1, 33, 'wide'), cutout=(-1, 33, 'big'), valid_pct=(-0.1, 1.1, 'nan'), split_seed=(-1,), pipeline=('fast', ''), num_workers=(-1, 1.5, 'many'), precision=('fp8', ''), device=('tpu', 'cuda:x', 'xpu', ''),
    pad_mode=('mirror', ''), label_smoothing=(-.1, 1.5, 'nan', 'soft'), average=(-1, 'inf', 'some'), bn_momentum=(-.1, 1.1, 'nan'), preset=('worst', ''))

@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('option, value', [(k, v) for k, vs in CHOICES.items() for v in vs])
def test_choice(refused, option, value):
    named = repr(value) if option in ('precision', 'device') else f'{option}='
    refused('s8fast_train', '--data', 'digits', '--out', 'run', f'--{option}={value}', parts=[named, 'give'])


@pytest.mark.parametrize('option, value', [('epochs', 'many'), ('epochs', 1.5), ('div', 'steep'), ('channels_last', 'perhaps'), ('speed', 9)])
def test_what_the_parser_refuses(call_command, tmp_path, monkeypatch, option, value):
    monkeypatch.chdir(tmp_path)
    done = call_command('s8fast_train', '--data', 'digits', f'--{option}={value}')
    usage, error = done.stderr.split('s8fast_train: error: ')
    assert done.returncode == 2 and usage.startswith('usage: s8fast_train ') and error.count('\n') == 1 and f'--{option}' in error
    assert names(tmp_path) == []


def test_workers_without_fork(tmp_path):
    code = 'import multiprocessing, sys; multiprocessing.set_start_method(sys.argv.pop(1)); from s8fast.cli import s8fast_train; s8fast_train()'
    flags = '--data', 'digits', '--device', 'cpu', '--pipeline', 'item', '--epochs', '1', '--lr_max', '1e-3', '--model', 'ultimus', '--no_report', '--out', tmp_path/'run'
    def train(method, *more): return subprocess.run([sys.executable, '-c', code, method, *map(str, (*flags, *more))], capture_output=True, text=True)
    bad = train('forkserver', '--num_workers', 2)
    assert bad.returncode == 2 and 'num_workers=2' in bad.stderr and 'forkserver' in bad.stderr and bad.stderr.count('\n') == 1 and names(tmp_path) == []
    good = train('spawn')
    assert good.returncode == 0 and json.loads((tmp_path/'run'/'recipe.json').read_text())['chosen']['num_workers'] == 0, good.stderr


def test_recipe_refuses_what_no_option_can_say():
    for kwargs in (dict(epochs=1.5), dict(epochs=True), dict(bs='512'), dict(lr_max='0.1'), dict(drop_last=1), dict(shape=None),
                   dict(device=None), dict(wd=1j), dict(cutout=8.), dict(model=None)):
        (name, value), = kwargs.items()
        with pytest.raises(S8FastError) as e: Recipe(**kwargs)
        assert f'{name}={value!r}' in str(e.value)


@pytest.mark.usefixtures('no_data')
@pytest.mark.parametrize('command', ['s8fast_train', 's8fast_lr_find', 's8fast_evaluate', 's8fast_report'])
def test_cuda_that_is_not_there(refused, monkeypatch, command, png_run):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    run = [png_run[0]] if command in ('s8fast_evaluate', 's8fast_report') else []
    for device in ('cuda', 'cuda:1'): refused(command, *run, '--device', device, parts=[device, '0 CUDA devices', '--device'])


@pytest.mark.usefixtures('no_data')
def test_fp16_without_cuda(refused): refused('s8fast_train', '--data', 'digits', '--precision', 'fp16', '--device', 'cpu', parts=['fp16', 'CUDA', '--precision'])


@pytest.mark.usefixtures('no_data')
def test_bf16_without_hardware(refused, monkeypatch):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', dict, raising=False)
    for command in ('s8fast_train', 's8fast_lr_find'): refused(command, '--data', 'digits', '--precision', 'bf16', '--device', 'cpu', parts=['bf16', 'no hardware', '--precision'])


def test_batch_larger_than_the_set(refused, folders):
    load_cifar10(folders)  # the cache of good data may stay
    for args in (['s8fast_train', '--out', 'run'], ['s8fast_train', '--out', 'run', '--lr_max', 0.01]):
        refused(*args, '--data', folders, '--valid_pct', 0.5, '--bs', 11, '--device', 'cpu', parts=['11', '10 training images', 'bs'])
    refused('s8fast_lr_find', '--data', 'digits', '--bs', 1381, '--device', 'cpu', parts=['1381', '1380 training images', 'bs'])


@pytest.mark.parametrize('valid_pct', [0.1, 0.9, 1])
def test_validation_share_that_leaves_a_class_out(refused, folders, valid_pct):
    load_cifar10(folders)
    refused('s8fast_train', '--data', folders, '--out', 'run', '--bs', 1, '--valid_pct', valid_pct,
            parts=[f'valid_pct={float(valid_pct)}', 'of 20 images', 'each of the 10 classes'])


@pytest.mark.parametrize('option, value', [
    ('start_lr', 0), ('start_lr', -1e-3), ('start_lr', 'nan'), ('end_lr', 0), ('end_lr', 'inf'), ('end_lr', 1e-9),
    ('num_it', 0), ('num_it', -3), ('num_it', 5), ('bs', 0), ('wd', 'nan'), ('num_workers', 'many')])
def test_choice_of_the_finder(refused, monkeypatch, option, value):
    monkeypatch.setattr(Learner, 'lr_find', lambda *args, **kwargs: pytest.fail('a search began'))
    refused('s8fast_lr_find', '--data', 'digits', '--out', 'find.png', '--num_workers', 0, '--device', 'cpu', f'--{option}={value}', parts=[option])


def test_a_rate_at_which_the_loss_explodes(call_command, png, tmp_path):
    done = call_command('s8fast_train', '--data', png, '--out', tmp_path/'run', '--epochs', 1, '--lr_max', 1e30, '--div', 1, *TINY)
    assert done.returncode == 3 and done.stderr.count('\n') == 1
    for o in ('not finite in epoch 1, step', '--lr_max than 1.00e+30', '--force', tmp_path/'run'): assert str(o) in done.stderr
    assert not {'metrics.json', 'model.safetensors'} & set(names(tmp_path/'run'))  # nothing that could pass for a result


def test_compile_without_a_compiler(run_command, tmp_path):
    done = run_command('s8fast_train', '--data', 'digits', '--out', tmp_path/'run', '--lr_max', 1e-3, '--compile', *TINY,
                       env=dict(CXX='/no/such/compiler', TORCHINDUCTOR_CACHE_DIR=str(tmp_path/'cache')))
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert [o for o in done.stderr.splitlines() if o.startswith('s8fast_train: torch.compile failed') and '--compile' in o]
    assert not {'metrics.json', 'model.safetensors'} & set(names(tmp_path/'run'))


# The run folder that evaluate is given

@pytest.fixture
def run(png_run, tmp_path): return shutil.copytree(png_run[0], tmp_path/'run')

def no_run(run): shutil.rmtree(run); return run, 'is no run folder'
def no_recipe(run): (run/'recipe.json').unlink(); return run, 'is no run folder', 'recipe.json'
def half_a_recipe(run): o = run/'recipe.json'; o.write_text(o.read_text()[:100]); return o, 'train again'
def recipe_of_something_else(run): o = run/'recipe.json'; o.write_text('{"flour": 500}'); return o, 'train again'
def recipe_of_bytes(run): o = run/'recipe.json'; o.write_bytes(b'\xff\xfe\x00'); return o, 'train again'
def changed_recipe(run): o = run/'recipe.json'; o.write_text(o.read_text().replace('"epochs": 2', '"epochs": 3')); return o, 'sha256', 'train again'
def impossible_recipe(run):
    o = run/'recipe.json'
    o.write_text(re.sub(r',\s*"sha256": "\w+"', '', o.read_text()).replace('"epochs": 2', '"epochs": -2'))
    return without_figures(run)/'recipe.json', 'epochs=-2', 'train again'
def unknown_choice(run):
    o = run/'recipe.json'
    o.write_text(re.sub(r',\s*"sha256": "\w+"', '', o.read_text()).replace('"epochs": 2', '"epochs": 2, "speed": 9'))
    return without_figures(run)/'recipe.json', "'speed'"
def newer_recipe(run): o = run/'recipe.json'; o.write_text(o.read_text().replace(f'"version": {RECIPE_VERSION}', '"version": 99')); return o, 'version 99', 'upgrade'
def without_figures(run): (run/'metrics.json').unlink(); return run  # they hold the checksums of the rest
def other_weights(run): o = run/'model.safetensors'; save_file({k: v + 1 for k, v in load_file(o).items()}, o); return o, 'SHA-256', 'train again'
def no_weights(run): o = run/'model.safetensors'; o.unlink(); return o, 'is missing', 'train again'
def half_the_weights(run): o = without_figures(run)/'model.safetensors'; o.write_bytes(o.read_bytes()[:1000]); return o, 'does not hold the weights'
def weights_of_another_network(run): o = without_figures(run)/'model.safetensors'; save_file(torch.nn.Linear(2, 2).state_dict(), o); return o, 'does not hold the weights', 'is missing'
def weights_of_other_shapes(run):
    o = without_figures(run)/'model.safetensors'
    state = load_file(o)
    save_file({**state, 'fc.bias': torch.zeros(7)}, o)
    return o, 'does not hold the weights', 'fc.bias'
def a_flipped_byte_in_the_header(run): o = without_figures(run)/'model.safetensors'; b = bytearray(o.read_bytes()); b[20] ^= 0x80; o.write_bytes(b); return o, 'does not hold the weights'
def a_pickle_for_weights(run): o = without_figures(run)/'model.safetensors'; torch.save({}, o); return o, 'does not hold the weights'

@pytest.mark.parametrize('spoil', [no_run, no_recipe, half_a_recipe, recipe_of_something_else, recipe_of_bytes, changed_recipe, impossible_recipe, unknown_choice, newer_recipe,
                                   no_weights, other_weights, half_the_weights, weights_of_another_network, weights_of_other_shapes, a_flipped_byte_in_the_header,
                                   a_pickle_for_weights], ids=lambda f: f.__name__)
def test_run_folder(refused, run, png, spoil):
    parts = spoil(run)
    load_cifar10(png)
    for command in ('s8fast_evaluate', 's8fast_report'): refused(command, run, '--data', png, '--device', 'cpu', parts=parts)


def test_run_on_other_data(refused, run): refused('s8fast_evaluate', run, '--data', 'digits', '--device', 'cpu', parts=['digits', 'PNG files', run])

def test_part_that_there_is_not(refused, run): refused('s8fast_evaluate', run, '--data', 'digits', '--part', 'all', parts=["'all'", 'valid'])


# The cache

@pytest.mark.parametrize('parent', ['file', '/proc'], ids=['under a file', 'under a folder that nobody can write to'])
def test_a_cache_that_cannot_be_written_is_done_without(folders, tmp_path, parent):
    (tmp_path/'file').write_text('mine')
    assert load_cifar10(folders, cache=(tmp_path/parent)/'cache').fingerprint == load_cifar10(folders, cache=False).fingerprint
    assert (tmp_path/'file').read_text() == 'mine'


# The same through a process of its own, one for each kind

def test_as_processes(run_command, folders, tmp_path):
    broken = folders/'train'/'dog'/'0010.png'
    broken.write_bytes(broken.read_bytes()[:100])
    cwd = tmp_path/'cwd'
    cwd.mkdir()
    cases = (['s8fast_train', '--data', 'no/such/folder', '--out', 'run'], 'no/such/folder', '--data'), \
            (['s8fast_lr_find', '--data', folders, '--out', 'find.png'], broken, 'replace'), \
            (['s8fast_evaluate', 'no/such/run', '--data', 'digits'], 'no/such/run', 'recipe.json')
    for args, *parts in cases: assert_sentence(run_command(*args, cwd=cwd), args[0], *parts)
    assert names(cwd) == []
