"A file that does not hold a network's weights is refused, and the network stays as it was."
import math

import pytest
import torch
from helpers import named
from safetensors.torch import load_file, save_file

from s8fast.errors import S8FastError
from s8fast.models.ultimus import UltimusNet
from s8fast.models.weights import load_model, save_model


def missing(path):
    path.unlink()
    return 'is missing'

def half_the_weights(path):
    path.write_bytes(path.read_bytes()[:1000])
    return 'does not hold the weights'

def weights_of_another_network(path):
    save_file(torch.nn.Linear(2, 2).state_dict(), path)
    return 'is missing'

def weights_of_other_shapes(path):
    save_file({**load_file(path), 'fc.bias': torch.zeros(7)}, path)
    return 'fc.bias'

def weights_in_another_precision(path):
    save_file({**load_file(path), 'fc.bias': torch.zeros(10, dtype=torch.float16)}, path)
    return 'fc.bias'

def a_tensor_too_many(path):
    save_file({**load_file(path), 'head.bias': torch.zeros(10)}, path)
    return 'head.bias is no tensor of this network'

def a_flipped_bit_in_the_header(path):
    raw = bytearray(path.read_bytes())
    raw[20] ^= 0x80
    path.write_bytes(raw)
    return 'does not hold the weights'

def a_pickle(path):
    torch.save({}, path)
    return 'does not hold the weights'

SPOILT = (missing, half_the_weights, weights_of_another_network, weights_of_other_shapes, weights_in_another_precision,
          a_tensor_too_many, a_flipped_bit_in_the_header, a_pickle)


def assert_refused(path, *parts):
    model = UltimusNet(10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(S8FastError) as error: load_model(path, model)
    for part in (path, *parts): assert str(part) in str(error.value)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('spoil', SPOILT, ids=named)
def test_a_file_of_weights_that_is_none(tmp_path, spoil):
    path = tmp_path/'model.safetensors'
    save_model(path, UltimusNet(10))
    assert_refused(path, spoil(path))


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_weights_that_are_no_numbers(tmp_path, count, bad):
    path, model = tmp_path/'model.safetensors', UltimusNet(10)
    model.fc.bias.data[0] = bad
    save_model(path, model)
    assert_refused(path, 'fc.bias has nan or infinite values')
    count(['weights that are no numbers'])
