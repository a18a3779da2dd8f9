"""PyTorch Datasets and DataLoaders, read as they are needed: by row number where they have one,
else in their own order.

A Dataset that gives the same samples twice and fits into memory is read once and kept.
All else is read anew each epoch, a few batches ahead by a worker process, its own random numbers
seeded by the step, so that any step can be entered.
"""

from __future__ import annotations

import copy
import itertools
import math
import multiprocessing
import random
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from ravine.data.objects.checks import finite
from ravine.data.objects.convert import tensor
from ravine.data.objects.fields import Fields, longest, packed
from ravine.data.objects.pairs import from_pairs, vocabulary_of
from ravine.data.objects.samples import (
    WithLongest,
    by_name,
    check_width,
    form_of,
    has_several,
    input_names,
    is_labelled,
    joined,
    pair,
    parts_of,
    stack,
    stacked_inputs,
)
from ravine.data.objects.targets import as_targets, interpret
from ravine.data.order import Order
from ravine.data.room import fits
from ravine.data.source import Arrays, Source
from ravine.errors import InputError
from ravine.randomness import key, seed_globally
from ravine.records import class_of

PATIENCE = 10.0  # seconds in which a stream is read before a word is said
_PROBE = 16  # samples that are read twice
_CHUNK_ROWS = 256


@dataclass
class Items:
    """Rows of a map-style Dataset."""

    dataset: Dataset
    index: Tensor  # the rows of the dataset that are rows of this part
    seed: int
    collate: Any = None
    workers: int | None = None
    labels: Tensor | None = None
    encode: Any = None
    # places of the longest samples, collated with every batch where collate pads each batch by itself
    longest: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        with seeded(key(self.seed, "dataset", "row", int(index[0]))):
            return self.fetch(index)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        places = self.index[index.cpu()].tolist()
        many = getattr(self.dataset, "__getitems__", None)
        items = many(places) if callable(many) else [self.dataset[place] for place in places]
        if any(item is None for item in items):
            raise _nothing(places[[item is None for item in items].index(True)])
        if self.collate is None:
            x, y = stack(items)
        else:
            x, y = pair(self.collate([*items, *(self.dataset[place] for place in self.longest)]))
            x, y = x[: len(items)], y[: len(items)]
        return x, self.encode(y) if self.encode else y

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.arange(len(self)).split(_CHUNK_ROWS):
            yield self.take(index)

    def rows(self, index: Tensor) -> Items:
        labels = None if self.labels is None else self.labels[index]
        return replace(self, index=self.index[index], labels=labels)

    def steps(self, order: Order, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Raw batches of the steps from ``first`` on, without end."""
        workers = reading_processes() if self.workers is None else self.workers
        ahead: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
        own = torch.Generator()  # else the loader draws its seed from the user's random numbers
        loader = DataLoader(
            _Steps(self, order),
            sampler=itertools.count(first),
            batch_size=None,
            num_workers=workers,
            generator=own,
            **ahead,
        )
        return iter(loader)


class _Steps(Dataset):
    """One item a step: a whole batch."""

    def __init__(self, items: Items, order: Order):
        self.items, self.order = items, order

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.order.rows(step)
        with seeded(key(self.items.seed, "dataset", step)):
            x, y = self.items.fetch(rows)
        return x, y, rows


@dataclass
class Ordered:
    """A loader that can only be read in order: an IterableDataset, or a sampler of the user's
    own."""

    loader: DataLoader
    seed: int
    count: int = 0
    epoch_steps: int = 0
    labels: Tensor | None = None
    encode: Any = None
    width: int | None = None  # numbers of a sample of several inputs

    def __len__(self) -> int:
        return self.count

    def take(self, index: Tensor, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        raise InputError(
            "data",
            got="a DataLoader without row numbers",
            expected="a Dataset with __getitem__ and __len__",
        )

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._epoch("chunks")

    def rows(self, index: Tensor) -> Ordered:
        raise InputError(
            "data.validation",
            got="a DataLoader without row numbers, which cannot be split",
            expected="validation data of its own: data = (train_loader, validation_loader)",
            repair="or set data.validation = 0",
        )

    def steps(self, order: Order, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        epoch, skip = divmod(first, self.epoch_steps)
        while True:
            start = 0
            for place, (x, y) in enumerate(self._epoch(epoch)):
                if place >= skip:
                    yield x, y, torch.arange(start, start + len(x)) % max(1, self.count)
                start += len(x)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int | str) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass, its draws a function of the epoch and the place in it."""
        with seeded(key(self.seed, "loader", epoch)):
            iterator = iter(self.loader)
        for place in itertools.count():
            with seeded(key(self.seed, "loader", epoch, place)):
                batch = next(iterator, None)
            if batch is None:
                return
            x, y = pair(batch)
            if self.width is not None:
                check_width(x, self.width)
            yield x, self.encode(y) if self.encode else y


def _nothing(place: int) -> InputError:
    """The error of a row without a sample: which rows there are is known before they are read."""
    return InputError(
        "data",
        got=f"None as sample {place}",
        expected="a sample for each row of the Dataset",
        repair="leave such rows out beforehand: torch.utils.data.Subset(dataset, rows), or give an "
        "IterableDataset that skips them",
    )


def from_streams(parts: Mapping[str, Any], task: str, seed: int, batch: int) -> Source:
    """A source from parts of which at least one is a Dataset or DataLoader; others are (x, y)."""
    opened = {
        name: part if isinstance(part, tuple) else open_part(part, seed, batch)
        for name, part in parts.items()
    }
    facts = _facts_of(opened["train"])
    task = "regression" if "target_fields" in facts else task  # numbers side by side are no classes
    for name, split in opened.items():
        if isinstance(split, Ordered) and "fields" in facts:
            split.width = Fields.from_dict(facts["fields"]).size
        elif isinstance(split, tuple):
            x, y = packed(split[0], facts, "fields"), packed(split[1], facts, "target_fields")
            opened[name] = x, y
    splits = {name: (isinstance(s, Items) and _kept(s)) or s for name, s in opened.items()}
    read = all(isinstance(split, tuple) for split in splits.values())
    source = from_pairs(splits, task) if read else _unread(splits, task, facts)
    loaders = [part for part in parts.values() if isinstance(part, DataLoader)]
    source.batch = loaders[0].batch_size if loaders else None
    source.facts |= facts
    source.vocabulary = None if "fields" in facts else source.vocabulary
    return source


def _unread(splits: Mapping[str, Any], task: str, form: Mapping[str, Any]) -> Source:
    """Some parts stay unread; only their targets are gone through once, to know the classes."""
    parts = {
        name: Arrays(*map(_required, split)) if isinstance(split, tuple) else split
        for name, split in splits.items()
    }
    labels = {
        name: part.y if isinstance(part, Arrays) else _survey(part) for name, part in parts.items()
    }
    first_x, _ = next(iter(parts["train"].chunks()))
    ordered, named = (
        Fields.from_dict(form["fields"]).unpack(first_x) if "fields" in form else ((first_x,), {})
    )
    found = interpret(labels, [*ordered, *named.values()][0], task)
    for name, part in parts.items():
        if isinstance(part, Arrays):
            parts[name] = Arrays(part.x, found.parts[name])
        else:
            encode = partial(
                as_targets, task=found.task, classes=found.classes, outputs=found.outputs
            )
            parts[name] = replace(part, encode=encode, labels=found.parts[name])
    vocabulary = (
        vocabulary_of(x for part in parts.values() for x, _ in part.chunks())
        if _tokens(first_x)
        else None
    )
    facts = {"one_each": True} if found.one_each else {}
    return Source(parts, found.task, found.classes, vocabulary, facts, outputs=found.outputs)


def _tokens(x: Tensor) -> bool:
    return x.ndim == 2 and not x.is_floating_point() and x.dtype != torch.uint8


def open_part(part: Dataset | DataLoader, seed: int, batch: int) -> Any:
    """A split that reads the samples of a Dataset or DataLoader."""
    if isinstance(part, IterableDataset):
        return Ordered(DataLoader(part, batch_size=batch), seed)
    if not isinstance(part, DataLoader):
        return Items(part, _all(part), seed)
    sampled = part.sampler is not None and type(part.sampler) not in (
        RandomSampler,
        SequentialSampler,
    )
    collate = None if part.collate_fn is default_collate else part.collate_fn
    if isinstance(part.dataset, IterableDataset) or part.batch_size is None or sampled:
        if collate is not None and part.batch_sampler is not None:
            part = _evenly(part)
        return Ordered(part, seed)
    rows, workers = _all(part.dataset), part.num_workers or None
    with seeded(seed):  # a person's samples may draw
        if part.dataset[0] is None:
            raise _nothing(0)
    found = Items(part.dataset, rows, seed, collate, workers)
    if collate is None:
        return found

    return replace(found, longest=_longest(part))


def _longest(loader: DataLoader) -> tuple[int, ...]:
    """The places of the longest samples of a loader whose collate_fn pads each batch by itself."""

    def inputs(place: int) -> Any:
        return parts_of(loader.collate_fn([loader.dataset[place]]), least=2)[0]

    with seeded(key("longest")):
        return longest(inputs, len(_all(loader.dataset)))


def _evenly(loader: DataLoader) -> DataLoader:
    """The loader, whose batches are all as wide as the longest sample."""
    if isinstance(loader.dataset, IterableDataset):
        return loader
    places = _longest(loader)
    if not places:
        return loader
    even = copy.copy(loader)
    even.collate_fn = WithLongest(loader.collate_fn, loader.dataset, places)
    return even


def _all(dataset: Dataset) -> Tensor:
    size = getattr(dataset, "__len__", None)
    if size is None:
        raise InputError(
            "data",
            got=type(dataset).__name__,
            expected="a Dataset with __len__, or an IterableDataset",
        )
    if not size():
        raise InputError("data", got="an empty Dataset", expected="at least one sample")
    return torch.arange(size())


def _kept(items: Items) -> tuple[Any, Any] | None:
    """All of a Dataset as (x, y), where it gives the same samples twice and is small enough."""
    probe = torch.linspace(0, len(items) - 1, min(_PROBE, len(items))).long()
    twice = []
    for turn in range(2):
        with seeded(key("probe", turn)):
            twice.append(items.fetch(probe))
    same = all(
        torch.equal(
            a.nan_to_num() if a.is_floating_point() else a,
            b.nan_to_num() if b.is_floating_point() else b,
        )
        for a, b in zip(*twice, strict=True)
    )
    x, y = twice[0]
    size = (x.numel() * x.element_size() + y.numel() * y.element_size()) / len(probe) * len(items)
    return all_of(items) if same and fits(size) else None


def all_of(part: Items | Ordered) -> tuple[Tensor, Tensor]:
    """All samples of a part as (x, y), padded to the longest where their lengths differ."""
    xs, ys = zip(*part.chunks(), strict=True)
    if len({x.shape[1:] for x in xs}) > 1:
        return joined([row for x in xs for row in x]), torch.cat(ys)
    return torch.cat(xs), torch.cat(ys)


def _survey(split: Items | Ordered) -> Tensor:
    """The targets of all rows, from the dataset's own list where it has one, else by reading it
    once."""
    if isinstance(split, Items):
        for name in ("targets", "labels"):
            held = getattr(split.dataset, name, None)
            if isinstance(held, (list, np.ndarray, Tensor)) and len(held) == len(split):
                return _required(held)
    labels, steps, begun = [], 0, time.monotonic()
    for x, y in split.chunks():
        finite(x, "x", padded=True)
        labels.append(y)
        steps += 1
        if time.monotonic() - begun > PATIENCE and not isinstance(split, Items):
            begun = math.inf
            warnings.warn(
                f"data: {sum(map(len, labels)):,} samples of a stream were read so far to count them; a stream "
                "without an end never gets there: end it in __iter__, as by itertools.islice(samples, 10_000)",
                stacklevel=2,
            )
    if not labels:
        raise InputError("data", got="a DataLoader without batches", expected="at least one sample")
    found = torch.cat(labels)
    if isinstance(split, Ordered):
        split.count, split.epoch_steps = len(found), steps
    return found


def _required(value: Any) -> Tensor:
    found = tensor(value, "y")
    if not isinstance(found, Tensor):
        raise InputError("y", got="text", expected="numbers")
    return found


def _first(part: Any) -> tuple[Any, int]:
    """The first sample of a part and 1, or its first batch and 2, the least axes of its arrays."""
    with seeded(key("fields")):
        if isinstance(part, Ordered):
            return next(iter(part.loader)), 2
        items = [part.dataset[place] for place in (0, *part.longest)]
        return (part.collate(items), 2) if part.collate else (items[0], 1)


def _facts_of(part: Any) -> dict[str, Any]:
    """In which form a part's samples are given: of several inputs or targets, as objects, without
    targets."""
    if isinstance(part, tuple):
        return {"unlabelled": True} if part[1] is None else {}
    item, least = _first(part)
    x, y = parts_of(item, least)
    labelled, form = is_labelled(item), form_of(item, least)
    named = by_name(item)
    facts: dict[str, Any] = {} if labelled else {"unlabelled": True}
    facts |= {"form": form} if form else {}
    if has_several(x):
        target = "y" if named is None else input_names(named, least)[1] or ""
        flat = named is None and len(item) > 2
        inputs, record = x if least == 2 else stacked_inputs([x]), class_of(x)
        facts["fields"] = Fields.of(inputs, target, flat=flat, record=record).to_dict()
    if labelled and has_several(y):
        targets = y if least == 2 else stacked_inputs([y])
        facts["target_fields"] = Fields.of(targets, record=class_of(y)).to_dict()
    return facts


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and PyTorch's global random numbers seeded, and put back afterwards."""
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        seed_globally(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def reading_processes() -> int:
    """One worker where processes are forked, so that any Dataset can be handed to it; else the
    batches are read in place."""
    forks = multiprocessing.get_start_method(allow_none=False) == "fork"
    return 1 if forks and not multiprocessing.current_process().daemon else 0
