"""Fine-tuning: weights from a Ravine run or a safetensors file, a new head, frozen parameters,
learning rates by depth."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ravine.catalogue import Part, make
from ravine.errors import InputError
from ravine.layout import Layout
from ravine.randomness import key
from ravine.recipe import Recipe, Start


def is_run(weights: str | None) -> bool:
    """Whether fine-tuning starts from a run directory."""
    return weights is not None and Path(weights).is_dir()


def adopt(recipe: Recipe) -> Recipe:
    """A recipe that starts from a run and names no model takes that run's model."""
    if not is_run(recipe.start.weights) or "model" in recipe.model_fields_set:
        return recipe
    return recipe.edit({"model": _source(recipe.start).recipe.model.said()})


def carried_over(recipe: Recipe) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
    """The preprocessing of the run that a recipe starts from, where the recipe names none of its
    own."""
    if not is_run(recipe.start.weights) or recipe.data.preprocess:
        return None
    return _source(recipe.start).pipeline.state()


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
    said = part.said()
    said["layers"] = [layer.said() for layer in layers]
    said["layers"][dense[-1]]["units"] = outputs
    return make("model", said)


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


def fitted_module(module: nn.Module, recipe: Recipe, outputs: int) -> nn.Module:
    """A module given in Python; where the head is replaced, a new dense layer of as many units as
    the data has outputs."""
    if recipe.start.head != "replace":
        return module
    place, _, name = _head(module).rpartition(".")
    old = module.get_submodule(_head(module))
    if not name or not isinstance(old, nn.Linear):
        repair = "end the module with torch.nn.Linear, or give it the head yourself"
        got = f"a module whose last layer is {type(old).__name__}"
        raise InputError("start.head", got=got, expected="a dense one", repair=repair)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(recipe.seed, "init", "head"))
        new = nn.Linear(old.in_features, outputs, bias=old.bias is not None)
    setattr(module.get_submodule(place), name, new.to(old.weight))
    return module


def load(model: nn.Module, start: Start) -> None:
    """Copy the source's tensors into a model by name; a replaced head keeps its own initial
    values."""
    if start.weights is None:
        return
    source = _tensors(start)
    head = _head(model) if start.head == "replace" else ""
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            if head and name.startswith(f"{head}."):
                continue
            if name not in source or source[name].shape != tensor.shape:
                found = tuple(source[name].shape) if name in source else "nothing of that name"
                raise InputError(
                    "start.weights",
                    got=f"{found} for {name}",
                    expected=f"a tensor of shape {tuple(tensor.shape)}",
                    repair='start.head = "replace" gives the last layer new weights'
                    if name.startswith(_head(model))
                    else "",
                )
            tensor.copy_(source[name])


def frozen(layout: Layout, start: Start) -> Tensor | None:
    """Which columns do not move [D]; None when all do."""
    if not start.freeze:
        return None
    still = torch.zeros(layout.size, dtype=torch.bool)
    for pattern in start.freeze:
        matched = [e for e in layout.entries if fnmatchcase(e.name.removeprefix("model."), pattern)]
        if not matched:
            names = ", ".join(e.name.removeprefix("model.") for e in layout.entries[:8])
            raise InputError(
                "start.freeze",
                got=pattern,
                expected=f"a pattern that matches a parameter: {names}, …",
            )
        for entry in matched:
            still[entry.start : entry.stop] = True
    return still


def depth_factors(layout: Layout, decay: float) -> Tensor:
    """The learning rate's factor of every column [D]: 1 for the last layer, ``decay`` less for each
    one before it."""
    last = max(entry.layer for entry in layout.entries)
    factors = torch.ones(layout.size, dtype=torch.float64)
    for entry in layout.entries:
        factors[entry.start : entry.stop] = decay ** (last - entry.layer)
    return factors


def _head(model: nn.Module) -> str:
    """The name of the last module that has parameters of its own."""
    return [
        name
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ][-1]


def _tensors(start: Start) -> dict[str, Tensor]:
    path = Path(str(start.weights))
    if is_run(start.weights):
        return _source(start).model.state_dict()
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            "start.weights",
            got=str(path),
            expected="a run directory or a safetensors file",
            repair=str(error),
        ) from None


def _source(start: Start) -> Any:
    from ravine.engine.run import Run

    return Run(Path(str(start.weights)))
