"`s8fast_robustness`: a trained network on corrupted test images; the report with them; refused."
import json

import numpy as np
from helpers import assert_sentence, edit_json, file_names, read_json

from s8fast.data.corruptions import CORRUPTIONS, FURTHER


def test_the_figures_and_the_report(call_command, run, png):
    done = call_command('s8fast_robustness', run, '--data', png, '--device', 'cpu')
    assert done.returncode == 0 and 'mean of the 15' in done.stdout, done.stderr
    found, metrics = read_json(run/'robustness.json'), read_json(run/'metrics.json')
    assert set(found['correct']) == {'clean', *CORRUPTIONS} and found['n'] == metrics['test']['n']
    right = np.unpackbits(np.frombuffer(bytes.fromhex(found['correct']['clean'][0]), np.uint8), count=found['n'])
    assert right.mean() == metrics['test']['accuracy']
    more = call_command('s8fast_robustness', run, '--data', png, '--device', 'cpu', '--all')
    assert more.returncode == 0
    both = read_json(run/'robustness.json')['correct']
    assert set(both) == {*found['correct'], *FURTHER} and found['correct'].items() <= both.items()
    assert call_command('s8fast_report', run, '--data', png, '--device', 'cpu').returncode == 0
    assert 'On worse images' in (run/'report.html').read_text() and (run/'corruptions.png').exists()
    edit_json(run/'robustness.json', lambda content: content['correct'].pop('fog'))  # interrupted
    assert call_command('s8fast_report', run, '--data', png, '--device', 'cpu').returncode == 0
    assert 'On worse images' not in (run/'report.html').read_text()
    edit_json(run/'robustness.json', lambda content: content.update(weights='0'*64))  # of an earlier training
    assert call_command('s8fast_report', run, '--data', png, '--device', 'cpu').returncode == 0
    assert 'On worse images' not in (run/'report.html').read_text()


def test_bad_input(call_command, run, png, tmp_path):
    def refused(*args): return call_command('s8fast_robustness', *args, '--data', png, '--device', 'cpu')
    before = file_names(run)
    assert_sentence(refused(tmp_path/'none'), 's8fast_robustness', 'none')
    assert_sentence(refused('pretrained:ultimus'), 's8fast_robustness', 'no run folder')
    assert_sentence(refused(run, '--seed', 'x'), 's8fast_robustness', "'x'")
    assert_sentence(refused(run, '--seed', -1), 's8fast_robustness', 'seed=-1')
    assert_sentence(refused(run, '--data_c', tmp_path), 's8fast_robustness', 'labels.npy cannot be read')
    assert_sentence(refused(run, '--out', tmp_path/'none'/'x.json'), 's8fast_robustness', 'none')
    assert file_names(run) == before
    (run/'robustness.json').write_text('{"version": 1}')
    assert_sentence(refused(run), 's8fast_robustness', 'robustness.json is damaged')
    bits = dict(version=1, weights='0', source='made', seed=0, n=20, correct=dict(clean=['zz']), seconds={})
    (run/'robustness.json').write_text(json.dumps(bits))
    assert_sentence(refused(run), 's8fast_robustness', 'robustness.json is damaged (correct)')
