"""The study directory: what was asked, the runs of each stage, pieces of computed work, the
summary, figures, report.

A study is a function of its recipe, its options and the results of its stages. Entered again after
a kill it goes the same way: a finished stage is read, an interrupted one is resumed, and only what
is missing is computed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine.engine import snapshot
from ravine.engine.loop.loop import Interrupted
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.rundir import RunDir, environment, fresh_path
from ravine.rundir.contents import check_contents
from ravine.rundir.mark import signed, verified
from ravine.rundir.rundir import draft_of
from ravine.storage.bounded import MOST_SETTINGS, exists, parse_json, read_text
from ravine.storage.claims import Claim
from ravine.storage.files import new_directory, plain, to_json, write_text
from ravine.storage.locks import Lock
from ravine.study.workers.choice import executor_of
from ravine.study.workers.executor import Here, Report, Stage

FORMAT = 2


class Study:
    """One study in its directory; ``model`` and ``data`` are what was given in Python, as for
    ``train``. ``workers`` says who trains its stages; at most ``group`` members of a program then
    train together, so that workers can share one.

    ``out`` may hold the same study, finished or interrupted. A new directory is written when the
    first work begins, so that a study may still refuse its input.
    """

    def __init__(
        self,
        kind: str,
        recipe: Recipe,
        options: Mapping[str, Any],
        *,
        runs: Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        model: Any = None,
        data: Any = None,
        quiet: bool = False,
        command: str = "",
        workers: str | None = None,
        group: int | None = None,
        claim: Claim | None = None,
        asked: Mapping[str, Any] | None = None,
    ):
        self.kind, self.recipe, self.options = kind, recipe, dict(options)
        self.model, self.data, self.quiet = model, data, quiet
        self.path = fresh_path(f"{kind}-{recipe.name}") if out is None else Path(out)
        self.stages: list[str] = []
        own = {
            "kind": kind,
            "recipe": recipe.to_dict(explicit=True),
            "runs": dict(runs or {}),
            "options": self.options,
            "group": group,
        }
        given = [name for name, value in (("model", model), ("data", data)) if value is not None]
        self._request = {
            "format": FORMAT,
            **json.loads(json.dumps(own)),
            "command": command or f"ravine.{kind}(…)",
            "given": given,
            "workers": workers,
            "asked": asked,
            "facts": environment(),
        }
        self._claim = claim
        self._lock = Lock(self.path)
        self._begun = exists(self.path / "study.json")
        self._new = not self._begun
        if self._begun:
            self._check_same(own)
        else:
            new_directory(self.path)
        self._executor = executor_of(workers, given, self.path)
        if self._begun:
            self._lock.take()

    @property
    def command(self) -> str:
        return self._request["command"]

    @property
    def facts(self) -> dict[str, Any]:
        return self._request["facts"]

    def begin(self) -> None:
        """Make the directory with ``study.json`` in it, once: by one rename, so that it is there whole
        or not at all.

        Raises: Interrupted where this process was suspended and another conducts the study now.
        """
        if self._claim is not None and self._claim.lost:
            raise Interrupted("another process conducts this study now")
        if self._begun:
            return
        with draft_of(self.path, "--out") as draft:
            write_text(draft / "study.json", json.dumps(signed(self._request), indent=1))
        self._lock.take()
        if self._claim is not None:
            self._claim.take()
        self._begun = True

    def take_back(self) -> None:
        """Remove the directory again, where this study made it and has trained nothing: its input is refused."""
        if self._new and self._begun and not self.stages and self._claim is None:
            self._lock.release()
            shutil.rmtree(self.path, ignore_errors=True)

    def release(self) -> None:
        """Release the lock, so that other processes can write the directory."""
        self._executor.close()
        self._lock.release()

    def _check_same(self, own: Mapping[str, Any]) -> None:
        found = read_request(self.path)
        different = [name for name in own if found.get(name) != self._request[name]]
        if different and _without_code(found, own) == _without_code(self._request, own):
            raise InputError(
                "--out",
                got=f"own code with another source than the study {self.path}",
                expected="the same source again",
                repair="put it back, or begin a new study with another out=",
            )
        if different:
            raise InputError(
                "--out",
                got=str(self.path),
                expected="a new directory, or this very study",
                repair=f"that one differs in its {', '.join(different)}; "
                f"continue it as it is with ravine resume {self.path}",
            )
        for name, value in (("model", self.model), ("data", self.data)):
            if name in found["given"] and value is None:
                raise InputError(
                    name,
                    got=f"a study whose {name} was given in Python",
                    expected=f"the same {name} again",
                    repair=f"continue it in Python: {self.kind}(…, {name}=…, out={str(self.path)!r})",
                )
        self._request = found

    # --- work that is done once -------------------------------------------------------------------

    def train(
        self,
        stage: str,
        recipes: Sequence[Recipe],
        *,
        report: Report | None = None,
        data: Any = None,
        **how: Any,
    ) -> list[Run]:
        """The runs of a stage, trained now, resumed, or read; ``how`` as for ``train_many``
        (``test`` is off). ``data`` is the stage's own, where it is not the study's."""
        self.begin()
        self.stages.append(stage)
        handed = Stage(
            stage,
            self.path / "runs" / stage,
            self.path / "shared" / stage,
            recipes,
            {"test": False, **how, "group": self._request["group"]},
            self.model,
            self.data if data is None else data,
            self.quiet,
            report,
        )
        try:
            if handed.finished:
                return handed.runs()
            # data of the stage's own are in this process alone
            return (self._executor if data is None else Here()).train(handed)
        except Interrupted as error:
            raise Interrupted(
                f"{str(error).partition(';')[0]}; ravine resume {self.path} continues the study"
            ) from None

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A piece of work whose result is plain data; computed once, then read."""
        self.begin()
        place = self.path / "parts" / f"{name}.json"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, to_json(compute()))
        return parse_json(read_text(place, MOST_SETTINGS), place.name)

    def arrays(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A piece of work whose result is tensors; computed once, then read."""
        self.begin()
        place = self.path / "parts" / name
        if not (place / "manifest.json").is_file():
            snapshot.write(place, dict(compute()), {"torch": torch.__version__})
        return snapshot.read(place)[0]

    @property
    def seconds(self) -> float:
        """The training time of the stages, without interruptions."""
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

    def write_summary(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``; give the summary as plain data."""
        self.begin()
        whole = plain(
            {
                "study": str(self.path),
                "kind": self.kind,
                **summary,
                "report": str(self.path / "report.html"),
            }
        )
        write_text(self.path / "summary.json", json.dumps(whole, indent=1))
        return whole


def _without_code(request: Mapping[str, Any], names: Iterable[str]) -> str:
    """What a study was asked for, without the hashes of own code."""
    text = json.dumps([request.get(name) for name in names])
    return re.sub(r'(\\?"code\\?"|\bcode)\s*[:=]\s*\\?"[0-9a-f]{64}\\?"', "", text)


def read_request(path: Path) -> dict[str, Any]:
    """The content of ``study.json``, and ``made_here``: whether this user wrote it on this machine."""
    check_contents(path)
    try:
        request = parse_json(read_text(path / "study.json", MOST_SETTINGS), "study.json")
        made_here = "sha256" in request and verified(request, "study.json")
        missing = {
            "format",
            "kind",
            "recipe",
            "runs",
            "options",
            "facts",
            "command",
            "given",
        } - set(request)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "study", got=str(path), expected="a study directory", repair=str(error)
        ) from None
    if missing or request["format"] != FORMAT:
        raise InputError(
            "study", got=str(path), expected="a study that this version of Ravine reads"
        )
    kinds: dict[str, Any] = {
        "kind": str,
        "recipe": dict,
        "runs": dict,
        "options": dict,
        "facts": dict,
    }
    kinds |= {"command": str, "given": list, "workers": str | None, "group": int | None}
    wrong = [name for name, kind in kinds.items() if not isinstance(request.get(name), kind)]
    if wrong:
        got, expected = f"{wrong[0]} of another type", "a study that Ravine wrote"
        raise InputError(str(path / "study.json"), got=got, expected=expected)
    return request | {"made_here": made_here}
