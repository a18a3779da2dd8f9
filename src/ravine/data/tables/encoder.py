"""The raw matrix of a table -> features, fitted to the training part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.data.preprocessing.transform import Transform
from ravine.data.tables.decisions import DATE_PARTS, WIDE, places_of
from ravine.errors import InputError

_MANY, _LEAST = 20, 5  # categories of a column from which rare ones are none of them


class Encoder(Transform):
    """Raw matrix -> features. Numbers and flags: the value, the median of the training part where
    it is missing. Dates: year, month, weekday, days since 1970 (and the hour). Categories: one
    column each, or an index; what training did not have gives zeros, or the next free index. Texts:
    hashed n-grams. Where the training part misses values, a column beside says where.
    """

    fill: Tensor  # [raw columns] median or mode
    code: Tensor  # [raw columns, categories] raw code -> index among those of training, -1 else

    def forward(self, x: Tensor) -> Tensor:
        gaps = torch.isnan(x)
        filled = torch.where(gaps, self.fill, x)
        features = []
        for column, place in places_of(self.settings["columns"]):
            own = filled[:, place]
            features.append(self._features(column, own, place.start))
            if column["indicator"]:
                features.append(gaps[:, place.start, None].to(x.dtype))
        return torch.cat(features, 1)

    def _features(self, column: Mapping[str, Any], x: Tensor, start: int) -> Tensor:
        if column["kind"] == "date":
            return _date_parts(x[:, 0], column["times"])
        if column["kind"] != "category":
            return x
        codes = x[:, 0].long()
        table = self.code[start].long()
        index = torch.where(codes < 0, -1, table[codes.clamp(min=0)])
        if self.settings["categorical"] == "index":
            return torch.where(index < 0, column["seen"], index)[:, None].to(x.dtype)
        return (index[:, None] == torch.arange(column["seen"], device=x.device)).to(x.dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        names: list[str] = []
        for column in self.settings["columns"]:
            name = column["name"]
            if column["kind"] == "date":
                names += [f"{name} {part}" for part in (*DATE_PARTS, "hour")[: 4 + column["times"]]]
            elif column["kind"] in WIDE:
                names += [f"{name} #{place}" for place in range(column["width"])]
            elif column["kind"] == "category" and self.settings["categorical"] == "one_hot":
                names += [f"{name}={category}" for category in column["kept"]]
            else:
                names.append(name)
            if column["indicator"]:
                names.append(f"{name} missing")
        return tuple(names)

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """The features in order, by what they are: ("number", how many), ("category", how many
        columns of 0 and 1), …; a run of numbers is one group."""
        found: list[tuple[str, int]] = []
        for column in self.settings["columns"]:
            one_hot = column["kind"] == "category" and self.settings["categorical"] == "one_hot"
            if column["kind"] == "date":
                found.append(("number", 4 + column["times"]))
            elif column["kind"] in WIDE:
                found.append((column["kind"].removesuffix("s"), column["width"]))
            elif one_hot:
                found.append(("category", column["seen"]))
            else:
                found.append(("flag" if column["kind"] == "flag" else "number", 1))
            if column["indicator"]:
                found.append(("flag", 1))
        return tuple(found)


def _median(values: Tensor) -> Tensor:
    known = values[~torch.isnan(values)]
    return known.quantile(0.5) if len(known) < 10_000_000 else known.median()


def _kept_categories(codes: Tensor) -> Tensor:
    """The categories that training can say something of: where there are many, those that come
    ``_LEAST`` times or more."""
    seen, counts = codes.unique(return_counts=True)
    often = seen[counts >= _LEAST]
    return often if len(seen) > _MANY and len(often) else seen


def _date_parts(days: Tensor, times: bool) -> Tensor:
    """Year, month, weekday, days since 1970 and the hour [N, 4 or 5], by the calendar's own
    arithmetic (Hinnant, "chrono-compatible low-level date algorithms", 2013)."""
    whole = days.floor()
    shifted = whole + 719468  # days since the first of March of year 0
    era = (shifted / 146097).floor()
    of_era = shifted - era * 146097
    year_of_era = (
        (of_era - (of_era / 1460).floor() + (of_era / 36524).floor() - (of_era / 146096).floor())
        / 365
    ).floor()
    of_year = of_era - (365 * year_of_era + (year_of_era / 4).floor() - (year_of_era / 100).floor())
    from_march = ((5 * of_year + 2) / 153).floor()
    month = from_march + torch.where(from_march < 10, 3, -9)
    year = year_of_era + era * 400 + (month <= 2).to(days.dtype)
    weekday = torch.remainder(whole + 3, 7)
    parts = [year, month, weekday, days]
    return torch.stack([*parts, (days - whole) * 24] if times else parts, 1)


def fit_encoder(
    raw: Tensor, columns: Sequence[dict[str, Any]], categorical: str, where: str
) -> Encoder:
    """Medians, modes and categories of the training rows."""
    most = max([len(column.get("categories", ())) for column in columns] + [1])
    fill = torch.zeros(raw.shape[1], dtype=torch.float64)
    code = torch.full((raw.shape[1], most), -1.0, dtype=torch.float64)
    kept_columns = []
    for column, place in places_of(columns):
        values = raw[:, place.start]
        known = values[~torch.isnan(values)]
        if not len(known):
            raise InputError(
                f"{where}: column {column['name']}",
                got="no value in the training part",
                expected="at least one",
                repair="leave the column out",
            )
        kept = {"name": column["name"], "kind": column["kind"], "indicator": len(known) < len(raw)}
        if column["kind"] == "category":
            seen = _kept_categories(known[known >= 0])
            code[place.start, seen.long()] = torch.arange(len(seen), dtype=torch.float64)
            fill[place.start] = -1.0  # a missing category is none of them
            kept |= {"seen": len(seen), "kept": [column["categories"][int(c)] for c in seen]}
        elif column["kind"] == "text":
            kept["width"] = column["width"]
        else:
            if column["kind"] == "numbers":
                kept["width"] = column["width"]
            for at in range(place.start, place.stop):
                fill[at] = _median(raw[:, at])
            kept["times"] = column.get("times", False)
        kept_columns.append(kept)
    return Encoder({"columns": kept_columns, "categorical": categorical}, fill=fill, code=code)
