"Metadata from one place, and the checks that keep notebooks, package and README together."
import importlib, inspect, json, re, shutil, subprocess, sys, tarfile, zipfile
from email.parser import Parser
from pathlib import Path

import nbformat
import pytest

import s8fast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
from check_sync import exported, problems
from make_readme import readme, settings

MODULES = sorted(o.stem for o in Path(s8fast.__file__).parent.glob('[!_]*.py'))


# What setuptools makes of settings.ini

@pytest.fixture(scope='module')
def cfg(): return settings(ROOT)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A wheel and an sdist, built offline from a copy of the project."
    pytest.importorskip('setuptools', '77', reason='building needs setuptools>=77, as pyproject.toml says')
    copy, dist = tmp_path_factory.mktemp('project'), tmp_path_factory.mktemp('dist')
    for o in ('settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'CONTRIBUTING.md', 'README.md'):
        if (ROOT/o).exists(): shutil.copy(ROOT/o, copy)
    shutil.copytree(ROOT/'s8fast', copy/'s8fast', ignore=shutil.ignore_patterns('__pycache__'))
    code = f'from setuptools import build_meta as b; b.build_wheel({str(dist)!r}); b.build_sdist({str(dist)!r})'
    done = subprocess.run([sys.executable, '-c', code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = dist.glob('*.whl'), dist.glob('*.tar.gz')
    return wheel, sdist


@pytest.fixture(scope='module')
def wheel(built):
    "The wheel's files as `{path: text}`."
    with zipfile.ZipFile(built[0]) as f: return {o: f.read(o).decode() for o in f.namelist()}


def metadata(wheel, name): return next(v for k, v in wheel.items() if k.endswith(f'.dist-info/{name}'))

def plain(requirement): return re.sub(r'[\s"\']', '', requirement)


def test_metadata_is_that_of_settings(wheel, cfg):
    meta = Parser().parsestr(metadata(wheel, 'METADATA'))
    assert (meta['Name'], meta['Version'], meta['Summary']) == (cfg['lib_name'], cfg['version'], cfg['description'])
    assert (meta['License-Expression'] or meta['License']) == {'apache2': 'Apache-2.0'}[cfg['license']] and meta['License-File'] == 'LICENSE'
    assert meta['Requires-Python'] == f'>={cfg["min_python"]}' and meta['Author'] == cfg['author']
    assert cfg['git_url'] in meta.as_string() and not [o for o in meta.get_all('Classifier') if o.startswith('License')]


def test_requirements_are_those_of_settings(wheel, cfg):
    requires = [plain(o).replace(';', ' ', 1).split(' ') for o in Parser().parsestr(metadata(wheel, 'METADATA')).get_all('Requires-Dist')]
    def names(text): return sorted(re.match(r'[\w.-]+', o)[0].lower() for o in text.split())
    def pins(text): return {tuple(sorted(re.findall(r'[<>=!~]=?[\d.]+', o.partition(';')[0]))) for o in text.split()}
    dev = [o for o, *marker in requires if marker and "extra==dev" in marker[0]]
    user = [o for o, *marker in requires if not (marker and "extra==dev" in marker[0])]
    for found, key in ((user, 'requirements'), (dev, 'dev_requirements')):
        assert names(' '.join(found)) == names(cfg[key]) and pins(' '.join(found)) == pins(cfg[key])


def test_wheel_holds_the_package_and_its_commands(wheel, cfg):
    files = {o for o in wheel if '.dist-info/' not in o}
    assert files == {str(o.relative_to(ROOT)) for o in (ROOT/'s8fast').rglob('*.py')}
    section = metadata(wheel, 'entry_points.txt').partition('[console_scripts]')[2].partition('[nbdev]')[0]
    assert {o.replace(' ', '') for o in section.split('\n') if o} == set(cfg['console_scripts'].split())
    assert metadata(wheel, 'licenses/LICENSE').lstrip().startswith('Apache License')


def test_sdist_holds_what_its_build_reads(built):
    with tarfile.open(built[1]) as f: files = {o.partition('/')[2] for o in f.getnames()}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'LICENSE', 's8fast/images.py'} <= files


def test_version_and_owner_stand_in_one_place(cfg):
    assert s8fast.__version__ == cfg['version']  # which nbdev writes
    own = re.compile(rf'version\s*=\s*["\']{re.escape(cfg["version"])}|{cfg["user"]}/{cfg["repo"]}|{cfg["user"]}\.github\.io')
    assert not [o for o in ('setup.py', 'pyproject.toml', 'Makefile', 'CONTRIBUTING.md') if own.search((ROOT/o).read_text())]
    assert '[project]' not in (ROOT/'pyproject.toml').read_text()


def test_commands_are_functions(cfg):
    for line in cfg['console_scripts'].split():
        name, _, target = line.partition('=')
        module, _, function = target.partition(':')
        assert name == function and callable(getattr(importlib.import_module(module), function))
        assert (Path(sys.executable).with_name(name)).is_file(), f'{name} is not installed: run `make test`'


# The package that came from the notebooks

@pytest.mark.parametrize('name', MODULES)
def test_everything_public_is_documented(name):
    module = importlib.import_module(f's8fast.{name}')
    assert module.__doc__ and module.__all__
    own = [getattr(module, o) for o in module.__all__ if callable(getattr(module, o))]
    assert not [o.__name__ for o in own if not (o.__dict__.get('__doc__') if isinstance(o, type) else o.__doc__)]
    methods = [m for o in own if isinstance(o, type) and not issubclass(o, BaseException)
               for k, m in vars(o).items() if inspect.isfunction(m) and not k.startswith('_')]
    events = 'fit epoch train validate batch pred loss step cancel_batch cancel_fit'.split()
    hooks = {'forward', 'encodes', *(f'{when}_{o}' for when in ('before', 'after') for o in events)}
    assert not [m.__qualname__ for m in methods if not m.__doc__ and m.__name__ not in hooks]  # PyTorch and fastai say what those are


# tools/check_sync.py, on a small project

def write_notebook(path, *cells):
    nb = nbformat.v4.new_notebook(cells=[(nbformat.v4.new_markdown_cell if o.startswith('# ') else nbformat.v4.new_code_cell)(o) for o in cells])
    for i, cell in enumerate(nb.cells): cell['id'] = f'{path.stem}-{i}'
    nbformat.write(nb, path)


def make_notebook(root, name, *cells):
    write_notebook(root/'nbs'/f'{name}.ipynb', f'# {name[3:]}\n> A module', f'#| default_exp {name[3:]}', *(f'#| export\n{o}' for o in cells))


@pytest.fixture(autouse=True)
def forget_config():
    "nbdev remembers the first settings.ini it reads."
    from nbdev.config import get_config
    get_config.cache_clear()


@pytest.fixture(scope='module')
def template(tmp_path_factory):
    from nbdev.config import get_config
    get_config.cache_clear()
    root = tmp_path_factory.mktemp('template')
    (root/'nbs').mkdir()
    (root/'s8fast').mkdir()
    shutil.copy(ROOT/'settings.ini', root)
    write_notebook(root/'nbs'/'index.ipynb', '# s8fast\n[source]({{git_url}})', '1 + 1')
    make_notebook(root, '00_low', 'def low(): return 1')
    make_notebook(root, '01_high', 'from s8fast.low import low', 'def high(): return low()')
    exported(root)
    (root/'README.md').write_text(readme(root))
    return root


@pytest.fixture
def project(template, tmp_path): return shutil.copytree(template, tmp_path/'project')


def test_a_project_in_step_has_no_problem(project):
    found, summary = problems(project)
    assert found == [] and summary.startswith('3 notebooks, 4 package files')
    assert settings(project)['git_url'] in (project/'README.md').read_text()


def export(root):
    from nbdev.config import get_config
    exported(root)
    get_config.cache_clear()

def append(path, text): path.write_text(path.read_text() + text)

def module_edited(root): append(root/'s8fast'/'low.py', 'x = 1\n'); return 's8fast/low.py differs from its notebook'
def module_without_notebook(root): (root/'s8fast'/'stray.py').write_text(''); return 's8fast/stray.py has no notebook'
def module_in_a_folder(root): (root/'s8fast'/'sub').mkdir(); (root/'s8fast'/'sub'/'stray.py').write_text(''); return 's8fast/sub/stray.py has no notebook'
def module_missing(root): (root/'s8fast'/'high.py').unlink(); return 's8fast/high.py is missing'
def notebook_edited(root): make_notebook(root, '00_low', 'def low(): return 2'); return 's8fast/low.py differs from its notebook'
def notebook_not_clean(root):
    path = root/'nbs'/'00_low.ipynb'
    nb = json.loads(path.read_text())
    nb['metadata']['toc'] = {}
    path.write_text(json.dumps(nb, indent=1))
    return 'nbs/00_low.ipynb is not clean'
def notebook_damaged(root): path = root/'nbs'/'01_high.ipynb'; path.write_text(path.read_text()[:50]); return 'nbs/01_high.ipynb is no notebook'
def no_notebook(root): shutil.rmtree(root/'nbs'); return 'no notebook found'
def import_uphill(root):
    make_notebook(root, '00_low', 'import s8fast.high', 'def low(): return 1')
    export(root)
    return 's8fast/low.py (00) imports high (01)'
def import_uphill_inside_a_function(root):
    make_notebook(root, '00_low', 'def low():\n    from s8fast import high\n    return 1')
    export(root)
    return 's8fast/low.py (00) imports high (01)'
def version_bumped(root): path = root/'settings.ini'; path.write_text(re.sub(r'(?m)^version = .*', 'version = 9.9.9', path.read_text())); return 's8fast/__init__.py differs'
def readme_edited(root): append(root/'README.md', 'by hand\n'); return 'README.md differs from nbs/index.ipynb'
def readme_missing(root): (root/'README.md').unlink(); return 'README.md differs from nbs/index.ipynb'
def index_edited(root): write_notebook(root/'nbs'/'index.ipynb', '# s8fast\nanother text', '1 + 1'); return 'README.md differs from nbs/index.ipynb'
def index_with_an_unknown_key(root):
    write_notebook(root/'nbs'/'index.ipynb', '# s8fast\n{{no_such_key}}', '1 + 1')
    return '{{no_such_key}} is no key of settings.ini'
def tutorial_of_another_owner(root):
    (root/'nbs'/'tutorials').mkdir()
    write_notebook(root/'nbs'/'tutorials'/'lesson.ipynb', '# Lesson\n[Colab](https://colab.research.google.com/github/somebody/else/blob/main/nbs/tutorials/lesson.ipynb)')
    return 'nbs/tutorials/lesson.ipynb links to another repository'
def install_line_of_another_owner(root):
    (root/'nbs'/'tutorials').mkdir()
    write_notebook(root/'nbs'/'tutorials'/'lesson.ipynb', '# Lesson', '!pip install -q git+https://example.com/somebody/else')
    return 'nbs/tutorials/lesson.ipynb links to another repository'
def temporary_folder_shown(root):
    path = root/'nbs'/'tutorials'/'lesson.ipynb'
    path.parent.mkdir()
    write_notebook(path, '# Lesson', '1')
    nb = nbformat.read(path, 4)
    nb.cells[1].outputs = [nbformat.v4.new_output('stream', text='all of it is in /tmp/tmpab12_xyz/run')]
    nbformat.write(nb, path)
    export(root)  # writes it as nbdev does
    return 'nbs/tutorials/lesson.ipynb shows /tmp/tmpab12_xyz'
def owner_named(root): cfg = settings(root); (root/'NOTES.md').write_text(f'see {cfg["user"]}/{cfg["repo"]}'); return 'NOTES.md names'

@pytest.mark.parametrize('spoil', [module_edited, module_without_notebook, module_in_a_folder, module_missing, notebook_edited, notebook_not_clean,
                                   notebook_damaged, no_notebook, import_uphill, import_uphill_inside_a_function, version_bumped, readme_edited,
                                   readme_missing, index_edited, index_with_an_unknown_key, tutorial_of_another_owner, install_line_of_another_owner, temporary_folder_shown, owner_named], ids=lambda f: f.__name__)
def test_check_sync_says_what_is_out_of_step(project, spoil):
    expect = spoil(project)
    line, = problems(project)[0]
    assert expect in line
