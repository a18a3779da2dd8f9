"""The doctor on published programs: every case of a file as a recipe, its verdict beside the human
label and other tools'.

    python bench/doctor.py [--cases FILE] [--prove [--budget RUNS] [--minutes M] [--log FILE]]
    [--seeds N] [--json] [--only ID …]

Each case is examined as ``ravine doctor RECIPE`` does it. Where that says too little and the whole
plan is affordable, the plan is run in memory and judged as ``ravine doctor RUN`` judges a finished
run. ``--prove`` searches and verifies a cure for each fault. ``--log`` keeps every finished row as
a JSON line: an interrupted bench goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from human_fixes import FIXES
from keras_cases import Case, load
from published_data import data_folder

DEFAULT = data_folder().parent / "doctor" / "cases.json"
AFFORDABLE = 60.0  # seconds of a whole plan

# What people called a fault -> the codes that say the same; a label is matched by the first pattern
# that is found in it.
LABELS: list[tuple[str, tuple[str, ...]]] = [
    (
        r"wrong_output_activation|output_activation|wrong_activation.*output|last_layer",
        ("loss_output_mismatch", "output_range", "wrong_output_units"),
    ),
    (r"dying_relu_output", ("output_range", "dead_units", "loss_output_mismatch")),
    (
        r"units|output_dim|number_of_outputs|number_of_classes",
        ("wrong_output_units", "capacity_too_small", "loss_output_mismatch"),
    ),
    (
        r"wrong_loss|loss_function|^loss",
        ("loss_output_mismatch", "labels_invalid", "wrong_output_units", "output_range"),
    ),
    (r"unnormali[sz]ed_target|target_scal", ("targets_unscaled", "output_range")),
    (
        r"unnormali[sz]ed|normali[sz]ation|preprocess|input_scal|missing_batchnorm|batch_?norm",
        ("inputs_unscaled", "targets_unscaled", "init_scale"),
    ),
    (
        r"lr_too_low|low_learning|low_lr|slow_conver",
        ("lr_too_low", "too_few_epochs", "optimizer_unsuited"),
    ),
    (
        r"lr_too_high|high_learning|high_lr",
        ("lr_too_high", "oscillating", "exploding_gradient", "non_finite"),
    ),
    (r"^lr|learning_rate", ("lr_too_low", "lr_too_high")),
    (r"epoch", ("too_few_epochs", "lr_too_low", "underfitting")),
    (r"batch_too_large|large_batch", ("batch_too_large", "too_few_epochs", "lr_too_low")),
    (r"batch_too_small|small_batch", ("batch_too_small", "oscillating")),
    (r"batch", ("batch_too_large", "batch_too_small")),
    (
        r"underfit|not_learning|no_convergence|unstable_conver",
        ("underfitting", "stuck", "lr_too_low", "too_few_epochs", "capacity_too_small"),
    ),
    (r"overfit", ("overfitting",)),
    (r"optimi[sz]er", ("optimizer_unsuited", "lr_too_low", "lr_too_high")),
    (
        r"zero_gradient|vanish",
        ("vanishing_gradient", "saturated_units", "stuck", "loss_output_mismatch"),
    ),
    (
        r"explod",
        ("exploding_gradient", "non_finite", "lr_too_high", "init_scale", "inputs_unscaled"),
    ),
    (r"dying_relu|dead", ("dead_units", "lr_too_high")),
    (r"saturat", ("saturated_units", "inputs_unscaled", "vanishing_gradient")),
    (r"oscillat", ("oscillating", "lr_too_high")),
    (r"symmetr|constant_init|zero_init|zeros", ("symmetric_init", "init_scale", "dead_units")),
    (r"init", ("init_scale", "symmetric_init", "vanishing_gradient")),
    (r"narrow|capacity|neurons|layer_number|missing_layer", ("capacity_too_small", "underfitting")),
    (
        r"activation|nonlinear|linear",
        (
            "no_hidden_nonlinearity",
            "vanishing_gradient",
            "saturated_units",
            "dead_units",
            "loss_output_mismatch",
        ),
    ),
    (r"regulari|dropout|weight_decay", ("over_regularised", "overfitting", "underfitting")),
    (r"augment", ("augmentation_destructive",)),
    (r"leak", ("validation_leak",)),
    (r"split|distribution|overlap", ("split_mismatch", "labels_invalid")),
    (r"imbalanc", ("class_imbalance",)),
    (r"shuffl", ("not_shuffled",)),
    (r"label|target", ("labels_invalid", "no_signal", "split_mismatch")),
    (r"nan|non_finite|inf", ("non_finite", "exploding_gradient", "lr_too_high")),
]


def codes_of(label: str) -> tuple[str, ...]:
    """Ravine's codes for a published label.

    >>> codes_of("wrong_output_activation(softmax_1unit)")[0]
    'loss_output_mismatch'
    """
    return next((codes for pattern, codes in LABELS if re.search(pattern, label.lower())), ())


@dataclass
class Row:
    """One case and one seed."""

    id: str
    seed: int
    control: bool
    labels: list[str]
    verdict: str
    codes: list[str]
    seconds: float
    static_seconds: float
    named: bool  # a human-labelled cause stands first or second
    why: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    proof: dict[str, Any] | None = None
    tools: str = ""


def examine_case(case: Case, seed: int) -> Row:
    """The verdict on a case: examined, and followed to the plan's end where the examination says
    too little."""
    from ravine.doctor.examination import examine, follow, plan_seconds

    began = time.monotonic()
    recipe = case.recipe.edit({"seed": 1000 * seed})
    diagnosis = examine(recipe, arrays=case.arrays)
    stages = dict(diagnosis.seconds)
    if diagnosis.verdict == "uncertain" and plan_seconds(recipe, arrays=case.arrays) <= AFFORDABLE:
        diagnosis = follow(recipe, arrays=case.arrays, seconds=AFFORDABLE)
        stages["whole plan"] = diagnosis.seconds["all"]
    wanted = {
        code for label in case.facts.get("fault_labels", []) for code in codes_of(label.rstrip("?"))
    }
    return Row(
        case.id,
        seed,
        case.is_control,
        list(case.facts.get("fault_labels", [])),
        diagnosis.verdict,
        diagnosis.codes,
        time.monotonic() - began,
        stages.get("static", 0.0),
        bool(wanted & set(diagnosis.codes[:2])),
        diagnosis.why,
        stages,
        [finding.to_dict() for finding in diagnosis.findings],
        tools=_tools(case.facts),
    )


def _tools(facts: dict[str, Any]) -> str:
    said = (facts.get("tool_verdicts") or {}).get("detected") or {}
    return " ".join(f"{name}:{value}" for name, value in said.items())


def print_table(rows: list[Row], skipped: list[tuple[str, str]]) -> None:
    print(f"{'case':<42} {'seed':>4} {'human label':<34} {'verdict':<9} {'s':>6}  codes")
    for row in rows:
        label = "healthy" if row.control else ", ".join(row.labels)
        print(
            f"{row.id:<42} {row.seed:>4} {label[:34]:<34} {row.verdict:<9} "
            f"{row.seconds:>6.1f}  {', '.join(row.codes[:4])}  [{row.tools}]"
        )
    for name, why in skipped:
        print(f"{name:<42} skipped: {why}")


def print_proofs(proofs: list[dict[str, Any]]) -> None:
    """Every arm's metric, the mean of the fresh seeds, and what is recovered of the human fix's
    gain; as a table of Markdown."""
    names = ["buggy", "cured", "human_fixed", "random_search", "train_longer"]
    shares = ["recovered", "random_recovered", "longer_recovered"]
    heads = [name.replace("_", " ") for name in names + shares]
    print("\n| case | metric | " + " | ".join(heads) + " | cure | runs | plan | s |")
    print("|" + "---|" * (len(heads) + 6))
    for proof in proofs:
        numbers = [_shown(proof.get(name)) for name in names] + [
            _percent(proof.get(name)) for name in shares
        ]
        cure = (
            proof["cure"]
            if proof["accepted"] or "buggy" not in proof
            else f"no verified cure; best try: {proof['cure']}"
        )
        ends = [cure, _shown(proof.get("spent")), proof.get("plan", "-"), f"{proof['seconds']:.0f}"]
        print(f"| {' | '.join([proof['id'], proof['metric'], *numbers, *ends])} |")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def summary(rows: list[Row]) -> dict[str, Any]:
    """Detected and named, by case over the seeds (most of them decide), and alarms in controls, by
    run."""
    faults: dict[str, list[Row]] = {}
    for row in rows:
        if not row.control:
            faults.setdefault(row.id, []).append(row)
    detected = [
        id_ for id_, own in faults.items() if sum(r.verdict == "sick" for r in own) > len(own) / 2
    ]
    named = [
        id_
        for id_, own in faults.items()
        if sum(r.verdict == "sick" and r.named for r in own) > len(own) / 2
    ]
    controls = [row for row in rows if row.control]
    alarms = [f"{row.id}#{row.seed}" for row in controls if row.verdict == "sick"]
    found: dict[str, Any] = {
        "faults": len(faults),
        "detected": len(detected),
        "named": len(named),
        "missed": sorted(set(faults) - set(detected)),
        "not_named": sorted(set(detected) - set(named)),
        "control_runs": len(controls),
        "alarms": alarms,
        "no_alarm": 1.0 - len(alarms) / len(controls) if controls else None,
    }
    proofs = [row.proof for row in rows if row.proof]
    return found | (proof_summary(proofs) if proofs else {})


def proof_summary(proofs: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of the runnable cases, those whose human fix gains something here, were brought to
    90 % of that gain."""
    judged = [p for p in proofs if p.get("recovered") is not None]

    def share(name: str) -> float | None:
        return round(sum(p[name] >= 0.9 for p in judged) / len(judged), 3) if judged else None

    return {
        "proved": sum("buggy" in p for p in proofs),
        "judged": len(judged),
        "recovered_90": share("recovered"),
        "random_search_90": share("random_recovered"),
        "train_longer_90": share("longer_recovered"),
        "accepted": sum(p["accepted"] for p in proofs),
        "accepted_worse": [p["id"] for p in proofs if p["worse"]],
        "most_spent": max((p["spent"] for p in proofs if "spent" in p), default=None),
        "not_run": {p["id"]: p["cure"] for p in proofs if "buggy" not in p},
    }


class Log:
    """Finished rows as JSON lines: what an interrupted bench need not do again."""

    def __init__(self, path: Path | None, *asked: Any):
        self.path, self.asked = path, [str(item) for item in asked]
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        held = [
            json.loads(line) for line in lines if line.endswith("}")
        ]  # the last line may have been cut
        self.held = {
            (one["row"]["id"], one["row"]["seed"]): one["row"]
            for one in held
            if one["asked"] == self.asked
        }

    def find(self, case: str, seed: int) -> Row | None:
        found = self.held.get((case, seed))
        return Row(**found) if found else None

    def add(self, row: Row) -> None:
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"asked": self.asked, "row": asdict(row)}) + "\n")


def examined(case: Case, seed: int, asked: argparse.Namespace) -> Row:
    """One row; the proof, with the first seed of a fault."""
    row = examine_case(case, seed)
    if asked.prove and seed == 0 and not case.is_control:
        from cure_cases import judged, lower_is_better, prove_case

        row.proof = judged(
            prove_case(case, budget=asked.budget, minutes=asked.minutes), lower_is_better(case)
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=DEFAULT)
    parser.add_argument(
        "--prove",
        action="store_true",
        help="search and verify a cure for each faulty case, beside the rivals",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=20.0,
        help="training steps of all trial members, in original runs",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=15.0,
        help="of one proof; longer plans are shortened, and said to be",
    )
    parser.add_argument(
        "--log",
        type=Path,
        help="a file of JSON lines that keeps finished rows: an interrupted bench goes on",
    )
    parser.add_argument(
        "--seeds", type=int, default=None, help="default: 3 for faults, 5 for controls"
    )
    parser.add_argument("--only", nargs="*", default=[], help="parts of ids")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args()
    log = Log(asked.log, asked.cases, asked.prove, asked.budget, asked.minutes)
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []
    for case in load(asked.cases, FIXES, only=asked.only):
        if not isinstance(case, Case):
            skipped.append(case)
            continue
        for seed in range(asked.seeds or (5 if case.is_control else 3)):
            row = log.find(case.id, seed)
            if row is None:
                row = examined(case, seed, asked)
                log.add(row)
            rows.append(row)
            print(
                f"{row.id} seed {seed}: {row.verdict} {row.codes[:3]} {row.seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    print_table(rows, skipped)
    if asked.prove:
        print_proofs([row.proof for row in rows if row.proof])
    found = summary(rows)
    print(
        json.dumps(found, indent=1)
        if not asked.json
        else json.dumps({"summary": found, "rows": [asdict(r) for r in rows], "skipped": skipped})
    )


if __name__ == "__main__":
    main()
