"The networks by name: their size, and the sentence for a name that there is not."
import pytest
import torch

from s8fast.errors import S8FastError
from s8fast.models.zoo import MODELS, get_network

PARAMETERS = dict(custom_resnet=6_573_130, ultimus=26_074, ultimus_no_blocks=19_642)


@pytest.mark.parametrize('name', MODELS)
def test_a_network_by_its_name(name):
    network = get_network(name)
    model = network.make(10)
    assert sum(weights.numel() for weights in model.parameters()) == PARAMETERS[name]
    assert network.cam_layer in dict(model.named_modules())
    with torch.no_grad(): assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_name_that_there_is_not():
    with pytest.raises(S8FastError, match="model='resnet50' is unknown: give custom_resnet, ultimus"):
        get_network('resnet50')
