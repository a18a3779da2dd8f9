"""Models of transformers and timm: what a recipe leaves open is taken from where they are published,
and their weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ravine.catalogue.part import Part
from ravine.data.download import hub
from ravine.data.download.download import NotThere
from ravine.data.read.weights import read_weights
from ravine.errors import InputError
from ravine.nn.models.published import BODY, classifies_images, hf_tensors, import_timm
from ravine.recipe import Recipe
from ravine.storage import bounded

KINDS = ("hf", "timm")
_WEIGHTS = "model.safetensors"
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# of config.json: what says nothing of the network's form, or is set for the data
_LEFT_OUT = (
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "num_labels",
    "problem_type", "torch_dtype", "transformers_version",
)  # fmt: skip


def completed(recipe: Recipe) -> Recipe:
    """The recipe; of a published model with its configuration, its size and normalisation, where
    its weights come from, and inputs between 0 and 1.

    Errors: neither a repository nor a directory of that name; no configuration there.
    """
    part, weights = recipe.model, recipe.start.weights
    if part.kind not in KINDS or (weights and (part.kind != "hf" or part.config)):
        return recipe
    found, place = (_of_hf if part.kind == "hf" else _of_timm)(part)
    edits: dict[str, Any] = {} if weights else {"start.weights": place}
    if "head" not in recipe.start.model_fields_set:
        edits["start.head"] = "replace"
    own_scale = bool(recipe.data.preprocess) or (weights is not None and Path(weights).is_dir())
    if not own_scale:
        edits["data.preprocess"] = [{"kind": "rescale"}]
    for field, value in found.items():
        open_ = not getattr(part, field)
        if open_ and value and not (own_scale and field in ("mean", "std")):
            edits[f"model.{field}"] = value
    return recipe.edit(edits)


def tensors(part: Part, weights: str, outputs: int) -> dict[str, Tensor]:
    """The published tensors by the names of the module's own."""
    if part.kind == "timm":
        return {BODY + name: tensor for name, tensor in read_weights(weights).items()}
    path = hub.weights(weights) if hub.is_hub(weights) else Path(weights)
    if path.name != _WEIGHTS:
        expected = f"{_WEIGHTS} of a model of transformers"
        raise InputError("start.weights", got=str(path), expected=expected)
    return hf_tensors(part.config, str(path.parent), outputs)


def _of_hf(part: Part) -> tuple[dict[str, Any], str]:
    directory = Path(part.name).expanduser()
    weights = str(directory / _WEIGHTS) if directory.is_dir() else hub.PREFIX + part.name
    config = _settings(part.name, weights, "config.json")
    images = _optional(part.name, weights, "preprocessor_config.json")
    _check_images(part.name, config)
    plain = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    size = images.get("crop_size") or images.get("size") or config.get("image_size")
    return {
        "config": json.dumps(plain, sort_keys=True),
        "size": _size(size),
        "mean": _numbers(images.get("image_mean"), f"{part.name}: image_mean"),
        "std": _numbers(images.get("image_std"), f"{part.name}: image_std"),
    }, weights


def _check_images(name: str, config: Any) -> None:
    """Refuse a model of transformers that classifies no images, such as one of texts."""
    kind = config.get("model_type")
    if classifies_images(kind) is False:
        raise InputError(
            "model.name", got=f"{name}, a model of type {kind}",
            expected="an image classifier of transformers",
            repair="texts are trained from scratch: leave --model out; to fine-tune a text model use "
            "transformers' Trainer with ravine's callback (docs/elsewhere.md)",
        )  # fmt: skip


def image_statistics(weights: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of images between 0 and 1, that published
    weights were trained with: those of the config.json beside them (timm's ``pretrained_cfg``), or
    ImageNet's, which nearly all published image networks have."""
    config = _optional(weights, weights, "config.json")
    inner = config.get("pretrained_cfg", config)
    config = inner if isinstance(inner, dict) else {}
    mean, std = (_numbers(config.get(name), f"{weights}: {name}") for name in ("mean", "std"))
    return mean or IMAGENET_MEAN, std or IMAGENET_STD


def _numbers(found: Any, where: str) -> list[float] | None:
    """Finite numbers that a configuration holds."""
    if found is None:
        return None
    listed = found if isinstance(found, list) else [found]
    if not all(type(one) in (int, float) and abs(one) < 1e6 for one in listed):
        raise InputError(where, got=found, expected="numbers")
    return [float(one) for one in listed]


def _optional(name: str, weights: str, file: str) -> dict[str, Any]:
    """The content of a JSON file beside the weights; of a place without it, nothing."""
    if not hub.is_hub(weights) and not Path(weights).with_name(file).is_file():
        return {}
    try:
        return _settings(name, weights, file)
    except NotThere:
        return {}


def _settings(name: str, weights: str, file: str) -> dict[str, Any]:
    """The content of a JSON file beside the weights."""
    path = _file(name, weights, file)
    found = bounded.parse_json(bounded.read_text(path, hub.SMALL), str(path))
    if not isinstance(found, dict):
        raise InputError(str(path), got=type(found).__name__, expected="a JSON object")
    return found


def _file(name: str, weights: str, file: str) -> Path:
    if hub.is_hub(weights):
        return hub.beside(weights, file)
    path = Path(weights).with_name(file)
    if not path.is_file():
        expected = f"a directory with {file} and {_WEIGHTS}, or OWNER/NAME on the hub"
        raise InputError("model.name", got=name, expected=expected)
    return path


def _size(size: Any) -> list[int] | None:
    """[height, width] in the forms that image processors have: a number, {height, width},
    {shortest_edge}."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        size = [size.get("height", edge), size.get("width", edge)]
    if isinstance(size, int):
        size = [size, size]
    sides = _numbers(size, "the size of images in a configuration")
    return [int(one) for one in sides] if sides and all(sides) else None


def _of_timm(part: Part) -> tuple[dict[str, Any], str]:
    library = import_timm()
    published = library.models.get_pretrained_cfg(part.name)
    if published is None or not published.hf_hub_id:
        expected = "a name of timm.list_pretrained()"
        raise InputError("model.name", got=part.name, expected=expected)
    return {
        "size": [int(side) for side in published.input_size[-2:]],
        "mean": list(published.mean),
        "std": list(published.std),
    }, hub.PREFIX + published.hf_hub_id
