"""A finding, one thing that is wrong with a program, and a diagnosis, the verdict on it: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

DOCS = "docs/doctor.md"
# the curves that show findings: of a part's loss by epoch, of every step, of each layer's gradient
Picture = Literal["loss", "step_loss", "gradient_norm"]
SUSPECTED, SHOWN = 0.5, 0.9  # strengths: below the first a suspicion; from the second on shown


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its code, where, what was measured, why it matters, and remedies.

    ``remedies`` are tables ``{"edits": {recipe path: value}, "why": sentence}``, the most direct
    first. One that an experiment has shown to help has ``"tried"``, what it reached; one that is
    right whatever an experiment shows has ``"certain"``. ``strength`` says how sure the finding is:
    from 0.9 on it is a contradiction in the program itself, or an experiment has shown it; under
    0.5 it is a suspicion. ``seen_by`` and ``what_to_do`` are what is known of the code in general,
    ``shown_by`` the curve beside which a report puts it.
    """

    code: str
    where: str
    evidence: str
    remedies: tuple[dict[str, Any], ...] = ()
    title: str = ""
    cause: str = ""
    consequences: tuple[str, ...] = ()
    strength: float = 1.0
    seen_by: str = ""
    what_to_do: str = ""
    shown_by: Picture = "loss"

    @property
    def advised(self) -> list[dict[str, Any]]:
        """The remedies that people are shown: tried ones that helped, then those that are certain."""
        certain = [remedy for remedy in self.remedies if "certain" in remedy]
        return [remedy for remedy in self.remedies if "tried" in remedy] + [
            remedy for remedy in certain if "tried" not in remedy
        ]

    @property
    def docs(self) -> str:
        """Where the finding is described."""
        return f"{DOCS}#{self.code}"

    @property
    def text(self) -> str:
        """One line for a terminal."""
        return f"{self.code} ({self.where}): {self.evidence}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the fields and ``docs``."""
        return {**asdict(self), "docs": self.docs}


@dataclass
class Diagnosis:
    """The verdict, ``healthy``, ``sick`` or ``uncertain`` (too little was seen), with findings.

    ``findings`` are ranked, causes above their consequences; ``notes`` are suspicions that the run
    does not confirm; ``seconds`` is the time by stage.
    """

    verdict: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]

    @property
    def leads(self) -> list[Finding]:
        """What a proof follows: the findings, or the notes where too little was seen for any."""
        return self.findings or (self.notes if self.verdict == "uncertain" else [])
