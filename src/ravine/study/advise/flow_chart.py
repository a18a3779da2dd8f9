"""The flow chart of bias and variance: from errors to what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ravine.doctor.declaration import Kind
from ravine.doctor.table import declaration

FINDINGS = 3  # of the doctor's, that are listed
HOLD_BACK = {Kind.RATE, Kind.PLAN, Kind.LIMIT}  # findings that keep the training error high


@dataclass(frozen=True)
class Errors:
    """Errors on the parts of the data, in one unit: 1 - accuracy, or the root mean square error."""

    unit: str
    train: float
    validation: float
    test: float | None = None
    train_dev: float | None = None
    optimal: float | None = None  # human or target level: an estimate of the irreducible error
    reachable: float | None = None  # the best training error that any run of the same model had
    falling: float | None = (
        None  # how much the training loss still fell in the last fifth of the run, as a part of it
    )
    past_best: Mapping[str, float] | None = None  # what came after the epoch whose weights are kept

    @property
    def level(self) -> float:
        """The irreducible error, 0 where it is not known."""
        return self.optimal or 0.0

    @property
    def held_out(self) -> float:
        """The error on held-out data that are drawn like the training data."""
        return self.validation if self.train_dev is None else self.train_dev

    @property
    def bias(self) -> float:
        """Training error over the level."""
        return self.train - self.level

    @property
    def variance(self) -> float:
        """Held-out error over training error; over the level where the training error lies below it.

        A network that knows its training samples by heart has errors there that no network has on
        new samples: what lies below the level is no part of what more data can take away.
        """
        return self.held_out - max(self.train, self.level)


def parts_of(errors: Errors) -> list[dict[str, Any]]:
    """Error decomposition, with the evidence for each term."""
    low, known = errors.level, errors.train if errors.reachable is None else errors.reachable
    best, train = max(known, low), max(errors.train, low)
    unknown = "not known: give --human or --target"
    evidence = unknown if errors.optimal is None else "the level given"
    rows = [_part("irreducible", errors.optimal, evidence)]
    if errors.reachable is not None:
        rows.append(
            _part(
                "approximation",
                best - low,
                f"best training error of this model {known:.4g} over the level",
            )
        )
        rows.append(
            _part(
                "optimisation",
                train - best,
                f"training error {errors.train:.4g} over the best of this model",
            )
        )
    else:
        rows.append(
            _part(
                "approximation + optimisation",
                train - low,
                f"training error {errors.train:.4g} over the level",
            )
        )
    over = "training error" if errors.train >= low else "the level, which training error is below"
    rows.append(
        _part(
            "estimation",
            errors.variance,
            f"error {errors.held_out:.4g} on held-out data over {over}",
        )
    )
    if errors.train_dev is not None:
        rows.append(
            _part(
                "data mismatch",
                errors.validation - errors.train_dev,
                "validation over held-out training data",
            )
        )
    if errors.test is not None:
        rows.append(
            _part(
                "choice on validation data",
                errors.test - errors.validation,
                f"test error {errors.test:.4g} over validation",
            )
        )
    return rows


def _part(name: str, size: float | None, why: str) -> dict[str, Any]:
    return {"part": name, "size": size, "rests on": why}


def next_steps(
    errors: Errors,
    noise: float,
    findings: Sequence[Mapping[str, Any]] = (),
    by_chance: str = "chance",
) -> list[dict[str, str]]:
    """The flow chart of bias and variance: what to do about every gap, from the training error on;
    gaps under ``noise`` are no gaps: they are within ``by_chance``. ``share``: of bias and variance together.

    What the doctor has found comes first, and is what to do against bias or variance where it is
    their cause.
    """
    bias, variance = errors.bias, errors.variance
    mismatch = errors.validation - errors.train_dev if errors.train_dev is not None else 0.0
    chosen = errors.test - errors.validation if errors.test is not None else 0.0
    total = max(bias, 0.0) + max(variance, 0.0)
    steps = [_step_of(finding) for finding in findings[:FINDINGS]]
    codes = [finding["code"] for finding in findings]
    if bias > noise:
        problem = f"high bias: the training error is {_size(errors, bias)}{_above(errors)}"
        steps.append(
            {"problem": problem, "share": _share(bias, total), "do": _against_bias(errors, codes)}
        )
    if variance > noise:
        steps.append(
            {
                "problem": f"high variance: the error on held-out data is {_size(errors, variance)} {_over(errors)}",
                "share": _share(variance, total),
                "do": "more data or augmentation; weight decay, dropout, early stopping; an ensemble; a smaller network last",
            }
        )
    if mismatch > noise:
        steps.append(
            {
                "problem": f"data mismatch: validation error is {_size(errors, mismatch)} above held-out training error",
                "do": "make the training data more like the validation data: collect, or synthesise what the mistakes show",
            }
        )
    if chosen > 2 * noise:
        steps.append(
            {
                "problem": f"chosen on validation data: the test error is {_size(errors, chosen)} higher",
                "do": "a larger or a fresh validation part",
            }
        )
    if not steps:
        steps.append(
            {
                "problem": f"no gap is larger than {by_chance}",
                "do": "read the mistakes one by one; the remaining error may be wrong labels",
            }
        )
    return steps


def _step_of(finding: Mapping[str, Any]) -> dict[str, str]:
    """What a finding of the doctor's asks for: the remedy that was tried, or what usually helps."""
    tried = [remedy["why"] for remedy in finding["remedies"]]
    problem = f"{finding['title'].rstrip('.')} ({finding['code']}: {finding['evidence']})"
    usual = declaration(finding["code"]).what_to_do
    return {"problem": problem, "do": tried[0] if tried else usual.rstrip(".").replace("`", "")}


def _share(gap: float, total: float) -> str:
    return f"{100 * gap / total:.0f} %"


def _over(errors: Errors) -> str:
    """What variance is counted from, in words."""
    return "higher than on training data" if errors.bias >= 0 else "above what is possible"


def _above(errors: Errors) -> str:
    """What bias is counted from, in words."""
    if errors.optimal is not None:
        return " above what is possible"
    return ", and what is possible is not known (--human, --target)"


def _size(errors: Errors, gap: float) -> str:
    return f"{100 * gap:.1f} points" if errors.unit == "error" else f"{gap:.4g}"


def _against_bias(errors: Errors, codes: Sequence[str] = ()) -> str:
    causes = [code for code in codes if declaration(code).kinds & HOLD_BACK]
    if causes:
        return f"first what holds training back: {', '.join(causes)}"
    past = errors.past_best
    if past is not None:
        return (
            f"not longer, and not a larger network: after epoch {past['epoch']:g} of {past['of']:g}, whose weights "
            f"are kept, the training loss fell by {100 * past['fell']:.0f} % and the validation loss rose by "
            f"{100 * past['rose']:.0f} %; more data or augmentation, or regularisation, so that more of it holds"
        )
    if errors.reachable is not None and errors.train - errors.reachable > 0.5 * (errors.bias):
        return "optimise better: this model reached less in another run; tune the rate (ravine lr), another optimiser, longer"
    if errors.falling is not None and errors.falling > 0.05:
        return f"train longer: the training loss still fell by {100 * errors.falling:.0f} % in the last fifth of the run"
    return "a larger network or another architecture; less regularisation; better optimisation (ravine lr)"
