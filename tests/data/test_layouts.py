"The layouts of CIFAR-10 hold the same data, and what was read is kept in the user's cache."
import numpy as np
import pytest
from helpers import VOCAB, draw_data, write_folders

from s8fast.data.dataset import load_folder


def test_layouts_hold_the_same_data(png, jpeg, batches, data):
    from_png, from_batches, from_jpeg = (load_folder(root, cache=False) for root in (png, batches, jpeg))
    assert from_png.fingerprint == from_batches.fingerprint != from_jpeg.fingerprint
    found = from_png, from_batches, from_jpeg
    assert [images.vocab for images in found] == [tuple(VOCAB)]*3
    assert [images.edition for images in found] == ['PNG files', 'original batches', 'JPEG files']
    for part, (drawn, labels) in data.items():
        assert np.array_equal(getattr(from_png, f'{part}_images'), drawn)
        for images in found: assert np.array_equal(getattr(images, f'{part}_labels'), labels)
        off = getattr(from_jpeg, f'{part}_images').astype(int) - drawn
        assert off.any() and abs(off).mean() < 8  # a lossy codec, but the same pictures


def test_the_cache_lies_in_the_users_cache_folder(png, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    first = load_folder(png).fingerprint
    file, = (path for path in tmp_path.rglob('*') if path.is_file())
    assert file.parent == tmp_path/'s8fast' and load_folder(png).fingerprint == first


@pytest.mark.parametrize('parent', ['file', '/proc'], ids=['under a file', 'under a folder that nobody can write to'])
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, parent):
    folders = write_folders(tmp_path/'data', draw_data(2, 1))
    (tmp_path/'file').write_text('mine')
    expected = load_folder(folders, cache=False).fingerprint
    assert load_folder(folders, cache=(tmp_path/parent)/'cache').fingerprint == expected
    assert (tmp_path/'file').read_text() == 'mine'
