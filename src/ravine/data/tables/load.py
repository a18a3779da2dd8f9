"""A table -> a Source: every column decided, identifiers and leaks left out, targets read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ravine.data.objects.targets import interpret
from ravine.data.preprocessing.statistics import Rows
from ravine.data.source import Arrays, Source
from ravine.data.tables import file, hashed
from ravine.data.tables.as_text import pandas_of
from ravine.data.tables.column_kinds import decide_columns
from ravine.data.tables.decisions import WIDE, places_of, used
from ravine.data.tables.encoder import Encoder, fit_encoder
from ravine.data.tables.given import rows_given
from ravine.data.tables.groups import groups_of, warn_of_groups
from ravine.data.tables.leaks import leak
from ravine.data.tables.matrix import matrix
from ravine.data.tables.order import order_of
from ravine.data.tables.target import Target, known_targets, read_target, target_names
from ravine.data.words import MOST_READ, telling, words
from ravine.errors import InputError, unknown


def from_csv(
    path: Path,
    target: str | tuple[str, ...] | None,
    task: str,
    categorical: str,
    drop: tuple[str, ...],
    columns: Mapping[str, str],
) -> Source:
    """The source of a CSV file; ``facts`` hold the decisions, by which new files are read."""
    table = file.read(path)
    names = target_names(table, target)
    _check_names(table, names, drop, columns)
    goal = read_target(table, names, task)
    inputs = [name for name in table.columns if name not in names and name not in drop]
    decisions = decide_columns(table, inputs, columns)
    if not decisions:
        raise InputError(
            table.where,
            got="no usable input column",
            expected="columns beside the target",
        )
    chosen = _inputs(table, decisions, columns)
    raw = matrix(table, chosen)[torch.from_numpy(goal.kept)]
    _warn_of_words(table, chosen, goal)
    chosen, raw = _without_leaks(chosen, raw, goal, columns, table.where)
    _warn(table, decisions, goal)
    groups, order = groups_of(table, decisions), order_of(table, decisions)
    if groups is None:
        warn_of_groups(table, chosen)
    found = interpret(
        {"train": goal.values},
        raw,
        "classification" if goal.classes else "regression",
        goal.classes,
    )

    def encode(rows: Rows) -> Encoder:
        return fit_encoder(torch.cat(list(rows.chunks())), chosen, categorical, table.where)

    facts = {
        "targets": list(names),
        "target_why": goal.why,
        "columns": chosen,
        "decisions": [{k: v for k, v in d.items() if k != "categories"} for d in decisions],
        "written": {name: getattr(table, name) for name in ("encoding", "separator", "header")},
    }
    return Source(
        {"train": Arrays(raw, found.parts["train"])},
        found.task,
        found.classes,
        outputs=found.outputs,
        facts=facts,
        encode=encode,
        groups=None if groups is None else groups[torch.from_numpy(goal.kept)],
        order=None if order is None else order[torch.from_numpy(goal.kept)],
    )


def rows_by(given: Path | pd.DataFrame, facts: Mapping[str, Any]) -> Tensor:
    """The raw matrix of another file or of a DataFrame, by the decisions in a source's ``facts``."""
    header = facts.get("written", {}).get("header", True) and None  # a table without one has none
    return matrix(file.read(given, texts=True, header=header), facts["columns"])


def rows_with_targets(
    given: Path | pd.DataFrame, facts: Mapping[str, Any], classes: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """The raw matrix of another table that has the target too, and its targets: numbers of ``classes``,
    or numbers. Rows without a target are left out, with a warning."""
    header = facts.get("written", {}).get("header", True) and None
    table = file.read(given, texts=True, header=header)
    values, kept = known_targets(table, facts["targets"], classes)
    if not kept.all():
        left = f"{int((~kept).sum())} rows without a target left out"
        warnings.warn(f"{table.where}: {left}", stacklevel=4)
    return matrix(table, facts["columns"])[torch.from_numpy(kept)], values


def rows_of_table(x: Any, facts: Mapping[str, Any]) -> Tensor | None:
    """The raw matrix of a DataFrame, of a row by name ({"size": 80}) or of several of them; None for
    anything else."""
    rows = [x] if isinstance(x, Mapping) else x
    if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        known = {column["name"] for column in facts["columns"]}
        return rows_given(rows, facts) if known & set(rows[0]) else None
    frame = pandas_of(x) if hasattr(x, "columns") else None
    return None if frame is None else rows_by(frame, facts)


def identifiers(path: Path, facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """The cells of the columns that are identifiers, groups or the order, as they are written, so that
    answers can be found again; nothing where the file has none of them."""
    wanted = [
        d["name"] for d in facts["decisions"] if d["kind"] in ("identifier", "group", "order")
    ]
    header = facts.get("written", {}).get("header", True) and None
    table = file.read(path, texts=True, header=header)
    cells = [table.columns[name] for name in wanted if name in table.columns]
    return {c.name: [str(text) for text in c.rows_of(c.texts.astype(object), "")] for c in cells}


def all_numbers(path: Path) -> Tensor:
    """A file of numbers alone, for a run that was not trained on a table."""
    table = file.read(path)
    return matrix(table, decide_columns(table, list(table.columns), dict.fromkeys(table.columns, "number")))  # fmt: skip


def _check_names(
    table: file.Table, targets: Sequence[str], drop: Sequence[str], columns: Mapping[str, str]
) -> None:
    for what, names in (("drop", drop), ("columns", columns)):
        for name in names:
            if name not in table.columns:
                raise unknown(f"{table.where}: {what}", name, table.columns)
            if name in targets:
                raise InputError(
                    f"{table.where}: {what}",
                    got=name,
                    expected="an input column: this one is the target",
                    repair="set task for the target" if what == "columns" else "",
                )


def _inputs(
    table: file.Table, decisions: list[dict[str, Any]], wanted: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The decisions for columns that are inputs; at least one."""
    if not used(decisions):
        _keep_one(table, [found for found in decisions if found["name"] not in wanted])
    chosen = used(decisions)
    if not chosen:
        left = ", ".join(f"{d['name']!r} ({d['why']})" for d in decisions)
        raise InputError(
            table.where,
            got="no usable input column",
            expected="columns of numbers or categories beside the target",
            repair=f"left out: {left}",
        )
    return chosen


def _keep_one(table: file.Table, decisions: list[dict[str, Any]]) -> None:
    """Where no column is an input, names that are all different are read as texts, by their letters;
    else a running number is kept, as its order may say something."""
    left = [found for found in decisions if found["kind"] == "identifier"]
    said = "kept: there is no other column"
    for found in left:
        cells = table.columns[found["name"]]
        if "decimal" not in found and cells.numbers is None and _are_names(cells.texts):
            found |= {"kind": "text", "why": f"{found['why']}; {said}"}
            found["width"] = hashed.most(len(cells.codes))
            return
    for found in left:
        if "decimal" in found:
            found |= {"kind": "number", "why": f"{found['why']}; {said}"}
            return


def _are_names(texts: np.ndarray) -> bool:
    """Whether most are without digits: names, not numbers or codes of the rows."""
    return sum(not any(map(str.isdigit, text)) for text in map(str, texts)) > len(texts) / 2


def _without_leaks(
    chosen: list[dict[str, Any]],
    raw: Tensor,
    goal: Target,
    wanted: Mapping[str, str],
    where: str,
) -> tuple[list[dict[str, Any]], Tensor]:
    """The columns that do not give the target away; those that the recipe names stay."""
    if goal.values.dim() > 1:
        return chosen, raw
    y = goal.values.double().numpy()
    found = {}
    for column, place in places_of(chosen):
        if column["kind"] not in WIDE and column["name"] not in wanted:
            one = leak(column, raw[:, place.start].numpy(), y, len(goal.classes))
            if one:
                found[column["name"]] = one
    leaks = {name: one.why for name, one in found.items() if one.copy}
    if len(leaks) == len(chosen):
        leaks = {}  # there is nothing else to learn from
    _warn_of_leaks(where, chosen, leaks, {n: f.why for n, f in found.items() if n not in leaks})
    if not leaks:
        return chosen, raw
    stay = np.concatenate(
        [np.full(p.stop - p.start, c["name"] not in leaks) for c, p in places_of(chosen)]
    )
    for column in chosen:
        if column["name"] in leaks:
            column |= {"kind": "leak", "why": leaks[column["name"]]}
    return used(chosen), raw[:, torch.from_numpy(stay)]


def _warn_of_leaks(
    where: str, chosen: Sequence[dict[str, Any]], leaks: dict[str, str], kept: dict[str, str]
) -> None:
    """Say what is left out and how it can stay; and what is kept and how it can be left out."""
    kinds = {column["name"]: column["kind"] for column in chosen}
    if leaks:
        first = next(iter(leaks))
        warnings.warn(
            f"{where}: left out, because it gives the target away: {_listed(leaks)}. If it is known "
            f'when predictions are made, keep it: data.source.columns.{first} = "{kinds[first]}"',
            stacklevel=5,
        )
    for column in chosen:
        if column["name"] in kept:
            column["why"] += f"; {kept[column['name']]}"
    if kept:
        first = next(iter(kept))
        warnings.warn(
            f"{where}: too good to be true? {_listed(kept)}. If it is not known when predictions are "
            f'made, leave it out: data.source.drop = ["{first}"]',
            stacklevel=5,
        )


def _warn_of_words(table: file.Table, chosen: Sequence[dict[str, Any]], goal: Target) -> None:
    """Say which words of a column of texts tell the classes."""
    if not goal.classes or goal.values.dim() > 1:
        return
    every = -(-len(goal.values) // MOST_READ)
    labels = goal.values[::every].tolist()
    for column in (c for c in chosen if c["kind"] == "text"):
        cells = table.columns[column["name"]]
        codes = cells.codes[goal.kept][::every]
        texts = [words(str(cells.texts[code])) if code >= 0 else [] for code in codes]
        if told := telling(texts, labels):
            column["why"] += f"; words tell the classes: {told}"
            text = f"{table.where}: too good to be true? words of {column['name']!r} tell the classes: {told}. If they"
            warnings.warn(
                f"{text} are there because the class was known, take them out", stacklevel=4
            )


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name!r} ({why})" for name, why in reasons.items())


def _warn(table: file.Table, decisions: Sequence[dict[str, Any]], goal: Target) -> None:
    left = [d for d in decisions if d["kind"] in ("identifier", "constant")]
    if left:
        listed = ", ".join(f"{d['name']!r} ({d['why']})" for d in left[:12])
        more = f" and {len(left) - 12} more" if len(left) > 12 else ""
        warnings.warn(f"{table.where}: columns left out: {listed}{more}", stacklevel=4)
    notes = "; ".join(f"{d['name']!r}: {d['note']}" for d in decisions if "note" in d)
    if notes:
        warnings.warn(f"{table.where}: columns of several kinds of numbers: {notes}", stacklevel=4)
    lost = int((~goal.kept).sum())
    if lost:
        warnings.warn(f"{table.where}: {lost} rows without a target left out", stacklevel=4)
