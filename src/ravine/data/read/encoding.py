"""Bytes -> text, in whatever encoding people have saved it."""

from __future__ import annotations

import codecs
import re

from ravine.errors import InputError

MIXED = "utf-8, some bytes cp1252"
_STRAY = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte that is no UTF-8
_WORD = re.compile(r"[^\W\d_]{2,}")
_LOOKED_AT = 1 << 18  # characters among which signs are looked for that no text has
_MARKS = {  # byte order marks; those of UTF-32 begin with those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decoded(data: bytes, where: str) -> tuple[str, str]:
    """A text, without its byte order mark, and its encoding: that of its mark, else UTF-16 where every
    second byte is zero, UTF-8 (some bytes may be of the next), or Latin-1 as Windows has it (cp1252).

    Errors: bytes that are no text, or one in another encoding.

    >>> decoded("Maß".encode("cp1252"), "a.txt")
    ('Maß', 'cp1252')
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")
    if not encoding:
        even, odd = data[0:4096:2].count(0), data[1:4096:2].count(0)
        looks_wide = max(even, odd) > len(data[:4096]) // 4
        encoding = ("utf-16-le" if odd > even else "utf-16-be") if looks_wide else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        encoding, text = _of_windows(data)
    # In cp1252 any bytes are letters; control characters tell that this is no text at all.
    odd_signs = sum(map(text[:_LOOKED_AT].count, "\0\x01\x02\x03\x04\x05\x06\x0e\x0f"))
    if "\0" in text or odd_signs > 3:
        raise InputError(
            where, got="no text", expected="text in UTF-8, UTF-16 or Latin-1",
            repair="in a folder of texts, take this file out",
        )  # fmt: skip
    letters = sum(map(str.isalnum, sample := text[:4096]))
    many = sum(ord(sign) > 127 for sign in sample) > max(8, letters // 2)
    many = many or _of_another_alphabet(text[:_LOOKED_AT])
    if encoding == "cp1252" and (many or text.count("\ufffd") > 3):
        raise InputError(
            where, got="no text in a known encoding", expected="UTF-8, UTF-16 or Latin-1",
            repair="save it as UTF-8",
        )  # fmt: skip
    return text, encoding


def _of_windows(data: bytes) -> tuple[str, str]:
    """Bytes that are not all UTF-8, and their encoding: cp1252, or UTF-8 with some bytes of cp1252 where
    lines of several files were put together."""
    mixed = data.decode("utf-8", "surrogateescape")
    strange = len(_STRAY.findall(mixed))
    if strange < sum(ord(sign) > 127 for sign in mixed) - strange:
        stray = bytes(range(128, 256)).decode("cp1252", "replace")
        text = mixed.translate({0xDC80 + place: sign for place, sign in enumerate(stray)})
        return MIXED, text
    return "cp1252", data.decode("cp1252", "replace")


def _of_another_alphabet(text: str) -> bool:
    """Whether whole words have no letter from a to z: no language that Latin-1 was made for has them."""
    words = {word for word in _WORD.findall(text) if not any(sign < "\x80" for sign in word)}
    return sum(map(len, words)) >= 4
