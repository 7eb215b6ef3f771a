"`s8fast_export`: the file says what the network says, or there is no file."
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import assert_sentence, read_json, script

from s8fast.data.dataset import digits
from s8fast.runs.trained import load_network

PRETRAINED = 'pretrained:custom_resnet'


@pytest.fixture
def export(call_command, digits_run):
    "The command on the run on digits."
    def export(*args, run=digits_run.folder): return call_command('s8fast_export', run, *args)
    return export


def run_onnx(file, images):
    "Probabilities and metadata of an ONNX file, by onnxruntime alone."
    import onnxruntime
    session = onnxruntime.InferenceSession(str(file))
    return session.run(None, {'images': images})[0], session.get_modelmeta().custom_metadata_map


def test_onnx(export, digits_run, tmp_path):
    "Any number of images; what the file says of itself is the run's."
    done = export('--out', tmp_path/'x.onnx')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 'the same class for each' in done.stdout and '1,000 images of digits' in done.stdout
    images = digits().test_images
    for n in (1, 3, 300):
        found, facts = run_onnx(tmp_path/'x.onnx', images[:n])
        probs = load_network(digits_run.folder, 'cpu').probs(images[:n]).numpy()
        assert found.shape == (n, 10) and np.abs(found - probs).max() < 1e-4
    metrics = read_json(digits_run.folder/'metrics.json')
    assert json.loads(facts['classes']) == [str(i) for i in range(10)]
    assert json.loads(facts['test'])['accuracy'] == metrics['test']['accuracy']
    assert json.loads(facts['temperature']) == metrics['temperature']['value']
    assert facts['model'] == 'ultimus' and len(facts['recipe_sha256']) == 64


READS = '''
import sys, torch
files = {'s8fast.json': ''}
network = torch.export.load(sys.argv[1], extra_files=files).module()
shape = list(network(torch.zeros(3, 32, 32, 3, dtype=torch.uint8)).shape)
print(shape, 's8fast' in sys.modules, len(files['s8fast.json']) > 100)
'''

def test_pt2_needs_nothing_of_ours(export, tmp_path):
    done = export('--to', 'pt2', '--out', tmp_path/'x.pt2')
    assert done.returncode == 0, done.stderr
    read = subprocess.run([sys.executable, '-c', READS, tmp_path/'x.pt2'], capture_output=True, text=True, cwd=tmp_path)
    assert read.stdout == '[3, 10] False True\n', read.stderr


def test_int8_says_what_it_costs(export, tmp_path):
    done = export('--quantize', 'int8', '--out', tmp_path/'x.onnx')
    assert done.returncode == 0, done.stderr
    images, labels = digits().test_images, np.asarray(digits().test_labels)
    found, facts = run_onnx(tmp_path/'x.onnx', images)
    accuracy = (found.argmax(1) == labels).mean()
    assert f'{accuracy:.2%} in int8' in done.stdout and json.loads(facts['test'])['accuracy'] == accuracy
    assert 'int8' in facts['quantization']


@pytest.mark.parametrize('args,said', [
    (['--to', 'tflite'], "to='tflite' is no format"),
    (['--quantize', 'int4'], "quantize='int4' is unknown"),
    (['--to', 'pt2', '--quantize', 'int8'], 'is for ONNX files'),
    (['--out', 'x.pt2'], 'ends in .onnx'),
    (['--out', 'none/x.onnx'], 'in a folder that exists'),
    (['--out', 'x.onnx', '--data', 'none'], 'none')])
def test_bad_input(export, tmp_path, monkeypatch, args, said):
    monkeypatch.chdir(tmp_path)
    assert_sentence(export(*args), 's8fast_export', said)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there(export, tmp_path):
    assert_sentence(export(run=tmp_path), 's8fast_export', 'is no run folder')
    assert_sentence(export(run='pretrained:cat'), 's8fast_export', 'custom_resnet')


def test_other_images_are_refused(export, png, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_sentence(export('--data', png), 's8fast_export', 'is not what', 'was trained on')


@pytest.mark.parametrize('to', ['onnx', 'pt2'])
def test_a_file_that_says_something_else_is_not_left(export, tmp_path, monkeypatch, to):
    "An earlier file stays as it was."
    from s8fast.deploy import export as module
    monkeypatch.setattr(module, 'run_graph', lambda graph, images: np.full((len(images), 10), .1, np.float32))
    other = np.full((1000, 10), .1, np.float32)
    other[7, 3] += 2e-4
    name = 'OnnxGraph' if to == 'onnx' else 'run_graph'
    if to == 'onnx': monkeypatch.setattr(module, name, lambda content: lambda images: other)
    else:
        answers = iter([np.full((1000, 10), .1, np.float32), other])
        monkeypatch.setattr(module, name, lambda graph, images: next(answers))
    (tmp_path/f'x.{to}').write_text('earlier')
    assert_sentence(export('--to', to, '--out', tmp_path/f'x.{to}'), 's8fast_export', 'is not the network',
                    '2.0e-04', 'Nothing was written')
    assert (tmp_path/f'x.{to}').read_text() == 'earlier' and len(list(tmp_path.iterdir())) == 1


def test_without_the_extra(export, tmp_path, monkeypatch):
    monkeypatch.setattr('s8fast.errors.importlib.util.find_spec', lambda name: None)
    assert_sentence(export('--out', tmp_path/'x.onnx'), 's8fast_export', "pip install 's8fast[export]'",
                    'onnx and onnxscript and onnxruntime')


def test_a_folder_that_cannot_be_written(export, tmp_path, monkeypatch):
    from pathlib import Path
    def refuse(path, content): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(Path, 'write_bytes', refuse)
    assert_sentence(export('--out', tmp_path/'x.onnx'), 's8fast_export', 'No space left')
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_pretrained_network(call_command, tmp_path):
    done = call_command('s8fast_export', PRETRAINED, '--out', tmp_path/'x.onnx')
    assert done.returncode == 0 and 'images made here' in done.stdout
    images = digits().test_images[:20]
    found, facts = run_onnx(tmp_path/'x.onnx', images)
    probs = load_network(PRETRAINED, 'cpu').probs(images)
    assert np.abs(found - probs.numpy()).max() < 1e-4 and torch.tensor(found).argmax(1).equal(probs.argmax(1))
    assert facts['data'] == 'cifar10 (original batches)'


def test_it_is_installed(): assert script('s8fast_export').exists()
