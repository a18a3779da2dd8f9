"""Texts -> words, in any script."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Lao, Thai, Khmer and Burmese, kana, Han and their extensions: no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
_PLAIN = re.compile(r"\w+|[^\w\s]")
_RUN = re.compile(f"[{_UNSPACED}]+")
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
