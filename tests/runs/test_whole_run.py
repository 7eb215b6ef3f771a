"What a run leaves behind, and that its parts agree."
import pytest
from helpers import TRAIN_FILES, VOCAB, history_rows, read_json

from s8fast.recipe import Recipe, make_recipe
from s8fast.runs.folder import Run
from s8fast.training.history import COLUMNS

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'


def test_a_run_leaves_its_files(digits_run):
    run = digits_run.folder
    assert {path.name for path in run.iterdir()} == TRAIN_FILES  # no lr_find.png: there was nothing to find
    assert all((run/name).read_bytes()[:8] == PNG_SIGNATURE for name in TRAIN_FILES if name.endswith('.png'))


def test_its_record_says_how_it_was_made(digits_run):
    record = read_json(digits_run.folder/'recipe.json')
    expected = make_recipe(model='ultimus', epochs=1, bs=128, lr_max=0.003, valid_pct=0.1, num_workers=0, device='cpu')
    assert Recipe(**record['recipe']) == expected == Run(digits_run.folder).recipe
    data = record['data']
    assert (data['name'], data['n_train'], data['n_valid']) == ('digits', 1294, 144)
    assert {'python', 'torch', 'fastai', 's8fast'} <= set(record['versions']) and record['device']['type'] == 'cpu'


def test_its_state(digits_run, tmp_path):
    finished, new = Run(digits_run.folder), Run(tmp_path/'run')
    assert finished.state == 'finished' and not finished.is_unfinished
    assert new.state == 'new' and not new.is_unfinished and not (tmp_path/'run').exists()
    assert finished.metrics['test'] == read_json(digits_run.folder/'metrics.json')['test']


def test_history_and_metrics_agree(png_run):
    rows, metrics = history_rows(png_run.folder), read_json(png_run.folder/'metrics.json')
    assert tuple(rows[0]) == COLUMNS and [row['epoch'] for row in rows] == ['1', '2']
    assert (metrics['epochs'], metrics['valid']['n'], metrics['test']['n']) == (2, 10, 20)
    for name in ('loss', 'accuracy'):
        assert metrics['valid'][name] == pytest.approx(float(rows[-1][f'valid_{name}']), rel=1e-2)
    assert list(metrics['test']['per_class']) == VOCAB
    assert {'accuracy', 'accuracy_tta', 'loss', 'ece'} <= set(metrics['test'])
    assert {'startup', 'training', 'evaluation'} <= set(metrics['seconds'])


def test_the_schedule_ends_where_it_began(png_run):
    last = history_rows(png_run.folder)[-1]
    assert float(last['lr']) == pytest.approx(0.003/Recipe().div, rel=1e-4)


def test_a_learning_rate_that_is_found_is_recorded(found_run):
    run = found_run.folder
    assert found_run.stderr == ''
    assert {path.name for path in run.iterdir()} == TRAIN_FILES | {'lr_find.png'}
    record = read_json(run/'recipe.json')
    found, lr_max = record['lr_find'], record['chosen']['lr_max']
    assert record['recipe']['lr_max'] == 'auto' and 0 < found['lr_min'] <= found['lr_max'] == lr_max
    assert len(found['lrs']) == len(found['losses']) >= 10
    assert f'LRMIN {found["lr_min"]:.2e}, LRMAX {lr_max:.2e}' in found_run.stdout
    assert float(history_rows(run)[-1]['lr']) == pytest.approx(lr_max/Recipe().div, rel=1e-4)
