"""The doctor in Python: ``ravine.diagnose`` and ``ravine.prove``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ravine.doctor.cures import trial
from ravine.doctor.cures.cure import Cure
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import Diagnosis
from ravine.doctor.judgement import judge
from ravine.engine.inputs import resolve_inputs
from ravine.recipe import Recipe


def diagnose(
    subject: Recipe | str | Path, *, model: Any = None, data: Any = None, member: int = 0
) -> Diagnosis:
    """Name what is wrong with a recipe, a recipe file or a run directory.

    A recipe is examined by checks before the first step, one probe of the untrained network, up to
    200 steps and short experiments; a run is judged by what it has measured.

    Args:
        subject: a recipe, the path of a recipe file, or of a run directory.
        model: the module (or function that makes one) that was given to ``train``.
        data: the arrays that were given to ``train``.
        member: of a run, which member; those that differ by their seeds alone are judged with it.

    Returns:
        The verdict, ``healthy``, ``sick`` or ``uncertain``, with ranked findings.

    Raises:
        InputError: the recipe, its data or the run directory cannot be read.

    >>> diagnose(Recipe(model="softmax", data={"source": "blobs"}, optimizer={"kind": "sgd", "lr": 1e-7})).codes[0]
    'lr_too_low'
    """
    if not isinstance(subject, Recipe) and Path(subject).is_dir():
        module = model if not isinstance(model, str | dict | list | tuple) else None
        return judge(subject, member=member, module=module, arrays=data)
    recipe, module, arrays = resolve_inputs(
        subject if isinstance(subject, Recipe) else Recipe.load(subject), model, data, {}
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
