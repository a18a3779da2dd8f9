"""The parameters of P members of one program as one matrix theta [P, D], their gradients as another.

Every member has a module of its own whose parameters and buffers are views of its row. So a row is
run by calling its module, and an update of theta needs no copying back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ravine.engine.rows.members import Members, Newcomers, Tensors, Values
from ravine.engine.rows.objective import Objective
from ravine.layout import Entry, Layout
from ravine.nn.build import layout as layout_of
from ravine.nn.randomized import Randomized, mark_idle_layers
from ravine.randomness import key
from ravine.recipe import Recipe

_STRIDE = 0x1E3779B97F4A7C15  # from one step's key to the next (a Weyl sequence)
_MASK = 0x7FFFFFFFFFFFFFFF  # keys are non-negative int64


class ParameterMatrix:
    """theta [P, D], grad [P, D] and the stacked buffers (name -> [P, ...]), with the members'
    modules bound to their rows by views."""

    sharded = False  # whether theta holds this rank's part of each parameter alone

    def __init__(
        self,
        objectives: Sequence[Objective],
        seeds: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.device = device
        self.objectives = [self._placed(objective, dtype) for objective in objectives]
        self.layout: Layout = self._layout()
        # steps the optimiser of one part of a row's model, while a run is trained
        self.step_part: Callable[..., None] | None = None
        # adds up the gradient between ranks within a backward pass: ``ranks.buckets``
        self.buckets: Any = None
        self.global_seeds: list[int] | None = None  # of members whose modules draw globally
        self.apart = False  # each row has samples of its own: x [P, B, ...], y [P, B, ...]
        self._random = [
            name
            for name, module in self.objectives[0].named_modules()
            if isinstance(module, Randomized)
        ]
        self.theta = torch.empty(len(objectives), self.layout.size, device=device, dtype=dtype)
        for row, objective in zip(self.theta, self.objectives, strict=True):
            named = dict(objective.named_parameters())
            for entry in self.layout.entries:
                row[entry.start : entry.stop] = self._own(named[entry.name]).reshape(-1)
        self.buffers = _stack_buffers(self.objectives)
        bases = [[key(seed, "layer", i) for i in range(len(self._random))] for seed in seeds]
        self._key_bases = torch.tensor(bases, dtype=torch.int64, device=device)  # [P, layers]
        self._bind()

    def __len__(self) -> int:
        return self.theta.shape[0]

    def _placed(self, objective: Objective, dtype: torch.dtype) -> Objective:
        return objective.to(device=self.device, dtype=dtype)

    def _layout(self) -> Layout:
        return layout_of(self.objectives[0])

    def _own(self, parameter: Tensor) -> Tensor:
        """What theta holds of a parameter."""
        return parameter.detach()

    def _point(self, parameter: nn.Parameter, row: Tensor) -> None:
        """Let a module's parameter be this part of its row."""
        parameter.data = row

    def slopes(self, i: int, loss: Tensor) -> Sequence[Tensor]:
        """The gradients of a loss with respect to row i, in the layout's order."""
        return torch.autograd.grad(loss, self.parameters[i], materialize_grads=True)

    # --- views ------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Make every module's parameters and buffers views of its row, and all other views anew."""
        self.grad = torch.zeros_like(self.theta)  # [P, D]
        self._keys = torch.zeros_like(self._key_bases)
        for layer, name in enumerate(self._random):
            self.buffers[f"{name}.key"] = self._keys[:, layer]
        self.parameters: list[list[nn.Parameter]] = []  # of each row, in the layout's order
        self.gradients_of: list[list[Tensor]] = []  # of each row, views of grad
        # what one member does all must be able to do
        mines = any(objective.mines for objective in self.objectives)
        attacks = any(objective.attacks for objective in self.objectives)
        for i, objective in enumerate(self.objectives):
            objective.mines, objective.attacks = mines, attacks
            named = dict(objective.named_parameters())
            for entry in self.layout.entries:
                self._point(named[entry.name], view(self.theta[i], entry))
            self.parameters.append([named[entry.name] for entry in self.layout.entries])
            self.gradients_of.append([view(self.grad[i], entry) for entry in self.layout.entries])
            self._bind_buffers(i)
            mark_idle_layers(objective, self.buffers)
        self._draws = any(
            isinstance(m, Randomized) and not getattr(m, "idle", False)
            for m in self.objectives[0].modules()
        )

    def _bind_buffers(self, i: int) -> None:
        for name, stacked in self.buffers.items():
            module, leaf = _place(self.objectives[i], name)
            held = module._parameters.get(leaf)
            if held is None:
                module._buffers[leaf] = stacked[i]
            else:  # one that only a step moves
                held.data = stacked[i]

    def take_back(self, i: int) -> None:
        """Take back parameters of row i that a person's optimiser has replaced (``p.data = …``) rather
        than changed in place."""
        if self.sharded:
            return
        row, size = self.theta[i], self.theta.element_size()
        begin = row.data_ptr()
        for parameter, entry in zip(self.parameters[i], self.layout.entries, strict=True):
            if parameter.data_ptr() != begin + size * entry.start:
                own = view(row, entry)
                own.copy_(parameter.detach())
                parameter.data = own

    def gather_buffers(self) -> None:
        """Take back buffers that a module has replaced rather than changed in place."""
        for i, objective in enumerate(self.objectives):
            strayed = False
            for name, stacked in self.buffers.items():
                module, leaf = _place(objective, name)
                now = module._buffers[leaf] if leaf in module._buffers else module._parameters[leaf]
                if now is not None and now.data_ptr() != stacked[i].data_ptr():
                    stacked[i].copy_(now)
                    strayed = True
            if strayed:
                self._bind_buffers(i)

    def restore(self, buffers: dict[str, Tensor]) -> None:
        """Put back buffers that a trial has changed."""
        for name, stacked in self.buffers.items():
            stacked.copy_(buffers[name])
        for i in range(len(self)):
            self._bind_buffers(i)

    def saved_buffers(self) -> dict[str, Tensor]:
        """The buffers that belong to the state: all but the random layers' keys."""
        keys = {f"{name}.key" for name in self._random}
        return {name: stacked for name, stacked in self.buffers.items() if name not in keys}

    # --- a rank's part of each parameter ---------------------------------------------------------

    def parts_of(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """What these rows take of a snapshot's arrays."""
        return arrays

    # --- rows that leave and join -----------------------------------------------------------------

    def register(self, members: Members) -> None:
        """Enter what the rows own into the table; whenever it changes, modules are bound anew."""
        theta = Tensors("theta", self, "theta", lambda new: new.theta, returns=True, stepped=True)
        keys = {f"{name}.key" for name in self._random}  # functions of seed and step
        buffers = Tensors(
            "buffer",
            self,
            "buffers",
            lambda new: new.buffers,
            returns=True,
            stepped=True,
            derived=keys.__contains__,
        )
        layer_keys = Tensors(
            "layer_keys", self, "_key_bases", lambda new: new.layer_keys, saved=False
        )
        objectives = Values("objectives", self, "objectives", lambda new: new.objectives)
        seeds = Values(
            "seeds", self, "global_seeds", lambda new: [recipe.seed for recipe in new.recipes]
        )
        for column in (theta, buffers, layer_keys, objectives, seeds):
            members.add(column)
        members.when_changed(self._bind)

    def newcomers(
        self,
        objectives: Sequence[Objective],
        recipes: Sequence[Recipe],
        numbers: Sequence[int],
        start: int,
        sample_weights: Tensor | None = None,
    ) -> Newcomers:
        """Members that are to join: rows as their objectives and seeds make them."""
        seeds = [recipe.seed for recipe in recipes]
        more = ParameterMatrix(objectives, seeds, device=self.device, dtype=self.theta.dtype)
        return Newcomers(
            list(numbers),
            list(recipes),
            start,
            more.objectives,
            more.theta,
            more.buffers,
            more._key_bases,
            sample_weights,
        )

    # --- modes ------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> None:
        for objective in self.objectives:
            objective.train(mode)

    def seed_step(self, step: int | Tensor) -> None:
        """Give every random layer its key for this step: a function of (member seed, layer,
        step)."""
        if self._draws:
            offset = (step * _STRIDE) & _MASK  # a tensor's product wraps around
            torch.add(self._key_bases, offset, out=self._keys).bitwise_and_(_MASK)


def view(rows: Tensor, entry: Entry) -> Tensor:
    """The entry's tensor in one row [D], or in all rows [P, D] -> [P, *shape]."""
    return rows[..., entry.start : entry.stop].view((*rows.shape[:-1], *entry.shape))


def _place(objective: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return objective.get_submodule(owner), leaf


def _stack_buffers(objectives: Sequence[Objective]) -> dict[str, Tensor]:
    """The buffers of all rows; where a step of a person's own may move them, as those of a network that
    follows the trained one, parameters without gradients too."""
    named = [dict(objective.named_buffers()) for objective in objectives]
    for held, objective in zip(named, objectives, strict=True):
        if objective.own_step is not None:
            held |= {n: p.detach() for n, p in objective.named_parameters() if not p.requires_grad}
    return {name: torch.stack([buffers[name] for buffers in named]) for name in named[0]}
