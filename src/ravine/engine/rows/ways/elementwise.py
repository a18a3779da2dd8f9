"""Batch normalisation, ReLU and pooling of images by compiled functions, `elementwise.c`, whoever calls them.

What is left of a convolutional network's step beside its convolutions is passes over memory: PyTorch computes each
layer apart, and in bfloat16 at a fraction of the memory's speed. Within `Elementwise` such calls of any module,
Ravine's or a person's own, are computed in few passes; one backward serves a normalisation, the ReLU after
it and a sum between them. Where GCC is not installed, PyTorch's functions run as ever.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ravine.engine.rows.ways import gcc
from ravine.nn.chain import COMPILED, watched

SOURCE = Path(__file__).with_suffix(".c")
LEAST = 2**16  # numbers of a tensor from which calling these functions costs less than it gives
LANES = 16  # channels come in multiples of it
_RELU = (F.relu, torch.relu, Tensor.relu)
_SUM = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)


class Elementwise(TorchFunctionMode):
    """Within it those functions are the compiled ones, for float32 and bfloat16 images that lie channels
    last in a processor's memory, from `LEAST` numbers on. For the forward pass of training; what
    leaves it is differentiable as before, twice too."""

    def __enter__(self) -> Elementwise:
        self._token = COMPILED.set(_norm_relu)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        COMPILED.reset(self._token)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        of = _FUNCTIONS.get(func)
        # other modes want to see the calls too; this one's own place is free while it works
        if of is None or torch._C._len_torch_function_stack():
            return func(*args, **kwargs)
        found = of(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found


class Normalised(NamedTuple):
    """How a tensor came about: a batch normalisation of x, and perhaps what was added to it."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    added: Tensor | None
    moments: Moments
    version: int  # of the tensor: in-place changes make this untrue


@dataclass(frozen=True)
class Moments:
    """What a batch normalisation's passes share."""

    values: Tensor  # [4, C]: mean, 1 / deviation, scale, shift
    epsilon: float


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    by_channel = (running_mean, running_var, weight, bias)
    if (
        not training
        or not _suits(x)
        or not all(each is None or _plain(each) for each in by_channel)
    ):
        return None
    moments = Moments(x.new_empty(4, x.shape[1], dtype=torch.float32), eps)
    averages = (running_mean, running_var, momentum)
    y = _Normalise.apply(x, weight, bias, None, moments, averages, False)
    y.normalised = Normalised(x, weight, bias, None, moments, y._version)
    return y


def _sum(a: Any, b: Any, **kwargs: Any) -> Tensor | None:
    if kwargs or not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return None
    one, other = (a, b) if _origin(a) else (b, a)
    origin = _origin(one)
    if origin is None or origin.added is not None or not _like(one, other):
        return None
    y = torch.add(a, b)
    y.normalised = origin._replace(added=other, version=y._version)  # type: ignore[attr-defined]
    return y


def _relu(x: Tensor, inplace: bool = False) -> Tensor | None:
    if inplace or not _suits(x):
        return None
    origin = _origin(x)
    if origin is None or not torch.is_grad_enabled():
        return _ReLU.apply(x)
    return _Normalise.apply(*origin[:5], x.detach(), True)


def _norm_relu(norm: nn.BatchNorm2d, relu: Any, x: Tensor, added: Tensor | None) -> Tensor | None:
    """A normalisation, a sum and ReLU in one, where nobody watches what lies between them."""
    seen = any(map(watched, (norm, relu))) or torch._C._len_torch_function_stack() > 1
    if seen or not norm.training or not _suits(x) or norm.momentum is None:
        return None
    averages = (norm.running_mean, norm.running_var, norm.momentum)
    by_channel = (*averages[:2], norm.weight, norm.bias)
    if norm.num_batches_tracked is None or not all(
        each is None or _plain(each) for each in by_channel
    ):
        return None
    if added is not None and not _like(x, added):
        return None
    norm.num_batches_tracked.add_(1)
    moments = Moments(x.new_empty(4, x.shape[1], dtype=torch.float32), norm.eps)
    return _Normalise.apply(x, norm.weight, norm.bias, added, moments, averages, True)


def _max_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    halves = _pair(kernel_size) == (2, 2) == _pair(stride or kernel_size)
    plain = _pair(padding) == (0, 0) and _pair(dilation) == (1, 1) and not ceil_mode
    if not halves or not plain or return_indices or not _suits(x) or min(x.shape[2:]) < 2:
        return None
    return _MaxPool.apply(x)


_FUNCTIONS: dict[Any, Any] = {
    F.batch_norm: _batch_norm,
    F.max_pool2d: _max_pool,
    **dict.fromkeys(_RELU, _relu),
    **dict.fromkeys(_SUM, _sum),
}


# --- what the functions take ----------------------------------------------------------------------


def _suits(x: Any) -> bool:
    """Whether a tensor is one that the compiled functions take: images, channels last; nothing that
    traces, maps or gathers statistics stands around it."""
    return (
        type(x) is Tensor
        and not torch._C._are_functorch_transforms_active()
        and x.dim() == 4
        and x.numel() >= LEAST
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.device.type == "cpu"
        and x.shape[1] % LANES == 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and _saved_as_it_is()
        and functions() is not None
    )


def _saved_as_it_is() -> bool:
    """Whether no hooks on saved tensors are there: checkpoints compute the forward pass again outside
    this mode, and count what it saves."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(False) is None


def _plain(x: Tensor) -> bool:
    """Whether a tensor by channel is one that C can read."""
    return x.dtype == torch.float32 and x.is_contiguous() and x.device.type == "cpu"


def _origin(y: Tensor) -> Normalised | None:
    """The normalisation that a tensor comes from, if its gradient may pass it by: it was not
    changed since, and nobody asked to see its gradient."""
    found = getattr(y, "normalised", None)
    seen = found is None or y._backward_hooks or y.retains_grad or y._version != found.version
    return None if seen else found


def _like(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and other.is_contiguous(memory_format=torch.channels_last)


def _pair(value: Any) -> tuple[int, ...]:
    return (
        tuple(value) * (1 + (len(value) == 1)) if isinstance(value, list | tuple) else (value,) * 2
    )


# --- their gradients ------------------------------------------------------------------------------


class _Normalise(Function):
    """y = scale x + shift by the moments of x, or the ReLU of this and what is added; where that was
    computed before, its ReLU.

    dx = scale (g - mean(g) - x' mean(g x')), x' the normalised x, g the gradient before the ReLU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        added: Tensor | None,
        moments: Moments,
        given: Any,
        rectified: bool,
    ) -> Tensor:
        y = torch.empty_like(x)
        if isinstance(given, Tensor):  # scale x + shift, and what was added to it
            _call("relu", given, y, x.numel() // LANES, _low(x), torch.get_num_threads())
        else:  # averages over training, and their momentum
            norm = _norm(x, weight, bias, moments)
            _call("normalise", norm, y, added, rectified, *given, moments.epsilon)
        ctx.moments, ctx.rectified, ctx.summed = moments, rectified, added is not None
        ctx.save_for_backward(x, weight, bias, added, y if ctx.summed else None)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, bias, added, y = ctx.saved_tensors
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            plain = _plainly(ctx.moments.epsilon, ctx.rectified)
            found = _of_pytorch(plain, (x, weight, bias, added), needed, g)
            return *found, None, None, None
        g, dx = _laid_out(g, x), torch.empty_like(x)
        by_channel = x.new_empty(4, x.shape[1], dtype=torch.float32)
        passed = torch.empty_like(x) if ctx.summed else None
        slopes = _Backward(
            _at(g), _at(y), ctx.rectified, _at(passed), _at(dx), *map(_at, by_channel)
        )
        _call("normalise_backward", _norm(x, weight, bias, ctx.moments), ctypes.byref(slopes))
        found = (dx, by_channel[0], by_channel[1], passed)
        return *(d if n else None for d, n in zip(found, needed, strict=True)), None, None, None


class _ReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        _call("relu", x, y, x.numel() // LANES, _low(x), torch.get_num_threads())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.where(y.detach() <= 0, 0, g)
        g, dx = _laid_out(g, y), torch.empty_like(y)
        _call("relu_backward", g, y, dx, y.numel() // LANES, _low(y), torch.get_num_threads())
        return dx


class _MaxPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.new_empty((n, h // 2, w // 2, c)).permute(0, 3, 1, 2)
        _call("pool", ctypes.byref(_Maps(n, h, w, c)), x, y, _low(x), torch.get_num_threads())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _of_pytorch(lambda x: F.max_pool2d(x, 2), (x,), (True,), g)[0]
        g, dx = _laid_out(g, x), torch.empty_like(x)
        n, c, h, w = x.shape
        threads = torch.get_num_threads()
        _call("pool_backward", ctypes.byref(_Maps(n, h, w, c)), g, x, dx, _low(x), threads)
        return dx


def _laid_out(g: Tensor, x: Tensor) -> Tensor:
    """A gradient as the functions read it: in the precision of x, channels last."""
    return g.to(x.dtype).contiguous(memory_format=torch.channels_last)


def _plainly(epsilon: float, rectified: bool) -> Callable[..., Tensor]:
    """What `_Normalise` computes, by PyTorch."""

    def run(x: Tensor, weight: Tensor | None, bias: Tensor | None, added: Tensor | None) -> Tensor:
        y = F.batch_norm(x, None, None, weight, bias, True, 0.0, epsilon)
        y = y if added is None else y + added
        return F.relu(y) if rectified else y

    return run


def _of_pytorch(
    function: Callable[..., Tensor], inputs: Sequence[Any], needed: Sequence[bool], g: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients that are differentiable themselves: those of PyTorch's functions."""
    # views: one input may come from another, whose gradient is not to count that
    given: list[Any] = [None if x is None else x.view_as(x) for x in inputs]
    asked: list[Tensor] = [x for x, need in zip(given, needed, strict=True) if need]
    found = iter(torch.autograd.grad(function(*given), asked, g, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


# --- calling C ------------------------------------------------------------------------------------


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_long) for name in ("rows", "channels")),
        ("low", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("mean", "deviation", "scale", "shift", "partial")),
        ("threads", ctypes.c_long),
    )


class _Backward(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("g", "y")),
        ("rectified", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("passed", "dx")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias", "curve", "constant")),
    )


class _Maps(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("images", "height", "width", "channels"))


_ADDRESS, _LONG, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
_ARGUMENTS = {
    "normalise": (_ADDRESS, _ADDRESS, _ADDRESS, _INT, _ADDRESS, _ADDRESS, _DOUBLE, _DOUBLE),
    "normalise_backward": (_ADDRESS, _ADDRESS),
    "relu": (_ADDRESS, _ADDRESS, _LONG, _INT, _LONG),
    "relu_backward": (_ADDRESS, _ADDRESS, _ADDRESS, _LONG, _INT, _LONG),
    "pool": (_ADDRESS, _ADDRESS, _ADDRESS, _INT, _LONG),
    "pool_backward": (_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, _INT, _LONG),
}


@cache
def functions() -> dict[str, Any] | None:
    """The compiled functions by name; None where this machine has no compiler."""
    library = gcc.library(SOURCE)
    if library is None:
        return None
    found = {name: getattr(library, name) for name in _ARGUMENTS}
    for name, function in found.items():
        function.argtypes, function.restype = _ARGUMENTS[name], None
    return found


def _call(name: str, *arguments: Any) -> None:
    known = functions()
    assert known is not None
    known[name](*(_at(each) if isinstance(each, Tensor) else each for each in arguments))


def _norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, moments: Moments) -> Any:
    channels = x.shape[1]
    rows = x.numel() // channels
    partial = x.new_empty(2 * channels * math.ceil(rows / _block(channels)), dtype=torch.float32)
    given = (_at(weight), _at(bias), *map(_at, moments.values), _at(partial))
    norm = _Norm(rows, channels, _low(x), _at(x), *given, torch.get_num_threads())
    norm.partial_sums = partial  # lives as long as the structure
    return ctypes.byref(norm)


def _block(channels: int) -> int:
    """Rows of a block, as in C."""
    return max(4096 // channels, 16)


def _low(x: Tensor) -> int:
    return int(x.dtype == torch.bfloat16)


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
