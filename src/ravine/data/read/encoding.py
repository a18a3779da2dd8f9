"""Bytes -> text, in whatever encoding people have saved it."""

from __future__ import annotations

import codecs

from ravine.errors import InputError

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
    second byte is zero, UTF-8, or Latin-1 as Windows has it (cp1252).

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
        encoding, text = "cp1252", data.decode("cp1252", "replace")
    # In cp1252 any bytes are letters; control characters tell that this is no text at all.
    odd_signs = sum(map(text[:_LOOKED_AT].count, "\0\x01\x02\x03\x04\x05\x06\x0e\x0f"))
    if "\0" in text or odd_signs > 3:
        raise InputError(
            where, got="no text", expected="text in UTF-8, UTF-16 or Latin-1",
            repair="in a folder of texts, take this file out",
        )  # fmt: skip
    letters = sum(map(str.isalnum, sample := text[:4096]))
    many = sum(ord(sign) > 127 for sign in sample) > max(8, letters // 2)
    if encoding == "cp1252" and (many or text.count("\ufffd") > 3):
        raise InputError(
            where, got="no text in a known encoding", expected="UTF-8, UTF-16 or Latin-1",
            repair="save it as UTF-8",
        )  # fmt: skip
    return text, encoding
