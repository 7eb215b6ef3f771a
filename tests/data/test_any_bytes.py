"Whatever is in an image or a batch file: it is read right, or refused by name."
import pickle

import numpy as np
from helpers import draw_images, write_pickle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import TREE

from s8fast.data.cifar_files import read_batch
from s8fast.data.pictures import read_image
from s8fast.errors import S8FastError

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_read_or_named(path):
    try: assert read_image(path)[0].shape == (32, 32, 3)
    except S8FastError as error: assert str(path) in str(error)


@MANY
@given(st.binary(max_size=300), st.sampled_from(['', '.png', '.jpg']), st.booleans())
def test_any_bytes_as_an_image(tmp_path, raw, ext, as_png):
    path = tmp_path/f'image{ext}'
    path.write_bytes(b'\x89PNG\r\n\x1a\n'*as_png + raw)
    assert_read_or_named(path)


@MANY
@given(st.data())
def test_a_changed_image(tmp_path, data):
    path = tmp_path/'image'
    image = draw_images(np.array([3]), 0)[0]
    Image.fromarray(image).save(path, data.draw(st.sampled_from(['PNG', 'JPEG'])))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[:data.draw(st.integers(0, len(raw)))])
    assert_read_or_named(path)


def pickled_batch(n, labels, width): return pickle.dumps({'data': np.zeros((n, width), np.uint8), 'labels': labels}, 2)

SOME_BATCH = st.builds(pickled_batch, st.integers(0, 3), TREE, st.sampled_from([3072, 5]))
ANY_PICKLE = TREE.map(lambda tree: pickle.dumps(tree, 2))

@MANY
@given(st.binary(max_size=200) | ANY_PICKLE | SOME_BATCH)
def test_any_bytes_as_a_batch(tmp_path, raw):
    (tmp_path/'batch').write_bytes(raw)
    try: images, labels = read_batch(tmp_path/'batch')
    except S8FastError as error: assert 'batch' in str(error)
    else:
        assert images.shape == (len(labels), 32, 32, 3) and images.dtype == np.uint8
        assert 0 <= labels.min() and labels.max() < 10


@MANY
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_batch_is_read_back(tmp_path, n, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(10, size=n)
    rows = images.transpose(0, 3, 1, 2).reshape(n, 3072)
    write_pickle(tmp_path/'batch', {'data': rows, 'labels': labels.tolist()})
    found_images, found_labels = read_batch(tmp_path/'batch')
    assert np.array_equal(found_images, images) and np.array_equal(found_labels, labels)
