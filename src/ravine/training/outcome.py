"""How a run ended, as data and as the closing lines in the terminal: result, findings, report."""

from __future__ import annotations

import shlex
import statistics
from typing import Any

from ravine import measures
from ravine.doctor.table import declarations
from ravine.doctor.verdict import SHORT
from ravine.report import overview
from ravine.report.listing import inline
from ravine.rundir import RunDir
from ravine.terminal import console, say, styled

METRICS = ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
TYPED = 160  # characters of edits that are shown
# strength up to which nothing but the course speaks for a finding; above it an experiment does
SEEN = 0.9
TROUBLES = ("frozen", "rollback", "report")  # kinds of events that are shown at the end


def outcome(runs: list[Any]) -> dict[str, Any]:
    """What ``train --json`` prints; numbers are means over the members that ended well."""
    results = [run.result for run in runs]
    well = [result for result in results if result["stopped"] != "diverged"] or results
    names = sorted(
        {name for result in well for name in result if isinstance(result[name], float)}
        | set(METRICS)
    )
    means = {name: _mean([result.get(name) for result in well]) for name in names}
    execution = runs[0].events_of("execution")[0]["data"]
    return {
        "run": str(runs[0].directory),
        "program": runs[0].recipe.program,
        "members": len(runs),
        "steps": max(result["steps"] for result in results),
        **means,
        "stopped": results[0]["stopped"]
        if len(runs) == 1
        else [result["stopped"] for result in results],
        "findings": [event["data"] for event in runs[0].events_of("finding")],
        "execution": execution,
        "report": str(runs[0].directory / "report.html"),
    } | ({"results": results} if len(runs) > 1 else {})


def print_outcome(runs: list[Any], last: str = "", *, verbose: bool = False) -> None:
    """The end of ``ravine train``, for people: the result, what was found and what to do, where
    the report is; ``last`` is the last line. ``verbose`` adds how the run was computed."""
    found = outcome(runs)
    with RunDir.open(runs[0].directory) as run:
        first, *others = overview.sentences(overview.summarise(run))
        examined = run.facts.get("doctor") and not run.events("doctor")
    out = console()
    out.print(styled((first, "bold")), highlight=False, soft_wrap=not out.is_terminal)
    if measured := _also_measured(found, first):
        others.append(f"Also: {measured}{' (means)' if len(runs) > 1 else ''}.")
    say(*others)
    if verbose:
        say(f"Computed on: {runs[0].events_of('execution')[0]['text']}")
    for event in [event for kind in TROUBLES for event in runs[0].events_of(kind)][:5]:
        out.print(styled((event["text"], "yellow")), highlight=False, soft_wrap=not out.is_terminal)
    findings = [event["data"] for event in runs[0].events_of("finding")]
    if findings:
        print_findings(findings)
        later = {kind.code for kind in declarations() if kind.tried_later}
        if later & {finding["code"] for finding in findings}:
            say(
                f"What else may help is tried by: ravine doctor {shlex.quote(str(runs[0].directory))}"
            )
    elif examined:
        steps = max(run.result["steps"] for run in runs)
        few = f", but {steps} steps are too few to judge learning by" if steps < SHORT else ""
        say(f"The doctor found nothing wrong{few}.")
    say(f"report: {found['report']}")
    if last:
        say(last)


def say_finished(rundir: RunDir) -> None:
    """That there was nothing to train, and how to go on."""
    members = range(len(rundir.recipes))
    steps = max((rundir.result(m) or {"steps": 0})["steps"] for m in members)
    say(
        f"{rundir.path} is finished: it has taken all its {steps:,} steps, nothing was trained. "
        f"To train on: ravine resume {rundir.path} --after END (such as 60ep)"
    )


def _also_measured(found: dict[str, Any], first: str) -> str:
    """The other final numbers on data that were not trained on."""
    names = [name for name in found if name.startswith(("test_", "val_"))]
    names = [n for n in names if found[n] is not None and "confusion_matrix" not in n]
    names.sort(key=lambda n: (not n.startswith("test"), n.endswith("_loss"), n))
    shown = [f"{measures.title(n)} {measures.show(n, found[n])}" for n in names]
    rest = [text for text in shown if not first.startswith(text)]
    return ", ".join(text[:1].lower() + text[1:] for text in rest)


def print_findings(findings: list[dict[str, Any]], most: int = 3) -> None:
    """The worst findings first: what, the numbers, and what to do; of a consequence, what it
    follows from."""
    out = console()
    for place, finding in enumerate(findings[:most]):
        line = styled(
            (finding["code"], "bold red"), f" ({finding['where']}): {finding['evidence']}"
        )
        out.print(line, highlight=False, soft_wrap=not out.is_terminal)
        above = next((f["code"] for f in findings[:place] if _follows(finding, f)), None)
        measured = any(remedy.get("tried") for remedy in finding["remedies"])
        if above is not None and finding["strength"] <= SEEN and not measured:
            say(f"  {finding['cause']} It follows from {above}: repair that first.")
        else:
            for remedy in finding["remedies"][:1]:
                tried = remedy.get("tried") or ""
                tried = f" ({tried})" if tried not in finding["evidence"] else ""
                say(f"  remedy: {remedy['why']}{tried}  {_typed(remedy['edits'])}".rstrip())
            if not finding["remedies"] and finding.get("what_to_do"):
                say(f"  what to do, in general: {finding['what_to_do']}")
            say(f"  {finding['cause']} {finding['consequences'][0]}")
        say(f"  more: ravine catalogue {finding['code']}")
    if len(findings) > most:
        say(f"and {len(findings) - most} more in the report")


def _follows(finding: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(text.startswith(f"{finding['code']}: ") for text in other["consequences"])


def _typed(edits: dict[str, Any]) -> str:
    """Edits as the command line takes them, where they are short."""
    typed = [
        shlex.quote(f"{path}={value if isinstance(value, str) else inline(value)}")
        for path, value in edits.items()
    ]
    made = " ".join(f"--set {edit}" for edit in typed)
    return made if len(made) <= TYPED else ""


def _mean(values: list[float | None]) -> float | None:
    finite = [value for value in values if value is not None and value == value]
    return statistics.fmean(finite) if finite else None
