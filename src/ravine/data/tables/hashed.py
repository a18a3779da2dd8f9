"""Texts of a table as hashed words and letters: how many features, and which."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from ravine.data import words
from ravine.data.tables.file import Cells

LEAST = 128  # features of a column
MOST = 2048  # of all columns of sentences together
_SENTENCE = 8  # words a cell, from which more than LEAST are needed
_MOST_WORDS = 200  # of a cell that are read
_CELLS = 2**23  # rows times features of these columns, at most


def words_a_cell(texts: Sequence[str] | np.ndarray) -> float:
    """The mean number of words.

    >>> words_a_cell(["a b c", "d"])
    2.0
    """
    return float(np.mean([words.count(str(text)) for text in texts])) if len(texts) else 0.0


def widths(columns: Sequence[Cells]) -> list[int]:
    """How many features each column of texts gets. In few places the words of sentences cover each
    other; in many a network learns rare names by heart, so names and short titles get few. Columns
    of sentences share the most that one gets: more make each step slow, and were no better."""
    sentences = [
        words_a_cell(c.texts[:: max(1, len(c.texts) // 500)]) >= _SENTENCE for c in columns
    ]
    return [
        most(len(cells.codes), sum(sentences)) if long else LEAST
        for cells, long in zip(columns, sentences, strict=True)
    ]


def most(rows: int, sharing: int = 1) -> int:
    """How many features each of so many columns gets."""
    found = LEAST
    while 2 * found * sharing <= min(MOST, _CELLS // max(rows, 1)):
        found *= 2
    return found


def features(cells: Cells, width: int) -> np.ndarray:
    """Words and runs of three letters of each text, each counted with a sign in one of ``width``
    places by its CRC-32, and scaled to length 1 [N, width]; missing texts are NaN.

    Source: Weinberger et al., "Feature hashing for large scale multitask learning", 2009.
    """
    per_text = np.zeros((len(cells.texts) + 1, width))
    places: dict[str, tuple[int, float]] = {}
    for row, text in enumerate(cells.texts):
        for gram in _grams(str(text)):
            if gram not in places:
                code = zlib.crc32(gram.encode())
                places[gram] = (code >> 1) % width, 1.0 if code & 1 else -1.0
            place, sign = places[gram]
            per_text[row, place] += sign
    length = np.sqrt((per_text**2).sum(1, keepdims=True))
    per_text /= np.maximum(length, 1e-12)
    per_text[-1] = np.nan
    return per_text[cells.codes]


def _grams(text: str) -> Iterator[str]:
    most = _MOST_WORDS * (
        4 if words.unspaced(text) else 1
    )  # letters and pairs: four for two letters
    parts = [part for word in words.words(text.lower()) for part in word.split("_")]
    for word in [part for part in parts if part and part[0].isalnum()][:most]:
        yield word
        if words.unspaced(word):
            continue
        padded = f" {word[:24]} "
        for start in range(len(padded) - 2):
            yield padded[start : start + 3]
