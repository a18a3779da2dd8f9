"""Members whose optimiser is one of PyTorch's kind: an object of their own that updates the
parameters of their row."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ravine.catalogue import Part
from ravine.catalogue.own import is_needed
from ravine.engine.rows.members import Arrays, Column, Facts, Newcomers
from ravine.engine.rows.nested import pack, unpack
from ravine.engine.rows.own_step import is_in_parts
from ravine.engine.rows.theta import ParameterMatrix
from ravine.errors import InputError, RavineError, first_line
from ravine.optim.rows.groups import Now
from ravine.recipe import Recipe

_NUMBERS = "numbers"  # in a stored state


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
        self.closures = [_closure_of(optimizer) for optimizer in self.optimizers]

    @property
    def needs_closure(self) -> bool:
        """Whether a step takes the loss and its gradient at several points, as that of LBFGS."""
        return "needed" in self.closures

    def step(
        self,
        lr: float,
        momentum: float | None,
        name: str | None = None,
        closure: Callable[[], Tensor] | None = None,
    ) -> None:
        """A step of all optimisers, or of that of one part of the model. ``closure`` takes the gradient
        anew, at the weights as they are, and gives the loss."""
        every = zip(self.names, self.optimizers, self.began, self.closures, strict=True)
        for optimizer, rates, wants in [each[1:] for each in every if name in (None, each[0])]:
            for group, began in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr if began == self.lr else began * (lr / self.lr)
                if momentum is not None and momentum == momentum:
                    _set_momentum(group, momentum)
            if wants and closure is not None:
                optimizer.step(closure)  # type: ignore[arg-type]
            else:
                optimizer.step()

    def state(self) -> tuple[Any, dict[str, Tensor]]:
        return pack([_state_of(each) for each in self._every()])

    def load(self, plain: Any, tensors: Mapping[str, Tensor]) -> None:
        links = [link for optimizer in self.optimizers for link in _links(optimizer)]
        for optimizer, state in zip(self._every(), unpack(plain, tensors), strict=False):
            held = {name: each for name, each in state.items() if name != _NUMBERS}
            optimizer.load_state_dict(copy.deepcopy(held))
            _exactly(optimizer, held)
            vars(optimizer).update(copy.deepcopy(state.get(_NUMBERS, {})))
        for outer, inner, name in links:
            setattr(inner, name, getattr(outer, name))

    def _every(self) -> list[Optimizer]:
        """The optimisers, and after them those that they wrap."""
        found = list(self.optimizers)
        for optimizer in found:
            found += [each for each in _wrapped(optimizer) if each not in found]
        return found


def _wrapped(optimizer: Optimizer) -> list[Optimizer]:
    return [each for each in vars(optimizer).values() if isinstance(each, Optimizer)]


def _state_of(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimiser holds: its ``state_dict``, and numbers that it keeps as attributes, which that
    leaves out."""
    kept = {n: v for n, v in vars(optimizer).items() if isinstance(v, int | float | Tensor)}
    return optimizer.state_dict() | ({_NUMBERS: kept} if kept else {})


def _links(outer: Optimizer) -> list[tuple[Optimizer, Optimizer, str]]:
    """What an optimiser shares with those that it wraps, and after loading has to share again."""
    found = []
    for inner in _wrapped(outer):
        groups = len(inner.param_groups) == len(outer.param_groups) and all(
            one is other for one, other in zip(inner.param_groups, outer.param_groups, strict=True)
        )
        shared = (("param_groups", groups), ("state", inner.state is outer.state))
        found += [(outer, inner, name) for name, same in shared if same] + _links(inner)
    return found


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


def _closure_of(optimizer: Optimizer) -> str:
    """Whether an optimiser's step takes a closure: ``needed``, ``taken`` where it may, else nothing.
    PyTorch's own that may take one only call it first."""
    kind = type(optimizer)
    given = list(inspect.signature(kind.step).parameters.values())[1:]
    if any(map(is_needed, given)):
        return "needed"
    named = any(each.name == "closure" for each in given)
    return "taken" if named and not kind.__module__.startswith("torch.optim") else ""


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
        # takes the gradient of one row anew, for optimisers that call a closure
        self.again: Callable[[int, bool], Tensor] | None = None

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
            self._show_gradient(i)
            again = self._closure(i) if any(own.closures) else None
            held = None if again is None else rows.grad[i].clone()
            own.step(rates[i], None if momenta is None else momenta[i], closure=again)
            rows.take_back(i)
            if held is not None:  # what is recorded of the step is the gradient that it began with
                rows.grad[i].copy_(held)
            for parameter in rows.parameters[i]:
                parameter.grad = None

    @property
    def takes_closures(self) -> bool:
        return any(own is not None and any(own.closures) for own in self.held)

    def _show_gradient(self, i: int) -> None:
        rows = self.population
        for parameter, gradient in zip(rows.parameters[i], rows.gradients_of[i], strict=True):
            parameter.grad = gradient

    def _closure(self, i: int) -> Callable[[], Tensor] | None:
        """What a step of row i calls: the loss of the same batch at the weights as they are then, with the
        same random draws, and its gradient. Where these have not moved yet it is known already."""
        rows, again, at = self.population, self.again, self.population.theta[i].clone()
        if again is None:
            return None
        known: list[Tensor] = []

        def closure() -> Tensor:
            rows.take_back(i)
            moved = not torch.equal(rows.theta[i], at)
            with torch.no_grad():
                loss = again(i, moved or bool(known))
            known.append(loss)
            self._show_gradient(i)
            return loss

        return closure

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
        self.population.take_back(row)
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


def check_optimizer(part: Part, objective: Any) -> None:
    """Make the optimiser for a copy of the network, take a step and store it, so that what is wrong
    is found before anything is written."""
    name = part.technique.name.removeprefix("own:")
    objective = copy.deepcopy(objective)
    try:
        own = OwnOptimizer(part, objective)
        with torch.no_grad():
            own.step(own.lr, None, closure=_bowl(objective))
    except RavineError:
        raise
    except Exception as error:  # a person's code may fail in any way
        raise InputError(
            "optimizer",
            got=f"{name}, whose first step fails ({type(error).__name__}: {first_line(error)})",
            expected="an optimiser whose step() works from the gradients, or whose step(closure) calls "
            "a function that takes them anew and gives the loss",
        ) from None
    if own.needs_closure and is_in_parts(objective.own_step):
        raise InputError(
            "optimizer",
            got=f"{name}, whose step calls a closure, beside a step in parts",
            expected="an optimiser whose step() works from the gradient of its part",
            repair="a step that returns one loss, without yield, goes with it",
        )
    try:
        own.state()
    except InputError as error:
        raise error.under(f"optimizer: the state of {name}") from None


def _bowl(objective: nn.Module) -> Callable[[], Tensor]:
    """A loss on which any optimiser can be tried: the distance of the parameters from places beside
    them; its gradient is there already."""
    moves = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    places = [parameter.detach() - 1e-3 for parameter in moves]

    def closure() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for parameter, place in zip(moves, places, strict=True):
            parameter.grad = parameter.detach() - place
            total += 0.5 * parameter.grad.double().square().sum().cpu()
        return total

    closure()
    return closure
