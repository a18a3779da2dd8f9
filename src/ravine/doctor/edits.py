"""Edits of recipes: the case that they are made for, and what whole edits are built from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ravine.catalogue import Part, durations
from ravine.nn.analysis.traits import Trait, catalogue_traits
from ravine.recipe import Recipe

Edits = dict[str, Any]  # recipe path -> value
Remedies = Iterator[tuple[Edits, str]]  # each with a sentence
ACTIVATIONS = Trait.ACTIVATION | Trait.CROSS_ACTIVATION
WEIGHTED = ("dense", "conv", "locally_connected")


@dataclass(frozen=True)
class Case:
    """What a remedy must know of a program."""

    recipe: Recipe
    task: str
    outputs: int  # classes, labels or targets
    input_shape: tuple[int, ...]
    steps: int = 0  # of the whole plan, where they are known


def layers_of(recipe: Recipe) -> list[dict[str, Any]] | None:
    """The model's list of layers as plain tables; None for a named model or a module given in
    Python."""
    if recipe.model.kind != "layers":
        return None
    return [
        layer.explicit() if isinstance(layer, Part) else dict(layer)
        for layer in recipe.model.layers
    ]


def proper_head(case: Case) -> Edits | None:
    """An output layer without activation, of the right number of units, and the task's own loss on
    scores."""
    layers = layers_of(case.recipe)
    loss = {
        "classification": "cross_entropy",
        "sequence": "cross_entropy",
        "multilabel": "binary_cross_entropy",
    }.get(case.task, "squared")
    penalties = {
        name: getattr(case.recipe.loss, name)
        for name in ("l1", "l2")
        if getattr(case.recipe.loss, name)
    }
    if layers is None:
        return {"loss": {"kind": loss, **penalties}}
    place = last_weighted(layers)
    if place is None:
        return None
    units = case.outputs
    if case.task == "classification" and layers[place].get("units") == 1 and case.outputs == 2:
        units, loss = 1, "binary_cross_entropy"
    head = {**layers[place], "units": units} if "units" in layers[place] else layers[place]
    tail = [layer for layer in layers[place + 1 :] if not is_activation(layer)]
    return {"model.layers": [*layers[:place], head, *tail], "loss": {"kind": loss, **penalties}}


def is_activation(layer: dict[str, Any]) -> bool:
    return bool(catalogue_traits(layer["kind"]) & ACTIVATIONS)


def last_weighted(layers: list[dict[str, Any]]) -> int | None:
    """The place of the last layer with weights; None where no layer has any."""
    return max((i for i, layer in enumerate(layers) if layer["kind"] in WEIGHTED), default=None)


def scale_inputs(case: Case) -> Edits:
    """Standardised inputs; images on [0, 1]."""
    kind: Any = "rescale" if len(case.input_shape) == 3 else "standardize"
    steps = case.recipe.to_dict(explicit=True).get("data", {}).get("preprocess", [])
    return {"data.preprocess": [*steps, {"kind": kind}]}


def is_standardized(case: Case, of: str) -> bool:
    """Whether the last thing done to inputs or targets is to standardise them."""
    steps = [
        part for part in case.recipe.data.preprocess if part.arguments.get("of", "inputs") == of
    ]
    return bool(steps) and steps[-1].kind == "standardize"


def batches_hold(case: Case, samples: int) -> bool:
    """Whether batches are large enough for statistics of their own."""
    return case.recipe.data.batch == "full" or case.recipe.data.batch >= samples


def fresh_weights(case: Case, kind: str | None = None) -> Edits:
    """All weights drawn anew, no layer's own rule: He's, or Glorot's where the hidden layers are
    sigmoid or tanh; zero biases."""
    layers = layers_of(case.recipe)
    hidden = (layers or [])[:-1]
    flat = any(Trait.SATURATES in catalogue_traits(layer["kind"]) for layer in hidden)
    kind = kind or ("glorot_uniform" if flat else "he_normal")
    init = {"weights": {"kind": kind}, "biases": {"kind": "zeros"}}
    if layers is None:
        return {"model.init": init}
    bare = [{k: v for k, v in layer.items() if k != "init"} for layer in layers]
    for layer in bare:
        if layer["kind"] in WEIGHTED:
            layer["init"] = init
    return {"model.layers": bare}


def hidden_activation(case: Case, kind: str) -> Edits | None:
    """This activation after every hidden layer with weights, in place of the activations there."""
    layers = layers_of(case.recipe)
    last = None if layers is None else last_weighted(layers)
    if layers is None or last is None:
        return {"model.activation": kind} if hasattr(case.recipe.model, "activation") else None
    made: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        if i < last and is_activation(layer):
            continue
        made.append(layer)
        if i < last and layer["kind"] in WEIGHTED:
            made.append({"kind": kind})
    return {"model.layers": made}


def longer(case: Case, factor: float) -> Edits:
    """The plan, ``factor`` times as long."""
    amount, unit = durations.parse(case.recipe.stop.after)
    return {"stop.after": f"{math.ceil(float(amount) * factor)}{unit}"}


def narrowed(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer with a quarter of its units or channels, at least 8."""
    name = {"dense": "units", "conv": "channels"}.get(layer["kind"])
    return {**layer, name: min(layer[name], max(8, layer[name] // 4))} if name else layer


def tenth_of_plan(case: Case) -> str:
    """A tenth of the plan, and two epochs at least."""
    amount, unit = durations.parse(case.recipe.stop.after)
    return f"{max(2, math.ceil(float(amount) / 10))}{unit}" if unit == "ep" else "2ep"


def describe(edits: Edits) -> str:
    """Edits in one line; a list of layers as its kinds.

    >>> describe({"optimizer.lr": 0.1, "data.preprocess": [{"kind": "standardize"}, {"kind": "standardize", "of": "targets"}]})
    'optimizer.lr = 0.1, data.preprocess = standardize, standardize (of targets)'
    """
    parts = []
    for path, value in edits.items():
        if path == "model.layers":
            shown = " ".join(layer["kind"] for layer in value)
            value = shown if len(shown) < 80 else re.sub(r"^(.{40}).*(.{30})$", r"\1 … \2", shown)
        parts.append(f"{path} = {_named(value)}")
    return ", ".join(parts)


def _named(value: Any) -> str:
    """A technique in words: its name, then its fields."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_named, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    fields = ", ".join(f"{name} {_named(held)}" for name, held in value.items() if name != "kind")
    return (
        f"{value.get('kind', '')} ({fields})".strip() if fields else str(value.get("kind", "none"))
    )
