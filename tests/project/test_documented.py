"Everything public has a docstring, and each command is an installed function."
import importlib
import inspect
from pathlib import Path

import pytest
from helpers import ROOT, script, settings

PACKAGE = ROOT/'s8fast'
PATHS = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob('[!_]*.py'))
MODULES = ['.'.join(path.with_suffix('').parts) for path in PATHS]

#: Methods whose meaning PyTorch and fastai say.
EVENTS = 'fit epoch train validate batch pred loss step cancel_batch cancel_fit cancel_train'.split()
HOOKS = {'forward', 'encodes', *(f'{when}_{event}' for when in ('before', 'after') for event in EVENTS)}


def methods(kind):
    "The public methods that a class has of its own."
    return [method for name, method in vars(kind).items() if inspect.isfunction(method) and not name.startswith('_')]


def own_docstring(thing):
    "A class's own docstring, not that of what it inherits from."
    return thing.__dict__.get('__doc__') if isinstance(thing, type) else thing.__doc__


@pytest.mark.parametrize('name', MODULES)
def test_everything_public_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__ and module.__all__
    public = [getattr(module, symbol) for symbol in module.__all__]
    own = [thing for thing in public if inspect.isfunction(thing) or inspect.isclass(thing)]
    assert not [thing.__name__ for thing in own if not own_docstring(thing)]
    classes = [thing for thing in own if isinstance(thing, type) and not issubclass(thing, BaseException)]
    undocumented = [method.__qualname__ for kind in classes for method in methods(kind)
                    if not method.__doc__ and method.__name__ not in HOOKS]
    assert not undocumented


def test_every_command_is_an_installed_function():
    for line in settings()['console_scripts'].split():
        name, _, target = line.partition('=')
        module, _, function = target.partition(':')
        assert name == function and callable(getattr(importlib.import_module(module), function))
        assert Path(script(name)).is_file(), f'{name} is not installed: run `make test`'
