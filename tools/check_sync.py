#!/usr/bin/env python3
"Check that notebooks, package and README agree, that modules import downhill, and that the owner stands in one place."
import ast, filecmp, json, os, re, shutil, sys, tempfile, warnings
from pathlib import Path

from make_readme import ROOT, readme, settings, tutorials


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


def siblings(source, lib):
    "Names of the modules of package `lib` that `source` imports, anywhere in it."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(filter(None, [lib if node.level else '', node.module]))
            names = [f'{base}.{a.name}' for a in node.names]
        else: continue
        yield from {n.split('.')[1] for n in names if n.startswith(f'{lib}.')}


def uphill(package, lib):
    "One line for each import of a module whose notebook has the same or a higher number."
    number = {}
    for path in package.glob('*.py'):
        m = re.search(r'File to edit: \S*?(\d+)_[^/\s]*\.ipynb', path.read_text(encoding='utf-8'))
        if m: number[path.stem] = int(m[1])
    for name in sorted(number):
        for other in siblings((package/f'{name}.py').read_text(encoding='utf-8'), lib):
            if number.get(other, -1) >= number[name]:
                yield f'{lib}/{name}.py ({number[name]:02}) imports {other} ({number[other]:02}): import lower numbers only'


def sources(root):
    "The text files that people write: the top level and the folders that are no output of anything."
    folders = 'nbs tests tools bench .github .ci'.split()
    files = [*root.iterdir(), *(p for d in folders for p in (root/d).rglob('*'))]
    skip = {root/'settings.ini', root/'README.md'}  # the one place, and what is generated from it
    return [p for p in files if p.is_file() and p not in skip and '__pycache__' not in p.parts]


def problems(root=ROOT):
    "One line for each disagreement, and what was looked at."
    cfg, found = settings(root), []
    lib, package = cfg['lib_name'], root/cfg['lib_path']
    nbs = sorted(p for p in (root/cfg['nbs_path']).rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    if not nbs: return ['no notebook found under nbs/'], ''
    for nb in nbs:
        try: json.loads(nb.read_text(encoding='utf-8'))
        except ValueError as e: return [f'{nb.relative_to(root)} is no notebook: {e}'], ''
        if m := re.search(r'/tmp/tmp\w{8}', nb.read_text(encoding='utf-8')): found.append(f'{nb.relative_to(root)} shows {m[0]}, a folder that is gone: write it otherwise in its outputs')

    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp)
        shutil.copytree(root/cfg['nbs_path'], copy/cfg['nbs_path'])
        shutil.copy(root/'settings.ini', copy)
        (copy/cfg['lib_path']).mkdir()
        init = package/'__init__.py'
        if init.exists(): shutil.copy(init, copy/cfg['lib_path'])  # of this file nbdev writes the version only
        try: exported(copy)
        except Exception as e: return [f'export or clean failed: {type(e).__name__}: {e.__context__ or e}'], ''
        fresh = {p.relative_to(copy) for p in (copy/cfg['lib_path']).rglob('*.py')}
        there = {p.relative_to(root) for p in package.rglob('*.py')}
        found += [f'{p} has no notebook: delete it' for p in sorted(there - fresh)]
        found += [f'{p} is missing: run `make export`' for p in sorted(fresh - there)]
        found += [f'{p} differs from its notebook: run `make export`' for p in sorted(fresh & there)
                  if not filecmp.cmp(root/p, copy/p, shallow=False)]
        found += [f'{p.relative_to(root)} is not clean: run `nbdev_clean`' for p in nbs
                  if not filecmp.cmp(p, copy/p.relative_to(root), shallow=False)]
        found += uphill(copy/cfg['lib_path'], lib)
        modules = len(fresh)

    try:
        path = root/'README.md'
        if not path.exists() or path.read_text(encoding='utf-8') != readme(root):
            found.append('README.md differs from nbs/index.ipynb: run `make readme`')
    except (OSError, ValueError) as e: found.append(str(e))

    links = list(tutorials(root))
    found += [f'{p.relative_to(root)} links to another repository than settings.ini names: run `make export`' for p, old, new in links if old != new]

    owner = f"{cfg['user']}/{cfg['repo']}", f"{cfg['user']}.github.io"
    files = [p for p in sources(root) if p not in {o for o, *_ in links}]  # `make export` writes it there
    found += [f'{p.relative_to(root)} names {o}: take it from settings.ini' for p in files for o in owner
              if o in p.read_text(encoding='utf-8', errors='ignore')]
    return found, f'{len(nbs)} notebooks, {modules} package files, README.md and {len(files)} other files agree'


if __name__ == '__main__':
    found, summary = problems()
    if found: sys.exit('\n'.join(found))
    print(summary)
