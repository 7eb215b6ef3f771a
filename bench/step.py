#!/usr/bin/env python3
"""One training step, side by side: a bare PyTorch loop, s8fast's Learner, stock fastai, and the plain loop of the course's notebooks.

The rows take turns, round after round, in one process; each turn begins with two steps that are not counted. A step of a Learner
or of a plain loop is the time from one batch's end to the next one's: loading, augmentation, optimiser, recorder are in it,
and in s8fast's the average of the weights. The bare loop has one batch, already there, and nothing around it. Ratios are to the bare loop at the precision that s8fast picks, channels-last.
"""
import argparse, os, tempfile, time, warnings
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

import numpy as np
import torch
import torch.nn.functional as F
from common import enough, header, pick_device, run_script, spread, table, wait
from fastai.callback.core import Callback, CancelFitException
from fastai.optimizer import Adam
from fastai.torch_core import trainable_params
from s8fast.custom_resnet import CustomResNet
from s8fast.images import load_data
from s8fast.one_cycle import fit_one_cycle
from s8fast.precision import PRECISIONS, pick_precision
from s8fast.recipe import Recipe
from s8fast.learner import deterministic, get_learner, quiet_unless_interactive

WARM_UP = 2


class Clock:
    "Seconds between ticks, without those of the warm-up."
    def __init__(self, device): self.device, self.ticks = device, []
    def tick(self): wait(self.device); self.ticks.append(time.perf_counter())
    def seconds(self): return np.diff(self.ticks)[WARM_UP:].tolist()


class Ticks(Callback):
    "Ticks at the end of each step and leaves the fit after n counted ones."
    order = 100
    def __init__(self, clock, n): self.clock, self.n = clock, n
    def after_batch(self):
        self.clock.tick()
        if len(self.clock.ticks) == self.n + WARM_UP + 1: raise CancelFitException


def bare(precision, channels_last, bs, device):
    "A model, one batch, fused AdamW."
    model = CustomResNet().to(device)
    x, y = torch.randn(bs, 3, 32, 32, device=device), torch.randint(10, (bs,), device=device)
    if channels_last: model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    opt, dtype = torch.optim.AdamW(model.parameters(), 1e-3, fused=True), PRECISIONS[precision]
    def run(n):
        clock = Clock(device)
        for _ in range(n + WARM_UP + 1):
            with torch.autocast(device.type, dtype=dtype, enabled=precision != 'fp32'): logits = model(x)
            F.cross_entropy(logits.float(), y).backward()
            opt.step(); opt.zero_grad()
            clock.tick()
        return clock.seconds()
    return run


def ours(data, fused=True, **choices):
    "s8fast's Learner as `s8fast_train` runs it; or with fastai's own Adam."
    recipe = Recipe(lr_max=1e-3, **choices)
    learn = get_learner(recipe, data)
    if not fused: learn.opt_func, learn.splitter, learn.wd = Adam, trainable_params, recipe.wd
    quiet_unless_interactive(learn)
    def run(n):
        clock = Clock(next(learn.model.parameters()).device)
        with deterministic(recipe): fit_one_cycle(learn, 24, 1e-3, cbs=Ticks(clock, n))
        return clock.seconds()
    return run


def stock(folder, bs, device):
    "fastai as its documentation shows it: images from a folder, its augmentations on the batch, its Adam, float32."
    from fastai.vision.all import CrossEntropyLossFlat, ImageDataLoaders, Learner, Normalize, accuracy, aug_transforms, cifar_stats
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.04, seed=42, bs=bs, device=device, num_workers=min(8, os.cpu_count()),
                                       batch_tfms=[*aug_transforms(), Normalize.from_stats(*cifar_stats)])
    learn = Learner(dls, CustomResNet().to(device), CrossEntropyLossFlat(), metrics=accuracy)
    quiet_unless_interactive(learn)
    def run(n):
        clock = Clock(device)
        learn.fit_one_cycle(24, 1e-3, cbs=Ticks(clock, n))
        return clock.seconds()
    return run


class Plain(torch.utils.data.Dataset):
    "Images and labels through an albumentations transform."
    def __init__(self, images, labels, transform): self.images, self.labels, self.transform = images, labels, transform
    def __len__(self): return len(self.labels)
    def __getitem__(self, i): return self.transform(image=self.images[i])['image'], int(self.labels[i])


def course(data, bs, device):
    "The plain loop: albumentations in the Dataset, torch's DataLoader, Adam and OneCycleLR, float32."
    import albumentations as A
    from albumentations.pytorch import ToTensorV2
    mean, std = data.stats
    transform = A.Compose([A.Pad(4, fill=0), A.RandomCrop(32, 32), A.HorizontalFlip(), A.Normalize(mean, std),
                           A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(8, 8), hole_width_range=(8, 8), fill=0, p=1), ToTensorV2()])
    loader = torch.utils.data.DataLoader(Plain(data.train_images, data.train_labels, transform), bs, shuffle=True, num_workers=min(8, os.cpu_count()))
    model, loss_func = CustomResNet().to(device), torch.nn.CrossEntropyLoss()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, epochs=24*100, steps_per_epoch=len(loader), pct_start=5/24)
    def run(n):
        clock, right = Clock(device), 0
        model.train()
        while True:
            for x, y in loader:
                x, y = x.to(device), y.to(device)
                opt.zero_grad()
                logits = model(x)
                loss = loss_func(logits, y)
                loss.backward()
                opt.step(); schedule.step()
                right += (logits.argmax(1) == y).sum().item()
                clock.tick()
                if len(clock.ticks) == n + WARM_UP + 1: return clock.seconds()
    return run


def image_folder(data, n, root):
    "The first n training images of `data` as PNG files in a folder for each class."
    from PIL import Image
    for name in data.vocab: (root/name).mkdir()
    for i in range(min(n, len(data.train_labels))): Image.fromarray(data.train_images[i]).save(root/data.vocab[data.train_labels[i]]/f'{i}.png')
    return root


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--steps', type=int, default=4, help='counted steps in a turn')
    parser.add_argument('--rounds', type=int, default=3, help='turns of each row')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--compile', action='store_true', help='a row with torch.compile, too')
    parser.add_argument('--rows', nargs='+', default=[''], help='only rows whose names hold one of these texts, and the first')
    args = parser.parse_args()
    device, data = pick_device(args.device), enough(load_data(args.data), 12*args.bs)
    best = pick_precision('auto', device)
    common = dict(bs=args.bs, device=args.device)
    with tempfile.TemporaryDirectory() as tmp:
        base = f'bare loop, {best}, channels-last'
        makers = {base: lambda: bare(best, True, args.bs, device)}
        for precision in dict.fromkeys((best, 'fp32')):
            for channels_last in (True, False):
                makers.setdefault(f'bare loop, {precision}, {"channels-last" if channels_last else "contiguous"}',
                                  lambda p=precision, c=channels_last: bare(p, c, args.bs, device))
        makers['s8fast, batch pipeline'] = lambda: ours(data, pipeline='batch', **common)
        makers['s8fast, batch pipeline, --deterministic'] = lambda: ours(data, pipeline='batch', deterministic=True, **common)
        if device.type == 'cpu' and best == 'fp32': makers['s8fast, batch pipeline, --winograd 0'] = lambda: ours(data, pipeline='batch', winograd=False, **common)
        makers["s8fast, batch pipeline, fastai's Adam"] = lambda: ours(data, fused=False, pipeline='batch', **common)
        if args.compile: makers['s8fast, batch pipeline, compiled'] = lambda: ours(data, pipeline='batch', compile=True, **common)
        makers['s8fast, item pipeline'] = lambda: ours(data, pipeline='item', **common)
        makers['stock fastai'] = lambda: stock(image_folder(data, (args.steps + 8)*args.bs, Path(tmp)), args.bs, device)
        makers['plain course loop'] = lambda: course(data, args.bs, device)
        rows = {k: make() for k, make in makers.items() if k == base or any(o in k for o in args.rows)}
        found = {k: [] for k in rows}
        for _ in range(args.rounds):
            for k, run in rows.items(): found[k] += run(args.steps)
    print(f'{data.name} ({data.edition}), batch {args.bs}; {header(device)}')
    ref = spread(found[base])[1]
    print(table(('milliseconds a step', 'n', 'median', 'min', 'max', 'images/s', 'to bare'),
                [(k, n, *(f'{1e3*o:,.0f}' if ref > .1 else f'{1e3*o:.2f}' for o in (m, low, high)), f'{args.bs/m:,.0f}', f'{m/ref:.2f}')
                 for k, v in found.items() for n, m, low, high in [spread(v)]]))


if __name__ == '__main__': run_script(main)
