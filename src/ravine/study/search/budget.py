"""A search within a time: rounds are planned from measured step times, and corrected by what they
really took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ravine.catalogue import durations
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.study.directory import Study
from ravine.study.search.trials import FINALISTS
from ravine.study.training_time import seconds_of

FEWEST, MOST = 4, 200  # members of a round
MOST_SEEDS = 10  # of the final choice
ROUNDS = 5  # a round is about this part of the time, if so many members are allowed
CLOSING = 8.0  # seconds kept for the pictures and the report
FITS = 0.8  # of the length of runs that would just fit, which is advised
RESERVE = 0.05  # of the time, kept for errors of the plan


@dataclass(frozen=True)
class Round:
    """What the plan says of the next round."""

    members: int  # 0: no further round fits
    coarse: bool  # whether all end early, because another round will follow


class TimeBudget:
    """The seconds of one method of a search."""

    def __init__(self, study: Study, methods: int):
        whole = 60 * study.options["minutes"]
        self.study = study
        self.seconds = whole * (1 - RESERVE) - min(CLOSING, whole / 4)
        self.methods = methods
        self.ratio = 1.0  # measured over predicted, of the last round
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Since the study began; what an interrupted study had trained before counts."""
        return max(time.monotonic() - self._began, self.study.seconds)

    def next(
        self,
        name: str,
        number: int,
        place: int,
        draw: Callable[[int], list[Recipe]],
        shares: tuple[float, float],
    ) -> Round:
        """The next round of the method in this place; ``draw`` gives the recipes of so many
        members, ``shares`` the parts of its steps that a coarse and a last round train."""
        plan = self.study.once(
            f"plan/{name}-{number + 1}", lambda: self._planned(number, place, draw, shares)
        )
        self._predicted = plan["seconds"]
        self._before = (time.monotonic(), self.study.seconds)
        return Round(plan["members"], plan["coarse"])

    def further_seeds(self, seeds: int, since: float) -> int:
        """How many more seeds fit into the time, where so many took all that was spent ``since``."""
        one = max(self.spent - since, 1e-9) / seeds
        return self.study.once(
            "plan/further-seeds",
            lambda: {
                "seeds": max(0, min(MOST_SEEDS - seeds, int((self.seconds - self.spent) / one)))
            },
        )["seeds"]

    def trained(self) -> None:
        """The round has been trained: correct the plan by what it took."""
        began, seconds = self._before
        took = max(time.monotonic() - began, self.study.seconds - seconds)
        self.ratio *= min(10.0, max(0.1, took / max(self._predicted, 1e-9)))

    def _planned(
        self,
        number: int,
        place: int,
        draw: Callable[[int], list[Recipe]],
        shares: tuple[float, float],
    ) -> dict[str, Any]:
        (coarse, last), study = shares, self.study
        members = study.options["members"]
        drawn = draw(members)
        finals = self.ratio * (FINALISTS + 1) * self._dearest(drawn)
        end = (self.seconds - finals * self.methods) * (place + 1) / self.methods
        left = end - self.spent
        one = self.ratio * seconds_of(drawn, study.model, study.data) / members
        if number == 0:
            members = int(min(MOST, max(FEWEST, left / ROUNDS / max(one * coarse, 1e-9))))
            if members * one * last > left:
                study.take_back()
                least = (self.spent + members * one * last + finals) / (1 - RESERVE) + CLOSING
                raise InputError(
                    "--minutes",
                    got=study.options["minutes"],
                    expected=f"at least {math.ceil(10 * least / 60) / 10:g}",
                    repair="the smallest search of this recipe takes this long; "
                    + self._shorter(
                        (self.seconds / self.methods - self.spent) / (members * one * last + finals)
                    ),
                )
        if coarse < last and members * one * (coarse + last) <= left:
            return {"members": members, "coarse": True, "seconds": members * one * coarse}
        # no round fits after this one: it has as many members as fit
        fit = int(min(MOST if coarse < last else members, left / max(one * last, 1e-9)))
        if fit >= FEWEST:
            return {"members": fit, "coarse": False, "seconds": fit * one * last}
        return {"members": 0, "coarse": False, "seconds": 0.0}

    def _shorter(self, part: float) -> str:
        """How long runs may be, where ``part`` of the time of such runs is left."""
        after = self.study.recipe.stop.after
        amount, unit = durations.parse(after)
        fits = int(float(amount) * part * FITS)
        said = f"runs of {after} (stop.after) may be longer than needed"
        if fits < 1 or unit not in ("ep", "it"):
            return said
        shorter = f"--epochs {fits}" if unit == "ep" else f"--set stop.after={fits}it"
        return f"{said}: {shorter} would fit"

    def _dearest(self, recipes: Sequence[Recipe]) -> float:
        """The seconds of the final seeds of the architecture that takes longest."""
        programs = {recipe.program: recipe for recipe in recipes}.values()
        seeds = range(self.study.options["finals"])
        return max(
            seconds_of(
                [recipe.edit({"seed": recipe.seed + i}) for i in seeds],
                self.study.model,
                self.study.data,
            )
            for recipe in programs
        )
