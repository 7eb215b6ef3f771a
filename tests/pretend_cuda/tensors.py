"""Tensors that say that they are on `cuda:0`, and whose numbers lie in the CPU's memory.

What a CUDA device refuses is refused: tensors of two devices in one operation, `.numpy()`. What makes the process wait
for the device is noted in `LOG` with the line that asked: `.item()`, copies either way, `nonzero`.
"""
import traceback
from collections import namedtuple
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device('cuda:0')
Event = namedtuple('Event', 'kind op where')
#: item, copy and sync wait; queued is a copy that does not; float64 is what an MPS device has not
WAITING = 'item', 'copy', 'sync'
LOG = SimpleNamespace(events=[], operations=0, strict=False)  # strict: what waits raises

WAIT = {'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique_dim', '_unique2', 'bincount', 'repeat_interleave'}
MAY_MIX = {'_to_copy', 'copy_', 'index', 'index_put_', '_index_put_impl_', 'index_put', 'lift_fresh', 'lift'}
FACTORIES = {'new_empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty_strided',
             'empty_like', 'zeros_like', 'ones_like', 'full_like', 'rand_like', 'randn_like'}
OURS = '/s8fast/', '/fastai/', '/tests/', 'torch/amp', 'torch/optim', 'ipykernel'


def asked_by(n=4):
    "The innermost lines of the library, of fastai and of the tests that are at work."
    frames = [o for o in reversed(traceback.extract_stack()) if '/pretend_cuda/' not in o.filename]
    ours = [o for o in frames if any(part in o.filename for part in OURS)]
    return ' < '.join(f'{o.filename.rsplit("/", 1)[-1]}:{o.lineno} {o.name}' for o in ours[:n])


def note(kind, op):
    "Log an event; raise where waiting is forbidden."
    LOG.events.append(Event(kind, op, asked_by()))
    if LOG.strict and kind in WAITING: raise RuntimeError(f'{op} waits for the device: {asked_by()}')


class CudaTensor(torch.Tensor):
    "A tensor on the pretended device; `real` has its numbers."
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real, requires_grad=False):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype,
            layout=real.layout, device=CUDA, requires_grad=requires_grad)
        tensor._real = real
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return dispatch(func, args, kwargs or {})

    @property
    def data(self): return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self._real = value._real

    def set_meta(self, other, as_copy=False):
        "fastai's would replace all attributes."
        for name, value in vars(other).items() if hasattr(other, '__dict__') else ():
            if name != '_real': self.__dict__[name] = value

    def numpy(self, *, force=False):
        if force: return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *args, **kwargs): return self.numpy()
    def tolist(self): return self.detach().cpu().tolist()
    def __repr__(self): return f'CudaTensor({self._real!r})'

    def __reduce_ex__(self, protocol):
        return _rebuild, (self._real, self.requires_grad, getattr(self, '_is_param', False))


def _rebuild(real, requires_grad, is_param):
    tensor = CudaTensor(real.detach(), requires_grad)
    if is_param: tensor._is_param = True
    return tensor


torch.serialization.add_safe_globals([_rebuild])


# fastai's kinds of tensors

_KINDS = {}


def kind_on_cuda(kind):
    "The class of `kind`, such as fastai's `TensorImage`, on the device."
    if kind is torch.Tensor or kind is CudaTensor: return CudaTensor
    if issubclass(kind, CudaTensor): return kind
    if kind not in _KINDS:
        own = dict(__torch_function__=classmethod(kind.__torch_function__.__func__))
        _KINDS[kind] = type(f'Cuda{kind.__name__}', (CudaTensor, kind), own)
    return _KINDS[kind]


_as_subclass = torch._C.TensorBase.as_subclass


def as_subclass(tensor, kind):
    "`torch.as_subclass`, which fastai calls with its own kinds."
    if isinstance(tensor, CudaTensor):
        with torch._C.DisableTorchFunctionSubclass(): out = aten.alias(tensor)
        out.__class__ = kind_on_cuda(kind)
        return out
    off_cuda = {there: here for here, there in _KINDS.items()}
    if issubclass(kind, CudaTensor): kind = off_cuda.get(kind, torch.Tensor)
    return _as_subclass(tensor, kind)


# One operation

def is_cuda(device): return device is not None and torch.device(device).type == 'cuda'
def name_of(func): return func._schema.name.split('::')[1]
def real_of(o): return o._real if isinstance(o, CudaTensor) else o
def tensors_in(*trees): return [o for o in tree_leaves(trees) if isinstance(o, torch.Tensor)]


def dispatch(func, args, kwargs):
    "An operation that has to do with the device."
    name = name_of(func)
    if name == '_to_copy': return _convert(*args, **kwargs)
    if name == 'copy_': return _copy_into(*args, **kwargs)
    on_cuda = [o for o in tensors_in(args, kwargs) if isinstance(o, CudaTensor)]
    if on_cuda: _check(func, name, args, kwargs)
    if name == '_local_scalar_dense':
        note('item', name)
        return real_of(args[0]).item()
    device = kwargs.get('device')
    goes_to_cuda = is_cuda(device) if device is not None else bool(on_cuda)
    if not on_cuda and not goes_to_cuda: return func(*args, **kwargs)
    out = _compute(func, name, args, kwargs)
    return _wrapped(out, func, args, on_cuda, goes_to_cuda)


def _convert(x, device=None, dtype=None, non_blocking=False, memory_format=torch.preserve_format, **ignored):
    from_cuda = isinstance(x, CudaTensor)
    to_cuda = from_cuda if device is None else is_cuda(device)
    if from_cuda != to_cuda: note('queued' if non_blocking else 'copy', 'to')
    real = real_of(x)
    dtype = dtype or real.dtype
    if to_cuda and torch.float64 in (dtype, real.dtype): note('float64', 'to')
    out = real.to(dtype, copy=True, memory_format=memory_format or torch.preserve_format)
    LOG.operations += to_cuda
    return CudaTensor(out) if to_cuda else out


def _copy_into(target, source, non_blocking=False):
    if isinstance(target, CudaTensor) != isinstance(source, CudaTensor):
        note('queued' if non_blocking else 'copy', 'copy_')
    real_of(target).copy_(real_of(source))
    LOG.operations += isinstance(target, CudaTensor)
    return target


def _check(func, name, args, kwargs):
    "Refuse what CUDA refuses; note what waits."
    elsewhere = [o for o in tensors_in(args, kwargs) if not isinstance(o, CudaTensor) and o.ndim]
    if elsewhere and name not in MAY_MIX:
        raise RuntimeError('Expected all tensors to be on the same device, but found at least two devices, cuda:0 and '
                           f'cpu! ({func})')
    if name.startswith('index'):
        if elsewhere and not isinstance(args[0], CudaTensor):
            raise RuntimeError(f'indices should be either on cpu or on the same device as the indexed tensor ({func})')
        if elsewhere: note('copy', f'{name} by an index on the CPU')
        if any(o.dtype in (torch.bool, torch.uint8) for o in tensors_in(args[1])): note('sync', f'{name} by a mask')
    device = kwargs.get('device')
    if device is not None and not is_cuda(device) and name not in FACTORIES: raise RuntimeError(f'{func} to {device}')
    if name in WAIT: note('sync', name)


def _compute(func, name, args, kwargs):
    "The operation on the real numbers."
    kwargs = {k: v for k, v in kwargs.items() if k != 'pin_memory'}
    if kwargs.get('device') is not None: kwargs['device'] = torch.device('cpu')
    args, kwargs = tree_map(real_of, args), tree_map(real_of, kwargs)
    LOG.operations += 1
    with torch.no_grad(), torch._C._DisableTorchDispatch():
        if name == 'cudnn_batch_norm':
            x, weight, bias, mean, var, training, momentum, eps = args
            out = aten.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps)
            return *out, torch.empty(0, dtype=torch.uint8)
        if name == 'cudnn_batch_norm_backward':
            x, grad, weight, mean, var, saved_mean, saved_var, eps, _ = args
            statistics = mean, var, saved_mean, saved_var
            return aten.native_batch_norm_backward(grad, x, weight, *statistics, True, eps, [True]*3)
        return func(*args, **kwargs)


def _wrapped(out, func, args, on_cuda, goes_to_cuda):
    "The results as tensors on the device; what was changed in place is the tensor that it was."
    known = {id(o._real): o for o in on_cuda}
    def wrap(o):
        if not isinstance(o, torch.Tensor): return o
        if id(o) in known: return known[id(o)]
        if goes_to_cuda and o.dtype == torch.float64: note('float64', name_of(func))
        return CudaTensor(o) if goes_to_cuda else o
    in_place = func._schema.is_mutable and name_of(func).endswith('_') and isinstance(args[0], CudaTensor)
    wrapped = tree_map(wrap, out)
    return args[0] if in_place and isinstance(wrapped, CudaTensor) else wrapped


class PretendMode(TorchDispatchMode):
    "Sees the operations that make tensors on the device out of nothing, or out of the CPU's."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        concerned = is_cuda(kwargs.get('device')) or any(isinstance(o, CudaTensor) for o in tensors_in(args, kwargs))
        return dispatch(func, args, kwargs) if concerned else func(*args, **kwargs)
