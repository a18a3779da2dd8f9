"""Inputs changed by the augmentation of the recipe, to average predictions over."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ravine.data.augmentation.draw import Draw, samples
from ravine.data.own_function import technique
from ravine.data.pipeline import Pipeline


def augmented_copy(pipeline: Pipeline, x: Any, seed: int, copy: int) -> Tensor:
    """Raw inputs as network inputs, augmented as the recipe says: another draw for each ``copy``.

    What changes targets too (mixing) is left out; ranges that augmentation needs are those of x.
    """
    rows = pipeline.encoded(pipeline.rows(x)).to(pipeline.device)
    batch = samples(rows, outputs=pipeline.outputs, task=pipeline.task)
    for place, part in enumerate(pipeline.data.augment):
        before, y = batch.x, batch.y
        draw = Draw(seed, "prediction", place, copy, device=pipeline.device)
        batch = technique("augment", part)(batch, draw, **part.arguments)
        if batch.y is not y:
            batch = samples(before, outputs=pipeline.outputs, task=pipeline.task)
    return pipeline.preprocessed(batch.x)
