"""What was measured as tables, a figure and JSON, with the machine and the versions that a figure
must carry."""

from __future__ import annotations

import json
import math
import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ravine.bench.measure import Timing
from ravine.bench.peers import PEERS
from ravine.bench.works import POPULATIONS, WORKS, operations
from ravine.machine import machine as machine_facts
from ravine.machine import versions
from ravine.storage.files import write_text

_PACKAGES = ("torch", "lightning", "skorch", "keras", "jax", "numpy")


def machine(threads: int) -> dict[str, Any]:
    """Processor, threads, load and versions."""
    import torch

    speeds = {
        str(t).removeprefix("torch."): round(_gemm(t)) for t in (torch.float32, torch.bfloat16)
    }
    found: dict[str, Any] = {**machine_facts(), "threads": threads, "gemm_gflops": speeds}
    return {**found, **versions(_PACKAGES)}


def write(timings: Sequence[Timing], out: Path, threads: int) -> dict[str, Any]:
    """results.json, speed.md and speed.svg in a directory."""
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": machine(threads),
        "timings": [t.to_dict() for t in timings],
        "ratios": ratios(timings),
    }
    write_text(out / "results.json", json.dumps(found, indent=1))
    lines = [
        tables(timings),
        of_peak(timings, found["machine"]["gemm_gflops"]),
        carried(found["machine"]),
        "",
    ]
    write_text(out / "speed.md", "\n".join(lines))
    draw(timings, out / "speed.svg", carried(found["machine"]))
    return {"out": str(out), "ratios": found["ratios"], "machine": found["machine"]}


def write_race(rows: list[dict[str, Any]], out: Path, threads: int) -> dict[str, Any]:
    """target.json and target.md."""
    out.mkdir(parents=True, exist_ok=True)
    facts = machine(threads)
    lines = ["| | seconds (median) | each | epochs | test accuracy |", "|---|---|---|---|---|"]
    for row in rows:
        each = ", ".join(f"{s:.1f}" for s in row["seconds"])
        scores = ", ".join(f"{100 * a:.2f}" for a in row["accuracy"])
        middle = f"{statistics.median(row['seconds']):.1f}" if row["seconds"] else row["failed"]
        lines.append(
            f"| {PEERS[row['peer']][0]} | {middle} | {each} | {row['epochs']} | {scores} |"
        )
    write_text(out / "target.md", "\n".join([*lines, "", carried(facts), ""]))
    found: dict[str, Any] = {"machine": facts, "rows": rows}
    write_text(out / "target.json", json.dumps(found, indent=1))
    return {"out": str(out), **found}


def ratios(timings: Sequence[Timing]) -> dict[str, dict[str, Any]]:
    """The best peer's median over Ravine's, for each work; a population is held against those who
    train populations and against solo runs of its member."""
    found: dict[str, dict[str, Any]] = {}
    for work in dict.fromkeys(t.work for t in timings):
        base = POPULATIONS[work][0] if work in POPULATIONS else work
        own = [t for t in timings if not t.peer.startswith("ravine") and t.ms]
        peers = [t for t in own if t.work in (base, work)]
        ours = {
            t.peer: t.median
            for t in timings
            if t.work == work and t.peer.startswith("ravine") and t.ms
        }
        if peers and ours:
            best = min(peers, key=lambda t: t.median)
            found[work] = {"best_peer": best.peer, "ms": best.median} | {
                p: best.median / ms for p, ms in ours.items()
            }
    return found


def tables(timings: Sequence[Timing]) -> str:
    """Milliseconds per step and member, the ratio of the best peer to Ravine, and peak memory."""
    works = list(dict.fromkeys(t.work for t in timings))
    peers = [p for p in PEERS if any(t.peer == p for t in timings)]
    held = {(t.peer, t.work): t for t in timings}
    ratio = ratios(timings)
    head = ["work", *(PEERS[p][0] for p in peers), "best peer / Ravine"]
    lines = [_row(head), _row(["---"] * len(head))]
    for work in works:
        cells = [_cell(held.get((p, work))) for p in peers]
        lines.append(
            _row(
                [
                    _title(work),
                    *cells,
                    f"{ratio[work]['ravine']:.2f}" if "ravine" in ratio.get(work, {}) else "",
                ]
            )
        )
    lines += [
        "",
        "Peak memory of the process, MB:",
        "",
        _row(head[:-1]),
        _row(["---"] * (len(head) - 1)),
    ]
    for work in works:
        lines.append(
            _row(
                [
                    _title(work),
                    *(f"{held[p, work].peak_mb:.0f}" if (p, work) in held else "" for p in peers),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def of_peak(timings: Sequence[Timing], peak: dict[str, int]) -> str:
    """What part of the machine's best product each work reaches: operations of its products over
    the time of a step."""
    works = [w for w in dict.fromkeys(t.work for t in timings) if w in WORKS or w in POPULATIONS]
    held = {(t.peer, t.work): t.median for t in timings if t.ms}
    head = [
        "work",
        "GFLOP a step",
        "Ravine, GFLOP/s",
        "of bfloat16's best",
        "Ravine, float32, GFLOP/s",
        "of float32's best",
    ]
    lines = [
        "Products, against the best product that was measured:",
        "",
        _row(head),
        _row(["---"] * len(head)),
    ]
    for work in works:
        gflop = operations(WORKS[POPULATIONS[work][0] if work in POPULATIONS else work]) / 1e9
        cells = [_title(work), f"{gflop:.3g}"]
        for peer, precision in (("ravine", "bfloat16"), ("ravine_float32", "float32")):
            speed = 1e3 * gflop / held[peer, work] if (peer, work) in held else None
            cells += (
                ["", ""] if speed is None else [f"{speed:.0f}", f"{speed / peak[precision]:.1%}"]
            )
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def draw(timings: Sequence[Timing], path: Path, caption: str) -> None:
    """Each competitor's time over Ravine's, by work: a mark at the median, a line from quartile to
    quartile."""
    import matplotlib.pyplot as plt

    from ravine.report.figures import CAPTION, COLOURS, INK, MARKERS, style

    held = {(t.peer, t.work): t for t in timings if t.ms}
    works = [w for w in WORKS if ("ravine", w) in held]
    peers = [p for p in PEERS if p != "ravine" and any((p, w) in held for w in works)]
    with style():
        figure, axes = plt.subplots(figsize=(5.4, 2.0 + 0.55 * len(works)), layout="constrained")
        for i, peer in enumerate(peers):
            seen = [w for w in works if (peer, w) in held]
            y = [works.index(w) + 0.5 * (i + 0.5) / len(peers) - 0.25 for w in seen]
            centre = [held[peer, w].median / held["ravine", w].median for w in seen]
            look: dict[str, Any] = {
                "color": COLOURS[i % len(COLOURS)],
                "marker": MARKERS[i % len(MARKERS)],
                "ms": 6,
                "ls": "none",
            }
            axes.plot(centre, y, label=PEERS[peer][0], zorder=3, **look)
            for place, work in zip(y, seen, strict=True):
                low, high = (
                    end / held["ravine", work].median for end in _quartiles(held[peer, work])
                )
                axes.plot([low, high], [place, place], color=look["color"], lw=1.2)
        axes.axvline(1, color=INK, lw=1, ls="--")
        axes.set(
            ylim=(len(works) - 0.5, -0.5),
            xscale="log",
            xlabel="time of a step, in Ravine's (dashed line: Ravine)",
        )
        axes.set_yticks(range(len(works)), [WORKS[w].title.replace(", ", ",\n") for w in works])
        ticks = [
            t
            for t in (0.5, 1, 2, 3, 5, 10, 20, 50)
            if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]
        ]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.xaxis.minorticks_off()
        figure.legend(loc="outside upper center", ncols=2, fontsize=CAPTION)
        figure.supxlabel("\n".join(textwrap.wrap(caption, 66)), fontsize=CAPTION)
        figure.savefig(path)
        plt.close(figure)


def _quartiles(timing: Timing) -> tuple[float, float]:
    if len(timing.ms) < 2:
        return timing.median, timing.median
    low, _, high = statistics.quantiles(timing.ms, n=4)
    return low, high


def carried(facts: dict[str, Any]) -> str:
    """The machine in one line."""
    held = ", ".join(f"{name} {facts[name]}" for name in ("python", *_PACKAGES) if name in facts)
    speeds = ", ".join(f"{name} {gflops} GFLOP/s" for name, gflops in facts["gemm_gflops"].items())
    kinds = " ".join(facts["instructions"])
    return f"{facts['cpu']} ({kinds}), {facts['cores']} cores, {facts['threads']} threads; products: {speeds}; {held}"


def folder_of(threads: int) -> Path:
    """Where this machine's results go by default: those of another machine stay apart."""
    facts = machine_facts()
    named = f"{facts['cpu']} {' '.join(facts['instructions'][-2:])} {threads} threads"
    return Path("bench-results") / re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")


def _title(work: str) -> str:
    if work in POPULATIONS:
        base, members = POPULATIONS[work]
        return f"{members} of {WORKS[base].title}, per member"
    return WORKS[work].title


def _cell(timing: Timing | None) -> str:
    if timing is None or math.isnan(timing.median):
        return ""
    return f"{timing.median:.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _gemm(dtype: Any, size: int = 1536) -> float:
    """GFLOP/s of the machine's best product."""
    import time

    import torch

    a, b = torch.randn(2, size, size).to(dtype)
    best = math.inf
    for _ in range(12):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9
