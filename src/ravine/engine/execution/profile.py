"""What this machine is quick at: measured once, in about a second, and kept in the user's cache.

The pilot's rules ask it instead of constants that hold for one processor. Which precision is faster
is measured on one thread in processor time, the least of several turns, so that a busy machine
changes little; what threads gain can only be seen on a quiet one, and is left open on another.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ravine.engine.execution import timing
from ravine.engine.execution.device import has_bfloat16, kernel_threads
from ravine.version import VERSION

GAIN = 1.1  # a choice that rounds more, or differs from the plain one, must be so much faster
SECONDS = 0.4  # a section's turns, after one that warms up
TURNS = 40  # at most
BATCH = 128  # samples in the products that are measured
UNITS = (32, 64, 128, 256, 512, 1024)  # of square dense layers
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_CONVOLUTIONS = {  # inputs, outputs, kernel, height and width
    "16 to 16, 3x3, 32x32": (16, 16, 3, 32),
    "64 to 64, 3x3, 8x8": (64, 64, 3, 8),
    "32 to 64, 5x5, 14x14": (32, 64, 5, 14),
}
_PASSES = ("forward", "backward data", "backward weights")
_RECURRENT = (32, 64, 128)  # units
Times = dict[str, Any]  # milliseconds, by name


@dataclass(frozen=True)
class Profile:
    """Milliseconds by section and name; a section that nobody needed is not there."""

    sections: Mapping[str, Times]

    def dense_gain(self, weights: int) -> float:
        """float32 over bfloat16 of a dense layer, its casts included."""
        held = self.sections["dense"][str(_nearest(math.sqrt(weights), UNITS))]
        return held["float32"] / held["bfloat16"]

    @property
    def lowered_from(self) -> int | None:
        """Weights of a layer from which on bfloat16 is faster, casts included; None: of none."""
        won = list(itertools.takewhile(lambda n: self.dense_gain(n * n) >= GAIN, reversed(UNITS)))
        return won[-1] ** 2 if won else None

    def threads_gain(self, multiplications: int) -> float | None:
        """One thread over all threads, of a dense layer; None where that was not measured."""
        if "threads" not in self.sections:
            return None
        held = self.sections["threads"][str(_nearest(math.sqrt(multiplications / BATCH), UNITS))]
        return held["one thread"] / held["all threads"]

    def convolution(self, precision: str, layout: str) -> float:
        """Milliseconds of all measured convolutions, forward and both backwards."""
        held = self.sections["convolution"].values()
        return sum(shape[f"{precision} {layout} {name}"] for shape in held for name in _PASSES)

    @property
    def convolution_gain(self) -> float:
        return self.convolution("float32", "channels_last") / self.convolution(
            "bfloat16", "channels_last"
        )

    def recurrent_gain(self, units: int) -> float:
        """float32 over bfloat16 of a layer; 0 where the processor has no bfloat16."""
        held = self.sections["recurrent"][str(_nearest(units, _RECURRENT))]
        return held["float32"] / held.get("bfloat16", math.inf)

    def parts_gain(self, units: int, precision: str) -> float | None:
        """A batch on all threads together over its parts, a thread each; None where not measured."""
        held = self.sections.get("parts", {}).get(str(_nearest(units, _RECURRENT)), {})
        whole, parts = (held.get(f"{precision} {name}") for name in ("together", "in parts"))
        return whole / parts if whole and parts else None

    def lines(self) -> list[str]:
        """What the rules read from it, and the measurements, for people."""
        lowered, gain = self.lowered_from, self.convolution_gain
        dense = "of no size" if lowered is None else f"from {lowered:,} weights on"
        lines = [
            f"bfloat16: convolutions {gain:.2f} times as fast as in float32, recurrent layers "
            + ", ".join(f"{self.recurrent_gain(n):.2f} ({n} units)" for n in _RECURRENT)
            + f", dense layers {dense}"
        ]
        for section, held in self.sections.items():
            lines += ["", f"{section}{', milliseconds' * (section != 'memory')}"]
            for name, values in held.items():
                shown = values if isinstance(values, dict) else {"": values}
                of = f"{name} units" if name.isdigit() else name
                lines.append(
                    f"  {of}: " + ", ".join(f"{k} {v:.3g}".strip() for k, v in shown.items())
                )
        return lines


def profile(*needed: str, measure: bool = True) -> Profile | None:
    """The profile of this machine with the sections ``needed`` (dense, threads, convolution, recurrent,
    parts, memory); what is not in the cache is measured, or, without ``measure``, the answer is None.
    The two that show what threads gain are left out until the machine is quiet."""
    held, absent = _held(), missing(*needed)
    if not measure:
        return None if set(absent) - set(QUIET) else Profile(held)
    for name in absent:
        held[name] = SECTIONS[name]()
    if absent:
        timing.remember(held, *_KEY, _isa())
    return Profile(held)


def missing(*needed: str) -> list[str]:
    """The sections of these that are not in the cache and can be measured now."""
    held = _held()
    now = torch.get_num_threads() > 1 and timing.quiet()
    return [name for name in needed if name not in held and (now or name not in QUIET)]


def _held() -> dict[str, Times]:
    return timing.remembered(*_KEY, _isa()) or {}


_KEY = ("machine profile", VERSION)


def _isa() -> str:
    """What limits the instructions that oneDNN uses: a machine of its own."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "")


# --- measuring ------------------------------------------------------------------------------------


def least(
    candidates: Mapping[str, Callable[[], Any]], clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """The least milliseconds of each; all take turns, and the first turn warms up."""
    found: dict[str, float] = dict.fromkeys(candidates, math.inf)
    began = time.perf_counter()
    for turn in range(TURNS + 1):
        if turn > 2 and time.perf_counter() - began > SECONDS:
            break
        for name, work in candidates.items():
            at = clock()
            work()
            if turn:
                found[name] = min(found[name], 1e3 * (clock() - at))
    return found


def _dense() -> Times:
    found: Times = {str(n): {} for n in UNITS}
    with kernel_threads(1):
        work = {(str(n), name): _layer(n, d) for n in UNITS for name, d in _DTYPES.items()}
        for (n, name), ms in _least_by(work).items():
            found[n][name] = ms
    return found


def _threads() -> Times:
    found: Times = {str(n): {} for n in UNITS}
    for count, name in ((1, "one thread"), (torch.get_num_threads(), "all threads")):
        with kernel_threads(count):
            work = {(str(n), name): _layer(n, torch.float32) for n in UNITS}
            for (n, _), ms in _least_by(work, time.perf_counter).items():
                found[n][name] = ms
    return found


def _least_by(
    work: Mapping[tuple[str, str], Callable[[], Any]],
    clock: Callable[[], float] = time.thread_time,
) -> dict[tuple[str, str], float]:
    found = least({"\x1f".join(key): one for key, one in work.items()}, clock)
    return {key: found["\x1f".join(key)] for key in work}


def _layer(units: int, dtype: torch.dtype) -> Callable[[], Any]:
    """A dense layer's three products as training has them; in bfloat16 with the weights' cast and
    the gradient's."""
    weight, slope = torch.randn(2, units, units)
    a, g = torch.randn(2, units, BATCH).to(dtype)
    bias = torch.randn(units, 1).to(dtype)
    lowered = dtype != torch.float32

    def step() -> Tensor:
        w = weight.to(dtype) if lowered else weight
        y = torch.mm(w, a).add_(bias) if lowered else torch.addmm(bias, w, a)
        found = torch.mm(g, a.t())
        slope.copy_(found)
        torch.mm(w.t(), g)
        return y

    return step


def _convolution() -> Times:
    work = {
        (shape, f"{name} {layout} {step}"): run
        for shape, sizes in _CONVOLUTIONS.items()
        for name, dtype in _DTYPES.items()
        for layout, order in _LAYOUTS.items()
        for step, run in _passes(sizes, dtype, order).items()
    }
    found: Times = {shape: {} for shape in _CONVOLUTIONS}
    with kernel_threads(1):
        for (shape, name), ms in _least_by(work).items():
            found[shape][name] = ms
    return found


def _passes(
    sizes: tuple[int, int, int, int], dtype: torch.dtype, order: torch.memory_format
) -> dict[str, Callable[[], Any]]:
    inputs, outputs, kernel, side = sizes
    pad = kernel // 2
    x = torch.randn(16, inputs, side, side).to(dtype).contiguous(memory_format=order)
    w = torch.randn(outputs, inputs, kernel, kernel).to(dtype).contiguous(memory_format=order)
    g = torch.randn(16, outputs, side, side).to(dtype).contiguous(memory_format=order)

    def backward(*wanted: bool) -> Callable[[], Any]:
        return lambda: torch.ops.aten.convolution_backward(
            g, x, w, None, (1, 1), (pad, pad), (1, 1), False, (0, 0), 1, wanted
        )

    return {
        "forward": lambda: torch.conv2d(x, w, padding=pad),
        "backward data": backward(True, False, False),
        "backward weights": backward(False, True, False),
    }


def _recurrent() -> Times:
    steps = {units: _lstm(units) for units in _RECURRENT}
    found: Times = {str(units): {} for units in _RECURRENT}
    with kernel_threads(1):
        work = {
            (str(units), name): partial(step, name == "bfloat16", slice(None))
            for units, step in steps.items()
            for name in _DTYPES
            if name == "float32" or has_bfloat16("cpu")  # an error where it is missing
        }
        for (of, name), ms in _least_by(work).items():
            found[of][name] = ms
    return found


def _parts() -> Times:
    threads, found = torch.get_num_threads(), {}
    chunks = [slice(*at) for at in itertools.pairwise(range(0, BATCH + 1, BATCH // threads))]
    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        for units in _RECURRENT:
            step, both = _lstm(units), dict[str, Callable[[], Any]]()
            for name in _DTYPES:
                if name == "bfloat16" and not has_bfloat16("cpu"):
                    continue
                one = partial(step, name == "bfloat16")

                def in_parts(one: Callable[..., Any] = one) -> None:
                    with kernel_threads(1):
                        list(pool.map(one, chunks))

                both |= {
                    f"{name} together": partial(one, slice(None)),
                    f"{name} in parts": in_parts,
                }
            found[str(units)] = least(both, time.perf_counter)
    return found


def _lstm(units: int) -> Callable[[bool, slice], Any]:
    """A gradient of one layer over 16 steps of 28 numbers."""
    layer, x = torch.nn.LSTM(28, units, batch_first=True), torch.randn(BATCH, 16, 28)
    parameters = list(layer.parameters())

    def step(lowered: bool, part: slice) -> Any:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            loss = layer(x[part])[0].sum()
            return torch.autograd.grad(loss, parameters)

    return step


def _memory() -> Times:
    """A copy of 64 MB, and the smallest product, which is nothing but a call."""
    a, b = torch.zeros(2, 2**24)
    tiny = {name: torch.ones(1, 1, dtype=dtype) for name, dtype in _DTYPES.items()}
    with kernel_threads(1):
        copy = least({"copy": lambda: b.copy_(a)})["copy"]
        calls = least({name: partial(_hundred_products, t) for name, t in tiny.items()})
    return {
        "bandwidth, GB/s": 2 * a.numel() * 4 / copy / 1e6,
        **{f"call in {name}, microseconds": 10 * ms for name, ms in calls.items()},
    }


def _hundred_products(a: Tensor) -> None:
    for _ in range(100):
        torch.mm(a, a)


SECTIONS: dict[str, Callable[[], Times]] = {
    "dense": _dense,
    "threads": _threads,
    "convolution": _convolution,
    "recurrent": _recurrent,
    "parts": _parts,
    "memory": _memory,
}
QUIET = ("threads", "parts")  # sections that can be measured on a quiet machine alone


def _nearest(value: float, known: tuple[int, ...]) -> int:
    """The nearest of the sizes that were measured, by ratio."""
    return min(known, key=lambda one: abs(math.log(max(value, 1.0) / one)))
