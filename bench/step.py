#!/usr/bin/env python3
"""One training step, side by side: a bare PyTorch loop, s8fast's Learner, stock fastai, and a course's plain loop.

The rows take turns, round after round, in one process. Each turn begins with two steps that are not counted.
A step of a Learner or of the plain loop is the time from the end of one batch to the end of the next. It includes
loading, augmentation, optimiser and recorder, and in s8fast the average of the weights. The bare loop has one batch,
which is already there, and nothing around it. Ratios are to the bare loop at the precision that s8fast picks,
channels-last. On a CUDA device the times are those of events in its own queue, and no step waits for them.
"""
import argparse, os, statistics, tempfile, time, warnings
from functools import partial
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
warnings.filterwarnings('ignore')

import torch
import torch.nn.functional as F
from common import enough, header, run_script, spread, table, wait
from fastai.callback.core import Callback, CancelFitException
from fastai.optimizer import Adam
from fastai.torch_core import trainable_params
from s8fast.data.dataset import load_data
from s8fast.models.custom_resnet import CustomResNet
from s8fast.recipe import Recipe
from s8fast.training.device import PRECISIONS, pick_device, pick_precision
from s8fast.training.learner import computing, get_learner, quiet_unless_interactive
from s8fast.training.one_cycle import fit_one_cycle

WARM_UP = 2
LR = 1e-3
EPOCHS = 24


class Clock:
    """Seconds of steps and of their parts, without those of the warm-up.

    On a CUDA device a moment is an event in its queue: nothing waits for it before all steps are done.
    """
    def __init__(self, device):
        self.device = device
        self.moments = []  # (the part that ended, when)
        self.ends = []  # which of them end a step

    def mark(self, part):
        "A part of the step has ended."
        self.moments.append((part, self._now()))

    def tick(self):
        "The step has ended, and with it its last part."
        self.ends.append(len(self.moments))
        self.mark('optimiser')

    def _now(self):
        if self.device.type != 'cuda':
            wait(self.device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _between(self, first, last):
        "Seconds from one of the moments to another."
        start, end = self.moments[first][1], self.moments[last][1]
        if self.device.type != 'cuda': return end - start
        end.synchronize()
        return start.elapsed_time(end)/1e3

    def has(self, n): return len(self.ends) == n + WARM_UP + 1

    def seconds(self):
        "Of each counted step."
        counted = self.ends[WARM_UP:]
        return [self._between(first, last) for first, last in zip(counted, counted[1:])]

    def parts(self):
        "Mean seconds of each part of the counted steps, by its name."
        found = {}
        for i in range(self.ends[WARM_UP] + 1, len(self.moments)):
            found.setdefault(self.moments[i][0], []).append(self._between(i - 1, i))
        return {part: statistics.mean(seconds) for part, seconds in found.items()}


class Ticks(Callback):
    "Marks the parts of each step and leaves the fit after `n` counted steps."
    order = 100
    def __init__(self, clock, n):
        self.clock = clock
        self.n = n

    def before_batch(self): self.clock.mark('data')
    def after_loss(self): self.clock.mark('forward')
    def after_backward(self): self.clock.mark('backward')

    def after_batch(self):
        self.clock.tick()
        if self.clock.has(self.n): raise CancelFitException


# Each of these makes a row: a function of n that does n counted steps and returns the clock that timed them.

def bare(precision, channels_last, bs, device, compiled=False):
    "A model, one batch, fused AdamW."
    model = CustomResNet().to(device)
    x = torch.randn(bs, 3, 32, 32, device=device)
    y = torch.randint(10, (bs,), device=device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if compiled: model.compile(dynamic=False, mode='reduce-overhead' if device.type == 'cuda' else None)
    opt = torch.optim.AdamW(model.parameters(), LR, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == 'fp16')
    dtype = PRECISIONS[precision]
    @computing(Recipe())  # the switches of PyTorch that s8fast sets
    def run(n):
        clock = Clock(device)
        while not clock.has(n):
            clock.mark('data')
            with torch.autocast(device.type, dtype=dtype, enabled=precision != 'fp32'): logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            clock.mark('forward')
            scaler.scale(loss).backward()
            clock.mark('backward')
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
            clock.tick()
        return clock
    return run


def ours(data, fused=True, winograd=True, **choices):
    "s8fast's Learner as `s8fast_train` runs it, or with fastai's own Adam."
    recipe = Recipe(lr_max=LR, **choices)
    learn = get_learner(recipe, data, winograd=winograd)
    if not fused:
        learn.opt_func = Adam
        learn.splitter = trainable_params
        learn.wd = recipe.wd
    quiet_unless_interactive(learn)
    def run(n):
        clock = Clock(next(learn.model.parameters()).device)
        with computing(recipe): fit_one_cycle(learn, EPOCHS, LR, cbs=Ticks(clock, n))
        return clock
    return run


def stock(folder, bs, device):
    "fastai as its documentation shows it: images from a folder, its augmentations on the batch, its Adam, float32."
    from fastai.vision.all import (CrossEntropyLossFlat, ImageDataLoaders, Learner, Normalize, accuracy, aug_transforms,
                                   cifar_stats)
    dls = ImageDataLoaders.from_folder(
        folder, valid_pct=.04, seed=42, bs=bs, device=device, num_workers=min(8, os.cpu_count()),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*cifar_stats)])
    learn = Learner(dls, CustomResNet().to(device), CrossEntropyLossFlat(), metrics=accuracy)
    quiet_unless_interactive(learn)
    def run(n):
        clock = Clock(device)
        learn.fit_one_cycle(EPOCHS, LR, cbs=Ticks(clock, n))
        return clock
    return run


class Plain(torch.utils.data.Dataset):
    "Images and labels through an albumentations transform."
    def __init__(self, images, labels, transform):
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self): return len(self.labels)
    def __getitem__(self, i): return self.transform(image=self.images[i])['image'], int(self.labels[i])


def plain_loader(data, bs):
    "torch's DataLoader with the course's augmentations."
    import albumentations as A
    from albumentations.pytorch import ToTensorV2
    mean, std = data.stats
    transform = A.Compose([
        A.Pad(4, fill=0), A.RandomCrop(32, 32), A.HorizontalFlip(), A.Normalize(mean, std),
        A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(8, 8), hole_width_range=(8, 8), fill=0, p=1),
        ToTensorV2()])
    images = Plain(data.train_images, data.train_labels, transform)
    return torch.utils.data.DataLoader(images, bs, shuffle=True, num_workers=min(8, os.cpu_count()))


def course(data, bs, device):
    "The plain loop: albumentations in the Dataset, torch's DataLoader, Adam and OneCycleLR, float32."
    loader = plain_loader(data, bs)
    model = CustomResNet().to(device)
    loss_func = torch.nn.CrossEntropyLoss()
    opt = torch.optim.Adam(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, LR, epochs=100*EPOCHS, steps_per_epoch=len(loader),
                                                   pct_start=5/24)
    def run(n):
        clock = Clock(device)
        right = 0
        model.train()
        while True:
            for x, y in loader:
                x, y = x.to(device), y.to(device)
                clock.mark('data')
                opt.zero_grad()
                logits = model(x)
                loss = loss_func(logits, y)
                clock.mark('forward')
                loss.backward()
                clock.mark('backward')
                opt.step()
                schedule.step()
                right += (logits.argmax(1) == y).sum().item()
                clock.tick()
                if clock.has(n): return clock
    return run


def image_folder(data, n, root):
    "The first n training images of `data` as PNG files, in a folder for each class."
    from PIL import Image
    for name in data.vocab: (root/name).mkdir()
    for i in range(min(n, len(data.train_labels))):
        name = data.vocab[data.train_labels[i]]
        Image.fromarray(data.train_images[i]).save(root/name/f'{i}.png')
    return root


def bare_name(precision, channels_last):
    return f'bare loop, {precision}, {"channels-last" if channels_last else "contiguous"}'


def makers(args, data, device, best, folder):
    "What makes each row, by the row's name; the first is the one that the ratios are to."
    found = {}
    for precision in dict.fromkeys((best, 'fp32')):
        for channels_last in (True, False):
            found[bare_name(precision, channels_last)] = partial(bare, precision, channels_last, args.bs, device)
    batch = partial(ours, data, pipeline='batch', bs=args.bs, device=args.device)
    found['s8fast, batch pipeline'] = batch
    found['s8fast, batch pipeline, --deterministic'] = partial(batch, deterministic=True)
    if device.type == 'cpu' and best == 'fp32':
        found['s8fast, batch pipeline, --winograd 0'] = partial(batch, winograd=False)
    found["s8fast, batch pipeline, fastai's Adam"] = partial(batch, fused=False)
    if args.compile: found['s8fast, batch pipeline, compiled'] = partial(batch, compile=True)
    found['s8fast, item pipeline'] = partial(ours, data, pipeline='item', bs=args.bs, device=args.device)
    found['stock fastai'] = lambda: stock(image_folder(data, (args.steps + 8)*args.bs, folder), args.bs, device)
    found['plain course loop'] = partial(course, data, args.bs, device)
    return found


def report(found, base, bs):
    "The table of the measured seconds, by row."
    reference = spread(found[base])[1]
    form = '{:,.0f}' if reference > .1 else '{:.2f}'
    rows = []
    for name, seconds in found.items():
        n, *times = spread(seconds)
        milliseconds = [form.format(1e3*t) for t in times]
        rows.append((name, n, *milliseconds, f'{bs/times[0]:,.0f}', f'{times[0]/reference:.2f}'))
    return table(('milliseconds a step', 'n', 'median', 'min', 'max', 'images/s', 'to bare'), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='digits', help='as for s8fast_train')
    parser.add_argument('--bs', type=int, default=512, help='images a batch')
    parser.add_argument('--steps', type=int, default=4, help='counted steps in a turn')
    parser.add_argument('--rounds', type=int, default=3, help='turns of each row')
    parser.add_argument('--device', default='auto', help='as for s8fast_train')
    parser.add_argument('--compile', action='store_true', help='also a row with torch.compile')
    parser.add_argument('--rows', nargs='+', default=[''],
                        help='only the rows whose names hold one of these texts, and the first')
    args = parser.parse_args()
    device = pick_device(args.device)
    data = enough(load_data(args.data), 12*args.bs)
    best = pick_precision('auto', device)
    base = bare_name(best, True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: make for name, make in makers(args, data, device, best, Path(folder)).items()
                  if name == base or any(text in name for text in args.rows)}
        rows = {name: make() for name, make in chosen.items()}
        found = {name: [] for name in rows}
        for _ in range(args.rounds):
            for name, run in rows.items(): found[name] += run(args.steps).seconds()
    print(f'{data.name} ({data.edition}), batch {args.bs}; {header(device)}')
    print(report(found, base, args.bs))


if __name__ == '__main__': run_script(main)
