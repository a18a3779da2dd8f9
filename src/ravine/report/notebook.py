"""What a notebook shows of a run and of a study: headline, curves, findings, a table. Plain HTML without
scripts and without widgets."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ravine import measures
from ravine.report import figures, overview
from ravine.rundir import RunDir

_ROWS = 12  # of a table


class Picture:
    """A figure that a notebook shows; ``figure`` is matplotlib's, ``save`` writes it."""

    def __init__(self, figure: Figure):
        self.figure = figure

    def _repr_svg_(self) -> str:
        return svg(self.figure)

    def save(self, path: str | Path) -> Path:
        """Write it; the ending says the form."""
        with figures.style():
            self.figure.savefig(path)
        return Path(path)


def svg(figure: Figure) -> str:
    """A figure as SVG on a light ground, which reads in both themes."""
    text = io.StringIO()
    with figures.style():
        figure.savefig(text, format="svg", facecolor="white", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def curve(run: RunDir, metric: str) -> Figure | None:
    """The curves of a metric: of both parts where it has them, else of the one quantity."""
    names = run.metrics
    if any(f"{part}_{metric}" in names for part in ("train", "val")):
        return figures.training_curves(run, metric)
    return figures.step_losses(run) if metric == "step_loss" else figures.single_curve(run, metric)


def run_html(run: RunDir, member: int) -> str:
    """A run: what came of it, its curves, what the doctor found, its final numbers."""
    seen = overview.summarise(run)
    first, *others = overview.sentences(seen)
    parts = [Markup("<p><b>{}</b> {}</p>").format(first, " ".join(others))]
    wanted = dict.fromkeys(["loss", seen.judged_by])
    drawn = [curve(run, what) for what in wanted if what is not None]
    pictures = Markup("").join(
        Markup('<div style="flex:1 1 320px;max-width:460px">{}</div>').format(Markup(svg(one)))
        for one in drawn
        if one is not None
    )
    parts.append(
        Markup('<div style="display:flex;flex-wrap:wrap;gap:8px">{}</div>').format(pictures)
    )
    for event in run.events("finding")[:3]:
        found = event["data"]
        usual = found.get("what_to_do", "")
        advice = next((remedy["why"] for remedy in found.get("remedies", ())), usual)
        text = "<p><b>{}</b> {} <i>{}</i></p>"
        parts.append(Markup(text).format(found["code"], found.get("cause", ""), advice))
    row = {k: v for k, v in seen.members[member].items() if isinstance(v, float | int)}
    shown = [
        (measures.title(k), measures.show(k, v)) for k, v in row.items() if measures.split_of(k)[0]
    ]
    parts.append(table([dict(shown)]))
    parts.append(Markup("<p><small>{}</small></p>").format(run.path))
    return str(Markup("").join(parts))


def study_html(sentences: Sequence[str], rows: Sequence[Mapping[str, str]], report: str) -> str:
    """A study: its answer, its first table, where the report is."""
    said = Markup("").join(
        Markup("<p><b>{}</b></p>" if i == 0 else "<p>{}</p>").format(text)
        for i, text in enumerate(sentences)
    )
    return str(said + table(rows) + Markup("<p><small>report: {}</small></p>").format(report))


def table(rows: Sequence[Mapping[str, str]]) -> Markup:
    """Rows of text under headings."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in names)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(escape(row.get(n, ""))) for n in names)
        )
        for row in rows[:_ROWS]
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)
