"`s8fast_evaluate RUN --data_v2 DIR`: accuracy on CIFAR-10.1's files, and every way in which they can be wrong."
import os

import numpy as np
import pytest
from helpers import assert_sentence, read_json

from s8fast.data.dataset import load_data
from s8fast.data.published import MAX_V2, V2_IMAGES, V2_LABELS


@pytest.fixture
def folder(tmp_path, png):
    "The test images of the run in the place of CIFAR-10.1's, the first of them with another label."
    data = load_data(png)
    folder = tmp_path/'v2'
    folder.mkdir()
    np.save(folder/V2_IMAGES, data.test_images)
    np.save(folder/V2_LABELS, data.test_labels.astype(np.int32))
    return folder


@pytest.fixture
def refused(call_command, png_run, folder):
    def refused(*parts, run=png_run.folder, where=folder, more=()):
        done = call_command('s8fast_evaluate', run, '--data_v2', where, '--device', 'cpu', *more)
        assert_sentence(done, 's8fast_evaluate', *parts)
    return refused


def test_the_figures(call_command, png_run, folder):
    accuracy = read_json(png_run.folder/'metrics.json')['test']['accuracy']
    done = call_command('s8fast_evaluate', png_run.folder, '--data_v2', folder, '--device', 'cpu')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    v2, test, gap = done.stdout.splitlines()
    assert v2.startswith(f'CIFAR-10.1 {accuracy:.2%} (95% interval ') and v2.endswith(', n 20')
    assert test == 'test images' + v2.removeprefix('CIFAR-10.1').removesuffix(', n 20')
    assert gap == 'gap 0.00 points'
    np.save(folder/V2_LABELS, (np.load(folder/V2_LABELS) + 1) % 10)
    worse = call_command('s8fast_evaluate', png_run.folder, '--data_v2', folder, '--device', 'cpu').stdout
    assert worse != done.stdout


def test_other_options_and_runs(refused, digits_run, tmp_path):
    for option in (['--part', 'test'], ['--shifts'], ['--data', 'digits']):
        refused(f'{option[0]} plays no part with --data_v2: leave it out.', more=option)
    refused("CIFAR-10's ten classes", digits_run.folder, run=digits_run.folder)
    refused('no run folder', run=tmp_path)


def test_what_is_missing(refused, folder, tmp_path):
    refused('There is no folder', where=tmp_path/'none')
    refused('There is no folder', where=folder/V2_IMAGES)
    for name in (V2_IMAGES, V2_LABELS):
        (folder/name).rename(tmp_path/name)
        refused(f'{name} cannot be read (No such file')
        (folder/name).mkdir()
        refused(f'{name} cannot be read (it is no file)')
        (folder/name).rmdir()
        (tmp_path/name).rename(folder/name)
    if hasattr(os, 'mkfifo'):
        (folder/V2_IMAGES).unlink()
        os.mkfifo(folder/V2_IMAGES)
        refused('it is no file')


HUGE = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (%s, 32, 32, 3), }"

@pytest.mark.parametrize('name', [V2_IMAGES, V2_LABELS])
def test_what_is_no_array(refused, folder, name):
    whole = (folder/name).read_bytes()
    shapes = b'2000', b'9'*15, b'9'*30, b'-1', b'None', b'('*60
    huge = [HUGE.replace(b'%s', n).ljust(127) + b'\n' for n in shapes]
    for content in (b'', b'?', b'\x93NUMPY', whole[:20], whole[:-1], b'PK\x03\x04', *huge):
        (folder/name).write_bytes(content)
        refused(f'{name} cannot be read (')
    with open(folder/name, 'wb') as f: np.savez(f, np.zeros(3))
    refused(f'{name} cannot be read (the magic string')
    np.save(folder/name, np.array([print]*20), allow_pickle=True)
    refused(f'{name} cannot be read (')


def test_what_is_the_wrong_array(refused, folder):
    images, labels = np.load(folder/V2_IMAGES), np.load(folder/V2_LABELS)
    for wrong in (images.astype(np.float32), images[..., :1], images[0], images[:, :16], images[:0], np.uint8(3)):
        np.save(folder/V2_IMAGES, wrong)
        refused(f'{V2_IMAGES} holds {wrong.dtype} {[*wrong.shape]}, not uint8 [n, 32, 32, 3]')
    np.save(folder/V2_IMAGES, np.broadcast_to(images[:1], (MAX_V2 + 1, 32, 32, 3))[:, :1, :1])
    refused('not uint8')
    np.save(folder/V2_IMAGES, images)
    for wrong in (labels.astype(float), labels[:-1], labels[:, None], labels[:0], labels > 4):
        np.save(folder/V2_LABELS, wrong)
        refused(f'{V2_LABELS} holds {wrong.dtype} {[*wrong.shape]} beside 20 images')
    for wrong, said in ((labels - 1, 'from -1 to 8'), (labels + 1, 'from 1 to 10')):
        np.save(folder/V2_LABELS, wrong)
        refused(f'{V2_LABELS} goes {said}, and classes are 0 to 9')


def test_more_images_than_there_can_be(refused, folder, monkeypatch):
    monkeypatch.setattr('s8fast.data.published.MAX_V2', 19)
    refused('has 20 images, not 2,000')
