"""What a trial of cures found: the best candidate, its evidence and the verdict; plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ravine.doctor.edits import Edits, describe


@dataclass
class Cure:
    """What a trial found: the best candidate, its paired scores on samples and seeds that did not
    choose it, and the verdict."""

    edits: Edits
    why: str
    before: list[float]  # metric of the untouched recipe, by seed
    after: list[float]
    seeds: list[int]
    accepted: bool
    recipe: str  # TOML
    score: str  # the metric's name
    p: float
    spent: float  # original runs
    budget: float = 0.0
    tried: list[dict[str, Any]] = field(default_factory=list)
    also: list[dict[str, Any]] = field(
        default_factory=list
    )  # what no edit of one recipe can be: an ensemble, more data
    # of each edit of a cure of several, what is left without it: {"edit", "with", "without", "needed"}
    needed: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "recipe": self.recipe if self.accepted else None,
            "best_try": self.recipe,
        }

    @property
    def text(self) -> str:
        """One line for people."""
        what = f"verified cure: {self.why or describe(self.edits)}"
        if not self.accepted:
            what = (
                f"no verified cure; the best try: {self.why}" if self.edits else "no verified cure"
            )
        change = f"{np.mean(self.before):.4g} -> {np.mean(self.after):.4g}"
        note = f"; {self.note}" if self.note else ""
        return f"{what} ({self.score} {change} on {len(self.seeds)} seeds, p = {self.p:.2g}; {self.spent:.1f} runs{note})"

    @property
    def besides(self) -> list[str]:
        """What was measured that no edit of the recipe can be, one line each."""
        return [
            f"{one['remedy']}: {self.score} {one['before']:.4g} -> {one['after']:.4g}, p = {one['p']:.2g}"
            + (
                f" ({one['command']})"
                if one["helps"] and one["command"]
                else ""
                if one["helps"]
                else " (no proof that it helps)"
            )
            for one in self.also
        ]

    @property
    def edits_needed(self) -> list[str]:
        """Which edits of a cure of several are needed, one line each."""
        return [
            f"{'needed' if one['needed'] else 'not needed'}: {one['edit']} ({self.score} with it "
            f"{one['with']:.4g}, without it {one['without']:.4g} after {one['part']:.0%} of the plan, "
            f"{one['seeds']} seed{'s' * (one['seeds'] > 1)})"
            for one in self.needed
        ]

    @property
    def evidence(self) -> list[str]:
        """What stands above the recipe in its file."""
        table = [
            f"seed {s}: {b:.6g} -> {a:.6g}"
            for s, b, a in zip(self.seeds, self.before, self.after, strict=True)
        ]
        compared = f"{self.score} of the untouched recipe -> of this one:"
        tried = (
            f"{len(self.tried)} recipes were tried, {self.spent:.1f} of {self.budget:g} runs spent"
        )
        edits = f"edits: {describe(self.edits)}"
        return [self.text, edits, compared, *table, tried, *self.edits_needed, *self.besides]
