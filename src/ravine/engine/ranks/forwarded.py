"""Records of ranks beside the one that writes. What happens to members that train there is sent to it,
as JSON and safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ravine.engine.directory_record import DirectoryRecord
from ravine.engine.loop.record import Memory
from ravine.rundir import RunDir

Call = tuple[int, str, tuple[Any, ...], dict[str, Any]]  # program, a record's method, its arguments
_WRITING = (
    "add_steps",
    "add_epochs",
    "add_event",
    "set_result",
    "snapshot",
    "sync",
    "describe",
    "truncate",
)


class ForwardedRecord(DirectoryRecord):
    """A record in a run directory that another rank writes: calls are kept in ``calls`` until they
    are sent. What it is asked for are the epochs since this process began, or what is stored."""

    def __init__(self, rundir: RunDir, number: int, calls: list[Call]):
        super().__init__(rundir, number)
        self._epochs: dict[int, list[dict[str, Any]]] = {}
        for name in _WRITING:
            setattr(self, name, self._forward(name, calls))

    def _forward(self, name: str, calls: list[Call]) -> Callable[..., None]:
        def forward(*given: Any, **named: Any) -> None:
            if name == "add_epochs":
                for row in given[0]:
                    self._epochs.setdefault(row["member"], []).append(dict(row))
            calls.append((self.number, name, tuple(map(_copied, given)), _copied(named)))

        return forward

    def epochs(self, member: int) -> list[dict[str, Any]]:
        """The epochs since this process began, or what is stored."""
        return self._epochs.get(member) or self.rundir.epochs(member)


class Unwritten(Memory):
    """The record of a rank whose leading rank writes the same: kept in memory. What was stored before
    this process began, such as a change of the learning rate, holds here too."""

    def __init__(self, rundir: RunDir):
        super().__init__()
        self._events = rundir.events()


def _copied(value: Any) -> Any:
    """As it is now: training goes on before it is sent."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone().contiguous()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return value


def encode(calls: Sequence[Call]) -> Tensor:
    """Calls as bytes."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            name = str(len(tensors))
            tensors[name] = torch.as_tensor(value)
            return {"tensor": name, "numpy": isinstance(value, np.ndarray)}
        if isinstance(value, Mapping):
            return {"table": {name: plain(each) for name, each in value.items()}}
        return value

    listed = [
        (number, name, list(map(plain, given)), plain(named))
        for number, name, given, named in calls
    ]
    text = json.dumps(listed, default=float).encode()
    tensors["calls"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return torch.frombuffer(bytearray(save(tensors)), dtype=torch.uint8)


def perform(sent: Tensor, rundir: RunDir) -> None:
    """Do in the run directory what calls ask for."""
    tensors = load(sent.numpy().tobytes())

    def value(held: Any) -> Any:
        if isinstance(held, dict) and "tensor" in held:
            found = tensors[held["tensor"]]
            return found.numpy() if held["numpy"] else found
        if isinstance(held, dict):
            return {name: value(each) for name, each in held["table"].items()}
        return held

    for number, name, given, named in json.loads(tensors["calls"].numpy().tobytes()):
        getattr(DirectoryRecord(rundir, number), name)(*map(value, given), **value(named))
