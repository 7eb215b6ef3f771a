#!/usr/bin/env python3
"""Check that notebooks, package, README and settings agree, and that the house rules are kept.

Prints one line a problem, which says what to do about it, and exits with status 1 when there is one.
"""
import ast, filecmp, json, os, re, shutil, sys, tempfile, warnings
from pathlib import Path

from make_readme import ROOT, readme, settings, tutorials

try: import tomllib
except ModuleNotFoundError: import tomli as tomllib  # Python 3.10

LINE_LENGTH = 120
CELL_LINES = 45
MODULE_LINES = 250
WRITTEN_BY_HAND = '.py', '.c', '.jinja'
#: The keys of settings.ini that nbdev 3 reads too, from the table [tool.nbdev] of pyproject.toml.
NBDEV_KEYS = ('lib_path nbs_path doc_path recursive tst_flags readme_nb branch put_version_in_init clean_ids clear_all '
              'jupyter_hooks custom_sidebar allowed_metadata_keys allowed_cell_metadata_keys update_pyproject').split()


# Notebooks

def notebooks(root, cfg):
    "The notebooks under nbs/, in the order of their names."
    paths = (root/cfg['nbs_path']).rglob('*.ipynb')
    return sorted(path for path in paths if '.ipynb_checkpoints' not in path.parts)


def unreadable(root, paths):
    "One line where there is no notebook, or one that cannot be read."
    if not paths: return ['no notebook found under nbs/: is this the whole checkout?']
    for path in paths:
        try: json.loads(path.read_text(encoding='utf-8'))
        except ValueError as e: return [f'{path.relative_to(root)} is no notebook ({e}): take it from git again']
    return []


def code_cells(path):
    "The source of each code cell of a notebook."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']


def directive(source, name):
    "Whether a cell carries nbdev's directive `name`; its value where it has one."
    found = re.search(rf'^#\s*\|\s*{name}\b[ \t]*(\S*)', source, re.M)
    return found and (found[1] or True)


def is_exported(source): return directive(source, 'export[is]?')


def cell_length(source):
    "Lines of a cell without its directives and the blank lines around it."
    return len(re.sub(r'^#\s*\|.*\n?', '', source, flags=re.M).strip().splitlines())


def check_cells(path):
    "One line for each exported cell that is too long."
    for source in code_cells(path):
        length = cell_length(source)
        if is_exported(source) and length > CELL_LINES:
            start = next(line for line in source.splitlines() if line.strip() and not re.match(r'#\s*\|', line))
            yield f'has an exported cell of {length} lines, {start[:50]!r}: split it ({CELL_LINES} at most)'


def check_name(path):
    "One line where a notebook's name and the module that it exports to differ."
    for source in code_cells(path):
        module = directive(source, 'default_exp')
        if module and module != re.sub(r'^\d+_', '', path.stem):
            yield f'exports to {module}: name it after that module, NN_{module}.ipynb'


def check_guide(path):
    "One line where a notebook for readers exports something."
    if any(is_exported(source) or directive(source, 'default_exp') for source in code_cells(path)):
        yield 'exports something: take default_exp and export out, or move it into the row of modules'


def check_outputs(path):
    "One line where a notebook shows a temporary folder."
    if found := re.search(r'/tmp/tmp\w{8}', path.read_text(encoding='utf-8')):
        yield f'shows {found[0]}, a folder that is gone: write it otherwise in its outputs'


def check_notebooks(root, cfg, paths):
    "One line for each rule that a notebook breaks."
    for path in paths:
        name = path.relative_to(root)
        for_readers = path.parent.name in ('guide', 'tutorials')
        checks = [check_outputs, check_guide] if for_readers else [check_outputs, check_name, check_cells]
        for check in checks:
            yield from (f'{name} {problem}' for problem in check(path))


# The package, as the notebooks export it

def exported(copy):
    "Export and clean the notebooks of the project `copy`, in place."
    here = os.getcwd()
    os.chdir(copy)  # nbdev finds settings.ini from here
    try:
        os.environ.pop('IN_TEST', None)  # it makes nbdev_export do nothing
        from nbdev.clean import nbdev_clean
        from nbdev.doclinks import nbdev_export
        nbdev_export.__wrapped__()
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)  # nbdev_clean only warns when it fails
            nbdev_clean.__wrapped__()
    finally: os.chdir(here)


def export_copy(root, cfg, copy):
    "Copy what nbdev needs of the project to the folder `copy`, and export there."
    shutil.copytree(root/cfg['nbs_path'], copy/cfg['nbs_path'])
    shutil.copy(root/'settings.ini', copy)
    (copy/cfg['lib_path']).mkdir()
    init = root/cfg['lib_path']/'__init__.py'
    if init.exists(): shutil.copy(init, copy/cfg['lib_path'])  # nbdev writes only the version into it
    exported(copy)


def python_files(root, cfg):
    "Paths of the package's modules, relative to `root`."
    return {path.relative_to(root) for path in (root/cfg['lib_path']).rglob('*.py')}


def check_export(root, cfg, copy, paths):
    "One line for each file that differs from what the notebooks give, which is in `copy`."
    fresh = python_files(copy, cfg)
    there = python_files(root, cfg)
    def same(path): return filecmp.cmp(root/path, copy/path, shallow=False)
    yield from (f'{path} has no notebook: delete it' for path in sorted(there - fresh))
    yield from (f'{path} is missing: run `make export`' for path in sorted(fresh - there))
    yield from (f'{path} differs from its notebook: run `make export`'
                for path in sorted(fresh & there) if not same(path))
    notebooks = [path.relative_to(root) for path in paths]
    yield from (f'{path} is not clean: run `nbdev_clean`' for path in notebooks if not same(path))


def notebook_numbers(root, cfg):
    "Module name, such as `s8fast.data.loaders`, to the number of its notebook."
    numbers = {}
    for path in python_files(root, cfg):
        text = (root/path).read_text(encoding='utf-8')
        if found := re.search(r'File to edit: \S*?(\d+)_[^/\s]*\.ipynb', text):
            numbers['.'.join(path.with_suffix('').parts)] = int(found[1])
    return numbers


def imported(source, module):
    "Dotted names that the source of `module` imports, anywhere in it: of modules, and of what is taken from them."
    package = module.split('.')[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[:len(package) + 1 - node.level] if node.level else []
            base = '.'.join([*parents, *filter(None, [node.module])])
            yield base
            yield from (f'{base}.{alias.name}' for alias in node.names)


def uphill(root, cfg):
    "One line for each import of a module whose notebook has the same or a higher number."
    numbers = notebook_numbers(root, cfg)
    lib = cfg['lib_path']
    for module in sorted(numbers):
        path = module.replace('.', '/') + '.py'
        number = numbers[module]
        names = imported((root/path).read_text(encoding='utf-8'), module)
        for other in dict.fromkeys(name for name in names if numbers.get(name, -1) >= number):
            short = other.removeprefix(f'{lib}.')
            yield f'{path} ({number:02}) imports {short} ({numbers[other]:02}): import lower numbers only'


def check_package(root, cfg, paths):
    "What is out of step with a fresh export, and the number of modules that it gives."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        try: export_copy(root, cfg, copy)
        except Exception as e:
            return [f'export or clean failed: {type(e).__name__}: {e.__context__ or e}: mend that notebook'], 0
        found = [*check_export(root, cfg, copy, paths), *uphill(copy, cfg)]
        return found, len(python_files(copy, cfg))


# House rules

def long_lines(root, cfg):
    "One line for each line of code that is too long, except in what nbdev writes itself."
    folders = [cfg['lib_path'], 'tests', 'bench', 'tools']
    files = [*root.glob('*.py'), *(path for folder in folders for path in (root/folder).rglob('*'))]
    for path in sorted(files):
        if path.suffix not in WRITTEN_BY_HAND or path.name == '_modidx.py': continue
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            if len(line) > LINE_LENGTH and not line.startswith('__all__ = '):
                yield f'{path.relative_to(root)}:{number} has {len(line)} characters: break it ({LINE_LENGTH} at most)'


def large_modules(root, cfg):
    "One line for each module that is too long."
    for path in sorted(python_files(root, cfg)):
        length = len((root/path).read_text(encoding='utf-8').splitlines())
        if path.name != '_modidx.py' and length > MODULE_LINES:
            yield f'{path} has {length} lines: make two modules of it ({MODULE_LINES} at most)'


# README, settings, owner

def check_readme(root):
    "One line where README.md is not what nbs/index.ipynb gives."
    path = root/'README.md'
    try: same = path.exists() and path.read_text(encoding='utf-8') == readme(root)
    except (OSError, ValueError) as e: return [str(e)]
    return [] if same else ['README.md differs from nbs/index.ipynb: run `make readme`']


def as_settings_say(value):
    "A value of pyproject.toml as settings.ini would spell it."
    return ' '.join(value) if isinstance(value, list) else str(value)


def check_pyproject(root, cfg):
    "One line for each setting that nbdev 3 would read otherwise than nbdev 2 does."
    path = root/'pyproject.toml'
    if not path.exists(): return
    content = tomllib.loads(path.read_text(encoding='utf-8'))
    if 'project' in content:
        yield 'pyproject.toml has a table [project]: take it out, setup.py gives its values from settings.ini'
    table = content.get('tool', {}).get('nbdev', {})
    for key in NBDEV_KEYS:
        if key not in cfg: continue
        if key not in table:
            yield f'pyproject.toml: [tool.nbdev] lacks {key}: add it with {cfg[key]!r}, as in settings.ini'
        elif as_settings_say(table[key]) != cfg[key]:
            yield f'pyproject.toml: [tool.nbdev] has {key} = {table[key]!r}: make it {cfg[key]!r}, as in settings.ini'


def sources(root, cfg):
    "The text files that people write: the top level, and the folders that are no output of anything."
    folders = 'nbs tests tools bench .github .ci'.split()
    files = [*root.iterdir(), *(path for folder in folders for path in (root/folder).rglob('*'))]
    files += [path for path in (root/cfg['lib_path']).rglob('*') if path.suffix in ('.c', '.jinja')]
    skip = {root/'settings.ini', root/'README.md'}  # the one place, and what is generated from it
    return [path for path in files if path.is_file() and path not in skip and '__pycache__' not in path.parts]


def check_links(root, links):
    "One line for each tutorial whose links name another repository than settings.ini does."
    return [f'{path.relative_to(root)} links to another repository than settings.ini names: run `make export`'
            for path, text, wanted in links if text != wanted]


def check_owner(root, cfg, files):
    "One line for each file that names the project's owner."
    owners = f'{cfg["user"]}/{cfg["repo"]}', f'{cfg["user"]}.github.io'
    for path in files:
        text = path.read_text(encoding='utf-8', errors='ignore')
        yield from (f'{path.relative_to(root)} names {owner}: take it from settings.ini'
                    for owner in owners if owner in text)


def problems(root=ROOT):
    "One line for each problem, and what was looked at."
    cfg = settings(root)
    paths = notebooks(root, cfg)
    if found := unreadable(root, paths): return found, ''
    package, modules = check_package(root, cfg, paths)
    links = list(tutorials(root))
    written = {path for path, *_ in links}  # `make export` writes the owner there
    files = [path for path in sources(root, cfg) if path not in written]
    found = [*check_notebooks(root, cfg, paths), *package, *long_lines(root, cfg), *large_modules(root, cfg),
             *check_readme(root), *check_pyproject(root, cfg), *check_links(root, links),
             *check_owner(root, cfg, files)]
    return found, f'{len(paths)} notebooks, {modules} package files, README.md and {len(files)} other files agree'


if __name__ == '__main__':
    found, summary = problems()
    if found: sys.exit('\n'.join(found))
    print(summary)
