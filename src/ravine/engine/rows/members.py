"""Everything that the members of a population own, registered once.

Members are the rows of a population. Each owns many things: its weights, optimiser slots, averages,
best weights, stop state, recipe, … One *column* is one such thing for all members. What happens to
members (some leave, others join, their state is written, read, taken back or replayed) happens to
all columns, so that none can be forgotten.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import InputError
from ravine.optim.rows.optimizer import RowOptimizer
from ravine.recipe import Recipe

Arrays = dict[str, Tensor]
Facts = dict[str, Any]


@dataclass
class Newcomers:
    """Members that join a population, and what they bring."""

    numbers: list[int]  # their places in the run
    recipes: list[Recipe]
    start: int  # the population's step that is their step 0
    objectives: Sequence[nn.Module]
    theta: Tensor  # [n, D]
    buffers: Arrays  # name -> [n, ...]
    layer_keys: Tensor  # [n, random layers]
    sample_weights: Tensor | None = None  # [n, N]

    def __len__(self) -> int:
        return len(self.numbers)


class Column:
    """One thing that every member owns. What a kind of column does not have, it leaves as it is
    here."""

    name: str

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order."""
        raise NotImplementedError

    def grow(self, new: Newcomers) -> None:
        """Append rows."""
        raise NotImplementedError

    def arrays(self, rows: Sequence[int]) -> Arrays:
        """What a snapshot of these rows stores as arrays."""
        return {}

    def facts(self, rows: Sequence[int]) -> Facts:
        """What a snapshot of these rows stores as JSON."""
        return {}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take over what ``arrays`` and ``facts`` of as many rows gave."""

    def row(self, row: int) -> Arrays:
        """The tensors of one row that a return to an earlier state replaces, live."""
        return {}

    def value(self, row: int) -> Facts:
        """The plain values of one row that a return to an earlier state replaces."""
        return {}

    def put(self, row: int, values: Mapping[str, Any]) -> None:
        """Replace the plain values of one row."""

    def changed_by_step(self) -> list[Tensor]:
        """The tensors that a step changes, live: a trial of a step must put them back."""
        return []


class Tensors(Column):
    """``owner.attribute``: a tensor [P, ...], or a dict of such tensors; None where no member has
    it.

    ``new`` gives the rows of members that join. ``saved``: it is part of snapshots. ``returns``: a
    member that goes back to an earlier state gets its row of then. ``stepped``: a step changes it.
    ``derived`` names the entries of a dict that are computed anew and need no saving.
    """

    def __init__(
        self,
        name: str,
        owner: Any,
        attribute: str,
        new: Callable[[Newcomers], Any],
        *,
        saved: bool = True,
        returns: bool = False,
        stepped: bool = False,
        derived: Callable[[str], bool] = lambda name: False,
    ):
        self.name, self.owner, self.attribute, self.new = name, owner, attribute, new
        self.saved, self.returns, self.stepped, self.derived = saved, returns, stepped, derived

    @property
    def held(self) -> Any:
        return getattr(self.owner, self.attribute)

    def _named(self) -> Arrays:
        """What belongs to the state, by its name in snapshots."""
        held = self.held
        if held is None:
            return {}
        if isinstance(held, Tensor):
            return {self.name: held}
        return {f"{self.name}/{key}": t for key, t in held.items() if not self.derived(key)}

    def _each(self, change: Callable[[Tensor, Any], Tensor], more: Any = None) -> None:
        held = self.held
        if held is None:
            return
        if isinstance(held, Tensor):
            found: Any = change(held, more)
        else:
            found = {key: change(t, None if more is None else more[key]) for key, t in held.items()}
        setattr(self.owner, self.attribute, found)

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(list(rows), dtype=torch.int64)
        self._each(lambda t, _: t.detach().index_select(0, index.to(t.device)))

    def grow(self, new: Newcomers) -> None:
        if self.held is not None:
            self._each(lambda t, more: torch.cat([t.detach(), more.detach().to(t)]), self.new(new))

    def arrays(self, rows: Sequence[int]) -> Arrays:
        named = self._named() if self.saved else {}
        return {name: tensor[list(rows)] for name, tensor in named.items()}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        if not self.saved:
            return
        if self.held is None and self.name in arrays:  # only the snapshot's members have it
            setattr(self.owner, self.attribute, arrays[self.name])
        for name, tensor in self._named().items():
            if name not in arrays or arrays[name].shape != tensor.shape:
                stored = tuple(arrays[name].shape) if name in arrays else "none"
                raise InputError(
                    "model",
                    got=f"{name} of shape {tuple(tensor.shape)}",
                    expected=f"the run's own model, for which {stored} is stored",
                )
            tensor.copy_(arrays[name])

    def row(self, row: int) -> Arrays:
        named = self._named() if self.returns else {}
        return {name: tensor[row] for name, tensor in named.items()}

    def changed_by_step(self) -> list[Tensor]:
        if not self.stepped or self.held is None:
            return []
        return [self.held] if isinstance(self.held, Tensor) else list(self.held.values())


class Values(Column):
    """``owner.attribute``: a list of P plain values or objects; None where no member has it.

    ``state`` gives a value as JSON and ``restore`` takes it back; without ``state`` it is not in
    snapshots.
    """

    def __init__(
        self,
        name: str,
        owner: Any,
        attribute: str,
        new: Callable[[Newcomers], Sequence[Any]],
        state: Callable[[Any], Any] | None = None,
        restore: Callable[[Any, Any], Any] = lambda own, stored: stored,
        *,
        returns: bool = False,
    ):
        self.name, self.owner, self.attribute, self.new = name, owner, attribute, new
        self.state, self.restore, self.returns = state, restore, returns

    @property
    def held(self) -> Any:
        return getattr(self.owner, self.attribute)

    def keep(self, rows: Sequence[int]) -> None:
        if self.held is not None:
            setattr(self.owner, self.attribute, [self.held[row] for row in rows])

    def grow(self, new: Newcomers) -> None:
        if self.held is not None:
            setattr(self.owner, self.attribute, [*self.held, *self.new(new)])

    def facts(self, rows: Sequence[int]) -> Facts:
        state = self.state
        return {} if state is None else {self.name: [state(self.held[row]) for row in rows]}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        if self.state is not None:
            pairs = zip(self.held, facts[self.name], strict=True)
            found = [self.restore(own, stored) for own, stored in pairs]
            setattr(self.owner, self.attribute, found)

    def value(self, row: int) -> Facts:
        return {self.name: self.held[row]} if self.returns else {}

    def put(self, row: int, values: Mapping[str, Any]) -> None:
        if self.returns and self.name in values:
            self.held[row] = values[self.name]


class Slots(Column):
    """The optimiser's slots, which it keeps by groups of members with the same rule."""

    name = "optimizer"

    def __init__(self, optimizer: RowOptimizer):
        self.optimizer = optimizer

    def keep(self, rows: Sequence[int]) -> None:
        self.optimizer.keep(list(rows))

    def grow(self, new: Newcomers) -> None:
        self.optimizer.grow([recipe.optimizer for recipe in new.recipes])

    def arrays(self, rows: Sequence[int]) -> Arrays:
        optimizer = self.optimizer
        if list(rows) != list(range(len(optimizer.parts))):
            optimizer = copy.deepcopy(optimizer)
            optimizer.keep(list(rows))
        slots = optimizer.state()
        return {f"{self.name}/{name}": tensor for name, tensor in slots.items()}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        prefix = f"{self.name}/"
        named = {n.removeprefix(prefix): t for n, t in arrays.items() if n.startswith(prefix)}
        self.optimizer.load_state(named)

    def row(self, row: int) -> Arrays:
        return self.optimizer.row(row)

    def changed_by_step(self) -> list[Tensor]:
        return list(self.optimizer.state().values())


class Members:
    """The table of all columns. ``numbers`` are the members' places in the run, ``recipes`` their
    recipes.

    >>> from types import SimpleNamespace
    >>> owner = SimpleNamespace(age=torch.tensor([3, 1, 2]))
    >>> members = Members([Recipe(), Recipe(), Recipe()])
    >>> members.add(Tensors("age", owner, "age", lambda new: torch.zeros(len(new))))
    >>> members.keep([2, 0])
    >>> owner.age.tolist(), members.numbers
    ([2, 3], [2, 0])
    """

    def __init__(self, recipes: Sequence[Recipe], numbers: Sequence[int] | None = None):
        self.recipes = list(recipes)
        self.numbers = list(range(len(self.recipes)) if numbers is None else numbers)
        self.columns: dict[str, Column] = {}
        self._listeners: list[Callable[[], None]] = []
        # snapshots name their members and recipes; whoever reads one knows both already
        self.add(
            Values("members", self, "numbers", lambda new: new.numbers, state=int, restore=_own)
        )
        self.add(
            Values("recipes", self, "recipes", lambda new: new.recipes, state=_hash, restore=_own)
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, column: Column) -> None:
        """Register a column; it holds as many rows as there are members now."""
        assert column.name not in self.columns, column.name
        self.columns[column.name] = column

    def when_changed(self, listener: Callable[[], None]) -> None:
        """Call this whenever members have left or joined."""
        self._listeners.append(listener)

    def keep(self, rows: Sequence[int]) -> None:
        """Compaction: only these rows stay, in this order."""
        for column in self.columns.values():
            column.keep(rows)
        self._tell()

    def grow(self, new: Newcomers) -> None:
        """Refilling: append the rows of members that join."""
        for column in self.columns.values():
            column.grow(new)
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def state(self, rows: Sequence[int] | None = None) -> tuple[Arrays, Facts]:
        """Arrays and JSON facts of some rows, or of all: what a snapshot stores."""
        rows = range(len(self)) if rows is None else rows
        arrays: Arrays = {}
        facts: Facts = {}
        for column in self.columns.values():
            arrays |= column.arrays(rows)
            facts |= column.facts(rows)
        return arrays, facts

    @torch.no_grad()
    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take over the state of a snapshot whose members are these, in the same order."""
        for column in self.columns.values():
            column.load(arrays, facts)

    def take(self, row: int) -> tuple[Arrays, Facts]:
        """A copy of what a member gets back when it returns to its present state."""
        arrays: Arrays = {}
        values: Facts = {}
        for column in self.columns.values():
            arrays |= {name: t.detach().clone() for name, t in column.row(row).items()}
            values |= column.value(row)
        return arrays, values

    @torch.no_grad()
    def put(self, row: int, arrays: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Return a member to a state that ``take`` gave."""
        for column in self.columns.values():
            for name, tensor in column.row(row).items():
                if name in arrays:  # else it came later, and goes with the values
                    tensor.copy_(arrays[name])
            column.put(row, values)

    def changed_by_step(self) -> list[Tensor]:
        """Every tensor that a step changes, live."""
        return [t for column in self.columns.values() for t in column.changed_by_step()]


def _hash(recipe: Recipe) -> str:
    return recipe.hash


def _own(own: Any, stored: Any) -> Any:
    return own
