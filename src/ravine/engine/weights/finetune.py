"""Fine-tuning: the model, preprocessing and weights of a Ravine run, or weights from a safetensors
file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue.part import Part
from ravine.data.read.weights import read_weights
from ravine.engine.weights import published
from ravine.engine.weights.heads import head_name
from ravine.engine.weights.stored import Stored
from ravine.errors import InputError
from ravine.recipe import Recipe, Start


def is_run(weights: str | None) -> bool:
    """Whether fine-tuning starts from a run directory."""
    return weights is not None and Path(weights).is_dir()


def with_stored_model(recipe: Recipe) -> Recipe:
    """A recipe that starts from a run and names no model takes that run's model."""
    if not is_run(recipe.start.weights) or "model" in recipe.model_fields_set:
        return recipe
    return recipe.edit({"model": Stored(str(recipe.start.weights)).recipe.model.explicit()})


def carried_over(recipe: Recipe) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
    """The preprocessing of the run that a recipe starts from, where the recipe names none of its
    own."""
    if not is_run(recipe.start.weights) or recipe.data.preprocess:
        return None
    return Stored(str(recipe.start.weights)).preprocessing


def load(model: nn.Module, start: Start, part: Part, outputs: int) -> None:
    """Copy the source's tensors into a model by name; a replaced head keeps its own initial
    values. ``part`` is the model's of the recipe, with so many outputs."""
    if start.weights is None:
        return
    source = _tensors(start, part, outputs)
    head = head_name(model) if start.head == "replace" else ""
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            if head and name.startswith(f"{head}."):
                continue
            if name.endswith("num_batches_tracked") and name not in source:
                continue  # older checkpoints have no such count, and no output depends on it
            if name not in source or source[name].shape != tensor.shape:
                found = tuple(source[name].shape) if name in source else "nothing of that name"
                raise InputError(
                    "start.weights",
                    got=f"{found} for {name}",
                    expected=f"a tensor of shape {tuple(tensor.shape)}",
                    repair='start.head = "replace" gives the last layer new weights'
                    if name.startswith(head_name(model))
                    else "",
                )
            tensor.copy_(source[name])


def _tensors(start: Start, part: Part, outputs: int) -> dict[str, Tensor]:
    if is_run(start.weights):
        return Stored(Path(str(start.weights))).model.state_dict()
    if part.kind in published.KINDS:
        return published.tensors(part, str(start.weights), outputs)
    return read_weights(str(start.weights))
