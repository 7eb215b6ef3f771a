"Hypothesis strategies: values and nested lists and dictionaries, as they may stand in any file."
import string

from hypothesis import strategies as st

WORDS = ['custom_resnet', 'ultimus', 'batch', 'item', 'linear', 'cpu', 'auto', 0.01, 1, 24]
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from(WORDS))
KEY = st.text(string.ascii_lowercase, max_size=8)


def _deeper(inner): return st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4)

TREE = st.recursive(SCALAR, _deeper, max_leaves=20)
