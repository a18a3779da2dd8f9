"""What a run directory holds of one member: its weights, and what prepares its inputs. The data need
not be there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ravine.data.pipeline import Pipeline
from ravine.data.read.cache import look_also_in
from ravine.engine import snapshot
from ravine.engine.execution.device import theta_dtype
from ravine.engine.heads import fitted_model, fitted_module, shaped, spread
from ravine.engine.rows.population import Objective, view
from ravine.errors import InputError, RavineError
from ravine.layout import Layout
from ravine.nn.build import build, build_loss, layout
from ravine.own import model_code
from ravine.recipe import Recipe
from ravine.registering import bring, differences, require
from ravine.rundir import RunDir


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
        for name, buffer in model.named_buffers():
            if f"model.{name}" in buffers:
                buffer.copy_(buffers[f"model.{name}"])
    return model.eval()


def open_with(directory: str | Path, own: Any = (), module: Any = None) -> RunDir:
    """A run directory, with what a person brings for the ``own:`` parts of its recipes; a source that
    is not the stored one is warned of."""
    rundir = RunDir.open(Path(directory))
    if own:
        bring(own, rundir.recipes)
        rundir = RunDir.open(Path(directory))  # its recipes are read with what was brought
    model = rundir.recipes[0].model
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


class Stored:
    """Member ``member`` of a run directory.

    ``module`` is the module, or the function that makes one, of a run whose model was given in
    Python; ``own`` are functions and classes of your own that its recipe names, in a list or by
    name.
    """

    def __init__(
        self,
        directory: str | Path,
        member: int = 0,
        *,
        module: nn.Module | Callable[[], nn.Module] | None = None,
        own: Any = (),
    ):
        self._rundir = open_with(directory, own, module)
        look_also_in(self._rundir.facts.get("directory"))
        recipes = self._rundir.recipes
        if not 0 <= member < len(recipes):
            raise InputError(
                "member",
                got=member,
                expected=f"a number under {len(recipes)}: the members of {directory}",
            )
        self.directory: Path = self._rundir.path
        self.member = member
        self.recipe: Recipe = recipes[member]
        self._module = module

    @property
    def slots(self) -> dict[str, Tensor]:
        """The final arrays of the member: theta, optimiser slots, averages, buffers, each one
        row."""
        arrays, facts = self._final
        row = facts["members"].index(self.member)
        return {
            name: tensor[row]
            for name, tensor in arrays.items()
            if tensor.dim() and len(tensor) == len(facts["members"])
        }

    @cached_property
    def _final(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The snapshot of the member's end, or the newest one if it has not ended."""
        program = self._program
        for path in [
            *self._rundir.final_snapshots(program),
            *self._rundir.latest_snapshots(program),
        ]:
            if self.member in snapshot.facts(path)["members"]:
                return snapshot.read(path)
        raise RavineError(f"{self.directory} holds no snapshot of member {self.member}")

    @cached_property
    def _program(self) -> int:
        programs = self._rundir.facts["programs"]
        return next(
            number for number, program in enumerate(programs) if self.member in program["members"]
        )

    @property
    def preprocessing(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The statistics fitted to the training data: tensors, and plain facts."""
        return snapshot.read(self._rundir.data_path(self._program))

    @cached_property
    def pipeline(self) -> Pipeline:
        """What prepares inputs, from the statistics stored with the run; the data need not be
        there."""
        return Pipeline.from_state(self.recipe.data, *self.preprocessing)

    @cached_property
    def model(self) -> nn.Module:
        """The trained network, an ordinary ``nn.Module`` in evaluation mode; a module given in
        Python is that module itself."""
        arrays, facts = self._final
        row = facts["members"].index(self.member)
        prefix = "final_buffer/" if "final" in arrays else "buffer/"
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
            return spread(fitted, self.pipeline.preparation.facts)
        if self.recipe.model.kind == "module":
            raise InputError(
                "model",
                got=f"a run of the Python module {self.recipe.model.name}",
                expected="that module again",
                repair=f"open it in Python: ravine.Run({str(self.directory)!r}, module=...)",
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
