#!/usr/bin/env python3
"A figure of what `study.py` found: validation accuracy of each choice, for the last weights and for their averages."
import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from common import numbers, read_study, run_script
from s8fast.errors import S8FastError
from s8fast.figures import save_figure


def is_number(text): return text.replace('.', '').isdigit()


def figures_of(trial, averages):
    "Accuracy in percent by the horizon of the average; 0 stands for the last weights."
    found = {trial['recipe']['average']: trial['accuracy']}
    found.update({float(name): figures['accuracy'] for name, figures in trial['averages'].items() if is_number(name)})
    return {horizon: 100*accuracy for horizon, accuracy in found.items() if horizon in averages}


def name_rows(rows):
    "What all rows have in common, and a name for each row without that."
    changes = [row.split(',') for row in rows]
    common = [change for change in changes[0] if len(rows) > 1 and all(change in other for other in changes)]
    own = [[change for change in row if change not in common] for row in changes]
    return common, [', '.join(row) or 'no other change' for row in own]


def label_of(average):
    if not average: return 'last weights'
    return f'EMA, {average:g} epoch{"s" if average > 1 else ""}'


def draw_row(ax, i, found, averages, with_label):
    "A point a seed for each average, and their mean as a bar; `found` has `figures_of` each trial of the row."
    for j, average in enumerate(averages):
        values = [figures[average] for figures in found if average in figures]
        if not values: continue
        y = i + .3*(j - (len(averages) - 1)/2)/max(1, len(averages) - 1)
        several = len(values) > 1
        ax.plot(values, [y]*len(values), 'o', color=f'C{j}', ms=5, alpha=.6 if several else 1,
                label=label_of(average) if with_label else None)
        if several: ax.plot([sum(values)/len(values)]*2, [y - .1, y + .1], color=f'C{j}', lw=2)


def draw(trials, averages):
    "One line a choice, in the order of the file. What all choices share stands below. Returns the figure."
    rows = list(dict.fromkeys(trial['row'] for trial in trials))
    common, names = name_rows(rows)
    fig, ax = plt.subplots(figsize=(8, 1 + .45*len(rows)), layout='constrained')
    for i, row in enumerate(rows):
        found = [figures_of(trial, averages) for trial in trials if trial['row'] == row]
        draw_row(ax, i, found, averages, i == 0)
    shared = f'; all rows: {", ".join(common)}' if common else ''
    ax.set(yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - .5, -.5),
           xlabel=f'validation accuracy, last epoch (%){shared}')
    ax.grid(alpha=.3)
    fig.legend(loc='outside upper right', ncols=len(averages), frameon=False)
    return fig


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('files', nargs='+', type=Path, help='what study.py wrote with --out')
    parser.add_argument('--averages', type=numbers, default=[0., 1.],
                        help='which to draw, as horizons in epochs, such as 0,1; 0: the last weights')
    parser.add_argument('--out', default='study.png', help='PNG file')
    args = parser.parse_args()
    trials = [trial for path in args.files for trial in read_study(path)]
    if not trials: raise S8FastError(f'{args.files[0]} has no trials yet: give a file of a study that has run.')
    save_figure(draw(trials, args.averages), args.out)


if __name__ == '__main__': run_script(main)
