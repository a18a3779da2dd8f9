"""Rows that belong together, as the visits of one patient: they stay in one part, or it is said that they do
not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ravine.data.tables.file import Table
from ravine.data.tables.words import FOLDED_ID, NAMES_WHO
from ravine.errors import InputError

LEAST_GROUPS, LEAST_ROWS = 10, 2.0  # different values, and rows of each on average


def groups_of(table: Table, decisions: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """The number of each row's group [N], by the column that is one; a row without a value is a group of its
    own. None where no column is one. Raises InputError for two of them."""
    names = [decision["name"] for decision in decisions if decision["kind"] == "group"]
    if not names:
        return None
    if len(names) > 1:
        raise InputError(
            f"{table.where}: columns",
            got=f"{names[0]!r} and {names[1]!r} as groups",
            expected="one column whose rows stay together",
            repair="name the larger groups: those that hold the others",
        )
    cells = table.columns[names[0]]
    codes = np.array(pd.factorize(cells.numbers)[0] if cells.numbers is not None else cells.codes)
    alone = codes < 0
    codes[alone] = codes.max() + 1 + np.arange(alone.sum())
    return torch.from_numpy(codes.astype(np.int64))


def warn_of_groups(table: Table, chosen: Sequence[dict[str, Any]]) -> None:
    """Say of an input that is called as a patient or a customer, each in several rows, that training and test
    share them: what is measured then holds for those that training knows."""
    shared = {}
    for column in chosen:
        name, known = column["name"], table.size - column["missing"]
        called = NAMES_WHO.search(name) or FOLDED_ID.search(name)
        many = column["different"] >= LEAST_GROUPS
        if called and many and known >= LEAST_ROWS * column["different"]:
            column["why"] += "; training and test share them"
            shared[name] = f"{name!r} ({column['different']:,} values in {known:,} rows)"
    if shared:
        warnings.warn(
            f"{table.where}: training and test share the values of {', '.join(shared.values())}, so that the test "
            "says nothing of new ones. If the network will meet new ones, keep the rows of each in one part: "
            f'data.source.columns.{next(iter(shared))} = "group"',
            stacklevel=4,
        )
