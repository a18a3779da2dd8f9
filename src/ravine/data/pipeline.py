"""From a recipe's data to batches on the device, and back: what the engine sees of the data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ravine import recipe
from ravine.data.augmentation.draw import Draw, Samples, of_inputs
from ravine.data.digest import digest
from ravine.data.download.cache import data_root
from ravine.data.objects.arrays import from_python
from ravine.data.objects.fields import packed, several
from ravine.data.objects.samples import one_input
from ravine.data.objects.stream import Items, Ordered
from ravine.data.objects.targets import as_targets
from ravine.data.order import Order, Place, each_by_itself
from ravine.data.own_function import technique
from ravine.data.parts import divide, is_set
from ravine.data.preprocessing.preparation import Preparation, Prepare, refuse_several
from ravine.data.preprocessing.statistics import Rows
from ravine.data.read import reading
from ravine.data.read.examples import examples
from ravine.data.source import Arrays, Batch, Source, Split
from ravine.errors import InputError

__all__ = ["Batch", "Pipeline"]

READY_BYTES = 512 << 20  # a part is preprocessed once and kept where the result is at most this
BLOCK_BYTES = 1 << 20  # batches that are gathered in one go
DEVICE_SHARE = 0.5  # of the free memory of an accelerator that raw data may take


class Pipeline:
    """Data of one program: loaded, split, fitted, placed on the device. ``batch(step)`` is a pure
    function of the data's seed and the step.

    >>> pipeline = Pipeline(recipe.Data(source="digits", batch=64))
    >>> pipeline.task, pipeline.input_shape, pipeline.outputs, pipeline.batch(0).x.shape
    ('classification', (1, 8, 8), 10, torch.Size([64, 1, 8, 8]))
    """

    def __init__(
        self,
        data: recipe.Data,
        *,
        arrays: Any = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        root: Path | str | None = None,
        fitted: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
        tokens: bool = True,
    ):
        """``arrays``: data given in Python, instead of the recipe's source. ``fitted``: the
        ``state`` of another run, whose preprocessing of inputs is carried over. ``tokens``: whether
        whole numbers [N, T] may be tokens."""
        source = divide(_load(data, arrays, Path(root) if root else data_root()), data)
        source.vocabulary = source.vocabulary if tokens else None
        if "fields" in source.facts and data.augment:
            refuse_several("data.augment")
        carried = Preparation.from_state(*fitted) if fitted else None
        inputs = Rows.of_split(source.parts["train"], 0)
        preparation = Preparation.fit(source, inputs, data.preprocess, fitted=carried)
        self._parts: dict[str, Any] = source.parts
        self._settle(data, preparation, torch.device(device), dtype)
        self._place(source.batch)
        self._seen = (
            {k: v.to(device) for k, v in of_inputs(_encoded(inputs, preparation)).items()}
            if data.augment
            else {}
        )

    def _settle(
        self, data: recipe.Data, preparation: Preparation, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.data, self.preparation, self.device, self.dtype = data, preparation, device, dtype
        self.task, self.classes, self.outputs = (
            preparation.task,
            preparation.classes,
            preparation.outputs,
        )
        self.input_shape, self.raw_shape = preparation.input_shape, preparation.raw_shape
        self.vocabulary = preparation.vocabulary
        self._prepare = Prepare(preparation, device, dtype)
        self._ready: dict[str, Arrays] = {}
        self._rounded: torch.dtype | None = None
        self._place_of: Place | None = None  # in each batch, where this process reads a part of it

    # --- with or without the data -----------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The fitted statistics: tensors, and plain data (classes, columns, categories, …)."""
        return self.preparation.state()

    @cached_property
    def digest(self) -> str:
        """sha256 of the raw data: whole where they are small, else of a sample."""
        return digest(self._parts)

    @classmethod
    def from_state(
        cls,
        data: recipe.Data,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Pipeline:
        """From what ``state`` gave, without the data: enough for transform, read, target_units and
        classes."""
        self = cls.__new__(cls)
        self._parts = {}
        self._settle(data, Preparation.from_state(tensors, facts), torch.device(device), dtype)
        return self

    @classmethod
    def of_test(
        cls,
        data: recipe.Data,
        arrays: Any,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Pipeline:
        """A pipeline with a test part alone, ``arrays`` = (x, y) or a path, prepared as a run's own data."""
        self = cls.from_state(data, tensors, facts, device=device, dtype=dtype)
        known = self.preparation.facts
        x, y = examples(arrays, data.source, known, self.raw_shape, self.classes)
        x, y = self.rows(x), packed(y, known, "target_fields")
        y = as_targets(y, task=self.task, classes=self.classes, outputs=self.outputs)
        if len(x) != len(y):
            raise InputError(
                "y",
                got=f"{len(y)} targets for {len(x)} inputs",
                expected="as many targets as inputs",
            )
        self._parts["test"] = Arrays(x, y)
        return self

    def transform(self, x: Any) -> Tensor:
        """Raw inputs [N, ...], or what ``reading.given`` takes -> network inputs on the device."""
        return self._prepare.inputs(self.rows(x))

    def rows(self, x: Any) -> Tensor:
        """Raw inputs as rows, as preprocessing takes them."""
        if isinstance(x, str) and self.task == "sequence":
            return reading.prompt(x, self.task, self.vocabulary, self.classes)
        x = reading.given(x, self.data.source, self.preparation.facts, self.raw_shape, self.classes)
        if "fields" in self.preparation.facts and several(x):
            return packed(x, self.preparation.facts, "fields")
        x, may_miss = one_input(x, self.preparation.facts), "columns" in self.preparation.facts
        return reading.as_rows(x, self.raw_shape, self.preparation.tokens, may_miss=may_miss)

    def read(self, path: str | Path) -> tuple[Tensor, list[str]]:
        """Raw inputs and their names from a file or folder of the source's own kind."""
        facts = self.preparation.facts
        return reading.read(Path(path), self.data.source, facts, self.raw_shape, self.classes)

    def target_units(self, output: Tensor) -> Tensor:
        """Network outputs in the units of the targets, if those were transformed."""
        return self._prepare.target_units(output)

    def class_counts(self) -> Tensor:
        """How often each class occurs in the training part [K], float64; empty for a regression."""
        return self.preparation.class_counts

    # --- placing ----------------------------------------------------------------------------------

    def _place(self, loader_batch: int | None) -> None:
        """Keep ready what is small and not augmented; put the rest on the device as it came, where
        it fits."""
        train = self._parts["train"]
        self.train_size = len(train)
        self.batch_size = _batch_size(self.data, self.train_size, loader_batch)
        room = READY_BYTES
        for name, part in self._parts.items():
            augmented = name == "train" and bool(self.data.augment)
            size = len(part) * self._row_bytes()
            if (
                isinstance(part, Arrays)
                and not augmented
                and (size <= room or self._prepare.is_identity(part.x))
            ):
                room -= size
                self._ready[name] = self._prepared(part)
            elif not isinstance(part, (Items, Ordered)) and self._fits(part):
                self._parts[name] = part.to(self.device)
        at = getattr(self._ready.get("train", self._parts["train"]), "device", "cpu")
        self._arrange(at)

    def _arrange(self, at: Any) -> None:
        """The order of the training rows, and room for the batches that are gathered together."""
        train = self._parts["train"]
        drawn = self.data.order, self.data.last_batch, self.data.seed
        self._order = Order(self.train_size, self.batch_size, *drawn, at, self._place_of)
        self.epoch_steps = (
            train.epoch_steps if isinstance(train, Ordered) else self._order.epoch_steps
        )
        self._block: list[Any] = []
        self._block_start = 0
        self._block_steps = max(1, BLOCK_BYTES // (self._row_bytes() * self.batch_size))
        self._stream: Iterator[Any] | None = None
        self._stream_step = -1

    def with_batch(self, batch: int | Literal["full"]) -> Pipeline:
        """The same data, ready as they are, in batches of another size; a DataLoader keeps its own."""
        other = copy.copy(self)
        if not isinstance(self._parts["train"], (Items, Ordered)):
            other.data = self.data.model_copy(update={"batch": batch})
            other.batch_size = self.train_size if batch == "full" else min(batch, self.train_size)
            other._arrange(getattr(self._order, "device", self.device))
        return other

    def batched_as(self, data: recipe.Data) -> Pipeline:
        """The same data in the batches that ``data``, which differs in its batches alone, asks
        for."""
        if data.batch == self.data.batch:
            return self
        other = self.with_batch(data.batch)
        if other.data is not self.data:
            other.data = data
            other.batch_size = _batch_size(data, self.train_size, None)
        return other

    def with_rows(self, name: str, rows: Tensor) -> Pipeline:
        """The same data, of its validation or test part these rows alone, in this order."""
        parts = list(self.split(name, batch=4096))
        x, y = (torch.cat([getattr(part, field) for part in parts]) for field in ("x", "y"))
        chosen = Arrays(x[rows.to(x.device)], y[rows.to(y.device)])
        held = {**self._ready, name: chosen}, {**self._parts, name: chosen}
        return self._changed(_ready=held[0], _parts=held[1])

    def lowered(self, dtype: torch.dtype) -> Pipeline:
        """The same data for a network that rounds its inputs to ``dtype`` first: batches that are
        gathered together come so."""
        return self._changed(_rounded=dtype)

    @property
    def reads_parts(self) -> bool:
        """Whether batches are read from files or a Dataset, each row by itself: not augmented."""
        train = self._parts["train"]
        alone = isinstance(train, Items) and not self.data.augment
        return alone and each_by_itself(train.take, self._order.rows(0))

    def in_parts(self, place: Place) -> Pipeline:
        """The same data, of each of whose batches this process reads the part that ``place`` gives."""
        return self._changed(_place_of=place)

    def _changed(self, **changes: Any) -> Pipeline:
        other = copy.copy(self)
        vars(other).update(changes)
        other._arrange(getattr(self._order, "device", self.device))
        return other

    def _row_bytes(self) -> int:
        return max(1, torch.Size(self.input_shape).numel() * self._prepare.input_dtype.itemsize)

    def _fits(self, part: Any) -> bool:
        if self.device.type != "cuda":
            return True
        return part.nbytes <= DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]

    def _prepared(self, part: Arrays) -> Arrays:
        y = self._prepare.targets(part.y)
        if self._prepare.is_identity(part.x):
            return Arrays(part.x, y)
        x = torch.empty(
            len(part), *self.input_shape, dtype=self._prepare.input_dtype, device=self.device
        )
        start = 0
        for chunk, _ in part.chunks():
            x[start : start + len(chunk)] = self._prepare.inputs(chunk)
            start += len(chunk)
        return Arrays(x, y)

    # --- batches ----------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The training batch of a step, 0 first: ordered, augmented, preprocessed."""
        if "train" not in self._ready:
            return self._made(step)
        place = step - self._block_start
        if not 0 <= place < len(self._block):
            self._gather(step)
            place = 0
        return Batch(*self._block[place])

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The training batches of the steps ``first`` to ``last - 1``; a Dataset is read ahead."""
        yield from map(self.batch, range(first, last))

    def _gather(self, step: int) -> None:
        """Gather the rows of several steps of one epoch at once; their batches are views."""
        epoch, place = divmod(step, self.epoch_steps)
        steps = min(self._block_steps, self.epoch_steps - place)
        size = self.batch_size
        rows = self._order.epoch(epoch)[place * size : (place + steps) * size]
        x, y = self._ready["train"].take(rows)
        x = x.to(self._rounded) if self._rounded is not None and x.is_floating_point() else x
        self._block = list(zip(x.split(size), y.split(size), rows.split(size), strict=True))
        self._block_start = step

    def _made(self, step: int) -> Batch:
        x, y, index = self._raw_batch(step)
        if self.data.augment:
            x, y = self.augmented(self._prepare.encoded(x), y, step)
        x = self._prepare.inputs(x, encoded=bool(self.data.augment))
        y, part = self._prepare.targets(y), self._order.part(step)
        return Batch(x, y, index.to(self.device), part=part)

    def _raw_batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        train = self._parts["train"]
        if not isinstance(train, (Items, Ordered)):
            index = self._order.rows(step)
            return *train.take(index, step // self.epoch_steps), index
        if self._stream is None or step != self._stream_step:
            self._stream = train.steps(self._order, step)
        self._stream_step = step + 1
        return next(self._stream)

    def stop_reading(self) -> None:
        """End the processes that read a Dataset ahead; the garbage collector waits 5 s for each."""
        self._stream = None

    def augmented(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Raw inputs (of tables: the encoded ones) and targets, augmented as those of a step."""
        samples = Samples(
            x.to(self.device), y.to(self.device), outputs=self.outputs, task=self.task, **self._seen
        )
        for place, part in enumerate(self.data.augment):
            draw = Draw(self.data.seed, "augment", place, step, device=self.device)
            samples = technique("augment", part)(samples, draw, **part.arguments)
        return samples.x, samples.y

    def split(self, name: str, limit: int | None = None, batch: int = 512) -> Iterator[Batch]:
        """A part in order, preprocessed, not augmented, at most ``limit`` rows."""
        size = self.size(name) if limit is None else min(self.size(name), limit)
        part, start = self._ready.get(name) or self._parts[name], 0
        for x, y in _in_order(part, size, batch):
            index = torch.arange(start, start + len(x), device=self.device)
            start += len(x)
            if name not in self._ready:
                x, y = self._prepare.inputs(x), self._prepare.targets(y)
            yield Batch(x, y, index)

    def raw(self, name: str, limit: int) -> tuple[Tensor, Tensor]:
        """The first raw inputs and targets of a part, before preprocessing."""
        return next(_in_order(self._parts[name], min(limit, self.size(name)), limit))

    def has(self, name: str) -> bool:
        """Whether there is such a part: train, validation or test."""
        return name in self._parts

    def size(self, name: str) -> int:
        """Rows in a part."""
        return len(self.part(name))

    def part(self, name: str) -> Split:
        """The raw rows of a part: train, validation or test. Raises InputError where there is none
        of that name."""
        if name not in self._parts:
            known = ", ".join(self._parts)
            raise InputError(
                "data",
                got=f"no {name} part",
                expected=f"one of {known}",
                repair=f"set data.{name} above 0",
            )
        return self._parts[name]

    def encoded(self, x: Tensor) -> Tensor:
        """Raw inputs as augmentation takes them: of a table, its cells as numbers."""
        return self._prepare.encoded(x)

    def preprocessed(self, x: Tensor) -> Tensor:
        """Encoded inputs (see ``encoded``) as the network sees them."""
        return self._prepare.inputs(x, encoded=True)


def _encoded(inputs: Rows, preparation: Preparation) -> Rows:
    encoder, _ = preparation.split()
    return inputs.behind(encoder.transforms[0]) if len(encoder) else inputs


_READ: list[tuple[Any, Path, Source]] = []  # by read_ahead, until pipelines take it


def read_ahead(data: recipe.Data, pipelines: int) -> None:
    """Read a source for so many pipelines to come, which are made one after the other: none of them
    reads it again. A pipeline of another source ends this."""
    root = data_root()
    _READ.clear()
    _READ[:] = [(data.source, root, _load(data, None, root))] * pipelines


def _load(data: recipe.Data, arrays: Any, root: Path) -> Source:
    if arrays is None:
        part, place, source = _READ.pop() if _READ else (None, None, None)
        if source is not None and (part, place) == (data.source, root):
            return source
        _READ.clear()
        return technique("source", data.source)(root, **data.source.arguments)
    of_arrays = data.source.kind == "arrays"
    task = data.source.arguments["task"] if of_arrays else "auto"
    return from_python(
        arrays, task, seed=data.seed, batch=128 if data.batch == "full" else data.batch
    )


def _batch_size(data: recipe.Data, size: int, loader_batch: int | None) -> int:
    chosen = is_set(data, "batch")
    if loader_batch and not chosen:
        return min(loader_batch, size)
    if data.batch == "full":
        return size
    if data.batch > size and chosen:
        raise InputError(
            "data.batch",
            got=data.batch,
            expected=f"at most {size}, the size of the training part",
            repair='batch = "full" takes all of it',
        )
    return min(data.batch, size)


def _in_order(part: Any, size: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first rows of a part, some at a time."""
    if isinstance(part, Ordered):
        start = 0
        for x, y in part.chunks():
            if start >= size:
                return
            yield x[: size - start], y[: size - start]
            start += len(x)
        return
    for start in range(0, size, batch):
        stop = min(start + batch, size)
        if isinstance(part, Arrays):
            yield part.x[start:stop], part.y[start:stop]
        else:
            yield part.take(torch.arange(start, stop))
