"""Candidate cures: the remedies of the findings, compounds of them, a sound recipe, train longer,
and the untouched one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ravine.doctor.declaration import Kind
from ravine.doctor.edits import WEIGHTED, Case, Edits, layers_of
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import CapacityTooSmall, Overfitting
from ravine.doctor.findings.initial import NoHiddenNonlinearity
from ravine.doctor.findings.plan import TooFewEpochs
from ravine.doctor.findings.rates import LrTooHigh, LrTooLow, OptimizerUnsuited
from ravine.doctor.findings.scales import TargetsUnscaled
from ravine.doctor.remedies import fewer_layers
from ravine.doctor.table import declaration, declarations, remedies
from ravine.errors import InputError
from ravine.recipe import Recipe

NEARBY = (4.0, 0.25)  # learning rates tried around the best of the first wave
MOST_REMEDIES = 9  # of overfitting, the longest list
NARROW = 16  # units of a hidden layer, under which four times as many are tried at once
TOO_DEEP = "too_deep"  # no finding of its own: a move of trials


@dataclass(frozen=True)
class Move:
    """One remedy: of which code, which of its remedies, and the edits that it makes of the
    untouched recipe."""

    code: str
    place: int = 0
    factor: float | None = None
    edits: tuple[tuple[str, Any], ...] = field(default=(), compare=False)
    why: str = field(default="", compare=False)
    tried: bool = field(
        default=False, compare=False
    )  # whether an experiment has shown that it helps

    @property
    def longer(self) -> bool:
        """Whether it makes the plan longer: such moves cost as much more, and stand alone."""
        first = (self.code, self.place) == (TooFewEpochs.code, 0)
        return first or any(path == "stop.after" for path, _ in self.edits)

    def of(self, case: Case) -> tuple[Edits, str] | None:
        """The edits for a program that may differ from the untouched one; None where the remedy
        does not apply."""
        if self.code == TOO_DEEP:
            return next(fewer_layers(case), None)
        found = remedies(self.code, case, self.factor)[self.place : self.place + 1]
        return (found[0]["edits"], found[0]["why"]) if found else None


@dataclass
class Candidate:
    """A recipe that may cure, by the moves that lead to it; without moves, the untouched recipe."""

    moves: tuple[Move, ...]
    edits: Edits
    why: str
    recipe: Recipe
    parts: tuple[tuple[Move, str], ...] = ()  # the moves that count, each in words
    scores: list[float] = field(default_factory=list)  # of the samples that choose, at each rung
    metrics: list[list[float]] = field(default_factory=list)  # the metric of each seed there


def untouched(case: Case) -> Candidate:
    return Candidate((), {}, "the untouched recipe", case.recipe)


def candidates(
    case: Case, findings: Sequence[Finding], most: int, *, few: bool = False
) -> list[Candidate]:
    """The first ``most`` different recipes that are proposed; where they are ``few``, compounds
    first."""
    found: dict[str, Candidate] = {}
    for moves in _few(case, findings) if few else _proposals(case, findings):
        made = made_of(case, moves)
        if made is not None and made.recipe.hash != case.recipe.hash:
            found.setdefault(made.recipe.hash, made)
        if len(found) >= most:
            break
    return list(found.values())


def nearby(
    case: Case, best: Candidate, others: Sequence[Candidate], most: int, known: set[str]
) -> list[Candidate]:
    """What the first wave suggests: the best with a higher and a lower lr, with more units, and
    compounded with the runners-up."""
    seen = set(known)
    proposals = [(*best.moves, Move((LrTooLow if f > 1 else LrTooHigh).code, 0, f)) for f in NEARBY]
    proposals.append((*best.moves, Move(CapacityTooSmall.code)))
    proposals += [
        (*best.moves, *[m for m in other.moves if m not in best.moves and not m.longer])
        for other in others
    ]
    found: list[Candidate] = []
    for moves in proposals:
        made = made_of(case, moves)
        if made is not None and made.recipe.hash not in seen and len(found) < most:
            seen.add(made.recipe.hash)
            found.append(made)
    return found


def made_of(case: Case, moves: Sequence[Move]) -> Candidate | None:
    """The recipe after some moves, each made for what those before it leave."""
    edits: Edits = {}
    why: list[tuple[Move, Edits, str]] = []
    here = case
    for move in moves:
        own = dict(move.edits)
        free = own and not any(_meet(a, b) for a in own for b in edits)
        made = (own, move.why) if free else move.of(here)
        if made is None:
            # the moves before have done it already, or it does not apply to what they leave
            continue
        kept = {k: v for k, v in edits.items() if not any(_within(k, new) for new in made[0])}
        edits = kept | made[0]
        counting = [one for one in why if not _overruled(one[1], made[0])]
        if len(counting) < len(why) and set(made[0]) == {"optimizer.lr"}:
            # its factor is of a rate that counts no more
            made = made[0], f"lr {made[0]['optimizer.lr']:g}"
        why = [*counting, (move, *made)]
        try:
            here = replace(case, recipe=case.recipe.edit(edits))
        except InputError:
            return None
    if not edits:
        return None
    parts = tuple((move, words) for move, _, words in why)
    return Candidate(
        tuple(moves), edits, "; ".join(words for _, words in parts), here.recipe, parts
    )


def _overruled(old: Edits, new: Edits) -> bool:
    """Whether a learning rate or an optimiser was chosen that counts no more; other edits build on
    those before them."""
    return all(
        path.startswith("optimizer") and any(_within(path, outer) for outer in new) for path in old
    )


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(outer + ".")


def _meet(one: str, other: str) -> bool:
    return _within(one, other) or _within(other, one)


def _few(case: Case, findings: Sequence[Finding]) -> Iterator[tuple[Move, ...]]:
    """What a small budget tries: all that was found at once, remedies that an experiment has shown
    to help first; a sound recipe; the first two findings."""
    listed = [
        sorted(moves, key=lambda move: not move.tried) for moves in _listed(findings) if moves
    ]
    compounded = _compounded(listed)
    if any(moves[0].code == Overfitting.code for moves in listed):
        yield from ((Move(Overfitting.code, i),) for i in range(MOST_REMEDIES))
    yield tuple(compounded)
    starved = any(Kind.STARVED in declaration(moves[0].code).kinds for moves in listed)
    narrow = [Move(CapacityTooSmall.code)] if _is_narrow(case) else []
    yield (*([Move(TOO_DEEP)] if starved else []), *_sound(case, activation=True), *narrow)
    yield (*_sound(case, activation=False), *narrow)
    yield tuple(compounded[:2])
    yield tuple(compounded[:1])


def _is_narrow(case: Case) -> bool:
    """Whether a hidden layer has so few units that some seeds lose all of them."""
    layers = layers_of(case.recipe) or []
    weighted = [layer for layer in layers if layer["kind"] in WEIGHTED]
    return any(
        layer.get("units", layer.get("channels", NARROW)) < NARROW for layer in weighted[:-1]
    )


def _listed(findings: Sequence[Finding]) -> list[list[Move]]:
    """The remedies of the first findings that have any."""
    return [
        [_move(finding, i) for i in range(len(finding.remedies))]
        for finding in findings[:4]
        if finding.remedies
    ]


def _proposals(case: Case, findings: Sequence[Finding]) -> Iterator[tuple[Move, ...]]:
    listed = _listed(findings)
    firsts = [moves[0] for moves in listed]
    codes = [moves[0].code for moves in listed]
    compounded = _compounded(listed)
    if len(compounded) > 1:
        yield tuple(compounded[:2])
    yield from ((first,) for first in firsts)
    if Overfitting.code in codes:
        yield from ((Move(Overfitting.code, i),) for i in range(MOST_REMEDIES))
    if len(compounded) > 2:
        yield tuple(compounded)
    if any(Kind.STARVED in declaration(code).kinds for code in codes):
        yield (Move(TOO_DEEP), *_sound(case, activation=True))
    yield _sound(case, activation=True)
    yield _sound(case, activation=False)
    yield (Move(TooFewEpochs.code),)
    yield from ((moves[1],) for moves in listed[:2] if len(moves) > 1)
    yield from _general(compounded, codes)


def _compounded(listed: Sequence[Sequence[Move]]) -> list[Move]:
    """Of each finding the first remedy that is not just a longer plan; where another has it
    already, the next of another kind."""
    chosen: list[Move] = []
    for moves in listed:
        shorter = [move for move in moves if not move.longer]
        if shorter and any(shorter[0].edits == other.edits for other in chosen):
            taken = {path for path, _ in shorter[0].edits}
            shorter = [move for move in shorter if {path for path, _ in move.edits} != taken]
        chosen += shorter[:1]
    return chosen


def _general(firsts: Sequence[Move], codes: Sequence[str]) -> Iterator[tuple[Move, ...]]:
    """What helps most often, after the first finding's remedy and alone; where nothing was found,
    against overfitting too."""
    others = [code for code in _in_order("generic") if code not in codes]
    if firsts:
        yield from ((firsts[0], Move(code)) for code in others)
        yield from ((Move(code),) for code in others)
        return
    for code, i in zip(others, range(MOST_REMEDIES), strict=False):
        yield (Move(code),)
        yield (Move(Overfitting.code, i),)
    yield from ((Move(Overfitting.code, i),) for i in range(MOST_REMEDIES))


def _move(finding: Finding, place: int) -> Move:
    remedy = finding.remedies[place]
    return Move(
        finding.code, place, None, tuple(remedy["edits"].items()), remedy["why"], "tried" in remedy
    )


def _sound(case: Case, *, activation: bool) -> tuple[Move, ...]:
    """All that is usually right at once: scaled data, the task's own loss on scores, Adam; ReLU
    with He's weights, or as it was."""
    optimizers = OptimizerUnsuited.remedies_for(case)
    left = {
        TargetsUnscaled.code: case.task != "regression",
        NoHiddenNonlinearity.code: not activation,
        OptimizerUnsuited.code: case.recipe.optimizer.kind == "adam"
        and "optimizer.lr" not in optimizers[0]["edits"],
    }
    return tuple(Move(code) for code in _in_order("sound") if not left.get(code))


def _in_order(attribute: str) -> list[str]:
    """The codes that have a place among the generic remedies, or in a sound recipe, by place."""
    placed = [kind for kind in declarations() if getattr(kind, attribute)]
    return [kind.code for kind in sorted(placed, key=lambda kind: getattr(kind, attribute))]
