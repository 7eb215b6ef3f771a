"Batch files that are made to harm: refused with a sentence, in little memory."
import io
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from helpers import draw_data, write_batches
from peaks import at_most

from s8fast.data.cifar_files import read_batch
from s8fast.data.dataset import load_folder
from s8fast.errors import S8FastError


@pytest.fixture
def original(tmp_path): return write_batches(tmp_path/'cifar-10-batches-py', draw_data(5, 1))


def test_a_batch_that_is_too_large(original, count):
    os.truncate(original/'data_batch_3', 1 << 33)  # a hole: takes no space
    with pytest.raises(S8FastError, match='data_batch_3 .*more than'): load_folder(original, cache=False)
    count(['hostile batches'])


ONE_ITEM = pickle.dumps({'data': np.zeros(1, np.uint8)}, 2)
BOMBS = {
    'bytes': b'\x80\x04\x8e' + struct.pack('<Q', 1 << 40) + b'x.',
    'array': ONE_ITEM.replace(b'K\x01\x85', b'\x8a\x05' + (1 << 38).to_bytes(5, 'little') + b'\x85'),
}

@pytest.mark.parametrize('name', BOMBS)
def test_a_pickle_that_asks_for_memory(original, count, name):
    (original/'data_batch_3').write_bytes(BOMBS[name])
    with pytest.raises(S8FastError, match='data_batch_3'): load_folder(original, cache=False)
    count(['hostile batches'])


def opcodes(*parts):
    "A pickle of a dictionary whose `data` is what the parts make."
    return b'\x80\x02}X\x04\x00\x00\x00data' + b''.join(parts) + b's.'


EMPTY_ARRAY = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R'
DTYPE = b'cnumpy\ndtype\n'
OF_OBJECTS = b'U\x01OK\x00K\x01\x87R' + b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
OF_BYTES = b'U\x02u1K\x00K\x01\x87R'

PICKLES = {
    # an empty array becomes one of one object, at 0x4141414141414141
    'an object array whose pointer is in the file':
        opcodes(EMPTY_ARRAY, b'(K\x01K\x01\x85', DTYPE, OF_OBJECTS, b'\x89U\x08AAAAAAAAtb'),
    'an array that is asked for by its shape':
        opcodes(b'cnumpy\nndarray\nJ', struct.pack('<i', 2_700_000), b'M\x00\x0c\x86U\x02u1\x86R'),
    'more rows than bytes':
        opcodes(EMPTY_ARRAY, b'(K\x01J', struct.pack('<i', 1 << 30), b'M\x00\x0c\x86', DTYPE, OF_BYTES,
                b'\x89U\x08AAAAAAAAtb'),
}

@pytest.mark.parametrize('name', PICKLES)
def test_arrays_that_numpy_would_believe(tmp_path, count, name):
    pickletools.dis(PICKLES[name], out=io.StringIO())  # it is a pickle
    (tmp_path/'batch').write_bytes(PICKLES[name])
    with at_most(1_000_000), pytest.raises(S8FastError, match='data of the wrong shape|is damaged'):
        read_batch(tmp_path/'batch')
    count(['hostile batches'])
