"""What a network gives besides one tensor: dictionaries, tuples and objects of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import InputError
from ravine.records import fields_of, is_named_tuple

ANSWERS = ("logits", "scores", "output", "outputs", "prediction", "predictions")


def answer_in(output: Any) -> Tensor:
    """The answer in a network's outputs: by name ``logits``, ``scores``, ``output`` or ``prediction``,
    or the only tensor of a dictionary, named tuple or dataclass; the first tensor of a tuple.

    >>> a, b = torch.zeros(2), torch.ones(2)
    >>> answer_in({"hidden": b, "logits": a}) is a, answer_in((a, b)) is a
    (True, True)

    Errors: outputs by name, of which none is called so.
    """
    if isinstance(output, Tensor):
        return output
    named = _by_name(output)
    if named is None:
        found = output if isinstance(output, tuple | list) else ()
        first = _first(found)
        if first is None:
            raise InputError(
                "model",
                got=f"an output of type {type(output).__name__}",
                expected="a tensor, or a dictionary or tuple of tensors",
                repair='return the scores alone, or a dictionary with "logits"; for several heads '
                'use loss = {kind = "multi_task", …}, for anything else step=a function of '
                "(model, batch)",
            )
        return first
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    called = next((name for name in ANSWERS if name in tensors), None)
    if called is None and len(tensors) != 1:
        raise InputError(
            "model",
            got=f"outputs called {', '.join(map(str, named))}",
            expected="one of them called logits, which is the answer",
            repair="return {'logits': …}, or say what the loss is by step=",
        )
    return tensors[called] if called is not None else next(iter(tensors.values()))


def has_answer(output: Any) -> bool:
    """Whether outputs say which of them is the answer.

    >>> has_answer({"mean": torch.zeros(2), "spread": torch.ones(2)})
    False
    """
    try:
        answer_in(output)
    except InputError:
        return False
    return True


def shown(output: Any) -> Tensor:
    """The answer; where outputs by name do not say which it is, so that only a loss of one's own can read
    them, the first tensor."""
    named = None if isinstance(output, Tensor) or has_answer(output) else _by_name(output)
    first = None if named is None else _first(named.values())
    return answer_in(output) if first is None else first


def judged(loss: nn.Module, output: Any) -> Any:
    """What a loss is given of a network's outputs: all, where it takes several, else the answer."""
    return output if getattr(loss, "takes_several", False) else answer_in(output)


def joined(output: Any, *, heads: bool) -> Tensor:
    """A network's outputs as one tensor: with ``heads`` those of all, side by side, else the answer."""
    if heads and isinstance(output, tuple | list):
        return torch.cat([head.reshape(len(head), -1) for head in output], 1)
    return shown(output)


def _first(values: Iterable[Any]) -> Tensor | None:
    return next((each for each in values if isinstance(each, Tensor)), None)


def _by_name(output: Any) -> Mapping[str, Any] | None:
    named = fields_of(output)
    in_order = is_named_tuple(output) and not any(name in ANSWERS for name in named or ())
    return None if in_order else named
