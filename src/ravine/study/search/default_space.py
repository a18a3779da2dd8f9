"""What a search varies by default: rate, size and regularisation around the recipe's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ravine.recipe import Recipe

SIZES = ("hidden", "channels", "units", "width", "dense")  # fields of models and layers
DEFAULT_WIDTH = {"cifar": 16, "imagenet": 64}  # of a residual network that names none


def default_space(
    recipe: Recipe, task: str, *, own_model: bool = False, larger: bool = True
) -> tuple[Recipe, list[str]]:
    """The fields and their distributions: the rate, the size of the network, weight decay (an L2
    penalty where the optimiser has none), dropout and label smoothing, where the recipe has them.

    The recipe comes back with its loss named, so that label smoothing has a place in it. With
    ``own_model``, one given in Python, the recipe's model says nothing. Without ``larger`` no
    network is larger than the recipe's.

    >>> default_space(Recipe(optimizer={"kind": "adamw", "lr": 0.01}, model="mlp"), "regression")[1][:2]
    ['optimizer.lr=loguniform:0.001:0.1', 'model.hidden=choice:[64],[128],[256],[128, 128]']
    """
    lr = recipe.optimizer.lr
    vary = [f"optimizer.lr=loguniform:{lr / 10:.6g}:{lr * 10:.6g}"]
    if not own_model:
        vary += [text for text in [_size(recipe, larger)] if text]
    decay = getattr(recipe.optimizer, "weight_decay", None)
    if decay is None:
        vary.append("loss.l2=loguniform:1e-06:0.01")
    else:
        low, high = (decay / 30, min(1.0, 30 * decay)) if 0 < decay < 1 else (1e-5, 0.1)
        vary.append(f"optimizer.weight_decay=loguniform:{low:.6g}:{high:.6g}")
    if not own_model:
        vary += _dropout(recipe)
    if task == "classification" and recipe.loss.kind in ("auto", "cross_entropy"):
        recipe = recipe.edit({"loss.kind": "cross_entropy"})
        vary.append("loss.label_smoothing=uniform:0:0.2")
    return recipe, vary


def _dropout(recipe: Recipe) -> Iterator[str]:
    if hasattr(recipe.model, "dropout"):
        yield "model.dropout=uniform:0:0.6"
    for i, layer in enumerate(_layers(recipe)):
        if getattr(layer, "kind", layer) == "dropout":
            yield f"model.layers.{i}.rate=uniform:0:0.6"


def _size(recipe: Recipe, larger: bool) -> str:
    """The first field that says how wide the network is: half and itself; ``larger`` adds twice, and
    for hidden layers one more; in a list of layers, the last one that is not the output's. Empty
    where there is none."""
    layers = _layers(recipe)
    hidden = [
        (f"model.layers.{i}.{name}", getattr(layer, name))
        for i, layer in enumerate(layers)
        for name in SIZES
        if isinstance(getattr(layer, name, None), int)
    ][:-1]
    if hidden:
        path, value = hidden[-1]
        return _choices(path, value, larger)
    if layers:
        return ""
    for name in SIZES:
        value = getattr(recipe.model, name, None)
        if name == "width" and value is None and hasattr(recipe.model, name):
            value = DEFAULT_WIDTH.get(getattr(recipe.model, "form", ""))
        if value:
            return _choices(f"model.{name}", value, larger)
    return ""


def _layers(recipe: Recipe) -> tuple[Any, ...]:
    """The model's list of layers; empty for a model by name, whose ``layers`` may be a number."""
    layers = getattr(recipe.model, "layers", ())
    return layers if isinstance(layers, tuple) else ()


def _choices(path: str, value: Any, larger: bool) -> str:
    if isinstance(value, int):
        numbers = {max(1, value // 2), value, *([2 * value] if larger else [])}
        return f"{path}=choice:{','.join(map(str, sorted(numbers)))}"
    sizes = [[max(1, v // 2) for v in value], list(value)]
    if larger:
        sizes.append([2 * v for v in value])
        if path.endswith(".hidden"):
            sizes.append([*value, value[-1]])
    return f"{path}=choice:{','.join(map(str, sizes))}"
