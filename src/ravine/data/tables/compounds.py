"""Cells that hold numbers in another form than one number and the column's unit: several units
(1.2 kg beside 900 g), durations (5h 03m), ranges (10-20), and several numbers (120/80, 10 x 20 cm).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ravine.data.tables import numbers

MOST_PARTS = 4  # numbers of one cell
_SHARE = 0.95  # of the rows that must have the form
_NUMBER = r"\d+(?:[.,]\d+)*"
_FAMILIES = (  # of units, in the first one of each
    {"kg": 1.0, "g": 1e-3, "mg": 1e-6, "t": 1e3, "lb": 0.45359237, "lbs": 0.45359237, "oz": 0.028349523125},
    {"m": 1.0, "mm": 1e-3, "cm": 1e-2, "km": 1e3, "in": 0.0254, "inch": 0.0254, "ft": 0.3048,
     "yd": 0.9144, "mi": 1609.344, "miles": 1609.344},
    {"l": 1.0, "ml": 1e-3, "cl": 1e-2, "dl": 0.1, "hl": 100.0, "gal": 3.785411784},
    {"h": 1.0, "std": 1.0, "hr": 1.0, "hrs": 1.0, "hour": 1.0, "hours": 1.0, "min": 1 / 60, "mins": 1 / 60,
     "minute": 1 / 60, "minutes": 1 / 60, "m": 1 / 60, "s": 1 / 3600, "sec": 1 / 3600, "seconds": 1 / 3600,
     "d": 24.0, "day": 24.0, "days": 24.0, "tage": 24.0},
    {"months": 1.0, "month": 1.0, "mo": 1.0, "mos": 1.0, "monate": 1.0, "monat": 1.0, "years": 12.0, "year": 12.0,
     "yr": 12.0, "yrs": 12.0, "y": 12.0, "jahre": 12.0, "jahr": 12.0, "days": 12 / 365.25, "day": 12 / 365.25,
     "weeks": 84 / 365.25, "week": 84 / 365.25, "wk": 84 / 365.25},
    {"mb": 1.0, "kb": 1e-3, "gb": 1e3, "tb": 1e6},
    {"w": 1.0, "kw": 1e3, "mw": 1e6},
    {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9},
)  # fmt: skip
_ONE = re.compile(rf"([-+]?{_NUMBER})\s*([^\W\d]+)\.?")
_SEVERAL_ONES = re.compile(rf"(?:{_NUMBER}\s*[^\W\d]+\.?[\s,]*)+")
_RANGE = re.compile(
    rf"\D{{0,4}}?({_NUMBER})\s*(?:-|–|—|\bto\b|\bbis\b)\s*\D{{0,4}}?({_NUMBER})\D{{0,8}}"
)
_BARE = re.compile(rf"\D{{0,4}}?({_NUMBER})\D{{0,8}}")
_PAIR = re.compile(r"\(?([-+]?\d{1,3}\.\d+)[\s,;]+([-+]?\d{1,3}\.\d+)\)?")  # a place on the earth
_BETWEEN = r"\s*(?:[x×*/:]|\bof\b|\bvon\b|'|\bby\b)\s*"
_MORE = rf"(?:{_BETWEEN}({_NUMBER}))?"
_PARTS = re.compile(rf"({_NUMBER}){_BETWEEN}({_NUMBER}){_MORE}{_MORE}\W*[^\W\d]{{0,5}}\W*")


@dataclass
class Compound:
    """``form``: how a cell is read ("unit", "duration", "range", "parts", "place"); ``values``: the
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
    for form in ("unit", "duration", "place", "range", "parts"):
        unit = _main_unit(texts, counts) if form == "unit" else ""
        if form == "unit" and not unit:
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


_WHY = {
    "unit": "several units, in {unit}",
    "duration": "durations, in hours",
    "range": "the middle of each range",
    "place": "places on a map: two numbers",
    "out of": "the first of two numbers, the second is always the same",
    "parts": "{k} numbers a cell",
}


def values_of(texts: np.ndarray, form: str, decimal: str, unit: str, parts: int = 0) -> np.ndarray:
    """The numbers of each text [U, K] in a form; NaN where a text does not have it. ``parts``: K,
    where it was decided before."""
    if form in ("unit", "duration"):
        found = [[_measured(str(text), form, decimal, unit)] for text in texts]
    elif form == "range":
        found = [[_middle(str(text), decimal)] for text in texts]
    else:
        expression = _PAIR if form == "place" else _PARTS
        matches = [expression.fullmatch(str(text)) for text in texts]
        groups = [[g for g in m.groups() if g] if m else [] for m in matches]
        width = 2 if form == "out of" else parts or Counter(map(len, groups)).most_common(1)[0][0]
        mark = "." if form == "place" else decimal
        found = [
            [_number(g, mark) for g in group]
            if len(group) == width > 0
            else [np.nan] * max(width, 1)
            for group in groups
        ]
        if form == "out of":
            found = [row[:1] for row in found]
    return np.array(found, dtype=np.float64).reshape(len(texts), -1)


def _decimal(texts: np.ndarray, comma: bool) -> str:
    """The decimal mark of the numbers within the texts."""
    pieces = [piece for text in texts[:2000] for piece in re.findall(_NUMBER, str(text))]
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


def _family(units: set[str]) -> dict[str, float] | None:
    return next((f for f in _FAMILIES if units <= set(f)), None)


def _main_unit(texts: np.ndarray, counts: np.ndarray) -> str:
    """The most frequent of several units of one family, of cells with one number; else ""."""
    seen: Counter[str] = Counter()
    for text, count in zip(texts, counts, strict=True):
        match = _ONE.fullmatch(str(text))
        if match:
            seen[match[2].lower()] += int(count)
    often = {unit for unit, count in seen.items() if count > 0.005 * counts.sum()}
    return max(often, key=lambda u: seen[u]) if len(often) > 1 and _family(often) else ""


def _measured(text: str, form: str, decimal: str, unit: str) -> float:
    """A number in a unit, or several that add up, such as 5h 03m."""
    if form == "unit":
        match = _ONE.fullmatch(text)
        family = _family({match[2].lower(), unit}) if match else None
        if not match or family is None:
            return np.nan
        return _number(match[1], decimal) * family[match[2].lower()] / family[unit]
    units = _units_of(text)
    family = _FAMILIES[3]
    if not _SEVERAL_ONES.fullmatch(text) or not set(units) <= set(family):
        return np.nan
    sizes = [family[unit] for unit in units]
    if any(a <= b for a, b in pairwise(sizes)):
        return np.nan  # the large units come first
    amounts = [_number(number, decimal) for number, _ in _ONE.findall(text)]
    return float(np.dot(amounts, sizes))


def _middle(text: str, decimal: str) -> float:
    """The middle of a range; a number alone is its own."""
    match = _RANGE.fullmatch(text)
    if match is None:
        alone = _BARE.fullmatch(text)
        return _number(alone[1], decimal) if alone else np.nan
    low, high = _number(match[1], decimal), _number(match[2], decimal)
    return (low + high) / 2 if low <= high else np.nan


def _ranges(texts: np.ndarray, counts: np.ndarray) -> bool:
    """Whether ranges are among the texts, and all that is around their numbers is alike."""
    ranged = np.array([bool(_RANGE.fullmatch(str(text))) for text in texts])
    around = {re.sub(_NUMBER, "", str(text)).strip() for text in texts[ranged]}
    bare = {re.sub(_NUMBER, "", str(text)).strip() for text in texts[~ranged]}
    return bool(counts[ranged].sum() >= 2) and len(around) <= 3 and len(bare) <= 3
