"""What a search varies: distributions over recipe fields, sampled from points of the unit cube,
tightened around the best."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ravine.errors import InputError, unknown
from ravine.recipe import Recipe
from ravine.study.signature import split_values


@dataclass(frozen=True)
class Uniform:
    """Uniform on [low, high]."""

    low: float
    high: float

    def at(self, u: float) -> Any:
        """The quantile at u in [0, 1)."""
        return self.low + u * (self.high - self.low)

    def place(self, value: Any) -> float:
        """The u whose quantile is ``value``."""
        return (value - self.low) / (self.high - self.low)

    def grid(self, points: int) -> list[Any]:
        return [self.at(u) for u in np.linspace(0, 1, points)]

    def tightened(self, best: Sequence[Any]) -> Any:
        """The range of the best widened by half its width at each side, at least a quarter and at
        most the whole of the old."""
        low, high = _around([self.place(value) for value in best])
        return replace(self, low=self.at(low), high=self.at(high))

    def say(self) -> str:
        return f"{type(self).__name__.lower()}:{_say(self.low)}:{_say(self.high)}"


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Uniform in the logarithm on [low, high], both > 0."""

    def at(self, u: float) -> Any:
        return float(math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low))))

    def place(self, value: Any) -> float:
        return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))


@dataclass(frozen=True)
class Integer(Uniform):
    """Every whole number from low to high alike."""

    def at(self, u: float) -> Any:
        return int(min(self.high, self.low + math.floor(u * (self.high - self.low + 1))))

    def place(self, value: Any) -> float:
        return (value - self.low + 0.5) / (self.high - self.low + 1)

    def grid(self, points: int) -> list[Any]:
        return sorted({round(v) for v in np.linspace(self.low, self.high, points)})


@dataclass(frozen=True)
class Normal:
    """Normal with this mean and standard deviation."""

    mean: float
    sd: float

    def at(self, u: float) -> Any:
        return float(self.mean + self.sd * ndtri(min(max(u, 1e-9), 1 - 1e-9)))

    def place(self, value: Any) -> float:
        return float(ndtr((value - self.mean) / self.sd))

    def grid(self, points: int) -> list[Any]:
        return [self.at((i + 0.5) / points) for i in range(points)]

    def tightened(self, best: Sequence[Any]) -> Any:
        """The mean of the best; their deviation, at least a third of the old."""
        return Normal(float(np.mean(best)), float(min(self.sd, max(np.std(best), self.sd / 3))))

    def say(self) -> str:
        return f"normal:{_say(self.mean)}:{_say(self.sd)}"


@dataclass(frozen=True)
class Choice:
    """One of the values, all alike."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        return self.values[min(len(self.values) - 1, math.floor(u * len(self.values)))]

    def place(self, value: Any) -> float:
        return (self.values.index(value) + 0.5) / len(self.values)

    def grid(self, points: int) -> list[Any]:
        return list(self.values)

    def tightened(self, best: Sequence[Any]) -> Any:
        """Only what the best have."""
        return Choice(tuple(value for value in self.values if value in best))

    def say(self) -> str:
        return "choice:" + ",".join(map(_say, self.values))


_KINDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "uniform": (Uniform, ("low", "high")),
    "loguniform": (LogUniform, ("low", "high")),
    "integer": (Integer, ("low", "high")),
    "normal": (Normal, ("mean", "sd")),
}


@dataclass(frozen=True)
class Variable:
    """A recipe field that varies; only where another field has one of some values, if ``when`` says
    so."""

    path: str
    distribution: Any
    when: tuple[str, tuple[Any, ...]] | None = None

    @classmethod
    def parse(cls, text: str) -> Variable:
        """``PATH=DISTRIBUTION`` or ``PATH=DISTRIBUTION if PATH=VALUE,VALUE``.

        >>> Variable.parse("optimizer.momentum=uniform:0.5:0.99 if optimizer.kind=sgd").when
        ('optimizer.kind', ('sgd',))
        """
        assignment, _, condition = text.partition(" if ")
        path, equals, distribution = assignment.partition("=")
        if not equals or not distribution.strip():
            repair = "for example --vary optimizer.lr=loguniform:1e-5:1"
            raise InputError("--vary", got=text, expected="PATH=DISTRIBUTION", repair=repair)
        when = None
        if condition:
            field, equals, values = condition.partition("=")
            if not equals:
                raise InputError(
                    "--vary", got=text, expected="a condition of the form: if PATH=VALUE,VALUE"
                )
            when = (field.strip(), tuple(split_values(values)))
        return cls(path.strip(), parse_distribution(path.strip(), distribution.strip()), when)

    def active(self, values: Mapping[str, Any], recipe: Recipe) -> bool:
        """Whether its condition holds where the earlier variables have these values."""
        if self.when is None:
            return True
        path, wanted = self.when
        found = values[path] if path in values else recipe.get(path)
        return found in wanted

    def say(self) -> str:
        condition = f" if {self.when[0]}={','.join(map(_say, self.when[1]))}" if self.when else ""
        return f"{self.path}={self.distribution.say()}{condition}"


@dataclass(frozen=True)
class Space:
    """The variables of a search, those that conditions name before those that depend on them."""

    variables: tuple[Variable, ...]

    @classmethod
    def parse(cls, texts: Sequence[str], recipe: Recipe) -> Space:
        """Read and try every variable on the recipe, so that a misspelt field is found before
        anything runs."""
        if not texts:
            raise InputError(
                "--vary",
                expected="at least one field",
                repair="for example --vary optimizer.lr=loguniform:1e-5:1",
            )
        variables = [Variable.parse(text) for text in texts]
        space = cls(tuple(_ordered(variables)))
        for end in (0.0, 0.5, 1.0 - 1e-9):
            space.recipe(recipe, space.values([end] * len(space.variables), recipe))
        return space

    def values(self, point: Sequence[float], recipe: Recipe) -> dict[str, Any]:
        """The values at a point of the unit cube; inactive variables are left out."""
        values: dict[str, Any] = {}
        for variable, u in zip(self.variables, point, strict=True):
            if variable.active(values, recipe):
                values[variable.path] = variable.distribution.at(float(u))
        return values

    def recipe(self, base: Recipe, values: Mapping[str, Any]) -> Recipe:
        """The base with these values."""
        return base.edit(values)

    def grid(self, points: int, recipe: Recipe) -> list[dict[str, Any]]:
        """Every combination of ``points`` values of each variable (all values of a choice),
        inactive ones left out."""
        rows: list[dict[str, Any]] = [{}]
        for variable in self.variables:
            rows = [
                {**row, **({variable.path: value} if value is not None else {})}
                for row in rows
                for value in (
                    variable.distribution.grid(points) if variable.active(row, recipe) else [None]
                )
            ]
        return rows

    def tightened(self, best: Sequence[Mapping[str, Any]]) -> Space:
        """Every distribution around the values of the best; one that none of them has stays as it
        is."""

        def around(variable: Variable) -> Variable:
            values = [row[variable.path] for row in best if variable.path in row]
            return (
                replace(variable, distribution=variable.distribution.tightened(values))
                if values
                else variable
            )

        return Space(tuple(map(around, self.variables)))

    def say(self) -> list[str]:
        return [variable.say() for variable in self.variables]


def parse_distribution(path: str, text: str) -> Any:
    """``loguniform:1e-5:1``, ``normal:0:0.1``, ``choice:sgd,adam``, or values alone:
    ``0.1,0.01``."""
    name, colon, rest = text.partition(":")
    if name == "choice" or not (colon and re.fullmatch(r"[a-z]+", name)):
        values = split_values(rest if name == "choice" else text)
        if not values:
            raise InputError(path, got=text, expected="at least one value to choose from")
        return Choice(tuple(values))
    if name not in _KINDS:
        raise unknown(f"--vary {path}", name, [*_KINDS, "choice"])
    kind, parameters = _KINDS[name]
    try:
        a, b = (float(number) for number in rest.split(":"))
    except ValueError:
        expected = f"{name}:{':'.join(parameters).upper()}, two numbers"
        raise InputError(f"--vary {path}", got=text, expected=expected) from None
    if not (math.isfinite(a) and math.isfinite(b)):
        raise InputError(f"--vary {path}", got=text, expected="finite numbers")
    if kind is Integer and (a != int(a) or b != int(b)):
        raise InputError(f"--vary {path}", got=text, expected="whole numbers")
    if (
        (kind is Normal and b <= 0)
        or (kind is not Normal and a >= b)
        or (kind is LogUniform and a <= 0)
    ):
        expected = {Normal: "a standard deviation > 0", LogUniform: "0 < LOW < HIGH"}.get(
            kind, "LOW < HIGH"
        )
        raise InputError(f"--vary {path}", got=text, expected=expected)
    return kind(int(a), int(b)) if kind is Integer else kind(a, b)


def _ordered(variables: list[Variable]) -> list[Variable]:
    paths = [variable.path for variable in variables]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError("--vary", got=path, expected="each field once")
    done: list[Variable] = []
    waiting = list(variables)
    while waiting:
        known = {variable.path for variable in done}
        ready = [
            v for v in waiting if v.when is None or v.when[0] in known or v.when[0] not in paths
        ]
        if not ready:
            got = ", ".join(variable.path for variable in waiting)
            raise InputError("--vary", got=got, expected="conditions that do not go in a circle")
        done += ready
        waiting = [v for v in waiting if v not in ready]
    return done


def _around(places: Sequence[float]) -> tuple[float, float]:
    low, high = min(places), max(places)
    width = min(1.0, max(0.25, 2 * (high - low)))
    middle = min(max((low + high) / 2, width / 2), 1 - width / 2)
    return max(0.0, middle - width / 2), min(1.0, middle + width / 2)


def _say(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
