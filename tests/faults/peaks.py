"How much memory Python takes."
import tracemalloc
from contextlib import contextmanager


@contextmanager
def at_most(n_bytes):
    "`with at_most(n_bytes):` no more memory is taken inside."
    tracemalloc.start()
    try: yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < n_bytes
