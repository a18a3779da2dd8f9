"""What a run directory holds of one member: its weights, and what prepares its inputs. The data need
not be there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import PREFIX
from ravine.catalogue.own import model_code
from ravine.data.download.cache import look_also_in
from ravine.data.pipeline import Pipeline
from ravine.engine import snapshot
from ravine.engine.execution.device import theta_dtype
from ravine.engine.rows.population import Objective, view
from ravine.engine.weights.heads import fitted_model, fitted_module, shaped, spread
from ravine.errors import InputError, RavineError
from ravine.layout import Layout
from ravine.nn.build import build, build_loss, layout
from ravine.recipe import Recipe
from ravine.registering import bring, differences, module_in_files, own_parts, require
from ravine.rundir import RunDir
from ravine.rundir.contents import sound


def layout_of(model: nn.Module) -> Layout:
    """Where each tensor of a network lies in theta; names begin with ``model.``."""
    return layout(Objective(model, nn.Identity()))


def with_weights(
    model: nn.Module,
    theta: Tensor,
    buffers: Mapping[str, Tensor] = MappingProxyType({}),
    loss: Callable[[], nn.Module] = nn.Identity,
) -> nn.Module:
    """The network with these weights [D] and buffers (``model.NAME`` -> tensor) written into it, in
    evaluation mode. ``loss`` makes the loss of a row that is longer: it has parameters too."""
    named = dict(model.named_parameters())
    places = layout_of(model)
    if places.size < len(theta):
        places = layout(Objective(model, loss()))
    if places.size != len(theta):
        raise InputError(
            "module",
            got=f"{places.size} parameters",
            expected=f"the run's own, which has {len(theta)}",
        )
    with torch.no_grad():
        for entry in (e for e in places.entries if e.name.startswith("model.")):
            named[entry.name.removeprefix("model.")].copy_(view(theta, entry))
        for name, tensor in (*model.named_buffers(), *named.items()):
            if f"model.{name}" in buffers:
                tensor.copy_(buffers[f"model.{name}"])
    return model.eval()


def open_with(directory: str | Path, own: Any = (), module: Any = None) -> RunDir:
    """A run directory, with what a person brings for the ``own:`` parts of its recipes; a source that
    is not the stored one is warned of."""
    if not isinstance(directory, str | Path):
        expected = "a run that ravine.train gave, or its directory"
        raise InputError("run", got=type(directory).__name__, expected=expected)
    rundir = RunDir.open(Path(directory))
    if own:
        bring(own, rundir.recipes)
        rundir = RunDir.open(Path(directory))  # its recipes are read with what was brought
    model = rundir.recipes[0].model
    module = module if module is not None else module_in_files(model)
    changed = differences(rundir.recipes)
    if (
        module is not None
        and model.kind == "module"
        and model.code not in (None, model_code(module))
    ):
        changed.append(f"the source of {model.name} (model) differs from that of the stored run")
    for text in changed:
        warnings.warn(f"{directory}: {text}", stacklevel=3)
    return rundir


class Opened:
    """A run directory that was opened once for all its members; what several of them need is read
    once."""

    def __init__(self, rundir: RunDir):
        self.rundir = rundir
        look_also_in(rundir.facts.get("directory"))
        self._contents: dict[Path, tuple[dict[str, Tensor], dict[str, Any]]] = {}
        self._ended: dict[int, Path] = {}
        self._unread: dict[int, Iterator[Path]] = {}

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The arrays and facts of one of its snapshots."""
        if path not in self._contents:
            self._contents[path] = snapshot.read(path)
        return self._contents[path]

    @cached_property
    def programs(self) -> dict[int, int]:
        """Which program each member belongs to."""
        programs = self.rundir.facts["programs"]
        return {
            member: number
            for number, program in enumerate(programs)
            for member in program["members"]
        }

    def end_of(self, member: int) -> Path:
        """The snapshot of a member's end, or the newest one if it has not ended."""
        program = self.programs[member]
        if program not in self._unread:
            self._unread[program] = iter(
                [*self.rundir.final_snapshots(program), *self.rundir.latest_snapshots(program)]
            )
        while member not in self._ended:
            path = next(self._unread[program], None)
            if path is None:
                raise RavineError(f"{self.rundir.path} holds no snapshot of member {member}")
            if not (path / "manifest.json").is_file():
                continue  # its writing was interrupted: the one before it counts
            for other in snapshot.facts(path)["members"]:
                self._ended.setdefault(other, path)
        return self._ended[member]


class Stored:
    """Member ``member`` of a run directory.

    ``module`` is the module, or the function that makes one, of a run whose model was given in
    Python; ``own`` are functions and classes of your own that its recipe names, in a list or by
    name.
    """

    def __init__(
        self,
        directory: str | Path | Opened,
        member: int = 0,
        *,
        module: nn.Module | Callable[[], nn.Module] | None = None,
        own: Any = (),
    ):
        opened = (
            directory
            if isinstance(directory, Opened)
            else Opened(open_with(directory, own, module))
        )
        self._opened, self._rundir = opened, opened.rundir
        recipes = self._rundir.recipes
        if not 0 <= member < len(recipes):
            raise InputError(
                "member",
                got=member,
                expected=f"a number under {len(recipes)}: the members of {self._rundir.path}",
            )
        self.directory: Path = self._rundir.path
        self.member = member
        self.recipe: Recipe = recipes[member]
        self._module = module if module is not None else module_in_files(self.recipe.model)

    def check_trust(self) -> None:
        """Refuse to read the data that the recipe names, of a directory that was made elsewhere."""
        self._rundir.check_trust()

    @property
    def slots(self) -> dict[str, Tensor]:
        """The final arrays of the member: theta, optimiser slots, averages, buffers, each one
        row."""
        arrays, facts = self._final
        row = facts["members"].index(self.member)
        return {
            name: tensor[row]
            for name, tensor in arrays.items()
            # what belongs to single members (where one goes back to) or to steps has no rows
            if not name.startswith(("good/", "epoch_"))
            and tensor.dim()
            and len(tensor) == len(facts["members"])
        }

    @property
    def _final(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The snapshot of the member's end, or the newest one if it has not ended."""
        return self._opened.read(self._opened.end_of(self.member))

    @property
    def _program(self) -> int:
        return self._opened.programs[self.member]

    @property
    def preprocessing(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The statistics fitted to the training data: tensors, and plain facts."""
        return self._opened.read(self._rundir.data_path(self._program))

    @cached_property
    def pipeline(self) -> Pipeline:
        """What prepares inputs, from the statistics stored with the run; the data need not be
        there."""
        with sound(self.directory):
            return Pipeline.from_state(self.recipe.data, *self.preprocessing, dtype=self._dtype)

    @cached_property
    def model(self) -> nn.Module:
        """The trained network, an ordinary ``nn.Module`` in evaluation mode; a module given in
        Python is that module itself."""
        arrays, facts = self._final
        row = facts["members"].index(self.member)
        prefix = "final_buffer/" if "final" in arrays else "buffer/"
        with sound(self.directory):
            buffers = {
                name.removeprefix(prefix): values[row]
                for name, values in arrays.items()
                if name.startswith(prefix)
            }
        return with_weights(self._blank().to(self._dtype), self.theta, buffers, self._loss)

    def _loss(self) -> nn.Module:
        require([self.recipe.loss], f"ravine.Run({str(self.directory)!r}, own=[{{}}])")
        counts = self.pipeline.class_counts().int().tolist()
        return build_loss(self.recipe.loss, self.pipeline.task, counts=counts)

    @property
    def theta(self) -> Tensor:
        """The weights [D] with which the member ended: averaged or best ones where they were kept."""
        slots = self.slots
        return slots["final"] if "final" in slots else slots["theta"]

    @cached_property
    def layout(self) -> Layout:
        """Where each tensor of the network lies in ``theta``."""
        return layout_of(self.model)

    @property
    def _dtype(self) -> torch.dtype:
        return theta_dtype(self.recipe.precision)

    def _blank(self) -> nn.Module:
        if self._module is not None:
            module = self._module if isinstance(self._module, nn.Module) else self._module()
            module = shaped(module, self.pipeline.input_shape, self.pipeline.vocabulary is not None)
            fitted = fitted_module(module, self.recipe, self.pipeline.outputs)
            facts = self.pipeline.preparation.facts
            return spread(fitted, facts, always=self.recipe.step is None)
        if self.recipe.model.kind == "module":
            raise InputError(
                "model",
                got=f"a run of the Python module {self.recipe.model.name}",
                expected="that module again",
                repair=f"in Python ravine.Run({str(self.directory)!r}, module=...); on the command line "
                f"--with FILE.py, where {self.recipe.model.name} is defined",
            )
        require([self.recipe.model], f"ravine.Run({str(self.directory)!r}, own=[{{}}])")
        p = self.pipeline
        return build(
            fitted_model(self.recipe, p.outputs),
            p.input_shape,
            p.outputs,
            vocabulary=p.vocabulary,
            seed=self.recipe.seed,
            dtype=self._dtype,
        )


def how_to_resume(rundir: RunDir) -> str:
    """The line that continues a run: what no file holds must be brought again."""
    recipes = rundir.recipes
    names = dict.fromkeys(part.kind.removeprefix(PREFIX) for r in recipes for part in own_parts(r))
    again = [f"own=[{', '.join(names)}]"] if names else []
    again += ["model=…"] if recipes[0].model.kind == "module" else []
    again += ["data=…"] if recipes[0].data.source.kind == "arrays" else []
    line = f"ravine resume {rundir.path}"
    if not again:
        return line
    python = f"ravine.resume({str(rundir.path)!r}, {', '.join(again)})"
    return python if len(again) > bool(names) else f"{line} --with FILE.py, or {python},"
