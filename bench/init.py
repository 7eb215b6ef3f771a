#!/usr/bin/env python3
"""What it brings to begin with weights that are trained already, on a hundred images of other classes.

Ten handwritten digits of each class are trained on, and all 359 test digits are tested on. The arms have the same
seeds: new weights; those of `pretrained:custom_resnet`, which come from CIFAR-10; and the same with the last layer
alone for the first four epochs. The table says what each gains over the first, paired by seed.

    python bench/init.py --seeds 0-4 --out runs/init
"""
import argparse
from dataclasses import replace

import numpy as np

from s8fast.data.dataset import digits
from s8fast.data.images import channel_stats
from s8fast.recipe import Recipe
from s8fast.runs.seeds import parse_seeds
from s8fast.runs.study import run_study

EACH = 10  # images of a class


def few_digits():
    "The first images of each class."
    whole = digits()
    chosen = np.concatenate([np.flatnonzero(whole.train_labels == label)[:EACH] for label in range(10)])
    images = whole.train_images[chosen]
    return replace(whole, name='100 digits', train_images=images, train_labels=whole.train_labels[chosen],
                   stats=channel_stats(images))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', default='0-4')
    parser.add_argument('--out', default='runs/init')
    args = parser.parse_args()
    base = Recipe(bs=16, valid_pct=0., device='cpu')
    began = replace(base, init='pretrained:custom_resnet')
    arms = dict(base=base, init=began, frozen=replace(began, freeze_epochs=4))
    run_study(arms, parse_seeds(args.seeds), few_digits(), args.out, test=True)


if __name__ == '__main__': main()
