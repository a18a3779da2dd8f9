"""What a model consists of: for each layer its output shape, parameters, FLOPs and receptive field.

The model runs once; every tensor operation passes through a tracer. So any module can be
summarised, functional calls included. A large one runs on the meta device, where nothing is
computed; a small one runs as it is, since the first operation there loads PyTorch's compiler, which
takes longer than half a small training. FLOPs are those of one
sample's forward pass, 2 for each multiply-add of convolutions and matrix products; element-wise
work is not counted. The receptive field is the extent of the input that an output entry can depend
on, padding included: r <- r + (k - 1) j, j <- j s for kernel k (dilated: d (k - 1) + 1), stride s
and jump j; where paths join the greatest counts. Statistics of normalisation layers do not count as
reach.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ravine.nn.stack import Shape, evaluated, example, in_order

_SMALL = 5e8  # multiply-adds


def summarise(module: nn.Module, shape: Shape, *, vocabulary: int | None = None) -> dict[str, Any]:
    """The layers in the order in which they run, and the totals.

    ``layers``: one row for each call of a layer: name, layer (its class), shape of one sample
    after it, parameters (each counted once), flops, receptive_field (extent by axis, or None
    before any convolution). ``vocabulary`` says that the inputs are whole numbers, for a module
    that does not begin with an embedding.

    >>> found = summarise(nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2)), (1, 28, 28))
    >>> [(row["layer"], row["shape"], row["receptive_field"]) for row in found["layers"]]
    [('Conv2d', [8, 24, 24], [5, 5]), ('ReLU', [8, 24, 24], [5, 5]), ('MaxPool2d', [8, 12, 12], [6, 6])]
    >>> found["parameters"], found["flops"]
    (208, 230400)
    """
    tracer = _Tracer()
    rows: list[dict[str, Any]] = []
    hooks = _hooks(module, tracer, rows)
    try:
        with in_order(module):
            _run(module, tracer, rows, shape, vocabulary)
    finally:
        for hook in hooks:
            hook.remove()
    parameters = list(module.parameters())
    return {
        "layers": rows,
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "flops": tracer.flops,
        "memory_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def _run(
    module: nn.Module,
    tracer: _Tracer,
    rows: list[dict[str, Any]],
    shape: Shape,
    vocabulary: int | None,
) -> None:
    small = _is_small(module, shape)
    x = example(module, shape, device="cpu" if small else "meta")
    x = x.long() if vocabulary is not None and len(shape) == 1 else x
    if small:
        x += 1  # zeros may be padding, which is skipped
    try:
        with _plainly(module) if small else _on_meta(module), tracer:
            module(x)
    except Exception:  # a module that looks at its values cannot run without them
        rows.clear()
        tracer.clear()
        x = torch.zeros_like(
            x, device=next((p.device for p in module.parameters()), torch.device("cpu"))
        )
        with evaluated(module), tracer:
            module(x)


def _is_small(module: nn.Module, shape: Shape) -> bool:
    """Whether a sample's forward pass takes milliseconds on the host, where the module is: every
    parameter is used at most once for each number of the sample."""
    tensors = [*module.parameters(), *module.buffers()]
    work = sum(one.numel() for one in tensors) * math.prod(shape)
    return work <= _SMALL and all(one.device.type == "cpu" for one in tensors)


@contextlib.contextmanager
def _plainly(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, with the operations that the meta device has: recurrent layers and attention
    as their products, which are counted. Random numbers are afterwards what they were."""
    fused, whole = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(()), sdpa_kernel(SDPBackend.MATH), evaluated(module):
            yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=fused, _fp32_precision=None)
        torch.backends.mha.set_fastpath_enabled(whole)


@contextlib.contextmanager
def _on_meta(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, with all parameters and buffers on the meta device, where nothing is
    computed.

    (``torch.func.functional_call`` does not put back the parameters of a module that is used at two
    places.)
    """
    held: list[tuple[Any, dict[str, Any]]] = []
    for part in module.modules():
        held += [(part._parameters, dict(part._parameters)), (part._buffers, dict(part._buffers))]
    try:
        for own, tensors in held:
            own.update(
                {name: None if t is None else t.detach().to("meta") for name, t in tensors.items()}
            )
        with evaluated(module):
            yield
    finally:
        for own, tensors in held:
            own.update(tensors)


def _hooks(module: nn.Module, tracer: _Tracer, rows: list[dict[str, Any]]) -> list[Any]:
    before: list[int] = []

    def remember_input(layer: nn.Module, given: Any) -> None:
        before.append(tracer.flops)

    def leave(layer: nn.Module, given: Any, output: Any, name: str = "") -> None:
        out = output[0] if isinstance(output, tuple) else output
        new = [p for p in owned[layer] if id(p) not in tracer.seen]
        tracer.seen.update(map(id, new))
        field = tracer.fields.get(id(out), (None, None))[1]
        rows.append(
            {
                "name": name,
                "layer": type(layer).__name__,
                "shape": list(out.shape[1:]) if isinstance(out, Tensor) else None,
                "parameters": sum(p.numel() for p in new),
                "flops": tracer.flops - before.pop(),
                "receptive_field": None if field is None else list(field.size),
            }
        )

    owned: dict[nn.Module, list[nn.Parameter]] = {}
    hooks = []
    for name, layer in _layers(module):
        owned[layer] = list(layer.parameters())
        hooks.append(layer.register_forward_pre_hook(remember_input))
        hooks.append(layer.register_forward_hook(lambda m, i, o, name=name: leave(m, i, o, name)))
    return hooks


def _layers(module: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    """Modules that are layers: those without children, or with parameters of their own."""
    children = list(module.named_children())
    if not children or any(True for _ in module.parameters(recurse=False)):
        return [(name, module)]
    found = [
        pair
        for child, part in children
        for pair in _layers(part, f"{name}.{child}" if name else child)
    ]
    return list({layer: (path, layer) for path, layer in reversed(found)}.values())[::-1]


@dataclass(frozen=True)
class _Field:
    """Receptive field, jump between neighbours in the input, and the number of positions, by
    axis."""

    size: tuple[int, ...]
    jump: tuple[int, ...]
    count: tuple[int, ...]

    def window(self, kernel: Sequence[int], stride: Sequence[int], count: Sequence[int]) -> _Field:
        axes = len(self.size)
        size = tuple(
            r + (k - 1) * j
            for r, k, j in zip(self.size, _last(kernel, axes), self.jump, strict=True)
        )
        jump = tuple(j * s for j, s in zip(self.jump, _last(stride, axes), strict=True))
        return _Field(size, jump, _last(count, axes))

    def whole(self) -> _Field:
        size = tuple(
            r + (n - 1) * j for r, n, j in zip(self.size, self.count, self.jump, strict=True)
        )
        return _Field(size, self.jump, (1,) * len(size))

    def join(self, other: _Field) -> _Field:
        if len(self.size) != len(other.size):
            return self
        grow = lambda a, b: tuple(map(max, a, b))  # noqa: E731
        return _Field(grow(self.size, other.size), grow(self.jump, other.jump), self.count)


class _Tracer(TorchDispatchMode):
    """Counts FLOPs and carries the receptive field from the inputs of each operation to its
    output."""

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return (
            False  # or PyTorch loads its compiler, to keep it away from a mode that it never meets
        )

    def clear(self) -> None:
        self.flops = 0
        self.seen: set[int] = set()  # parameters that have been counted
        self.fields: dict[
            int, tuple[Tensor, _Field]
        ] = {}  # by identity; the tensor is kept so that it stays the only one

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=output)
        first = output[0] if isinstance(output, tuple | list) else output
        if isinstance(first, Tensor):
            field = self._field(func._overloadpacket.__name__, args, first)
            if field is not None:
                for out in output if isinstance(output, tuple | list) else [output]:
                    if isinstance(out, Tensor):
                        self.fields[id(out)] = (out, field)
        return output

    def _field(self, name: str, args: tuple[Any, ...], output: Tensor) -> _Field | None:
        given = [
            a
            for arg in args
            for a in (arg if isinstance(arg, tuple | list) else [arg])
            if isinstance(a, Tensor)
        ]
        known = [self.fields[id(a)][1] for a in given if id(a) in self.fields]
        window = _window(name, args)
        if window is not None:
            axes = given[0].dim() - 2
            start = (
                known[0] if known else _Field((1,) * axes, (1,) * axes, tuple(given[0].shape[2:]))
            )
            return start.window(*window, count=output.shape[2:])
        if not known:
            return None
        field = known[0]
        for other in known[1:]:
            field = field.join(other)
        if name == "slice" and len(args) > 4 and args[4] > 1:
            return _sliced(field, args[0].dim(), args[1], args[4], output)
        return field.whole() if _mixes(name, args, len(known), field) else field


def _window(name: str, args: tuple[Any, ...]) -> tuple[list[int], list[int]] | None:
    """Effective kernel and stride of operations that look through a window."""
    if name == "convolution":
        weight, strides, dilations, transposed = args[1], args[3], args[5], args[6]
        if transposed:
            return None
        return [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)], list(
            strides
        )
    if name in (
        "max_pool2d_with_indices",
        "avg_pool2d",
        "avg_pool1d",
        "max_pool3d_with_indices",
        "avg_pool3d",
    ):
        return list(args[1]), list(args[2]) if len(args) > 2 and args[2] else list(args[1])
    if name == "im2col":
        return [d * (k - 1) + 1 for k, d in zip(args[1], args[2], strict=True)], list(args[4])
    if name in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
        ratio = [-(-n // m) for n, m in zip(args[0].shape[-2:], args[1], strict=True)]
        return ratio, ratio
    return None


def _mixes(name: str, args: tuple[Any, ...], tracked: int, field: _Field) -> bool:
    """Whether an operation makes every position depend on every other."""
    if (
        name in ("mean", "sum", "amax", "max", "logsumexp")
        and len(args) > 1
        and isinstance(args[0], Tensor)
    ):
        axes = [args[1]] if isinstance(args[1], int) else list(args[1] or range(args[0].dim()))
        last = min(len(field.size), max(args[0].dim() - 2, 1))
        return any(axis % args[0].dim() >= args[0].dim() - last for axis in axes)
    if name in ("mm", "addmm"):
        return (args[0] if name == "mm" else args[1]).shape[0] == 1
    if name in ("bmm", "baddbmm"):
        return tracked > 1
    return "attention" in name


def _sliced(field: _Field, dims: int, dim: int, step: int, output: Tensor) -> _Field:
    axis = dim % dims - (dims - len(field.size))
    if axis < 0:
        return field
    jump = tuple(j * step if i == axis else j for i, j in enumerate(field.jump))
    return _Field(field.size, jump, tuple(output.shape[-len(field.size) :]))


def _last(values: Sequence[int], axes: int) -> tuple[int, ...]:
    """The last ``axes`` values; one value counts for all of them."""
    return tuple(values[-axes:]) if len(values) >= axes else (values[0],) * axes
