"""What a finding is: everything that Ravine knows of one code, declared in one class.

The contract. A declaration is a subclass of ``Declaration`` in a file of ``findings/`` (one file a
family); it is never instantiated. Its attributes are the code, the texts, the rank and the kinds;
its class methods look for the fault and propose remedies. Deriving the class registers it: the
examination, the verdict, ``ravine.watch``, the trial of cures and ``docs/doctor.md`` read it from
there, and no other file names the code in a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from ravine.doctor.edits import Case, Remedies
from ravine.doctor.finding import SHOWN, Finding, Picture
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.untrained import Untrained

HINT = 0.2  # strength of what only an experiment can judge


class Kind(StrEnum):
    """How verdicts and trials treat a finding. A finding may be of several kinds."""

    DATA = "data"  # of the data alone: it does not explain how training goes
    RATE = "rate"  # of the learning rate: below it no other finding advises another rate
    PLAN = "plan"  # of the number of steps
    LIMIT = "limit"  # a program with it may learn, but not far
    LEARNING = "learning"  # if an experiment shows it, it counts although the program learns
    SLOWS = "slows"  # a suspicion of it counts where a plan ends while the loss still falls
    SIGN = "sign"  # only ever a consequence: ranked below a cause that is confirmed
    LOSS_ALONE = "loss alone"  # read from the loss alone: no alarm where no baseline is known
    START = "start"  # of the network as it starts and its inputs: whatever the loss is
    SHARES = "shares"  # of how often classes occur: training goes well all the same
    STARVED = "starved"  # little gradient reaches the first layers: a shallower network is tried


@dataclass(frozen=True)
class Evidence:
    """What a check has seen: where, a sentence with numbers, and how sure that makes the finding.

    ``factor`` is handed to the remedies: the multiple of the learning rate that helped.
    ``remedies`` takes their place where a check knows better (loops without a recipe).
    """

    where: str
    text: str
    strength: float
    factor: float | None = None
    remedies: tuple[dict[str, Any], ...] | None = None


class Declaration:
    """Everything that is known of one code; see the module's text for the contract."""

    registered: ClassVar[dict[str, type[Declaration]]] = {}

    code: ClassVar[str]
    rank: ClassVar[int]  # causes have smaller numbers than their consequences
    title: ClassVar[str]  # one short sentence
    cause: ClassVar[str]  # why it matters: the mechanism, one sentence
    leads_to: ClassVar[str]  # what it does to training, one sentence
    consequences: ClassVar[tuple[str, ...]] = ()  # codes that usually follow from it
    seen_by: ClassVar[str]  # how it is found, for the documentation
    what_to_do: ClassVar[str]  # for the documentation
    shown_by: ClassVar[Picture] = "loss"  # the curve that a report puts beside it
    kinds: ClassVar[frozenset[Kind]] = frozenset()
    opposite: ClassVar[str] = ""  # a code that contradicts it: only the surer of the two is kept
    # place among the remedies that are tried where no finding says what to try; 0: not among them
    generic: ClassVar[int] = 0
    sound: ClassVar[int] = 0  # place among the edits of a recipe that is usually right; 0: none
    certain: ClassVar[bool] = False  # of a sure finding the first remedy is right, tried or not
    tried_later: ClassVar[bool] = (
        False  # `ravine doctor RUN` tries remedies, `train` does not: they take long
    )
    surer_by: ClassVar[float] = 0.3  # what its strength gains where the course confirms it

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Declaration.registered[cls.code] = cls

    # --- checks: each yields evidence, none by default ------------------------------------------

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        """Look at a program before its first step."""
        yield from ()

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        """Look at the course of training. Counts only where the program does not plainly learn."""
        yield from ()

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        """Look at the program again, given how its training went."""
        yield from ()

    @classmethod
    def while_learning(cls, course: Course) -> Iterator[Evidence]:
        """Look at the course of a program that plainly learns."""
        yield from ()

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        """Edits that may cure it, the most direct first, each with a sentence."""
        yield from ()

    # --- what others ask ------------------------------------------------------------------------

    @classmethod
    def remedies_for(cls, case: Case, factor: float | None = None) -> tuple[dict[str, Any], ...]:
        """The remedies as tables; those that the recipe refuses or that change nothing are left
        out."""
        found, seen = [], {case.recipe.hash}
        for edits, why in cls.remedies(case, factor):
            try:
                edited = case.recipe.edit(edits)
            except ValueError:
                continue
            if edited.hash not in seen:
                found.append({"edits": edits, "why": why})
                seen.add(edited.hash)
        return tuple(found)

    @classmethod
    def finding(cls, seen: Evidence, case: Case | None) -> Finding:
        """The finding that some evidence makes, with remedies for this program."""
        remedies = seen.remedies
        if remedies is None:
            remedies = () if case is None else cls.remedies_for(case, seen.factor)
            if cls.certain and seen.strength >= SHOWN and remedies:
                remedies = ({**remedies[0], "certain": True}, *remedies[1:])
        return Finding(
            cls.code,
            seen.where,
            seen.text,
            remedies,
            cls.title,
            cls.cause,
            (cls.leads_to,),
            seen.strength,
            cls.seen_by,
            cls.what_to_do,
            cls.shown_by,
        )
