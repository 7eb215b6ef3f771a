"Notebooks that take the device that is there run on a GPU too. On a real one `tools/run_notebooks.py` runs them all."
from pathlib import Path

import pytest

NBS = Path(__file__).parents[2]/'nbs'
MODULES = ('data.loaders', 'models.watch', 'models.custom_resnet', 'models.pretrained', 'training.device',
           'training.one_cycle', 'training.lr_find', 'training.optimizer', 'training.recorder', 'training.history',
           'training.nonfinite', 'training.metrics', 'training.learner', 'interpret.predictions', 'interpret.plots',
           'interpret.gradcam')


@pytest.mark.slow
@pytest.mark.parametrize('module', MODULES)
def test_notebook(gpu, module, monkeypatch):
    pytest.importorskip('nbdev', '2', reason='nbdev runs the notebooks')
    from nbdev.test import test_nb as run_notebook
    monkeypatch.chdir(NBS)
    path, = NBS.glob(f'*_{module}.ipynb')
    passed, _ = run_notebook(path, basepath=NBS)
    assert passed
