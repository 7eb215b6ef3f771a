"With no folder given, fastai's archive is downloaded, unpacked and read; here from a server of the test's own."
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from fastai.data.external import URLs, fastai_cfg
from fastdownload.core import path_stats
from helpers import ON_CPU, VOCAB, assert_sentence, draw_data, write_folders

from s8fast.data.dataset import load_folder
from s8fast.data.location import locate
from s8fast.errors import S8FastError


@pytest.fixture
def home(tmp_path, monkeypatch):
    "A folder of its own for fastai's downloads."
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path/'fastai'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    fastai_cfg.cache_clear()  # it remembers the first folder
    yield tmp_path/'fastai'
    fastai_cfg.cache_clear()


@pytest.fixture
def archive(tmp_path):
    "A small `cifar10.tgz` as fastai publishes it: `cifar10/{train,test}/<class>/*.png`, a file of labels beside them."
    data, path = draw_data(2, 1), tmp_path/'www'/'cifar10.tgz'
    root = write_folders(tmp_path/'cifar10', data)
    (root/'labels.txt').write_text('\n'.join(VOCAB))
    path.parent.mkdir()
    with tarfile.open(path, 'w:gz') as f: f.add(root, 'cifar10')
    return path, data


@pytest.fixture
def server(tmp_path, monkeypatch):
    "Serves `www` on a port of this machine, from which `URLs.CIFAR` then comes; yields the list of requests."
    asked = []
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args): asked.append(self.path)
    (tmp_path/'www').mkdir(exist_ok=True)
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=tmp_path/'www')) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(URLs, 'CIFAR', f'http://127.0.0.1:{httpd.server_port}/cifar10.tgz')
        yield asked
        httpd.shutdown()


def test_downloads_once_and_reads(home, archive, server):
    _, data = archive
    found = load_folder()
    assert server == ['/cifar10.tgz'] and locate().path == home/'data'/'cifar10'
    assert found.vocab == tuple(VOCAB) and found.edition == 'PNG files'
    for part, (images, labels) in data.items():
        assert np.array_equal(getattr(found, f'{part}_images'), images)
        assert np.array_equal(getattr(found, f'{part}_labels'), labels)
    assert load_folder().fingerprint == found.fingerprint and server == ['/cifar10.tgz']


def test_training_without_a_folder_downloads(home, archive, server, call_command, tmp_path):
    done = call_command('s8fast_train', '--out', tmp_path/'run', '--model', 'ultimus', '--epochs', 1, '--lr_max', 1e-3,
                        *ON_CPU, '--bs', 4, '--valid_pct', 0.5, '--no_report')
    assert done.returncode == 0, done.stderr
    assert 'cifar10 (PNG files): 10 training, 10 validation, 10 test images' in done.stdout
    assert (tmp_path/'run'/'metrics.json').is_file() and server == ['/cifar10.tgz']
    assert '\r' not in done.stdout and '█' not in done.stdout and done.stderr == ''  # no progress bar in a log


def test_a_folder_comes_before_the_download(home, archive, server, tmp_path, monkeypatch):
    monkeypatch.setenv('S8FAST_DATA', str(tmp_path/'cifar10'))
    assert locate().path == tmp_path/'cifar10' and server == []


def assert_refused(call_command, tmp_path, *parts):
    done = call_command('s8fast_train', '--out', tmp_path/'run')
    assert_sentence(done, 's8fast_train', URLs.CIFAR, 'network', '--data', *parts)
    assert not (tmp_path/'run').exists()


def test_nobody_answers(home, call_command, tmp_path, monkeypatch):
    with ThreadingHTTPServer(('127.0.0.1', 0), SimpleHTTPRequestHandler) as httpd: port = httpd.server_port
    monkeypatch.setattr(URLs, 'CIFAR', f'http://127.0.0.1:{port}/cifar10.tgz')  # the port is closed again
    with pytest.raises(S8FastError, match='could not be downloaded'): locate()
    assert_refused(call_command, tmp_path)
    assert not (home/'data'/'cifar10').exists()


def test_nothing_is_there(home, server, call_command, tmp_path):
    assert_refused(call_command, tmp_path, '404')
    assert not (home/'data'/'cifar10').exists()


def test_a_damaged_archive_is_no_data_set_and_the_next_download_is(home, archive, server, call_command, tmp_path,
                                                                   monkeypatch):
    path, data = archive
    whole, check = path.read_bytes(), path_stats(path)
    monkeypatch.setattr('fastdownload.core.read_checks', lambda module: {URLs.CIFAR: check})  # its size and hash
    path.write_bytes(whole[:len(whole)//2])
    assert_refused(call_command, tmp_path)
    assert not (home/'data'/'cifar10').exists()
    path.write_bytes(whole)
    assert len(load_folder().train_labels) == len(data['train'][1])
