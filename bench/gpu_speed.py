"""The speed phase of `gpu.py`: rates of the device, and a training step with its parts.

The rows are those of `step.py`. Each is made, runs a few steps that are not counted, compiling among them, and then
blocks of steps, which events in the device's queue time: nothing waits within a block.
"""
import statistics, tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import step
import torch
from common import best_time, enough, matmul_rate
from gpu_units import Unit
from s8fast.training.device import pick_precision


class Size(NamedTuple):
    "How much is measured."
    bs: int = 512       # images a batch
    steps: int = 30     # of a block
    blocks: int = 5
    matrix: int = 8192  # rows and columns
    copied: int = 1 << 30  # bytes


SMALL = Size(bs=2, steps=1, blocks=1, matrix=64, copied=1 << 20)


# Rates

def matrix_rate(kit, precision, size):
    return dict(precision=precision, flop_a_second=matmul_rate(kit.device, precision, size.matrix, 20))


def copy_rate(kit, size):
    "Bytes that are read and written a second when a block of memory is copied on the device."
    source = torch.zeros(size.copied, dtype=torch.uint8, device=kit.device)
    target = torch.empty_like(source)
    return dict(bytes_a_second=2*size.copied/best_time(lambda: target.copy_(source), kit.device, 20))


def line_of_matrix(figures): return f'{figures["flop_a_second"]/1e12:,.1f} TFLOP/s'
def line_of_copy(figures): return f'{figures["bytes_a_second"]/1e9:,.0f} GB/s'


# A step

def rows(kit, size, folder):
    "What makes each row, by its name; see `step.py`."
    data = enough(kit.data, 12*size.bs)
    precision = pick_precision('auto', kit.device)
    bare = partial(step.bare, channels_last=True, bs=size.bs, device=kit.device)
    ours = partial(step.ours, data, bs=size.bs, device=str(kit.device), valid_pct=0., drop_last=True)
    n_images = max(50, round(1.1*(size.steps + step.WARM_UP + 2)*size.bs))  # some of them are held out
    found = {f'bare loop, {precision}': partial(bare, precision),
             f'bare loop, {precision}, compiled': partial(bare, precision, compiled=True),
             f's8fast, {precision}': ours,
             f's8fast, {precision}, compiled': partial(ours, compile=True),
             'bare loop, fp32': partial(bare, 'fp32'),
             'stock fastai, fp32': lambda: step.stock(step.image_folder(data, n_images, folder), size.bs, kit.device),
             'course loop, fp32': partial(step.course, data, size.bs, kit.device)}
    return found


def compiling(kit):
    "In a rehearsal nothing is compiled: it would take longer than all the rest."
    return torch.compiler.set_stance('force_eager') if kit.rehearse else nullcontext()


def measure_row(kit, size, name):
    "Milliseconds a step in each block, and of the parts of a step."
    with tempfile.TemporaryDirectory(dir=kit.folder) as folder, compiling(kit):
        run = rows(kit, size, Path(folder))[name]()
        if not kit.rehearse: run(step.WARM_UP)
        clocks = [run(size.steps) for _ in range(size.blocks)]
    blocks = [1e3*statistics.mean(clock.seconds()) for clock in clocks]
    parts = [clock.parts() for clock in clocks]
    means = {part: 1e3*statistics.median(one[part] for one in parts) for part in parts[0]}
    median = statistics.median(blocks)
    return dict(row=name, bs=size.bs, steps=size.steps, blocks=blocks, median=median, parts=means,
                images_a_second=1e3*size.bs/median)


def line_of_row(figures):
    parts = ', '.join(f'{part} {value:.2f}' for part, value in figures['parts'].items())
    return f'{figures["median"]:.2f} ms a step ({parts}), {figures["images_a_second"]:,.0f} images/s'


def speed(kit, file):
    "The units of this phase."
    size = SMALL if kit.rehearse else Size()
    for precision in ('bf16', 'fp16'):
        product = partial(matrix_rate, kit, precision, size)
        yield Unit(f'matrix product, {precision}', 'rate', 20, product, line_of_matrix)
    yield Unit('copy', 'rate', 20, partial(copy_rate, kit, size), line_of_copy)
    for name in rows(kit, size, kit.folder):
        kind = 'compiled' if 'compiled' in name else 'row'
        seconds = 120 if kind == 'compiled' else 60
        yield Unit(name, kind, seconds, partial(measure_row, kit, size, name), line_of_row)
