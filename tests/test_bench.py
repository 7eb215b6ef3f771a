"The study of choices on validation images and its picture; the yardstick."
import json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest
from conftest import draw_data, write_folders
from PIL import Image

BENCH = Path(__file__).resolve().parent.parent/'bench'


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp('study')/'study.json'
    args = '--model', 'ultimus', '--epochs', 1, '--bs', 64, '--share', .3, '--averages', '.5', '--device', 'cpu', '--seeds', '0-1', '--out', out
    return args, subprocess.run([sys.executable, BENCH/'study.py', 'lr_max=0.003', 'lr_max=0.003,wd=0.5', *map(str, args)], capture_output=True, text=True, env={**os.environ, 'PYTHONWARNINGS': 'ignore'})


def test_study(study):
    args, done = study
    assert done.returncode == 0, done.stderr
    trials = json.loads(args[-1].read_text())
    assert [(o['row'], o['recipe']['seed'], o['recipe']['wd']) for o in trials] == [(row, seed, wd) for seed in (0, 1) for row, wd in (('lr_max=0.003', .05), ('lr_max=0.003,wd=0.5', .5))]
    assert all(o['n_train'] + o['n_valid'] == 431 and set(o['averages']) == {'0.5', '0.5, statistics estimated'} for o in trials)
    mean = sum(o['accuracy'] for o in trials if o['recipe']['wd'] == .5)/2
    assert ['lr_max=0.003,wd=0.5', 'none', '2', f'{mean:.2%}'] in [o.replace('|', ' ').split()[:4] for o in done.stdout.splitlines()], done.stdout


def test_study_goes_on(study, tmp_path, call_command):
    args, done = study
    out = tmp_path/'study.json'
    out.write_bytes(args[-1].read_bytes())
    again = call_command(BENCH/'study.py', 'lr_max=0.003', 'lr_max=0.003,wd=0.5', 'lr_max=0.01', *args[:-1], out)
    assert again.returncode == 0 and again.stderr.count(' in ') == 2 == again.stderr.count('lr_max=0.01, seed'), again.stderr # the trials that were missing
    trials, more = (json.loads(o.read_text()) for o in (args[-1], out))
    assert more[:4] == trials and [o['row'] for o in more[4:]] == ['lr_max=0.01']*2
    words = [[line.replace('|', ' ').split() for line in o.stdout.splitlines()] for o in (done, again)]
    assert all(line in words[1] for line in words[0] if line[:1] == ['lr_max=0.003']), again.stdout # as it was


@pytest.mark.parametrize('row, change, says', [('depth=3', {}, 'neither the recipe nor the network'), ('wd=0.1', dict(share='.2'), 'other images'), ('wd=0.1', dict(out='history.csv'), 'no study'), ('wd=0.1', dict(out='none/study.json'), 'none')])
def test_study_refuses(study, row, change, says, tmp_path, call_command):
    args, out = study[0], study[0][-1]
    if 'out' in change:
        out = tmp_path/change['out']
        if out.parent.exists(): out.write_text('epoch,lr\n')
    before, done = out.exists() and out.read_bytes(), call_command(BENCH/'study.py', row, *args[:-1], out, *(o for k, v in change.items() if k != 'out' for o in (f'--{k}', v)))
    assert done.returncode == 2 and says in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert (out.exists() and out.read_bytes()) == before


def test_picture_of_a_study(study, tmp_path, call_command):
    whole, broken = study[0][-1], tmp_path/'broken.json'
    assert call_command(BENCH/'plot_study.py', whole, '--averages', '0,.5', '--out', tmp_path/'study.png').returncode == 0
    with Image.open(tmp_path/'study.png') as im: assert len(im.convert('RGB').getcolors(1 << 24)) > 10
    broken.write_text('[{"row": "default"}]')
    done = call_command(BENCH/'plot_study.py', whole, broken, '--out', tmp_path/'none.png')
    assert done.returncode == 2 and done.stderr.startswith(f'plot_study.py: {broken} ') and done.stderr.count('\n') == 1 and not (tmp_path/'none.png').exists()


@pytest.mark.parametrize('script', ['pipeline', 'startup', 'step', 'train'])
def test_data_that_is_not_there(script, tmp_path, call_command):
    done = call_command(BENCH/f'{script}.py', '--data', tmp_path/'none', *(['--scaling'] if script == 'train' else []))
    assert done.returncode == 2 and done.stderr.startswith(f'{script}.py: ') and 'none' in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_yardstick_refuses(tmp_path, call_command):
    "Before it trains: what can't be written, what is no record of runs, a record of other ones."
    (tmp_path/'file').touch()
    (tmp_path/'none.json').write_text('{"seed": 0}')
    record = (BENCH.parent/'results'/'yardstick-jpeg.json').read_text()
    (tmp_path/'other.json').write_text(record)
    for out, says in ((tmp_path/'file'/'out.json', 'not be written'), (tmp_path/'none.json', 'is no record of such runs'), (tmp_path/'other.json', 'other data')):
        done = call_command(BENCH/'yardstick.py', '--device', 'cpu', '--out', out)
        assert done.returncode == 2 and done.stderr.startswith('yardstick.py: ') and says in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert (tmp_path/'other.json').read_text() == record


def test_yardstick_goes_on(tmp_path, call_command):
    "Stopped within the second epoch, the same command ends with the figures of a run that was not; a checkpoint that is none is refused, or replaced when asked."
    data = write_folders(tmp_path/'data', draw_data(25, 2))
    args = '--device', 'cpu', '--data', data, '--epochs', 2, '--bs', 64, '--out'
    whole, out, state = tmp_path/'whole.json', tmp_path/'out.json', tmp_path/'out-seed0.checkpoint'
    (tmp_path/'whole-seed0.checkpoint').write_text('epoch,lr\n')
    spoilt = call_command(BENCH/'yardstick.py', *args, whole)
    assert spoilt.returncode == 2 and 'is damaged' in spoilt.stderr and '--force' in spoilt.stderr and spoilt.stderr.count('\n') == 1, spoilt.stderr
    assert (done := call_command(BENCH/'yardstick.py', *args, whole, '--force')).returncode == 0, done.stderr
    with subprocess.Popen([sys.executable, BENCH/'yardstick.py', *map(str, args), out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as stopped:
        while not state.exists() and stopped.poll() is None: time.sleep(.01)
        stopped.send_signal(signal.SIGINT)
        says = stopped.communicate()[1]
    assert stopped.returncode == 130 and 'goes on from there' in says and json.loads(out.read_text()) == [], says
    other = call_command(BENCH/'yardstick.py', *args, out, '--bs', 32)
    assert other.returncode == 2 and 'other options' in other.stderr and state.exists()
    assert (done := call_command(BENCH/'yardstick.py', *args, out)).returncode == 0, done.stderr
    a, b = ([{k: v for k, v in o.items() if k != 'seconds'} for o in json.loads(f.read_text())] for f in (whole, out))
    for o in (*a[0]['history'], *b[0]['history']): del o['seconds']
    assert a == b and len(a) == 1 and not state.exists()
