"""The live table of a study: the leaders so far and the time left, on standard error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table

from ravine import measures
from ravine.recipe import Recipe
from ravine.report.overview import show_value
from ravine.terminal import columns_that_fit, console

if TYPE_CHECKING:
    from ravine.engine.loop.progress import Progress

LEADERS = 8


class LiveTable:
    """Within it, ``stage(...)`` gives what ``train_many`` reports to; ``stages`` is how many there
    will be."""

    def __init__(self, title: str, metric: str, stages: int, *, quiet: bool):
        self.title, self.metric, self.stages, self.quiet = title, metric, stages, quiet
        self.rows: dict[tuple[str, int], dict[str, Any]] = {}
        self._labels: dict[tuple[str, int], dict[str, Any]] = {}
        self._done, self._began, self._now = -1, time.monotonic(), ""
        self._part = 0.0
        self._console = console()
        self._live = Live(
            console=self._console,
            refresh_per_second=2,
            get_renderable=self._table,
            transient=True,
        )

    def __enter__(self) -> LiveTable:
        if not self.quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.quiet:
            self._live.stop()

    def stage(self, name: str, recipes: Sequence[Recipe], labels: Sequence[dict[str, Any]]) -> Any:
        """What to report the progress of a stage to; ``labels`` say what each member is."""
        self._done += 1
        self._part = 0.0
        self._now = name
        self._labels |= {(name, member): dict(label) for member, label in enumerate(labels)}

        def report(now: Progress) -> None:
            self._part = now.step / max(now.total, 1)
            for row in now.rows:
                self.rows[name, row["member"]] = row

        return report

    def _table(self) -> Table:
        done = (max(self._done, 0) + self._part) / max(self.stages, 1)
        spent = time.monotonic() - self._began
        known = 0.01 < done < 0.995
        left = f", about {measures.duration(spent * (1 - done) / done)} left" if known else ""
        title = f"{self.title}: {self._now}, {100 * done:.0f} % done{left}"
        better = measures.better_is(self.metric)
        found = [
            (key, row)
            for key, row in self.rows.items()
            if row.get(self.metric) == row.get(self.metric)
        ]
        found.sort(key=lambda item: item[1].get(self.metric, 0.0), reverse=better == "max")
        paths = list(dict.fromkeys(path for label in self._labels.values() for path in label))[:5]
        heads = ["stage", *shortened(paths), "epoch", measures.title(self.metric)]
        rows = []
        for key, row in found[:LEADERS]:
            label = self._labels.get(key, {})
            values = [
                f"{v:.3g}" if isinstance(v, float) else show_value(v)
                for v in (label.get(path, "–") for path in paths)
            ]
            result = measures.show(self.metric, row.get(self.metric))
            rows.append([key[0], *values, f"{row['epoch']:.4g}", result])
        return _grid(title, heads, rows, self._console.width)


def _grid(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Columns whose words and numbers are whole: where there is no room fields are left out from the
    last to the second, then the epoch, then the stage; never the result."""
    needs = [
        max(map(len, [*head.split(), *(row[i] for row in rows)])) for i, head in enumerate(heads)
    ]
    last = len(heads) - 1
    spare = [*range(last - 2, 1, -1), last - 1, 0]
    shown = columns_that_fit([need + 3 for need in needs], spare, width - 1)
    roomy = sum(max(needs[i], len(heads[i])) + 3 for i in shown) < width
    table = Table(title=title, title_justify="left")
    for i in shown:
        table.add_column(heads[i], width=None if roomy else needs[i], overflow="fold")
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def shortened(paths: Sequence[str]) -> list[str]:
    """Fields by their last names where these differ: a terminal is narrow.

    >>> shortened(["optimizer.lr", "model.dropout"]), shortened(["model.layers.1.rate", "model.layers.3.rate"])
    (['lr', 'dropout'], ['1.rate', '3.rate'])
    """
    most = max((path.count(".") + 1 for path in paths), default=1)
    for parts in range(1, most + 1):
        found = [".".join(path.split(".")[-parts:]) for path in paths]
        if len(set(found)) == len(found):
            return found
    return list(paths)
