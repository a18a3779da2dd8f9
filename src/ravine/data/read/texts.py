"""Texts by class: a folder of text files for each class, as hashed words, word pairs and subwords."""

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
from ravine.data.words import telling, unspaced
from ravine.data.words import words as words_of
from ravine.errors import InputError

RESERVED = 1  # token 0 pads
MANY = 5000  # training texts, from which pairs of words come again often enough to learn from
SUBWORDS = range(3, 6)  # letters of a subword
_MOST_SUBWORDS = 2048  # of a text
_MOST_LETTERS = 32  # of a word that subwords are taken from
_BUCKETS = (16384, 65536)  # tokens without and with subwords
_SHOWN = 200  # characters of a text that are shown


def load(
    root: Path,
    length: int | None,
    ngrams: int | None,
    subwords: bool,
    buckets: int | None,
) -> Source:
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
    buckets = buckets or _BUCKETS[subwords]
    within = usual_subwords(words["train"]) if subwords else 0
    facts = {"length": length, "ngrams": ngrams, "subwords": within, "buckets": buckets}
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
    return _usual([len(words) for words in texts], 512)


def usual_subwords(texts: Sequence[Sequence[str]]) -> int:
    """The number of subwords that 95 % of the texts do not exceed, from 8 to 2,048."""
    sizes = {word: len(_subwords(word)) for words in texts for word in words}
    return _usual([sum(sizes[word] for word in words) for words in texts], _MOST_SUBWORDS)


def _usual(counts: list[int], most: int) -> int:
    return max(8, min(most, sorted(counts)[int(0.95 * (len(counts) - 1))]))


def _subwords(word: str) -> list[str]:
    """The runs of 3 to 5 letters of a word between < and >; none of a mark, and none of scripts
    without spaces, whose words are one or two letters.

    >>> _subwords("cat"), _subwords("!")
    (['<ca', 'cat', 'at>', '<cat', 'cat>', '<cat>'], [])
    """
    if not word[0].isalnum() or unspaced(word):
        return []
    within = f"<{word[:_MOST_LETTERS]}>"
    return [within[k : k + n] for n in SUBWORDS for k in range(len(within) - n + 1)]


def tokens(
    texts: Sequence[Sequence[str]], length: int, ngrams: int, buckets: int, subwords: int = 0
) -> Tensor:
    """Whole numbers [N, ngrams * length + subwords]: the first ``length`` words, then the pairs of
    neighbours, …, then the first ``subwords`` subwords of those words, each hashed into ``buckets``
    (CRC-32, so nothing is fitted); 0 where a text is shorter.

    >>> tokens([["a", "b"], ["b"]], length=3, ngrams=1, buckets=1000).tolist()
    [[908, 682, 0], [682, 0, 0]]
    """
    starts = [n * length for n in range(ngrams)]
    rows = torch.zeros(len(texts), ngrams * length + subwords, dtype=torch.int64)
    within: dict[str, list[int]] = {}  # of the words seen so far
    for row, words in zip(rows.numpy(), texts, strict=True):
        kept = list(words[:length])
        for n, start in enumerate(starts, 1):
            grams = [" ".join(kept[k : k + n]) for k in range(len(kept) - n + 1)]
            row[start : start + len(grams)] = [_token(gram, buckets) for gram in grams]
        if subwords:
            for word in kept:
                if word not in within:
                    within[word] = [_token(part, buckets) for part in _subwords(word)]
            found = [token for word in kept for token in within[word]][:subwords]
            row[ngrams * length : ngrams * length + len(found)] = found
    return rows


def _token(gram: str, buckets: int) -> int:
    return RESERVED + zlib.crc32(gram.encode()) % buckets


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
