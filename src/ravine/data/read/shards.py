"""Shards: tar files whose samples are neighbouring files of one name, as WebDataset has them.

``0001.jpg`` and ``0001.cls`` are a sample: an image (or ``.npy``: an array) and its class, a number or
a name; or a ``.json`` with a field label, class, cls, target or y. The headers are read once, and then each sample
by its place in its file, so an epoch may have any order.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.endings import IMAGES, SHARDS
from ravine.data.objects.checks import finite
from ravine.data.objects.convert import tensor
from ravine.data.objects.targets import interpret
from ravine.data.read import images
from ravine.data.read.levels import Levels
from ravine.data.read.npz import parse_array
from ravine.data.read.parquet import LONGEST_NAME
from ravine.data.read.parts_by_name import files_by_part
from ravine.data.read.row_file import hold, part_of, state_of
from ravine.data.source import Source
from ravine.errors import InputError, RavineError, first_line
from ravine.storage.bounded import open_file, parse_json

ROWS = 1024  # samples that are decoded together
_LEARNED = 256  # samples by which the size of images is known
_LABELS = ("label", "class", "cls", "target", "y")
_MOST_LABEL = 1 << 20  # bytes of a file that holds a label


@dataclass
class Sample:
    """Where the input of a sample lies, and its target."""

    shard: Path
    name: str
    offset: int = -1
    size: int = 0
    ending: str = ""
    label: Any = None


@dataclass
class Form:
    """What the inputs are."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    facts: dict[str, Any] = field(default_factory=dict)  # of images


def load(root: Path, task: str, size: int | tuple[int, int] | None, fit: str) -> Source:
    """Read PATH, or the shards of a folder by part."""
    shards = files_by_part(root, SHARDS)
    samples = {
        name: [s for file in files for s in _indexed(file)] for name, files in shards.items()
    }
    for name, listed in samples.items():
        if not listed:
            raise InputError(str(shards[name][0]), got="no samples", expected="at least one")
    form = _form(samples["train"], size, fit)
    parts, ys = {}, {}
    for name, listed in samples.items():
        x, lost = _inputs(shards[name], listed, form)
        gone = set(lost)
        files = sorted({listed[place].shard for place in lost})
        images.warn_unreadable(files, root if root.is_dir() else root.parent)
        parts[name] = x
        ys[name] = _labels([s for place, s in enumerate(listed) if place not in gone])
    found = interpret(ys, torch.zeros(1, *form.shape, dtype=form.dtype), task)
    splits = {name: part_of(x, found.parts[name]) for name, x in parts.items()}
    return Source(splits, found.task, found.classes, None, form.facts, outputs=found.outputs)


# --- the index ------------------------------------------------------------------------------------


def _indexed(shard: Path) -> Iterator[Sample]:
    """The samples of a shard: neighbouring files whose names are equal up to the first point."""
    now, end = Sample(shard, ""), 0
    try:
        with open_file(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            size = os.fstat(file.fileno()).st_size
            for member in tar:
                end = _end(member, end, size)
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}"
                if key != now.name:
                    yield from _whole(now)
                    now = Sample(shard, key)
                _add(now, f".{ending.lower()}", member, tar)
    except RavineError:
        raise
    except Exception as error:  # headers that lie fail in many ways
        expected, repair = "a tar file, not compressed", first_line(error)[:300]
        raise InputError(str(shard), expected=expected, repair=repair) from None
    yield from _whole(now)


def _end(member: tarfile.TarInfo, last: int, size: int) -> int:
    """Where a member ends: behind the one before and within the file. A size below zero would lead back
    to a member that was read already, without end."""
    end = member.offset_data + (0 if member.issparse() else member.size)
    if member.size < 0 or member.offset < last or end > size:
        raise tarfile.ReadError(f"{member.name[:100]!r} lies elsewhere than its header says")
    if member.issparse():
        raise tarfile.ReadError(f"{member.name[:100]!r} is stored as a file with holes")
    return end


def _add(sample: Sample, ending: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    if ending in IMAGES or ending == ".npy":
        sample.offset, sample.size = member.offset_data, member.size
        sample.ending = ending
    elif ending in (".cls", ".txt", ".json") and member.size <= _MOST_LABEL:
        file = tar.extractfile(member)
        text = file.read().decode("utf-8", "replace").strip() if file else ""
        if ending == ".cls" or (ending == ".txt" and sample.label is None):
            sample.label = text
        elif ending == ".json" and sample.label is None:
            found = parse_json(text, f"{sample.shard}: {member.name}")
            named = found if isinstance(found, Mapping) else {}
            sample.label = next((named[key] for key in _LABELS if key in named), None)


def _whole(sample: Sample) -> Iterator[Sample]:
    """The sample, if it has an input; it then has a target too."""
    if sample.offset < 0:
        return
    if sample.label is None:
        raise InputError(
            f"{sample.shard}: {sample.name}",
            got="an input without a target",
            expected=f"{sample.name}.cls, or a .json with one of {', '.join(_LABELS)}",
        )
    yield sample


def _labels(samples: Sequence[Sample]) -> Tensor | np.ndarray:
    """Targets as numbers, where all of them are; else as names."""
    found = [sample.label for sample in samples]
    for kind in (int, float):
        try:
            return torch.tensor([kind(each) for each in found])
        except (TypeError, ValueError):
            continue
    names = [str(each) for each in found]
    longest = max(names, key=len)
    if len(longest) > LONGEST_NAME:
        got, expected = f"a text of {len(longest):,} letters", f"at most {LONGEST_NAME}"
        raise InputError("names of classes", got=got, expected=expected)
    return np.array(names)


# --- inputs ---------------------------------------------------------------------------------------


def _form(samples: Sequence[Sample], size: int | tuple[int, int] | None, fit: str) -> Form:
    first = list(_contents(samples[:_LEARNED]))
    if samples[0].ending == ".npy":
        found = _tensor(samples[0], first[0])
        return Form(tuple(found.shape), found.dtype)
    seen = [header for each in first if (header := images.header(each))]
    if not seen:
        where = str(samples[0].shard)
        raise InputError(where, got="no image that can be read", expected="images, or .npy")
    mode = "L" if all(header.gray for header in seen) else "RGB"
    median = np.median([header.size for header in seen], axis=0).round().astype(int).tolist()
    height, width = (size, size) if isinstance(size, int) else size or median
    levels = images.measure(first)
    images.warn_deep(levels, seen, str(samples[0].shard))
    facts = {"size": [height, width], "mode": mode, "fit": fit, "levels": levels.facts()}
    return Form((1 if mode == "L" else 3, height, width), torch.uint8, facts)


def _inputs(files: Sequence[Path], samples: Sequence[Sample], form: Form) -> Any:
    def chunks(lost: list[int]) -> Iterator[Tensor]:
        for start in range(0, len(samples), ROWS):
            some = samples[start : start + ROWS]
            if form.facts:
                height, width = form.facts["size"]
                mode, fit = form.facts["mode"], form.facts["fit"]
                levels = Levels.of(form.facts["levels"])
                x, broken = images.load(list(_contents(some)), mode, (height, width), fit, levels)
                lost += [start + place for place in broken]
                yield x
            else:
                yield torch.stack([_array(s, data, form) for s, data in _with(some)])

    about = {**form.facts, "files": state_of(files)}
    return hold(about, len(samples), form.shape, form.dtype, chunks)


def _with(samples: Sequence[Sample]) -> Iterator[tuple[Sample, bytes]]:
    return zip(samples, _contents(samples), strict=True)


def _array(sample: Sample, data: bytes, form: Form) -> Tensor:
    found = _tensor(sample, data)
    if found.shape != form.shape or found.dtype != form.dtype:
        got, expected = f"{list(found.shape)} {found.dtype}", f"{list(form.shape)} {form.dtype}"
        raise InputError(_place(sample), got=got, expected=f"{expected}, as in the first sample")
    return found


def _tensor(sample: Sample, data: bytes) -> Tensor:
    """The numbers of one ``.npy`` file, finite and at least one; a single number has shape [1]."""
    where = _place(sample)
    found = tensor(parse_array(data, where), where)
    if not isinstance(found, Tensor) or not found.numel():
        got = "no numbers" if isinstance(found, Tensor) else "text"
        raise InputError(where, got=got, expected="numbers")
    found = found.reshape(found.shape or (1,))
    finite(found.reshape(1, -1), where)
    return found.byte() if found.dtype == torch.bool else found


def _place(sample: Sample) -> str:
    return f"{sample.shard}: {sample.name}.npy"


def _contents(samples: Sequence[Sample]) -> Iterator[bytes]:
    """The bytes of inputs, each shard opened once where samples follow its order."""
    file = None
    try:
        for sample in samples:
            if file is None or file.name != str(sample.shard):
                if file is not None:
                    file.close()
                file = open(sample.shard, "rb")  # noqa: SIM115
            file.seek(sample.offset)
            yield file.read(sample.size)
    finally:
        if file is not None:
            file.close()
