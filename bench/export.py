#!/usr/bin/env python3
"""A trained network on this CPU: PyTorch, ONNX in float32 and in int8, side by side in one process.

Milliseconds an image one at a time, and images per second 256 at a time, three turns each; medians.
PyTorch is measured twice: as s8fast_predict runs it (with Winograd's convolutions where there is a C compiler),
and as the graph that is exported.
The images are made here: speed does not depend on them.
"""
import argparse, platform, statistics, time

import numpy as np
import onnxruntime
import torch

from s8fast.deploy.graph import ImagesToProbs, facts_of, images_to_compare, run_graph
from s8fast.deploy.onnx import OnnxGraph, to_int8, to_onnx
from s8fast.runs.trained import find_trained, load_network
from s8fast.training.device import full_float32

BATCH = 256


def contenders(run):
    "`{name: function of images}`, and the sizes of the files."
    net, plain = load_network(run, 'cpu'), ImagesToProbs(load_network(run, 'cpu', winograd=False)).eval()
    model = to_onnx(plain, facts_of(find_trained(run)))
    float32, int8 = (o.SerializeToString() for o in (model, to_int8(model, images_to_compare(n=512))))
    threads = torch.get_num_threads()
    def predicted(images):
        with full_float32(): return net.probs(images).numpy()
    return {'PyTorch, as s8fast_predict': predicted,
            'PyTorch, the graph': lambda images: run_graph(plain, images),
            'ONNX float32': OnnxGraph(float32, threads),
            'ONNX int8': OnnxGraph(int8, threads)}, dict(float32=len(float32), int8=len(int8))


def measure(functions, images, rounds, turns=3):
    "`{name: median seconds}`; each function has its turns, and in each a call that is not counted."
    seconds = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            time.sleep(.5)  # threads of the one before it wait busily for a while
            function(images)
            for _ in range(rounds):
                start = time.perf_counter()
                function(images)
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', default='pretrained:custom_resnet', help='run folder, or pretrained:NAME')
    parser.add_argument('--rounds', type=int, default=5, help='batches a turn; ten times as many of one image')
    args = parser.parse_args()
    functions, sizes = contenders(args.run)
    images = np.ascontiguousarray(images_to_compare(n=BATCH))
    one, many = measure(functions, images[:1], 10*args.rounds), measure(functions, images, args.rounds)
    print(f'{args.run}, {torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, '
          f'onnxruntime {onnxruntime.__version__}, python {platform.python_version()}')
    print(f'files: float32 {sizes["float32"]/1e6:.2f} MB, int8 {sizes["int8"]/1e6:.2f} MB')
    base = 'PyTorch, the graph'
    print(f'{"":28}{"batch 1":>9}{"ratio":>8}{f"batch {BATCH}":>15}{"ratio":>8}')
    for name in functions:
        print(f'{name:28}{1000*one[name]:6.2f} ms{one[base]/one[name]:8.2f}{BATCH/many[name]:9.0f} img/s'
              f'{many[base]/many[name]:8.2f}')


if __name__ == '__main__': main()
