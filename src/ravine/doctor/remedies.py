"""Remedies: for each finding, edits of the recipe that may cure it, the most direct first. An edit
is a table of path and value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ravine import durations
from ravine.catalogue import Part
from ravine.nn.traits import Trait, catalogue_traits
from ravine.recipe import Recipe

Edits = dict[str, Any]
_ACTIVATIONS = Trait.ACTIVATION | Trait.CROSS_ACTIVATION
REACH = 3.0  # how far a weight should be able to move in a whole plan
DEEP, SHALLOW = 5, 3  # hidden layers of a deep stack, and what is left of it
WEIGHTED = ("dense", "conv", "locally_connected")


@dataclass(frozen=True)
class Case:
    """What a remedy must know of a program."""

    recipe: Recipe
    task: str
    outputs: int  # classes, labels or targets
    input_shape: tuple[int, ...]
    steps: int = 0  # of the whole plan, where they are known


def remedies(code: str, case: Case, **more: Any) -> tuple[dict[str, Any], ...]:
    """Remedies of a finding: ``{"edits": {path: value}, "why": sentence}``, each leading to another
    recipe."""
    found, seen = [], {case.recipe.hash}
    for edits, why in _TABLE.get(code, _nothing)(case, **more):
        try:
            edited = case.recipe.edit(edits)
        except ValueError:
            continue
        if edited.hash not in seen:
            found.append({"edits": edits, "why": why})
            seen.add(edited.hash)
    return tuple(found)


Remedy = Iterator[tuple[Edits, str]]


def _nothing(case: Case, **more: Any) -> Remedy:
    yield from ()


# --- structure ------------------------------------------------------------------------------------


def layers_of(recipe: Recipe) -> list[dict[str, Any]] | None:
    """The model's list of layers as plain tables; None for a named model or a module given in
    Python."""
    if recipe.model.kind != "layers":
        return None
    return [
        layer.said() if isinstance(layer, Part) else dict(layer) for layer in recipe.model.layers
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
    said = layers[place].get("units")
    if case.task == "classification" and said == 1 and case.outputs == 2:
        units, loss = 1, "binary_cross_entropy"
    head = {**layers[place], "units": units} if "units" in layers[place] else layers[place]
    tail = [layer for layer in layers[place + 1 :] if not _is_activation(layer)]
    return {"model.layers": [*layers[:place], head, *tail], "loss": {"kind": loss, **penalties}}


def _is_activation(layer: dict[str, Any]) -> bool:
    return bool(catalogue_traits(layer["kind"]) & _ACTIVATIONS)


def last_weighted(layers: list[dict[str, Any]]) -> int | None:
    return max((i for i, layer in enumerate(layers) if layer["kind"] in WEIGHTED), default=None)


def _head(case: Case, **_: Any) -> Remedy:
    edits = proper_head(case)
    if edits:
        names = {
            "classification": "cross-entropy",
            "sequence": "cross-entropy",
            "multilabel": "binary cross-entropy for each label",
        }
        yield (
            edits,
            f"let the last layer give scores, and use {names.get(case.task, 'the squared error')} on them",
        )


def _range(case: Case, **_: Any) -> Remedy:
    yield from _head(case)
    yield from _scale_targets(case)


def scale_inputs(case: Case) -> Edits:
    """Standardised inputs; images on [0, 1]."""
    kind: Any = "rescale" if len(case.input_shape) == 3 else "standardize"
    said = case.recipe.to_dict(explicit=True).get("data", {}).get("preprocess", [])
    return {"data.preprocess": [*said, {"kind": kind}]}


def _scale_inputs(case: Case, **_: Any) -> Remedy:
    layers = layers_of(case.recipe)
    if layers and layers[0]["kind"] == "embedding":
        return
    if not _standardized(case, "inputs"):
        yield (
            scale_inputs(case),
            "bring the inputs to unit scale, by statistics of the training part",
        )
    if layers and len(case.input_shape) in (1, 3) and _batches_of(case, 8):
        yield (
            {"model.layers": [{"kind": "batch_norm"}, *layers]},
            "normalise the inputs by the batch",
        )


def _standardized(case: Case, of: str) -> bool:
    """Whether the last thing done to inputs or targets is to standardise them."""
    steps = [
        part for part in case.recipe.data.preprocess if part.arguments.get("of", "inputs") == of
    ]
    return bool(steps) and steps[-1].kind == "standardize"


def _batches_of(case: Case, samples: int) -> bool:
    """Whether batches are large enough for statistics of their own."""
    return case.recipe.data.batch == "full" or case.recipe.data.batch >= samples


def _scale_targets(case: Case, **_: Any) -> Remedy:
    if case.task == "regression" and not _standardized(case, "targets"):
        said = case.recipe.to_dict(explicit=True).get("data", {}).get("preprocess", [])
        edits: Edits = {"data.preprocess": [*said, {"kind": "standardize", "of": "targets"}]}
        head = proper_head(case)
        if head:
            edits |= head
        yield (
            edits,
            "standardise the targets (predictions come back in their own units), with a linear output",
        )


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


def _init(case: Case, **_: Any) -> Remedy:
    why = "draw the weights by {} rule, which keeps the size of signals from layer to layer"
    first = fresh_weights(case)
    yield first, why.format("He's" if "he_normal" in str(first) else "Glorot's")
    yield fresh_weights(case, "he_normal"), why.format("He's")


def hidden_activation(case: Case, kind: str) -> Edits | None:
    """Every hidden activation replaced, or put behind each hidden weighted layer that has none."""
    layers = layers_of(case.recipe)
    last = None if layers is None else last_weighted(layers)
    if layers is None or last is None:
        return {"model.activation": kind} if hasattr(case.recipe.model, "activation") else None
    made: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        if i < last and _is_activation(layer):
            continue
        made.append(layer)
        if i < last and layer["kind"] in WEIGHTED:
            made.append({"kind": kind})
    return {"model.layers": made}


def _activation(case: Case, **_: Any) -> Remedy:
    for kind in ("relu", "leaky_relu"):
        edits = hidden_activation(case, kind)
        if edits:
            layers = edits.get("model.layers")
            if layers:
                with_init = Case(case.recipe.edit(edits), case.task, case.outputs, case.input_shape)
                yield (
                    fresh_weights(with_init),
                    f"use {kind} in the hidden layers, with He's initialisation",
                )
            else:
                yield edits, f"use {kind} in the hidden layers"


def _normalise(case: Case, **_: Any) -> Remedy:
    """Batch norm behind every hidden layer; layer norm where batches are too small for statistics
    of their own."""
    layers = layers_of(case.recipe)
    last = None if layers is None else last_weighted(layers)
    if layers is None or not last:
        return
    kind = "batch_norm" if _batches_of(case, 8) else "layer_norm"
    made: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        made.append(layer)
        if i < last and layer["kind"] in WEIGHTED:
            made.append({"kind": kind})
    yield {"model.layers": made}, f"{kind.replace('_', ' ')} behind every hidden layer"


def _dead(case: Case, **more: Any) -> Remedy:
    edits = hidden_activation(case, "leaky_relu")
    if edits:
        yield edits, "leaky ReLUs always have a gradient"
    yield from _lower_rate(case, **more)
    yield from _init(case)


def _vanishing(case: Case, **_: Any) -> Remedy:
    yield from _activation(case)
    yield from _normalise(case)
    yield from _shallower(case)


def _shallower(case: Case, **_: Any) -> Remedy:
    """Of a deep stack of dense layers the first few and the last: the gradient has less far to
    go."""
    layers = layers_of(case.recipe) or []
    weighted = [i for i, layer in enumerate(layers) if layer["kind"] in WEIGHTED]
    hidden = weighted[:-1]
    if len(hidden) < DEEP or any(layers[i]["kind"] != "dense" for i in hidden[SHALLOW:]):
        return
    made = [*layers[: hidden[SHALLOW]], *layers[weighted[-1] :]]
    yield {"model.layers": made}, f"{SHALLOW} hidden layers in place of {len(hidden)}"


def _wider(case: Case, **_: Any) -> Remedy:
    layers = layers_of(case.recipe)
    last = None if layers is None else last_weighted(layers)
    if layers is None or not last:
        return
    least = {"units": 32, "channels": 8}
    made = [dict(layer) for layer in layers]
    for layer in made[:last]:
        if layer["kind"] in WEIGHTED:
            layer.update({k: max(n, 4 * layer[k]) for k, n in least.items() if k in layer})
    yield {"model.layers": made}, "four times as many hidden units"


# --- numbers --------------------------------------------------------------------------------------


def _rate(case: Case, factors: tuple[float, ...]) -> Remedy:
    lr = case.recipe.optimizer.arguments["lr"]
    for factor in factors:
        yield (
            {"optimizer.lr": float(f"{lr * factor:.6g}")},
            f"lr {lr * factor:.3g}, {'×' if factor > 1 else '÷'} {max(factor, 1 / factor):g}",
        )


def _higher_rate(case: Case, factor: float | None = None, **_: Any) -> Remedy:
    yield from _rate(case, (factor,) if factor else (10.0, 100.0))
    yield from _adam(case)


def _lower_rate(case: Case, factor: float | None = None, **_: Any) -> Remedy:
    yield from _rate(case, (factor,) if factor else (0.1, 0.01))


def _adam(case: Case, **_: Any) -> Remedy:
    """A weight moves by about lr in each of Adam's steps: of a short plan the rate is so high that
    it can move by REACH."""
    lr = max(1e-3, min(0.1, float(f"{REACH / case.steps:.0e}"))) if case.steps else 1e-3
    if case.recipe.optimizer.kind != "adam":
        yield (
            {"optimizer": {"kind": "adam", "lr": lr}},
            f"Adam with lr {lr:g}, which finds the scale of each step itself",
        )
    elif case.steps and not lr / 10 <= case.recipe.optimizer.lr <= 10 * lr:
        yield (
            {"optimizer.lr": lr},
            f"lr {lr:g}, with which Adam moves the weights far enough in {case.steps} steps",
        )


def _optimizer(case: Case, **_: Any) -> Remedy:
    yield from _adam(case)
    if case.recipe.optimizer.kind != "sgd":
        yield (
            {"optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9}},
            "plain descent with momentum",
        )


def longer(case: Case, factor: float) -> Edits:
    """The plan, that many times as long."""
    amount, unit = durations.parse(case.recipe.stop.after)
    return {"stop.after": f"{math.ceil(float(amount) * factor)}{unit}"}


def _longer(case: Case, **_: Any) -> Remedy:
    yield longer(case, 2), "train twice as long"
    yield from _rate(case, (10.0,))
    yield longer(case, 4), "train four times as long"


def _smaller_batch(case: Case, **_: Any) -> Remedy:
    batch = case.recipe.data.batch
    if batch == "full" or batch > 32:
        yield (
            {"data.batch": 32 if batch == "full" else max(16, batch // 8)},
            "smaller batches: more steps in the same epochs",
        )


def _larger_batch(case: Case, **_: Any) -> Remedy:
    batch = case.recipe.data.batch
    if batch != "full" and batch < 32:
        yield {"data.batch": 32}, "batches of 32 average the noise of single samples"


def _overfitting(case: Case, **_: Any) -> Remedy:
    """The whole list: early stopping, decay, dropout, capacity, normalisation, augmentation.

    More data and an ensemble help as well; neither is an edit of one recipe, so a trial measures
    them beside its cure.
    """
    if case.recipe.stop.patience is None:
        yield (
            {"stop.patience": _tenth(case)},
            "stop early: keep the weights that were best in validation",
        )
    yield from _decay(case)
    layers = layers_of(case.recipe)
    last = None if layers is None else last_weighted(layers)
    if layers and last:
        dropped = [*layers[:last], {"kind": "dropout", "rate": 0.5}, *layers[last:]]
        yield {"model.layers": dropped}, "dropout before the output layer"
        narrow = [_narrowed(layer) if i < last else layer for i, layer in enumerate(layers)]
        yield {"model.layers": narrow}, "a smaller network: a quarter of the hidden units"
    yield from _augment(case)
    yield from _normalise(case)


def _tenth(case: Case) -> str:
    """A tenth of the plan, and two epochs at least."""
    amount, unit = durations.parse(case.recipe.stop.after)
    return f"{max(2, math.ceil(float(amount) / 10))}{unit}" if unit == "ep" else "2ep"


def _decay(case: Case) -> Remedy:
    optimizer = case.recipe.optimizer
    if optimizer.kind in ("adam", "adamw"):
        yield (
            {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.1},
            "weight decay, decoupled from Adam's steps",
        )
    elif case.recipe.loss.l2 < 1e-3:
        yield {"loss.l2": 1e-3}, "weight decay: a penalty on the squared weights"


def _narrowed(layer: dict[str, Any]) -> dict[str, Any]:
    name = {"dense": "units", "conv": "channels"}.get(layer["kind"])
    return {**layer, name: min(layer[name], max(8, layer[name] // 4))} if name else layer


def _augment(case: Case) -> Remedy:
    """More samples from those that are there: shifted images; mixed samples of tables, or noise on
    what they measure."""
    layers = layers_of(case.recipe) or [{}]
    said = case.recipe.to_dict(explicit=True).get("data", {}).get("augment", [])
    if case.recipe.data.augment or layers[0].get("kind") == "embedding":
        return
    if len(case.input_shape) == 3:
        yield (
            {"data.augment": [*said, {"kind": "shift", "pixels": 2}]},
            "augmentation: shifted images are more data",
        )
    elif case.task == "classification":
        yield (
            {"data.augment": [*said, {"kind": "mixup"}]},
            "augmentation: mixtures of two samples are more data",
        )
    elif case.task == "regression":
        yield (
            {"data.augment": [*said, {"kind": "noise"}]},
            "augmentation: samples with a little noise are more data",
        )


def _less_regularised(case: Case, **_: Any) -> Remedy:
    edits: Edits = {f"loss.{name}": 0.0 for name in ("l1", "l2") if getattr(case.recipe.loss, name)}
    if case.recipe.optimizer.arguments.get("weight_decay"):
        edits["optimizer.weight_decay"] = 0.0
    layers = layers_of(case.recipe) or []
    for i, layer in enumerate(layers):
        if layer["kind"] == "dropout":
            edits[f"model.layers.{i}.rate"] = min(0.2, layer.get("rate", 0.5))
    if edits:
        yield edits, "weaker penalties and less dropout"


def _clip(case: Case, **more: Any) -> Remedy:
    yield {"clip.norm": 1.0}, "clip the gradient's norm at 1"
    yield from _lower_rate(case, **more)
    yield from _init(case)


def _shuffle(case: Case, **_: Any) -> Remedy:
    yield {"data.order": "shuffle"}, "a new order every epoch"


def _balance(case: Case, **_: Any) -> Remedy:
    yield {"loss.class_weights": "balanced"}, "weigh the classes by their rarity"


def _no_augmentation(case: Case, **_: Any) -> Remedy:
    yield {"data.augment": []}, "without augmentation"


def _not_finite(case: Case, **more: Any) -> Remedy:
    yield from _lower_rate(case, **more)
    yield from _clip(case, **more)


def _stuck(case: Case, **_: Any) -> Remedy:
    yield from _activation(case)
    yield from _higher_rate(case)
    yield from _lower_rate(case)


def _underfitting(case: Case, **_: Any) -> Remedy:
    yield from _longer(case)
    yield from _wider(case)


_TABLE: dict[str, Callable[..., Remedy]] = {
    "loss_output_mismatch": _head,
    "wrong_output_units": _head,
    "labels_invalid": _head,
    "output_range": _range,
    "inputs_unscaled": _scale_inputs,
    "targets_unscaled": _scale_targets,
    "symmetric_init": _init,
    "init_scale": _init,
    "no_hidden_nonlinearity": _activation,
    "saturated_units": _vanishing,
    "vanishing_gradient": _vanishing,
    "dead_units": _dead,
    "exploding_gradient": _clip,
    "non_finite": _not_finite,
    "lr_too_high": _lower_rate,
    "lr_too_low": _higher_rate,
    "optimizer_unsuited": _optimizer,
    "oscillating": _lower_rate,
    "stuck": _stuck,
    "overfitting": _overfitting,
    "underfitting": _underfitting,
    "too_few_epochs": _longer,
    "batch_too_large": _smaller_batch,
    "batch_too_small": _larger_batch,
    "over_regularised": _less_regularised,
    "not_shuffled": _shuffle,
    "capacity_too_small": _wider,
    "augmentation_destructive": _no_augmentation,
    "class_imbalance": _balance,
    "too_deep": _shallower,  # no finding of its own: a move of trials
}


def describe(edits: Edits) -> str:
    """Edits in one line; a list of layers as its kinds.

    >>> describe({"optimizer.lr": 0.1, "data.preprocess": [{"kind": "standardize"}, {"kind": "standardize", "of": "targets"}]})
    'optimizer.lr = 0.1, data.preprocess = standardize, standardize (of targets)'
    """
    said = []
    for path, value in edits.items():
        if path == "model.layers":
            shown = " ".join(layer["kind"] for layer in value)
            value = shown if len(shown) < 80 else re.sub(r"^(.{40}).*(.{30})$", r"\1 … \2", shown)
        said.append(f"{path} = {_named(value)}")
    return ", ".join(said)


def _named(value: Any) -> str:
    """A technique by its name, its fields behind it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_named, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    fields = ", ".join(f"{name} {_named(held)}" for name, held in value.items() if name != "kind")
    return (
        f"{value.get('kind', '')} ({fields})".strip() if fields else str(value.get("kind", "none"))
    )
