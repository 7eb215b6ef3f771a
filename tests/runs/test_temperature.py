"The temperature of a run: fitted, taken from another run, kept over a stop, added to a finished run."
import shutil

import pytest
import short_runs
from helpers import assert_sentence, edit_json, read_json

from s8fast.interpret.predictions import predict
from s8fast.training.metrics import compute_metrics

DIGITS = ('--data', 'digits', '--model', 'ultimus', '--epochs', 3, '--lr_max', 0.01, '--label_smoothing', 0.6,
          '--num_workers', 0, '--device', 'cpu')
HELD_OUT, WHOLE = ('--valid_pct', 0.2), ('--valid_pct', 0, '--seed', 1)


@pytest.fixture(scope='session')
def held_out_run(finished_run):
    "ULTIMUS with smoothed labels on the digits, of which a fifth is held out; with its report."
    return finished_run('held_out_run', *DIGITS, *HELD_OUT)


@pytest.fixture(scope='session')
def whole_run(finished_run):
    "The same on all of them, without a temperature."
    return finished_run('whole_run', *DIGITS, *WHOLE, '--no_report')


@pytest.fixture
def whole(whole_run, tmp_path): return shutil.copytree(whole_run.folder, tmp_path/'whole')


def calibrated(figures): return {name for name in figures if name.endswith('_calibrated')}


def test_fitted_on_the_validation_images(held_out_run):
    metrics = read_json(held_out_run.folder/'metrics.json')
    found = metrics['temperature']
    assert 0 < found['value'] < 1 and found['run'] is None
    assert found['n'] == metrics['valid']['n'] == 288
    for part in ('test', 'valid'): assert metrics[part]['ece_calibrated'] < metrics[part]['ece']
    valid = predict(held_out_run.folder, 'valid', 'digits', 'cpu')
    for other in (.9, 1.1):
        moved = compute_metrics(valid.logits, valid.targets, valid.vocab, temperature=other*found['value'])
        assert metrics['valid']['loss_calibrated'] < moved['loss_calibrated']
    assert f'temperature {found["value"]:.3f}, fitted on 288 validation images: ' in held_out_run.stdout


def test_everything_that_shows_a_probability_uses_it(held_out_run, call_command):
    run, metrics = held_out_run.folder, read_json(held_out_run.folder/'metrics.json')
    value, test = metrics['temperature']['value'], metrics['test']
    p = predict(run, 'test', 'digits', 'cpu')
    assert p.temperature == value and p.probs.equal((p.logits/value).softmax(1))
    assert p.metrics()['ece_calibrated'] == test['ece_calibrated']
    text = (run/'report.html').read_text()
    assert f'divided by a temperature of {value:.3f}, fitted on the 288 validation images of this run' in text
    for name in ('loss_calibrated', 'ece_calibrated'): assert f'<td>{test[name]:.4f}</td>' in text
    done = call_command('s8fast_evaluate', run, '--device', 'cpu')
    assert f'calibrated: loss {test["loss_calibrated"]:.4f}  ece {test["ece_calibrated"]:.4f}\n' in done.stdout


def test_a_run_on_all_images_says_that_it_has_none(whole_run):
    metrics = read_json(whole_run.folder/'metrics.json')
    assert 'temperature' not in metrics and not calibrated(metrics['test'])
    assert 'no temperature: no images were held out; s8fast_calibrate ' in whole_run.stdout


def test_taken_from_another_run(held_out_run, whole, call_command):
    found = read_json(held_out_run.folder/'metrics.json')['temperature']
    before = read_json(whole/'metrics.json')
    done = call_command('s8fast_calibrate', whole, '--temperature_of', held_out_run.folder, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    assert f'temperature {found["value"]:.3f}, fitted on 288 validation images of run: ' in done.stdout
    after = read_json(whole/'metrics.json')
    assert after.pop('temperature') == dict(found, run=held_out_run.folder.name)
    assert after['test'].pop('ece_calibrated') < after['test']['ece']
    after['test'].pop('loss_calibrated')
    assert {**after, 'sha256': 0} == {**before, 'sha256': 0}


def test_kept_when_the_run_is_stopped(held_out_run, whole_run, call_command, tmp_path):
    out = tmp_path/'run'
    args = '--out', out, *DIGITS, *WHOLE, '--no_report', '--temperature_of', held_out_run.folder
    command = short_runs.Command(tmp_path, 's8fast_train', *args, '--checkpoint_minutes', 0,
                                 fault=short_runs.StopAt(1, 2))
    assert command.wait()[0] == 143
    done = call_command('s8fast_train', '--resume', out, '--no_report')
    assert done.returncode == 0, done.stderr
    found = read_json(out/'metrics.json')
    assert found['temperature'] == dict(read_json(held_out_run.folder/'metrics.json')['temperature'],
                                        run=held_out_run.folder.name)
    assert found['test']['accuracy'] == read_json(whole_run.folder/'metrics.json')['test']['accuracy']


def test_kept_by_the_checkpoint_alone(held_out_run, call_command, tmp_path):
    "What was asked for goes first when a run is finished: a process that is killed then leaves the checkpoint."
    out = tmp_path/'run'
    args = '--out', out, *DIGITS, *WHOLE, '--no_report', '--temperature_of', held_out_run.folder
    command = short_runs.Command(tmp_path, 's8fast_train', *args, fault=short_runs.StopAt(1, 0))
    assert command.wait()[0] == 143
    (out/'checkpoint'/'recipe.json').unlink()
    done = call_command('s8fast_train', '--resume', out, '--data', 'digits', '--no_report')
    assert done.returncode == 0 and 'temperature' in read_json(out/'metrics.json'), done.stderr


def test_seeds_that_were_there_before(held_out_run, call_command, tmp_path):
    args = '--seeds', '1', '--out', tmp_path/'runs', *DIGITS, '--valid_pct', 0, '--no_report'
    assert call_command('s8fast_train', *args).returncode == 0
    done = call_command('s8fast_train', *args, '--temperature_of', held_out_run.folder)
    assert done.returncode == 0 and 'seed 1 has no temperature: s8fast_calibrate ' in done.stdout


@pytest.mark.slow
def test_several_seeds(held_out_run, call_command, tmp_path):
    done = call_command('s8fast_train', '--seeds', '1-2', '--out', tmp_path/'runs', *DIGITS, '--valid_pct', 0,
                        '--no_report', '--temperature_of', held_out_run.folder)
    assert done.returncode == 0, done.stderr
    for seed in (1, 2): assert 'temperature' in read_json(tmp_path/f'runs/seed{seed}/metrics.json')


def test_added_to_a_run_of_an_earlier_version(held_out_run, call_command, tmp_path):
    run = shutil.copytree(held_out_run.folder, tmp_path/'run')
    def older(metrics):
        metrics['version'] = 3
        del metrics['temperature']
        for part in ('test', 'valid'):
            for name in calibrated(metrics[part]): del metrics[part][name]
    edit_json(run/'metrics.json', older)
    assert not calibrated(predict(run, 'test', 'digits', 'cpu').metrics())
    (run/'report.html').write_text('an earlier page')
    done = call_command('s8fast_calibrate', run, '--device', 'cpu')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert read_json(run/'metrics.json') == read_json(held_out_run.folder/'metrics.json')
    assert 'divided by a temperature' in (run/'report.html').read_text()


def test_no_temperature_where_none_can_be_had(held_out_run, whole_run, whole, call_command, png_run):
    before = (whole/'metrics.json').read_bytes()
    def refused(*args, parts): assert_sentence(call_command(*args, '--device', 'cpu'), args[0], *parts)
    run, held = whole, held_out_run.folder
    refused('s8fast_calibrate', run, parts=['valid_pct=0', '--temperature_of'])
    refused('s8fast_calibrate', held, '--temperature_of', run, parts=['288 validation images', 'out'])
    refused('s8fast_calibrate', run, '--temperature_of', whole_run.folder, parts=['held no images out'])
    refused('s8fast_calibrate', run, '--temperature_of', 'nowhere', parts=['nowhere', 'metrics.json'])
    refused('s8fast_calibrate', run, '--temperature_of', png_run.folder, parts=['another recipe', 'label_smoothing'])
    refused('s8fast_calibrate', 'pretrained:custom_resnet', parts=['pretrained:custom_resnet has no run folder'])
    refused('s8fast_report', 'pretrained:custom_resnet', parts=['pretrained:custom_resnet has no run folder'])
    refused('s8fast_calibrate', 'nowhere', parts=['nowhere', 'metrics.json'])
    assert (whole/'metrics.json').read_bytes() == before


@pytest.mark.parametrize('more, parts', [
    (['--valid_pct', 0, '--label_smoothing', 0.1], ['another recipe', 'label_smoothing: 0.1, 0.6']),
    (['--valid_pct', 0, '--data', 'PNG'], ['other data', 'digits']),
    (['--valid_pct', 0.2], ['plays no part', 'valid_pct=0.2'])])
def test_refused_before_anything_is_made(held_out_run, call_command, png, tmp_path, more, parts):
    more = [png if o == 'PNG' else o for o in more]
    args = '--out', tmp_path/'run', '--temperature_of', held_out_run.folder
    done = call_command('s8fast_train', *DIGITS, *args, *more)
    assert_sentence(done, 's8fast_train', *parts)
    assert not (tmp_path/'run').exists()


def test_not_beside_resume(held_out_run, call_command):
    done = call_command('s8fast_train', '--resume', 'runs/a', '--temperature_of', held_out_run.folder)
    assert_sentence(done, 's8fast_train', 'leave --temperature_of out')
