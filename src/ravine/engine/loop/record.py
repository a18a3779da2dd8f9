"""What a training loop reports about its members, and where it is kept: a run directory, or lists in
memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from ravine.measures import NOT_METRICS

Kind = Literal["latest", "final", "trace"]


class Record(Protocol):
    """What happened to the members of one population. A ``step`` is a number of steps done; the
    losses of one member are indexed from 0."""

    lasts: bool  # whether the state of members can be read back later, to resume from

    def add_steps(
        self, first_step: int, members: Sequence[int], losses: np.ndarray, norms: np.ndarray
    ) -> None:
        """Losses and gradient norms [n, P] of the steps from ``first_step``."""

    def add_epochs(self, rows: Sequence[dict[str, Any]]) -> None:
        """The metrics of members at the end of an epoch: member, epoch, step, seconds, and metrics
        by name."""

    def add_event(
        self,
        step: int,
        member: int | None,
        kind: str,
        text: str,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Something that happened; None is not a single member."""

    def set_result(self, member: int, result: dict[str, Any]) -> None:
        """How a member ended."""

    def snapshot(
        self,
        kind: Kind,
        step: int,
        lead: int,
        arrays: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        """The state of members: the ``latest`` to resume from, the ``final`` one of those that have
        ended, or a ``trace`` of weights on the way. ``lead`` is the first member of the loop."""

    def sync(self) -> None:
        """Write everything reported so far to the disk; called before a snapshot."""

    def epochs(self, member: int) -> list[dict[str, Any]]:
        """The metrics of a member so far, in order."""

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind: step, member, kind, text, data."""


class Memory:
    """A record in memory. Of snapshots it keeps the final weights alone.

    >>> record = Memory()
    >>> record.add_steps(0, [7], np.array([[2.0], [1.0]]), np.ones((2, 1)))
    >>> record.losses(7).tolist()
    [2.0, 1.0]
    """

    lasts = False

    def __init__(self) -> None:
        self.steps = 0  # that all members together have taken
        self.results: dict[int, dict[str, Any]] = {}
        self.finals: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}  # weights [D], buffers
        self._steps: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._epochs: dict[int, list[dict[str, Any]]] = {}
        self._events: list[dict[str, Any]] = []

    def add_steps(
        self, first_step: int, members: Sequence[int], losses: np.ndarray, norms: np.ndarray
    ) -> None:
        self.steps += losses.size
        for j, member in enumerate(members):
            self._steps.setdefault(member, []).append((losses[:, j], norms[:, j]))

    def losses(self, member: int) -> np.ndarray:
        """The loss of every step of a member [steps]."""
        return np.concatenate([np.zeros(0), *(block[0] for block in self._steps.get(member, []))])

    def norms(self, member: int) -> np.ndarray:
        """The gradient norm of every step of a member [steps]."""
        return np.concatenate([np.zeros(0), *(block[1] for block in self._steps.get(member, []))])

    def add_epochs(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self._epochs.setdefault(row["member"], []).append(dict(row))

    def add_event(
        self,
        step: int,
        member: int | None,
        kind: str,
        text: str,
        data: dict[str, Any] | None = None,
    ) -> None:
        event = {"step": step, "member": member, "kind": kind, "text": text, "data": data or {}}
        if event not in self._events:
            self._events.append(event)

    def set_result(self, member: int, result: dict[str, Any]) -> None:
        self.results[member] = result

    def snapshot(
        self,
        kind: Kind,
        step: int,
        lead: int,
        arrays: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        if kind != "final":
            return
        prefix = "final_buffer/"
        buffers = {n.removeprefix(prefix): t for n, t in arrays.items() if n.startswith(prefix)}
        for row, member in enumerate(facts["members"]):
            own = {name: stacked[row].clone() for name, stacked in buffers.items()}
            self.finals[member] = arrays["final"][row].clone(), own

    def sync(self) -> None:
        pass

    def epochs(self, member: int) -> list[dict[str, Any]]:
        return self._epochs.get(member, [])

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event["kind"] == kind]


def metrics_of(row: Mapping[str, Any]) -> list[str]:
    """The names of the metrics of an epoch's row."""
    return sorted(name for name in row if name not in NOT_METRICS)


def last_train_loss(record: Record, member: int) -> float:
    """The training loss of a member's last epoch; NaN where it has none."""
    value = (record.epochs(member) or [{}])[-1].get("train_loss")
    return math.nan if value is None else float(value)
