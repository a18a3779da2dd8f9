"""Columns of numbers that name their rows and say nothing of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ravine.data.tables.words import NAMES_A_QUANTITY, named_like_an_id

_YEARS = 1500, 2200


def running_number(name: str, rows: np.ndarray) -> str:
    """Why a column of numbers names its rows rather than says something of them; else "". Years are
    no running numbers, nor is what is called a time, an age or a rank: a table may have a row for
    each.

    >>> running_number("nr", np.arange(1.0, 50.0))
    'a running number: each row has the next one'
    >>> running_number("time_s", np.arange(1.0, 50.0))
    ''
    """
    if len(rows) < 8 or (rows != np.round(rows)).any():
        return ""  # NaN is not equal to itself
    id_name = named_like_an_id(name)
    years = _YEARS[0] <= rows.min() and rows.max() <= _YEARS[1]
    if not id_name and (years or NAMES_A_QUANTITY.search(name)):
        return ""
    steps = np.diff(rows)
    if (steps == steps[0]).all() and abs(steps[0]) == 1:
        return "a running number: each row has the next one"
    different = len(pd.unique(rows))
    spread = rows.max() - rows.min() + 1
    if different == len(rows) and len(rows) >= 30:
        if spread <= 1.05 * len(rows):
            return "a running number: each from the first to the last once"
        mostly_next = abs(np.median(steps)) == 1 or id_name
        if ((steps > 0).all() or (steps < 0).all()) and spread <= 3 * len(rows) and mostly_next:
            return "a running number with gaps"
    if id_name and different >= 0.95 * len(rows):
        return "its name says so, and each row has its own number"
    return ""
