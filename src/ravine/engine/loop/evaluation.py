"""The metrics of members: at epochs' ends, and of the weights with which they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ravine.data.pipeline import Pipeline
from ravine.engine.loop.epoch import EpochSteps
from ravine.engine.loop.folds import Folds
from ravine.engine.loop.kept_weights import Final, Weights, held
from ravine.engine.loop.record import Record
from ravine.engine.loop.sample_records import SampleRecords
from ravine.engine.loop.stopping import Stopping
from ravine.engine.programs import Program
from ravine.engine.ranks.ranks import ALONE, Ranks
from ravine.engine.rows.evaluate import Metric, evaluate, metric_functions
from ravine.engine.rows.own_step import recorded_means
from ravine.nn.answers import Answers

Rows = list[dict[str, Any]]


class Evaluation:
    """Evaluates rows of a program's population. ``validates`` says whether the validation part is
    measured at epochs' ends."""

    def __init__(
        self,
        program: Program,
        record: Record,
        weights: Weights,
        epoch: EpochSteps,
        validates: bool,
        ranks: Ranks = ALONE,
        data: Pipeline | Folds | None = None,
    ):
        self.ranks, self.answers = ranks, program.answers
        self.folds = data if isinstance(data, Folds) else None
        self.population, self.pipeline, self.test = (
            program.population,
            program.pipeline,
            program.test,
        )
        self.weights, self.steps, self.validates = weights, epoch, validates
        self.samples = SampleRecords(program, record)
        self.recipe = program.recipes[0]
        self.metrics = self._metrics(program.answers)

    def _metrics(self, answers: Answers) -> dict[str, Metric]:
        recipe = self.recipe
        return metric_functions(answers, self.pipeline.task, recipe.metrics, recipe.loss)

    def epoch(self, rows: Sequence[int], places: Rows, learning_rates: np.ndarray) -> Rows:
        """What the members in these rows reached by the end of an epoch, beside their places."""
        objectives = [self.population.objectives[row] for row in rows]
        recorded = recorded_means(objectives)
        return self.ranks.measured(lambda: self._epoch(rows, places, learning_rates, recorded))

    def _epoch(
        self,
        rows: Sequence[int],
        places: Rows,
        learning_rates: np.ndarray,
        recorded: dict[str, np.ndarray],
    ) -> Rows:
        columns = {
            "train_loss": self.steps.train_loss[rows],
            "grad_norm": self.steps.grad_norm[rows],
            "lr": learning_rates,
        }
        columns |= {f"train_{name}": v for name, v in recorded.items()}
        if self.validates:
            # a running average is what would be used, so it is what is judged
            with held(self.population, self.weights.evaluated()):
                columns |= self._split("validation", "val", rows)
                self.samples.look(rows, places)
        return _by_row(places, columns)

    def final(
        self, final: Final, rows: Sequence[int], places: Rows, stops: Sequence[Stopping]
    ) -> Rows:
        """The results of the members that end, on every part of the data but the training part."""
        return self.ranks.measured(lambda: self._final(final, rows, places, stops))

    def _final(
        self, final: Final, rows: Sequence[int], places: Rows, stops: Sequence[Stopping]
    ) -> Rows:
        columns: dict[str, np.ndarray] = {}
        with held(self.population, *final):
            self.weights.refresh_statistics(self._pipeline_of, stops, rows, final)
            for split, short in (("validation", "val"), ("test", "test")):
                if self.pipeline.has(split) and (split != "test" or self.test):
                    columns |= self._split(split, short, rows)
        if self.steps.losses:  # else the epoch is over, and its mean recorded
            columns["train_loss"] = self.steps.train_loss[rows]
        ends = []
        for row, place in zip(rows, places, strict=True):
            stop, step = stops[row], place["step"]
            end = {"steps": step, "epochs": place["epoch"], "seconds": place["seconds"]}
            best = stop.best_step if stop.keeps_best else step
            ends.append(end | {"stopped": stop.reason, "best_step": best})
        return _by_row(ends, columns)

    def _split(self, split: str, short: str, rows: Sequence[int]) -> dict[str, np.ndarray]:
        objectives = [self.population.objectives[row] for row in rows]
        call = self.population.outputs_of
        if self.folds is None:
            found = evaluate(objectives, self.pipeline, split, self.metrics, call)
        else:  # each member by its own samples
            each = []
            for row, objective in zip(rows, objectives, strict=True):
                own = self.folds.pipelines[row]
                metrics = self._metrics(replace(self.answers, units=own.target_units))
                each.append(evaluate([objective], own, split, metrics, call))
            found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return {f"{short}_{name}": values for name, values in found.items()}

    def _pipeline_of(self, row: int) -> Pipeline:
        """The data that a member is trained on."""
        return self.pipeline if self.folds is None else self.folds.pipelines[row]


def _by_row(rows: Rows, columns: dict[str, np.ndarray]) -> Rows:
    return [
        row | {name: float(values[k]) for name, values in columns.items()}
        for k, row in enumerate(rows)
    ]
