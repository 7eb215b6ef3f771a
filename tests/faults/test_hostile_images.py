"Images that are made to harm: refused with a sentence, in little memory."
import os
import struct
import zlib

import pytest
from helpers import draw_data, write_folders
from peaks import at_most

from s8fast.data.dataset import load_folder
from s8fast.data.pictures import read_image
from s8fast.errors import S8FastError

SIGNATURE = b'\x89PNG\r\n\x1a\n'
LINES = bytes(32*97)  # 32 lines of a filter type and 32 black pixels


def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def header(width, height): return chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))


def png(width, height, pixels, *more):
    "A PNG file with further chunks before its compressed pixels."
    data = chunk(b'IDAT', zlib.compress(pixels, 9))
    return SIGNATURE + header(width, height) + b''.join(more) + data + chunk(b'IEND', b'')


ZEROS = zlib.compress(bytes(200_000_000), 9)  # 200 kB that unpack to 200 MB
JPEG_65500 = bytes.fromhex('ffd8 ffc0 0011 08 ffdc ffdc 03 011100 021101 031101 ffd9')

IMAGES = {
    'a billion pixels': png(60_000, 60_000, b''),
    'the largest size there is': png(2**31 - 1, 2**31 - 1, b''),
    'no pixels': png(0, 0, b''),
    'too few lines': png(32, 32, bytes(100)),
    'a text that unpacks to 200 MB': png(32, 32, LINES, chunk(b'zTXt', b'Comment\0\0' + ZEROS)),
    'a profile that unpacks to 200 MB': png(32, 32, LINES, chunk(b'iCCP', b'profile\0\0' + ZEROS)),
    'a chunk longer than the file': SIGNATURE + struct.pack('>I', 2**31 - 1) + b'IHDR',
    'a GIF by another name': b'GIF89a' + bytes(40),
    'a TIFF by another name': b'II*\0' + bytes(40),
    'JPEG of 65,500 x 65,500': JPEG_65500,
}

@pytest.mark.parametrize('name', IMAGES)
def test_an_image_that_is_made_to_harm(tmp_path, count, name):
    path = tmp_path/'image.png'
    path.write_bytes(IMAGES[name])
    with at_most(20_000_000), pytest.raises(S8FastError, match='image.png .*replace or remove it'): read_image(path)
    count(['hostile images'])


def test_pixels_after_the_last_line_are_not_unpacked(tmp_path, count):
    path = tmp_path/'image.png'
    path.write_bytes(png(32, 32, LINES + bytes(200_000_000)))
    with at_most(20_000_000): image, _ = read_image(path)
    assert image.shape == (32, 32, 3) and not image.any()
    count(['hostile images'])


def test_a_file_that_is_too_large(tmp_path, count):
    "A chunk that decoders read whole, in a file that takes no space."
    path = tmp_path/'image.png'
    path.write_bytes(SIGNATURE + header(32, 32) + struct.pack('>I', 2**31 - 1) + b'prVt')
    os.truncate(path, 2**31 + 100)
    with pytest.raises(S8FastError, match='image.png cannot be read as an image .it has 2,147'): read_image(path)
    count(['hostile images'])


LINKS = {
    'a link to a file of the system': lambda path: path.symlink_to('/etc/passwd'),
    'a link to itself': lambda path: path.symlink_to(path),
    'a pipe': os.mkfifo,
    'a link to a file without an end': lambda path: path.symlink_to('/dev/zero'),
    'a folder': os.mkdir,
}

@pytest.mark.parametrize('name', LINKS)
def test_what_is_no_file_among_the_images(tmp_path, count, name):
    root = write_folders(tmp_path/'data', draw_data(2, 1))
    path = next((root/'train'/'cat').iterdir())
    path.unlink()
    LINKS[name](path)
    with pytest.raises(S8FastError) as error: load_folder(root, cache=False)
    assert str(path) in str(error.value)
    count(['hostile images'])
