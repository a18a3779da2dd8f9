"""Cells -> numbers: thousands and decimal marks, decided by the whole column."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

CURRENCY = (
    r"[$€£¥₹₽₺₩₫₴₦฿₪]|(?:US|R|A|C|AU|CA|NZ|HK|NT|MX|S)\$|USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|SEK|NOK|DKK|"
    r"PLN|CZK|HUF|RON|RUB|TRY|AUD|CAD|NZD|SGD|HKD|KRW|BRL|MXN|ZAR|Euro|Rs\.?|Fr\.?|kr\.?|zł|Kč"
)
_SPACES = " \u00a0\u202f\u2009'’_"
_ABOUT = r"[~≈±]|[<>]=?|[≤≥]|(?:ca|approx|circa|about|around|etwa|env)\b\.?"
_CELL = re.compile(
    rf"(?:(?P<about>{_ABOUT})\s*)?(?P<open>\()?\s*(?P<sign>[-+−–]?)\s*(?P<before>{CURRENCY}|[#№])?\s*(?P<sign2>[-+−–]?)\s*"
    rf"(?P<core>\d[\d.,{_SPACES}]*|[.,]\d+)(?P<power>[eE][-+]?\d+)?"
    r"\s*(?P<after>[^\d\s()+\-.,][^\d()]{0,11}?)?(?P<trailing>-)?\s*(?P<close>\))?"
)
_NO_CENTS = re.compile(r"(?<=\d)[.,][-–—]{1,2}(?![\d-])")  # 1136.- and 1136,--
_NOTE = re.compile(
    r"(?<=[\d%])\s*(?:\*{1,3}|[†‡§]|\[\w{1,2}\]|\((?:e|est|p|prov|r|rev)\.?\))$"
)  # 1136*, 1136 [1], 1136 (est.)
_TIMES_TEN = re.compile(r"\s*[×x*·]\s*10\s*\^?\s*([-+−⁻]?[\d⁰¹²³⁴-⁹]+)$")  # 2.9×10^3
_OUTSIDE = re.compile(rf"({CURRENCY})\s*\((.*)\)")  # $(1,200) for ($1,200)
_UNUSUAL = re.compile(r"[.,][-–—]|[*†‡§\]×·^]|\.?\)$")
_HALF = re.compile(r"°\s*([NSEWO])\.?")
_PLAIN = re.compile(r"[-+]?\d[\d.,]*+(?:\n[-+]?\d[\d.,]*+)*+")
_GROUPED = {  # 1,234,567; with a comma also 12,34,567 as in India
    ".": re.compile(r"\d{1,3}(\.\d{3})+"),
    ",": re.compile(r"\d{1,3}(,\d{3})+|\d{1,2}(,\d{2})+,\d{3}"),
}
_SPACED = re.compile(rf"\d{{1,3}}([{_SPACES}]\d{{3}})+([.,]\d*)?")
MEASURED = 20  # different numbers, from which a column is no list of groups
_GAP = re.compile(rf"[{_SPACES}]")


@dataclass
class Written:
    """The numbers among the different texts of a column, in parts."""

    cores: list[str]  # digits and marks; empty where a text is not a number
    factors: np.ndarray  # sign and power of ten
    units: list[str]
    bounds: list[int]  # places of the texts that name a bound: <5, ≥100
    counts: np.ndarray  # rows that hold each text


@dataclass
class Marks:
    """How a column writes its numbers. ``decimal``, ``thousands`` are "." or "," or ""; ``sure``
    is False where the column alone cannot tell which of both a mark is."""

    decimal: str
    thousands: str
    sure: bool
    why: str = ""

    def facts(self) -> dict[str, Any]:
        return {"decimal": self.decimal, "thousands": self.thousands}


def taken_apart(texts: np.ndarray, counts: np.ndarray) -> Written:
    """Split each text into sign, digits with marks, power, and unit."""
    lines = "\n".join(texts)
    whole = lines.count("\n") == len(texts) - 1  # no cell holds a line break
    if whole and _PLAIN.fullmatch(lines):  # one match in C, for long columns without units
        factors = np.array([-1.0 if text[0] == "-" else 1.0 for text in texts])
        return Written(
            [text.lstrip("+-") for text in texts], factors, [""] * len(texts), [], counts
        )
    around = (
        re.fullmatch(r"([^\d\n]*)(\d[\d.,]*)([^\d\n]*)", texts[0])
        if whole and len(texts) > 1
        else None
    )
    if (
        around
    ):  # as fast where all have the same unit, such as $12.50: what holds of one holds of all
        before, after = around[1], around[3]
        one = rf"{re.escape(before)}\d[\d.,]*+{re.escape(after)}"
        first = taken_apart(texts[:1], counts[:1])
        if (
            not first.bounds
            and first.cores[0] == around[2]
            and re.fullmatch(rf"{one}(?:\n{one})*+", lines)
        ):
            cores = [text[len(before) : len(text) - len(after)] for text in texts]
            factors = np.full(len(texts), first.factors[0])
            return Written(cores, factors, first.units * len(texts), [], counts)
    cores, units, bounds = [], [], []
    factors = np.ones(len(texts))
    for place, text in enumerate(texts):
        found = _CELL.fullmatch(_usual(text) if _UNUSUAL.search(text) else text)
        core = found["core"].rstrip(_SPACES) if found else ""
        if found and bool(found["open"]) != bool(found["close"]):
            core = ""
        if core and _GAP.search(core):
            core = _GAP.sub("", core) if _SPACED.fullmatch(core) else ""
        cores.append(core)
        units.append("")
        if not core or found is None:
            continue
        if found["about"] and found["about"][0] in "<>≤≥":
            bounds.append(place)
        after = found["after"] or ""
        half = _HALF.fullmatch(after)  # of the earth: 33.9° S is -33.9°
        units[-1] = f"{found['before'] or ''}{'°' if half else after}".strip().rstrip(".")
        factors[place] = -1.0 if half and half[1] in "SW" else 1.0
        negative = any(found[sign] in ("-", "−", "–") for sign in ("sign", "sign2", "trailing"))
        factors[place] *= -1.0 if negative != bool(found["open"]) else 1.0
        if found["power"]:
            factors[place] *= float("1" + found["power"])
    return Written(cores, factors, units, bounds, counts)


def _usual(text: str) -> str:
    """Without a dash for no cents and marks of notes; a currency within its brackets; powers of ten
    as e3."""
    text = _OUTSIDE.sub(r"(\1\2)", _NOTE.sub("", _NO_CENTS.sub("", text)))
    power = _TIMES_TEN.search(text)
    if power:
        exponent = unicodedata.normalize("NFKC", power[1]).replace("−", "-")
        return f"{text[: power.start()]}e{exponent}"
    return text


def without_bounds(written: Written) -> None:
    """<5 and >100 are numbers where they are rare among numbers, or fewer than the rest and that is
    measured (<0.45 under a limit of detection, beside 0.512, 0.498, …); else they are groups."""
    total = sum(int(n) for core, n in zip(written.cores, written.counts, strict=True) if core)
    bounded = written.counts[written.bounds].sum()
    plain = sum(map(bool, written.cores)) - len(written.bounds)
    measured = bounded < 0.5 * total and plain >= MEASURED
    if bounded > 0.1 * total and not measured:
        for place in written.bounds:
            written.cores[place] = ""


def marks_of(cores: list[str]) -> Marks | None:
    """Which mark is decimal and which separates thousands, by all values; None where they
    contradict each other.

    >>> marks_of(["1.004", "12.500", "7,5"])
    Marks(decimal=',', thousands='.', sure=True, why='')
    >>> marks_of(["1.004", "12.500"]).sure
    False
    """
    both = [core for core in cores if "." in core and "," in core]
    if both:
        last = {max(".,", key=core.rfind) for core in both}
        if len(last) > 1:
            return None
        decimal = last.pop()
        return Marks(decimal, "," if decimal == "." else ".", True)
    used = [mark for mark in ".," if any(mark in core for core in cores)]
    if not used:
        return Marks(".", "", True)
    if len(used) == 2:
        return _two_marks(cores)
    return _one_mark(used[0], cores)


def _one_mark(mark: str, cores: list[str]) -> Marks:
    other = "," if mark == "." else "."
    marked = [core for core in cores if mark in core]
    grouped = [core for core in marked if _GROUPED[mark].fullmatch(core) and core[0] != "0"]
    if any(core.count(mark) > 1 for core in grouped):
        return Marks(other, mark, True)
    long = any(mark not in core and len(core) > 3 for core in cores)
    if len(grouped) < len(marked) or long:
        return Marks(mark, "", True)
    return Marks(mark, "", False)


def _two_marks(cores: list[str]) -> Marks | None:
    """Cells with a dot and cells with a comma, none with both: 1.004 and 7,5."""
    for decimal, thousands in (",.", ".,"):
        grouped = all(_GROUPED[thousands].fullmatch(core) for core in cores if thousands in core)
        single = all(core.count(decimal) <= 1 for core in cores)
        plain = [core for core in cores if decimal in core]
        if grouped and single and not all(_GROUPED[decimal].fullmatch(core) for core in plain):
            return Marks(decimal, thousands, True)
    return None


def settled(marks: Marks, comma_is_decimal: bool, why: str) -> Marks:
    """The marks of a column that could be read both ways, from how the rest of the file is
    written."""
    mark = marks.decimal
    if (mark == ",") == comma_is_decimal:
        return Marks(mark, "", False, f"{mark} is decimal, {why}")
    other = "," if mark == "." else "."
    return Marks(other, mark, False, f"{mark} separates thousands, {why}")


def values_of(written: Written, marks: Marks) -> np.ndarray:
    """The number of each text [U], NaN where it is none in these marks."""
    separated = re.escape(marks.thousands) if marks.thousands else ""
    decimal = re.escape(marks.decimal)
    whole = rf"\d{{1,3}}(?:{separated}\d{{3}})+|\d+" if separated else r"\d+"
    if marks.thousands == ",":
        whole = rf"\d{{1,2}}(?:,\d{{2}})+,\d{{3}}|{whole}"
    form = rf"(?:(?:{whole})(?:{decimal}\d*)?|{decimal}\d+)"
    lines = "\n".join(written.cores)
    if re.fullmatch(rf"{form}(?:\n{form})*+", lines):  # all of them: one match in C
        found = np.array(_plain(lines, marks).split("\n"), dtype=np.float64)
    else:
        one = re.compile(form)
        fits = [bool(core) and bool(one.fullmatch(core)) for core in written.cores]
        found = np.full(len(written.cores), np.nan)
        for place in np.flatnonzero(fits):
            found[place] = float(_plain(written.cores[place], marks))
    with np.errstate(over="ignore"):
        return found * written.factors


def _plain(text: str, marks: Marks) -> str:
    """Digits as Python reads them."""
    text = text.replace(marks.thousands, "") if marks.thousands else text
    return text.replace(marks.decimal, ".")


def leading_zeros(texts: list[str]) -> float:
    """The share of cells that are digits with a zero in front, as codes have."""
    zeros = sum(text[:1] == "0" and len(text) > 1 and text.isdigit() for text in texts)
    return zeros / max(1, sum(map(bool, texts)))
