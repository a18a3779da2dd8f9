"""Texts -> words, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

# Lao, Thai, Khmer and Burmese, kana, Han and their extensions: no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
_PLAIN = re.compile(r"\w+|[^\w\s]")
_RUN = re.compile(f"[{_UNSPACED}]+")
# Texts of a class, and of all, in which a word that tells it is looked for.
_FEWEST, MOST_READ = 20, 5000
_ALL, _NONE = 0.99, 0.01  # shares of a class's texts and of the others that hold such a word
_LAST = 0x1FFFF  # behind it lie letters of Han alone, and signs that are not written


def words(text: str) -> list[str]:
    """Words and marks. Of scripts without spaces between words each letter, and each two
    neighbours, is a word.

    >>> words("It's 3!"), words("好电影 ok"), words("अच्छी फ़िल्म")
    (['It', "'", 's', '3', '!'], ['好', '好电', '电', '电影', '影', 'ok'], ['अच्छी', 'फ़िल्म'])
    """
    if text.isascii():
        return _PLAIN.findall(text)
    found: list[str] = []
    for word in _any_script().findall(text):
        letters = _letters().findall(word)
        if len(letters) < 2:
            found.append(word)
            continue
        for first, second in zip(letters, [*letters[1:], ""], strict=True):
            found += [first, first + second] if second else [first]
    return found


def count(text: str) -> int:
    """How many words, marks left out; two letters are one where there are no spaces between words.

    >>> count("a b-c d"), count("好电影 ok")
    (3, 2)
    """
    pieces = text.split()
    if text.isascii():
        return len(pieces)
    return sum(max(1, sum(map(len, _RUN.findall(piece))) // 2) for piece in pieces)


def unspaced(text: str) -> bool:
    """Whether some of it is of a script without spaces between words."""
    return not text.isascii() and _RUN.search(text) is not None


def telling(texts: Sequence[Sequence[str]], classes: Sequence[int]) -> str:
    """A word for each class but one that nearly all of its texts have and hardly any other, as the class's own
    name in a line that every text begins with; empty where there is none.

    >>> telling([["from", "a", "x"], ["from", "b", "x"]] * 30, [0, 1] * 30)
    "'a', 'b'"
    """
    every = -(-len(texts) // MOST_READ)
    of_class = list(classes)[::every]
    sizes, holding = Counter(of_class), {kind: Counter[str]() for kind in sorted(set(of_class))}
    for text, kind in zip(texts[::every], of_class, strict=True):
        holding[kind].update({word.lower() for word in text})
    if len(sizes) < 2 or min(sizes.values()) < _FEWEST:
        return ""
    found = []
    for kind, words_of in holding.items():
        others = len(of_class) - sizes[kind]
        for word, times in words_of.items():
            if times < _ALL * sizes[kind] or not word[0].isalnum():
                continue
            elsewhere = sum(held[word] for other, held in holding.items() if other != kind)
            if elsewhere <= _NONE * others:
                found.append(repr(word))
                break
    return ", ".join(found) if len(found) >= len(sizes) - 1 else ""


@cache
def _any_script() -> re.Pattern[str]:
    marks = _marks()
    return re.compile(rf"[{_UNSPACED}{marks}]+|(?:(?![{_UNSPACED}])[\w{marks}])+|[^\w\s{marks}]")


@cache
def _letters() -> re.Pattern[str]:
    return re.compile(rf"[{_UNSPACED}][{_marks()}]*")


@cache
def _marks() -> str:
    """The ranges of signs that are written with the letter before them, which \\w leaves out."""
    places = [c for c in range(_LAST + 1) if unicodedata.category(chr(c)) in ("Mn", "Mc")]
    ranges: list[list[int]] = []
    for place in places:
        if ranges and place == ranges[-1][1] + 1:
            ranges[-1][1] = place
        else:
            ranges.append([place, place])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
