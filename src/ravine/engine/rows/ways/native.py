"""Dense networks with ReLU and cross-entropy by a compiled function, `native.c`: all members' losses and
gradients in one call.

Where a machine has GCC and a PyTorch that brings MKL, the function is compiled once, kept in the user's
cache, and takes its products from the BLAS that PyTorch has loaded. Elsewhere `Dense` computes the same.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ravine.engine.rows.theta import ParameterMatrix
from ravine.engine.rows.ways import gcc
from ravine.engine.rows.ways.dense import Dense, DenseNetwork, leaves, plain_cross_entropy
from ravine.engine.rows.ways.way import Arithmetic, differs
from ravine.engine.rows.ways.workload import Workload
from ravine.nn.randomized import Dropout

SOURCE = Path(__file__).with_suffix(".c")
WIDE = (
    2**19
)  # weights of a layer whose product the library divides better (bench/native.py --threads 2)
_LAYERS = (nn.Linear, nn.ReLU, nn.Flatten, nn.Identity, Dropout)


class Native(Dense):
    """Used for float32 on the CPU: a step of a small network is mostly starting kernels, one of many small
    networks waiting for memory and threads. Here it is one function, which keeps a member in the caches."""

    name = "native"
    phrase = "dense layers by one compiled function"

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        rows = work.population
        if work.device != "cpu" or rows.theta.dtype != torch.float32 or work.lowered:
            return None
        if DenseNetwork.refuses(rows.objectives, rows.layout) or not fits(rows.objectives[0]):
            return None
        divided = work.members < work.threads  # then each product is, and wide ones lose by it
        if divided and any(math.prod(e.shape) >= WIDE for e in rows.layout.entries):
            return None
        return "every layer is dense, with ReLU and cross-entropy" if library() else None

    def bind(self) -> None:
        super().bind()
        self._core: _Core | None = (
            None  # made for the first gradient: what only evaluates needs none
        )

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float = 0.0
    ) -> Tensor:
        if self._core is None and self.possible:
            self._core = _Core(self.population, self.arithmetic.threads)
        if self._core is None or self.population.apart or y.dim() != 1 or y.dtype != torch.int64:
            return super().gradients(x, y, weight, step, accumulate)
        return self._core.gradients(x, y, weight, accumulate)

    @property
    def possible(self) -> bool:
        """Whether the rows that are there now can run so, here."""
        rows = self.population
        plain = rows.theta.dtype == torch.float32 and rows.device.type == "cpu"
        whole = self.network is not None and plain and fits(rows.objectives[0])
        return whole and library() is not None

    @classmethod
    def why_not(
        cls, population: ParameterMatrix, arithmetic: Arithmetic, x: Tensor, y: Tensor
    ) -> str | None:
        one, plain = cls(population, arithmetic), Dense(population, arithmetic)
        return differs(one, plain, "the compiled function", x, y)


def fits(objective: Any) -> bool:
    """Whether native.c has the layers and the loss of a network that `Dense` can run."""
    found = [layer for _, layer in leaves("model", objective.model)]
    if not all(type(layer) in _LAYERS for layer in found):
        return False
    if any(isinstance(layer, Dropout) and not layer.idle for layer in found):
        return False
    dense = [i for i, layer in enumerate(found) if isinstance(layer, nn.Linear)]
    # scores come from a dense layer, and there are two at least
    after = any(isinstance(layer, nn.ReLU) for layer in found[dense[-1] :])
    before = any(isinstance(layer, nn.ReLU) for layer in found[: dense[0]])
    last: Any = found[dense[-1]]
    return (
        plain_cross_entropy(objective.loss) and not after and not before and last.out_features > 1
    )


# --- the compiled function ------------------------------------------------------------------------


class _Network(ctypes.Structure):
    _fields_ = (
        ("gemm", ctypes.c_void_p),
        ("library_threads", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("members", "layers", "parameters")),
        *((name, ctypes.POINTER(ctypes.c_long)) for name in ("units", "weights", "biases")),
        ("rectified", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("theta", "grad", "losses")),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        ("samples", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("x", "y", "weight")),
        *((name, ctypes.c_float) for name in ("mean", "scale", "kept")),
    )


class _Core:
    """The function, bound to the rows of a network."""

    def __init__(self, population: ParameterMatrix, threads: int):
        loaded = library()
        assert loaded is not None
        self._function, self._threads = loaded[0].gradients, threads
        self._size = loaded[0].workspace
        self._losses = torch.empty(len(population))
        layout, rows = population.layout, population.theta
        layers = list(_layers(population.objectives[0].model))
        units = [layers[0][1].in_features, *(layer.out_features for _, layer, _ in layers)]
        longs = ctypes.c_long * len(layers)
        named = {entry.name: entry.start for entry in layout.entries}
        # everything that the structure points to lives as long as it does
        self._parts = (
            (ctypes.c_long * len(units))(*units),
            longs(*(named[f"{name}.weight"] for name, _, _ in layers)),
            longs(*(named.get(f"{name}.bias", -1) for name, _, _ in layers)),
            bytes(rectified for _, _, rectified in layers),
        )
        self._network = _Network(
            *(ctypes.cast(each, ctypes.c_void_p) for each in loaded[1:]),
            len(population),
            len(layers),
            rows.shape[1],
            *self._parts,
            *(each.data_ptr() for each in (rows, population.grad, self._losses)),
        )
        self._batch, self._space = _Batch(), torch.empty(0)

    def gradients(self, x: Tensor, y: Tensor, weight: Tensor | None, accumulate: float) -> Tensor:
        x, y = x.flatten(1).contiguous(), y.contiguous()  # [B, I], [B]
        weight = None if weight is None else weight.to(x.dtype).contiguous()  # [P, B]
        batch = self._batch
        if batch.samples != len(x):
            batch.samples = len(x)
            numbers = self._size(ctypes.byref(self._network), ctypes.c_long(len(x)))
            self._space = torch.empty(numbers * self._threads)
        batch.x, batch.y = x.data_ptr(), y.data_ptr()
        batch.weight = None if weight is None else weight.data_ptr()
        batch.mean = 1 / len(x)
        batch.scale, batch.kept = (accumulate, 1.0) if accumulate else (1.0, 0.0)
        failed = self._function(
            ctypes.byref(self._network),
            ctypes.byref(batch),
            ctypes.c_void_p(self._space.data_ptr()),
            ctypes.c_long(self._threads),
        )
        if failed:
            raise IndexError(f"a class of the batch is not below {self._parts[0][-1]}")
        return self._losses.clone()


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear, bool]]:
    """Each dense layer: its name in the layout, and whether ReLU follows."""
    found = list(leaves("model", model))
    dense = [i for i, (_, layer) in enumerate(found) if isinstance(layer, nn.Linear)]
    for i, end in zip(dense, [*dense[1:], len(found)], strict=True):
        name, layer = found[i]
        assert isinstance(layer, nn.Linear)
        yield name, layer, any(isinstance(after, nn.ReLU) for _, after in found[i:end])


@cache
def library() -> tuple[ctypes.CDLL, Any, Any] | None:
    """The compiled function, the product that it calls and that product's threads; None where this
    machine has no compiler, or PyTorch another BLAS."""
    loaded = gcc.library(SOURCE)
    try:
        torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        product, threads = torch_library.sgemm_, torch_library.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    if loaded is None:
        return None
    loaded.workspace.restype = ctypes.c_long
    return loaded, product, threads
