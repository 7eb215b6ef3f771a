"Networks of one's own: from a file to a report, every sentence, odd ones, and that no code runs unasked."
import shutil
import signal
import textwrap

import pytest
import torch
from helpers import assert_sentence, history_rows, names, read_json
from short_runs import few_digits
from torch import nn

from s8fast.errors import Interrupted, S8FastError
from s8fast.files import file_digest
from s8fast.interpret.gradcam import GradCAM
from s8fast.interpret.report import write_report
from s8fast.models.own import add_network
from s8fast.models.winograd import WinogradConv2d, use_winograd
from s8fast.models.zoo import MODELS, get_network
from s8fast.recipe import make_recipe
from s8fast.runs.train import resume, train
from s8fast.runs.trained import load_network
from s8fast.training.checkpoint_callback import SaveCheckpoint
from s8fast.training.learner import get_learner

NET = '''
from pathlib import Path
from torch import nn

Path(__file__).with_name('ran').touch()

class Net(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, n_classes)

    def forward(self, x): return self.fc(self.relu(self.norm(self.conv(x))).mean((2, 3)))
'''
SHORT = '--data', 'digits', '--epochs', 1, '--bs', 128, '--lr_max', 0.02, '--device', 'cpu', '--valid_pct', 0.1


@pytest.fixture(autouse=True)
def as_before():
    "The networks that a test registers are gone after it."
    before = dict(MODELS)
    yield
    for name in MODELS.keys() - before: del MODELS[name]


@pytest.fixture
def net(tmp_path, monkeypatch):
    "A folder with `net.py` in it, the current one."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path.parent/'cache'))
    (tmp_path/'net.py').write_text(NET)
    return tmp_path/'net.py'


@pytest.fixture(scope='module')
def own_run(finished_run, once):
    "A run of `net.py:Net`, and the folder of that file."
    def write(folder):
        folder.mkdir()
        (folder/'net.py').write_text(NET)
    folder = once('own_net', write)
    run = finished_run('own_run', *SHORT[:-4], '--device', 'cpu', '--valid_pct', 0.1, '--model', folder/'net.py:Net')
    (folder/'ran').unlink(missing_ok=True)
    return run, folder/'net.py'


def forget(): MODELS.pop('net.py:Net', None)


# From a file to a report

def test_what_a_run_says_of_it(own_run):
    run, file = own_run
    record = read_json(run.folder/'recipe.json')
    assert record['recipe']['model'] == 'net.py:Net' and record['recipe']['cam_layer'] == 'auto'
    assert record['chosen']['code'] == file_digest(file)
    assert run.stdout.startswith('net.py:Net on digits') and '; 706 parameters; ' in run.stdout
    page = (run.folder/'report.html').read_text()
    assert 'GradCAM at conv:' in page and record['chosen']['code'][:16] in page and 'FILE.py:NAME' in page
    assert [o.name for o in file.parent.iterdir()] == ['net.py']  # no bytecode


COMMANDS = [('s8fast_evaluate',), ('s8fast_report',), ('s8fast_calibrate',), ('s8fast_robustness',),
            ('s8fast_predict', 'x.png'), ('s8fast_export', '--to', 'pt2'),
            ('s8fast_publish', 'me/it', '--dry_run', 'pub')]

@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command[0])
def test_a_run_alone_runs_no_code(call_command, own_run, monkeypatch, tmp_path, command):
    forget()
    run, file = own_run
    monkeypatch.chdir(file.parent)
    (file.parent/'x.png').write_bytes((run.folder/'batch.png').read_bytes())
    before = names(run.folder), names(file.parent)
    name, *rest = command
    assert_sentence(call_command(name, run.folder, *rest), name, 'The network net.py:Net is code of one',
                    'give --model net.py:Net')
    assert (names(run.folder), names(file.parent)) == before
    (file.parent/'x.png').unlink()


def test_neither_does_a_recipe_or_a_study(call_command, net, own_run):
    forget()
    recipe = own_run[0].folder/'recipe.json'
    for name, *how in (('s8fast_train',), ('s8fast_train', '--seeds', '0-1'), ('s8fast_lr_find',)):
        done = call_command(name, '--data', 'digits', '--recipe', recipe, *how)
        assert_sentence(done, name, 'give --model net.py:Net')
    study = net.with_name('study.toml')
    study.write_text('[base]\nmodel = "net.py:Net"\n[arms.b]\nbs = 64\n')
    assert_sentence(call_command('s8fast_study', study, '--seeds', '0', '--data', 'digits'), 's8fast_study',
                    'give --model net.py:Net')
    assert sorted(o.name for o in net.parent.iterdir()) == ['net.py', 'study.toml']


def test_with_the_word_they_do(call_command, own_run, tmp_path, monkeypatch):
    run, file = own_run
    monkeypatch.chdir(tmp_path)
    model = '--model', file.with_name('net.py:Net')
    accuracy = read_json(run.folder/'metrics.json')['test']['accuracy']
    done = call_command('s8fast_evaluate', run.folder, *model)
    assert f'{accuracy:.2%}' in done.stdout and done.stderr == ''
    done = call_command('s8fast_predict', run.folder, run.folder/'batch.png', *model, '--gradcam', 'maps')
    assert 'batch.png: ' in done.stdout and names(tmp_path/'maps') == ['batch.png']
    done = call_command('s8fast_export', run.folder, '--to', 'pt2', *model)
    assert 'the same class for each' in done.stdout, done.stderr
    copy = shutil.copytree(run.folder, tmp_path/'copy')
    done = call_command('s8fast_report', copy, *model, '--layers', 'norm')
    assert done.returncode == 0 and 'GradCAM at norm' in (copy/'report.html').read_text()
    done = call_command('s8fast_lr_find', '--data', 'digits', *model, '--device', 'cpu', '--num_it', 20, '--bs', 64)
    assert 'LRMAX' in done.stdout, done.stderr
    (file.parent/'ran').unlink()


def test_what_is_published(call_command, own_run, tmp_path, monkeypatch):
    "Weights and a card that says what else is needed; no code. It is loaded with the word again."
    run, file = own_run
    monkeypatch.chdir(tmp_path)
    model = '--model', file.with_name('net.py:Net')
    assert call_command('s8fast_publish', run.folder, 'me/it', '--dry_run', 'pub', *model).returncode == 0
    card = (tmp_path/'pub'/'README.md').read_text()
    assert 'photo.jpg --model net.py:Net\n' in card and "add_network('net.py:Net')\n" in card
    assert f'`net.py` (SHA-256 `{file_digest(file)}`)' in card and '- net.py' not in card
    assert not list((tmp_path/'pub').rglob('*.py'))
    assert_sentence(call_command('s8fast_publish', run.folder, 'me/it', '--dry_run', 'space', '--space', *model),
                    's8fast_publish', 'leave --space out')
    from s8fast.models.pretrained import NetworkFiles, network_from
    pub = tmp_path/'pub'
    files = NetworkFiles('hub:me/it', pub/'config.json', pub/'model.safetensors', 'fetch it again')
    images = few_digits().test_images[:3]
    found = network_from(files)
    assert found.layers == ('conv',)
    assert torch.equal(found.logits(images), load_network(run.folder, 'cpu', winograd=False).logits(images))
    forget()
    with pytest.raises(S8FastError, match='give --model net.py:Net'): network_from(files)
    (file.parent/'ran').unlink()


def test_another_word_than_the_runs(call_command, own_run, png_run, net):
    run, file = own_run
    for folder, word, other in ((run.folder, 'ultimus', 'net.py:Net'), (png_run.folder, 'net.py:Net', 'ultimus')):
        assert_sentence(call_command('s8fast_evaluate', folder, '--model', word), 's8fast_evaluate',
                        f'--model {word} is the network {word}', f'is {other}: give that one')
    assert_sentence(call_command('s8fast_report', '--compare', run.folder, run.folder, '--model', 'net.py:Net'),
                    's8fast_report', '--model plays no part')
    assert not net.with_name('ran').exists()


def test_a_file_that_has_changed(call_command, own_run, net):
    "Is used, with a warning; weights that do not fit are refused."
    run, _ = own_run
    net.write_text(NET + '\n# changed\n')
    done = call_command('s8fast_evaluate', run.folder, '--model', 'net.py:Net')
    assert done.returncode == 0 and 'net.py is not as it was when' in done.stderr and done.stderr.count('\n') == 1
    done = call_command('s8fast_predict', run.folder, run.folder/'batch.png', '--model', 'net.py:Net')
    assert done.returncode == 0 and 'net.py is not as it was when' in done.stderr
    net.write_text(NET.replace('3, 8, 5, 4', '3, 8, 3, 4'))
    done = call_command('s8fast_evaluate', run.folder, '--model', 'net.py:Net')
    assert done.returncode == 2 and 'conv.weight is (8, 3, 5, 5), not (8, 3, 3, 3)' in done.stderr


# Refused before anything is written

def text(body): return textwrap.dedent(body)


OF_A_FILE = dict(
    name=('class Net1: pass\nclass Other: pass', ["has no 'Net'", 'give one of Net1, Other']),
    empty=('', ["has no 'Net': it has no class or function"]),
    raises=('import torch\n\n1/0\n', ['wrong.py line 3: ZeroDivisionError: division by zero']),
    syntax=('def Net(:', ['wrong.py line 1: SyntaxError']),
    leaves=('import sys\nsys.exit(0)', ['wrong.py line 2: SystemExit: 0']),
    imports=('import no_such_module', ['line 1: ModuleNotFoundError', 'no_such_module']),
    number=('Net = 3', ['Net of wrong.py is an int']),
    made=('from torch import nn\nNet = nn.Flatten()', ['is a network already']),
    null=('\0', ['SyntaxError: source code string cannot contain null bytes']))
OF_A_NETWORK = dict(
    arguments=('def Net(): return None', ['cannot be made for 10 classes', 'positional argument']),
    making=('def Net(n): return [][n]', ['wrong.py line 2: IndexError']),
    other=('def Net(n): return n', ['it gives an int', 'nn.Module']),
    nothing=('def Net(n): pass', ['it gives None']),
    width=('def Net(n): return nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))',
           ['[1, 7], and the data has 10 classes']),
    rank=('def Net(n): return nn.Conv2d(3, n, 32)', ['gives [1, 10, 1, 1]']),
    fixed=('def Net(n): return nn.Sequential(nn.Flatten(0), nn.Linear(2*3072, n))', ['1 image in evaluation mode']),
    shape=('def Net(n): return nn.Linear(100, n)', ['does not take 1 image', 'RuntimeError']),
    parameters=('def Net(n): return nn.Flatten()', ['no parameters to train']),
    tuple=('''
        class Net(nn.Linear):
            def __init__(self, n): super().__init__(3072, n)
            def forward(self, x): return super().forward(x.flatten(1)), x
        ''', ['gives a tuple']),
    nan=('''
        class Net(nn.Linear):
            def __init__(self, n): super().__init__(3072, n)
            def forward(self, x): return super().forward(x.flatten(1))*float('nan')
        ''', ['nan or infinite']),
    line=('''
        class Net(nn.Linear):
            def __init__(self, n): super().__init__(3072, n)
            def forward(self, x):
                return self.missing(x)
        ''', ['wrong.py line 6: AttributeError']),
    integer=('''
        class Net(nn.Linear):
            def __init__(self, n): super().__init__(3072, n)
            def forward(self, x): return super().forward(x.flatten(1)).long()
        ''', ['gives torch.int64']))


@pytest.mark.parametrize('case', OF_A_FILE)
def test_a_file_that_is_refused(call_command, net, case):
    content, parts = OF_A_FILE[case]
    net.with_name('wrong.py').write_text(content)
    for name in 's8fast_train', 's8fast_lr_find':
        assert_sentence(call_command(name, '--data', 'digits', '--model', 'wrong.py:Net'), name, *parts)
    assert sorted(o.name for o in net.parent.iterdir()) == ['net.py', 'wrong.py']


@pytest.mark.parametrize('case', OF_A_NETWORK)
def test_a_network_that_is_refused(call_command, net, case):
    content, parts = OF_A_NETWORK[case]
    net.with_name('wrong.py').write_text('from torch import nn\n' + text(content))
    assert_sentence(call_command('s8fast_train', *SHORT, '--model', 'wrong.py:Net'), 's8fast_train', *parts)
    assert sorted(o.name for o in net.parent.iterdir()) == ['net.py', 'wrong.py']


@pytest.mark.parametrize('word, parts', [
    ('none.py:Net', ['none.py cannot be read (No such file', 'FILE.py:NAME']), ('.:Net', ['names no network']),
    ('net.py:', ['names no network']), ('net.py', ["model='net.py' is unknown", 'FILE.py:NAME']),
    ('no_such_module.at_all:Net', ['no_such_module', 'cannot be imported']), ('folder.py:Net', ['Is a directory']),
    ('torch.nn:NoSuchLayer', ["torch.nn has no 'NoSuchLayer'"])])
def test_a_word_that_is_refused(call_command, net, word, parts):
    net.with_name('folder.py').mkdir()
    assert_sentence(call_command('s8fast_train', *SHORT, '--model', word), 's8fast_train', *parts)
    assert not net.with_name('runs').exists()


def test_a_layer_that_is_refused(call_command, net):
    for layer, said in ('cnv', 'give one of conv, norm, relu, fc'), ('fc', 'Layer fc has no height'), ('', 'Layer  is'):
        done = call_command('s8fast_train', *SHORT, '--model', 'net.py:Net', '--cam_layer', layer)
        assert_sentence(done, 's8fast_train', said)
    done = call_command('s8fast_train', *SHORT, '--cam_layer', 'layer9')  # of the library's networks too
    assert_sentence(done, 's8fast_train', 'Layer layer9 is not in the network')
    assert not net.with_name('runs').exists()


def test_the_neighbours_of_a_file(net):
    "They are found while it is imported; what it prints is no part of a command's output."
    net.with_name('parts_of_it.py').write_text('from torch import nn\nlayer = nn.Flatten\n')
    net.write_text('from parts_of_it import layer\nprint("hello")\n' + NET)
    add_network('net.py:Net')
    assert sorted(o.name for o in net.parent.iterdir()) == ['net.py', 'parts_of_it.py', 'ran']


def test_a_second_file_of_that_name_replaces_the_first(net, tmp_path):
    (tmp_path/'there').mkdir()
    (tmp_path/'there'/'net.py').write_text(NET.replace('3, 8, 5, 4', '3, 8, 3, 4'))
    sides = []
    for word in 'net.py:Net', 'there/net.py:Net', 'net.py:Net':
        assert add_network(word) == 'net.py:Net'
        sides.append(get_network('net.py:Net').make(10).conv.kernel_size[0])
    assert sides == [5, 3, 5]


# Odd networks

class Tied(nn.Module):
    "Two layers share their weights; a bias that is no parameter."
    bias = True
    def __init__(self, n):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, 8)
        self.a, self.b = nn.Linear(128, 128), nn.Linear(128, 128)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(128, n)
    def forward(self, x): return self.fc(self.b(self.a(self.conv(x).flatten(1)).relu()))


class Idle(nn.Module):
    "Parameters that get no gradient, one of them frozen; buffers of whole numbers and truths, a mask with an infinity."
    def __init__(self, n):
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 8, 8, 8), nn.Linear(3, 3)
        self.frozen = nn.Parameter(torch.randn(8, 1, 1), requires_grad=False)
        self.register_buffer('steps', torch.tensor(3))
        self.register_buffer('truth', torch.tensor([True, False]))
        self.register_buffer('mask', torch.tensor([0., -torch.inf]), persistent=False)
        self.fc = nn.Linear(128, n)
    def forward(self, x):
        if self.training: self.steps += 1
        return self.fc((self.conv(x)*self.frozen + self.mask[0]).flatten(1))


class Twice(nn.Module):
    "A block that is used twice, and is there under two names; in-place ReLUs."
    def __init__(self, n):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.again = nn.ModuleList([self.block])
        self.fc = nn.Linear(8, n)
    def forward(self, x): return self.fc(self.again[0](self.block(self.stem(x))).mean((2, 3)))


def lazy(n): return nn.Sequential(nn.LazyConv2d(8, 8, 8), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(n))
def plain(n): return nn.Sequential(nn.Flatten(), nn.Linear(3072, n))


ODD = dict(tied=Tied, idle=Idle, twice=Twice, lazy=lazy, plain=plain)


def recipe(model, **choices):
    short = dict(epochs=2, bs=32, lr_max=5e-3, valid_pct=.1, precision='fp32', device='cpu', average=1.)
    return make_recipe(model, **{**short, **choices})


class Leaves(nn.Module):
    "Ends the process at a batch that is larger than those of the trial."
    def __init__(self, n_classes):
        super().__init__()
        self.fc = nn.Linear(3072, n_classes)

    def forward(self, x):
        if len(x) > 2: raise SystemExit(0)
        return self.fc(x.flatten(1))


def test_code_that_ends_the_process_is_an_error(tmp_path):
    add_network(Leaves)
    with pytest.raises(S8FastError, match='The code of Leaves ended the process'):
        train(recipe('Leaves'), few_digits(), tmp_path/'run', log=lambda line: None)


def stop_at(monkeypatch, epoch, step):
    "SIGTERM comes with that checkpoint."
    write = SaveCheckpoint.write
    def stopping(saver):
        write(saver)
        if (saver.learn.epoch, saver.batches) == (epoch, step): signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(SaveCheckpoint, 'write', stopping)


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('name', ODD)
def test_an_odd_network(name, tmp_path, monkeypatch):
    "Is trained, stopped, goes on bit for bit, evaluated, and is the same when it is loaded."
    add_network(ODD[name], name)
    data = few_digits()
    lines = []
    whole = train(recipe(name), data, tmp_path/'whole', log=lines.append)
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2)
        with pytest.raises(Interrupted):
            train(recipe(name), data, tmp_path/'stopped', log=lines.append, checkpoint_minutes=0)
    resumed = resume(tmp_path/'stopped', data, log=lines.append)
    assert resumed['test'] == whole['test']
    weights = [(tmp_path/run/'model.safetensors').read_bytes() for run in ('whole', 'stopped')]
    assert weights[0] == weights[1]
    net = load_network(tmp_path/'whole', 'cpu')
    assert (net.logits(data.test_images).argmax(1).numpy() == data.test_labels).mean() == whole['test']['accuracy']


@pytest.mark.usefixtures('one_thread')
def test_idle_parameters_stay_and_tied_ones_stay_tied(tmp_path):
    add_network(Idle, 'idle')
    torch.manual_seed(0)
    first = get_learner(recipe('idle'), few_digits()).model.state_dict()
    train(recipe('idle'), few_digits(), tmp_path/'idle', log=lambda line: None)
    last = load_network(tmp_path/'idle', 'cpu').model.state_dict()
    for key in 'frozen', 'unused.weight', 'unused.bias': assert torch.equal(first[key], last[key]), key
    assert not torch.equal(first['fc.weight'], last['fc.weight']) and last['steps'] > 3
    add_network(Tied, 'tied')
    train(recipe('tied'), few_digits(), tmp_path/'tied', log=lambda line: None)
    model = load_network(tmp_path/'tied', 'cpu').model
    assert model.a.weight is model.b.weight


@pytest.mark.usefixtures('one_thread')
def test_the_average_of_tied_weights_is_only_shown(tmp_path):
    "What is trained is the same with an average and without."
    add_network(Tied, 'tied')
    losses = []
    for average in 0., 24.:
        train(recipe('tied', average=average), few_digits(), tmp_path/f'{average}', log=lambda line: None)
        losses.append([row['train_loss'] for row in history_rows(tmp_path/f'{average}')])
    assert losses[0] == losses[1]


@pytest.mark.usefixtures('one_thread')
def test_a_network_without_a_convolution(tmp_path):
    "A report without GradCAM, and a sentence."
    add_network(plain, 'plain')
    train(recipe('plain', epochs=1), few_digits(), tmp_path/'run', log=lambda line: None)
    page = write_report(tmp_path/'run', few_digits(), 'cpu').read_text()
    assert 'no convolution, so there is no GradCAM' in page and not (tmp_path/'run'/'gradcam.png').exists()
    from s8fast.deploy.output import CamFolder
    net = load_network(tmp_path/'run', 'cpu')
    assert net.layers == ()
    with pytest.raises(S8FastError, match='leave --gradcam out'): CamFolder(tmp_path/'maps', net)


def test_gradcam_of_a_layer_that_is_used_twice():
    "Output and gradient are those of its last use, as they are of a layer that is used once."
    torch.manual_seed(0)
    twice, x = Twice(10).eval(), torch.randn(2, 3, 32, 32)
    once = nn.Sequential(twice.stem, twice.block, nn.Sequential(*(type(m)(8, 8, 3, padding=1) if i == 0 else
                         nn.BatchNorm2d(8) if i == 1 else m for i, m in enumerate(twice.block))),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), twice.fc).eval()
    once[2].load_state_dict(twice.block.state_dict())
    assert torch.allclose(twice(x), once(x), atol=1e-6)
    with GradCAM(twice, 'block.0') as a, GradCAM(once, '2.0') as b: assert torch.allclose(a(x), b(x), atol=1e-5)


def test_gradcam_of_a_layer_that_is_not_used():
    idle, x = Idle(10), torch.randn(2, 3, 32, 32)
    idle.aside = nn.Conv2d(3, 3, 3)
    with GradCAM(idle, 'aside') as cam, pytest.raises(S8FastError, match='Layer aside takes no part'): cam(x)


class Branching(nn.Module):
    "What it computes depends on the values."
    def __init__(self, n):
        super().__init__()
        self.fc = nn.Linear(3072, n)
    def forward(self, x):
        x = self.fc(x.flatten(1))
        return x if x.sum() > 0 else 2*x


@pytest.mark.usefixtures('one_thread')
def test_a_network_that_cannot_be_exported(tmp_path):
    from s8fast.deploy.export import export_network
    add_network(Branching, 'branching')
    train(recipe('branching', epochs=1), few_digits(), tmp_path/'run', log=lambda line: None)
    for to in 'pt2', 'onnx':
        if to == 'onnx': pytest.importorskip('onnxscript')
        with pytest.raises(S8FastError, match='branching cannot be exported'):
            export_network(tmp_path/'run', tmp_path/f'net.{to}', to, data=few_digits())
    assert names(tmp_path/'run') and not list(tmp_path.glob('net.*'))


def test_only_plain_convolutions_are_computed_by_winograd():
    class Other(nn.Conv2d): pass
    plain = dict(padding=1, bias=False)
    kept = [Other(64, 64, 3, **plain), nn.Conv2d(64, 64, 3, groups=2, **plain), nn.Conv2d(64, 64, 3, stride=2, **plain),
            nn.Conv2d(64, 64, 3, dilation=2, padding=2, bias=False), nn.Conv2d(64, 64, 3, padding=1),
            nn.Conv2d(64, 64, 3, padding_mode='reflect', **plain), nn.Conv2d(64, 64, 3, padding='same', bias=False)]
    model = use_winograd(nn.Sequential(*kept, nn.Conv2d(64, 64, 3, **plain)))
    assert [type(m) is WinogradConv2d for m in model] == [False]*len(kept) + [True]


def test_the_trial_draws_from_no_generator_that_counts():
    "A network of one's own has the weights that the library's has."
    from s8fast.models.ultimus import UltimusNet
    add_network(UltimusNet, 'mine')
    weights = [get_learner(make_recipe(name, bs=64, valid_pct=.1, device='cpu'), few_digits()).model.state_dict()
               for name in ('ultimus', 'mine')]
    assert all(torch.equal(a, b) for a, b in zip(*(o.values() for o in weights)))


# Several runs, several processes

def test_a_run_that_was_stopped(call_command, net, monkeypatch):
    "It says how to go on; without the word it does not, with it it does, and says that the file has changed."
    with monkeypatch.context() as patch:
        stop_at(patch, 0, 2)
        done = call_command('s8fast_train', *SHORT, '--model', 'net.py:Net', '--out', 'run', '--checkpoint_minutes', 0)
    assert done.returncode == 143 and '--resume run --model net.py:Net goes on from there' in done.stderr, done.stderr
    forget()
    net.with_name('ran').unlink()
    before = {path: path.read_bytes() for path in (net.parent/'run').rglob('*') if path.is_file()}
    assert_sentence(call_command('s8fast_train', '--resume', 'run'), 's8fast_train', 'give --model net.py:Net')
    assert before == {path: path.read_bytes() for path in (net.parent/'run').rglob('*') if path.is_file()}
    assert not net.with_name('ran').exists()
    net.with_name('other.py').write_text(NET)
    done = call_command('s8fast_train', '--resume', 'run', '--model', 'other.py:Net')
    assert_sentence(done, 's8fast_train', "model: 'net.py:Net', 'other.py:Net'")
    net.write_text(NET + '# changed\n')
    done = call_command('s8fast_train', '--resume', 'run', '--model', 'net.py:Net', '--no_report')
    assert done.returncode == 0 and 'net.py is not as it was when run began' in done.stdout, done.stderr


def test_several_seeds(call_command, net, tmp_path):
    how = *SHORT, '--model', 'net.py:Net', '--seeds', '0-1', '--out', 'two'
    done = call_command('s8fast_train', *how, '--no_report')
    assert done.returncode == 0 and 'n = 2' in done.stdout, done.stderr
    forget()
    assert_sentence(call_command('s8fast_report', 'two'), 's8fast_report', 'give --model net.py:Net')
    assert_sentence(call_command('s8fast_report', 'two', '--model', 'torch.nn:Linear'), 's8fast_report',
                    'is the network torch.nn:Linear, and that of two is net.py:Net')


STUDY = '''
[base]
model = "net.py:Net"
epochs = 1
bs = 128
lr_max = 2e-2
valid_pct = 0.1
device = "cpu"

[arms.smoothing]
label_smoothing = 0.0
'''

def test_a_study_of_networks_of_this_process(tmp_path):
    "One that was registered as a class is not to be had in another process."
    from s8fast.runs.study import run_study
    add_network(plain, 'plain')
    study = dict(base=recipe('plain'), wider=recipe('plain', bs=16))
    with pytest.raises(S8FastError, match='one of this process alone'):
        run_study(study, [0], few_digits(), tmp_path/'study', workers=2)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_study_in_several_processes(run_command, net):
    net.with_name('study.toml').write_text(STUDY)
    how = 's8fast_study', 'study.toml', '--seeds', '0', '--data', 'digits', '--workers', 2
    assert_sentence(run_command(*how, cwd=net.parent), 's8fast_study', 'give --model net.py:Net')
    assert not net.with_name('ran').exists()
    done = run_command(*how, '--model', './net.py:Net', cwd=net.parent)
    assert done.returncode == 0 and '2 of 2' in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('odd', [False, True])
def test_one_run_in_two_processes(run_command, net, odd):
    "Each process runs the file. Without batch norm, whose statistics are of a slice, the weights are those of one."
    if odd:
        import inspect
        source = inspect.getsource(Idle).replace('class Idle', 'class Net')
        net.write_text(f'import torch\nfrom torch import nn\n\n{source}')
    how = 's8fast_train', *SHORT, '--precision', 'fp32', '--model', './net.py:Net', '--no_report', '--bs', 100
    for n in 1, 2:
        done = run_command(*how, '--processes', n, '--out', f'run{n}', cwd=net.parent)
        assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file
    one, two = (load_file(net.parent/f'run{n}'/'model.safetensors') for n in (1, 2))
    assert one.keys() == two.keys()
    if odd:  # idle parameters, and a mask with an infinity
        for key in one: assert torch.allclose(one[key].float(), two[key].float(), atol=1e-4), key
    assert_sentence(run_command(*how, '--processes', 2, '--out', 'run3', '--cam_layer', 'x', cwd=net.parent),
                    's8fast_train', 'Layer x is not in the network')
