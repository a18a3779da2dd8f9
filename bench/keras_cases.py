"""Published training programs, described in Keras's words, as recipes and arrays.

A case is a table: ``data`` (in words) or ``data_file`` (npz: x, y, x_val, y_val), ``layers``,
``optimizer``, ``lr``, ``batch_size``, ``epochs``, ``loss``, ``metric``; ``fixed`` holds the fields
that the human fix changes. Keras's conventions are kept: losses on probabilities, batch norm's
momentum and epsilon, every optimiser's defaults, decay per update.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from published_data import published

from ravine import Recipe
from ravine.errors import InputError

LOSSES: dict[str, dict[str, Any]] = {
    "categorical_crossentropy": {"kind": "cross_entropy", "input": "probabilities"},
    "binary_crossentropy": {"kind": "binary_cross_entropy", "input": "probabilities"},
    "mse": {"kind": "squared"},
    "mae": {"kind": "absolute"},
    "huber": {"kind": "huber"},
    "hinge": {"kind": "binary_hinge"},
    "categorical_hinge": {"kind": "crammer_singer"},
    "kld": {"kind": "kl", "input": "probabilities"},
}
_SAME_LOSS = {
    "sparse_categorical_crossentropy": "categorical_crossentropy",
    "cross_entropy": "categorical_crossentropy",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "bce": "binary_crossentropy",
    "squared_error": "mse",
    "kl_divergence": "kld",
    "kullback_leibler_divergence": "kld",
}
# Keras's name -> (Ravine's, Keras's defaults, Keras's field names in Ravine's words)
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "sgd": ("sgd", {"lr": 0.01}, {"momentum": "momentum", "nesterov": "nesterov"}),
    "adam": (
        "adam",
        {"lr": 0.001, "eps": 1e-7},
        {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps"},
    ),
    "adamw": (
        "adamw",
        {"lr": 0.001, "eps": 1e-7, "weight_decay": 0.004},
        {"epsilon": "eps", "weight_decay": "weight_decay"},
    ),
    "rmsprop": (
        "rmsprop",
        {"lr": 0.001, "alpha": 0.9, "eps": 1e-7},
        {"rho": "alpha", "momentum": "momentum", "epsilon": "eps"},
    ),
    "adagrad": ("adagrad", {"lr": 0.001, "eps": 1e-7}, {"epsilon": "eps"}),
    "adadelta": (
        "adadelta",
        {"lr": 0.001, "rho": 0.95, "eps": 1e-7},
        {"rho": "rho", "epsilon": "eps"},
    ),
    "adamax": ("adamax", {"lr": 0.001, "eps": 1e-7}, {"epsilon": "eps"}),
    "nadam": ("nadam", {"lr": 0.001, "eps": 1e-7}, {"epsilon": "eps"}),
}
_ACTIVATIONS = {
    "linear": None,
    "none": None,
    "": None,
    "swish": "silu",
    "leakyrelu": "leaky_relu",
    "exponential": "exp",
}


@dataclass
class Case:
    """One published program: the recipe, the arrays it is trained on, and what people said about
    it."""

    id: str
    recipe: Recipe
    arrays: tuple[Any, ...]
    facts: dict[str, Any]
    fixed: Recipe | None = None
    fixed_arrays: tuple[Any, ...] | None = None
    unprovable: bool = False

    @property
    def is_control(self) -> bool:
        return bool(self.facts.get("is_control"))

    @property
    def provable(self) -> bool:
        """Whether a cure can be measured on the case's own data."""
        said = (self.facts.get("fixed") or {}).get("prove", self.facts.get("prove", True))
        return bool(said) and not self.unprovable

    @property
    def steps(self) -> int:
        batch, size = self.recipe.data.batch, len(self.arrays[0])
        per_epoch = 1 if batch == "full" else -(-size // min(batch, size))
        return per_epoch * int(self.recipe.stop.after.removesuffix("ep"))


def load(
    path: Path, fixes: dict[str, dict[str, Any]] | None = None, only: Sequence[str] = ()
) -> Iterator[Case | tuple[str, str]]:
    """Every case of a file whose id holds one of ``only``: a ``Case``, or (id, why it cannot be
    built)."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            "--cases", got=str(path), expected="a JSON list of cases", repair=str(error)
        ) from None
    for facts in listed:
        if not only or any(part in facts["id"] for part in only):
            yield _case(facts, path.parent, (fixes or {}).get(facts["id"]))


def _case(facts: dict[str, Any], root: Path, fix: dict[str, Any] | None) -> Case | tuple[str, str]:
    if facts.get("usable") is False:
        return facts["id"], facts.get("why", "not usable")
    try:
        arrays = _arrays(facts, root)
        case = Case(facts["id"], recipe_of(facts, arrays), arrays, facts)
        changed = facts.get("fixed") or fix
        if changed:
            case.unprovable = changed.get("prove") is False
            whole = {**facts, **changed}
            case.fixed_arrays = (
                _arrays(whole, root) if {"data", "data_file", "scaled"} & set(changed) else arrays
            )
            case.fixed = recipe_of(whole, case.fixed_arrays)
    except (InputError, KeyError, ValueError) as error:
        return facts["id"], str(error)
    return case


def _arrays(facts: dict[str, Any], root: Path) -> tuple[Any, ...]:
    """(x, y) or (x, y, x_val, y_val), as the program had them."""
    name = facts.get("data_file")
    if not name:
        return published(facts["data"], root / "data")
    path = next(
        (
            p
            for p in (root / name, root / "data" / name, root / "data" / Path(name).name)
            if p.is_file()
        ),
        root / name,
    )
    if not path.is_file():
        raise InputError("data_file", got=name, expected=f"an npz file beside {root}")
    with np.load(path, allow_pickle=False) as held:
        arrays = [np.asarray(held[key]) for key in ("x", "y", "x_val", "y_val") if key in held]
    return tuple(
        _channels_first(_narrow(array)) if i % 2 == 0 else _narrow(array)
        for i, array in enumerate(arrays)
    )


def _narrow(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        return array.astype(np.int64)
    return array.astype(np.float32) if array.dtype in (np.float64, np.float16) else array


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Keras's images are [N, H, W, C]."""
    last = x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4)
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if last else x


# --- one case in Ravine's words -------------------------------------------------------------------


def recipe_of(facts: dict[str, Any], arrays: tuple[Any, ...]) -> Recipe:
    """The program as a recipe on its arrays."""
    x, y = np.asarray(arrays[0]), np.asarray(arrays[1])
    loss, logits = _loss(facts["loss"])
    layers = [made for layer in facts["layers"] for made in _layer(layer)]
    if np.issubdtype(x.dtype, np.floating) and layers and layers[0]["kind"] == "embedding":
        raise InputError("data", got="real numbers", expected="whole numbers for an embedding")
    optimizer, schedule = _optimizer(facts)
    penalty = {
        name: max((float(layer.get(name) or 0) for layer in facts["layers"]), default=0.0)
        for name in ("l1", "l2")
    }
    return Recipe(
        name=facts["id"],
        data={
            "source": {"kind": "arrays", "task": _task(y, loss["kind"], facts)},
            "batch": min(int(facts.get("batch_size") or 32), len(x)),
            "validation": 0.0,
            "test": 0.0,
            "preprocess": _preprocess(facts),
        },
        model={"kind": "layers", "layers": _fitted(layers, x)},
        loss={**loss, **({"input": "logits"} if logits else {}), **penalty},
        optimizer=optimizer,
        schedule=schedule,
        stop={"after": f"{int(facts['epochs'])}ep"},
    )


def _loss(said: str) -> tuple[dict[str, Any], bool]:
    name = re.sub(r"\(.*", "", said).strip().lower()
    name = _SAME_LOSS.get(name, name)
    if name not in LOSSES:
        raise InputError("loss", got=said, expected=f"one of {', '.join(LOSSES)}")
    return LOSSES[name], "from_logits=true" in said.lower().replace(" ", "")


def _task(y: np.ndarray, loss: str, facts: dict[str, Any]) -> str:
    """Targets of 0 and 1 beside a squared error are still classes; real numbers are a
    regression."""
    if y.ndim == 2 and y.shape[1] > 1:
        zeros_and_ones = np.isin(y, (0, 1)).all()
        if not zeros_and_ones:
            return "regression"
        return "classification" if (y.sum(1) == 1).all() else "multilabel"
    values = np.unique(y)
    whole = np.array_equal(values, np.round(values))
    if loss in ("cross_entropy", "binary_cross_entropy") and whole and values.min() >= 0:
        return "classification" if len(values) == int(values.max()) + 1 else "regression"
    if np.array_equal(values, [0, 1]) and "accuracy" in facts.get("metric", ""):
        return "classification"
    return (
        "classification"
        if np.issubdtype(y.dtype, np.integer) and np.array_equal(values, [0, 1])
        else "regression"
    )


def _preprocess(facts: dict[str, Any]) -> list[dict[str, Any] | str]:
    """``preprocess`` of a fix: standardize, minmax, or a list in a recipe's own words."""
    said = facts.get("preprocess") or []
    return [said] if isinstance(said, str | dict) else list(said)


def _optimizer(facts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    said = facts["optimizer"]
    said = {"name": said} if isinstance(said, str) else dict(said)
    name = said["name"].lower()
    if name not in OPTIMIZERS:
        raise InputError("optimizer", got=name, expected=f"one of {', '.join(OPTIMIZERS)}")
    kind, defaults, names = OPTIMIZERS[name]
    made = {
        "kind": kind,
        **defaults,
        **{ours: said[theirs] for theirs, ours in names.items() if said.get(theirs) is not None},
    }
    rate = said.get("lr") or said.get("learning_rate") or facts.get("lr")
    made["lr"] = float(rate) if rate else defaults["lr"]
    if kind == "sgd" and not made.get("momentum"):
        made.pop("nesterov", None)
    for limit, ours in (("clipnorm", "norm"), ("clipvalue", "value")):
        if said.get(limit):
            made.setdefault("_clip", {})[ours] = float(said[limit])
    made.pop("_clip", None)
    decay = float(said.get("decay") or 0)
    return made, {"kind": "inverse_time", "k": decay} if decay else {"kind": "constant"}


def _layer(layer: dict[str, Any]) -> list[dict[str, Any]]:
    """One Keras layer: the layer itself and its activation."""
    kind = layer["type"].lower().replace("_", "").removesuffix("2d").removesuffix("1d")
    activation = _activation(layer.get("activation"))
    made: dict[str, Any]
    if kind == "dense":
        made = {"kind": "dense", "units": int(layer["units"]), **_bias(layer)}
    elif kind in ("conv", "convolution"):
        made = {
            "kind": "conv",
            "channels": int(layer.get("filters") or layer["units"]),
            "kernel": layer.get("kernel", 3),
            "stride": layer.get("stride") or layer.get("strides") or 1,
            "padding": layer.get("padding", "valid"),
            **_bias(layer),
        }
    elif kind in ("maxpool", "maxpooling", "avgpool", "averagepooling"):
        size = layer.get("size") or layer.get("pool_size") or 2
        made = {"kind": "maxpool" if kind.startswith("max") else "avgpool", "size": size}
        made |= {
            "stride": layer.get("stride") or layer.get("strides") or size,
            "padding": layer.get("padding", "valid"),
        }
    elif kind in ("batchnorm", "batchnormalization"):
        made = {
            "kind": "batch_norm",
            "momentum": 1 - float(layer.get("momentum") or 0.99),
            "epsilon": float(layer.get("epsilon") or 1e-3),
        }
    elif kind in ("dropout", "spatialdropout", "gaussiandropout"):
        made = {
            "kind": "spatial_dropout" if kind.startswith("spatial") else "dropout",
            "rate": float(layer.get("rate", 0.5)),
        }
    elif kind == "embedding":
        made = {
            "kind": "embedding",
            "size": int(layer.get("size") or layer.get("units") or layer["output_dim"]),
        }
        if layer.get("vocabulary") or layer.get("input_dim"):
            made["vocabulary"] = int(layer.get("vocabulary") or layer["input_dim"])
    elif kind in ("lstm", "gru", "simplernn", "rnn"):
        made = {"kind": "rnn" if kind == "simplernn" else kind, "units": int(layer["units"])}
        made["output"] = "all" if layer.get("return_sequences") else "last"
        activation = None
    elif kind == "activation":
        return [{"kind": activation}] if activation else []
    elif kind in (
        "globalaveragepooling",
        "globalavgpool",
        "globalpool",
        "globalmaxpooling",
        "globalmaxpool",
    ):
        made = {"kind": "global_pool", "form": "max" if "max" in kind else "average"}
    elif kind in ("flatten", "relu", "softmax", "sigmoid", "tanh", "elu", "selu", "leakyrelu"):
        made = {"kind": _ACTIVATIONS.get(kind, kind)}
    elif kind == "reshape":
        made = {
            "kind": "reshape",
            "to": [int(n) for n in layer.get("shape") or layer["target_shape"]],
        }
    elif kind in ("input", "inputlayer"):
        return []
    else:
        raise InputError("layers", got=layer["type"], expected="a layer that is known here")
    if kind in ("dense", "conv", "convolution", "embedding", "lstm", "gru", "simplernn", "rnn"):
        made["init"] = _inits(layer, kind)
    return [made, {"kind": activation}] if activation else [made]


def _bias(layer: dict[str, Any]) -> dict[str, Any]:
    return {"bias": False} if layer.get("use_bias") is False else {}


def _activation(said: str | None) -> str | None:
    name = (said or "").lower().removeprefix("k.")
    return _ACTIVATIONS.get(name, name)


def _inits(layer: dict[str, Any], kind: str) -> dict[str, Any]:
    weights = (
        layer.get("kernel_init")
        or layer.get("embeddings_init")
        or ("uniform(-0.05,0.05)" if kind == "embedding" else "glorot_uniform")
    )
    found = {"weights": initializer(weights)}
    if kind not in ("embedding",):
        found["biases"] = initializer(layer.get("bias_init") or "zeros")
    return found


def initializer(said: str) -> dict[str, Any]:
    """``"uniform(-0.05,0.05)"``, ``"normal(0,0.05)"``, ``"glorot_uniform"``, ``"constant(0.1)"``, …

    >>> initializer("normal(0,0.05)")
    {'kind': 'normal', 'mean': 0.0, 'std': 0.05}
    """
    name, _, inside = said.strip().lower().partition("(")
    numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", inside)]
    name = name.strip()
    if name in ("uniform", "random_uniform", "randomuniform"):
        low, high = numbers[:2] if len(numbers) > 1 else (-0.05, 0.05)
        return {"kind": "uniform", "range": (high - low) / 2, "mean": (high + low) / 2}
    if name in ("normal", "random_normal", "randomnormal", "truncated_normal", "truncatednormal"):
        mean, std = numbers[:2] if len(numbers) > 1 else (0.0, numbers[0] if numbers else 0.05)
        return {
            "kind": "normal",
            "mean": mean,
            "std": std,
            **({"truncate": 2.0} if name.startswith("trunc") else {}),
        }
    if name in ("zeros", "zero"):
        return {"kind": "zeros"}
    if name in ("ones", "one", "constant"):
        return {"kind": "constant", "value": numbers[0] if numbers else 1.0}
    return {"kind": name}


def _fitted(layers: list[dict[str, Any]], x: np.ndarray) -> list[dict[str, Any]]:
    """Images reach dense layers flattened."""
    return (
        [{"kind": "flatten"}, *layers]
        if x.ndim > 3 and layers[:1] and layers[0]["kind"] == "dense"
        else layers
    )
