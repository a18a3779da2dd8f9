"""Whether memory holds a network, before memory is asked for: past its end the kernel ends this process, or
another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ravine.errors import InputError
from ravine.machine import memory
from ravine.storage.files import out_of_memory

EACH = 12  # bytes of a number while a network is built: in float32, and in float64
_SIZED: frozenset[Callable[..., Any]] = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}
)
_LESS = "a network that fits into memory"


class Room(TorchFunctionMode):
    """While a network is built: an array that does not fit into memory beside those that were made before is
    an InputError, and so is what a layer computes from one sample where PyTorch gets no memory for it.

    >>> with Room():
    ...     torch.nn.Linear(10**9, 10**9)
    Traceback (most recent call last):
    ...
    ravine.errors.InputError: got 'an array of 1,000,000,000 x 1,000,000,000 numbers'; expected a network that fits into memory
    """

    def __init__(self) -> None:
        super().__init__()
        self.left = memory() / EACH

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function in _SIZED:
            self._take(args, kwargs or {})
        try:
            return function(*args, **(kwargs or {}))
        except (RuntimeError, MemoryError) as error:
            if "without overflow" in str(error):
                raise InputError("", expected="numbers that float32 can hold") from None
            if not out_of_memory(error):
                raise
            got = "a layer that computes more than that from one sample"
            raise InputError("", got=got, expected=_LESS) from None

    def _take(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        sizes = kwargs.get("size", args[0] if len(args) == 1 else args)
        sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
        self.left -= math.prod(sizes)
        if self.left < 0:
            shape = " x ".join(f"{int(size):,}" for size in sizes)
            raise InputError("", got=f"an array of {shape} numbers", expected=_LESS)


def check_members(members: int, parameters: int, each: int) -> None:
    """Refuse members whose parameters, gradients and optimiser's numbers of ``each`` bytes do not fit into
    memory beside each other."""
    if 3 * members * parameters * each > memory():
        got = (
            f"{members:,} networks of {parameters:,} parameters"
            if members > 1
            else f"a network of {parameters:,} parameters"
        )
        raise InputError(
            "model",
            got=got,
            expected="what fits into memory, its gradients and optimiser's numbers beside it",
        )
