"""Callables of a person's own that look on while a run is trained, and may end a member."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ravine.errors import InputError

Hook = Callable[[dict[str, Any]], Any]


@dataclass
class Hooks:
    """``on_epoch`` is given each member's metrics at the end of its epochs, ``on_step`` its step, loss,
    gradient norm and learning rate after every step. They get copies, so that they change nothing;
    ``"stop"`` ends the member there.

    >>> hooks = Hooks(on_epoch=lambda row: "stop" if row["val_loss"] < 0.1 else None)
    >>> hooks.epoch({"member": 0, "val_loss": 0.05}), hooks.asked
    (True, {0: 'on_epoch gave "stop"'})
    """

    on_epoch: Hook | None = None
    on_step: Hook | None = None
    asked: dict[int, str] = field(default_factory=dict)  # why members end, by their numbers

    def __post_init__(self) -> None:
        for name in ("on_epoch", "on_step"):
            hook = getattr(self, name)
            if hook is not None and not _takes_one(hook):
                expected = "a function of (row), a dictionary of numbers"
                got = hook if not callable(hook) else "a function of other arguments"
                repair = 'def seen(row): return "stop" if row["step"] > 100 else None'
                raise InputError(name, got=got, expected=expected, repair=repair)

    def epoch(self, row: Mapping[str, Any]) -> bool:
        """Whether ``on_epoch`` ends this member."""
        return self._call("on_epoch", self.on_epoch, row)

    def ended(self, row: Mapping[str, Any]) -> str | None:
        """Why ``on_epoch``, or ``on_step`` before, ends this member; None where neither does."""
        self.epoch(row)
        return self.asked.get(row["member"])

    def step(self, row: Mapping[str, Any]) -> bool:
        """Whether ``on_step`` ends this member."""
        return self._call("on_step", self.on_step, row)

    def _call(self, name: str, hook: Hook | None, row: Mapping[str, Any]) -> bool:
        given = None if hook is None else hook(dict(row))
        if given not in (None, "stop"):
            repair = "a hook looks on; what a step does belongs into step=, loss= or optimizer="
            raise InputError(name, got=given, expected='None, or "stop"', repair=repair)
        if given == "stop":
            self.asked[row["member"]] = f'{name} gave "stop"'
        return given == "stop"


def _takes_one(hook: Any) -> bool:
    """Whether it can be called with a row."""
    if not callable(hook):
        return False
    try:
        inspect.signature(hook).bind({})
    except TypeError:
        return False
    except ValueError:  # of a builtin, which does not say
        return True
    return True
