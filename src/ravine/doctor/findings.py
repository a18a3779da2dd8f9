"""What the doctor says: findings by a closed list of codes, ranked with causes above their
consequences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ravine.errors import unknown

DOCS = "docs/doctor.md"

# code -> (why, in one line; what it leads to; the codes that are usually its consequences). Causes
# first: the order ranks.
CODES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "labels_invalid": (
        "The labels do not say what the loss reads in them.",
        "the loss teaches something else than the task",
        ("stuck", "underfitting"),
    ),
    "wrong_output_units": (
        "The number of outputs does not fit the number of classes or targets.",
        "some answers can never be given",
        ("stuck", "underfitting", "vanishing_gradient"),
    ),
    "loss_output_mismatch": (
        "The loss and the output layer do not belong together.",
        "the gradient points elsewhere or is zero",
        ("vanishing_gradient", "stuck", "underfitting", "dead_units", "saturated_units"),
    ),
    "output_range": (
        "The output layer cannot reach the targets.",
        "the loss stays high however long it trains",
        ("saturated_units", "dead_units", "stuck", "underfitting", "targets_unscaled"),
    ),
    "inputs_unscaled": (
        "Inputs of large or very unequal scale make the loss a narrow ravine and drive units into saturation.",
        "steps that fit one direction are far too long or too short in the others",
        (
            "saturated_units",
            "dead_units",
            "exploding_gradient",
            "non_finite",
            "stuck",
            "oscillating",
            "underfitting",
            "init_scale",
        ),
    ),
    "targets_unscaled": (
        "Targets of large scale give large gradients, and outputs need many steps to get there.",
        "training crawls or explodes",
        ("exploding_gradient", "stuck", "underfitting", "non_finite", "lr_too_low"),
    ),
    "symmetric_init": (
        "Units that start alike get the same gradient and stay alike.",
        "a layer of many units works as one",
        ("stuck", "underfitting", "capacity_too_small", "vanishing_gradient"),
    ),
    "no_signal": (
        "The inputs do not say anything about the targets, or there is nothing to tell apart.",
        "no training can beat the constant answer",
        ("stuck", "underfitting"),
    ),
    "class_imbalance": (
        "A few classes hold nearly all samples.",
        "the rare classes are ignored",
        (),
    ),
    "lr_too_high": (
        "The steps are longer than the loss is smooth.",
        "the loss jumps or rises",
        (
            "non_finite",
            "exploding_gradient",
            "oscillating",
            "dead_units",
            "saturated_units",
            "stuck",
            "underfitting",
        ),
    ),
    "lr_too_low": (
        "The steps are so short that the training ends before it gets anywhere.",
        "the loss falls smoothly, but too slowly",
        ("underfitting", "too_few_epochs", "stuck", "vanishing_gradient"),
    ),
    "init_scale": (
        "The weights start so large or so small that signals grow or die from layer to layer.",
        "the first steps are lost or the units saturate",
        ("vanishing_gradient", "exploding_gradient", "saturated_units", "dead_units", "stuck"),
    ),
    "no_hidden_nonlinearity": (
        "Linear layers one behind the other are one linear layer.",
        "the network can only draw straight lines",
        ("underfitting", "capacity_too_small"),
    ),
    "dead_units": (
        "ReLU units that give zero for every sample have no gradient and do not come back.",
        "the layer loses its capacity, in the worst case all of it",
        ("vanishing_gradient", "stuck", "underfitting"),
    ),
    "saturated_units": (
        "Sigmoid or tanh units at the flat ends of their curve pass almost no gradient.",
        "the layers before them learn slowly or not at all",
        ("vanishing_gradient", "stuck", "underfitting"),
    ),
    "vanishing_gradient": (
        "The gradient shrinks from layer to layer on its way back.",
        "the first layers do not learn",
        ("stuck", "underfitting"),
    ),
    "exploding_gradient": (
        "The gradient grows from layer to layer or from step to step.",
        "single steps destroy what was learned",
        ("non_finite", "oscillating", "stuck"),
    ),
    "optimizer_unsuited": (
        "Another optimiser gets much further in the same number of steps.",
        "slow or unstable progress",
        ("stuck", "underfitting"),
    ),
    "over_regularised": (
        "The penalties and dropout outweigh the data.",
        "the weights are held near zero",
        ("underfitting", "stuck"),
    ),
    "augmentation_destructive": (
        "The augmentation takes away what tells the classes apart.",
        "training data do not look like validation data",
        ("underfitting",),
    ),
    "not_shuffled": (
        "The samples come in the order of their classes.",
        "each step forgets the last",
        ("oscillating", "stuck", "underfitting"),
    ),
    "batch_too_large": (
        "So large a batch leaves only few steps.",
        "the training ends early in its descent",
        ("too_few_epochs", "underfitting"),
    ),
    "batch_too_small": (
        "So small a batch gives gradients that are mostly noise.",
        "the loss jitters and does not settle",
        ("oscillating",),
    ),
    "too_few_epochs": (
        "The loss is still falling fast when the training ends.",
        "what the network could learn is not learned",
        ("underfitting",),
    ),
    "capacity_too_small": (
        "The network is too small for the task.",
        "training and validation loss both stay high",
        ("underfitting",),
    ),
    "overfitting": (
        "The network learns the training samples by heart.",
        "validation gets worse while training gets better",
        (),
    ),
    "split_mismatch": (
        "Training and validation data differ in their statistics.",
        "validation does not measure what is trained",
        (),
    ),
    "validation_leak": (
        "Samples of the training part stand in the validation part too.",
        "validation looks better than it is",
        (),
    ),
    "non_finite": ("A loss or a gradient is not a number.", "the member is lost", ()),
    "oscillating": ("The loss swings up and down without settling.", "no lasting progress", ()),
    "stuck": ("The loss stays where the constant predictor is.", "nothing is learned", ()),
    "underfitting": (
        "The training loss is still high at the end.",
        "the network has not learned what the data hold",
        (),
    ),
}
_RANK = {code: i for i, code in enumerate(CODES)}
_SIGNS = (
    "exploding_gradient",
    "non_finite",
)  # sure as they may be: never above a cause that is borne out
_RATES = ("lr_too_low", "lr_too_high")
_OPPOSITES = (
    ("lr_too_low", "lr_too_high"),
    ("batch_too_small", "batch_too_large"),
)  # the surer one stands


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its code, where, evidence in numbers, why it matters, and remedies
    as recipe edits."""

    code: str
    where: str
    evidence: str
    remedies: tuple[dict[str, Any], ...] = ()
    cause: str = ""
    consequences: tuple[str, ...] = ()
    strength: float = (
        1.0  # how sure: 1 a contradiction in itself or shown by experiment; under 0.5 a suspicion
    )
    docs: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise unknown("finding", self.code, CODES)
        why, leads_to, _ = CODES[self.code]
        object.__setattr__(self, "cause", self.cause or why)
        object.__setattr__(self, "consequences", self.consequences or (leads_to,))
        object.__setattr__(self, "docs", self.docs or f"{DOCS}#{self.code}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: code, where, evidence, cause, consequences, remedies, strength, docs."""
        return asdict(self)

    @property
    def text(self) -> str:
        """One line for a terminal."""
        return f"{self.code} ({self.where}): {self.evidence}"


@dataclass
class Diagnosis:
    """The verdict: ``healthy``, ``sick`` or ``uncertain`` (too little seen), with ranked
    findings."""

    verdict: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)  # suspicions that the run does not bear out
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    measured: dict[str, Any] = field(default_factory=dict)
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What ``ravine doctor --json`` prints."""
        return {
            "verdict": self.verdict,
            "why": self.why,
            "findings": told(self.findings),
            "notes": [f.to_dict() for f in self.notes],
            "seconds": self.seconds,
            "measured": self.measured,
        }

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]

    @property
    def leads(self) -> list[Finding]:
        """What a proof follows: the findings, or where too little was seen for any, what looks
        odd."""
        return self.findings or (self.notes if self.verdict == "uncertain" else [])


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Strongest first, causes above their consequences; one finding a code; a consequence is named
    under its cause.

    >>> [f.code for f in ranked([Finding("stuck", "loss", "…"), Finding("lr_too_low", "optimizer.lr", "…")])]
    ['lr_too_low', 'stuck']
    """
    best: dict[str, Finding] = {}
    for finding in findings:
        held = best.get(finding.code)
        if held is None or finding.strength > held.strength:
            best[finding.code] = finding
    for one, other in _OPPOSITES:
        if one in best and other in best:
            del best[one if best[one].strength < best[other].strength else other]
    tiers = {code: _tier(finding.strength) for code, finding in best.items()}
    for sign in [code for code in _SIGNS if code in best]:
        causes = [tiers[code] for code in best if sign in CODES[code][2]]
        if max(causes, default=0) > 0:
            tiers[sign] = min(tiers[sign], max(causes))
    order = sorted(best.values(), key=lambda f: (-tiers[f.code], _RANK[f.code]))
    return [_with_consequences(f, order[i + 1 :]) for i, f in enumerate(order)]


def told(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Ranked findings as plain data; under a finding about the learning rate no other one advises
    another rate.

    >>> lr = {"edits": {"optimizer.lr": 1.0}, "why": "lr 1, × 10"}
    >>> [len(f["remedies"]) for f in told([Finding("lr_too_low", "lr", "1", (lr,)), Finding("stuck", "loss", "2", (lr,))])]
    [1, 0]
    """
    made, rated = [], False
    for finding in findings:
        data = finding.to_dict()
        if rated:
            data["remedies"] = [
                remedy for remedy in finding.remedies if set(remedy["edits"]) != {"optimizer.lr"}
            ]
        made.append(data)
        rated = rated or finding.code in _RATES
    return made


def _tier(strength: float) -> int:
    return 2 if strength >= 0.9 else 1 if strength >= 0.5 else 0


def _with_consequences(finding: Finding, others: list[Finding]) -> Finding:
    leads_to = CODES[finding.code][2]
    follow = tuple(f"{f.code}: {f.evidence}" for f in others if f.code in leads_to)
    if not follow:
        return finding
    values = {**finding.__dict__, "consequences": (*finding.consequences, *follow)}
    return Finding(**values)
