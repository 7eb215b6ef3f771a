"`s8fast_publish` and `hub:`: what is sent is what is loaded again, and nothing of it runs."
import json
import shutil

import numpy as np
import pytest
import yaml
from helpers import assert_sentence, file_names, read_json, script
from hub_server import TOKEN, HubServer
from PIL import Image

from s8fast.models.hub import from_hub
from s8fast.models.pretrained import NetworkFiles, network_from
from s8fast.runs.trained import load_network

PRETRAINED = 'pretrained:custom_resnet'
NAME = 'someone/small-net'


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    "A Hub that huggingface_hub asks, here and in other processes, with a cache and a token of its own."
    from huggingface_hub import constants
    server, home = HubServer(), tmp_path_factory.mktemp('hub')
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.address)
    values = dict(ENDPOINT=server.address, HUGGINGFACE_CO_URL_TEMPLATE=template, HF_HUB_CACHE=str(home/'hub'),
                  HF_TOKEN_PATH=str(home/'token'), HF_HUB_DISABLE_XET=True)  # the Hub's second way to store files
    for name, value in values.items(): monkeypatch.setattr(constants, name, value)
    for name, value in dict(HF_ENDPOINT=server.address, HF_HOME=str(home), HF_TOKEN=TOKEN).items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def impatient(monkeypatch):
    "huggingface_hub does not wait before it tries again."
    from huggingface_hub.utils import _http
    monkeypatch.setattr(_http.time, 'sleep', lambda seconds: None)


@pytest.fixture
def publish(call_command, final_run):
    def publish(*args, run=final_run.folder, name=NAME): return call_command('s8fast_publish', run, name, *args)
    return publish


def front_matter(card): return yaml.safe_load(card.split('---\n')[1])


def test_a_dry_run_sends_nothing(publish, final_run, hub, tmp_path):
    "It needs no token, and asks nobody."
    done = publish('--dry_run', tmp_path/'folder', '--licence', 'mit')
    assert done.returncode == 0 and str(tmp_path/'folder') in done.stdout, done.stderr
    assert not hub.asked
    names = file_names(tmp_path/'folder')
    assert {'README.md', 'config.json', 'model.safetensors', 'recipe.json', 'metrics.json', 'history.csv',
            'pictures/curves.png', 'pictures/gradcam.png'} <= set(names)
    assert not [name for name in names if name.endswith(('.py', '.pkl', '.pt', '.bin', '.html'))]
    metrics = read_json(final_run.folder/'metrics.json')
    card = (tmp_path/'folder'/'README.md').read_text(encoding='utf8')
    facts = front_matter(card)
    result, = facts['model-index'][0]['results']
    assert facts['license'] == 'mit' and result['metrics'][0]['value'] == round(metrics['test']['accuracy'], 4)
    assert result['dataset']['args'] == dict(n=metrics['test']['n'], edition=read_json(
        final_run.folder/'recipe.json')['data']['edition'])
    for name in names:
        if name.startswith('pictures/'): assert f']({name})' in card
    files = NetworkFiles('x', tmp_path/'folder'/'config.json', tmp_path/'folder'/'model.safetensors', 'no')
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    expected = load_network(final_run.folder, 'cpu', winograd=False).logits(images)
    assert network_from(files).logits(images).equal(expected)


def test_published_and_loaded_again(publish, final_run, hub, call_command, tmp_path):
    done = publish()
    assert done.returncode == 0 and f'{hub.address}/{NAME}' in done.stdout, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert {'README.md', 'config.json', 'model.safetensors', 'metrics.json'} <= set(hub.repositories[NAME])
    assert not any(TOKEN.encode() in content for content in hub.repositories[NAME].values())
    Image.new('RGB', (50, 40), (200, 30, 20)).save(tmp_path/'red.png')
    said = [call_command('s8fast_predict', run, tmp_path/'red.png', '--json', '--device', 'cpu')
            for run in (f'hub:{NAME}', final_run.folder)]
    first, second = (json.loads(done.stdout)[0]['probabilities'] for done in said)
    assert first == pytest.approx(second, abs=1e-4)
    assert from_hub(f'{NAME}@main').facts['test'] == read_json(final_run.folder/'metrics.json')['test']
    fetched = [one for one in hub.asked if '/resolve/' in one and one.startswith('GET')]
    assert sorted(one.rsplit('/', 1)[1] for one in fetched) == ['config.json', 'model.safetensors']  # once


def test_without_a_network_the_fetched_one_is_taken(publish, hub, call_command, tmp_path, impatient):
    publish()
    from_hub(NAME)
    hub.refuses['GET /api/models'] = None
    Image.new('RGB', (50, 40)).save(tmp_path/'x.png')
    done = call_command('s8fast_predict', f'hub:{NAME}', tmp_path/'x.png', '--device', 'cpu')
    assert done.returncode == 0 and 'as it was fetched before' in done.stderr
    assert_sentence(call_command('s8fast_predict', 'hub:someone/other', 'x.png'), 's8fast_predict', 'cannot be reached')


def test_in_private(publish, hub):
    "What is private stays so; what everybody sees already is not published to when it should be private."
    assert publish('--private').returncode == publish().returncode == 0
    assert hub.private == {NAME: True}
    assert publish(name='someone/public').returncode == 0
    before = hub.commit('someone/public')
    assert_sentence(publish('--private', name='someone/public'), 's8fast_publish', 'everybody sees it')
    assert hub.commit('someone/public') == before and hub.private['someone/public'] is False


def test_a_space(publish, hub, tmp_path):
    "It has the whole run, and what opens its page."
    done = publish('--space', name='someone/page')
    assert done.returncode == 0, done.stderr
    files = hub.repositories['someone/page']
    assert hub.kinds['someone/page'] == 'space' and {'app.py', 'requirements.txt', 'README.md', 'run/metrics.json',
                                                     'run/model.safetensors', 'run/report.html'} <= set(files)
    compile(files['app.py'], 'app.py', 'exec')
    assert front_matter(files['README.md'].decode())['sdk'] == 'gradio'


# What goes wrong

def test_an_upload_that_breaks_off(publish, hub, impatient):
    hub.refuses['PUT /lfs/'] = None
    assert_sentence(publish(), 's8fast_publish', 'did not end')
    assert hub.repositories[NAME] == {}
    hub.refuses.clear()
    assert publish().returncode == 0


@pytest.mark.parametrize('beginning', ['POST /api/repos/create', 'POST /api/models', 'PUT /lfs/'])
def test_a_hub_that_is_out_of_order(publish, hub, impatient, beginning):
    hub.refuses[beginning] = 500
    assert_sentence(publish(), 's8fast_publish', 'status 500', NAME, 'did not end')


def test_a_wrong_token(publish, hub, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_wrong')
    done = publish()
    assert_sentence(done, 's8fast_publish', 'hf auth login', NAME)
    assert 'hf_wrong' not in done.stderr and not hub.repositories


def test_no_token(publish, hub, monkeypatch):
    monkeypatch.delenv('HF_TOKEN')
    assert_sentence(publish(), 's8fast_publish', 'hf auth login')
    assert not hub.asked


def test_nobody_answers(publish, hub, impatient):
    hub.stop()
    assert_sentence(publish(), 's8fast_publish', 'cannot be reached', 'did not end')


@pytest.mark.parametrize('name', ['small-net', 'a/b/c', 'a/b@v1', '../x/y', 'a b/c'])
def test_names_that_are_none(publish, hub, name, tmp_path):
    assert_sentence(publish('--dry_run', tmp_path/'x', name=name), 's8fast_publish', repr(name)[1:-1], 'OWNER/NAME')
    assert not (tmp_path/'x').exists()


def test_a_folder_that_has_something(publish, hub, tmp_path):
    (tmp_path/'x').mkdir()
    assert publish('--dry_run', tmp_path/'x').returncode == 0
    before = file_names(tmp_path)
    assert_sentence(publish('--dry_run', tmp_path/'x'), 's8fast_publish', 'is there already')
    assert file_names(tmp_path) == before


def test_a_run_that_is_none(publish, hub, tmp_path):
    assert_sentence(publish('--dry_run', tmp_path/'x', run=tmp_path), 's8fast_publish', 'is no run folder')
    assert not (tmp_path/'x').exists() and not list(tmp_path.iterdir())


def test_options_that_play_no_part(publish, hub, tmp_path):
    assert_sentence(publish('--space', '--licence', 'mit'), 's8fast_publish', '--licence plays no part')
    assert_sentence(publish('--private', '--dry_run', tmp_path/'x'), 's8fast_publish', '--private plays no part')
    assert_sentence(publish('--dry_run', ''), 's8fast_publish', 'No folder was given')
    assert not hub.asked


def test_somebodys_weights_want_their_licence(publish, hub):
    publish()
    assert_sentence(publish(run=f'hub:{NAME}', name='someone/else'), 's8fast_publish', 'give the --licence')
    assert publish('--licence', 'mit', run=f'hub:{NAME}', name='someone/else').returncode == 0
    assert publish('--space', run=f'hub:{NAME}', name='someone/page').returncode == 0  # which holds no weights
    assert f'hub:{NAME}' in hub.repositories['someone/page']['app.py'].decode()


def test_a_licence_that_the_hub_does_not_know(publish, hub):
    "It is asked before anything is made."
    assert_sentence(publish('--licence', 'mitt'), 's8fast_publish', NAME, 'license')
    assert not hub.repositories


def test_a_token_that_is_none(publish, hub, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_\u00e4')
    done = publish()
    assert_sentence(done, 's8fast_publish', 'log in again')
    assert '\u00e4' not in done.stderr and not hub.asked


def test_a_page_in_the_place_of_the_hub(predict, publish, hub, monkeypatch):
    "As a network answers that wants a sign-in first."
    publish()
    from hub_server import _Handler
    monkeypatch.setattr(_Handler, 'answer', lambda self, *args, **kwargs: _answer_page(self))
    assert_sentence(predict(), 's8fast_predict', 'is of no use', NAME)


def _answer_page(handler):
    content = b'<html>Sign in</html>'
    handler.send_response(200)
    handler.send_header('Content-Length', str(len(content)))
    handler.end_headers()
    if handler.command != 'HEAD': handler.wfile.write(content)


def test_licences_have_no_line_breaks(publish, hub, tmp_path):
    assert_sentence(publish('--dry_run', tmp_path/'x', '--licence', 'mit\nx: y'), 's8fast_publish', 'licence')


# What others may have published

@pytest.fixture
def predict(call_command, tmp_path):
    "`predict(name)`: the command on one image by a network of the Hub."
    Image.new('RGB', (32, 32)).save(tmp_path/'x.png')
    return lambda name=NAME: call_command('s8fast_predict', f'hub:{name}', tmp_path/'x.png', '--device', 'cpu')


def test_a_repository_that_is_not_there(predict, hub):
    assert_sentence(predict('someone/nothing'), 's8fast_predict', 'The Hub shows no someone/nothing')


def test_a_revision_that_is_not_there(publish, predict, hub):
    publish()
    assert_sentence(predict(f'{NAME}@v7'), 's8fast_predict', f'The Hub shows no {NAME}')


def spoilt(change):
    "A change of `config.json`, with its checksum taken out."
    def spoil(files):
        facts = json.loads(files['config.json'])
        del facts['sha256']
        change(facts)
        files['config.json'] = json.dumps(facts).encode()
    return spoil


SPOILT = dict(
    no_weights=(lambda files: files.pop('model.safetensors'), 'it has no model.safetensors'),
    cut=(lambda files: files.update({'model.safetensors': files['model.safetensors'][:-8]}), 'is not what config.json'),
    no_json=(lambda files: files.update({'config.json': b'hello'}), 'is damaged'),
    code=(lambda files: files.update({'config.json': b'{"version": 1, "model": "evil.py:Net"}'}), 'is damaged'),
    network=(spoilt(lambda facts: facts.update(model='resnet50')), 'is damaged'),
    classes=(spoilt(lambda facts: facts['vocab'].pop()), 'is damaged'),
    std=(spoilt(lambda facts: facts['stats'][1].__setitem__(0, 0.)), 'is damaged (stats)'),
    temperature=(spoilt(lambda facts: facts.update(temperature=-1.)), 'is damaged (temperature'),
    tiny_temperature=(spoilt(lambda facts: facts.update(temperature=5e-324)), 'is damaged (temperature'),
    tiny_std=(spoilt(lambda facts: facts['stats'][1].__setitem__(0, 1e-300)), 'is damaged (stats)'),
    large_mean=(spoilt(lambda facts: facts['stats'][0].__setitem__(0, 1e300)), 'is damaged (stats'),
    class_twice=(spoilt(lambda facts: facts.update(vocab=['same']*10)), 'has a class twice'),
    choices=(spoilt(lambda facts: facts['record']['recipe'].update(epochs='x')), 'The recipe of hub:'),
    figures=(spoilt(lambda facts: facts['test'].pop('accuracy')), 'is damaged'),
    newer=(spoilt(lambda facts: facts.update(version=99)), 'upgrade s8fast'))

@pytest.mark.parametrize('kind', SPOILT)
def test_spoilt_repositories(publish, predict, hub, kind, count):
    publish()
    change, said = SPOILT[kind]
    change(hub.repositories[NAME])
    assert_sentence(predict(), 's8fast_predict', said)
    count(dict(repository=1))


def test_a_file_that_is_too_large_is_not_fetched(publish, predict, hub):
    publish()
    hub.sizes['model.safetensors'] = 1 << 40
    assert_sentence(predict(), 's8fast_predict', '1,099,511,627,776 bytes')
    assert not [one for one in hub.asked if '/resolve/' in one]


def test_without_the_extra(publish, call_command, monkeypatch, tmp_path):
    monkeypatch.setattr('s8fast.errors.importlib.util.find_spec', lambda name: None)
    predicted = call_command('s8fast_predict', 'hub:a/b', 'x')
    for done, name in ((publish(), 's8fast_publish'), (predicted, 's8fast_predict')):
        assert_sentence(done, name, "pip install 's8fast[hub]'")


@pytest.mark.slow
def test_the_pretrained_network(publish, hub, tmp_path):
    assert publish('--dry_run', tmp_path/'x', run=PRETRAINED).returncode == 0
    assert '94.19%' in (tmp_path/'x'/'README.md').read_text(encoding='utf8')
    assert publish(run=PRETRAINED).returncode == 0
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    assert from_hub(NAME).logits(images).equal(load_network(PRETRAINED, 'cpu', winograd=False).logits(images))
    shutil.rmtree(tmp_path/'x')


def test_it_is_installed(): assert script('s8fast_publish').exists()
