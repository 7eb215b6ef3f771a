"CIFAR-10's original batches: a file that is missing, damaged or more than data is refused by name."
import os

import numpy as np
import pytest
from helpers import change_pickle, draw_data, named, write_batches, write_pickle


class Touch:
    "When it is unpickled, a file is made."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system, (f'touch {self.path}',)


# Each function spoils a file and returns it, or what else the refusal has to name

def truncated(root):
    path = root/'data_batch_2'
    path.write_bytes(path.read_bytes()[:-5000])
    return path, 'is damaged'

def no_pickle(root):
    path = root/'data_batch_4'
    path.write_text('<html>404</html>')
    return path, 'is damaged'

def wrong_shape(root):
    path = root/'data_batch_3'
    change_pickle(path, data=np.zeros((10, 3071), np.uint8))
    return path, 'wrong shape', '[10, 3071]'

def wrong_type(root):
    path = root/'data_batch_3'
    change_pickle(path, data=np.zeros((10, 3072), np.float32))
    return path, 'wrong shape', 'float32'

def without_data(root):
    path = root/'test_batch'
    change_pickle(path, data=None)
    return path, 'wrong shape'

def no_images(root):
    path = root/'test_batch'
    change_pickle(path, data=np.zeros((0, 3072), np.uint8), labels=[])
    return path, 'wrong shape'

def label_too_high(root):
    path = root/'data_batch_1'
    change_pickle(path, labels=[10]*10)
    return path, 'labels', '0 to 9'

def label_of_text(root):
    path = root/'data_batch_1'
    change_pickle(path, labels=['cat']*10)
    return path, 'labels'

def too_few_labels(root):
    path = root/'data_batch_1'
    change_pickle(path, labels=[0])
    return path, 'labels', '10 images'

def a_list(root):
    path = root/'data_batch_1'
    write_pickle(path, [1, 2])
    return path, 'a list, not a dictionary'

def batch_missing(root):
    path = root/'data_batch_5'
    path.unlink()
    return path, 'is missing'

def no_test_batch(root):
    path = root/'test_batch'
    path.unlink()
    return path, 'is missing'

def meta_missing(root):
    path = root/'batches.meta'
    path.unlink()
    return path, 'is missing'

def meta_without_names(root):
    path = root/'batches.meta'
    write_pickle(path, {'num_vis': 3072})
    return path, 'label_names'

def class_missing(root):
    change_pickle(root/'test_batch', labels=[0]*10)
    return 'automobile', root, 'test images'

def an_object(root):
    path = root/'data_batch_1'
    change_pickle(path, data=Touch(root/'touched'))
    return path, 'system', 'trust'

def a_builtin(root):
    path = root/'data_batch_1'
    path.write_bytes(b'c__builtin__\neval\n(S"1"\ntR.')
    return path, 'eval', 'trust'

SPOILT = (truncated, no_pickle, wrong_shape, wrong_type, without_data, no_images, label_too_high, label_of_text,
          too_few_labels, a_list, batch_missing, no_test_batch, meta_missing, meta_without_names, class_missing,
          an_object, a_builtin)

@pytest.mark.parametrize('spoil', SPOILT, ids=named)
def test_a_batch_that_is_not_one(refused, tmp_path, spoil):
    root = write_batches(tmp_path/'cifar-10-batches-py', draw_data(5, 1))
    refused(root, *spoil(root), 'download')
    assert not (root/'touched').exists()
