"JSON files are read back as they were written."
import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s8fast.files import read_json, write_json

KEY = st.text(string.ascii_letters, min_size=1).filter(lambda key: key != 'sha256')
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-10**9, 10**9)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEY, NUMBER | st.text(max_size=5)))
def test_json_is_read_back(tmp_path, obj):
    obj = {**obj, 'version': 1}
    write_json(tmp_path/'x.json', obj)
    assert read_json(tmp_path/'x.json', dict, 1) == obj
