"""Networks made to fit the data: lazy layers learn their shapes, and a head that is replaced gets as
many units as the data has outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import Part, make
from ravine.catalogue.own import is_needed
from ravine.data.objects.fields import Fields
from ravine.errors import InputError
from ravine.nn.stack import evaluated
from ravine.randomness import key
from ravine.recipe import Recipe
from ravine.records import made


def fitted_model(recipe: Recipe, outputs: int) -> Part:
    """The model part with its head's units set to the data's outputs, where the head is
    replaced."""
    part = recipe.model
    if recipe.start.head != "replace" or part.kind != "layers":
        return part
    layers = part.arguments["layers"]
    dense = [i for i, layer in enumerate(layers) if layer.kind == "dense"]
    if not dense:
        return part
    stored = part.explicit()
    stored["layers"] = [layer.explicit() for layer in layers]
    stored["layers"][dense[-1]]["units"] = outputs
    return make("model", stored)


def shaped(module: nn.Module, shape: tuple[int, ...], tokens: bool) -> nn.Module:
    """The module; one with lazy layers runs once on samples of zeros, so that these know their
    shapes."""
    lazy = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
    if any(isinstance(tensor, lazy) for tensor in (*module.parameters(), *module.buffers())):
        training = module.training
        with torch.no_grad():
            module.eval()(torch.zeros(2, *shape, dtype=torch.int64 if tokens else torch.float32))
        module.train(training)
    return module


def spread(module: nn.Module, facts: Mapping[str, Any], *, always: bool = True) -> nn.Module:
    """The module; where samples have several inputs it is given them, by name or in order, for the
    row of numbers in which they come: as one dictionary, or one object of the data's class, where it takes
    one argument. Calls in any other form stay as they are. Without ``always`` only a module that takes so
    many inputs: a step of one's own may call it with something else."""
    form = facts.get("form", {})
    if "fields" not in facts:
        one = "input" in form and _arguments(module) == 1
        return _hooked(module, OneInput(form["input"], form.get("record", ""))) if one else module
    fields = Fields.from_dict(facts["fields"])
    record = form.get("record", fields.record)
    how = _how(module, fields, record)
    if not always and how == "apart" and not _takes(module, fields):
        return module
    return _hooked(module, SeveralInputs(fields, record, how, tries=not always and how == "whole"))


def _hooked(module: nn.Module, given: OneInput | SeveralInputs) -> nn.Module:
    known = module._forward_pre_hooks.values()
    if not any(isinstance(hook, OneInput | SeveralInputs) for hook in known):
        module.register_forward_pre_hook(given, with_kwargs=True)
    return module


def _takes(module: nn.Module, fields: Fields) -> bool:
    """Whether a module can be called with the inputs of a sample."""
    inputs = () if fields.names else fields.shapes
    try:
        inspect.signature(module.forward).bind(*inputs, **dict.fromkeys(fields.names))
    except (TypeError, ValueError):
        return False
    return True


def _arguments(module: nn.Module) -> int:
    """How many arguments a module must be given in order."""
    try:
        given = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return -1
    return sum(map(is_needed, given))


def _how(module: nn.Module, fields: Fields, record: str) -> str:
    """``apart``: each input is an argument; ``alone``: the one input is; ``whole``: all inputs are one;
    ``row``: the row of numbers is."""
    by_name = bool(fields.names) or bool(record)
    if not by_name or _takes(module, fields) or _arguments(module) != 1:
        return "apart"
    return "alone" if len(fields.names) == 1 else "whole"


@dataclass
class SeveralInputs:
    """Gives a module the inputs that a row of numbers [B, D] holds."""

    fields: Fields
    record: str
    how: str
    tries: bool = False  # it is to be found out first whether the module takes the row itself

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        fields = self.fields
        if len(args) == 1 and type(args[0]) is tuple and len(args[0]) == len(fields.shapes) > 1:
            return args[0], kwargs  # as a step finds them in its batch
        packed = len(args) == 1 and isinstance(args[0], Tensor)
        if not packed or args[0].dim() != 2 or args[0].shape[1] != fields.size:
            return None
        if self.tries:
            self.tries = False
            self.how = "row" if _runs(module, args[0]) else self.how
        if self.how == "row":
            return None
        ordered, named = self.arguments(*fields.unpack(args[0]))
        return ordered, {**named, **kwargs}

    def arguments(
        self, ordered: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the module is called with for inputs in order or by name."""
        if self.how == "alone":
            return (*named.values(),), {}
        return (
            ((made(self.record, named or ordered),), {})
            if self.how == "whole"
            else (ordered, named)
        )


@dataclass
class OneInput:
    """Gives a module that takes the whole sample by name, not its one input, a dictionary or an object of
    the data's class. Which of the two it takes is tried at the first call."""

    name: str
    record: str
    whole: bool | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if len(args) != 1 or not isinstance(args[0], Tensor):
            return None
        if self.whole is None:
            self.whole = not _runs(module, args[0]) and _runs(module, self._sample(args[0]))
        return ((self._sample(args[0]),), kwargs) if self.whole else None

    def _sample(self, x: Tensor) -> Any:
        return made(self.record, {self.name: x})


def _runs(module: nn.Module, given: Any) -> bool:
    with evaluated(module), torch.random.fork_rng(devices=[]):
        try:
            module.forward(given)
        except Exception:  # a person's module may fail in any way
            return False
    return True


def fitted_module(module: nn.Module, recipe: Recipe, outputs: int) -> nn.Module:
    """A module given in Python; where the head is replaced, a new dense layer of as many units as
    the data has outputs."""
    if recipe.start.head != "replace":
        return module
    place, _, name = head_name(module).rpartition(".")
    old = module.get_submodule(head_name(module))
    if not name or not isinstance(old, nn.Linear):
        repair = "end the module with torch.nn.Linear, or give it the head yourself"
        got = f"a module whose last layer is {type(old).__name__}"
        raise InputError("start.head", got=got, expected="a dense one", repair=repair)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(recipe.seed, "init", "head"))
        new = nn.Linear(old.in_features, outputs, bias=old.bias is not None)
    setattr(module.get_submodule(place), name, new.to(old.weight))
    return module


def head_name(model: nn.Module) -> str:
    """The name of the last module that has parameters of its own."""
    return [
        name
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ][-1]


def body_patterns(model: nn.Module) -> list[str]:
    """Patterns (``features.*``) that match every parameter but the head's.

    >>> body_patterns(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    ['0.*']
    """
    head = head_name(model).split(".")
    found = []
    for name, _ in model.named_parameters():
        places = name.split(".")
        if places[: len(head)] == head:
            continue
        shared = next(i for i, place in enumerate(places) if head[i : i + 1] != [place])
        whole = places[: shared + 1]
        found.append(".".join(whole) + (".*" if len(whole) < len(places) else ""))
    return list(dict.fromkeys(found))
