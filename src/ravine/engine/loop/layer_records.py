"""What the layers do over training, at a few steps of a run: histograms of weights, gradients and
outputs, gradient norms, and how large an update is beside the weights.

It looks on and changes no number: what it needs of a step (its gradient, the weights before and after
it) is there anyway, and the outputs are those of a few training samples in evaluation mode. The steps
are a function of the run's length, so that a resumed run records the same.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.engine.loop.calendar import Calendar
from ravine.engine.loop.record import Record
from ravine.engine.loop.stopping import Stopping
from ravine.engine.programs import FEW, Program
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.rows.members import Members
from ravine.layout import Entry

KIND = "layers"  # of the events that hold the records
MOST, LEAST = 19, 3  # records of a run, beside the one after the first step
# a record takes about as long as RECORD seconds; there are so many steps to each, at least APART, that
# all together cost about a hundredth of a run of more than LEAST of them. A step is taken to last
# CALLS seconds and its products at SPEED operations a second: the places of the records have to be
# the same on every machine
RECORD, CALLS, SPEED, APART = 5e-3, 1e-4, 3e11, 64
LARGE = 2**22  # multiplications of a step, forwards, from which on fewer samples are looked at
DEPTHS = 12  # layers, evenly spaced by depth
BINS = 24
SAMPLES, SAMPLES_LARGE = 64, 16  # of the training part, whose outputs are looked at
VALUES = 2**12  # of a layer, evenly spaced, for a histogram


def apart(multiplications: float) -> int:
    """Steps to a record, by the multiplications of a step forwards; backwards are twice as many.

    >>> apart(3e5), apart(3.4e7), apart(1.5e9)  # a small MLP, one for MNIST, a LeNet
    (4717, 641, 64)
    """
    step = CALLS + 6 * multiplications / SPEED
    return max(APART, round(RECORD / 0.01 / step))


@functools.lru_cache
def places(total: int, epoch_steps: int, apart: int) -> tuple[int, ...]:
    """The steps after which layers are looked at: denser at the beginning, at epochs' ends where the
    run has many of them, ``apart`` steps to each on average.

    >>> places(2000, 100, 500)
    (1, 200, 500, 1200, 2000)
    """
    count = max(LEAST, min(MOST, total // apart))
    found = [math.ceil(total * (k / count) ** 2) for k in range(1, count + 1)]
    if total > count * epoch_steps:
        found = [min(total, -(-place // epoch_steps) * epoch_steps) for place in found]
    return tuple(sorted({1, *found}))


class LayerRecords:
    """Records events of kind ``layers`` for the first members of a program."""

    def __init__(self, program: Program, record: Record, calendar: Calendar, members: Members):
        self.program, self.record, self.calendar, self.members = program, record, calendar, members
        self.watched = set(program.watched) if record.lasts else ()
        self.entries = _evenly([e for e in program.population.layout.entries if e.kind == "weight"])
        multiplications = _multiplications(program)
        self.apart = apart(multiplications)
        self.samples = SAMPLES if multiplications < LARGE else SAMPLES_LARGE
        self._before: dict[int, list[Tensor]] = {}  # of the rows that are due, of each entry
        self._x: Any = None

    def ends(self, step: int, stops: Sequence[Stopping], starts: Sequence[int]) -> list[int]:
        """Where the next blocks end: a step that is looked at is a block of its own, for the weights
        before it are needed."""
        found = []
        for row in self._rows():
            known = self._places(stops[row])
            place = bisect.bisect_right(known, step - starts[row])
            if place < len(known):
                found += [starts[row] + known[place] - 1, starts[row] + known[place]]
        return found

    def before(
        self, first: int, last: int, stops: Sequence[Stopping], starts: Sequence[int]
    ) -> None:
        """Keep some weights of the rows of which the step from ``first`` to ``last`` is looked at."""
        if last != first + 1:
            return
        for row in self._rows():
            if last - starts[row] in self._places(stops[row]):
                self._before[row] = [values.clone() for values in self._weights(row)]

    def _places(self, stop: Stopping) -> tuple[int, ...]:
        return places(stop.total, self.calendar.epoch_steps, self.apart)

    def _rows(self) -> list[int]:
        return [row for row, n in enumerate(self.members.numbers[:FEW]) if n in self.watched]

    def after(self, step: int, starts: Sequence[int], alive: Tensor) -> None:
        """Record the step that was taken, of the rows that were to be looked at and are alive."""
        for row, weights in self._before.items():
            if bool(alive[row]):
                own = step - starts[row]
                epoch = self.calendar.epochs(own)
                data = {"epoch": epoch, "layers": self._layers(row, weights)}
                text = f"layers after {own} steps"
                self.record.add_event(own, self.members.numbers[row], KIND, text, data)
        self._before = {}

    def _weights(self, row: int) -> list[Tensor]:
        theta = self.program.population.theta[row]
        return [_some(theta[entry.start : entry.stop]) for entry in self.entries]

    def _layers(self, row: int, before: Sequence[Tensor]) -> list[dict[str, Any]]:
        """A row's layers: name, histograms, gradient norm, root mean square of the update by that of
        the weights before it."""
        population = self.program.population
        grad, modules = population.grad[row], dict(population.objectives[row].named_modules())
        outputs = self._outputs(row)
        found = []
        for entry, old, new in zip(self.entries, before, self._weights(row), strict=True):
            own = grad[entry.start : entry.stop]
            size = float(old.double().norm())
            module = entry.name.rpartition(".")[0]
            one = {
                "name": entry.name.removeprefix("model.").removesuffix(".weight"),
                "kind": type(modules.get(module)).__name__,
                "weights": histogram(new),
                "gradients": histogram(own),
                "gradient_norm": _short(float(own.double().norm())),
                "update_ratio": _short(float((new - old).double().norm()) / size) if size else None,
            }
            if module in outputs:
                one["activations"] = outputs.pop(module)
            found.append(one)
        return found

    def _outputs(self, row: int) -> dict[str, dict[str, Any]]:
        """The histogram of what each layer gives, after its activation where that is a module of its
        own; by the name of the module that has the weights."""
        population, model = self.program.population, self.program.population.objectives[row].model
        if type(model).forward is nn.Module.forward:  # the parts of a step of one's own
            return {}
        if self._x is None:
            self._x = next(iter(self.program.pipeline.split("train", self.samples))).x
        weighted = {entry.name.rpartition(".")[0] for entry in self.entries}
        every = {e.name.rpartition(".")[0] for e in population.layout.entries if e.kind == "weight"}
        seen: dict[str, Tensor] = {}
        current = [""]

        def hook(name: str, module: nn.Module, given: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            current[0] = name if name in every else current[0]
            if isinstance(value, Tensor) and value.is_floating_point() and current[0] in weighted:
                seen[current[0]] = value

        leaves = [
            (f"model.{name}" if name else "model", module)
            for name, module in model.named_modules()
            if not list(module.children()) or f"model.{name}" in every
        ]
        handles = [m.register_forward_hook(functools.partial(hook, name)) for name, m in leaves]
        try:
            with untouched(model, population.device), evaluation([model]):
                population.call(model, self._x)
        except Exception:  # a model that only a step of one's own can call
            if population.objectives[row].own_step is None:
                raise
        finally:
            for handle in handles:
                handle.remove()
        return {name: histogram(value) for name, value in seen.items()}


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A model that is only looked at: its buffers and the random state are afterwards what they were."""
    held = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, old in held:
                module._buffers[name] = buffer.copy_(old)


def histogram(values: Tensor) -> dict[str, Any]:
    """How many of the values lie in each of equal parts between the least and the largest; of many
    values an even choice.

    >>> found = histogram(torch.linspace(0, 1, 48))
    >>> found["counts"][0], len(found["counts"]), found["low"], found["high"]
    (2, 24, 0.0, 1.0)
    """
    x = _some(values.detach()).float().cpu().numpy()
    x = x[np.isfinite(x)]
    if not len(x):
        return {"counts": [0] * BINS, "low": 0.0, "high": 0.0}
    low, high = float(x.min()), float(x.max())
    # in float64: the distance of two numbers of float32 may be infinite, its inverse zero
    scale = BINS / (high - low) if high > low else 0.0
    places = np.minimum(((x.astype(np.float64) - low) * scale).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS).tolist()
    return {"counts": counts, "low": _short(low), "high": _short(high)}


def _multiplications(program: Program) -> float:
    """About how many multiplications a step takes, forwards: weights times samples, and times the
    places at which kernels and layers of sequences are applied."""
    shape, layout = program.pipeline.input_shape, program.population.layout
    places = math.prod(shape[1:]) if len(shape) > 2 else shape[0] if len(shape) == 2 else 1
    if program.pipeline.vocabulary:
        places = math.prod(shape)
    of_all = len(shape) == 2 or bool(program.pipeline.vocabulary)
    each = (
        math.prod(e.shape) * (places if of_all or len(e.shape) > 2 else 1) for e in layout.entries
    )
    return float(sum(each) * program.pipeline.batch_size)


def _some(values: Tensor) -> Tensor:
    flat = values.reshape(-1)
    return flat[:: -(-len(flat) // VALUES) or 1]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _evenly(entries: Sequence[Entry]) -> list[Entry]:
    ordered = sorted(entries, key=lambda entry: entry.layer)
    at = np.unique(np.linspace(0, len(ordered) - 1, min(DEPTHS, len(ordered))).round().astype(int))
    return [ordered[i] for i in at]
