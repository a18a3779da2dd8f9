"""From a recipe's data to batches on the device, and back: what the engine sees of the data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine import recipe
from ravine.catalogue import Part, find
from ravine.data import reading
from ravine.data.arrays import from_python
from ravine.data.download import data_root
from ravine.data.draw import Draw, Samples
from ravine.data.order import Order
from ravine.data.parts import divide
from ravine.data.source import Arrays, Batch, Source, Split
from ravine.data.statistics import Rows, moments
from ravine.data.transform import Chain, Transform, pack, unpack
from ravine.errors import InputError

RESIDENT_BYTES = 512 << 20  # preprocessed once and kept where the result is at most this
BLOCK_BYTES = 4 << 20  # batches gathered in one go


class Pipeline:
    """Data of one program: loaded, split, fitted, placed on the device.

    ``batch(step)`` is a pure function of the data's seed and the step.
    """

    def __init__(
        self,
        data: recipe.Data,
        *,
        arrays: Any = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        root: Path | str | None = None,
    ):
        self._start(data, device, dtype)
        source = _load(data, arrays, Path(root) if root else data_root())
        parts, classes = divide(source, data)
        self.task, self.facts = source.task, dict(source.facts)
        self.classes = classes or source.classes
        self.vocabulary = len(classes) if classes else source.vocabulary
        self.outputs = source.outputs or len(self.classes)
        self._fit(source, parts["train"])
        self._raw = parts
        self._place()

    # --- what does not need the data ----------------------------------------------------------------------------------

    def _start(self, data: recipe.Data, device: torch.device | str, dtype: torch.dtype) -> None:
        self.data, self.device, self.dtype = data, torch.device(device), dtype
        self._raw: dict[str, Split] = {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The fitted statistics: tensors, and plain data (classes, columns, categories, …)."""
        inputs, plain_inputs = pack(self._inputs, "inputs")
        targets, plain_targets = pack(self._targets, "targets")
        facts = {
            "task": self.task, "classes": list(self.classes), "vocabulary": self.vocabulary, "outputs": self.outputs,
            "raw_shape": list(self.raw_shape), "tokens": self.tokens, "input_shape": list(self.input_shape), "inputs": plain_inputs, "targets": plain_targets,
            "source": self.facts,
        }  # fmt: skip
        return inputs | targets, facts

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
        """What ``state`` gave, without the data: enough for ``transform``, ``read``, ``target_units`` and ``classes``."""
        self = cls.__new__(cls)
        self._start(data, device, dtype)
        self.task, self.classes, self.vocabulary = facts["task"], tuple(facts["classes"]), facts["vocabulary"]
        self.outputs, self.facts, self.tokens = facts["outputs"], dict(facts["source"]), facts["tokens"]
        self.raw_shape, self.input_shape = tuple(facts["raw_shape"]), tuple(facts["input_shape"])
        self._settle(unpack(tensors, facts["inputs"], "inputs"), unpack(tensors, facts["targets"], "targets"))
        return self

    def transform(self, x: Any) -> Tensor:
        """Raw inputs [N, ...] -> network inputs on the device."""
        return self._apply(reading.as_rows(x, self.raw_shape, self.tokens))

    def read(self, path: str | Path) -> tuple[Tensor, list[str]]:
        """Raw inputs and their names from a file or folder of the source's own kind."""
        return reading.read(Path(path), self.data.source, self.facts, self.raw_shape, self.classes)

    def target_units(self, output: Tensor) -> Tensor:
        """Network outputs in the units of the targets; as they are where targets were not transformed."""
        if not len(self._targets):
            return output
        return self._target_chain(output.dtype, output.device).inverse(output)

    def _target_chain(self, dtype: torch.dtype, device: torch.device) -> Chain:
        return copy.deepcopy(self._targets).to(device, dtype)

    # --- fitting ------------------------------------------------------------------------------------------------------

    def _fit(self, source: Source, train: Split) -> None:
        """Fit the chain of transforms, each to what the ones before it make of the training part."""
        first_x, first_y = next(iter(train.chunks()))
        self.raw_shape, self.tokens = tuple(first_x.shape[1:]), self.vocabulary is not None
        inputs = Rows(self.raw_shape, first_x.dtype, lambda: (x for x, _ in train.chunks()))
        targets = Rows(tuple(first_y.shape[1:]), first_y.dtype, lambda: (y for _, y in train.chunks()))
        self._moments = inputs
        chain: list[Transform] = []
        of_targets: list[Transform] = []
        if source.encode:
            assert isinstance(train, Arrays)
            chain.append(source.encode(train.x))
            inputs = inputs.mapped(_exactly(chain[-1]))
        for part in self.data.preprocess:
            to_targets = part.arguments.get("of") == "targets"
            if to_targets and self.task != "regression":
                raise InputError(f"data.preprocess.{part.kind}.of", got="targets", expected=f"inputs: the task is {self.task}")
            rows = targets if to_targets else inputs
            fitted = _technique("preprocess", part)(rows, **part.arguments)
            (of_targets if to_targets else chain).append(fitted)
            if to_targets:
                targets = rows.mapped(_exactly(fitted))
            else:
                inputs = rows.mapped(_exactly(fitted))
        self._settle(Chain(chain), Chain(of_targets))
        self.input_shape = tuple(self._apply(first_x[:1]).shape[1:])
        if self.data.preprocess and self.tokens and any(t for t in chain):
            self.vocabulary, self.tokens_out = None, False

    def _settle(self, inputs: Chain, targets: Chain) -> None:
        self._inputs, self._targets = inputs.double().cpu(), targets.double().cpu()
        self._exact = copy.deepcopy(self._inputs).to(self.device)
        self._fast = copy.deepcopy(self._inputs).to(self.device, self.dtype)
        self._to_targets = copy.deepcopy(self._targets).to(self.device)

    def _apply(self, x: Tensor) -> Tensor:
        """Preprocess raw inputs: in the network's dtype for bytes and floats, through float64 for what came in more digits."""
        x = x.to(self.device, non_blocking=True)
        if not len(self._inputs):
            out = x.long() if self.tokens else x.to(self.dtype)
        elif x.dtype in (torch.uint8, torch.float32, self.dtype):
            out = self._fast(x.to(self.dtype))
        else:
            out = self._exact(x.double()).to(self.dtype)
        return out.nan_to_num_(nan=0.0) if self.facts.get("padded") else out

    def _apply_target(self, y: Tensor) -> Tensor:
        y = y.to(self.device, non_blocking=True)
        if not y.is_floating_point():
            return y.long()
        return self._to_targets(y.double()).to(self.dtype) if len(self._targets) else y.to(self.dtype)

    # --- placing ------------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Decide what is kept ready: preprocessed where it is small and not augmented, raw on the device else."""
        train = self._raw["train"]
        self.train_size = len(train)
        self.batch_size = _batch_size(self.data, self.train_size)
        self._order = Order(self.train_size, self.batch_size, self.data.order, self.data.last_batch, self.data.seed, self.device)
        self.epoch_steps = self._order.epoch_steps
        self._ready: dict[str, Arrays] = {}
        row = torch.Size(self.input_shape).numel() * (8 if self.tokens else self.dtype.itemsize)
        room = RESIDENT_BYTES
        for name in self._raw:
            part = self._raw[name]
            if isinstance(part, Arrays) and not (name == "train" and self.data.augment) and len(part) * row <= room:
                room -= len(part) * row
                self._ready[name] = self._prepared(part)
            elif hasattr(part, "to") and self.device.type != "cpu":
                self._raw[name] = part.to(self.device)
        self._block_start = self._block_stop = 0
        self._block: list[tuple[Tensor, Tensor, Tensor]] = []
        self._block_steps = max(1, BLOCK_BYTES // max(1, row * self.batch_size))
        self._statistics = self._of_raw() if self.data.augment else None

    def _prepared(self, part: Arrays) -> Arrays:
        if not len(self._inputs) and part.x.dtype == self.dtype and part.x.device == self.device:
            return Arrays(part.x, self._apply_target(part.y))
        kind = torch.int64 if self.tokens and not len(self._inputs) else self.dtype
        out = torch.empty(len(part), *self.input_shape, dtype=kind, device=self.device)
        start = 0
        for x, _ in part.chunks():
            out[start : start + len(x)] = self._apply(x)
            start += len(x)
        return Arrays(out, self._apply_target(part.y))

    def _of_raw(self) -> dict[str, Tensor]:
        """Range, mean and deviation of the raw training inputs, shaped to broadcast against a batch."""
        per = "channel" if len(self.raw_shape) >= 2 else "feature"
        seen = moments(self._moments, per)
        low, high = seen.low.min(), seen.high.max()
        if self._moments.dtype == torch.uint8 and high > 1:
            low, high = torch.zeros_like(low), torch.full_like(high, 255.0)
        rows = {"low": low, "high": high, "mean": seen.mean, "deviation": seen.variance.sqrt()}
        return {name: value.to(self.device, self.dtype) for name, value in rows.items()}

    # --- batches ------------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The training batch of a step, 0 first: ordered, augmented, preprocessed."""
        if "train" in self._ready:
            if not self._block_start <= step < self._block_stop:
                self._gather(step)
            return Batch(*self._block[step - self._block_start])
        epoch = step // self.epoch_steps
        index = self._order.rows(step)
        x, y = self._raw["train"].take(index, epoch)
        x, y = self._augmented(x, y, step) if self.data.augment else (x, y)
        return Batch(self._apply(x), self._apply_target(y), index)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The training batches of the steps ``first`` to ``last - 1``."""
        for step in range(first, last):
            yield self.batch(step)

    def _gather(self, step: int) -> None:
        """Gather the rows of several steps of one epoch at once; their batches are views."""
        epoch, place = divmod(step, self.epoch_steps)
        steps = min(self._block_steps, self.epoch_steps - place)
        rows = self._order.epoch(epoch)[place * self.batch_size : (place + steps) * self.batch_size]
        x, y = self._ready["train"].take(rows)
        size = self.batch_size
        self._block = list(zip(x.split(size), y.split(size), rows.split(size), strict=True))
        self._block_start, self._block_stop = step, step + steps

    def _augmented(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        assert self._statistics is not None
        x, y = x.to(self.device), y.to(self.device)
        samples = Samples(x, y, outputs=self.outputs, task=self.task, **self._statistics)
        for place, part in enumerate(self.data.augment):
            draw = Draw(self.data.seed, "augment", place, step, device=self.device)
            samples = _technique("augment", part)(samples, draw, **part.arguments)
        return samples.x, samples.y

    def split(self, name: str, limit: int | None = None, batch: int = 512) -> Iterator[Batch]:
        """A part in order, preprocessed, not augmented, at most ``limit`` rows."""
        size = min(self.size(name), limit if limit is not None else self.size(name))
        ready = self._ready.get(name)
        for start in range(0, size, batch):
            stop = min(start + batch, size)
            index = torch.arange(start, stop, device=self.device)
            if ready is not None:
                yield Batch(ready.x[start:stop], ready.y[start:stop], index)
            else:
                x, y = self._raw[name].take(index)
                yield Batch(self._apply(x), self._apply_target(y), index)

    def has(self, name: str) -> bool:
        """Whether there is such a part: train, validation or test."""
        return name in self._raw

    def size(self, name: str) -> int:
        """Rows in a part."""
        if name not in self._raw:
            raise InputError("data", got=f"no {name} part", expected=f"one of {', '.join(self._raw)}", repair=f"set data.{name} to a fraction above 0")
        return len(self._raw[name])

    def class_counts(self) -> Tensor:
        """How often each class occurs in the training part [K], float64."""
        counts = torch.zeros(self.outputs, dtype=torch.float64)
        for _, y in self._raw["train"].chunks():
            if y.is_floating_point():
                counts += y.double().sum(0).cpu()
            else:
                counts += y[y >= 0].flatten().long().bincount(minlength=self.outputs).cpu()
        return counts

    def summary(self) -> dict[str, Any]:
        """Counts, ranges, constant features, class balance, dtype of each part, before preprocessing."""
        from ravine.data.summary import summarize

        return summarize(self)


def _load(data: recipe.Data, arrays: Any, root: Path) -> Source:
    if arrays is not None:
        task = data.source.arguments.get("task", "auto") if data.source.kind == "arrays" else "auto"
        return from_python(arrays, task)
    return _technique("source", data.source)(root, **data.source.arguments)


def _technique(kind: str, part: Part) -> Any:
    return find(kind, part.kind).function()  # type: ignore[attr-defined]


def _exactly(transform: Transform) -> Any:
    transform = transform.double()
    return lambda x: transform(x.double())


def _batch_size(data: recipe.Data, size: int) -> int:
    if data.batch == "full":
        return size
    if data.batch > size and "batch" in data.model_fields_set:
        raise InputError("data.batch", got=data.batch, expected=f"at most {size}, the size of the training part", repair='set data.batch = "full" for all of it')
    return min(data.batch, size)
