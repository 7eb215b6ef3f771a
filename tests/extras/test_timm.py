"timm's networks: a library, whose name is enough; random weights, a report, what it does not have."
import pytest
import torch
from helpers import assert_sentence, read_json

from s8fast.errors import S8FastError
from s8fast.models.zoo import get_network

pytestmark = pytest.mark.slow
timm = pytest.importorskip('timm')
FAST = '--data', 'digits', '--epochs', 1, '--bs', 64, '--lr_max', 1e-3, '--device', 'cpu'


def test_from_a_name_to_a_report(run_command, tmp_path):
    "The name alone does for every command; the record has timm's version."
    run = tmp_path/'run'
    done = run_command('s8fast_train', *FAST, '--model', 'timm:resnet10t', '--out', run)
    assert done.returncode == 0, done.stderr
    record = read_json(run/'recipe.json')
    assert record['recipe']['model'] == 'timm:resnet10t' and record['versions']['timm'] == timm.__version__
    assert 'code' not in record['chosen']
    page = (run/'report.html').read_text()
    assert 'timm:resnet10t on digits' in page and 'GradCAM at layer4.0.' in page
    assert run_command('s8fast_evaluate', run).returncode == 0
    done = run_command('s8fast_predict', run, run/'batch.png', '--gradcam', tmp_path/'maps')
    assert done.returncode == 0 and (tmp_path/'maps'/'batch.png').is_file(), done.stderr
    done = run_command('s8fast_export', run, '--to', 'pt2', '--out', tmp_path/'net.pt2')
    assert 'the same class for each' in done.stdout, done.stderr
    done = run_command('s8fast_publish', run, 'me/it', '--dry_run', tmp_path/'pub')
    assert done.returncode == 0 and "s8fast[hub,timm] @" in (tmp_path/'pub'/'README.md').read_text()


def test_it_has_what_timm_makes():
    torch.manual_seed(0)
    found = get_network('timm:resnet10t').make(7)
    torch.manual_seed(0)
    expected = timm.create_model('resnet10t', pretrained=False, num_classes=7)
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), expected.state_dict().values()))


@pytest.mark.parametrize('name, said', [
    ('resnet81', 'such as resnet18'), ('', 'more'), ('hf-hub:somebody/something', 'timm has no network'),
    ('resnet18.no_such_tag', 'no_such_tag')])
def test_a_name_that_timm_does_not_have(name, said):
    "Nothing is fetched for it either."
    with pytest.raises(S8FastError, match=said): get_network(f'timm:{name}').make(10)


def test_a_network_for_other_images(run_command, tmp_path):
    done = run_command('s8fast_train', *FAST, '--model', 'timm:vit_tiny_patch16_224', cwd=tmp_path)
    assert_sentence(done, 's8fast_train', 'timm:vit_tiny_patch16_224 does not take 1 image', 'give another one')
    assert not list(tmp_path.iterdir())
