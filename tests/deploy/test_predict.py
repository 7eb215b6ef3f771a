"`s8fast_predict`: any image that Pillow reads, any number of files, and a sentence for each that cannot be read."
import csv
import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import short_runs
from helpers import assert_sentence, script
from PIL import Image

from s8fast.recipe import make_recipe
from s8fast.runs.train import train

NETWORK = 'pretrained:custom_resnet'
RED = (200, 30, 20)


def photo(mode='RGB', size=(60, 40)): return Image.new('RGB', size, RED).convert(mode)


@pytest.fixture
def predict(call_command):
    "The command on a CPU."
    def predict(*args, run=NETWORK): return call_command('s8fast_predict', run, *args, '--device', 'cpu')
    return predict


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path/'photos'
    (folder/'more').mkdir(parents=True)
    photo().save(folder/'a.jpg')
    photo('L').save(folder/'b.png')
    photo('P').save(folder/'more'/'c.gif')
    (folder/'notes.txt').write_text('no image')
    (folder/'.DS_Store').write_text('left by a system')
    return folder


def lines_of(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_line_a_file(predict, folder):
    done = predict(folder)
    lines = lines_of(done)
    assert [line.split(': ')[0] for line in lines] == [str(folder/name) for name in ('a.jpg', 'b.png', 'more/c.gif')]
    for line in lines:
        shares = [float(part.rsplit(' ', 1)[1].rstrip('%')) for part in line.split(': ')[1].split(', ')]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 100.1
    assert done.stderr.startswith('A network of 10 classes takes every image for one of them (airplane, ')
    assert done.stderr.count('\n') == 1


def test_json_and_csv_have_the_same(predict, folder, tmp_path):
    done = predict(folder, '--json', '--csv', tmp_path/'found.csv')
    found = json.loads('\n'.join(lines_of(done)))
    with (tmp_path/'found.csv').open(newline='') as f: rows = list(csv.DictReader(f))
    assert len(found) == len(rows) == 3
    for one, row in zip(found, rows):
        assert (one['file'], one['prediction']) == (row['file'], row['prediction'])
        assert one['confidence'] == max(one['probabilities'].values())
        assert one['confidence'] == pytest.approx(float(row['confidence']), abs=1e-6)
        assert sum(one['probabilities'].values()) == pytest.approx(1, abs=1e-5)
        assert float(row['cat']) == pytest.approx(one['probabilities']['cat'], abs=1e-6)


def test_a_file_that_cannot_be_read_costs_a_sentence(predict, folder, tmp_path):
    (folder/'a-text.png').write_text('text')
    done = predict(folder, folder/'none.jpg', '--json', '--csv', tmp_path/'found.csv')
    assert done.returncode == 2 and len(json.loads(done.stdout)) == 3
    _, *sentences, last = done.stderr.splitlines()
    assert [sentence.split(folder.name)[1][:11] for sentence in sentences] == ['/a-text.png', '/none.jpg i']
    assert last == 's8fast_predict: 2 of 5 files or folders could not be read.'
    assert len((tmp_path/'found.csv').read_text().splitlines()) == 4


def test_pictures_with_gradcam(predict, folder, tmp_path):
    photo().save(folder/'more'/'a.png')
    lines_of(predict(folder, '--gradcam', tmp_path/'new'/'cams'))
    assert sorted(o.name for o in (tmp_path/'new'/'cams').iterdir()) == ['a-2.png', 'a.png', 'b.png', 'c.png']
    with Image.open(tmp_path/'new'/'cams'/'a.png') as image: assert image.width > 300


def test_no_picture_replaces_a_file(predict, folder):
    before = (folder/'b.png').read_bytes()
    for name in ('a.png', 'a-2.png'): photo().save(folder/name)
    lines_of(predict(folder, '--gradcam', folder))
    assert (folder/'b.png').read_bytes() == before and (folder/'b-2.png').exists()
    assert {'a-3.png', 'a-4.png', 'a-2-2.png', 'c.png'} <= {o.name for o in folder.iterdir()}


MODES = '1', 'L', 'P', 'RGBA', 'LA', 'I;16', 'CMYK'

@pytest.mark.parametrize('mode', MODES)
def test_every_kind_of_image(predict, tmp_path, mode):
    path = tmp_path/('x.tif' if mode == 'CMYK' else 'x.png')
    image = Image.fromarray(np.full((50, 70), 40_000, np.uint16)) if mode == 'I;16' else photo(mode, (70, 50))
    image.save(path)
    assert len(lines_of(predict(path))) == 1


@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
@pytest.mark.parametrize('size', [(1, 1), (5, 300), (3000, 7)])
def test_every_shape(predict, tmp_path, fit, size):
    photo(size=size).save(tmp_path/'x.png')
    assert len(lines_of(predict(tmp_path/'x.png', '--fit', fit))) == 1


def test_standard_input(predict, monkeypatch):
    raw = io.BytesIO()
    photo().save(raw, 'webp')
    class Input: buffer = io.BytesIO(raw.getvalue())
    monkeypatch.setattr('sys.stdin', Input)
    assert lines_of(predict('-'))[0].startswith('-: ')


def png_of_size(width, height):
    "A PNG file that claims so many pixels and has none."
    def number(n): return struct.pack('>I', n)
    def chunk(kind, data): return number(len(data)) + kind + data + number(zlib.crc32(kind + data))
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def turned_jpeg():
    "A sound JPEG file, turned, with a tag of a type that Pillow can't write back."
    odd, turned = struct.pack('<HHI4s', 0x0103, 2, 4, b'abc'), struct.pack('<HHIHH', 0x0112, 3, 1, 6, 0)
    exif = b'Exif\0\0II*\0' + struct.pack('<IH', 8, 2) + odd + turned + struct.pack('<I', 0)
    raw = io.BytesIO()
    photo().save(raw, 'jpeg', exif=exif)
    return raw.getvalue()


def test_a_camera_that_writes_odd_tags(predict, tmp_path):
    (tmp_path/'x.jpg').write_bytes(turned_jpeg())
    assert len(lines_of(predict(tmp_path/'x.jpg'))) == 1


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'gif', 'tiff', 'bmp'])
def test_damaged_bytes(predict, tmp_path, count, kind):
    raw = io.BytesIO()
    photo().save(raw, kind)
    random = np.random.default_rng(0)
    for i in range(40):
        damaged = bytearray(raw.getvalue())
        for at in random.integers(0, len(damaged), 4): damaged[at] = random.integers(256)
        (tmp_path/f'{i}.{kind}').write_bytes(damaged)
    done = predict(tmp_path)
    assert 'Traceback' not in done.stderr and done.returncode in (0, 2)
    count({f'damaged {kind} files': 40})


HOSTILE = {
    'far too many pixels': png_of_size(60_000, 60_000), 'too many pixels': png_of_size(12_000, 12_000),
    'cut off': png_of_size(40, 40), 'empty': b'', 'text': b'text', 'pickle': b'\x80\x04cos\nsystem\n',
    'svg': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    'postscript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'}

@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files(predict, tmp_path, name):
    path = tmp_path/'x.png'
    path.write_bytes(HOSTILE[name])
    done = predict(path)
    assert done.returncode == 2 and done.stdout == '' and 'Traceback' not in done.stderr
    assert str(path) in done.stderr and done.stderr.endswith('1 of 1 files or folders could not be read.\n')


@pytest.mark.parametrize('args, parts', [
    (['x.png', '--fit', 'squeeze'], ["fit='squeeze'", 'crop, pad, stretch']), (['--speed', '9'], ['--speed']),
    ([], ['FILES'])])
def test_bad_input(call_command, args, parts):
    assert_sentence(call_command('s8fast_predict', NETWORK, *args), 's8fast_predict', *parts)


def test_runs_that_are_not_there(call_command, tmp_path, folder):
    assert_sentence(call_command('s8fast_predict', tmp_path, folder), 's8fast_predict', 'is no run folder')
    assert_sentence(call_command('s8fast_predict', 'pretrained:cat', folder), 's8fast_predict', 'custom_resnet')


def test_a_folder_without_images(predict, tmp_path):
    done = predict(tmp_path)
    assert done.returncode == 2 and f'{tmp_path} has no images' in done.stderr


def test_an_empty_folder_among_others(predict, folder, tmp_path):
    (tmp_path/'empty').mkdir()
    done = predict(folder, tmp_path/'empty', folder/'a.jpg', '--json')
    assert done.returncode == 2 and len(json.loads(done.stdout)) == 4
    assert done.stderr.endswith('1 of 5 files or folders could not be read.\n')


def test_standard_input_that_is_closed(predict, monkeypatch):
    monkeypatch.setattr('sys.stdin', None)
    done = predict('-')
    assert done.returncode == 2 and 'standard input, which is closed' in done.stderr

def test_outputs_that_cannot_be_written(predict, folder, tmp_path):
    for more in (['--csv', tmp_path/'no'/'x.csv'], ['--gradcam', folder/'a.jpg']):
        done = predict(folder, *more)
        assert done.returncode == 2 and 'Traceback' not in done.stderr


def test_odd_names(predict, tmp_path):
    names = 'a b.png', 'ligne\nbreak.png', '\x1b[31mred.png', '猫.png', '-x.png'
    for name in names: photo().save(tmp_path/name)
    lines = lines_of(predict(tmp_path))
    assert len(lines) == len(names) and all(line.isprintable() for line in lines)


def test_a_run_on_digits(predict, digits_run, tmp_path):
    photo().save(tmp_path/'x.png')
    done = predict(tmp_path/'x.png', run=digits_run.folder)
    assert '(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)' in done.stderr and len(lines_of(done)) == 1


def test_odd_class_names(predict, tmp_path):
    "They come from folders and from strangers: none reaches the terminal as it is."
    few = short_runs.few_digits(150, 40)
    odd = replace(few, train_labels=few.train_labels % 3, test_labels=few.test_labels % 3,
                  vocab=('\x1b[31mred', 'line\nbreak', '\u202eevil'))
    recipe = make_recipe('ultimus', epochs=1, bs=32, lr_max=1e-3, device='cpu', valid_pct=.2)
    train(recipe, odd, tmp_path/'run', log=lambda line: None)
    photo().save(tmp_path/'x.png')
    done = predict(tmp_path/'x.png', run=tmp_path/'run')
    line, = lines_of(done)
    assert line.isprintable() and done.stderr.rstrip('\n').isprintable() and 'line\\nbreak' in done.stderr


def test_two_classes_are_listed_as_they_are(predict, tmp_path):
    few = short_runs.few_digits(150, 40)
    two = replace(few, train_labels=few.train_labels % 2, test_labels=few.test_labels % 2, vocab=('even', 'odd'))
    recipe = make_recipe('ultimus', epochs=1, bs=32, lr_max=1e-3, device='cpu', valid_pct=.2)
    train(recipe, two, tmp_path/'run', log=lambda line: None)
    photo().save(tmp_path/'x.png')
    line, = lines_of(predict(tmp_path/'x.png', run=tmp_path/'run'))
    assert line.count('%') == 2


def test_it_is_installed(): assert script('s8fast_predict').exists()
