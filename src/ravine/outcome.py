"""How a run ended, as data and as the closing lines in the terminal: result, findings, report."""

from __future__ import annotations

import shlex
import statistics
from typing import Any

from ravine import measures
from ravine.report.listing import inline
from ravine.terminal import console, styled

METRICS = ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
TYPED = 160  # characters of edits that are shown
# strength up to which nothing but the course speaks for a finding; above it an experiment does
SEEN = 0.9
TROUBLES = ("frozen", "rollback", "report")  # kinds of events that are shown at the end
_console = console()


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


def print_outcome(runs: list[Any], last: str = "") -> None:
    """The end of ``ravine train``, for people; ``last`` is the last line."""
    found = outcome(runs)
    many = f" (mean of {len(runs)} members)" if len(runs) > 1 else ""
    names = [
        name
        for name in sorted(found)
        if name.startswith(("test_", "val_")) and found[name] is not None
    ]
    for name in sorted(names, key=lambda n: (not n.startswith("test"), "accuracy" not in n, n)):
        value = found[name]
        shown = f"{value:.2%}" if measures.is_percent(name) else f"{value:.4g}"
        _console.print(
            styled(
                (name.replace("val_", "validation ").replace("test_", "test "), "bold"),
                f": {shown}{many}",
            ),
            highlight=False,
        )
    stopped = (
        found["stopped"]
        if isinstance(found["stopped"], str)
        else ", ".join(sorted(set(found["stopped"])))
    )
    _console.print(
        f"{stopped} after {found['epochs']:g} epochs, {found['steps']} steps, {found['seconds']:.1f} s",
        highlight=False,
    )
    _console.print(f"execution: {runs[0].events_of('execution')[0]['text']}", highlight=False)
    for event in [event for kind in TROUBLES for event in runs[0].events_of(kind)][:5]:
        _console.print(styled((event["text"], "yellow")), highlight=False)
    print_findings([event["data"] for event in runs[0].events_of("finding")])
    _console.print(f"report: {found['report']}", highlight=False, soft_wrap=True)
    if last:
        _console.print(last, highlight=False, soft_wrap=True)


def print_findings(findings: list[dict[str, Any]], most: int = 3) -> None:
    """The worst findings first: what, the numbers, and the first remedy; of a consequence, what it
    follows from."""
    for place, finding in enumerate(findings[:most]):
        _console.print(
            styled((finding["code"], "bold red"), f" ({finding['where']}): {finding['evidence']}"),
            highlight=False,
        )
        above = next((f["code"] for f in findings[:place] if _follows(finding, f)), None)
        if above is not None and finding["strength"] <= SEEN:
            _console.print(
                f"  {finding['cause']} It follows from {above}: repair that first.", highlight=False
            )
        else:
            _console.print(
                f"  {finding['cause']} {finding['consequences'][0]}",
                highlight=False,
            )
            for remedy in finding["remedies"][:1]:
                tried = f" ({remedy['tried']})" if remedy.get("tried") else ""
                line = f"  remedy: {remedy['why']}{tried}  {_typed(remedy['edits'])}".rstrip()
                _console.print(line, highlight=False, markup=False, soft_wrap=True)
        _console.print(f"  more: {finding['docs']}", highlight=False)
    if len(findings) > most:
        _console.print(f"and {len(findings) - most} more in the report", highlight=False)


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
