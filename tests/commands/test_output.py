"What the commands print: lines in a log, a bar and a table in a terminal, figures that are those of the run."
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios

import pytest
from helpers import ULTIMUS, assert_sentence, history_rows, read_json, script

from s8fast.runs.evaluate import evaluate_run
from s8fast.training.history import COLUMNS

EPOCH = r'epoch +{}/2  lr (\S+)  train loss (\S+) acc +(\S+)%  valid loss (\S+) acc +(\S+)%  (\S+) s'


def test_one_plain_line_an_epoch_without_a_terminal(png_run):
    head, *epochs, temperature, last = png_run.stdout.splitlines()
    assert head.startswith('ultimus on cifar10 (PNG files): 70 training, 10 validation, 20 test images; '
                           '26,074 parameters; cpu, ')
    for i, (line, row) in enumerate(zip(epochs, history_rows(png_run.folder), strict=True), 1):
        shown = re.fullmatch(EPOCH.format(i), line).groups()
        for column, text in zip(COLUMNS[1:], shown, strict=True):
            expected = float(row[column])*(100 if column.endswith('accuracy') else 1)
            within = 0.05 if column == 'seconds' else 0
            assert float(text) == pytest.approx(expected, rel=1e-2, abs=within), column
    metrics = read_json(png_run.folder/'metrics.json')
    value = metrics.get('temperature', {}).get('value')
    assert temperature.startswith(f'temperature {value:.3f}, fitted on 10 ' if value else 'no temperature: ')
    accuracy = metrics['test']['accuracy']
    assert last.startswith(f'test accuracy {accuracy:.2%}') and last.endswith(str(png_run.folder))
    assert not re.search('[\r\x1b\b█]', png_run.stdout) and png_run.stderr == ''


def test_the_resnet_says_its_name(resnet_run):
    assert resnet_run.stdout.startswith('custom_resnet on cifar10 (PNG files): 70 training, 10 validation, 20 test')
    assert resnet_run.stderr == ''


def read_terminal(terminal):
    "All that is written to a pseudo-terminal until its other end is closed."
    shown = b''
    while select.select([terminal], [], [], 300)[0]:
        try: new = os.read(terminal, 65536)
        except OSError: break  # Linux's way to say that the other end is closed
        if not new: break
        shown += new
    return shown.decode()


def test_a_terminal_gets_a_bar_and_a_table(png, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 40, 0, 0))  # a narrow one
    command = [script('s8fast_train'), '--data', png, '--out', tmp_path/'run', '--epochs', 1, '--lr_max', 1e-3,
               *ULTIMUS]
    process = subprocess.Popen(list(map(str, command)), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = read_terminal(ours)
    os.close(ours)
    assert process.wait() == 0, text
    assert '\r' in text.replace('\r\n', '') and '%' in text  # a line drawn over
    assert all(name in text for name in ('epoch', 'train_loss', 'valid_loss', 'accuracy'))
    assert re.search(r'^1 +\d+\.\d+ ', text.replace('\r', '\n'), re.M) and not re.search(r'^0 +\d', text, re.M)
    assert len(history_rows(tmp_path/'run')) == 1


@pytest.mark.parametrize('part', ['test', 'valid'])
def test_evaluate_agrees_with_the_runs_own_figures(call_command, png_run, png, part):
    done = call_command('s8fast_evaluate', png_run.folder, '--data', png, '--part', part, '--device', 'cpu')
    metrics = read_json(png_run.folder/'metrics.json')[part]
    assert done.returncode == 0, done.stderr
    lines, n_rows = done.stdout.splitlines(), len(metrics['per_class'])
    (summary, *calibrated, _, head), rows = lines[:-n_rows], lines[-n_rows:]
    if 'ece_calibrated' in metrics:
        figures = f'loss {metrics["loss_calibrated"]:.4f}  ece {metrics["ece_calibrated"]:.4f}'
        assert calibrated == [f'calibrated: {figures}']
    else: assert not calibrated
    assert summary == (f'accuracy {metrics["accuracy"]:.2%}  (with flip TTA {metrics["accuracy_tta"]:.2%})  '
                       f'loss {metrics["loss"]:.4f}  ece {metrics["ece"]:.4f}  n {metrics["n"]}')
    assert head.split() == ['class', 'precision', 'recall', 'f1', 'support']
    shown = {name: values for name, *values in map(str.split, rows)}
    for name, figures in metrics['per_class'].items():
        percent = [f'{figures[key]:.2%}' for key in ('precision', 'recall', 'f1')]
        assert shown.pop(name) == [*percent, str(figures['support'])]
    assert not shown


def test_evaluate_of_the_resnet(call_command, resnet_run, png):
    done = call_command('s8fast_evaluate', resnet_run.folder, '--data', png, '--device', 'cpu')
    accuracy = read_json(resnet_run.folder/'metrics.json')['test']['accuracy']
    assert done.stdout.startswith(f'accuracy {accuracy:.2%} '), done.stderr


def test_evaluate_takes_the_runs_own_images(call_command, png_run, jpeg, digits_run):
    "The same classes in another edition are other images, and its split another split; the digits need not be named."
    done = call_command('s8fast_evaluate', png_run.folder, '--data', jpeg, '--device', 'cpu')
    assert_sentence(done, 's8fast_evaluate', 'JPEG files', 'PNG files')
    accuracy = read_json(digits_run.folder/'metrics.json')['test']['accuracy']
    done = call_command('s8fast_evaluate', digits_run.folder, '--device', 'cpu')
    assert done.stdout.startswith(f'accuracy {accuracy:.2%} ')


def test_evaluate_with_shifts(call_command, png_run, png):
    done = call_command('s8fast_evaluate', png_run.folder, '--data', png, '--shifts', '--device', 'cpu')
    metrics = read_json(png_run.folder/'metrics.json')['test']
    shifted = evaluate_run(png_run.folder, png, shifts=True, device='cpu')['accuracy_tta_shifts']
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'accuracy {metrics["accuracy"]:.2%}  (with flip TTA {metrics["accuracy_tta"]:.2%}, '
                                  f'with flip and shift TTA {shifted:.2%})')


def test_evaluate_writes_nothing(call_command, run, png):
    def times(): return {path: path.stat().st_mtime_ns for path in run.rglob('*')}
    before = times()
    assert call_command('s8fast_evaluate', run, '--data', png, '--device', 'cpu').returncode == 0
    assert times() == before


def test_the_finder_prints_its_range(call_command, tmp_path):
    plot = tmp_path/'find.png'
    done = call_command('s8fast_lr_find', '--data', 'digits', '--model', 'ultimus', '--out', plot, '--bs', 64,
                        '--num_it', 100, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    lowest, highest, where = map(str.split, done.stdout.splitlines())
    assert (lowest[0], highest[0], where) == ('LRMIN', 'LRMAX', ['plot:', str(plot)])
    assert 1e-6 <= float(lowest[1]) <= float(highest[1]) <= 10
    assert plot.read_bytes().startswith(b'\x89PNG')
    assert [path.name for path in tmp_path.iterdir()] == ['find.png']


def test_the_finder_finds_what_a_run_found(found_run, call_command, png, tmp_path):
    record = read_json(found_run.folder/'recipe.json')
    done = call_command('s8fast_lr_find', '--recipe', found_run.folder, '--data', png, '--out', tmp_path/'find.png')
    assert done.returncode == 0, done.stderr
    assert f'LRMAX {record["chosen"]["lr_max"]:.3e}\n' in done.stdout
