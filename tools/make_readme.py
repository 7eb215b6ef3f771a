#!/usr/bin/env python3
"""Write README.md from nbs/index.ipynb, and the repository's address into the tutorials' Colab links.

In the markdown cells of index.ipynb `{{git_url}}`, or any other key of settings.ini, stands for its value.
Links there are relative to nbs/.
"""
import argparse, re, sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = '<!-- Generated from nbs/index.ipynb by `make readme`. Edit the notebook, not this file. -->\n\n'


def settings(root=ROOT):
    "settings.ini as a mapping."
    parser = ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']


def fill(text, cfg):
    "`text` with `{{key}}` replaced by the value of `key`; a key that settings.ini lacks is a `ValueError`."
    def value(match):
        if match[1] not in cfg: raise ValueError(f'nbs/index.ipynb: {match[0]} is no key of settings.ini')
        return cfg[match[1]]
    return re.sub(r'\{\{(\w+)\}\}', value, text)


def root_links(text):
    "Links relative to nbs/ as links relative to the repository's root."
    text = re.sub(r'(\]\(|\b(?:src|href)=")\.\./', r'\1', text)
    return re.sub(r'\]\((?![\w+]+:|[/#])([^)\s]+\.ipynb)', r'](nbs/\1', text)


def site_links(text, cfg):
    "Links that leave nbs/ as links to the repository's pages: pictures raw, the rest to read."
    raw, blob = (f"{cfg['git_url']}/{kind}/{cfg['branch']}/" for kind in ('raw', 'blob'))
    text = re.sub(r'(!\[[^\]]*\]\(|\bsrc=")\.\./', rf'\g<1>{raw}', text)
    return re.sub(r'(\]\(|\bhref=")\.\./', rf'\g<1>{blob}', text)


def colab_links(text, cfg):
    "A tutorial's text with this repository's address in its Colab badge and its install line."
    here = f"{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}"
    text = re.sub(r'(colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+/blob/[^/\s]+', rf'\g<1>{here}', text)
    return re.sub(r'git\+https://[^\s"\\]+', f"git+{cfg['git_url']}", text)


def tutorials(root=ROOT):
    "Each tutorial's path, its text, and the text that it should have."
    for path in sorted((root/'nbs'/'tutorials').glob('*.ipynb')):
        text = path.read_text(encoding='utf-8')
        yield path, text, colab_links(text, settings(root))


def readme(root=ROOT):
    "The text that README.md should have."
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(root/'nbs'/'index.ipynb', as_version=4)
    cfg = settings(root)
    nb.cells = [cell for cell in nb.cells if not re.search(r'^#\s*\|\s*hide\s*$', cell.source, re.M)]
    for cell in nb.cells:
        if cell.cell_type == 'markdown': cell.source = root_links(fill(cell.source, cfg))
        else: cell.source = re.sub(r'^#\s*\|.*\n?', '', cell.source, flags=re.M)
    nb.metadata['language_info'] = {'name': 'python'}  # for the code fences; nbdev_clean takes it away
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources['outputs']:
        raise ValueError('nbs/index.ipynb: a cell outputs a picture; save it under results/ and link to it')
    return HEAD + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def fill_for_site(root=ROOT):
    "Fill placeholders and links in nbs/index.ipynb itself, in the throw-away checkout from which the site is built."
    import nbformat
    path = root/'nbs'/'index.ipynb'
    cfg = settings(root)
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == 'markdown': cell.source = site_links(fill(cell.source, cfg), cfg)
    nbformat.write(nb, path)


def main():
    parser = argparse.ArgumentParser(description='Write README.md from nbs/index.ipynb.')
    parser.add_argument('--site', action='store_true', help='fill the notebook itself, before the site is built')
    args = parser.parse_args()
    if args.site: return fill_for_site()
    for path, old, new in tutorials():
        if old != new: path.write_text(new, encoding='utf-8')
    (ROOT/'README.md').write_text(readme(), encoding='utf-8')


if __name__ == '__main__':
    try: main()
    except (OSError, ValueError) as e: sys.exit(str(e))
