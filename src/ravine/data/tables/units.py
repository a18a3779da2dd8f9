"""What stands beside the digits of a cell: units, currencies, per cent, k and M, credit and debit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ravine.data.tables.numbers import CURRENCY, Written

LARGE = {"k": 1e3, "K": 1e3, "Tsd": 1e3, "M": 1e6, "Mio": 1e6, "mio": 1e6, "million": 1e6}
LARGE |= {"Mn": 1e6, "mn": 1e6, "B": 1e9, "Bn": 1e9, "bn": 1e9, "Mrd": 1e9, "billion": 1e9}
LARGE |= {"万": 1e4, "萬": 1e4, "만": 1e4, "億": 1e8, "亿": 1e8, "억": 1e8}
LARGE |= {"Lakh": 1e5, "lakh": 1e5, "Lac": 1e5, "lac": 1e5, "Crore": 1e7, "crore": 1e7}
_SIGNS = {"CR": 1.0, "Cr": 1.0, "cr": 1.0, "DR": -1.0, "Dr": -1.0, "dr": -1.0}  # of accounts
_GERMAN_SIGNS = {"H": 1.0, "S": -1.0}  # Haben and Soll
FAMILIES = (  # of units, in the first one of each
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

_INDIAN = {"Cr": 1e7, "cr": 1e7, "L": 1e5, "l": 1e5} | {
    k: v for k, v in LARGE.items() if v in (1e5, 1e7)
}
_SPELLED = {
    "eur": "€", "euro": "€", "euros": "€", "usd": "$", "us$": "$", "gbp": "£", "inr": "₹", "rs": "₹", "kgs": "kg",
    "lbs": "lb", "percent": "%", "pct": "%", "prozent": "%", "hrs": "hr", "mins": "min", "yrs": "yr",
}  # fmt: skip
_CASED = ("mw", "mb", "gb", "kb", "tb")  # a capital letter is another unit
_OFTEN, _BARE = 0.02, 0.1  # shares of rows from which other units, or none, are a mixture


@dataclass
class Units:
    """What the cells of a column have beside their digits. ``unit``: "" for none, None where several
    are mixed that are not one; ``factors`` of endings that are no units; ``bare``: whether a
    number alone is one of the column's; ``why`` and ``mixed``, for people."""

    unit: str | None = ""
    factors: Mapping[str, float] = field(default_factory=dict)
    bare: bool = True
    why: str = ""
    mixed: str = ""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Units:
        """From a stored decision."""
        factors = facts.get("factors", LARGE if facts.get("large") else {})
        return cls(facts.get("unit", ""), factors, facts.get("bare", True))

    def facts(self) -> dict[str, Any]:
        """What a decision stores; ``note``: how cells were understood that could mean something else."""
        found = {"unit": self.unit, "factors": dict(self.factors), "bare": self.bare}
        return found | ({"note": self.why} if self.why and self.factors is not LARGE else {})

    def apply(self, written: Written) -> set[str]:
        """Turn cells into the column's unit; those that cannot be are no numbers. The units of these."""
        ends = _ends(set(written.units), self.factors)
        strange: set[str] = set()
        for place, unit in enumerate(written.units):
            if not written.cores[place]:
                continue
            end = ends[unit]
            factor, own = self.factors.get(end, 1.0), unit.removesuffix(end).strip()
            if self.unit and own:
                factor *= _between(own, self.unit)
            elif not unit and not self.bare:
                factor = np.nan
            if np.isnan(factor):
                written.cores[place] = ""
                strange.add(own)
            else:
                written.factors[place] *= factor
        return strange


def units_of(written: Written) -> Units:
    """What a column's cells have beside their digits, by all of them.

    350k beside 1.2M, €565K beside €1.1M; 50 % beside 0.5; 45.00 CR beside 45.00 DR: factors of a number.
    """
    seen = _seen(written)
    if not any(seen):
        return Units()
    rules = (rule(written, seen) for rule in (_crores, _signs, _fractions, _powers))
    factors, why, bare = next((found for found in rules if found), ({}, "", None))
    ends = _ends(seen, factors)
    named: Counter[str] = Counter()
    for unit, count in seen.items():
        named[unit.removesuffix(ends[unit]).strip()] += count
    alone = named.pop("", 0) if not factors else seen.get("", 0)
    named.pop("", 0)
    mixed = Units(None, mixed=", ".join(unit or "none" for unit, _ in seen.most_common(4)))
    total = sum(seen.values())
    if bare is False and alone > _BARE * total:
        return mixed
    if not named:
        return Units("", factors, bare is not False, why)
    main = max(named, key=lambda unit: named[unit])
    other = sum(count for unit, count in named.items() if _name(unit) != _name(main))
    if other > _OFTEN * sum(named.values()):
        return mixed
    alone -= _zeros(written)  # 0 is 0 in every unit
    rare = alone <= _BARE * (alone + named[main])  # 3 km beside 300: not one unit
    if bare is None and not factors and not rare and not re.fullmatch(CURRENCY, main):
        return mixed
    return Units(main, factors, bare is not False, why)


def _zeros(written: Written) -> int:
    """How many rows hold a zero without a unit."""
    cells = zip(written.cores, written.units, written.counts, strict=True)
    return sum(int(n) for core, unit, n in cells if core and not unit and not _roughly(core))


def currencies(written: Written) -> list[str]:
    """The currencies that are mixed in a column of amounts, the most frequent first; none where other
    units are among them."""
    seen = _seen(written)
    found = Counter({unit: n for unit, n in seen.items() if re.fullmatch(CURRENCY, unit)})
    names = [_name(unit) for unit, _ in found.most_common()]
    enough = sum(found.values()) >= (1 - _BARE) * sum(seen.values())
    return list(dict.fromkeys(names)) if enough else []


def currency_of(unit: str) -> str:
    """A currency by one of its names: € for EUR."""
    return _name(unit)


def _seen(written: Written) -> Counter[str]:
    """How many rows have each unit, "" where none."""
    seen: Counter[str] = Counter()
    for core, unit, count in zip(written.cores, written.units, written.counts, strict=True):
        if core:
            seen[unit] += int(count)
    return seen


def _name(unit: str) -> str:
    """One name for the spellings of a unit: kg, KG, Kgs."""
    low = unit.lower()
    if len(low) < 2 or low in _CASED or re.fullmatch(CURRENCY, unit):
        return _SPELLED.get(low, unit)
    return _SPELLED.get(low, low.removesuffix("s") if len(low) > 3 else low)  # 5 beds, 1 bed


def _between(own: str, wanted: str) -> float:
    """The factor from one unit to another; NaN where there is none."""
    if _name(own) == _name(wanted):
        return 1.0
    family = family_of({own.lower(), wanted.lower()})
    return family[own.lower()] / family[wanted.lower()] if family else np.nan


def family_of(units: set[str]) -> dict[str, float] | None:
    """The units that these can be turned into, each in the first one of them."""
    return next((f for f in FAMILIES if units <= set(f)), None)


def _ends(units: Iterable[str], factors: Mapping[str, float]) -> dict[str, str]:
    """The longest of the factors' names that each unit ends with; "" for none."""
    longest = sorted(factors, key=len, reverse=True)
    return {unit: next((end for end in longest if unit.endswith(end)), "") for unit in units}


# --- endings that are no units: their factors, why, and whether numbers alone belong to the column --

Found = tuple[dict[str, float], str, bool | None] | None


def _powers(written: Written, seen: Mapping[str, int]) -> Found:
    """k, M and the like, where several of them or bare numbers are mixed."""
    end_of = _ends(seen, LARGE)
    rest = {unit.removesuffix(end).strip() for unit, end in end_of.items()}
    if len({LARGE.get(end, 1.0) for end in end_of.values()}) < 2 or len(rest - {""}) > 1:
        return None
    return LARGE, "k, M and the like are factors", True


def _crores(written: Written, seen: Mapping[str, int]) -> Found:
    """Lakhs and crores, of rupees or where both are there: ₹2.9 Cr beside ₹85 L."""
    end_of = _ends(seen, _INDIAN)
    rest = {_name(unit.removesuffix(end).strip()) for unit, end in end_of.items()}
    sizes = {_INDIAN.get(end, 1.0) for end in end_of.values()}
    if len(rest - {""}) > 1 or len(sizes) < 2 or not ({1e5, 1e7} <= sizes or "₹" in rest):
        return None
    return _INDIAN, "lakh (L) and crore (Cr) are factors", True


def _signs(written: Written, seen: Mapping[str, int]) -> Found:
    """Credit and debit as plus and minus; where one of both is beside bare numbers, that is minus."""
    if set(seen) == set(_GERMAN_SIGNS):
        return _GERMAN_SIGNS, "H is plus, S is minus", False
    end_of = _ends(seen, _SIGNS)
    sides = {_SIGNS[end] for end in end_of.values() if end}
    rest = {unit.removesuffix(end).strip() for unit, end in end_of.items()}
    if not sides or len(rest - {""}) > 1 or (len(sides) == 1 and all(end_of.values())):
        return None
    if len(sides) == 2:
        return _SIGNS, "CR is plus, DR is minus", all(end_of.values())
    name = "CR" if sides == {1.0} else "DR"
    return {end: -1.0 for end in _SIGNS if end.upper() == name}, f"{name} is minus", True


def _fractions(written: Written, seen: Mapping[str, int]) -> Found:
    """50 % beside 0.5: where all bare numbers are at most 1 and most of those in per cent are more, the former
    are fractions. Where the bare ones are as large as those in per cent, their sign was forgotten;
    else nobody knows what they are."""
    if not seen.get("%") or not seen.get(""):
        return None
    pairs = [(u, _roughly(c)) for c, u in zip(written.cores, written.units, strict=True) if c]
    signed, bare = (np.array([value for unit, value in pairs if unit == u]) for u in ("%", ""))
    if bare.max() <= 1 and np.median(signed) > 1:
        return {"%": 0.01}, "50 % is 0.5, as the numbers without % beside it", True
    alike = signed.min() / 3 <= np.median(bare) <= 3 * signed.max()
    if np.mean(bare > 1) >= 0.95 and alike:
        return {}, "numbers without % are per cent too, by their size", True
    return {}, "", False


def _roughly(core: str) -> float:
    """A number whose marks are not known yet."""
    try:
        return float(core.replace(",", "."))
    except ValueError:
        return float(re.sub(r"[.,]", "", core))
