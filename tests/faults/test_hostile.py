"Archives and images that are made to harm: refused with a sentence, in little memory, and nothing lies outside the folder afterwards."
import io, os, struct, tarfile, tracemalloc, zlib

import numpy as np
import pytest
from conftest import draw_data, write_batches, write_folders

from s8fast.download import unpack
from s8fast.files import S8FastError
from s8fast.images import load_cifar10, read_image


def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
def png(width, height, data, bits=8, *more): return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, 2, 0, 0, 0)) + b''.join(more) + chunk(b'IDAT', data) + chunk(b'IEND', b'')

ZEROS = zlib.compress(bytes(200_000_000), 9)  # 200 kB that unpack to 200 MB

IMAGES = {
    'a billion pixels': png(60_000, 60_000, zlib.compress(b'')),
    'the largest size there is': png(2**31 - 1, 2**31 - 1, zlib.compress(b'')),
    'no pixels': png(0, 0, zlib.compress(b'')),
    'too few lines': png(32, 32, zlib.compress(bytes(100))),
    'a text that unpacks to 200 MB': png(32, 32, zlib.compress(bytes(32*97)), 8, chunk(b'zTXt', b'Comment\0\0' + ZEROS)),
    'a profile that unpacks to 200 MB': png(32, 32, zlib.compress(bytes(32*97)), 8, chunk(b'iCCP', b'profile\0\0' + ZEROS)),
    'a chunk longer than the file': b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 2**31 - 1) + b'IHDR',
    'a GIF by another name': b'GIF89a' + bytes(40),
    'a TIFF by another name': b'II*\0' + bytes(40),
    'JPEG of 65,500 x 65,500': b'\xff\xd8\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01\xff\xd9',
}

@pytest.mark.parametrize('name', IMAGES)
def test_image(tmp_path, count, name):
    path = tmp_path/'image.png'
    path.write_bytes(IMAGES[name])
    tracemalloc.start()
    try:
        with pytest.raises(S8FastError, match='image.png .*replace or remove it'): read_image(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20_000_000
    count(['hostile images'])


def test_pixels_after_the_last_line_are_not_unpacked(tmp_path, count):
    path = tmp_path/'image.png'
    path.write_bytes(png(32, 32, zlib.compress(bytes(32*97) + bytes(200_000_000), 9)))
    tracemalloc.start()
    image = read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.shape == (32, 32, 3) and not image.any() and peak < 20_000_000
    count(['hostile images'])


def test_image_file_that_is_too_large(tmp_path, count):
    "A chunk that decoders read whole, in a file that takes no space."
    path = tmp_path/'image.png'
    start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 32, 32, 8, 2, 0, 0, 0))
    path.write_bytes(start + struct.pack('>I', 2**31 - 1) + b'prVt')
    os.truncate(path, 2**31 + 100)
    with pytest.raises(S8FastError, match='image.png has more than a million bytes'): read_image(path)
    count(['hostile images'])


def archive(path, *entries):
    with tarfile.open(path, 'w:gz') as f:
        for name, kind, content, link in entries:
            o = tarfile.TarInfo(name)
            o.type, o.size, o.linkname = kind, len(content), link
            f.addfile(o, io.BytesIO(content))
    return path

REG, DIR, SYM, LNK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
ARCHIVES = {
    'a path upwards': [('../outside.txt', REG, b'x', '')],
    'a path upwards, in the middle': [('a/../../outside.txt', REG, b'x', '')],
    'an absolute path': [('{root}/outside.txt', REG, b'x', '')],
    'a link out, then a file through it': [('link', SYM, b'', '{root}'), ('link/outside.txt', REG, b'x', '')],
    'a link upwards, then a file through it': [('link', SYM, b'', '..'), ('link/outside.txt', REG, b'x', '')],
    'a hard link to a file of the user': [('mine', LNK, b'', '{root}/mine.txt'), ('mine', REG, b'changed', '')],
    'a symbolic link to a file of the user': [('mine', SYM, b'', '{root}/mine.txt'), ('mine', REG, b'changed', '')],
    'a pipe': [('pipe', tarfile.FIFOTYPE, b'', '')],
    'a device': [('null', tarfile.CHRTYPE, b'', '')],
    'a drive': [('C:\\outside.txt', REG, b'x', '')],
    'a file where a folder is': [('a/b', REG, b'x', ''), ('a', REG, b'x', '')],
    'an empty name': [('', REG, b'x', '')],
    'a name that is too long': [('n'*5000, REG, b'x', '')],
}

@pytest.mark.parametrize('name', ARCHIVES)
def test_archive(tmp_path, count, name):
    (tmp_path/'mine.txt').write_text('mine')
    entries = [(n.format(root=tmp_path), kind, content, link.format(root=tmp_path)) for n, kind, content, link in ARCHIVES[name]]
    path = archive(tmp_path/'x.tgz', ('good', REG, b'content', ''), *entries)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(S8FastError, match='could not be unpacked'): unpack(path, tmp_path/'deep'/'data')
    (tmp_path/'deep').rmdir()  # empty
    assert sorted(tmp_path.rglob('*')) == before and (tmp_path/'mine.txt').read_text() == 'mine'
    count(['hostile archives'])


@pytest.mark.parametrize('kind', ['content', 'long name', 'extended header'])
def test_archive_that_grows(tmp_path, count, kind):
    size = 300_000_000
    with tarfile.open(tmp_path/'x.tgz', 'w:gz', compresslevel=1) as f:
        o = tarfile.TarInfo('big')
        o.size, o.type = size, {'content': REG, 'long name': tarfile.GNUTYPE_LONGNAME, 'extended header': tarfile.XHDTYPE}[kind]
        f.addfile(o, io.BufferedReader(Zeros(size)))
    assert (tmp_path/'x.tgz').stat().st_size < 3_000_000
    tracemalloc.start()
    try:
        with pytest.raises(S8FastError, match='grows to more than 50,000,000 bytes'): unpack(tmp_path/'x.tgz', tmp_path/'data', max_bytes=50_000_000)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 60_000_000 and not (tmp_path/'data').exists() and not (tmp_path/'data.part').exists()
    count(['hostile archives'])


@pytest.mark.parametrize('size', [1 << 34, 1 << 20])
def test_archive_of_holes(tmp_path, count, size):
    "A sparse file: a byte, and holes that are written out."
    with tarfile.open(tmp_path/'x.tgz', 'w:gz', format=tarfile.PAX_FORMAT) as f:
        o = tarfile.TarInfo('holes')
        o.size, o.pax_headers = 1, {'GNU.sparse.map': '0,1', 'GNU.sparse.size': str(size)}
        f.addfile(o, io.BytesIO(b'x'))
    with tarfile.open(tmp_path/'x.tgz') as f: assert [(o.issparse(), o.size) for o in f] == [(True, size)]
    with pytest.raises(S8FastError, match='no plain file' if size < 50_000_000 else 'grows to more than'): unpack(tmp_path/'x.tgz', tmp_path/'data', max_bytes=50_000_000)
    assert not (tmp_path/'data').exists() and not (tmp_path/'data.part').exists()
    count(['hostile archives'])


def test_archive_of_folders_in_folders(tmp_path, count):
    path = archive(tmp_path/'x.tgz', ('a/'*1900, DIR, b'', ''))
    with pytest.raises(S8FastError, match='more than 32 deep'): unpack(path, tmp_path/'data')
    assert sorted(o.name for o in tmp_path.iterdir()) == ['x.tgz']
    count(['hostile archives'])


class Zeros(io.RawIOBase):
    def __init__(self, n): self.n = n
    def readable(self): return True
    def readinto(self, b):
        k = min(len(b), self.n)
        b[:k], self.n = bytes(k), self.n - k
        return k


def test_links_and_pipes_among_the_images(tmp_path, count):
    root = write_folders(tmp_path/'data', draw_data(2, 1))
    path = next((root/'train'/'cat').iterdir())
    for spoil in (lambda: path.symlink_to('/etc/passwd'), lambda: path.symlink_to(path), lambda: os.mkfifo(path), lambda: path.symlink_to('/dev/zero'), lambda: path.mkdir()):
        path.unlink()
        spoil()
        with pytest.raises(S8FastError) as e: load_cifar10(root, cache=False)
        assert str(path) in str(e.value)
        if path.is_dir(): path.rmdir(); path.touch()
        count(['hostile images'])


def test_batch_that_is_too_large(tmp_path, count):
    root = write_batches(tmp_path/'cifar-10-batches-py', draw_data(5, 1))
    os.truncate(root/'data_batch_3', 1 << 33)  # a hole: takes no space
    with pytest.raises(S8FastError, match='data_batch_3 .*more than'): load_cifar10(root, cache=False)
    count(['hostile batches'])


def test_pickle_that_asks_for_memory(tmp_path, count):
    import pickle
    root = write_batches(tmp_path/'cifar-10-batches-py', draw_data(5, 1))
    bombs = dict(bytes=b'\x80\x04\x8e' + struct.pack('<Q', 1 << 40) + b'x.', array=pickle.dumps({'data': np.zeros(1, np.uint8)}, 2).replace(b'K\x01\x85', b'\x8a\x05' + (1 << 38).to_bytes(5, 'little') + b'\x85'))
    for raw in bombs.values():
        (root/'data_batch_3').write_bytes(raw)
        with pytest.raises(S8FastError, match='data_batch_3'): load_cifar10(root, cache=False)
        count(['hostile batches'])


def opcodes(*parts): return b'\x80\x02}X\x04\x00\x00\x00data' + b''.join(parts) + b's.'

DTYPE = b'cnumpy\ndtype\n'
PICKLES = {
    'an object array whose pointer is in the file': opcodes(
        b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R',  # an empty array ...
        b'(K\x01K\x01\x85', DTYPE, b'U\x01OK\x00K\x01\x87R', b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb', b'\x89U\x08AAAAAAAAtb'),  # ... of one object, at 0x4141414141414141
    'an array that is asked for by its shape': opcodes(b'cnumpy\nndarray\nJ', struct.pack('<i', 2_700_000), b'M\x00\x0c\x86U\x02u1\x86R'),
    'more rows than bytes': opcodes(b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R',
                                    b'(K\x01J', struct.pack('<i', 1 << 30), b'M\x00\x0c\x86', DTYPE, b'U\x02u1K\x00K\x01\x87R\x89U\x08AAAAAAAAtb'),
}

@pytest.mark.parametrize('name', PICKLES)
def test_arrays_that_numpy_would_believe(tmp_path, count, name):
    import pickletools
    from s8fast.batches import read_batch
    pickletools.dis(PICKLES[name], out=io.StringIO())  # it is a pickle
    (tmp_path/'batch').write_bytes(PICKLES[name])
    tracemalloc.start()
    try:
        with pytest.raises(S8FastError, match='data of the wrong shape|is damaged'): read_batch(tmp_path/'batch')
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000
    count(['hostile batches'])
