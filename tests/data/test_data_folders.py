"Image folders: what is wrong in one is refused by a sentence that names it, and nothing is left behind."
import os
import shutil

import numpy as np
import pytest
from helpers import draw_data, named, write_folders
from PIL import Image

from s8fast.data.pictures import read_image
from s8fast.errors import S8FastError


@pytest.fixture
def folders(tmp_path): return write_folders(tmp_path/'data', draw_data(2, 1))


# The folders: each function spoils them and returns the folder to read and what the refusal has to say

def no_folder(root):
    shutil.rmtree(root)
    return root, 'There is no data folder', root, '--data'

def a_file(root):
    path = next(root.rglob('*.png'))
    return path, path, 'is a file, not a folder', '--data'

def empty(root):
    shutil.rmtree(root)
    root.mkdir()
    return root, root, 'has no images that are sorted', 'give the folder'

def no_test_part(root):
    shutil.rmtree(root/'test')
    return root, root, 'has no test, val or valid beside train'

def empty_part(root):
    shutil.rmtree(root/'train')
    (root/'train').mkdir()
    return root, root/'train', 'has no class folders'

def class_missing_in_train(root):
    shutil.rmtree(root/'train'/'frog')
    return root, 'frog', root/'train', 'add'

def class_missing_in_test(root):
    shutil.rmtree(root/'test'/'ship')
    return root, 'ship', root/'test', 'add'

def class_empty(root):
    shutil.rmtree(root/'train'/'cat')
    (root/'train'/'cat').mkdir()
    return root, 'cat', root/'train', 'add'

def class_missing_in_both(root):
    for part in ('train', 'test'): shutil.rmtree(root/part/'deer')
    return root, 'deer', root

FOLDERS = (no_folder, a_file, empty, no_test_part, empty_part, class_missing_in_train, class_missing_in_test,
           class_empty, class_missing_in_both)

@pytest.mark.parametrize('spoil', FOLDERS, ids=named)
def test_a_data_folder_that_is_not_one(refused, folders, spoil):
    given, *parts = spoil(folders)
    refused(given, *parts)


def test_a_name_that_is_too_long_for_the_file_system(refused):
    refused('d'*300, 'd'*300, 'data folder')


def test_the_variable_names_a_folder_that_is_not_there(refused, monkeypatch):
    monkeypatch.setenv('S8FAST_DATA', '/no/such/folder')
    refused(None, '/no/such/folder', '--data')


# An image file: each function spoils it and returns what the refusal has to say

def text(path):
    path.write_text('not an image')
    return 'is not an image that Pillow reads'

def no_bytes(path):
    path.write_bytes(b'')
    return 'is not an image that Pillow reads'

def half_a_png(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size//2])
    return 'cannot be read as an image'

def half_a_jpeg(path):
    Image.open(path).save(path, 'JPEG')
    path.write_bytes(path.read_bytes()[:-200])
    return 'cannot be read as an image'

def a_folder(path):
    path.unlink()
    path.mkdir()
    return 'is no file'

def a_pipe(path):
    path.unlink()
    os.mkfifo(path)
    return 'is no file'

def a_dead_link(path):
    path.unlink()
    path.symlink_to('nowhere')
    return 'is not there'

FILES = text, no_bytes, half_a_png, half_a_jpeg, a_folder, a_pipe, a_dead_link

@pytest.mark.parametrize('spoil', FILES, ids=named)
def test_an_image_file_that_is_not_one(refused, folders, spoil):
    path = folders/'train'/'dog'/'0010.png'
    refused(folders, path, spoil(path), 'replace or remove it')


def test_several_files_are_named_at_once(refused, folders):
    paths = sorted((folders/'train').rglob('*.png'))[:4]
    for path in paths: path.write_text('not an image')
    refused(folders, '4 images cannot be read', *paths[:3])


def damaged(whole):
    "A file cut at every third byte, and with two bytes changed, 300 times."
    rng = np.random.default_rng(0)
    for n in range(0, len(whole), 3): yield whole[:n]
    for _ in range(300):
        raw = np.frombuffer(whole, np.uint8).copy()
        raw[rng.integers(len(raw), size=2)] = rng.integers(256, size=2)
        yield raw.tobytes()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_file_damaged_anywhere_is_read_whole_or_named(tmp_path, kind):
    path = tmp_path/'image'
    Image.fromarray(draw_data(1, 1)['train'][0][3]).save(path, kind)
    whole, refusals = path.read_bytes(), 0
    for raw in damaged(whole):
        path.write_bytes(raw)
        try: assert read_image(path)[0].shape == (32, 32, 3)
        except S8FastError as error:
            assert str(path) in str(error)
            refusals += 1
    assert refusals > len(whole)//3 - 20  # most truncations at the least
