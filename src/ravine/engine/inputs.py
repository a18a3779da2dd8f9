"""What a call says in keywords, models and data, as a recipe; and what no recipe can hold."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from ravine import durations
from ravine.engine import finetune
from ravine.engine.programs import Model
from ravine.errors import InputError
from ravine.optim.plan import tabulate
from ravine.recipe import Recipe, from_keywords

_NEEDED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def resolve_inputs(
    recipe: Recipe, model: Any, data: Any, fields: dict[str, Any]
) -> tuple[Recipe, Model, Any]:
    """The recipe with everything given in keywords; the module and the arrays that no recipe can
    hold."""
    module, arrays = None, None
    _check_model(model)
    if isinstance(model, nn.Module) or (
        callable(model) and not isinstance(model, str | dict | list)
    ):
        module = model
        name = (
            type(model).__name__
            if isinstance(model, nn.Module)
            else getattr(model, "__name__", "model")
        )
        model = {"kind": "module", "name": name}
    if (
        data is not None
        and not isinstance(data, str)
        and not (isinstance(data, dict) and "kind" in data)
    ):
        arrays, data = data, "arrays"
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = (
            {"kind": "layers", "layers": model} if isinstance(model, list | tuple) else model
        )
    if data is not None:
        changes["data.source"] = data
    return finetune.adopt(_with_keywords(recipe.edit(changes), fields)), module, arrays


def _with_keywords(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """The recipe with ``train``'s keywords; a schedule that is a function of (epoch, lr) is
    tabulated over the epochs."""
    function = fields.get("schedule")
    if not callable(function):
        return from_keywords(recipe, fields)
    recipe = from_keywords(
        recipe, {name: value for name, value in fields.items() if name != "schedule"}
    )
    amount, unit = durations.parse(recipe.stop.after)
    if unit != "ep":
        got = f"a function of (epoch, lr), and an end after {recipe.stop.after}"
        raise InputError("schedule", got=got, expected="an end in epochs", repair="set epochs")
    return recipe.edit({"schedule": tabulate(function, math.ceil(amount), recipe.optimizer.lr)})


def _check_model(model: Any) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model",
            got="a scripted module",
            expected="an ordinary nn.Module",
            repair="script it after training",
        )
    if callable(model) and not isinstance(model, nn.Module):
        needs = [
            p.name
            for p in inspect.signature(model).parameters.values()
            if p.default is p.empty and p.kind in _NEEDED
        ]
        if needs:
            expected = "a module, or a function without arguments that makes one"
            raise InputError(
                "model",
                got=f"a function of {', '.join(needs)}",
                expected=expected,
                repair="wrap it in a lambda",
            )


def check_given_again(recipe: Recipe, module: Model, arrays: Any) -> None:
    if recipe.model.kind == "module" and module is None:
        raise InputError(
            "model",
            got=f"a run of the Python module {recipe.model.name}",
            expected="that module again",
            repair="resume it in Python: ravine.resume(run, model=...)",
        )
    if recipe.data.source.kind == "arrays" and arrays is None:
        raise InputError(
            "data",
            got="a run of arrays given in Python",
            expected="the same arrays again",
            repair="resume it in Python: ravine.resume(run, data=...)",
        )
