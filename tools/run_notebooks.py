#!/usr/bin/env python3
"""Run every notebook under nbs/, those of the guide and the tutorials too, and say how many ran.

`nbdev_test` alone prints no count, and passes when it finds no notebook.
"""
import sys
from collections import Counter
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import nbdev_test

FOR_READERS = 'guide', 'tutorials'


def count():
    "Notebooks by the folder they lie in: `nbs` itself, `guide`, `tutorials`."
    return Counter(Path(path).parent.name for path in nbglob())


def main():
    root = get_config().nbs_path
    found = count()
    if not found: sys.exit('no notebook found under nbs/')
    for folder in FOR_READERS:
        if (root/folder).is_dir() and not found[folder]: sys.exit(f'nbs/{folder} has no notebook: fill it or delete it')
    nbdev_test.__wrapped__(n_workers=2, timing=True)  # exits with status 1 when one fails
    rest = ', '.join(f'{found[folder]} of them under {folder}/' for folder in FOR_READERS if found[folder])
    print(f'{found.total()} notebooks ran without a failure' + (f', {rest}' if rest else ''))


if __name__ == '__main__': main()
