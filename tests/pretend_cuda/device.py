"""`with pretend():` torch.cuda.is_available() is True, and there is a device `cuda:0`. Every wait for it is noted.

It has no kernels, no streams, no memory of its own and no speed. Nothing compiles for it.
"""
import ctypes
import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from tensors import LOG, CudaTensor, PretendMode, as_subclass, is_cuda, note
from torch.utils._pytree import tree_map

HERE = Path(__file__).parent
CC = ['g++', '-shared', '-fPIC', '-std=c++17']


def build(folder):
    "Compile the driver into `folder`; returns the environment of a process that can pretend."
    driver, stub = folder/'pretend_driver.so', folder/'stub'
    stub.mkdir()
    subprocess.run([*CC, HERE/'driver.cpp', '-o', driver], check=True)
    subprocess.run([*CC, HERE/'driver.cpp', '-Wl,-soname,libcuda.so.1', '-o', stub/'libcuda.so.1'], check=True)
    path = os.pathsep.join(filter(None, [str(stub), os.environ.get('LD_LIBRARY_PATH')]))
    return dict(LD_PRELOAD=str(driver), LD_LIBRARY_PATH=path)


def properties(major=9, minor=0, name='Pretended GPU'):
    return SimpleNamespace(major=major, minor=minor, name=name, total_memory=16 << 30, multi_processor_count=80,
                           regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, warp_size=32,
                           gcnArchName='')


def _index(device):
    if device is None: return 0
    return device if isinstance(device, int) else torch.device(device).index or 0


def _be_strict(mode): LOG.strict = mode == 'error'


def _functions(gpus, generator):
    "What stands in for functions of `torch.cuda`."
    def capability(device=None): return gpus[_index(device)].major, gpus[_index(device)].minor
    def restore(state, device=None):
        assert state.dtype == torch.uint8 and state.device.type == 'cpu'
        generator.set_state(state)
    def state(device=None): return generator.get_state()
    def nothing(*args, **kwargs): return None
    return dict(
        is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: len(gpus),
        current_device=lambda: 0, set_device=nothing, _lazy_init=nothing, empty_cache=nothing,
        _is_in_bad_fork=lambda: False, synchronize=lambda *args: note('sync', 'synchronize'),
        get_device_properties=lambda device=None: gpus[_index(device)],
        get_device_name=lambda device=None: gpus[_index(device)].name, get_device_capability=capability,
        get_arch_list=lambda: ['sm_75', 'sm_80', 'sm_86', 'sm_90'],
        get_rng_state=state, set_rng_state=restore, get_rng_state_all=lambda: [state() for _ in gpus],
        set_rng_state_all=lambda states: [restore(o) for o in states],
        manual_seed=generator.manual_seed, manual_seed_all=generator.manual_seed, set_sync_debug_mode=_be_strict)


def _moved(o):
    "A tensor on the device; anything else as it is."
    return CudaTensor(o.detach()) if isinstance(o, torch.Tensor) and not isinstance(o, CudaTensor) else o


def _loader(load):
    "`torch.load`, whose tensors may be wanted on the device."
    def loads(file, map_location=None, **kwargs):
        there = isinstance(map_location, (str, torch.device)) and is_cuda(map_location)
        loaded = load(file, map_location='cpu' if there else map_location, **kwargs)
        return tree_map(_moved, loaded) if there else loaded
    return loads


class _Opened:
    "A safetensors file whose tensors may be wanted on the device."
    def __init__(self, opened, there): self.opened, self.there = opened, there
    def __enter__(self): return _Opened(self.opened.__enter__(), self.there)
    def __exit__(self, *error): return self.opened.__exit__(*error)
    def __getattr__(self, name): return getattr(self.opened, name)

    def get_tensor(self, name):
        tensor = self.opened.get_tensor(name)
        return tensor.to('cuda') if self.there else tensor


def _opener(safe_open):
    def opens(path, framework, device='cpu'): return _Opened(safe_open(path, framework, device='cpu'), is_cuda(device))
    return opens


@contextmanager
def pretend(gpus=(properties(),)):
    "Devices are there, `cuda:0` among them; yields the log of what waited."
    from s8fast.models import weights
    torch._C._ensureCUDADeviceGuardSet()
    ctypes.CDLL(None).pretend_devices(100)  # as many as a device's number may ask for
    LOG.events.clear()
    LOG.strict = False
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    lifts = torch._C._only_lift_cpu_tensors()
    patches = [mock.patch.object(torch, 'as_subclass', as_subclass),
               mock.patch.object(torch, 'load', _loader(torch.load)),
               mock.patch.object(weights, 'safe_open', _opener(weights.safe_open)), PretendMode()]
    with ExitStack() as stack:
        for name, function in _functions(gpus, torch.Generator()).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        for patch in patches: stack.enter_context(patch)
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try: yield LOG
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            torch.__future__.set_swap_module_params_on_conversion(swaps)
