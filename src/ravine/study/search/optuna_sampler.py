"""Optuna's samplers for a space: asked for whole populations and given their results (extra:
optuna)."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from typing import Any

from ravine.errors import InputError, unknown
from ravine.measures import better_is
from ravine.recipe import Recipe
from ravine.study.search.space import Choice, Integer, LogUniform, Normal, Space, Uniform


class Asker:
    """``optuna:TPESampler``, ``optuna:CmaEsSampler``, … by its class name."""

    def __init__(self, name: str, space: Space, recipe: Recipe, metric: str, *, seed: int):
        try:
            import optuna
        except ImportError:
            raise InputError(
                "--method", got=name, expected="Optuna", repair="pip install ravine[optuna]"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        wanted = name.removeprefix("optuna:")
        known = [n for n in optuna.samplers.__all__ if n.endswith("Sampler") and n != "BaseSampler"]
        if wanted not in known:
            raise unknown("--method", name, [f"optuna:{n}" for n in known])
        kind = getattr(optuna.samplers, wanted)
        takes = inspect.signature(kind).parameters
        # the whole population is drawn before any result is known
        options = {
            "seed": seed,
            "constant_liar": True,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                sampler = kind(**{name: value for name, value in options.items() if name in takes})
            except (TypeError, ImportError) as error:
                raise InputError(
                    "--method",
                    got=name,
                    expected="a sampler that needs nothing more",
                    repair=str(error),
                ) from None
        direction = "minimize" if better_is(metric) == "min" else "maximize"
        self._study = optuna.create_study(sampler=sampler, direction=direction)  # type: ignore[arg-type]
        self._failed = optuna.trial.TrialState.FAIL
        self._space, self._recipe, self._asked = space, recipe, list[Any]()

    def ask(self, count: int) -> list[dict[str, Any]]:
        """The values of ``count`` new members."""
        self._asked = [self._study.ask() for _ in range(count)]
        return [self._values(trial) for trial in self._asked]

    def tell(self, results: Sequence[float]) -> None:
        """Report the metric of every member drawn last; a value that is not finite counts as failed."""
        for trial, value in zip(self._asked, results, strict=True):
            if math.isfinite(value):
                self._study.tell(trial, value)
            else:
                self._study.tell(trial, state=self._failed)

    def _values(self, trial: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for variable in self._space.variables:
            if variable.active(values, self._recipe):
                values[variable.path] = _suggest(trial, variable.path, variable.distribution)
        return values


def _suggest(trial: Any, name: str, distribution: Any) -> Any:
    if isinstance(distribution, Choice):
        return distribution.values[
            trial.suggest_categorical(name, list(range(len(distribution.values))))
        ]
    if isinstance(distribution, Normal):
        return distribution.at(trial.suggest_float(name, 1e-6, 1 - 1e-6))
    if isinstance(distribution, Integer):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, Uniform)
    return trial.suggest_float(
        name, distribution.low, distribution.high, log=isinstance(distribution, LogUniform)
    )
