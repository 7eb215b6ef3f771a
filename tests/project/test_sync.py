"tools/check_sync.py, on a small project: each way to be out of step is one line."
import json
import re
import shutil
import sys

import nbformat
import pytest
from helpers import ROOT, named, settings

sys.path.insert(0, str(ROOT/'tools'))
from check_sync import CELL_LINES, LINE_LENGTH, MODULE_LINES, exported, problems
from make_readme import readme


def write_notebook(path, *cells):
    "A notebook of these cells; those that begin with `# ` are Markdown."
    def cell_of(text):
        make = nbformat.v4.new_markdown_cell if text.startswith('# ') else nbformat.v4.new_code_cell
        return make(text)
    notebook = nbformat.v4.new_notebook(cells=[cell_of(text) for text in cells])
    for i, cell in enumerate(notebook.cells): cell['id'] = f'{path.stem.replace(".", "-")}-{i}'
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def make_notebook(root, name, *cells):
    "The notebook of a module."
    module = name.partition('_')[2]
    exporting = [f'#| export\n{cell}' for cell in cells]
    write_notebook(root/'nbs'/f'{name}.ipynb', f'# {module}\n> A module', f'#| default_exp {module}', *exporting)


@pytest.fixture(autouse=True)
def forget_config():
    "nbdev remembers the first settings.ini it reads."
    from nbdev.config import get_config
    get_config.cache_clear()


@pytest.fixture(scope='module')
def template(tmp_path_factory):
    "A project of two modules, one of them in a folder."
    from nbdev.config import get_config
    get_config.cache_clear()
    root = tmp_path_factory.mktemp('template')
    for name in ('settings.ini', 'pyproject.toml'): shutil.copy(ROOT/name, root)
    (root/'s8fast').mkdir()
    write_notebook(root/'nbs'/'index.ipynb', '# s8fast\n[source]({{git_url}})', '1 + 1')
    make_notebook(root, '00_low', 'def low(): return 1')
    make_notebook(root, '01_wing.high', 'from s8fast.low import low', 'def high(): return low()')
    exported(root)
    (root/'README.md').write_text(readme(root))
    return root


@pytest.fixture
def project(template, tmp_path): return shutil.copytree(template, tmp_path/'project')


def test_a_project_in_step_has_no_problem(project):
    found, summary = problems(project)
    assert found == [] and summary.startswith('3 notebooks, ')
    assert settings(project)['git_url'] in (project/'README.md').read_text()


def export(root):
    from nbdev.config import get_config
    exported(root)
    get_config.cache_clear()

def append(path, text): path.write_text(path.read_text() + text)


# Each function brings something out of step and returns what the line has to say

def module_edited(root):
    append(root/'s8fast'/'low.py', 'x = 1\n')
    return 's8fast/low.py differs from its notebook'

def module_without_notebook(root):
    (root/'s8fast'/'stray.py').write_text('')
    return 's8fast/stray.py has no notebook'

def module_in_a_folder_without_notebook(root):
    (root/'s8fast'/'wing'/'stray.py').write_text('')
    return 's8fast/wing/stray.py has no notebook'

def module_missing(root):
    (root/'s8fast'/'wing'/'high.py').unlink()
    return 's8fast/wing/high.py is missing'

def notebook_edited(root):
    make_notebook(root, '00_low', 'def low(): return 2')
    return 's8fast/low.py differs from its notebook'

def notebook_not_clean(root):
    path = root/'nbs'/'00_low.ipynb'
    notebook = json.loads(path.read_text())
    notebook['metadata']['toc'] = {}
    path.write_text(json.dumps(notebook, indent=1))
    return 'nbs/00_low.ipynb is not clean'

def notebook_damaged(root):
    path = root/'nbs'/'01_wing.high.ipynb'
    path.write_text(path.read_text()[:50])
    return 'nbs/01_wing.high.ipynb is no notebook'

def no_notebook(root):
    shutil.rmtree(root/'nbs')
    return 'no notebook found'

def notebook_of_another_name(root):
    (root/'nbs'/'00_low.ipynb').rename(root/'nbs'/'00_lower.ipynb')
    export(root)
    return 'nbs/00_lower.ipynb exports to low'

def import_uphill(root):
    make_notebook(root, '00_low', 'import s8fast.wing.high', 'def low(): return 1')
    export(root)
    return 's8fast/low.py (00) imports wing.high (01)'

def import_uphill_inside_a_function(root):
    make_notebook(root, '00_low', 'def low():\n    from s8fast.wing import high\n    return 1')
    export(root)
    return 's8fast/low.py (00) imports wing.high (01)'

def import_of_a_name_uphill(root):
    make_notebook(root, '00_low', 'def low():\n    from s8fast.wing.high import high\n    return high')
    export(root)
    return 's8fast/low.py (00) imports wing.high (01)'

def long_cell(root):
    lines = '\n'.join(f'    x = {i}' for i in range(CELL_LINES))
    make_notebook(root, '00_low', f'def low():\n{lines}')
    export(root)
    return f'nbs/00_low.ipynb has an exported cell of {CELL_LINES + 1} lines'

def long_line(root):
    make_notebook(root, '00_low', 'def low(): return ' + '1 + '*40 + '1')
    export(root)
    return f'({LINE_LENGTH} at most)'

def long_line_of_a_test(root):
    (root/'tests').mkdir()
    (root/'tests'/'test_low.py').write_text('x = 1\n' + '#'*(LINE_LENGTH + 1) + '\n')
    return f'tests/test_low.py:2 has {LINE_LENGTH + 1} characters'

def large_module(root):
    cells = [f'def low{i}():\n' + '    x = 1\n'*30 for i in range(MODULE_LINES//30 + 1)]
    make_notebook(root, '00_low', *cells)
    export(root)
    return f's8fast/low.py has '

def version_bumped(root):
    path = root/'settings.ini'
    path.write_text(re.sub(r'(?m)^version = .*', 'version = 9.9.9', path.read_text()))
    return 's8fast/__init__.py differs'

def readme_edited(root):
    append(root/'README.md', 'by hand\n')
    return 'README.md differs from nbs/index.ipynb'

def readme_missing(root):
    (root/'README.md').unlink()
    return 'README.md differs from nbs/index.ipynb'

def index_edited(root):
    write_notebook(root/'nbs'/'index.ipynb', '# s8fast\nanother text', '1 + 1')
    return 'README.md differs from nbs/index.ipynb'

def index_with_an_unknown_key(root):
    write_notebook(root/'nbs'/'index.ipynb', '# s8fast\n{{no_such_key}}', '1 + 1')
    return '{{no_such_key}} is no key of settings.ini'

def a_setting_that_nbdev_3_reads_otherwise(root):
    path = root/'pyproject.toml'
    path.write_text(path.read_text().replace('branch = "main"', 'branch = "trunk"'))
    return "[tool.nbdev] has branch = 'trunk'"

def tutorial_of_another_owner(root):
    link = 'https://colab.research.google.com/github/somebody/else/blob/main/nbs/tutorials/lesson.ipynb'
    write_notebook(root/'nbs'/'tutorials'/'lesson.ipynb', f'# Lesson\n[Colab]({link})')
    return 'nbs/tutorials/lesson.ipynb links to another repository'

def install_line_of_another_owner(root):
    install = '!pip install -q git+https://example.com/somebody/else'
    write_notebook(root/'nbs'/'tutorials'/'lesson.ipynb', '# Lesson', install)
    return 'nbs/tutorials/lesson.ipynb links to another repository'

def tutorial_that_exports(root):
    write_notebook(root/'nbs'/'tutorials'/'lesson.ipynb', '# Lesson', '#| export\ndef lesson(): return 1')
    return 'nbs/tutorials/lesson.ipynb exports something'

def temporary_folder_shown(root):
    path = root/'nbs'/'tutorials'/'lesson.ipynb'
    write_notebook(path, '# Lesson', '1')
    notebook = nbformat.read(path, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output('stream', text='all of it is in /tmp/tmpab12_xyz/run')]
    nbformat.write(notebook, path)
    export(root)  # writes it as nbdev does
    return 'nbs/tutorials/lesson.ipynb shows /tmp/tmpab12_xyz'

def owner_named(root):
    cfg = settings(root)
    (root/'NOTES.md').write_text(f'see {cfg["user"]}/{cfg["repo"]}')
    return 'NOTES.md names'

OUT_OF_STEP = (
    module_edited, module_without_notebook, module_in_a_folder_without_notebook, module_missing, notebook_edited,
    notebook_not_clean, notebook_damaged, no_notebook, notebook_of_another_name, import_uphill,
    import_uphill_inside_a_function, import_of_a_name_uphill, long_cell, long_line, long_line_of_a_test, large_module,
    version_bumped, readme_edited, readme_missing, index_edited, index_with_an_unknown_key,
    a_setting_that_nbdev_3_reads_otherwise, tutorial_of_another_owner, install_line_of_another_owner,
    tutorial_that_exports, temporary_folder_shown, owner_named)

@pytest.mark.parametrize('spoil', OUT_OF_STEP, ids=named)
def test_what_is_out_of_step_is_one_line(project, spoil):
    expected = spoil(project)
    line, = problems(project)[0]
    assert expected in line
