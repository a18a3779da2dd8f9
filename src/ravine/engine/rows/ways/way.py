"""The contract of a way to take gradients, in four lines.

A way is made for a population and an arithmetic. ``gradients`` fills the population's ``grad``
[P, D] and gives the losses [P]; ``losses`` and ``outputs`` evaluate. When rows have come or gone the
population calls ``bind``. ``rule`` says whether a program should run so, ``why_not`` whether it
cannot, by trying.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ravine.engine.rows.theta import ParameterMatrix
from ravine.engine.rows.ways.workload import Workload
from ravine.errors import first_line
from ravine.nn.outputs import joined


@dataclass(frozen=True)
class Arithmetic:
    """How products are computed: data of a way, the same in all of them."""

    products: torch.dtype | None = None  # bfloat16 where they run in it; None: theta's dtype
    memory_format: torch.memory_format = torch.contiguous_format  # of images
    threads: int = 1  # that a way may start for its rows or parts
    lowered_from: int = (
        2**14
    )  # weights of a dense layer from which its products are in ``products``
    joined: bool = False  # batch normalisation, ReLU and pooling by `Elementwise`


PLAIN = Arithmetic()


class Way(ABC):
    """One way to take the gradients of all rows."""

    name: ClassVar[str]  # in the execution record
    phrase: ClassVar[str]  # in the record's sentence; may hold {threads}
    together: ClassVar[bool] = False  # all rows run as one: more rows cost little
    calls_modules: ClassVar[bool] = False  # each row runs by calling its own module
    own_threads: ClassVar[bool] = False  # its threads need the cores: a step's kernels run on one

    def __init__(self, population: ParameterMatrix, arithmetic: Arithmetic = PLAIN):
        self.population, self.arithmetic = population, arithmetic
        self.bind()

    @classmethod
    @abstractmethod
    def rule(cls, work: Workload) -> str | None:
        """Why a program should run so; None where it should not."""

    @classmethod
    def why_not(
        cls, population: ParameterMatrix, arithmetic: Arithmetic, x: Tensor, y: Tensor
    ) -> str | None:
        """Why a program cannot run so, where only trying on a batch tells; None where it can."""
        return None

    @property
    def input_dtype(self) -> torch.dtype | None:
        """The precision to which inputs are rounded before anything else is done with them, if that
        is not theta's."""
        return None

    def bind(self) -> None:  # noqa: B027
        """The population's views are new: make anew what depends on them."""

    @abstractmethod
    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float = 0.0
    ) -> Tensor:
        """Fill grad [P, D] with the gradient of the mean loss; the losses [P].

        x [B, ...], y [B, ...], weight [P, B] or None; of a population whose rows have samples of
        their own (``apart``) x [P, B, ...], y [P, B, ...]. ``accumulate`` other than 0 adds that
        multiple of the new gradient to what grad holds.
        """

    @abstractmethod
    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The losses [P] of the batch, without gradients."""

    @abstractmethod
    def outputs(self, x: Tensor) -> Tensor:
        """Every row's outputs for the same inputs [P, B, ...], without gradients."""

    def call(self, model: nn.Module, x: Tensor) -> Tensor:
        """A model's outputs as one tensor, in this arithmetic; float32 at least."""
        heads = self.population.objectives[0].heads
        output = joined(self.outputs_of(model, x), heads=heads)
        theta = self.population.theta.dtype
        cast = output.is_floating_point() and output.dtype != theta
        return output.to(theta) if cast else output

    def outputs_of(self, model: nn.Module, x: Tensor) -> Any:
        """A model's outputs as it gives them."""
        with self.casting():
            return model(self.laid_out(x))

    def casting(self) -> contextlib.AbstractContextManager[Any]:
        """Products in the arithmetic's precision."""
        if self.arithmetic.products is None:
            return contextlib.nullcontext()
        return torch.autocast(self.population.device.type, self.arithmetic.products)

    def laid_out(self, x: Tensor) -> Tensor:
        """Images in the arithmetic's memory format; other inputs as they are."""
        if x.dim() != 4 or self.arithmetic.memory_format == torch.contiguous_format:
            return x
        if x.shape[1] == 1:  # both formats at once: only strides tell convolutions which to take
            return x.contiguous().as_strided(x.shape, (x[0].numel(), 1, x.shape[3], 1))
        return x.contiguous(memory_format=self.arithmetic.memory_format)


def store(into: list[Tensor], found: Sequence[Tensor], accumulate: float) -> None:
    """Write gradients where they belong, or add that multiple of them."""
    if accumulate == 0.0:
        torch._foreach_copy_(into, list(found))
    else:
        torch._foreach_add_(into, list(found), alpha=accumulate)


@torch.no_grad()
def differs(one: Way, plain: Way, tool: str, x: Tensor, y: Tensor) -> str | None:
    """Why a way must not replace the plain one, found by trying both: gradients, losses and
    buffers must agree but for rounding. None: it may. The population is as before."""
    population = plain.population
    before = {name: stacked.clone() for name, stacked in population.buffers.items()}
    grad = population.grad.clone()
    rounded = one.arithmetic.products is not None
    try:
        direct = plain.gradients(x, y, None, 0)
        # a module that replaces a buffer is brought back: other ways only change them in place
        population.gather_buffers()
        expected = population.grad.clone()
        buffers = {name: stacked.clone() for name, stacked in population.buffers.items()}
        population.restore(before)
        found = one.gradients(x, y, None, 0)
        same = close(found, direct, rounded) and close(population.grad, expected, rounded)
        same = same and all(close(population.buffers[n], b, rounded) for n, b in buffers.items())
        return None if same else f"{tool} gives other values than direct calls"
    except Exception as error:  # whatever a person's module raises here is a reason, not a failure
        return f"{tool} failed: {first_line(error)}"
    finally:
        population.grad.copy_(grad)
        population.restore(before)


def close(a: Tensor, b: Tensor, rounded: bool = False) -> bool:
    """Equal within a relative tolerance: 1e-3 in float32, 1e-9 in float64, and 3e-2 where products
    were ``rounded`` to bfloat16."""
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    scale = b.norm().clamp_min(1e-12)
    allowed = 3e-2 if rounded else 1e-9 if a.dtype == torch.float64 else 1e-3
    return bool((a - b).norm() <= scale * allowed) or not bool(scale.isfinite())
