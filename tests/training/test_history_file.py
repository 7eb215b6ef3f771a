"history.csv: whatever text is in it, it is read right or refused by name."
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import SCALAR

from s8fast.errors import S8FastError
from s8fast.training.history import COLUMNS, read_history

LINE = st.lists(SCALAR.map(str), max_size=8).map(','.join)
UNDER_ITS_HEAD = st.lists(LINE, max_size=4).map(lambda lines: '\n'.join([','.join(COLUMNS), *lines]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200) | UNDER_ITS_HEAD)
def test_any_text_as_a_history(tmp_path, text):
    (tmp_path/'history.csv').write_text(text, encoding='utf8', errors='replace')
    try: rows = read_history(tmp_path)
    except S8FastError as error: assert 'history.csv' in str(error)
    else:
        assert [row['epoch'] for row in rows] == list(range(1, len(rows) + 1))
        assert all(np.isfinite(list(row.values())).all() for row in rows)
