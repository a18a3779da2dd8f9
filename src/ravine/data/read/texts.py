"""Texts by class: a folder of text files for each class, as hashed words and word pairs."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ravine.data.endings import TEXTS, TEXTS_BY_CLASS
from ravine.data.read import classes as by_class
from ravine.data.read import text
from ravine.data.source import Arrays, Source
from ravine.data.words import telling
from ravine.data.words import words as words_of
from ravine.errors import InputError

RESERVED = 1  # token 0 pads
MANY = 5000  # training texts, from which pairs of words come again often enough to learn from
_SHOWN = 200  # characters of a text that are shown


def load(root: Path, length: int | None, ngrams: int | None, buckets: int) -> Source:
    """Read PATH/CLASS/*.txt or PATH/PART/CLASS/*.txt."""
    classes, listed = by_class.listed(root, "texts", TEXTS_BY_CLASS)
    words = {name: [split(text.read(file)) for file, _ in rows] for name, rows in listed.items()}
    if told := telling(words["train"], [label for _, label in listed["train"]]):
        warnings.warn(
            f"{root}: too good to be true? words tell the classes: {told}. If they are there because the class was "
            "known, as in a line of its own, take them out",
            stacklevel=4,
        )
    length = length or usual_length(words["train"])
    ngrams = ngrams or (1 if len(words["train"]) < MANY else 2)
    facts = {"length": length, "ngrams": ngrams, "buckets": buckets}
    splits = {
        name: Arrays(tokens(words[name], **facts), torch.tensor([label for _, label in rows]))
        for name, rows in listed.items()
    }
    return Source(
        splits,
        "classification",
        classes,
        vocabulary=buckets + RESERVED,
        facts={"texts": facts},
        outputs=len(classes),
    )


def beginnings(root: Path, count: int) -> list[str]:
    """How some of the training texts begin, of each class in turn: ``CLASS: the first words``."""
    classes, listed = by_class.listed(root, "texts", TEXTS_BY_CLASS)
    files: list[list[Path]] = [[] for _ in classes]
    for file, label in listed["train"]:
        files[label].append(file)
    found = [
        f"{name}: {' '.join(text.read(of_class[i]).split())[:_SHOWN]}"
        for i in range(count)
        for name, of_class in zip(classes, files, strict=True)
        if i < len(of_class)
    ]
    return found[:count]


def split(content: str) -> list[str]:
    """Words and marks, in lower case.

    >>> split("It's 3 o'clock!")
    ['it', "'", 's', '3', 'o', "'", 'clock', '!']
    """
    return words_of(content.lower())


def usual_length(texts: Sequence[Sequence[str]]) -> int:
    """The number of words that 95 % of the texts do not exceed, from 8 to 512."""
    lengths = sorted(len(words) for words in texts)
    return max(8, min(512, lengths[int(0.95 * (len(lengths) - 1))]))


def tokens(texts: Sequence[Sequence[str]], length: int, ngrams: int, buckets: int) -> Tensor:
    """Whole numbers [N, ngrams * length]: the first ``length`` words, then the pairs of neighbours,
    …, each hashed into ``buckets`` (CRC-32, so nothing is fitted); 0 where a text is shorter.

    >>> tokens([["a", "b"], ["b"]], length=3, ngrams=1, buckets=1000).tolist()
    [[908, 682, 0], [682, 0, 0]]
    """
    rows = torch.zeros(len(texts), ngrams * length, dtype=torch.int64)
    for i, words in enumerate(texts):
        kept = list(words[:length])
        for n in range(1, ngrams + 1):
            grams = [" ".join(kept[k : k + n]) for k in range(len(kept) - n + 1)]
            found = [RESERVED + zlib.crc32(gram.encode()) % buckets for gram in grams]
            start = (n - 1) * length
            rows[i, start : start + len(found)] = torch.tensor(found, dtype=torch.int64)
    return rows


def of(contents: Sequence[str | Path], facts: dict[str, int]) -> Tensor:
    """Texts that are given as such."""
    return tokens([split(str(content)) for content in contents], **facts)


def read_new(path: Path, facts: dict[str, int]) -> tuple[Tensor, list[str]]:
    """New texts for prediction: a file, or every text file under a folder, and a name for each."""
    files = [path] if path.is_file() else by_class.files(path, TEXTS_BY_CLASS)
    if not files:
        raise InputError(str(path), got="no text files", expected=f"files ending in {TEXTS[0]}")
    root = path if path.is_dir() else path.parent
    names = [str(file.relative_to(root)) for file in files]
    return tokens([split(text.read(file)) for file in files], **facts), names
