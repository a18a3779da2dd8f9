"""What a network answers for a few validation images over training, for the live page.

It looks on and changes no number. The epochs are a fixed list, ever farther apart, so that a resumed
run records the same and a long one has few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ravine.data.inspect.examples import view_of
from ravine.data.inspect.thumbnails import picture
from ravine.engine.loop.layer_records import untouched
from ravine.engine.loop.record import Record
from ravine.engine.programs import Program
from ravine.engine.rows.evaluate import evaluation
from ravine.measures import number

KIND = "samples"  # of the events that hold the records
SHOWN, SIDE = 12, 48  # images, and their pixels
POOL = 64  # of the validation part, from which they are taken
GROWTH = 1.3  # from one epoch that is looked at to the next


def _epochs(last: int) -> frozenset[int]:
    found = [1]
    while found[-1] < last:
        found.append(max(found[-1] + 1, round(GROWTH * found[-1])))
    return frozenset(found)


EPOCHS = _epochs(10**7)


def is_due(epoch: float) -> bool:
    """Whether samples are looked at after so many epochs.

    >>> [epoch for epoch in range(1, 40) if is_due(epoch)]
    [1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 29, 38]
    """
    return epoch <= 1 or epoch in EPOCHS


class SampleRecords:
    """Records events of kind ``samples`` for the first members of a program on images: the answers of
    each, and with the first also the pictures."""

    def __init__(self, program: Program, record: Record):
        self.program, self.record = program, record
        self.watched = frozenset(program.watched) if self._can(program, record) else frozenset()
        self._x = torch.empty(0)
        self._truths: list[str] = []
        self._pictures: list[str] = []

    @staticmethod
    def _can(program: Program, record: Record) -> bool:
        pipeline, answers = program.pipeline, program.answers
        model = program.population.objectives[0].model
        return (
            getattr(record, "lasts", False)
            and not program.folds
            and pipeline.has("validation")
            and answers.kind in ("classes", "binary", "numbers")
            and type(model).forward is not nn.Module.forward  # else parts of a step of one's own
            and not getattr(model, "sharded", False)
            and pipeline.task in ("classification", "regression")
            and view_of(pipeline) == "images"
        )

    def look(self, rows: Sequence[int], places: Sequence[Mapping[str, Any]]) -> None:
        """Record the answers of the members in these rows, where it is time."""
        for row, place in zip(rows, places, strict=True):
            if place["member"] in self.watched and is_due(place["epoch"]):
                data = {"epoch": place["epoch"], "samples": self._samples(row)}
                if place["epoch"] <= 1:
                    data["pictures"] = self._pictures
                text = f"samples after {place['step']} steps"
                self.record.add_event(place["step"], place["member"], KIND, text, data)

    def _samples(self, row: int) -> list[dict[str, Any]]:
        """Truth, answer and, of a class, its probability; nothing where these are not finite."""
        if not self._truths:
            self._choose()
        population, answers = self.program.population, self.program.answers
        model = population.objectives[row].model
        with untouched(model, population.device), evaluation([model]):
            output = population.call(model, self._x).float().cpu()
        if not bool(output.isfinite().all()):
            return []
        if answers.kind == "numbers":
            values = answers.values(output).double().reshape(len(output), -1)[:, 0]
            told: list[dict[str, Any]] = [{"answer": number(float(value))} for value in values]
        else:
            p = answers.probabilities(output).double()
            p = torch.cat([1 - p, p], 1) if p.shape[1] == 1 else p  # [N, K]
            classes = answers.classes(output).reshape(-1).long().tolist()
            told = [
                {"answer": self._name(k), "sure": round(float(p[i, k]), 3)}
                for i, k in enumerate(classes)
            ]
        return [{"truth": truth, **one} for truth, one in zip(self._truths, told, strict=True)]

    def _name(self, k: int) -> str:
        names = self.program.pipeline.classes
        return str(names[k]) if names else str(k)

    def _choose(self) -> None:
        """A few samples, of all classes in turn."""
        pipeline = self.program.pipeline
        raw, _ = pipeline.raw("validation", POOL)
        batch = next(iter(pipeline.split("validation", POOL)))
        y = batch.y.reshape(len(raw), -1)[:, 0].cpu()
        if self.program.answers.kind == "numbers":
            rows = list(range(min(SHOWN, len(raw))))
            values = pipeline.target_units(batch.y.float()).double().reshape(len(raw), -1)[:, 0]
            self._truths = [number(float(values[i])) for i in rows]
        else:
            rows = _in_turn(y.long().tolist())[:SHOWN]
            self._truths = [self._name(int(y[i])) for i in rows]
        self._x = batch.x[rows]
        self._pictures = [picture(raw[i].numpy(), SIDE) for i in rows]


def _in_turn(labels: Sequence[int]) -> list[int]:
    """Places by how often their label came before, then by label.

    >>> _in_turn([5, 5, 0, 5, 0])
    [2, 0, 4, 1, 3]
    """
    seen: dict[int, int] = {}
    order = []
    for place, label in enumerate(labels):
        order.append((seen.setdefault(label, 0), label, place))
        seen[label] += 1
    return [place for _, _, place in sorted(order)]
