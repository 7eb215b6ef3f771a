"`s8fast_app` in a real browser: an image goes in, a class comes out, another class changes the map."
import os
import re
import shutil
import signal
import socket
import subprocess
from dataclasses import replace

import pytest
import short_runs
from helpers import script
from PIL import Image

from s8fast.recipe import make_recipe
from s8fast.runs.train import train

pytest.importorskip('gradio', reason="the page needs the extra: pip install -e '.[app]'")
playwright = pytest.importorskip('playwright.sync_api', reason='the page is tried with playwright')
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason='there is no Chromium to try the page with')]
FLAGS = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync').split()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def hear_signals():
    "In the process that is started: whoever runs these tests in the background may have it ignore them."
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(signum, signal.SIG_DFL)


class App:
    "The command in a process of its own."
    def __init__(self, run, tmp, *args):
        self.port, self.tmp = free_port(), tmp
        command = [script('s8fast_app'), str(run), '--port', str(self.port), '--device', 'cpu', *map(str, args)]
        env = {**os.environ, 'TMPDIR': str(tmp), 'HF_HUB_OFFLINE': '1'}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                                        preexec_fn=hear_signals)
        self.said = self.process.stdout.readline()

    def stop(self, signum=signal.SIGINT):
        self.process.send_signal(signum)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@pytest.fixture(scope='module')
def app(final_run, tmp_path_factory):
    app = App(final_run.folder, tmp_path_factory.mktemp('app'))
    yield app
    if app.process.poll() is None: app.stop()


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[390, 1280])
def page(app, browser, request):
    "The page, at the width of a telephone and of a screen; whatever it asks for is in `page.asked`."
    page = browser.new_page(viewport=dict(width=request.param, height=900))
    page.asked, page.faults = [], []
    page.on('request', lambda asked: page.asked.append(asked.url))
    page.on('console', lambda said: page.faults.append(said.text) if said.type == 'error' else None)
    page.goto(f'http://127.0.0.1:{app.port}')
    page.get_by_text('Your image').first.wait_for()
    yield page
    page.close()


@pytest.fixture
def photo(tmp_path):
    Image.effect_mandelbrot((200, 120), (-2, -1, 1, 1), 50).convert('RGB').save(tmp_path/'photo.jpg')
    return tmp_path/'photo.jpg'


def source(page, picture):
    "The address of a picture once it has one, and the bytes behind it."
    image = page.locator(f'#{picture} img')
    image.wait_for()
    return image.get_attribute('src')


def content(page, address): return page.request.get(address).body()


def test_an_image_goes_in(app, page, photo):
    page.set_input_files('input[type=file]', photo)
    first = source(page, 'cam')
    before = content(page, first)
    assert content(page, source(page, 'seen')) != before
    shares = re.findall(r'(\d+)%', page.locator('#classes').inner_text())
    assert len(shares) == 10 and 95 <= sum(map(int, shares)) <= 105
    chosen = page.locator('#which input')
    other = 'ship' if chosen.input_value() != 'ship' else 'truck'
    chosen.click()
    page.get_by_role('option', name=other).click()
    page.wait_for_function('before => document.querySelector("#cam img").src !== before', arg=first)
    assert content(page, source(page, 'cam')) != before
    here = f'http://127.0.0.1:{app.port}/', 'data:', 'blob:'
    assert page.faults == [] and all(asked.startswith(here) for asked in page.asked)


def test_names_are_text(tmp_path, browser):
    "Names that come from folders, or from a stranger, are no Markdown and no HTML: nothing is fetched from elsewhere."
    data = short_runs.few_digits(150, 40)
    evil = '![p](http://evil.example/p.png) <img src=http://evil.example/q.png>'
    odd = replace(data, name=evil, train_labels=data.train_labels % 2, test_labels=data.test_labels % 2,
                  vocab=(evil, 'line\nbreak'))
    recipe = make_recipe('ultimus', epochs=1, bs=32, lr_max=1e-3, device='cpu', valid_pct=.2)
    train(recipe, odd, tmp_path/'run', log=lambda line: None)
    app = App(tmp_path/'run', tmp_path)
    page, asked = browser.new_page(), []
    page.on('request', lambda request: asked.append(request.url))
    page.goto(f'http://127.0.0.1:{app.port}')
    page.get_by_text('Your image').first.wait_for()
    page.locator('#examples button img').first.click()
    source(page, 'cam')
    page.get_by_role('tab', name='Report').click()
    page.get_by_text('test images are right').wait_for()
    page.close()
    app.stop()
    assert not [url for url in asked if 'evil' in url]


def test_an_example_and_the_report(page, final_run):
    page.locator('#examples button img').nth(3).click()
    source(page, 'cam')
    page.get_by_role('tab', name='Report').click()
    frame = page.frame_locator('iframe[title=report]')
    frame.get_by_text('Final figures').first.wait_for()


def test_what_is_no_image_gets_a_sentence(page, tmp_path):
    (tmp_path/'text.png').write_text('This is a text.')
    page.set_input_files('input[type=file]', tmp_path/'text.png')
    page.locator('#said').get_by_text('What you gave is not an image that Pillow reads: give another one.').wait_for()
    assert page.locator('#cam img').count() == 0


def test_an_image_of_too_many_pixels(page, tmp_path):
    Image.new('1', (11_000, 10_000)).save(tmp_path/'bomb.png')
    page.set_input_files('input[type=file]', tmp_path/'bomb.png')
    page.locator('#said').get_by_text('has 11,000 by 10,000 pixels').wait_for()


def test_only_this_machine_can_ask(app):
    listening = subprocess.run(['ss', '-ltn'], capture_output=True, text=True).stdout if shutil.which('ss') else None
    if listening: assert f'127.0.0.1:{app.port}' in listening and f'0.0.0.0:{app.port}' not in listening
    with socket.socket() as s:
        s.settimeout(2)
        address = socket.gethostbyname(socket.gethostname())
        if not address.startswith('127.'): assert s.connect_ex((address, app.port)) != 0


def test_a_port_that_is_taken(app, final_run, run_command):
    done = run_command('s8fast_app', final_run.folder, '--port', app.port, '--device', 'cpu')
    said = f'Port {app.port} is taken or not allowed: give another --port.'
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_cuda_that_is_not_there(final_run, run_command):
    done = run_command('s8fast_app', final_run.folder, '--device', 'cuda:7')
    assert done.returncode == 2 and 'cuda:7' in done.stderr and 'Traceback' not in done.stderr, done.stderr


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left(final_run, tmp_path, browser, photo, signum):
    "After a signal what was uploaded is gone."
    (tmp_path/'tmp').mkdir()
    app = App(final_run.folder, tmp_path/'tmp')
    assert app.said == f'The page is at http://127.0.0.1:{app.port}/ until Ctrl-C.\n'
    page = browser.new_page()
    page.goto(f'http://127.0.0.1:{app.port}')
    page.set_input_files('input[type=file]', photo)
    source(page, 'cam')
    assert list((tmp_path/'tmp').rglob('photo.jpg'))
    page.close()
    status, err = app.stop(signum)
    assert status == 128 + signum and 'Traceback' not in err, err
    assert not list((tmp_path/'tmp').glob('s8fast-app-*')) and not list((tmp_path/'tmp').rglob('photo.jpg'))


def test_a_space(final_run, tmp_path, run_command, browser):
    "The folder of s8fast_publish --space opens the same page."
    done = run_command('s8fast_publish', final_run.folder, 'a/b', '--space', '--dry_run', tmp_path/'space')
    assert done.returncode == 0, done.stderr
    port = free_port()
    env = {**os.environ, 'GRADIO_SERVER_PORT': str(port), 'GRADIO_SERVER_NAME': '0.0.0.0',
           'no_proxy': '127.0.0.1,localhost'}
    process = subprocess.Popen([script('python'), 'app.py'], cwd=tmp_path/'space', env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    assert 'The page is at' in process.stdout.readline()
    page = browser.new_page()
    page.goto(f'http://127.0.0.1:{port}')
    page.get_by_text('Your image').first.wait_for()
    page.close()
    process.kill()
    process.wait()
