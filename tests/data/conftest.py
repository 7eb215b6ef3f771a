"What the tests of data share."
import pytest
from helpers import names

from s8fast.data.dataset import load_folder
from s8fast.errors import S8FastError


@pytest.fixture
def refused(tmp_path, monkeypatch):
    "`refused(root, parts...)`: the data is refused by one sentence with all `parts`; nothing is written, no cache."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    def refused(root, *parts):
        before = names(tmp_path)
        with pytest.raises(S8FastError) as error: load_folder(root)
        message = str(error.value)
        assert message.endswith('.') and '\n' not in message
        for part in parts: assert str(part) in message, (part, message)
        assert names(tmp_path) == before
    return refused
