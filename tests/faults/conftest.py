"What the tests of faults share."
import shutil

import pytest
import short_runs


@pytest.fixture
def stopped(once, tmp_path):
    "A run that was stopped within its second epoch, to be spoilt."
    def make(folder): assert short_runs.run(folder, minutes=0, fault=short_runs.StopAt(1, 2)) == 143
    return shutil.copytree(once('stopped', make), tmp_path/'run')
