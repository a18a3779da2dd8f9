"""Samples of the training part as plain arrays, for people to look at: by class, as a table, as
text, augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ravine import randomness
from ravine.data.download.cache import data_root
from ravine.data.objects.stream import Ordered
from ravine.data.pipeline import Pipeline
from ravine.data.read import texts
from ravine.data.read.formats import find
from ravine.data.tables.decisions import WIDE, places_of
from ravine.data.tables.encoder import Encoder
from ravine.errors import InputError

View = Literal["images", "table", "text", "tokens", "sequences"]
# rows that are looked at where a part cannot be asked for its labels, and for pictures of a table
_POOL = 20_000


@dataclass
class ClassSamples:
    """Raw samples that belong together, such as those of one class."""

    title: str
    x: np.ndarray  # [n, ...]
    captions: Sequence[str] = ()


@dataclass
class TableColumn:
    """A column of a table: numbers, or codes of categories; NaN where a value is missing."""

    name: str
    values: np.ndarray  # [N] float64
    categories: tuple[str, ...] = ()
    kind: str = "number"

    def cell(self, row: int) -> str:
        value = self.values[row]
        if np.isnan(value):
            return ""
        if self.kind == "date":
            return str(np.datetime64(int(value * 1440), "m")).removesuffix("T00:00")
        if not self.categories:
            return f"{value:.6g}"
        return self.categories[int(value)] if value >= 0 else "(other)"


@dataclass
class TableSamples:
    """Rows of a table: input columns, and the targets of the same rows."""

    columns: list[TableColumn]
    targets: list[TableColumn] = field(default_factory=list)


def view_of(pipeline: Pipeline) -> View:
    """How samples of these data are looked at."""
    rank = len(pipeline.raw_shape)
    if pipeline.preparation.tokens:
        return "text" if pipeline.data.source.kind in ("text", "shakespeare") else "tokens"
    if rank == 3 or (rank == 2 and pipeline.raw("train", 1)[0].dtype == torch.uint8):
        return "images"
    return "sequences" if rank == 2 else "table"


def by_class(pipeline: Pipeline, each: int, most: int) -> list[ClassSamples]:
    """Up to ``each`` raw training samples of each of the first ``most`` classes, drawn by the
    data's seed; for a regression, one group in the order of the targets."""
    x, y = _pool(pipeline, each, most)
    if pipeline.task == "regression":
        order = y.flatten(1)[:, 0].argsort()
        order = order[torch.linspace(0, len(order) - 1, min(len(order), 4 * each)).long()]
        return [
            ClassSamples(
                "",
                x[order].numpy(),
                [", ".join(f"{v:.4g}" for v in row.flatten()[:3]) for row in y[order]],
            )
        ]
    if pipeline.task == "sequence":
        return [ClassSamples("", x[: 2 * each].numpy())]
    belongs = _belonging(y, pipeline.outputs)  # [n, K]
    return [
        ClassSamples(name, x[belongs[:, k]][:each].numpy())
        for k, name in enumerate(pipeline.classes[:most])
        if bool(belongs[:, k].any())
    ]


def table_of(pipeline: Pipeline, first: int | None = None) -> TableSamples:
    """Raw training rows as a table, the first ones or some of all; arrays as one with a column for
    each number."""
    x, y = pipeline.raw("train", first) if first else _take(pipeline, _shuffled(pipeline)[:_POOL])
    values = x.flatten(1).double().numpy()  # [N, D]
    described = pipeline.preparation.facts.get("columns") or [
        {"name": f"x{i}", "kind": "number"} for i in range(values.shape[1])
    ]
    columns = [
        TableColumn(c["name"], values[:, place.start], tuple(c.get("categories", ())), c["kind"])
        for c, place in places_of(described)
        if c["kind"] not in WIDE
    ]
    names = pipeline.preparation.facts.get("targets") or (
        ["y"] if y.ndim == 1 or y.shape[1] == 1 else []
    )
    found = y.double().numpy().reshape(len(y), -1)
    names = names if len(names) == found.shape[1] else [f"y{i}" for i in range(found.shape[1])]
    coded = pipeline.task == "classification" and not y.is_floating_point()
    return TableSamples(
        columns,
        [
            TableColumn(n, found[:, i], pipeline.classes if coded else ())
            for i, n in enumerate(names)
        ],
    )


def features_of(pipeline: Pipeline) -> list[str]:
    """The names of the numbers that a row of a table is made into."""
    encoder, _ = pipeline.preparation.split()
    for transform in encoder.transforms:
        if isinstance(transform, Encoder):
            return list(transform.names)
    return [f"x{i}" for i in range(torch.Size(pipeline.raw_shape).numel())]


def lines_of(pipeline: Pipeline, count: int, *, first: bool = False) -> list[str]:
    """Stretches of a text, or rows of tokens: the first ones, or drawn over the whole training
    part. Of texts by class the beginnings of some, with their classes."""
    source = pipeline.data.source
    if source.kind == "texts":
        root = find(source.path, data_root(), "a folder", folder=True)
        return texts.beginnings(root, count)
    size = min(count, pipeline.size("train"))
    if first:
        x, _ = pipeline.raw("train", size)
    else:
        x, _ = _take(pipeline, _shuffled(pipeline)[:size].sort().values)
    characters = pipeline.classes if view_of(pipeline) == "text" else ()
    found = [line(row, characters) for row in x.tolist()]
    return "".join(found).splitlines()[:count] if first and characters else found


def line(tokens: Sequence[float], characters: Sequence[str]) -> str:
    """Tokens as characters, or as numbers where they are not characters."""
    whole = [int(token) for token in tokens]
    return (
        "".join(characters[token] for token in whole) if characters else " ".join(map(str, whole))
    )


def augmented(
    pipeline: Pipeline, count: int, draws: int
) -> tuple[list[ClassSamples], np.ndarray | None]:
    """Training samples, each beside ``draws`` augmentations of it: groups of 1 + draws raw rows;
    and the last draw as the network sees it, where that still is an image."""
    if not pipeline.data.augment:
        raise InputError(
            "data.augment",
            got="no augmentation",
            expected="at least one technique",
            repair="""for example --set 'data.augment=["shift"]'""",
        )
    x, y, names = _one_of_each(pipeline, count)
    x = pipeline.encoded(x)
    drawn = [pipeline.augmented(x, y, step) for step in range(draws)]
    # [n, 1 + draws, ...]
    rows = torch.stack([x.double().cpu(), *(each.double().cpu() for each, _ in drawn)], 1)
    groups = [
        ClassSamples(
            name,
            rows[i].numpy(),
            ["original", *(_mixed(soft[i], name, pipeline.classes) for _, soft in drawn)],
        )
        for i, name in enumerate(names)
    ]
    seen = pipeline.preprocessed(drawn[-1][0]).cpu()
    shown = view_of(pipeline) == "images" and seen.ndim == 4 and len(pipeline.preparation.inputs)
    return groups, seen.double().numpy() if shown else None


# --- choosing rows --------------------------------------------------------------------------------


def _pool(pipeline: Pipeline, each: int, most: int) -> tuple[Tensor, Tensor]:
    """Rows in a random order, ``each`` of every class at least where the part knows its labels."""
    part = pipeline.part("train")
    labels = getattr(part, "labels", None)
    if labels is None or isinstance(part, Ordered):
        return _take(pipeline, _shuffled(pipeline)[: min(_POOL, each * most)])
    if pipeline.task in ("regression", "sequence"):
        return _take(pipeline, _shuffled(pipeline)[:_POOL])
    order = _shuffled(pipeline)
    belongs = _belonging(labels.cpu()[order], pipeline.outputs)[:, :most]  # [N, K]
    chosen = (belongs & (belongs.long().cumsum(0) <= each)).any(1)
    return _take(pipeline, order[chosen])


def _shuffled(pipeline: Pipeline) -> Tensor:
    generator = randomness.generator(pipeline.data.seed, "samples")
    return torch.randperm(pipeline.size("train"), generator=generator)


def _take(pipeline: Pipeline, index: Tensor) -> tuple[Tensor, Tensor]:
    part = pipeline.part("train")
    x, y = pipeline.raw("train", len(index)) if isinstance(part, Ordered) else part.take(index)
    return x.cpu(), y.cpu()


def _belonging(y: Tensor, outputs: int) -> Tensor:
    """[N, K]: whether a sample is of a class, or has a label; by the largest share where classes
    are soft."""
    if y.ndim == 1:
        return y[:, None] == torch.arange(outputs)
    several = bool(((y == 0) | (y == 1)).all())
    return y > 0.5 if several else y.argmax(1)[:, None] == torch.arange(outputs)


def _one_of_each(pipeline: Pipeline, count: int) -> tuple[Tensor, Tensor, list[str]]:
    """Samples of as many classes as there are, and a name for each."""
    x, y = _pool(pipeline, count, count)
    if pipeline.task in ("regression", "sequence"):
        x, y, values = x[:count], y[:count], pipeline.task == "regression"
        return (
            x,
            y,
            [", ".join(f"{v:.4g}" for v in row[:3]) if values else "" for row in y.flatten(1)],
        )
    belongs = _belonging(y, pipeline.outputs)
    # 1 for the first of its class, 2 for the second, …
    rank = (belongs.long().cumsum(0) * belongs).amax(1)
    order = torch.argsort(rank * pipeline.outputs + belongs.long().argmax(1), stable=True)[:count]
    names = [
        ", ".join(pipeline.classes[k] for k in row.nonzero().flatten().tolist())
        for row in belongs[order]
    ]
    return x[order], y[order], names


def _mixed(y: Tensor, original: str, classes: Sequence[str]) -> str:
    """The shares of a mixed target; nothing where it is the original's class."""
    if not y.is_floating_point() or y.ndim != 1 or len(y) != len(classes):
        return ""
    shares = [
        (f"{float(y[k]):.0%}", classes[k])
        for k in y.argsort(descending=True).tolist()[:2]
        if y[k] >= 0.005
    ]
    return (
        ""
        if shares == [("100%", original)]
        else ", ".join(f"{share} {name[:6]}" for share, name in shares)
    )
