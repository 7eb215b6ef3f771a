"Whatever is put in: what comes out is right, or is the exception that has a name."
import json, pickle, string
from dataclasses import asdict, fields

import numpy as np
from conftest import draw_images, write_pickle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from s8fast.batches import read_batch
from s8fast.checkpoint import load_tensors, save_tensors
from s8fast.files import S8FastError, read_json, write_json
from s8fast.images import read_image
from s8fast.recipe import Recipe, differences, recipe_of
from s8fast.run_folder import METRICS_VERSION, RECIPE_VERSION, Metrics, Record, _upgrade_metrics, read_history, upgrade_record

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = [o.name for o in fields(Recipe)]
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from(['custom_resnet', 'ultimus', 'batch', 'item', 'linear', 'cpu', 'auto', 0.01, 1, 24]))
TREE = st.recursive(SCALAR, lambda o: st.lists(o, max_size=4) | st.dictionaries(st.text(string.ascii_lowercase, max_size=8), o, max_size=4), max_leaves=20)


@MANY
@given(st.dictionaries(st.sampled_from(NAMES), SCALAR, max_size=5))
def test_recipe_is_right_or_refused(choices):
    try: recipe = Recipe(**choices)
    except S8FastError as e: assert str(e).endswith('.')
    else:
        assert all(getattr(recipe, k) == v for k, v in choices.items() if v is not None)
        assert recipe_of(json.loads(json.dumps(dict(recipe=asdict(recipe)), allow_nan=False))) == recipe and not differences(recipe, Recipe(**asdict(recipe)))


@MANY
@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(NAMES), TREE, max_size=5))
def test_any_dictionary_as_a_recipe(choices):
    try: recipe_of(dict(recipe=choices))
    except S8FastError: pass


@MANY
@given(st.binary(max_size=300), st.sampled_from(['', '.png', '.jpg']), st.booleans())
def test_any_bytes_as_an_image(tmp_path, raw, ext, as_png):
    path = tmp_path/f'image{ext}'
    path.write_bytes(b'\x89PNG\r\n\x1a\n'*as_png + raw)
    try: assert read_image(path).shape == (32, 32, 3)
    except S8FastError as e: assert str(path) in str(e)


@MANY
@given(st.data())
def test_a_changed_image(tmp_path, data):
    path = tmp_path/'image'
    Image.fromarray(draw_images(np.array([3]), 0)[0]).save(path, data.draw(st.sampled_from(['PNG', 'JPEG'])))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))): raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[:data.draw(st.integers(0, len(raw)))])
    try: assert read_image(path).shape == (32, 32, 3)
    except S8FastError as e: assert str(path) in str(e)


@MANY
@given(st.binary(max_size=200) | TREE.map(lambda o: pickle.dumps(o, 2)) | st.builds(lambda n, y, w: pickle.dumps({'data': np.zeros((n, w), np.uint8), 'labels': y}, 2),
                                                                                    st.integers(0, 3), TREE, st.sampled_from([3072, 5])))
def test_any_bytes_as_a_batch(tmp_path, raw):
    (tmp_path/'batch').write_bytes(raw)
    try: images, labels = read_batch(tmp_path/'batch')
    except S8FastError as e: assert 'batch' in str(e)
    else: assert images.shape == (len(labels), 32, 32, 3) and images.dtype == np.uint8 and 0 <= labels.min() and labels.max() < 10


@MANY
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_batch_is_read_back(tmp_path, n, seed):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=n)
    write_pickle(tmp_path/'batch', {'data': images.transpose(0, 3, 1, 2).reshape(n, 3072), 'labels': labels.tolist()})
    x, y = read_batch(tmp_path/'batch')
    assert (x == images).all() and (y == labels).all()


@MANY
@given(TREE | st.dictionaries(st.sampled_from(['version', 'recipe', 'chosen', 'data', 'versions', 'device', 'lr_find', 'test', 'valid', 'epochs', 'seconds', 'files', 'sha256']), TREE), st.booleans())
def test_any_json_as_a_record(tmp_path, obj, which):
    path = tmp_path/'x.json'
    path.write_text(json.dumps(obj))
    try: read_json(path, *((Record, RECIPE_VERSION, upgrade_record) if which else (Metrics, METRICS_VERSION, _upgrade_metrics)))
    except S8FastError as e: assert str(path) in str(e)


@MANY
@given(st.text(max_size=200) | st.lists(st.lists(SCALAR.map(str), max_size=8).map(','.join), max_size=4).map(lambda o: '\n'.join(['epoch,lr,train_loss,train_accuracy,valid_loss,valid_accuracy,seconds', *o])))
def test_any_text_as_a_history(tmp_path, text):
    (tmp_path/'history.csv').write_text(text, encoding='utf8', errors='replace')
    try: rows = read_history(tmp_path)
    except S8FastError as e: assert 'history.csv' in str(e)
    else: assert [o['epoch'] for o in rows] == list(range(1, len(rows) + 1)) and all(np.isfinite(list(o.values())).all() for o in rows)


@MANY
@given(st.dictionaries(st.text(string.ascii_letters, min_size=1).filter(lambda o: o != 'sha256'), st.floats(allow_nan=False, allow_infinity=False) | st.integers(-10**9, 10**9) | st.text(max_size=5)))
def test_json_is_read_back(tmp_path, obj):
    obj = {**obj, 'version': 1}
    write_json(tmp_path/'x.json', obj)
    assert read_json(tmp_path/'x.json', dict, 1) == obj


@MANY
@given(st.data())
def test_a_changed_checkpoint_is_never_believed(tmp_path, data):
    import torch
    path, tensors, plain = tmp_path/'state', dict(x=torch.arange(6.).reshape(2, 3), n=torch.tensor(3)), dict(version=1, rows=[1, 2.5])
    save_tensors(path, tensors, plain)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))): raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[:data.draw(st.integers(0, len(raw)))])
    try: found, more = load_tensors(path)
    except S8FastError as e: assert str(path) in str(e)
    else: assert more == plain and found.keys() == tensors.keys() and all(torch.equal(found[k], v) for k, v in tensors.items())
