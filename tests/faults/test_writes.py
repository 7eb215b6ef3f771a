"Every file that a run writes fails in turn: the disk is full, the file is cut short, the process is gone before the file has its name."
import shutil
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import pytest
import runs

from s8fast.checkpoint import read_checkpoint
from s8fast.files import S8FastError
from s8fast.report import write_report
from s8fast.run_folder import STATE, read_history, read_record


def n_writes(tmp_path, monkeypatch):
    "How many files a run writes."
    from s8fast import files
    from s8fast.training import train
    flush, seen = files.flush, []
    def counting(path):
        if path.is_file(): seen.append(path.name)
        return flush(path)
    monkeypatch.setattr(files, 'flush', counting)
    train(runs.recipe(), runs.few_digits(), tmp_path/'counted', log=lambda line: None)
    monkeypatch.undo()
    return len(seen)


def test_every_write_fails_once(reference, tmp_path, monkeypatch, count):
    n, expected = n_writes(tmp_path, monkeypatch), runs.results(reference['batch'])
    assert n >= 1 + 2 + 2*runs.EPOCHS + 5
    def one(case):
        i, how = case
        out, says = tmp_path/f'{how}{i}', tmp_path/f'{how}{i}.txt'
        status = runs.run(out, fault=runs.BreakWrite(i, how), says=says)
        if how == 'crash': assert status == 9
        else:
            assert status == runs.REFUSED and 'could not be written' in says.read_text(), says.read_text()
            assert not list(out.rglob('*.tmp'))
        # what was there before is whole
        if (out/'recipe.json').exists(): read_record(out)
        if (out/'history.csv').exists(): read_history(out)
        read_checkpoint(out/STATE)
        assert not (out/'metrics.json').exists()
        assert runs.run(out) == 0
        assert runs.results(out) == expected, case
    cases = [(i, how) for i in range(n) for how in ('no space', 'short', 'crash')]
    with ThreadPoolExecutor(2) as pool: list(pool.map(one, cases))
    count({'failing writes': len(cases)})


def test_every_write_of_a_report_fails_once(reference, tmp_path, monkeypatch, count):
    from s8fast import files
    flush, data = files.flush, runs.few_digits()
    for o in ('gradcam', 'misclassified', 'top_losses', 'attention', 'confusion', 'reliability'):  # what is drawn does not matter here
        monkeypatch.setattr(f's8fast.report.plot_{o}', lambda *args, **kwargs: plt.figure(figsize=(1, 1)))
    before = runs.results(reference['batch'])[:3]
    for i in range(20):
        seen = []
        def broken(path):
            if path.is_file(): seen.append(path)
            if len(seen) == i + 1 and path == seen[-1]: raise OSError(28, 'No space left on device')
            return flush(path)
        monkeypatch.setattr(files, 'flush', broken)
        try: write_report(reference['batch'], data, 'cpu')
        except S8FastError as e: assert 'No space left' in str(e) and str(seen[-1].with_suffix('')) in str(e)
        else: break
        assert runs.results(reference['batch'])[:3] == before and not list(reference['batch'].glob('*.tmp'))
    assert i >= 6 and (reference['batch']/'report.html').is_file()
    for o in ('report.html', 'confusion.png', 'reliability.png', 'misclassified.png', 'top_losses.png', 'gradcam.png', 'attention.png'): (reference['batch']/o).unlink()
    count({'failing writes': i})


@pytest.mark.parametrize('gone', ['folder', 'checkpoint'])
def test_the_folder_is_removed_while_training(tmp_path, count, gone):
    out, path = tmp_path/'run', tmp_path/('run' if gone == 'folder' else 'run/checkpoint')
    process = runs.start(out, 'batch', 0, says=tmp_path/'says.txt', epochs=500)
    runs.until_there(out/STATE, process)
    while path.exists(): shutil.rmtree(path, ignore_errors=True)  # it writes meanwhile
    assert runs.wait(process, 60) == runs.REFUSED and 'could not be written (No such file' in (tmp_path/'says.txt').read_text()
    count(['removed folders'])
