"""New data that a trained network is to predict: do they lie where its training data lay?"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from ravine.data.pipeline import Pipeline
from ravine.data.tables.encoder import Encoder

SCALED = {"standardize", "robust"}  # what brings training inputs to a spread of about 1
FAR, NEARLY_ALL = 1.9, 0.95  # in units of that spread; share of the rows
OFF, NARROW = 1.0, 0.1  # the middle of values that hardly spread
VERY_FAR, MOST = 8.0, 0.5
FEWEST = 10  # rows, for all but the last of these


def unlike_training(pipeline: Pipeline, x: Any) -> list[str]:
    """Which features of new inputs lie where hardly any training sample was, in words.

    Only where the inputs are scaled by statistics of the training part: those are stored with the
    run. A feature that is far off in nearly every row is usually in other units, or was scaled
    before, though the run scales it itself.
    """
    kinds = {part.kind for part in pipeline.data.preprocess if _of_inputs(part.arguments)}
    if not kinds & SCALED:
        return []
    z = pipeline.transform(x)
    if not z.is_floating_point() or len(z) < 1:
        return []
    names = _names(pipeline)
    rows, named = _by_feature(z), "input feature" if z.dim() == 2 else "channel"
    far = (rows.abs() > FAR).double().mean(0) >= NEARLY_ALL
    spread, middle = rows.std(0, correction=0), rows.median(0).values
    far |= (spread > 0) & (spread < NARROW) & (middle.abs() > OFF)
    far &= len(rows) >= FEWEST
    far |= (rows.abs() > VERY_FAR).double().mean(0) > MOST
    found = []
    for i in far.nonzero().flatten().tolist():
        what = names[i] if len(names) == rows.shape[1] else f"{named} {i}"
        found.append(
            f"{what}: the values are {float(middle[i]):+.1f} units of the training data's spread away "
            f"from its middle, and spread {float(spread[i]):.2g}; are they in the same units, and not "
            "scaled already?"
        )
    return found


def _of_inputs(arguments: dict[str, Any]) -> bool:
    return arguments.get("of", "inputs") == "inputs"


def _names(pipeline: Pipeline) -> tuple[str, ...]:
    """The names of a table's features; none of other data."""
    encoder, _ = pipeline.preparation.split()
    return cast(Encoder, encoder.transforms[0]).names if len(encoder) else ()


def _by_feature(z: Tensor) -> Tensor:
    """Rows by features, or samples' means by channels of images."""
    z = z.detach().double().cpu()
    return z.flatten(2).mean(2) if z.dim() > 2 else z.reshape(len(z), -1)
