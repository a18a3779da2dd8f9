"""Remedies that several findings share: each yields edits of the recipe with a sentence."""

from __future__ import annotations

from typing import Any

from ravine.doctor.edits import (
    WEIGHTED,
    Case,
    Edits,
    Remedies,
    batches_hold,
    fresh_weights,
    hidden_activation,
    is_standardized,
    last_weighted,
    layers_of,
    longer,
    proper_head,
    scale_inputs,
)

REACH = 3.0  # how far a weight should be able to move in a whole plan
DEEP, SHALLOW = 5, 3  # hidden layers of a deep stack, and what is left of it


def proper_output(case: Case) -> Remedies:
    """The output layer gives scores, and the loss is the task's own on scores."""
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


def scaled_inputs(case: Case) -> Remedies:
    """Inputs of unit scale: by statistics of the training part, or of each batch."""
    layers = layers_of(case.recipe)
    if layers and layers[0]["kind"] == "embedding":
        return
    if not is_standardized(case, "inputs"):
        yield (
            scale_inputs(case),
            "bring the inputs to unit scale, by statistics of the training part",
        )
    if layers and len(case.input_shape) in (1, 3) and batches_hold(case, 8):
        yield (
            {"model.layers": [{"kind": "batch_norm"}, *layers]},
            "normalise the inputs by the batch",
        )


def scaled_targets(case: Case) -> Remedies:
    """Standardised targets, with a linear output layer."""
    if case.task == "regression" and not is_standardized(case, "targets"):
        steps = case.recipe.to_dict(explicit=True).get("data", {}).get("preprocess", [])
        edits: Edits = {"data.preprocess": [*steps, {"kind": "standardize", "of": "targets"}]}
        head = proper_head(case)
        if head:
            edits |= head
        yield (
            edits,
            "standardise the targets (predictions come back in their own units), with a linear output",
        )


def fresh_start(case: Case) -> Remedies:
    """All weights drawn anew."""
    why = "draw the weights by {} rule, which keeps the size of signals from layer to layer"
    first = fresh_weights(case)
    yield first, why.format("He's" if "he_normal" in str(first) else "Glorot's")
    yield fresh_weights(case, "he_normal"), why.format("He's")


def other_activation(case: Case) -> Remedies:
    """ReLU or leaky ReLU in the hidden layers, with fresh weights."""
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


def normalisation(case: Case) -> Remedies:
    """Batch norm after every hidden layer; layer norm where batches are too small for statistics
    of their own."""
    layers = layers_of(case.recipe)
    last = None if layers is None else last_weighted(layers)
    if layers is None or not last:
        return
    kind = "batch_norm" if batches_hold(case, 8) else "layer_norm"
    made: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        made.append(layer)
        if i < last and layer["kind"] in WEIGHTED:
            made.append({"kind": kind})
    yield {"model.layers": made}, f"{kind.replace('_', ' ')} after every hidden layer"


def larger_gradients(case: Case) -> Remedies:
    """What brings more gradient to the first layers."""
    yield from other_activation(case)
    yield from normalisation(case)
    yield from fewer_layers(case)


def fewer_layers(case: Case) -> Remedies:
    """Of a deep stack of dense layers the first few and the last: the gradient has less far to
    go."""
    layers = layers_of(case.recipe) or []
    weighted = [i for i, layer in enumerate(layers) if layer["kind"] in WEIGHTED]
    hidden = weighted[:-1]
    if len(hidden) < DEEP or any(layers[i]["kind"] != "dense" for i in hidden[SHALLOW:]):
        return
    made = [*layers[: hidden[SHALLOW]], *layers[weighted[-1] :]]
    yield {"model.layers": made}, f"{SHALLOW} hidden layers in place of {len(hidden)}"


def wider_layers(case: Case) -> Remedies:
    """Four times as many units in every hidden layer."""
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


def other_rate(case: Case, factors: tuple[float, ...]) -> Remedies:
    """The learning rate times each of these factors."""
    lr = case.recipe.optimizer.arguments["lr"]
    for factor in factors:
        yield (
            {"optimizer.lr": float(f"{lr * factor:.6g}")},
            f"lr {lr * factor:.3g}, {'×' if factor > 1 else '÷'} {max(factor, 1 / factor):g}",
        )


def higher_rate(case: Case, factor: float | None = None) -> Remedies:
    """The rate times ``factor``, or times 10 and 100; Adam."""
    yield from other_rate(case, (factor,) if factor else (10.0, 100.0))
    yield from adam(case)


def lower_rate(case: Case, factor: float | None = None) -> Remedies:
    """The rate times ``factor``, or a tenth and a hundredth of it."""
    yield from other_rate(case, (factor,) if factor else (0.1, 0.01))


def adam(case: Case) -> Remedies:
    """Adam, which moves a weight by about lr in each step: a short plan gets a higher lr, so that
    steps * lr is at least REACH."""
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


def other_optimizer(case: Case) -> Remedies:
    """Adam, or gradient descent with momentum."""
    yield from adam(case)
    if case.recipe.optimizer.kind != "sgd":
        yield (
            {"optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9}},
            "gradient descent with momentum",
        )


def longer_plan(case: Case) -> Remedies:
    """Twice and four times the plan; ten times the rate."""
    yield longer(case, 2), "train twice as long"
    yield from other_rate(case, (10.0,))
    yield longer(case, 4), "train four times as long"


def weight_decay(case: Case) -> Remedies:
    """Decoupled from Adam's steps, or a penalty on the squared weights."""
    optimizer = case.recipe.optimizer
    if optimizer.kind in ("adam", "adamw"):
        yield (
            {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.1},
            "weight decay, decoupled from Adam's steps",
        )
    elif case.recipe.loss.l2 < 1e-3:
        yield {"loss.l2": 1e-3}, "weight decay: a penalty on the squared weights"


def more_augmentation(case: Case) -> Remedies:
    """More samples from those that are there: shifted images; mixed samples of tables, or noise on
    what they measure."""
    layers = layers_of(case.recipe) or [{}]
    steps = case.recipe.to_dict(explicit=True).get("data", {}).get("augment", [])
    if case.recipe.data.augment or layers[0].get("kind") == "embedding":
        return
    if len(case.input_shape) == 3:
        yield (
            {"data.augment": [*steps, {"kind": "shift", "pixels": 2}]},
            "augmentation: shifted images are more data",
        )
    elif case.task == "classification":
        yield (
            {"data.augment": [*steps, {"kind": "mixup"}]},
            "augmentation: mixtures of two samples are more data",
        )
    elif case.task == "regression":
        yield (
            {"data.augment": [*steps, {"kind": "noise"}]},
            "augmentation: samples with a little noise are more data",
        )


def clipped_gradients(case: Case, factor: float | None = None) -> Remedies:
    """A bound on the gradient's norm, a lower rate, fresh weights."""
    yield {"clip.norm": 1.0}, "clip the gradient's norm at 1"
    yield from lower_rate(case, factor)
    yield from fresh_start(case)
