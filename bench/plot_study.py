#!/usr/bin/env python3
"""A picture of what `study.py` found: validation accuracy of each choice, the last weights and averages of them side by side."""
import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from common import numbers, read_study, run_script
from s8fast.run_folder import save_figure


def figures_of(trial, averages):
    "Accuracy by average, 0 for the last weights, in percent."
    own = trial['recipe']['average']
    found = {own: trial['accuracy'], **{float(k): o['accuracy'] for k, o in trial['averages'].items() if k.replace('.', '').isdigit()}}
    return {k: 100*v for k, v in found.items() if k in averages}


def draw(trials, averages):
    "One line a choice, in the order of the file, what all choices share below; a point a seed, its mean as a bar; returns the figure."
    rows = list(dict.fromkeys(o['row'] for o in trials))
    common = [o for o in rows[0].split(',') if len(rows) > 1 and all(o in row.split(',') for row in rows)]
    names = [', '.join(o for o in row.split(',') if o not in common) or 'no other change' for row in rows]
    fig, ax = plt.subplots(figsize=(8, 1 + .45*len(rows)), layout='constrained')
    for i, row in enumerate(rows):
        mine = [figures_of(o, averages) for o in trials if o['row'] == row]
        for j, average in enumerate(averages):
            of, y = [o[average] for o in mine if average in o], i + .3*(j - (len(averages) - 1)/2)/max(1, len(averages) - 1)
            if not of: continue
            label = ('last weights' if not average else f'average of {average:g} epoch{"s" if average > 1 else ""}') if i == 0 else None
            ax.plot(of, [y]*len(of), 'o', color=f'C{j}', ms=5, alpha=.6 if len(of) > 1 else 1, label=label)
            if len(of) > 1: ax.plot([sum(of)/len(of)]*2, [y - .1, y + .1], color=f'C{j}', lw=2)
    ax.set(yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - .5, -.5), xlabel='validation accuracy, last epoch (%)' + (f'; all rows: {", ".join(common)}' if common else ''))
    ax.grid(alpha=.3)
    fig.legend(loc='outside upper right', ncols=len(averages), frameon=False)
    return fig


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('files', nargs='+', type=Path, help='what study.py wrote with --out')
    parser.add_argument('--averages', type=numbers, default=[0., 1.], help='which to draw, in epochs, such as 0,1; 0: the last weights')
    parser.add_argument('--out', default='study.png', help='PNG file')
    args = parser.parse_args()
    save_figure(draw([o for path in args.files for o in read_study(path)], args.averages), args.out)


if __name__ == '__main__': run_script(main)
