"""The study directory: what was asked, the runs of each stage, pieces of computed work, the
summary, figures, report.

A study is a function of its recipe, its options and the results of its stages. Entered again after
a kill it goes the same way: a finished stage is read, an interrupted one is resumed, and only what
is missing is computed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine.engine import snapshot
from ravine.engine.loop.loop import Interrupted
from ravine.engine.loop.progress import Progress
from ravine.engine.run import Run
from ravine.errors import InputError, RavineError
from ravine.files import new_directory, plain, to_json, write_text
from ravine.locks import Lock
from ravine.recipe import Recipe
from ravine.rundir import RunDir, environment, fresh_path
from ravine.training import resume, train_many

FORMAT = 1
Report = Callable[[Progress], None]


class Study:
    """One study in its directory; ``model`` and ``data`` are what was given in Python, as for
    ``train``."""

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        *,
        model: Any = None,
        data: Any = None,
        quiet: bool = False,
    ):
        self.path = path
        self.kind: str = about["kind"]
        self.recipe = Recipe(**about["recipe"])
        self.options: dict[str, Any] = about["options"]
        self.facts: dict[str, Any] = about["facts"]
        self.command: str = about["command"]
        self.model, self.data, self.quiet = model, data, quiet
        self.stages: list[str] = []
        self._lock = Lock(path)
        self._lock.take()

    @classmethod
    def enter(
        cls,
        kind: str,
        recipe: Recipe,
        options: Mapping[str, Any],
        out: str | Path | None = None,
        *,
        model: Any = None,
        data: Any = None,
        quiet: bool = False,
        command: str = "",
    ) -> Study:
        """A new study, or the same one again: ``out`` may hold it, finished or interrupted."""
        asked = json.loads(
            json.dumps(
                {"kind": kind, "recipe": recipe.to_dict(explicit=True), "options": dict(options)}
            )
        )
        path = fresh_path(f"{kind}-{recipe.name}") if out is None else Path(out)
        if (path / "study.json").is_file():
            about = read_about(path)
            if any(about[name] != asked[name] for name in asked):
                different = ", ".join(name for name in asked if about[name] != asked[name])
                raise InputError(
                    "--out",
                    got=str(path),
                    expected="a new directory, or this very study",
                    repair=f"that one differs in its {different}; continue it as it is with ravine resume {path}",
                )
            for name, value in (("model", model), ("data", data)):
                if name in about["given"] and value is None:
                    repair = f"continue it in Python: {kind}(…, {name}=…, out={str(path)!r})"
                    raise InputError(
                        name,
                        got=f"a study whose {name} was given in Python",
                        expected=f"the same {name} again",
                        repair=repair,
                    )
            return cls(path, about, model=model, data=data, quiet=quiet)
        new_directory(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "--out", got=str(path), expected="a directory that can be made", repair=str(error)
            ) from None
        made = command or f"ravine.study.{kind}(…)"
        given = [name for name, value in (("model", model), ("data", data)) if value is not None]
        about = {"format": FORMAT, **asked, "command": made, "given": given, "facts": environment()}
        write_text(path / "study.json", json.dumps(about, indent=1))
        return cls(path, about, model=model, data=data, quiet=quiet)

    # --- work that is done once -------------------------------------------------------------------

    def train(
        self, stage: str, recipes: Sequence[Recipe], *, report: Report | None = None, **how: Any
    ) -> list[Run]:
        """The runs of a stage, trained now, resumed, or read; ``how`` as for ``train_many``
        (``test`` is off)."""
        place = self.path / "runs" / stage
        self.stages.append(stage)
        module, arrays = self.model, self.data
        try:
            if not _begun(place):
                shutil.rmtree(place, ignore_errors=True)
                how = {"test": False, **how}
                return train_many(
                    recipes,
                    model=module,
                    data=arrays,
                    out=place,
                    quiet=self.quiet,
                    report=report,
                    **how,
                )
            with RunDir.open(place) as found:
                finished = found.state == "finished"
            if not finished:
                return resume(place, model=module, data=arrays, quiet=self.quiet, report=report)
        except Interrupted as error:
            raise Interrupted(
                f"{str(error).partition(';')[0]}; ravine resume {self.path} continues the study"
            ) from None
        return [Run(place, member, module=module) for member in range(len(recipes))]

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A piece of work whose result is plain data; computed once, then read."""
        place = self.path / "parts" / f"{name}.json"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, to_json(compute()))
        return json.loads(place.read_text(encoding="utf-8"))

    def arrays(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A piece of work whose result is tensors; computed once, then read."""
        place = self.path / "parts" / name
        if not (place / "manifest.json").is_file():
            snapshot.write(place, dict(compute()), {"torch": torch.__version__})
        return snapshot.read(place)[0]

    @property
    def seconds(self) -> float:
        """The time that the stages' training took, interruptions apart."""
        total = 0.0
        for stage in dict.fromkeys(self.stages):
            with RunDir.open(self.path / "runs" / stage) as found:
                for program in found.facts["programs"]:
                    total += max(
                        ((found.result(m) or {}).get("seconds", 0.0) for m in program["members"]),
                        default=0.0,
                    )
        return total

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, summary: dict[str, Any], page: Any) -> dict[str, Any]:
        """Write ``summary.json``, the figures and ``report.html``; give the summary as plain
        data."""
        from ravine.study.page import print_page, write_page

        summary = plain(
            {
                "study": str(self.path),
                "kind": self.kind,
                **summary,
                "report": str(self.path / "report.html"),
            }
        )
        write_page(self, page)
        write_text(self.path / "summary.json", json.dumps(summary, indent=1))
        if not self.quiet:
            print_page(page, self.path)
        self._lock.release()
        return summary


def read_about(path: Path) -> dict[str, Any]:
    """What ``study.json`` says."""
    try:
        about = json.loads((path / "study.json").read_text(encoding="utf-8"))
        missing = {"format", "kind", "recipe", "options", "facts", "command", "given"} - set(about)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "study", got=str(path), expected="a study directory", repair=str(error)
        ) from None
    if missing or about["format"] != FORMAT:
        raise InputError(
            "study", got=str(path), expected="a study that this version of Ravine reads"
        )
    return about


def _begun(place: Path) -> bool:
    """Whether a stage stands where it can be resumed; what was killed before its first snapshot
    begins anew."""
    try:
        with RunDir.open(place) as found:
            return any(found.begun(program) for program in range(len(found.facts["programs"])))
    except RavineError:
        return False
