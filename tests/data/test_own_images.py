"Images of one's own: any classes, sizes and kinds, in folders and archives, and a training on them from end to end."
import json
import pickle
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from helpers import ON_CPU, assert_sentence, names, read_json
from PIL import Image, ImageDraw

from s8fast.data.any_image import read_any_image
from s8fast.data.dataset import data_source, load_data, load_folder
from s8fast.data.images import CIFAR10_STATS
from s8fast.errors import S8FastError

CLASSES = 'Äpfel & Birnen', '正方形', '5 $ off'
KINDS = 'jpg', 'png', 'webp', 'gif', 'bmp', 'tiff'
MODES = 'RGB', 'L', 'RGB', 'P', '1', 'RGBA'


def photograph(label, seed):
    "A picture of any size: a disc, a square or a triangle."
    rng = np.random.default_rng((label, seed))
    width, height = map(int, rng.integers(20, 150, 2))
    image = Image.new('RGB', (width, height), tuple(map(int, rng.integers(0, 100, 3))))
    draw, color = ImageDraw.Draw(image), tuple(map(int, rng.integers(150, 256, 3)))
    box = width//4, height//4, 3*width//4, 3*height//4
    if label == 2: draw.polygon([(box[0], box[3]), (width//2, box[1]), (box[2], box[3])], fill=color)
    else: (draw.ellipse, draw.rectangle)[label](box, fill=color)
    return image


def write_class(folder, label, n, first=0):
    "So many photographs of every kind, some of them in a folder further down."
    for i in range(first, first + n):
        place = folder/'2026'/'May' if i % 4 == 3 else folder
        place.mkdir(parents=True, exist_ok=True)
        image = photograph(label, i)
        image.convert(MODES[i % 6]).save(place/f'{i}.{KINDS[i % 6]}')


@pytest.fixture(scope='session')
def photographs(once):
    "Class folders only, with what systems leave there."
    def make(root):
        for label, name in enumerate(CLASSES): write_class(root/name, label, 12)
        (root/'.DS_Store').touch()
        (root/CLASSES[0]/'Thumbs.db').touch()
        (root/CLASSES[0]/'notes.txt').touch()
    return once('photographs', make)


def test_a_folder_of_photographs_from_end_to_end(call_command, photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    run, data = tmp_path/'run', ('--data', photographs.name)
    done = call_command('s8fast_train', *data, '--out', run, '--model', 'ultimus', '--epochs', 2, *ON_CPU,
                        '--bs', 8, '--valid_pct', .2)
    assert done.returncode == 0 and '3 classes; image files, brought to 32x32 RGB; a fifth of each class split off' in \
        done.stdout, done.stderr
    facts = read_json(run/'recipe.json')['data']
    assert facts['name'] == 'photographs' and facts['vocab'] == sorted(CLASSES)
    assert (facts['n_train'] + facts['n_valid'], facts['n_test']) == (30, 6)
    assert facts['stats'] == [list(o) for o in load_data(photographs).stats] != [list(o) for o in CIFAR10_STATS]
    page = (run/'report.html').read_text()
    for name in ('Äpfel &amp; Birnen', '正方形', '5 $ off'): assert name in page
    assert call_command('s8fast_evaluate', run, *data, '--device', 'cpu').returncode == 0
    shown = call_command('s8fast_predict', run, photographs/CLASSES[1]/'0.jpg', '--json', '--device', 'cpu')
    assert {o['prediction'] for o in json.loads(shown.stdout)} <= {*CLASSES}
    refused = call_command('s8fast_evaluate', run, '--device', 'cpu')
    assert_sentence(refused, 's8fast_evaluate', 'was trained on photographs', '--data')  # no download of CIFAR-10


def test_the_pixels_are_those_of_a_prediction(photographs):
    data, every = load_folder(photographs, cache=False), {}
    for path in photographs.rglob('*.*'):
        if path.suffix[1:] in KINDS: every[read_any_image(path).tobytes()] = path
    pixels = np.concatenate([data.train_images, data.test_images])
    found = [every[image.tobytes()] for image in pixels]
    assert len(set(found)) == len(pixels) == 36
    labels = np.concatenate([data.train_labels, data.test_labels])
    assert [path.relative_to(photographs).parts[0] for path in found] == [data.vocab[label] for label in labels]


def zipped(root, to):
    with zipfile.ZipFile(to/'x.zip', 'w') as f:
        for path in sorted(root.rglob('*')): f.write(path, path.relative_to(root.parent))
        f.writestr('__MACOSX/photographs/._1.png', b'x')
    return to/'x.zip'

def tarred(root, to):
    with tarfile.open(to/'x.tar.gz', 'w:gz') as f: f.add(root, 'data/photographs')
    return to/'x.tar.gz'

def wrapped(root, to): return shutil.copytree(root, to/'one'/'more'/'photographs').parent.parent

def linked(root, to):
    for name in CLASSES:
        (to/'links').mkdir(exist_ok=True)
        (to/'links'/name).symlink_to(root/name)
    return to/'links'

@pytest.mark.parametrize('pack', [zipped, tarred, wrapped, linked])
def test_the_same_images_packed_otherwise(photographs, tmp_path, pack, monkeypatch):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    expected, cache, packed = load_folder(photographs, cache=False), tmp_path/'cache', pack(photographs, tmp_path)
    before = names(tmp_path)
    for _ in range(2): assert load_folder(packed, cache).fingerprint == expected.fingerprint
    assert [o for o in names(tmp_path) if o not in before and o != 'cache'] == [f'cache/{next(cache.iterdir()).name}']


def test_parts_of_other_names(photographs, tmp_path):
    for i, part in enumerate(('Training', 'val', 'TEST')):
        for label, name in enumerate(CLASSES): write_class(tmp_path/'data'/part/name, label, 2, first=10*i)
    joined = load_folder(tmp_path/'data', cache=False)
    assert (len(joined.train_labels), len(joined.test_labels)) == (12, 6) and 'val trained on too' in joined.edition
    shutil.rmtree(tmp_path/'data'/'TEST')
    tested = load_folder(tmp_path/'data', cache=False)
    assert (len(tested.train_labels), len(tested.test_labels)) == (6, 6) and 'val as the test images' in tested.edition
    shutil.rmtree(tmp_path/'data'/'val')
    with pytest.raises(S8FastError, match='has no test, val or valid beside Training'): load_folder(tmp_path/'data')
    assert len(load_folder(tmp_path/'data'/'Training', cache=False).test_labels) == 3


def test_copies_among_the_test_images_are_counted(tmp_path):
    for part in ('train', 'test'):
        for label, name in enumerate('ab'): write_class(tmp_path/part/name, label, 3 + 2*(part == 'test'))
    with pytest.warns(UserWarning, match='6 of the 10 test images are training images too'):
        load_folder(tmp_path, cache=False)


def test_names_composed_in_two_ways_are_one_class(tmp_path):
    for part, name in (('train', 'caf\u00e9'), ('test', 'cafe\u0301')):
        for label, o in enumerate((name, 'bar')): write_class(tmp_path/part/o, label, 2, first=10*(part == 'test'))
    assert load_folder(tmp_path, cache=False).vocab == ('bar', 'caf\u00e9')


@pytest.mark.filterwarnings('ignore:1 of 3 classes')
def test_a_class_of_one_image_and_of_black_ones(tmp_path):
    for name, n in (('many', 5), ('two', 2), ('one', 1)):
        (tmp_path/name).mkdir()
        for i in range(n): Image.new('L', (9, 7 + i)).save(tmp_path/name/f'{i}.png')
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*pixel for pixel')
        data = load_folder(tmp_path, cache=False)
    assert data.stats[1] == (.0039,)*3
    assert np.bincount(data.test_labels, minlength=3).tolist() == [1, 0, 1]


# Refused

def one_class(root): shutil.rmtree(root/CLASSES[0]), shutil.rmtree(root/CLASSES[1])
def too_many(root):
    for i in range(1000):
        (root/f'{i}').mkdir()
        Image.new('RGB', (4, 4)).save(root/f'{i}'/'0.png')
def empty_class(root): (root/'none').mkdir()
def unreadable(root): (root/CLASSES[0]/'x.jpg').write_text('no image')
def raw_photograph(root): (root/CLASSES[0]/'x.CR2').write_text('no image')
def loose(root): Image.new('RGB', (4, 4)).save(root/'loose.png')
def loop(root): (root/CLASSES[0]/'loop').symlink_to(root/CLASSES[0])
def twice(root): shutil.copytree(root/CLASSES[0], root/'train'/'a'), shutil.copytree(root/CLASSES[0], root/'Train'/'a')

WRONG = [
    (one_class, 'only the class'), (too_many, '1,003 classes'), (empty_class, 'Class "none" has no images'),
    (unreadable, 'x.jpg is not an image'), (raw_photograph, 'x.CR2 is not an image'), (loose, 'loose.png lies in no'),
    (loop, 'loop is a folder within itself'), (twice, 'both Train and train')]

@pytest.mark.parametrize('spoil, says', WRONG, ids=[spoil.__name__ for spoil, _ in WRONG])
def test_a_folder_that_is_no_data_set(refused, photographs, tmp_path, spoil, says):
    shutil.copytree(photographs, tmp_path/'spoilt')
    spoil(tmp_path/'spoilt')
    refused(tmp_path/'spoilt', says)


@pytest.mark.parametrize('name, content, says', [
    ('x.zip', b'PK no archive', 'could not be unpacked'), ('x.tar.gz', b'no archive', 'could not be unpacked'),
    ('x.zip', None, 'has no images that are sorted')])
def test_an_archive_that_is_no_data_set(refused, tmp_path, name, content, says):
    if content is None:
        with zipfile.ZipFile(tmp_path/name, 'w') as f: f.writestr('notes.txt', b'nothing')
    else: (tmp_path/name).write_bytes(content)
    refused(tmp_path/name, name, says)


# CIFAR-100

@pytest.fixture
def cifar100(tmp_path):
    root = tmp_path/'cifar-100-python'
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, n in (('train', 20), ('test', 8)):
        fine = [i % 4 for i in range(n)]
        rows = rng.integers(256, size=(n, 3072), dtype=np.uint8)
        batch = {b'data': rows, b'fine_labels': fine, b'coarse_labels': [o//2 for o in fine]}
        (root/part).write_bytes(pickle.dumps(batch, 2))
    meta = {b'fine_label_names': [b'cod', b'eel', b'oak', b'elm'], b'coarse_label_names': [b'fish', b'trees']}
    (root/'meta').write_bytes(pickle.dumps(meta, 2))
    return root


def test_cifar100_fine_and_coarse(cifar100, tmp_path):
    fine, coarse = (load_folder(f'{cifar100}{labels}', tmp_path/'cache') for labels in ('', ':coarse'))
    assert fine.vocab == ('cod', 'eel', 'oak', 'elm') and coarse.vocab == ('fish', 'trees')
    assert (fine.train_images == coarse.train_images).all() and (fine.train_labels//2 == coarse.train_labels).all()
    assert load_folder(cifar100, tmp_path/'cache').fingerprint == fine.fingerprint != coarse.fingerprint
    assert data_source(f'{cifar100}:coarse') == f'{cifar100}:coarse'
    with tarfile.open(tmp_path/'cifar-100-python.tar.gz', 'w:gz') as f: f.add(cifar100, cifar100.name)
    assert load_folder(tmp_path/'cifar-100-python.tar.gz', cache=False).fingerprint == fine.fingerprint


def test_cifar100_that_is_damaged(refused, cifar100, photographs):
    refused(f'{photographs}:coarse', 'no coarse labels')
    (cifar100/'test').write_bytes(pickle.dumps({b'data': np.zeros((2, 3072), np.uint8), b'fine_labels': [0]}, 2))
    refused(cifar100, 'test has fine_labels that do not fit its 2 images')
    (cifar100/'test').unlink()
    refused(cifar100, 'test is missing')


# Data sets of Hugging Face, one that lies here

@pytest.fixture
def saved(photographs, tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    monkeypatch.setenv('HF_HOME', str(tmp_path/'hf'))
    files = [(path, CLASSES.index(path.relative_to(photographs).parts[0]))
             for path in sorted(photographs.rglob('*.*')) if path.suffix[1:] in KINDS]
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES)))
    rows = dict(image=[str(path) for path, _ in files], label=[label for _, label in files])
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, kinds)).save_to_disk(str(tmp_path/'saved'))
    return tmp_path/'saved'


def test_a_data_set_of_hugging_face(saved, photographs):
    found, expected = load_data(f'hf:{saved}'), load_folder(photographs, cache=False)
    assert found.vocab == CLASSES and found.name == 'saved'
    pixels = [{o.tobytes() for part in ('train', 'test') for o in getattr(data, f'{part}_images')}
              for data in (found, expected)]
    assert pixels[0] == pixels[1] and (len(found.train_labels), len(found.test_labels)) == (30, 6)


def test_no_data_set_of_hugging_face(call_command, tmp_path, monkeypatch):
    train = 's8fast_train', '--out', tmp_path/'run', '--data'
    (tmp_path/'empty').mkdir()
    assert_sentence(call_command(*train, f'hf:{tmp_path}/empty'), 's8fast_train', f'hf:{tmp_path}/empty cannot be had')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert_sentence(call_command(*train, 'hf:a/b'), 's8fast_train', 'needs datasets', "pip install 's8fast[datasets]'")


# Where they lie, for a process elsewhere

def test_a_source_for_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'local').mkdir()
    assert [data_source(o) for o in (None, 'digits', 'a/b', 'hf:owner/name', 'hf:local', 'hf:local:column')] == [
        None, 'digits', f'{tmp_path}/a/b', 'hf:owner/name', f'hf:{tmp_path}/local', f'hf:{tmp_path}/local:column']
    monkeypatch.setenv('S8FAST_DATA', 'photographs')
    assert data_source(None) == f'{tmp_path}/photographs'
