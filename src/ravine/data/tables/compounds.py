"""Cells that hold numbers in another form than one number and the column's unit: several units
(1.2 kg beside 900 g), durations (5h 03m), ranges (10-20), from one day to another, and several
numbers (120/80, 10 x 20 cm).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ravine.data.tables import dates, numbers
from ravine.data.tables.units import FAMILIES, LARGE, currencies, currency_of, family_of

_SHARE = 0.95  # of the rows that must have the form
_NUMBER = r"\d+(?:[.,]\d+)*"
_ONE = re.compile(rf"([-+]?{_NUMBER})\s*([^\W\d]+)\.?")
_SEVERAL_ONES = re.compile(rf"(?:{_NUMBER}\s*[^\W\d]+\.?[\s,]*)+")
_POWER = r"(?:\s?([kKM])(?![\w/²³]))?"
_RANGE = re.compile(
    rf"\D{{0,4}}?({_NUMBER}){_POWER}\s*(?:-|–|—|\bto\b|\bbis\b)\s*\D{{0,4}}?({_NUMBER}){_POWER}\D{{0,8}}"
)
_DAYS = re.compile(
    r"\s+(?:-|/|~|to|bis|until|au|a|al|t/m)\s+|\s*(?:–|—|→|\.\.+)\s*|(?<=\d\d)/(?=\d{4}-\d\d-)",
    re.I,
)  # between two days
_BARE = re.compile(rf"\D{{0,4}}?({_NUMBER}){_POWER}\D{{0,8}}")
_LIST = re.compile(r"[\[({<]\s*([-+]?\d+(?:\.\d+)?(?:[\s,;]+[-+]?\d+(?:\.\d+)?)*)\s*[\])}>]")
_DEGREES = re.compile(
    r"(\d{1,3})\s*[°º]\s*(\d{1,2}(?:[.,]\d+)?)\s*['′’](?:\s*(\d{1,2}(?:[.,]\d+)?)\s*(?:[\"″”]|''))?\s*([NSEWO]?)"
)
_PAIR = re.compile(r"\(?([-+]?\d{1,3}\.\d+)[\s,;]+([-+]?\d{1,3}\.\d+)\)?")  # a place on the earth
_HALVES = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_MIXED = re.compile(rf"\d[\s-]+\d{{1,3}}\s*[/⁄]\s*\d|\d\s*[{_HALVES}]")  # 12 1/2, 12½
_FRACTION = re.compile(
    r"([-+−]?)(?:(\d+)(?:\s+|\s*-\s*))?(\d{1,3})\s*/\s*(\d{1,3})\s*([^\d\s]{0,8})"
)
_WHOLE = re.compile(r"([-+−]?)(\d+(?:[.,]\d+)?)\s*([^\d\s]{0,8})")
_BETWEEN = r"\s*(?:[x×*/:±]|\+/?-|\bof\b|\bvon\b|'|\bby\b)\s*"
_MORE = rf"(?:{_BETWEEN}({_NUMBER}))?"
_PARTS = re.compile(rf"({_NUMBER}){_BETWEEN}({_NUMBER}){_MORE}{_MORE}\W*[^\W\d]{{0,5}}\W*")


@dataclass
class Compound:
    """``form``: how a cell is read ("unit", "duration", "range", "span", "parts", "place"); ``values``: the
    numbers of each different text [U, K], NaN where it is none; ``why``, for people."""

    form: str
    values: np.ndarray
    why: str
    decimal: str = "."
    unit: str = ""


def compound(texts: np.ndarray, counts: np.ndarray, comma: bool) -> Compound | None:
    """The form that nearly all of the texts have, else None. ``comma``: whether a comma is decimal
    where the texts do not tell.

    >>> found = compound(np.array(["1.2 kg", "900 g", "850 g"]), np.array([1, 1, 1]), False)
    >>> found.form, found.unit, found.values[:, 0].tolist()
    ('unit', 'g', [1200.0, 900.0, 850.0])
    """
    decimal = _decimal(texts, comma)
    for form in ("span", "unit", "sum", "place", "degrees", "list", "range", "parts"):
        unit = _UNIT_OF[form](texts, counts) if form in _UNIT_OF else ""
        if form in _UNIT_OF and not unit:
            continue
        values = values_of(texts, form, decimal, unit)
        good = ~np.isnan(values).any(1)
        if form == "parts" and values.shape[1] == 2 and good.any() and np.ptp(values[good, 1]) == 0:
            form, values = "out of", values[:, :1]
        if not good.any() or counts[good].sum() < _SHARE * counts.sum():
            continue
        if form == "range" and not _ranges(texts[good], counts[good]):
            continue
        return Compound(
            form, values, _WHY[form].format(unit=unit, k=values.shape[1]), decimal, unit
        )
    return None


def fractions(texts: np.ndarray, counts: np.ndarray) -> Compound | None:
    """Numbers of which some are written as 12 1/2 or 12½, all in one unit or without; else None."""
    if not _MIXED.search("\n".join(map(str, texts[:: max(1, len(texts) // 2000)]))):
        return None
    units = Counter(m[m.lastindex or 0] for m in map(_fraction, texts) if m)
    unit = max(units, key=lambda one: units[one]) if units else ""
    values = values_of(texts, "fraction", ".", unit)
    good = ~np.isnan(values[:, 0])
    if counts[good].sum() < _SHARE * counts.sum():
        return None
    return Compound("fraction", values, _WHY["fraction"], ".", unit)


def amounts(written: numbers.Written, comma: bool) -> Compound | None:
    """Amounts in several currencies, which are not to be compared: the amount as it is written, and which
    currency it is in; None where a column is something else."""
    names = currencies(written)
    if len(names) < 2:
        return None
    decimal = _decimal_of([core for core in written.cores if core], comma)
    unit = " ".join(names)
    values = _amounts(written, decimal, unit)
    return Compound("amounts", values, _WHY["amounts"].format(unit=", ".join(names)), decimal, unit)


def _amounts(written: numbers.Written, decimal: str, unit: str) -> np.ndarray:
    """The amount, and 1 at the currency's place [U, 1 + K]; NaN for another currency."""
    marks = numbers.Marks(decimal, "," if decimal == "." else ".", True)
    names = unit.split(" ")
    own = np.array([[currency_of(one) == name for name in names] for one in written.units], float)
    found = np.column_stack([numbers.values_of(written, marks), own.reshape(-1, len(names))])
    return np.where(own.any(1, keepdims=True) if len(own) else False, found, np.nan)


_WHY = {
    "fraction": "numbers with fractions such as 12 1/2",
    "amounts": "amounts in several currencies ({unit}), not added up: each as it is written, and its currency",
    "unit": "several units, in {unit}",
    "sum": "several units a cell, added up, in {unit}",
    "degrees": "degrees and minutes",
    "list": "{k} numbers a cell",
    "range": "the middle of each range",
    "span": "from one day to another ({unit}): the first, as days since 1970, and how many days",
    "place": "places on a map: two numbers",
    "out of": "the first of two numbers, the second is always the same",
    "parts": "{k} numbers a cell",
}


def values_of(texts: np.ndarray, form: str, decimal: str, unit: str, parts: int = 0) -> np.ndarray:
    """The numbers of each text [U, K] in a form; NaN where a text does not have it. ``parts``: K,
    where it was decided before."""
    if form == "amounts":
        written = numbers.taken_apart(texts, np.ones(len(texts), np.int64))
        return _amounts(written, decimal, unit)
    if form == "span":
        return _spans(texts, unit)
    if form in _SINGLE:
        found = [[_SINGLE[form](str(text), decimal, unit)] for text in texts]
        return np.array(found, dtype=np.float64).reshape(len(texts), -1)
    groups = [_groups(str(text), form) for text in texts]
    width = 2 if form == "out of" else parts or Counter(map(len, groups)).most_common(1)[0][0]
    mark = decimal if form in ("parts", "out of") else "."
    none = [np.nan] * max(width, 1)
    rows = [[_number(g, mark) for g in group] if len(group) == width > 0 else none for group in groups]  # fmt: skip
    found = [row[:1] for row in rows] if form == "out of" else rows
    return np.array(found, dtype=np.float64).reshape(len(texts), -1)


def _groups(text: str, form: str) -> list[str]:
    """The numbers of a cell that holds several, as they are written; none where it has another form."""
    expression = {"place": _PAIR, "list": _LIST}.get(form, _PARTS)
    match = expression.fullmatch(text)
    if match is None:
        return []
    return re.split(r"[\s,;]+", match[1]) if form == "list" else [g for g in match.groups() if g]


def _decimal(texts: np.ndarray, comma: bool) -> str:
    """The decimal mark of the numbers within the texts."""
    return _decimal_of([p for text in texts[:2000] for p in re.findall(_NUMBER, str(text))], comma)


def _decimal_of(pieces: list[str], comma: bool) -> str:
    marks = numbers.marks_of(pieces)
    if marks is None:
        return "," if comma else "."
    return (marks if marks.sure else numbers.settled(marks, comma, "")).decimal


def _number(text: str, decimal: str) -> float:
    other = "," if decimal == "." else "."
    try:
        return float(text.replace(other, "").replace(decimal, "."))
    except ValueError:
        return np.nan


def _units_of(text: str) -> list[str]:
    return [unit.lower() for _, unit in _ONE.findall(text)]


def _main_unit(texts: np.ndarray, counts: np.ndarray) -> str:
    """The most frequent of several units of one family, of cells with one number; else ""."""
    seen: Counter[str] = Counter()
    for text, count in zip(texts, counts, strict=True):
        match = _ONE.fullmatch(str(text))
        if match:
            seen[match[2].lower()] += int(count)
    often = {unit for unit, count in seen.items() if count > 0.005 * counts.sum()}
    return max(often, key=lambda u: seen[u]) if len(often) > 1 and family_of(often) else ""


def _sum_unit(texts: np.ndarray, counts: np.ndarray) -> str:
    """The unit in which cells of several units add up: the first of their family; else ""."""
    probe = texts[:: max(1, len(texts) // 500)]
    units = {
        unit
        for text in probe
        if _SEVERAL_ONES.fullmatch(str(text))
        for unit in _units_of(str(text))
    }
    families = [f for f in (FAMILIES[3], *FAMILIES) if units <= set(f)]
    return next(iter(families[0])) if units and families else ""


def _form_of_days(texts: np.ndarray, counts: np.ndarray) -> str:
    """The form of the days that cells begin and end with; else ""."""
    probe = [_DAYS.split(str(text)) for text in texts[:: max(1, len(texts) // 500)]]
    pairs = [pair for pair in probe if len(pair) == 2]
    if not pairs or len(pairs) < _SHARE * len(probe):
        return ""
    days = np.array([day for pair in pairs for day in pair], dtype=object)
    found = dates.dates_of(days, np.ones(len(days), np.int64), True)
    if found is None:
        return ""
    forms = [found.form] if found.sure else [found.form, *dates.ORDERS]
    return max(forms, key=lambda form: int((_spans(texts, form)[:, 1] >= 0).sum()))


def _spans(texts: np.ndarray, form: str) -> np.ndarray:
    """The first day, since 1970, and the days up to the last one [U, 2]."""
    pairs = [_DAYS.split(str(text)) for text in texts]
    days = np.array([pair if len(pair) == 2 else ("", "") for pair in pairs], dtype=object)
    first, last = (dates.parsed(side, form)[0] for side in days.reshape(-1, 2).T)
    found = np.column_stack([first, last - first])
    return np.where(np.isnan(found).any(1, keepdims=True), np.nan, found)


_UNIT_OF = {"span": _form_of_days, "unit": _main_unit, "sum": _sum_unit}


def _in_unit(text: str, decimal: str, unit: str) -> float:
    """A number in a unit of the family."""
    match = _ONE.fullmatch(text)
    family = family_of({match[2].lower(), unit}) if match else None
    if not match or family is None:
        return np.nan
    return _number(match[1], decimal) * family[match[2].lower()] / family[unit]


def _added_up(text: str, decimal: str, unit: str) -> float:
    """Several that add up, such as 5h 03m; the large units come first."""
    family = next((f for f in FAMILIES if next(iter(f)) == unit), FAMILIES[3])
    units = _units_of(text)
    if not _SEVERAL_ONES.fullmatch(text) or not set(units) <= set(family):
        return np.nan
    sizes = [family[unit] for unit in units]
    if any(a <= b for a, b in pairwise(sizes)):
        return np.nan
    amounts = [_number(number, decimal) for number, _ in _ONE.findall(text)]
    return float(np.dot(amounts, sizes))


def _of_degrees(text: str, decimal: str, unit: str) -> float:
    """42°29'30"N as 42.4917; south and west are negative."""
    match = _DEGREES.fullmatch(text)
    if match is None:
        return np.nan
    whole, minutes, seconds = (float((g or "0").replace(",", ".")) for g in match.groups()[:3])
    return (-1.0 if match[4] in ("S", "W") else 1.0) * (whole + minutes / 60 + seconds / 3600)


def _middle(text: str, decimal: str, unit: str) -> float:
    """The middle of a range; a number alone is its own."""
    match = _RANGE.fullmatch(text) or _BARE.fullmatch(text)
    if match is None:
        return np.nan
    if match.re is _BARE:
        return _number(match[1], decimal) * LARGE.get(match[2], 1.0)
    above = LARGE.get(match[4], 1.0)
    low = _number(match[1], decimal) * LARGE.get(match[2], above)
    high = _number(match[3], decimal) * above
    return (low + high) / 2 if low <= high else np.nan


def _ranges(texts: np.ndarray, counts: np.ndarray) -> bool:
    """Whether ranges are among the texts, and all that is around their numbers is alike."""
    ranged = np.array([bool(_RANGE.fullmatch(str(text))) for text in texts])
    around = {re.sub(rf"{_NUMBER}{_POWER}", "", str(text)).strip() for text in texts[ranged]}
    bare = {re.sub(rf"{_NUMBER}{_POWER}", "", str(text)).strip() for text in texts[~ranged]}
    return bool(counts[ranged].sum() >= 2) and len(around) <= 3 and len(bare) <= 3


def _fraction(text: str) -> re.Match[str] | None:
    """A cell as a fraction or a number, its last group a unit."""
    for half in set(_HALVES) & set(text):
        text = text.replace(half, f" {unicodedata.normalize('NFKC', half)}")
    text = text.replace("⁄", "/").strip()
    return _FRACTION.fullmatch(text) or _WHOLE.fullmatch(text)


def _fractional(text: str, decimal: str, unit: str) -> float:
    """12 1/2 as 12.5; NaN for another unit, or a part that is no fraction."""
    found = _fraction(text)
    if found is None or found[found.lastindex or 0] not in (unit, ""):
        return np.nan
    sign = -1.0 if found[1] in ("-", "−") else 1.0
    if found.re is _WHOLE:
        return sign * float(found[2].replace(",", "."))
    above, below = int(found[3]), int(found[4])
    return sign * (int(found[2] or 0) + above / below) if 0 < above < below else np.nan


_SINGLE = {  # form -> the one number of a cell
    "unit": _in_unit, "sum": _added_up, "duration": _added_up, "range": _middle, "degrees": _of_degrees,
    "fraction": _fractional,
}  # fmt: skip
