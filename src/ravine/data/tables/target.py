"""What the target columns of a table hold: classes or numbers, with the reason."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ravine.data.source import TARGET_NAMES
from ravine.data.tables.column_kinds import decide_columns
from ravine.data.tables.file import Cells, Table
from ravine.data.tables.matrix import matrix
from ravine.errors import InputError, unknown

MOST_CLASSES = 20  # whole numbers that are taken for classes
FEW_ROWS = 0.2  # share of rows without a target that are left out; more is an error
LEAST_NONE = 0.02  # share of rows from which "none" among classes is one


@dataclass
class Target:
    """Targets of the rows that have one."""

    values: Tensor  # [N] int64 classes, or [N] or [N, K] float64
    classes: tuple[str, ...]  # none for a regression
    kept: np.ndarray  # [rows of the file] bool
    why: str


def target_names(table: Table, target: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The target columns: those named, else one called target, label, class or y, else the last."""
    if target is None:
        called = [name for name in table.columns if name.lower() in TARGET_NAMES]
        return (called[0] if called else list(table.columns)[-1],)
    names = (target,) if isinstance(target, str) else target
    for name in names:
        if name not in table.columns:
            raise unknown(f"{table.where}: target", name, table.columns)
        if f"{name} (2)" in table.columns:
            expected = "one column of this name, which is the target"
            raise InputError(f"{table.where}: target", got=f"{name} twice", expected=expected)
    return names


def read_target(table: Table, names: tuple[str, ...], task: str) -> Target:
    """Read the targets and decide whether they are classes or numbers."""
    if len(names) > 1 and task == "classification":
        raise InputError(
            f"{table.where}: target",
            got=f"{len(names)} columns",
            expected="one column for a classification",
        )
    if len(names) == 1 and task != "regression":
        _with_none_as_class(table, names[0])
    kept = _rows_with_target(table, names)
    if len(names) == 1:
        values, classes, why = _one(table, names[0], task, kept)
        return Target(values, classes, kept, why)
    columns = [_numbers(table, name, kept) for name in names]
    return Target(torch.stack(columns, 1), (), kept, "several columns")


def known_targets(
    table: Table, names: Sequence[str], classes: tuple[str, ...]
) -> tuple[Tensor, np.ndarray]:
    """The targets of new rows, in the encoding of training: numbers of ``classes``, or numbers; and which
    rows have one."""
    for name in names:
        if name not in table.columns:
            raise InputError(
                table.where,
                got=f"no column {name!r}",
                expected="the column of the target, to hold answers against; without it: ravine predict",
            )
    if not classes:
        kept = _rows_with_target(table, tuple(names))
        columns = [_numbers(table, name, kept) for name in names]
        return columns[0] if len(columns) == 1 else torch.stack(columns, 1), kept
    (name,) = names
    texts = table.written(name)
    missing = table.columns[name].missing & ~np.isin(texts, classes)
    place = {known: k for k, known in enumerate(classes)}
    if all(map(_is_number, classes)):
        values = _numbers(table, name, ~missing)
        texts[~missing] = [f"{value:.17g}" for value in values.tolist()]
    strange = [text for text in texts[~missing] if text not in place]
    if strange:
        raise unknown(f"{table.where}: target {name}", strange[0], classes)
    return torch.tensor([place[text] for text in texts[~missing]]), ~missing


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows_with_target(table: Table, names: tuple[str, ...]) -> np.ndarray:
    missing = np.zeros(table.size, dtype=bool)
    for name in names:
        gone = table.columns[name].missing
        if gone.mean() > FEW_ROWS:
            first = int(np.flatnonzero(gone)[0]) + 1
            cells = Counter(table.written(name)[gone].tolist())
            shown = ", ".join(repr(cell) if cell else "empty" for cell, _ in cells.most_common(2))
            raise InputError(
                f"{table.where}: target {name}",
                got=f"{int(gone.sum())} missing value(s) ({shown}), first in data row {first}",
                expected=f"a target in at least {1 - FEW_ROWS:.0%} of the rows",
                repair="is it the right column? else remove those rows",
            )
        missing |= gone
    return ~missing


def _with_none_as_class(table: Table, name: str) -> None:
    """Among classes that are words, "none" is one of them, where it comes again as a class does."""
    cells = table.columns[name]
    words = [str(text) for text in cells.texts]
    if not 0 < len(words) < MOST_CLASSES or any(any(map(str.isdigit, word)) for word in words):
        return
    written = table.written(name) if cells.missing.any() else np.empty(0, object)
    none = np.array([text.lower() == "none" for text in written], dtype=bool)
    if none.sum() < max(5, LEAST_NONE * table.size):
        return
    spelled = Counter(written[none].tolist()).most_common(1)[0][0]
    cells.codes = np.where(none, len(words), cells.codes)
    cells.texts = np.append(cells.texts, spelled)
    warnings.warn(
        f"{table.where}: target {name}: {spelled!r} in {int(none.sum())} rows is a class like the "
        "others; if it means that nobody knows, leave those cells empty",
        stacklevel=5,
    )


def _one(
    table: Table, name: str, task: str, kept: np.ndarray
) -> tuple[Tensor, tuple[str, ...], str]:
    cells, where = table.columns[name], f"{table.where}: target {name}"
    decision = decide_columns(table, [name])[0]
    if decision.get("form") == "amounts" and task != "classification":
        raise InputError(
            where, got=f"amounts in {decision['unit'].replace(' ', ' and ')}", expected="one currency",
            repair="turn them into one, at the rates of their days",
        )  # fmt: skip
    numeric = cells.numbers is not None or decision["kind"] == "number"
    if task == "regression" or (task == "auto" and numeric):
        if cells.numbers is None and decision["kind"] not in ("number", "flag"):
            _refuse_texts(cells, where)
        values = _numbers(table, name, kept, decision)
        classes, why = _number_classes(values) if task == "auto" else (False, "set in the recipe")
        if not classes:
            return values, (), why
        return *_classes_of(values, where), why
    why = "set in the recipe" if task == "classification" else f"{decision['different']} texts"
    if numeric:
        return *_classes_of(_numbers(table, name, kept, decision), where), why
    return *_text_classes(cells.codes[kept], cells.texts, task, where), why


def _number_classes(values: Tensor) -> tuple[bool, str]:
    """Whether numbers are classes, and why."""
    different = values.unique()
    if bool((different != different.round()).any()):
        return False, "numbers with fractions"
    if len(different) > MOST_CLASSES:
        return False, f"{len(different):,} different whole numbers, more than {MOST_CLASSES}"
    if len(different) > 2 and len(values) < 3 * len(different):
        return False, f"{len(different)} different whole numbers in only {len(values)} rows"
    return True, f"only {len(different)} different whole numbers, taken as classes"


def _numbers(
    table: Table, name: str, kept: np.ndarray, decision: dict[str, Any] | None = None
) -> Tensor:
    where = f"{table.where}: target {name}"
    column = decision or decide_columns(table, [name])[0]
    if column["kind"] in ("flag", "constant", "identifier") and "decimal" not in column:
        column = decide_columns(table, [name], {name: "number"})[0]
    if "decimal" not in column:
        _refuse_texts(table.columns[name], where)
    values = matrix(table, [column | {"kind": "number"}])[:, 0]
    gone = np.isnan(values.numpy()) & kept
    if table.columns[name].numbers is None and gone.any() and gone.mean() <= FEW_ROWS:
        _leave_out(table, name, kept, gone)
    values = values[torch.from_numpy(kept)]
    odd = torch.isnan(values).nonzero().flatten()
    if len(odd):
        row = int(np.flatnonzero(kept)[int(odd[0])])
        cells = table.columns[name]
        if cells.numbers is not None:  # a mark for missing values, such as -999
            got = f"{cells.numbers[row]:g} in {len(odd)} rows, which looks like a missing value"
            repair = f"remove those rows, or leave the cells empty; see data row {row + 1}"
            raise InputError(where, got=got, expected="a value in every row", repair=repair)
        raise InputError(
            where, got=str(cells.texts[cells.codes[row]]), expected="a number",
            repair=f"see data row {row + 1}",
        )  # fmt: skip
    return values


def _leave_out(table: Table, name: str, kept: np.ndarray, gone: np.ndarray) -> None:
    """Rows whose target is a word among numbers have no target; ``kept`` is changed."""
    cells = table.columns[name]
    kept &= ~gone
    words = sorted({str(cells.texts[code]) for code in cells.codes[gone]})
    shown = ", ".join(map(repr, words[:3])) + (", …" if words[3:] else "")
    warnings.warn(
        f"{table.where}: target {name}: {shown}: no numbers, taken as missing", stacklevel=6
    )


def _refuse_texts(cells: Cells, where: str) -> NoReturn:
    known = np.flatnonzero(cells.codes >= 0)
    if not len(known):
        raise InputError(where, got="missing values alone", expected="a number in every row")
    row = int(known[0])
    raise InputError(
        where, got=str(cells.texts[cells.codes[row]]), expected="a number",
        repair=f"see data row {row + 1}",
    )  # fmt: skip


def _classes_of(values: Tensor, where: str) -> tuple[Tensor, tuple[str, ...]]:
    different, codes = values.unique(return_inverse=True)
    names = tuple(f"{value:.17g}" for value in different.tolist())
    _check_classes(names, where)
    return codes, names


def _text_classes(
    codes: np.ndarray, texts: np.ndarray, task: str, where: str
) -> tuple[Tensor, tuple[str, ...]]:
    present = np.unique(codes)
    names = sorted(str(texts[code]) for code in present)
    _check_classes(names, where)
    _warn_of_spellings(names, where)
    if task == "auto" and len(names) > max(20, len(codes) // 2):
        raise InputError(
            where,
            got=f"{len(names)} different texts in {len(codes)} rows",
            expected="classes that come again",
            repair=f"first is {names[0]!r}; name the right column with target, or set task = classification",
        )
    place = {name: code for code, name in enumerate(names)}
    to_class = np.array([place.get(str(text), -1) for text in texts])
    return torch.from_numpy(to_class[codes]), tuple(names)


def _warn_of_spellings(names: Sequence[str], where: str) -> None:
    """Classes that differ in capitals or spaces alone are most often one; codes such as A and a are two."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    several = [
        " and ".join(map(repr, them))
        for one, them in alike.items()
        if len(them) > 1 and len(one) > 1
    ]
    if several:
        told = f"classes that differ in capitals or spaces alone: {'; '.join(several[:3])}"
        warnings.warn(f"{where}: {told}; write them alike if they are one", stacklevel=5)


def _check_classes(names: tuple[str, ...] | list[str], where: str) -> None:
    if len(names) < 2:
        raise InputError(where, got=f"one class ({names[0]})", expected="at least two classes")
