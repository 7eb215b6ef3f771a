"recipe.json and metrics.json: whatever is in them, it is read right or refused by name."
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import TREE

from s8fast.errors import S8FastError
from s8fast.runs.record import read_metrics, read_record

KEYS = ['version', 'recipe', 'chosen', 'data', 'versions', 'device', 'lr_find', 'test', 'valid', 'epochs', 'seconds',
        'files', 'sha256']
ANY_JSON = TREE | st.dictionaries(st.sampled_from(KEYS), TREE)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_JSON, st.sampled_from([('recipe.json', read_record), ('metrics.json', read_metrics)]))
def test_any_json_as_a_record(tmp_path, obj, file):
    name, read = file
    (tmp_path/name).write_text(json.dumps(obj))
    try: read(tmp_path)
    except S8FastError as error: assert str(tmp_path/name) in str(error)
