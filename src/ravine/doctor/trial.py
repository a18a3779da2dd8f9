"""Proof by experiment: candidate cures, the untouched recipe and "train longer" as paired populations, halved by results.

The budget counts training steps of all trial members, in units of one original run. One half of the validation samples
chooses; the other half, on fresh seeds, decides by a paired test whether the winner beats the untouched recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ravine.data.pipeline import Batch
from ravine.doctor.baseline import accuracy
from ravine.doctor.experiment import Experiment, Group, Shelf, threshold
from ravine.doctor.findings import Finding
from ravine.doctor.remedies import Case, Edits, describe, longer, remedies
from ravine.engine.programs import Model
from ravine.errors import InputError
from ravine.recipe import Recipe

SEEDS = 3
RUNGS = ((1 / 8, 4), (3 / 8, 2), (1.0, 1))  # (part of the plan, candidates that are left behind it)
MOST = 14  # candidates
FEW = 60  # training samples: under that none are held out, and fresh seeds alone decide
HELD_OUT = 0.3
LEVEL = 0.05
_GENERIC = (
    "lr_too_low",
    "optimizer_unsuited",
    "inputs_unscaled",
    "stuck",
    "lr_too_high",
    "vanishing_gradient",
    "capacity_too_small",
)


@dataclass
class Candidate:
    """A recipe that may cure, by the edits that lead to it."""

    edits: Edits
    why: str
    recipe: Recipe
    scores: list[float] = field(default_factory=list)  # of the samples that choose, at each rung


@dataclass
class Cure:
    """What a trial found: the best candidate, its paired scores on samples and seeds that did not choose it, and the verdict."""

    edits: Edits
    why: str
    before: list[float]  # score of the untouched recipe, by seed
    after: list[float]
    seeds: list[int]
    accepted: bool
    recipe: str  # TOML
    score: str
    p: float
    spent: float  # original runs
    tried: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"recipe": self.recipe if self.accepted else None, "best_try": self.recipe}

    @property
    def text(self) -> str:
        """One line for people."""
        change = f"{np.mean(self.before):.4g} -> {np.mean(self.after):.4g}"
        what = (
            f"verified cure: {describe(self.edits)}" if self.accepted else f"no verified cure; the best try: {describe(self.edits)}"
        )
        return f"{what} ({self.score} {change} on {len(self.seeds)} fresh seeds, p = {self.p:.2g}; {self.spent:.1f} runs)"


def prove(
    recipe: Recipe,
    findings: Sequence[Finding],
    case: Case,
    *,
    module: Model = None,
    arrays: Any = None,
    budget: float = 20.0,
) -> Cure:
    """Search and verify a cure for a recipe within a budget of training steps."""
    if budget < 8:
        raise InputError(
            "--budget", got=budget, expected="at least 8 original runs", repair="3 seeds of two recipes to the end are 6 already"
        )
    shelf = Shelf(module, arrays)
    trial = Trial(_with_validation(recipe, shelf), case, shelf, budget)
    listed = list(candidates(recipe, case, findings))
    return trial.run([Candidate(c.edits, c.why, _with_held_out(c.recipe, trial.recipe)) for c in listed], recipe)


def _with_validation(recipe: Recipe, shelf: Shelf) -> Recipe:
    """The recipe with some samples held out, where it has none and can spare them."""
    pipeline = shelf.pipeline(recipe)
    if pipeline.has("validation") or pipeline.train_size < FEW:
        return recipe
    batch = recipe.data.batch
    size = int(pipeline.train_size * (1 - HELD_OUT)) - 2
    return recipe.edit({"data.validation": HELD_OUT, "data.batch": batch if batch == "full" else min(batch, size)})


def _with_held_out(recipe: Recipe, like: Recipe) -> Recipe:
    changes: Edits = {"data.validation": like.data.validation}
    if recipe.data.batch != "full" and like.data.batch != "full":
        changes["data.batch"] = min(recipe.data.batch, like.data.batch)
    return recipe.edit(changes)


# --- candidates -----------------------------------------------------------------------------------------------------


def candidates(recipe: Recipe, case: Case, findings: Sequence[Finding]) -> Iterator[Candidate]:
    """The remedies of the findings, compounds of two, train longer, and what helps most often; each recipe once."""
    seen = {recipe.hash}
    count = 0
    for edits, why in _proposals(case, findings):
        try:
            edited = recipe.edit(edits)
        except InputError:
            continue
        if edited.hash in seen or count >= MOST:
            continue
        seen.add(edited.hash)
        count += 1
        yield Candidate(edits, why, edited)


def _proposals(case: Case, findings: Sequence[Finding]) -> Iterator[tuple[Edits, str]]:
    codes = [finding.code for finding in findings][:4]
    firsts = [(finding.code, finding.remedies[0]) for finding in findings[:4] if finding.remedies]
    if len(codes) > 1:
        yield from _compound(case, codes[0], codes[1])
    for _, remedy in firsts:
        yield remedy["edits"], remedy["why"]
    for finding in findings[:2]:
        for remedy in finding.remedies[1:2]:
            yield remedy["edits"], remedy["why"]
    yield longer(case, 2), "train twice as long"
    for code in [c for c in _GENERIC if codes and c not in codes]:
        yield from _compound(case, codes[0], code)
    for code in _GENERIC:
        for remedy in remedies(code, case)[:1]:
            yield remedy["edits"], remedy["why"]


def _compound(case: Case, first: str, second: str) -> Iterator[tuple[Edits, str]]:
    """A remedy of one finding and then one of another, the second made for what the first leaves."""
    for one in remedies(first, case)[:1]:
        after = Case(case.recipe.edit(one["edits"]), case.task, case.outputs, case.input_shape)
        for two in remedies(second, after)[:1]:
            yield {**one["edits"], **two["edits"]}, f"{one['why']}; {two['why']}"


# --- the trial ------------------------------------------------------------------------------------------------------


class Trial:
    """One search: it trains candidates rung by rung and keeps count of the steps."""

    def __init__(self, recipe: Recipe, case: Case, shelf: Shelf, budget: float):
        self.recipe, self.case, self.shelf = recipe, case, shelf
        self.unit = float(_steps(recipe, shelf))
        self.left = budget * self.unit
        self.choosing, self.deciding = self._samples()

    def _samples(self) -> tuple[Tensor | None, Tensor | None]:
        """Validation rows that choose and rows that decide; None: the training samples do both, on fresh seeds."""
        pipeline = self.shelf.pipeline(self.recipe)
        if not pipeline.has("validation") or pipeline.size("validation") < 16:
            return None, None
        rows = torch.randperm(pipeline.size("validation"), generator=torch.Generator().manual_seed(0))
        half = len(rows) // 2
        return rows[:half], rows[half:]

    def run(self, listed: list[Candidate], original: Recipe) -> Cure:
        alive = [(c, i) for i, c in enumerate(listed)]
        reserve = 2 * SEEDS * self.unit
        fields = [Field(self, [c.recipe for c in listed])]
        for part, left in RUNGS:
            alive = self._affordable(alive, fields[0], part, reserve)
            for candidate, i in alive:
                candidate.scores.append(fields[0].score(i, part, self.choosing))
            alive = sorted(alive, key=lambda pair: pair[0].scores[-1], reverse=True)[:left]
            fields[0].keep([i for _, i in alive])
        winner = alive[0][0]
        return self._decide(winner, listed, original)

    def _affordable(
        self, alive: list[tuple[Candidate, int]], field: Field, part: float, reserve: float
    ) -> list[tuple[Candidate, int]]:
        """The first candidates that can still be trained to this part of their plans."""
        kept: list[tuple[Candidate, int]] = []
        for pair in alive:
            cost = field.cost(pair[1], part)
            if not kept or self.left - cost >= reserve:
                self.left -= cost
                kept.append(pair)
        return kept

    def _decide(self, winner: Candidate, listed: list[Candidate], original: Recipe) -> Cure:
        """Fresh seeds of the untouched recipe and of the winner, on samples that did not choose."""
        cost = self.unit + _steps(winner.recipe, self.shelf)
        seeds = max(SEEDS, min(5, int(self.left / cost)))
        fresh = [self.recipe.seed + 101 + i for i in range(seeds)]
        pair = Field(self, [self.recipe, winner.recipe], seeds=fresh)
        self.left -= cost * seeds
        before, after = (pair.each(i, 1.0, self.deciding) for i in (0, 1))
        gains = np.array([a.score - b.score for a, b in zip(after, before, strict=True)])
        p = _paired(
            gains, [a.by_sample - b.by_sample for a, b in zip(after, before, strict=True)] if self.deciding is not None else []
        )
        accepted = bool(gains.mean() > 1e-3 and (gains >= 0).mean() > 0.75 and p < LEVEL)
        recipe = original.edit(winner.edits)
        note = (
            "" if self.deciding is not None else "too few samples to hold any out: decided on the training samples, on fresh seeds"
        )
        return Cure(
            winner.edits, winner.why, [b.score for b in before], [a.score for a in after], fresh, accepted, recipe.to_toml(),
            "R²" if self.case.task == "regression" else "accuracy", float(p), self._spent(), _tried(listed), note,
        )  # fmt: skip

    def _spent(self) -> float:
        return round(self.budget_used, 2)

    @property
    def budget_used(self) -> float:
        return (self.total - self.left) / self.unit

    @property
    def total(self) -> float:
        return self._total

    @property
    def left(self) -> float:
        return self._left

    @left.setter
    def left(self, value: float) -> None:
        if not hasattr(self, "_total"):
            self._total = value
        self._left = value


def _tried(listed: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [{"edits": c.edits, "why": c.why, "scores": [round(s, 4) for s in c.scores]} for c in listed if c.scores]


def _paired(gains: np.ndarray, by_sample: list[np.ndarray]) -> float:
    """One-sided p of "no better": the smaller of a t-test over seeds and one over samples, doubled (Bonferroni)."""
    found = [1.0]
    if np.ptp(gains) > 0:
        found.append(float(stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue))
    elif len(gains) and gains[0] > 0:
        found.append(0.5 ** len(gains) / 4)
    if len(gains) >= 5 and (gains > 0).all():
        found.append(0.5 ** len(gains))
    if by_sample:
        mean = np.mean(by_sample, axis=0)
        if np.ptp(mean) > 0:
            found.append(float(stats.ttest_1samp(mean, 0.0, alternative="greater").pvalue))
    return min(1.0, 2 * min(found))


# --- members, trained as far as they are asked for ------------------------------------------------------------------


@dataclass
class Scored:
    """One member on some samples: its score, and each sample's share in it."""

    score: float
    by_sample: np.ndarray


class Field:
    """Recipes with several seeds each, trained side by side, those of one program as one population."""

    def __init__(self, trial: Trial, recipes: Sequence[Recipe], seeds: Sequence[int] | None = None):
        self.trial = trial
        self.seeds = list(seeds) if seeds is not None else [trial.recipe.seed + i for i in range(SEEDS)]
        self.plans = [_steps(recipe, trial.shelf) for recipe in recipes]
        self.done = [0.0] * len(recipes)
        self.failed: set[int] = set()
        self.runs: dict[tuple[int, str], tuple[Experiment, list[int]]] = {}
        kinds: dict[tuple[int, str], list[int]] = {}
        for i, recipe in enumerate(recipes):
            kinds.setdefault((self.plans[i], recipe.program), []).append(i)
        for kind, places in kinds.items():
            members = [recipes[i].edit({"seed": seed}) for i in places for seed in self.seeds]
            with self._tolerant(places):
                self.runs[kind] = (Experiment(members, trial.shelf), places)

    @contextmanager
    def _tolerant(self, places: Sequence[int]) -> Iterator[None]:
        """Candidates that cannot be run at all (batch norm over a batch of one sample, …) are out, not an error."""
        try:
            yield
        except (RuntimeError, ValueError):
            self.failed |= set(places)

    def _at(self, i: int) -> tuple[Group, list[int], tuple[int, str]]:
        for kind, (experiment, places) in self.runs.items():
            if i in places:
                group, n = experiment.groups[0], len(self.seeds)
                start = places.index(i) * n
                return group, [group.members.index(m) for m in range(start, start + n) if m in group.members], kind
        raise IndexError(i)

    def cost(self, i: int, part: float) -> float:
        return len(self.seeds) * self.plans[i] * (part - self.done[i])

    def each(self, i: int, part: float, rows: Tensor | None) -> list[Scored]:
        """The scores of candidate i's members, trained to this part of their plan."""
        if i not in self.failed:
            group, places, kind = self._at(i)
            with self._tolerant(self.runs[kind][1]):
                group.advance(max(1, round(part * kind[0])))
        self.done[i] = part
        if i in self.failed:
            return [Scored(-10.0, np.zeros(0))]
        batch = _batch(group, rows)
        outputs = group.outputs(batch)
        return [_score(group, outputs[row], batch, bool(group.stepper.alive[row])) for row in places]

    def score(self, i: int, part: float, rows: Tensor | None) -> float:
        return float(np.mean([scored.score for scored in self.each(i, part, rows)]))

    def keep(self, alive: Sequence[int]) -> None:
        for experiment, places in self.runs.values():
            group, n = experiment.groups[0], len(self.seeds)
            wanted = {m for k, i in enumerate(places) if i in alive for m in range(k * n, (k + 1) * n)}
            rows = [row for row, member in enumerate(group.members) if member in wanted]
            if rows and len(rows) < len(group.members):
                group.keep(rows)


def _batch(group: Group, rows: Tensor | None) -> Batch:
    if rows is None:
        return group.probe
    whole = next(iter(group.pipeline.split("validation", batch=group.pipeline.size("validation"))))
    rows = rows.to(whole.y.device)
    return Batch(whole.x[rows], whole.y[rows], rows)


def _score(group: Group, output: Tensor, batch: Batch, alive: bool) -> Scored:
    """Accuracy with a small part for how sure and right the probabilities are; R² for a regression."""
    task, recipe = group.pipeline.task, group.program.recipes[0]
    y = batch.y.cpu()
    if not alive or not bool(torch.isfinite(output).all()):
        return Scored(-1.0, np.full(len(y), -1.0))
    if task == "regression":
        out, target = group.pipeline.target_units(output), group.pipeline.target_units(y)
        target = target.double().reshape(len(target), -1)
        error = (out.double().reshape(len(target), -1) - target).square().mean(1)
        spread = (target - target.mean(0)).square().mean().clamp_min(1e-12)
        share = 1 - error / spread
        return Scored(max(float(share.mean()), -10.0), share.clamp_min(-10.0).numpy())
    p, truth = probabilities(output, y, recipe, task)
    wrong = (p - truth).square().sum(-1).flatten(1).mean(1) if p.dim() > 2 else (p - truth).square().sum(-1)
    right = torch.tensor([accuracy(output[i : i + 1], y[i : i + 1], task, threshold(recipe, task)) for i in range(len(y))])
    by_sample = (right.double() + 0.05 * (1 - wrong.double())).numpy()
    return Scored(float(by_sample.mean()), by_sample)


def probabilities(output: Tensor, y: Tensor, recipe: Recipe, task: str) -> tuple[Tensor, Tensor]:
    """The probabilities that outputs say, and the truth as 0 and 1, both [n, K]."""
    single = output.shape[-1] == 1
    said = recipe.loss.arguments.get("input") == "probabilities" or recipe.loss.kind in ("squared", "absolute", "huber")
    p = output.double()
    if not said:
        p = p.sigmoid() if single or task == "multilabel" else p.softmax(-1)
    p = p.clamp(0, 1)
    if single:
        return p, y.double().reshape(p.shape)
    if task != "multilabel":
        p = p / p.sum(-1, keepdim=True).clamp_min(1e-9)
    truth = y.double() if y.shape == output.shape else torch.nn.functional.one_hot(y.long().clamp_min(0), output.shape[-1]).double()
    return p, truth


def _steps(recipe: Recipe, shelf: Shelf) -> int:
    from ravine import durations

    pipeline = shelf.pipeline(recipe)
    return max(1, durations.steps(recipe.stop.after, math.ceil(pipeline.epoch_steps / recipe.optimizer.accumulate)))
