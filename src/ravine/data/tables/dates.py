"""Cells -> dates, in the forms that people write, each decided by the whole column."""

from __future__ import annotations

import datetime
import re
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

_ZONE = r"Z|[A-Z]{3,4}|[A-Z][a-z]+/[A-Z][A-Za-z_]+|[+-]\d{2}:?\d{2}"
_CLOCKS = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?(?: ?([AaPp])\.?[Mm]\.?)?"
_TIME = rf"(?:[T :]+{re.sub(r'[(](?![?])', '(?:', _CLOCKS)}(?: ?(?:{_ZONE}))?)?"
_SHORT_TIME = r"(?:T?(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?Z?)?"  # without colons
_MONTH_NUMBER = {  # English, German, French, Spanish, Italian, …
    name: number
    for number, names in enumerate(
        ("jan janv ene gen янв sty oca", "feb févr fév fev фев lut şub", "mar mär mrz mars mrt maa мар",
         "apr avr abr апр kwi nis", "may mai maj mei mag май мая", "jun juin giu июн cze haz",
         "jul juil lug июл lip tem", "aug août aou ago авг sie ağu", "sep sept set сен wrz eyl",
         "oct okt out ott окт paź eki", "nov ноя lis kas", "dec dez déc dic des дек gru ara"), 1
    )
    for name in names.split()
}  # fmt: skip
_YEAR = r"(?P<y>\d{4}|\d{2})"
_GAP = "(?: de |[ /-])?"
_FORMS = {  # name -> what a cell looks like; d, m, y, b (a month by name) and t
    "Y-m-d": rf"(?P<y>\d{{4}})[-/.年]\s?(?P<m>\d{{1,2}})(?:[-/.月]\s?(?P<d>\d{{1,2}}))?[月日.]?(?P<t>{_TIME})",
    "Ymd": r"(?P<y>(?:18|19|20|21)\d{2})(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?P<t>"
    + _SHORT_TIME
    + ")",
    "d.m.Y": rf"(?:[^\W\d]{{2,9}}\.?,? )?(?P<d>\d{{1,2}})\.\s?(?P<m>\d{{1,2}})\.\s?{_YEAR}(?P<t>{_TIME})",
    "d/m/Y": rf"(?:[^\W\d]{{2,9}}\.?,? )?(?P<d>\d{{1,2}})[/-](?P<m>\d{{1,2}})[/-]{_YEAR}(?P<t>{_TIME})",
    "m/d/Y": rf"(?:[^\W\d]{{2,9}}\.?,? )?(?P<m>\d{{1,2}})[/-](?P<d>\d{{1,2}})[/-]{_YEAR}(?P<t>{_TIME})",
    "d b Y": rf"(?:\w+,? )?(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\.?{_GAP}(?P<b>[^\W\d]{{3,10}})\.?,?{_GAP}{_YEAR}(?P<t>{_TIME})",
    "b d Y": rf"(?:\w+,? )?(?P<b>[^\W\d]{{3,10}})\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?,? {_YEAR}(?P<t>{_TIME})",
    "b Y": r"(?P<b>[^\W\d]{3,10})\.?,?[ -](?P<y>\d{4})(?P<t>)",
    "b-y": r"(?P<b>[^\W\d]{3,10})\.?[-/'’](?P<y>\d{2})(?P<t>)",
    "Ym": r"(?P<y>(?:18|19|20|21)\d{2})(?P<m>0[1-9]|1[0-2])(?P<t>)",
    "q Y": r"(?:[QT](?P<q>[1-4])[ /-]?(?P<y>\d{4})|(?P<y2>\d{4})[ /-]?[QT](?P<q2>[1-4]))(?P<t>)",
    "Y-W": r"(?P<y>\d{4})[ -]?[WK]W?(?P<w>\d{1,2})(?:-?(?P<n>[1-7]))?(?P<t>)",
    "m/Y": r"(?P<m>\d{1,2})[/-](?P<y>\d{4})(?P<t>)",
}
FORMS = {name: re.compile(form) for name, form in _FORMS.items()}
_ONE_ISO = (
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"(?:[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?)?"
)
_ENOUGH = 0.9  # of the rows hold a date in a column of dates
_LEAST_DATES = 8  # different ones beside which words are marks
SPREADSHEET = 25_569.0  # the number that 1970-01-01 has in a spreadsheet
_YEARS = 1678, 2261  # that pandas' clock of nanoseconds has; 9999-12-31 says "no end"
_ISO = re.compile(rf"{_ONE_ISO}(?:\n{_ONE_ISO})*+")
ORDERS = ("d/m/Y", "m/d/Y")  # cells of the same look


@dataclass
class Dates:
    """Days since 1970 of each different text [U] (NaN where it is none), and the form."""

    days: np.ndarray
    form: str
    times: bool
    sure: bool = True  # False where d/m and m/d fit equally well


def dates_of(texts: np.ndarray, counts: np.ndarray, day_first: bool) -> Dates | None:
    """The dates among the texts, where at least nine of ten rows hold one, or half and beside these a
    few different words (never, 0000-00-00); else None.

    Of d/m/Y and m/d/Y the one that fits more cells; where all fit both, the one in whose order
    the texts rise, else ``day_first``. Where no form alone fits, several together, each cell in the
    first of them that it has.

    >>> dates_of(np.array(["3/25/2021", "4/1/2021"]), np.array([1, 1]), True).form
    'm/d/Y'
    """
    probe = texts[:: max(1, len(texts) // 200)]
    seen = {
        form: sum(bool(expression.fullmatch(text)) for text in probe) / max(1, len(probe))
        for form, expression in FORMS.items()
    }
    found: list[tuple[float, Dates]] = []
    for form in (form for form, share in seen.items() if share > 0.05):
        days, times = parsed(texts, form)
        found.append((_share(days, counts), Dates(days, form, times)))
    best = max((fit for fit, _ in found), default=0.0)
    if best < _ENOUGH:
        return _mixed(texts, counts, [d.form for fit, d in sorted(found, key=lambda f: -f[0])])
    alike = [dates for fit, dates in found if fit == best]
    if len(alike) == 1:
        return alike[0]
    rising = [dates for dates in alike if len(texts) > 2 and bool((np.diff(dates.days) > 0).all())]
    if len(rising) == 1:
        return rising[0]
    chosen = next((d for d in alike if d.form == ORDERS[not day_first]), alike[0])
    chosen.sure = False
    return chosen


def _mixed(texts: np.ndarray, counts: np.ndarray, forms: list[str]) -> Dates | None:
    """Dates in several forms; the first has most cells."""
    if len(forms) < 2:
        return None
    form = " or ".join(forms)
    days, times = parsed(texts, form)
    if _share(days, counts) < _ENOUGH:
        return None
    return Dates(days, form, times, sure=not set(ORDERS) <= set(forms))


def _share(days: np.ndarray, counts: np.ndarray) -> float:
    """The share of rows that hold a date; where it is half or more, of those beside a few different
    words."""
    good = ~np.isnan(days)
    share = float(counts[good].sum() / counts.sum())
    words = int((~good).sum())
    marks = words <= max(2, good.sum() // 25) and good.sum() >= _LEAST_DATES
    return 1.0 if 0.5 <= share < _ENOUGH and marks else share


def parsed(texts: np.ndarray, form: str) -> tuple[np.ndarray, bool]:
    """Days since 1970 [U], NaN where a text does not have this form ("d.m.Y", or "Y-m-d or d.m.Y": the
    first that it has) or names no day; whether any has a time."""
    if form == "spreadsheet":
        return _since_1970(texts, 1.0) - SPREADSHEET, True
    if form.startswith("unix"):
        return _since_1970(texts, 86_400.0 * (1000 if form.endswith("ms") else 1)), True
    lines = "\n".join(texts)
    whole = lines.count("\n") == len(texts) - 1  # no cell holds a line break
    ordinary = form.startswith("Y-m-d") and all("1700" < text[:4] < "2261" for text in texts)
    if ordinary and whole and _ISO.fullmatch(lines):  # one match in C
        plain, times = texts, ":" in lines
    else:
        plain, times = _as_iso(texts, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stamps = pd.to_datetime(pd.Series(plain, dtype=object), format="ISO8601", errors="coerce", utc=True)  # fmt: skip
    seconds = (stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    return seconds.to_numpy(dtype=np.float64), times


def _since_1970(texts: np.ndarray, a_day: float) -> np.ndarray:
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce")
    return numbers.to_numpy(dtype=np.float64) / a_day


def _as_iso(texts: np.ndarray, form: str) -> tuple[np.ndarray, bool]:
    """Each text in ISO 8601, None where it has none of the forms; whether any has a time. Days and
    times that come again are read once."""
    expressions = [FORMS[one] for one in form.split(" or ")]
    plain = np.full(len(texts), None, dtype=object)
    days: dict[tuple[str, ...], str | None] = {}
    clocks: dict[str, str | None] = {"": ""}
    times = False
    for place, text in enumerate(texts):
        for expression in expressions:
            match = expression.fullmatch(text)
            if match is None:
                continue
            *day, time = match.groups()
            key = (expression.pattern, *day)
            if key not in days:
                days[key] = _day(match)
            if time not in clocks:
                clocks[time] = _time(time)
            if days[key] is not None and clocks[time] is not None:
                plain[place] = f"{days[key]}{clocks[time]}"
                times = times or bool(time)
                break
    return plain, times


_CLOCK = re.compile(
    r"(\d{1,3})[:h]([0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,6}))?)?(?: ?([AaPp])\.?[Mm]\.?)?"
)

_RACE = re.compile(r"(\d{1,3}):([0-5]\d)[.,](\d{1,3})")  # minutes, seconds and parts of these


def hours(texts: np.ndarray) -> np.ndarray:
    """Times of the day, or durations, in hours [U]; NaN where a text is none.

    >>> hours(np.array(["6:30", "12:15:00", "1:00 pm", "noon"]))
    array([ 6.5 , 12.25, 13.  ,   nan])
    """
    found = np.full(len(texts), np.nan)
    for place, text in enumerate(texts):
        match = _CLOCK.fullmatch(text)
        race = None if match else _RACE.fullmatch(text)
        if race:
            found[place] = int(race[1]) / 60 + float(f"{race[2]}.{race[3]}") / 3600
        elif match:
            hour, minute, second, part, half = match.groups()
            whole = int(hour) % 12 + (12 if half in "Pp" else 0) if half else int(hour)
            seconds = int(second or 0) + float(f"0.{part or 0}")
            found[place] = whole + int(minute) / 60 + seconds / 3600
    return found


def _day(match: re.Match[str]) -> str | None:
    parts = match.groupdict()
    parts["y"] = parts["y"] or parts.get("y2")
    if parts.get("w"):
        return _of_week(int(parts["y"]), int(parts["w"]), int(parts.get("n") or 1))
    quarter = parts.get("q") or parts.get("q2")
    if quarter:
        return f"{parts['y']}-{3 * int(quarter) - 2:02d}-01"
    month = int(parts["m"]) if parts.get("m") else _month(parts["b"])
    day, year = int(parts.get("d") or 1), int(parts["y"])
    if len(parts["y"]) == 2:
        year += 2000 if year < 69 else 1900  # as POSIX reads them
    if not (1 <= month <= 12 and 1 <= day <= 31 and _YEARS[0] <= year <= _YEARS[1]):
        return None
    return f"{year:04d}-{month:02d}-{day:02d}"


def _of_week(year: int, week: int, day: int) -> str | None:
    """A day of a week of ISO 8601, 1 for Monday."""
    try:
        return datetime.date.fromisocalendar(year, week, day).isoformat()
    except ValueError:
        return None


def _month(name: str) -> int:
    name = name.lower()
    return next((_MONTH_NUMBER[name[:k]] for k in (4, 3) if name[:k] in _MONTH_NUMBER), 0)


def _time(text: str) -> str | None:
    """A time of the day in ISO 8601. Of a zone by name nothing is known: the clock's own time stands."""
    match = re.fullmatch(rf"[T :]+{_CLOCKS}(?: ?({_ZONE}))?", text)
    if match is None:  # a form without colons
        digits = text.strip("TZ")
        return f"T{digits[:2]}:{digits[2:4]}:{digits[4:] or '00'}+00:00"
    hour, minute, second, part, half, zone = match.groups()
    hours = int(hour)
    if half:
        hours = hours % 12 + (12 if half in "Pp" else 0)
    if hours > 23 or int(minute) > 59 or int(second or 0) > 59:
        return None
    zone = f"{zone[:3]}:{zone[-2:]}" if zone and zone[0] in "+-" else "+00:00"
    return f"T{hours:02d}:{minute}:{second or '00'}.{(part or '0')[:6]}{zone}"
