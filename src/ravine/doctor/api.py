"""The doctor in Python: ``ravine.diagnose`` and ``ravine.prove``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ravine.doctor.cures import trial
from ravine.doctor.cures.cure import Cure
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import Diagnosis
from ravine.doctor.judgement import judge
from ravine.doctor.subject import as_recipe, names_plan
from ravine.engine.inputs import resolve_inputs
from ravine.errors import InputError
from ravine.recipe import Recipe


def diagnose(
    subject: Recipe | str | Path | nn.Module,
    data: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    *,
    model: Any = None,
    member: int = 0,
    **fields: Any,
) -> Diagnosis:
    """Name what is wrong with a recipe, a recipe file, a run directory, or a PyTorch training that has
    not begun yet.

    A recipe or a training is examined by checks before the first step, one probe of the untrained
    network, up to 200 steps of a copy and short experiments; a run is judged by what it has measured.

    Args:
        subject: a recipe, the path of a recipe file, of a run directory, or the module to be trained.
        data: the data that were given to ``train``, or that the module is trained on: ``(x, y)``, a
            ``Dataset`` or a ``DataLoader``; they are used as they are.
        loss: of a module, the loss, a function or module of (output, target).
        optimizer: of a module, the optimiser that holds its parameters, or a class of one.
        model: of a recipe or run, the module (or function that makes one) given to ``train``.
        member: of a run, which member; those that differ by their seeds alone are judged with it.
        fields: of a module or recipe, ``train``'s keywords: ``epochs`` or ``steps``, ``batch``, ``step``, …
            Of a module whose ``epochs`` are not given it is not judged whether they are enough.

    Returns:
        The verdict, ``healthy``, ``sick`` or ``uncertain``, with ranked findings.

    Raises:
        InputError: the recipe, its data or the run directory cannot be read; the optimiser holds
            none of the module's parameters.

    >>> diagnose(Recipe(model="softmax", data={"source": "blobs"}, optimizer={"kind": "sgd", "lr": 1e-7})).codes[0]
    'lr_too_low'
    """
    if isinstance(subject, nn.Module):
        recipe, module, arrays = as_recipe(subject, data, loss, optimizer, fields)
        # its weights are drawn already: other seeds would be the same member again
        return examine(recipe, module=module, arrays=arrays, seeds=1, planned=names_plan(fields))
    named = {"loss": loss, "optimizer": optimizer}
    fields = {name: value for name, value in named.items() if value is not None} | fields
    if not isinstance(subject, Recipe) and Path(subject).is_dir():
        if fields:
            expected = "a recipe or a module to change; a run is judged as it was trained"
            raise InputError("diagnose", got=f"{next(iter(fields))}=", expected=expected)
        given = model if not isinstance(model, str | dict | list | tuple) else None
        return judge(subject, member=member, module=given, arrays=data)
    recipe, module, arrays = resolve_inputs(
        subject if isinstance(subject, Recipe) else Recipe.load(subject), model, data, fields
    )
    return examine(recipe, module=module, arrays=arrays)


def prove(
    recipe: Recipe,
    *,
    model: Any = None,
    data: Any = None,
    budget: float = 20.0,
    diagnosis: Diagnosis | None = None,
    report: trial.Report | None = None,
) -> Cure:
    """Search a cure for a recipe by experiment, and verify it on samples and seeds that did not
    choose it.

    Args:
        recipe: what is to be cured.
        model: the module (or function that makes one) that is given to ``train``.
        data: the arrays that are given to ``train``.
        budget: training steps of all members of the trial, in units of one run of the recipe.
        diagnosis: what ``diagnose`` has found, where that was asked already.
        report: called with the part of the budget that is spent and what is being trained.

    Raises:
        InputError: the budget is too small, or the recipe or its data are wrong.
    """
    recipe, module, arrays = resolve_inputs(recipe, model, data, {})
    case, _, _ = examine_static(recipe, SharedData(module, arrays))
    diagnosis = diagnosis or examine(recipe, module=module, arrays=arrays)
    return trial.prove(
        recipe, diagnosis.leads, case, module=module, arrays=arrays, budget=budget, report=report
    )
