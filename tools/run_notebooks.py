#!/usr/bin/env python3
"Run every notebook under nbs/ and say how many; `nbdev_test` alone prints no count and passes when there are none."
import sys

from nbdev.doclinks import nbglob
from nbdev.test import nbdev_test

n = len(nbglob())
if not n: sys.exit('no notebook found under nbs/')
nbdev_test.__wrapped__(n_workers=2, timing=True)
print(f'{n} notebooks ran without a failure')
