"""An optimiser that holds a network's parameters already, as a recipe says it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ravine.errors import InputError

# PyTorch's optimisers that the catalogue has, and its names for their options
_NAMES: dict[type, tuple[str, tuple[str, ...]]] = {
    torch.optim.SGD: ("sgd", ("momentum", "dampening", "nesterov", "weight_decay")),
    torch.optim.Adam: ("adam", ("betas", "eps", "weight_decay")),
    torch.optim.AdamW: ("adamw", ("betas", "eps", "weight_decay")),
    torch.optim.RMSprop: ("rmsprop", ("alpha", "eps", "momentum", "centered", "weight_decay")),
}
_OTHERWISE = ("amsgrad", "maximize")  # options that make another algorithm
_LR = ("lr", "initial_lr")


def described(optimizer: Optimizer, model: nn.Module) -> Any:
    """The part of a recipe that does what an optimiser does to a model: its name and numbers, or a
    function that makes it anew with the same parameter groups.

    Errors: it holds none of the model's parameters.

    >>> net = nn.Linear(2, 1)
    >>> described(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), net)["momentum"]
    0.9
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held & set(names):
        raise InputError(
            "optimizer",
            got=f"{type(optimizer).__name__} of {len(held)} parameters, none of them the model's",
            expected="an optimiser of the model's parameters",
            repair=f"torch.optim.{type(optimizer).__name__}(model.parameters(), …)",
        )
    return _by_name(optimizer) or _anew(optimizer, names)


def unmoved(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """The names of the parameters that an optimiser does not hold."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in held]


def _by_name(optimizer: Optimizer) -> dict[str, Any] | None:
    """Where the catalogue has it, and all parameters have the same options."""
    if type(optimizer) not in _NAMES:
        return None
    name, options = _NAMES[type(optimizer)]
    first = optimizer.param_groups[0]
    same = all(
        group[option] == first[option]
        for group in optimizer.param_groups
        for option in ("lr", *options)
    )
    if not same or any(first.get(option) for option in _OTHERWISE):
        return None
    numbers = {option: first[option] for option in options if option != "betas"}
    if "betas" in options:
        numbers["beta1"], numbers["beta2"] = map(float, first["betas"])
    numbers = {key: v if isinstance(v, bool) else float(v) for key, v in numbers.items()}
    return {"kind": name, "lr": float(first["lr"]), "decay": "all", **numbers}


def _anew(optimizer: Optimizer, names: Mapping[int, str]) -> Callable[..., Optimizer]:
    """A function of the named parameters that makes the optimiser with its groups; the group with the
    highest rate has the recipe's."""
    kind = type(optimizer)
    top = max(float(group["lr"]) for group in optimizer.param_groups)
    known = inspect.signature(kind).parameters
    defaults = {k: v for k, v in optimizer.defaults.items() if k in known and k not in _LR}
    groups = []
    for group in optimizer.param_groups:
        whose = tuple(names[id(p)] for p in group["params"] if id(p) in names)
        options = {k: v for k, v in group.items() if k not in ("params", *_LR)}
        groups.append((whose, options, float(group["lr"]) / top if top else 1.0))

    def made(named_parameters: Any, lr: float) -> Optimizer:
        named = dict(named_parameters)
        parts = []
        for whose, options, share in groups:
            found = [p for name, p in named.items() if name in whose]
            if found:
                parts.append({**options, "params": found, "lr": lr * share})
        return kind(parts, **{**defaults, **({"lr": lr} if "lr" in known else {})})

    def as_given(named_parameters: Any, lr: float = top) -> Optimizer:
        return made(named_parameters, lr)

    def climbing(named_parameters: Any, lr: float = top, maximize: bool = True) -> Optimizer:
        return made(named_parameters, lr)  # maximize is a field here, which the doctor reads

    chosen: Callable[..., Optimizer] = climbing if defaults.get("maximize") else as_given
    chosen.__name__ = kind.__name__
    return chosen
