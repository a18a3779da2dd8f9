"""Members whose optimiser is one of PyTorch's kind: an object of their own that updates the
parameters of their row."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ravine.catalogue import Part
from ravine.engine.rows.members import Arrays, Column, Facts, Newcomers
from ravine.engine.rows.nested import pack, unpack
from ravine.engine.rows.own_step import is_in_parts
from ravine.engine.rows.theta import ParameterMatrix
from ravine.errors import InputError, RavineError, first_line
from ravine.optim.rows.groups import Now
from ravine.recipe import Recipe


def is_torch(part: Part) -> bool:
    """Whether an optimiser is a person's, or PyTorch's, and not a formula over rows."""
    return "torch" in part.technique.marks


class OwnOptimizer:
    """The optimisers of one member, and the rates at which its parameter groups began."""

    def __init__(self, part: Part, objective: nn.Module):
        self.part = part
        named = _made(part, objective)
        self.names, self.optimizers = list(named), list(named.values())
        # a function that takes no rate says its own: the recipe's multiplies it
        self.lr = float(part.lr) if "lr" in part.technique.own.fields else 1.0
        self.began = [[float(g["lr"]) for g in o.param_groups] for o in self.optimizers]

    def step(self, lr: float, momentum: float | None, name: str | None = None) -> None:
        """A step of all optimisers, or of that of one part of the model."""
        every = zip(self.names, self.optimizers, self.began, strict=True)
        for optimizer, rates in [(o, r) for n, o, r in every if name in (None, n)]:
            for group, began in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr if began == self.lr else began * (lr / self.lr)
                if momentum is not None and momentum == momentum:
                    _set_momentum(group, momentum)
            optimizer.step()

    def state(self) -> tuple[Any, dict[str, Tensor]]:
        return pack([optimizer.state_dict() for optimizer in self.optimizers])

    def load(self, plain: Any, tensors: Mapping[str, Tensor]) -> None:
        stored = unpack(plain, tensors)
        for optimizer, state in zip(self.optimizers, stored, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
            _exactly(optimizer, state)


def _made(part: Part, objective: Any) -> dict[str, Optimizer]:
    """The optimisers by their names: the names of parts of the model where a step is in parts."""
    function, own = part.technique.function(), part.technique.own
    named = [(n, p) for n, p in objective.named_parameters() if p.requires_grad]
    first = own.takes[0] if own.takes else ""
    given: Any = [parameter for _, parameter in named]
    if first in ("model", "module"):
        given = objective.model
    elif first == "named_parameters":
        given = [(name.removeprefix("model."), parameter) for name, parameter in named]
    fields = {name: value for name, value in part.arguments.items() if name in own.fields}
    if is_in_parts(objective.own_step) and first not in ("model", "module"):
        children = objective.model.named_children()
        found = {
            name: function([p for p in child.parameters() if p.requires_grad], **fields)
            for name, child in children
            if any(p.requires_grad for p in child.parameters())
        }
    else:
        found = function(given, **fields)
    listed = list(found) if isinstance(found, list | tuple) else [found]
    named_ones = found if isinstance(found, dict) else {str(i): o for i, o in enumerate(listed)}
    if not named_ones or not all(isinstance(one, Optimizer) for one in named_ones.values()):
        raise InputError(
            "optimizer",
            got=f"{own.name}, which gives {type(found).__name__}",
            expected="a torch.optim.Optimizer, or a list of them",
            repair="for a formula over rows register a function of (w, g, state, t, layout, *, lr) "
            'with @ravine.technique("optimizer")',
        )
    return named_ones


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    elif group.get("momentum"):
        group["momentum"] = momentum


def _exactly(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """PyTorch casts what it loads to the parameter's dtype: put back what was in another one."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, slots in state.get("state", {}).items():
        if not isinstance(place, int) or place >= len(parameters):
            continue
        held = optimizer.state.get(parameters[place], {})
        for name, value in slots.items():
            now = held.get(name)
            if isinstance(value, Tensor) and isinstance(now, Tensor) and now.dtype != value.dtype:
                held[name] = value.clone().to(now.device)


class TorchRows(Column):
    """One optimiser, or several, for each member whose recipe names a person's own; None for the
    others, whose formulas `RowOptimizer` runs."""

    name = "torch_optimizers"

    def __init__(self, population: ParameterMatrix, recipes: Sequence[Recipe]):
        self.population = population
        self.held = _of(recipes, population.objectives)

    def __bool__(self) -> bool:
        return any(own is not None for own in self.held)

    def step(self, now: Now) -> None:
        """A step of every live row from its row of ``grad``."""
        rows = self.population
        if rows.step_part is not None:
            return  # each part has stepped already
        lives = now.lives or now.alive.tolist()
        rates = now.lrs or now.lr.tolist()
        momenta = now.momenta if now.momentum is None else now.momentum.tolist()
        for i, own in enumerate(self.held):
            if own is None or not lives[i]:
                continue
            for parameter, gradient in zip(rows.parameters[i], rows.gradients_of[i], strict=True):
                parameter.grad = gradient
            own.step(rates[i], None if momenta is None else momenta[i])
            for parameter in rows.parameters[i]:
                parameter.grad = None

    def begin(self, rate: Tensor, momentum: Tensor | None, alive: Tensor) -> None:
        """The rates of the step in which parts are going to be stepped."""
        momenta = [None] * len(rate) if momentum is None else momentum.tolist()
        self._now = list(zip(rate.tolist(), momenta, alive.tolist(), strict=True))

    def step_part(
        self, row: int, name: str, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]
    ) -> None:
        """The optimiser of one part of a row's model, in the middle of a step."""
        own, (lr, momentum, alive) = self.held[row], self._now[row]
        if own is None or not alive:
            return
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            own.step(lr, momentum, name)
        for parameter in parameters:
            parameter.grad = None

    # --- a column ---------------------------------------------------------------------------------

    def keep(self, rows: Sequence[int]) -> None:
        self.held = [self.held[row] for row in rows]

    def grow(self, new: Newcomers) -> None:
        self.held = [*self.held, *_of(new.recipes, new.objectives)]

    def arrays(self, rows: Sequence[int]) -> Arrays:
        found: Arrays = {}
        for place, row in enumerate(rows):
            own = self.held[row]
            if own is not None:
                found |= {f"{self.name}/{place}.{n}": t for n, t in own.state()[1].items()}
        return found

    def facts(self, rows: Sequence[int]) -> Facts:
        held = [self.held[row] for row in rows]
        if not any(held):
            return {}
        return {self.name: [own and own.state()[0] for own in held]}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        for place, (own, plain) in enumerate(
            zip(self.held, facts.get(self.name, ()), strict=False)
        ):
            if own is not None:
                prefix = f"{self.name}/{place}."
                own.load(plain, {n.removeprefix(prefix): t for n, t in arrays.items()})

    def row(self, row: int) -> Arrays:
        own = self.held[row]
        return {} if own is None else {f"{self.name}/{n}": t for n, t in own.state()[1].items()}

    def value(self, row: int) -> Facts:
        own = self.held[row]
        return {} if own is None else {self.name: own.state()[0]}

    def put(self, row: int, values: Mapping[str, Any]) -> None:
        own = self.held[row]
        if own is not None:  # its tensors are those of then already
            own.load(values[self.name], own.state()[1])


def _of(recipes: Sequence[Recipe], objectives: Sequence[nn.Module]) -> list[OwnOptimizer | None]:
    return [
        OwnOptimizer(recipe.optimizer, objective) if is_torch(recipe.optimizer) else None
        for recipe, objective in zip(recipes, objectives, strict=True)
    ]


def check_parts(recipe: Recipe) -> None:
    """A step in parts steps their optimisers itself: what comes between gradient and step has no
    place."""
    if not is_torch(recipe.optimizer):
        raise InputError(
            "optimizer",
            got=f"{recipe.optimizer.kind}, a formula over whole rows",
            expected="an optimiser for each part that the step yields",
            repair="optimizer=torch.optim.Adam, or a function of (model) that gives a dictionary "
            "of optimisers by the names of the parts",
        )
    between = [recipe.clip.norm, recipe.clip.tensor_norm, recipe.clip.value]
    between += [recipe.loss.l1, recipe.loss.l2, recipe.loss.lp, recipe.optimizer.accumulate - 1]
    if any(between) or recipe.constraint or recipe.optimizer.lookahead or recipe.start.freeze:
        raise InputError(
            "step",
            got="a step in parts beside clipping, penalties, constraints, lookahead or frozen parts",
            expected="none of them: each part's optimiser steps at once",
            repair="do it in the step itself, for example with torch.nn.utils.clip_grad_norm_",
        )


def check_optimizer(part: Part, objective: nn.Module) -> None:
    """Make the optimiser for a copy of the network, take a step and store it, so that what is wrong
    is found before anything is written."""
    name = part.technique.name.removeprefix("own:")
    objective = copy.deepcopy(objective)
    for parameter in objective.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3) if parameter.requires_grad else None
    try:
        own = OwnOptimizer(part, objective)
        with torch.no_grad():
            own.step(own.lr, None)
    except RavineError:
        raise
    except Exception as error:  # a person's code may fail in any way
        closure = "closure" in str(error)
        raise InputError(
            "optimizer",
            got=f"{name}, whose first step fails ({type(error).__name__}: {first_line(error)})",
            expected="an optimiser whose step() works from the gradients",
            repair="one that asks for a closure needs a loop of its own: ravine.watch(model, "
            "optimizer) goes with it"
            if closure
            else "",
        ) from None
    try:
        own.state()
    except InputError as error:
        raise error.under(f"optimizer: the state of {name}") from None
