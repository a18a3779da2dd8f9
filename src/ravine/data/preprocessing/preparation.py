"""Preprocessing between raw data and the network: fitted to the training part, stored with the
run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ravine.catalogue import Part
from ravine.data.own_function import technique
from ravine.data.preprocessing.statistics import Rows
from ravine.data.preprocessing.transform import FEATURE_WISE, Chain, Transform, fused, pack, unpack
from ravine.data.source import Source, Split
from ravine.data.tables.encoder import Encoder
from ravine.errors import InputError
from ravine.layout import Features


@dataclass
class Preparation:
    """The meaning of the data, and the transforms of inputs and targets in float64."""

    task: str
    classes: tuple[str, ...]
    outputs: int
    raw_shape: tuple[int, ...]
    tokens: bool  # raw inputs are whole numbers that stay whole unless something is preprocessed
    vocabulary: int | None
    facts: dict[str, Any]
    inputs: Chain = field(default_factory=Chain)
    targets: Chain = field(default_factory=Chain)
    input_shape: tuple[int, ...] = ()
    class_counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    @classmethod
    def fit(
        cls,
        source: Source,
        inputs: Rows,
        preprocess: Sequence[Part],
        *,
        fitted: Preparation | None = None,
    ) -> Preparation:
        """Fit each transform to what the ones before it make of the training part, whose raw inputs
        are ``inputs``.

        ``fitted`` is the preparation of another run: its input transforms are taken as they are.
        """
        train = source.parts["train"]
        tokens = source.vocabulary is not None
        self = cls(
            source.task,
            source.classes,
            source.outputs or len(source.classes),
            inputs.shape,
            tokens,
            source.vocabulary,
            dict(source.facts),
        )
        if fitted and source.encode:
            raise InputError(
                "start.weights",
                got="preprocessing carried over to a table",
                expected="data whose preprocessing does not depend on columns",
            )
        first: list[Transform] = [source.encode(inputs)] if source.encode else []
        if "fields" in source.facts and preprocess:
            refuse_several("data.preprocess")
        of_inputs = [part for part in preprocess if part.arguments.get("of") != "targets"]
        of_targets = [part for part in preprocess if part.arguments.get("of") == "targets"]
        if of_targets and self.task != "regression":
            raise InputError(
                f"data.preprocess.{_kind(of_targets[0])}.of",
                got="targets",
                expected=f"inputs: the task is {self.task}",
            )
        self.inputs = self._carried(fitted) if fitted else _chain(inputs, of_inputs, first)
        self.targets = _chain(Rows.of_split(train, 1), of_targets, [])
        if len(self.inputs):
            self.vocabulary = None
        self.input_shape = self._with_groups(
            tuple(self.inputs(inputs.first().double()).shape[1:])
            if len(self.inputs)
            else self.raw_shape
        )
        self.class_counts = (
            count_classes(train, self.outputs) if self.task != "regression" else self.class_counts
        )
        return self

    def _with_groups(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a sample; of a table whose features are still one by one, with what they
        are."""
        encoder, rest = self.split()
        one_by_one = all(isinstance(transform, FEATURE_WISE) for transform in rest.transforms)
        if not len(encoder) or not one_by_one:
            return shape
        return Features(shape, cast(Encoder, encoder.transforms[0]).groups)

    def _carried(self, fitted: Preparation) -> Chain:
        if fitted.raw_shape != self.raw_shape:
            raise InputError(
                "data",
                got=f"samples of shape {list(self.raw_shape)}",
                expected=f"{list(fitted.raw_shape)}, as in the run whose preprocessing is carried over",
            )
        return fitted.inputs

    def split(self) -> tuple[Chain, Chain]:
        """What makes numbers of a table's cells, and the transforms after it."""
        transforms = self.inputs.transforms
        first = [transform for transform in transforms[:1] if isinstance(transform, Encoder)]
        return Chain(first), Chain(transforms[len(first) :])

    # --- storing ----------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and plain data."""
        inputs, plain_inputs = pack(self.inputs, "inputs")
        targets, plain_targets = pack(self.targets, "targets")
        facts = {
            "task": self.task,
            "classes": list(self.classes),
            "outputs": self.outputs,
            "raw_shape": list(self.raw_shape),
            "input_shape": list(self.input_shape),
            "tokens": self.tokens,
            "vocabulary": self.vocabulary,
            "class_counts": self.class_counts.tolist(),
            "inputs": plain_inputs,
            "targets": plain_targets,
            "source": self.facts,
        }
        return inputs | targets, facts

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Preparation:
        """What ``state`` gave.

        Raises ValueError where the classes do not fit the outputs: files that were made up.
        """
        classes, outputs = facts["classes"], facts["outputs"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("the names of classes are no texts")
        if classes and len(classes) < max(2, outputs):
            raise ValueError(f"{len(classes)} classes for {outputs} outputs")
        self = cls(
            facts["task"],
            tuple(facts["classes"]),
            facts["outputs"],
            tuple(facts["raw_shape"]),
            facts["tokens"],
            facts["vocabulary"],
            dict(facts["source"]),
            unpack(tensors, facts["inputs"], "inputs").double(),
            unpack(tensors, facts["targets"], "targets").double(),
            tuple(facts["input_shape"]),
            torch.tensor(facts["class_counts"], dtype=torch.float64),
        )
        self.input_shape = self._with_groups(self.input_shape)
        return self


class Prepare:
    """A preparation at work on a device: raw inputs and targets -> what the network sees, and
    outputs back."""

    def __init__(self, preparation: Preparation, device: torch.device, dtype: torch.dtype):
        self.of, self.device, self.dtype = preparation, device, dtype
        self._encoder, rest = preparation.split()
        self._encoder = copy.deepcopy(self._encoder).to(device)
        exact = copy.deepcopy(fused(rest)).to(device)
        self._exact, self._fast = exact, copy.deepcopy(exact).to(device, dtype)
        self._targets = copy.deepcopy(fused(preparation.targets)).to(device)
        self._whole = preparation.tokens and not len(preparation.inputs)
        self._padded = bool(preparation.facts.get("padded"))

    @property
    def input_dtype(self) -> torch.dtype:
        return torch.int64 if self._whole else self.dtype

    def encoded(self, x: Tensor) -> Tensor:
        """The cells of a table as numbers, which is where augmentation begins; other raw inputs as
        they are."""
        x = x.to(self.device, non_blocking=True)
        return self._encoder(x.double()) if len(self._encoder) else x

    def inputs(self, x: Tensor, *, encoded: bool = False) -> Tensor:
        """Bytes and float32 go through the network's dtype, what came in more digits through
        float64; padding is 0."""
        x = x.to(self.device, non_blocking=True) if encoded else self.encoded(x)
        if self._whole:
            return x.long()
        if not len(self._exact):
            out = x.to(self.dtype)
        elif x.dtype in (torch.uint8, torch.float32, self.dtype):
            out = self._fast(x.to(self.dtype))
        else:
            out = self._exact(x.double()).to(self.dtype)
        return out.nan_to_num(nan=0.0) if self._padded else out

    def targets(self, y: Tensor) -> Tensor:
        """int64 classes, or floats (soft classes, labels, values)."""
        y = y.to(self.device, non_blocking=True)
        if not y.is_floating_point():
            return y.long()
        return self._targets(y.double()).to(self.dtype) if len(self._targets) else y.to(self.dtype)

    def target_units(self, output: Tensor) -> Tensor:
        """Undo what was done to the targets."""
        if not len(self._targets):
            return output
        return self._targets.to(output.device).inverse(output.double()).to(output.dtype)

    def is_identity(self, x: Tensor) -> bool:
        """Whether these raw inputs are already what the network sees."""
        plain = not len(self._encoder) and not len(self._exact)
        return (
            plain and not self._padded and x.dtype == self.input_dtype and x.device == self.device
        )


def refuse_several(path: str) -> None:
    raise InputError(
        path,
        got="samples of several inputs",
        expected="samples of one tensor",
        repair="prepare the inputs in the Dataset or in collate_fn",
    )


def count_classes(split: Split, outputs: int) -> Tensor:
    """How often each class occurs [K]; soft classes and labels by their sums."""
    counts = torch.zeros(outputs, dtype=torch.float64)
    for _, y in split.chunks():
        if y.is_floating_point():
            counts += y.double().sum(0).cpu()
        else:
            counts += y[y >= 0].long().bincount(minlength=outputs).cpu()
    return counts


def _kind(part: Part) -> str:
    return part.kind


def _chain(rows: Rows, parts: Sequence[Part], first: list[Transform]) -> Chain:
    chain = list(first)
    for transform in first:
        rows = rows.behind(transform)
    for part in parts:
        chain.append(technique("preprocess", part)(rows, **part.arguments))
        rows = rows.behind(chain[-1])
    return Chain(chain).double().cpu()
