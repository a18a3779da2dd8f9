"""Networks made to fit the data: lazy layers learn their shapes, and a head that is replaced gets as
many units as the data has outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import Part, make
from ravine.data.objects.fields import Fields
from ravine.errors import InputError
from ravine.randomness import key
from ravine.recipe import Recipe


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
    row of numbers in which they come. Calls in any other form stay as they are. Without ``always`` only a
    module that takes so many inputs: a step of one's own may call it with something else."""
    if "fields" not in facts:
        return module
    fields = Fields.from_dict(facts["fields"])
    if not always and not _takes(module, fields):
        return module
    for known in module._forward_pre_hooks.values():
        if isinstance(known, partial) and known.func is _spread:
            return module
    module.register_forward_pre_hook(partial(_spread, fields), with_kwargs=True)
    return module


def _takes(module: nn.Module, fields: Fields) -> bool:
    """Whether a module can be called with the inputs of a sample."""
    inputs = () if fields.names else fields.shapes
    try:
        inspect.signature(module.forward).bind(*inputs, **dict.fromkeys(fields.names))
    except (TypeError, ValueError):
        return False
    return True


def _spread(
    fields: Fields, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if len(args) == 1 and isinstance(args[0], tuple) and len(args[0]) == len(fields.shapes) > 1:
        return args[0], kwargs  # as a step finds them in its batch
    packed = len(args) == 1 and isinstance(args[0], Tensor)
    if not packed or args[0].dim() != 2 or args[0].shape[1] != fields.size:
        return None
    inputs, named = fields.unpack(args[0])
    return inputs, {**named, **kwargs}


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
