"Every file that a run writes fails in turn: the disk is full, the file is cut short, the process is gone too early."
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import short_runs

from s8fast import files
from s8fast.errors import S8FastError
from s8fast.figures import subplots
from s8fast.interpret.report import write_report
from s8fast.runs.folder import STATE
from s8fast.runs.record import read_metrics, read_record
from s8fast.runs.train import train
from s8fast.training.checkpoint import read_checkpoint
from s8fast.training.history import read_history

KINDS = 'no space', 'short', 'crash'
IN_THE_QUICK_PART = 5  # of all writes, one in so many


@pytest.fixture
def writes(tmp_path, monkeypatch):
    "The names of the files that a run writes, in order."
    flush, seen = files.flush, []
    def counting(path):
        if path.is_file(): seen.append(path.name)
        return flush(path)
    monkeypatch.setattr(files, 'flush', counting)
    train(short_runs.recipe(), short_runs.few_digits(), tmp_path/'counted', log=lambda line: None)
    monkeypatch.undo()
    assert len(seen) >= 1 + 2 + 2*short_runs.EPOCHS + 5
    assert all('.png.' in name for name in seen[-3:]) and not any('.png.' in name for name in seen[:-3])
    return seen


class Breaking:
    "Breaks a write of a run, looks at what is left, and goes on."
    def __init__(self, folder, expected, writes): self.folder, self.expected, self.writes = folder, expected, writes

    def __call__(self, case):
        n, kind = case
        if '.png.' in self.writes[n]: self.break_picture(n, kind)
        else: self.break_result(n, kind)

    def break_picture(self, n, kind):
        "The figures are there already: the run says which picture is missing, or goes on where it was killed."
        out, says = self.folder/f'{kind}{n}', self.folder/f'{kind}{n}.txt'
        status = short_runs.run(out, fault=short_runs.BreakWrite(n, kind), says=says)
        assert read_metrics(out)['epochs'] == short_runs.EPOCHS
        if kind == 'crash':
            assert status == 9 and short_runs.run(out) == 0
            assert short_runs.results(out) == self.expected
        else:
            assert status == 0 and 'could not be written' in says.read_text(), says.read_text()
            assert short_runs.results(out)[:3] == self.expected[:3]
            assert not list(out.rglob('*.tmp')) and not (out/'checkpoint').exists()

    def break_result(self, n, kind):
        out, says = self.folder/f'{kind}{n}', self.folder/f'{kind}{n}.txt'
        status = short_runs.run(out, fault=short_runs.BreakWrite(n, kind), says=says)
        if kind == 'crash': assert status == 9
        else:
            assert status == short_runs.REFUSED and 'could not be written' in says.read_text(), says.read_text()
            assert not list(out.rglob('*.tmp'))
        self.look(out)
        assert short_runs.run(out) == 0
        assert short_runs.results(out) == self.expected, case

    def look(self, out):
        "What was there before is whole."
        if (out/'recipe.json').exists(): read_record(out)
        if (out/'history.csv').exists(): read_history(out)
        read_checkpoint(out/STATE)
        assert not (out/'metrics.json').exists()


@pytest.mark.parametrize('part', ['some', pytest.param('others', marks=pytest.mark.slow)])
def test_each_write_of_a_run_fails_once(reference, writes, tmp_path, count, part):
    cases = [(n, kind) for n in range(len(writes)) for kind in KINDS]
    some = cases[::IN_THE_QUICK_PART]  # a step that is prime to the kinds: each kind is in it
    chosen = some if part == 'some' else [case for case in cases if case not in some]
    breaking = Breaking(tmp_path, short_runs.results(reference['batch']), writes)
    with ThreadPoolExecutor(2) as pool: list(pool.map(breaking, chosen))
    count({'failing writes': len(chosen)})


def test_each_write_of_a_report_fails_once(reference, tmp_path, monkeypatch, count):
    run, data, flush = shutil.copytree(reference['batch'], tmp_path/'run'), short_runs.few_digits(), files.flush
    for name in ('gradcam', 'misclassified', 'top_losses', 'attention', 'confusion', 'reliability', 'selective',
                 'labels', 'unfamiliar'):
        monkeypatch.setattr(f's8fast.interpret.report.plot_{name}', lambda *args, **kwargs: subplots(figsize=(1, 1))[0])
    before = short_runs.results(run)[:3]
    for n in range(20):
        seen = []
        def broken(path):
            if path.is_file(): seen.append(path)
            if len(seen) == n + 1 and path == seen[-1]: raise OSError(28, 'No space left on device')
            return flush(path)
        monkeypatch.setattr(files, 'flush', broken)
        try: write_report(run, data, 'cpu')
        except S8FastError as error:
            assert 'No space left' in str(error) and seen[-1].name.split('.png')[0].split('.html')[0] in str(error)
        else: break
        assert short_runs.results(run)[:3] == before and not list(run.glob('*.tmp'))
    assert n >= 6 and (run/'report.html').is_file()
    count({'failing writes': n})


@pytest.mark.parametrize('gone', ['folder', 'checkpoint'])
def test_the_folder_is_removed_while_training(tmp_path, count, gone):
    out, says = tmp_path/'run', tmp_path/'says.txt'
    path = out if gone == 'folder' else out/'checkpoint'
    process = short_runs.start(out, 'batch', 0, says=says, epochs=500)
    short_runs.until_there(out/STATE, process)
    while path.exists(): shutil.rmtree(path, ignore_errors=True)  # it writes meanwhile
    assert short_runs.wait(process, 60) == short_runs.REFUSED
    assert 'could not be written (No such file' in says.read_text()
    count(['removed folders'])
