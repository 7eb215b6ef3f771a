"The images that are read are the ones that are meant: links, files replaced unnoticed, what systems leave in folders."
import os
import shutil

import numpy as np
import pytest
from helpers import VOCAB, draw_data, names, write_batches, write_folders
from PIL import Image

from s8fast.data.dataset import load_folder, load_data
from s8fast.data.images import ImageData
from s8fast.errors import S8FastError


@pytest.fixture
def cache(tmp_path): return tmp_path/'cache'

@pytest.fixture
def pair(tmp_path):
    "Two data sets of uncompressed images: every file has the same name, size and time in both, and other pixels."
    roots = []
    for name, shift in (('a', 0), ('b', 7)):
        parts = {part: (images + np.uint8(shift), labels) for part, (images, labels) in draw_data(2, 1).items()}
        root = write_folders(tmp_path/name, parts)
        for path in root.rglob('*.png'):
            Image.open(path).save(path, compress_level=0)
            os.utime(path, ns=(10**18, 10**18))
        roots.append(root)
    return roots


def digest(root, cache=False): return load_folder(root, cache).fingerprint


def linked_parts(root, to):
    root.mkdir()
    for part in ('train', 'test'): (root/part).symlink_to(to/part)

def linked_classes(root, to):
    for part in ('train', 'test'):
        (root/part).mkdir(parents=True)
        for name in VOCAB: (root/part/name).symlink_to(to/part/name)

def linked_files(root, to):
    for path in to.rglob('*.png'):
        link = root/path.relative_to(to)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)

def hard_links(root, to): shutil.copytree(to, root, copy_function=os.link)

def copies(root, to): shutil.copytree(to, root)


@pytest.mark.parametrize('make', [linked_parts, linked_classes, linked_files, hard_links, copies])
def test_two_folders_that_look_alike(tmp_path, pair, cache, make):
    for i, root in enumerate(pair): make(tmp_path/f'like{i}', root)
    for _ in range(2):
        for i, root in enumerate(pair): assert digest(tmp_path/f'like{i}', cache) == digest(root)


@pytest.mark.parametrize('make', [linked_parts, linked_classes, linked_files])
def test_a_link_that_leads_elsewhere_by_now(tmp_path, pair, cache, make):
    root = tmp_path/'links'
    for to in pair:
        shutil.rmtree(root, ignore_errors=True)
        make(root, to)
        assert digest(root, cache) == digest(to)


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time(pair, cache):
    a, b = pair
    before = digest(a, cache)
    shutil.copy2(next(b.rglob('*.png')), next(a.rglob('*.png')))
    assert digest(a, cache) == digest(a) != before


def test_batches_that_were_replaced(tmp_path, cache):
    root = write_batches(tmp_path/'cifar-10-batches-py', draw_data(2, 1))
    before = digest(root, cache)
    path = root/'test_batch'
    raw, times = bytearray(path.read_bytes()), os.stat(path)
    raw[-2000] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(root, cache) == digest(root) != before


def test_a_data_folder_has_one_cache(pair, cache, tmp_path):
    a, b = pair
    digest(a, cache)
    first, = cache.iterdir()
    written = first.stat().st_mtime_ns
    for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini', '._0000.png', 'notes.txt'):
        (a/'train'/'cat'/name).write_bytes(b'left by a system')
        (a/name).write_bytes(b'left by a system')
        digest(a, cache)
    (tmp_path/'link').symlink_to(a)
    digest(tmp_path/'link', cache)
    assert names(cache) == [first.name] and first.stat().st_mtime_ns == written  # never decoded again
    next(a.rglob('train/cat/0*.png')).unlink()
    digest(a, cache)
    assert names(cache) == [first.name]
    digest(b, cache)
    shutil.rmtree(b)
    os.utime(next(a.rglob('train/dog/0*.png')))
    digest(a, cache)
    assert names(cache) == [first.name]  # that of the folder that is gone goes


@pytest.fixture
def folders(tmp_path): return write_folders(tmp_path/'data', draw_data(2, 1))

def as_svg(cat): (cat/'0006.png').write_text('<svg/>'), (cat/'0006.png').rename(cat/'0006.SVG')
def beside_the_classes(cat): (cat/'0006.png').rename(cat.parent/'0006.png')

@pytest.mark.parametrize('hide, says', [
    (as_svg, 'cat/0006.SVG is not an image that Pillow reads'),
    (beside_the_classes, 'train/0006.png lies in no class folder')])
def test_no_image_is_passed_over_without_a_word(refused, folders, hide, says):
    hide(folders/'train'/'cat')
    refused(folders, says)


# Folders that are nearly right

def test_two_of_the_classes_are_a_data_set_of_their_own(tmp_path):
    parts = {part: (images[labels < 2], labels[labels < 2]) for part, (images, labels) in draw_data(2, 1).items()}
    found = load_folder(write_folders(tmp_path/'pets', parts, vocab=('cat', 'dog')), cache=False)
    assert found.vocab == ('cat', 'dog') and len(found.train_labels) == 4


def test_three_missing_classes_are_named(refused, folders):
    for part in ('train', 'test'):
        for name in ('cat', 'dog', 'ship'): shutil.rmtree(folders/part/name)
    refused(folders, 'Classes cat, dog, ship are missing')


def test_what_lies_around_is_pointed_to(refused, folders, tmp_path):
    root = folders
    for given in (root/'train', root/'train'/'cat'): refused(given, f'give {root}')
    (tmp_path/'cifar.rar').write_bytes(b'PK')
    (tmp_path/'cifar.bin').write_bytes(b'PK')
    refused(tmp_path/'cifar.rar', 'cifar.rar is an archive', 'unpack it')
    refused(tmp_path/'cifar.bin', 'cifar.bin is a file, not a folder')
    refused('', 'empty name')


def test_the_variable_may_say_digits(monkeypatch):
    monkeypatch.setenv('S8FAST_DATA', 'digits')
    assert load_data(None).name == 'digits'


# Images by hand: they check themselves

IMAGES, LABELS = np.zeros((20, 32, 32, 3), np.uint8), np.repeat(np.arange(10), 2)

def by_hand(images=IMAGES, labels=LABELS, test_images=IMAGES, test_labels=LABELS, vocab=tuple(VOCAB), **more):
    return ImageData('mine', 'by hand', images, labels, test_images, test_labels, vocab, **more)

@pytest.mark.parametrize('wrong, says', [
    (dict(images=IMAGES/255), 'train_images is float64'), (dict(test_images=IMAGES/255), 'test_images is float64'),
    (dict(images=IMAGES.astype(np.int32)), 'int32'), (dict(images=IMAGES.transpose(0, 3, 1, 2)), '[20, 3, 32, 32]'),
    (dict(images=list(IMAGES)), 'a list, no NumPy array'), (dict(labels=LABELS[:, None]), 'int64 [20, 1]'),
    (dict(labels=LABELS + 1), 'from 1 to 10'), (dict(test_labels=LABELS - 1), 'test_labels goes from -1'),
    (dict(labels=LABELS[:19]), 'beside 20 images'), (dict(labels=LABELS.astype(float)), 'float64'),
    (dict(labels=[VOCAB[i] for i in LABELS]), 'a list'), (dict(vocab=('cat',)*10), 'different words'),
    (dict(stats=((125., 123., 114.), (63., 62., 66.))), 'of images in [0, 1]')])
def test_images_by_hand_that_are_none(wrong, says):
    with pytest.raises(S8FastError) as error: by_hand(**wrong)
    assert says in str(error.value) and str(error.value).endswith('.')


@pytest.mark.parametrize('kind', [np.int32, np.uint8, np.int16])
def test_labels_of_any_whole_number(kind):
    found = by_hand(labels=LABELS.astype(kind))
    assert found.train_labels.dtype == np.int64 and found.fingerprint == by_hand().fingerprint
