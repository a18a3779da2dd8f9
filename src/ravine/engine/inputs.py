"""What a call says in keywords, models and data, as a recipe; and what no recipe can hold."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ravine.catalogue import durations
from ravine.catalogue.own import is_needed, model_code, name_of
from ravine.catalogue.part import Part
from ravine.engine.given_model import unwrapped, warn_of_steps
from ravine.engine.programs import Model
from ravine.engine.weights import finetune, published
from ravine.errors import InputError
from ravine.nn.loss.own_loss import is_binary
from ravine.optim.rows.planned_rates import tabulate, tabulate_torch
from ravine.recipe import Recipe, from_keywords
from ravine.registering import module_in_files, renewed, require


def resolve_inputs(
    recipe: Recipe, model: Any, data: Any, fields: dict[str, Any]
) -> tuple[Recipe, Model, Any]:
    """The recipe with everything given in keywords; the module and the arrays that no recipe can
    hold."""
    module, arrays = None, None
    model = unwrapped(model)
    _check_model(model)
    step = fields.get("step") or recipe.step
    warn_of_steps(model, step)
    _check_loss(fields.get("loss"), step)
    if isinstance(model, nn.Module) or (
        callable(model) and not isinstance(model, str | dict | list)
    ):
        module = model
        model = {"kind": "module", "name": name_of(model), "code": model_code(model)}
    if (
        data is not None
        and not isinstance(data, str)
        and not (isinstance(data, dict) and "kind" in data)
    ):
        _check_target(data, fields.get("target"))
        arrays, data = data, "arrays"
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = (
            {"kind": "layers", "layers": model} if isinstance(model, list | tuple) else model
        )
    if data is not None:
        changes["data.source"] = data
    recipe = finetune.with_stored_model(_with_keywords(renewed(recipe).edit(changes), fields))
    recipe = published.completed(recipe)
    source = recipe.data.source
    if source.kind == "arrays" and source.arguments["task"] == "auto" and _is_binary(recipe.loss):
        recipe = recipe.edit({"data.source.task": "binary"})
    return recipe, module, arrays


def _is_binary(loss: Part) -> bool:
    """Whether targets 0.0 and 1.0 are two classes to a loss, as PyTorch has them."""
    own = getattr(loss.technique, "own", None)
    return loss.kind == "binary_cross_entropy" or (own is not None and is_binary(own.target))


def _check_loss(loss: Any, step: Any) -> None:
    if step is not None and loss is not None and not isinstance(loss, dict):
        raise InputError(
            "loss",
            got=f"{name_of(loss) if callable(loss) else loss} beside step=",
            expected="one of the two: a step gives its own loss",
            repair="call it in the step, or leave step= out",
        )


def _with_keywords(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """The recipe with ``train``'s keywords; a schedule that is a function of (epoch, lr) is
    tabulated over the epochs."""
    function: Any = fields.get("schedule")
    form = _schedule_form(function)
    if form is None:
        return from_keywords(recipe, fields)
    recipe = from_keywords(
        recipe, {name: value for name, value in fields.items() if name != "schedule"}
    )
    amount, unit = durations.parse(recipe.stop.after)
    lr = recipe.optimizer.lr
    if form == "optimizer":
        return recipe.edit({"schedule": tabulate_torch(function, math.ceil(amount), unit, lr)})
    if unit != "ep":
        got = f"a function of (epoch, lr), and an end after {recipe.stop.after}"
        raise InputError("schedule", got=got, expected="an end in epochs", repair="set epochs")
    return recipe.edit({"schedule": tabulate(function, math.ceil(amount), lr)})


def _schedule_form(function: Any) -> str | None:
    """``epoch`` for a function of (epoch, lr), ``optimizer`` for one of an optimiser and for a class
    of PyTorch's: both are tabulated, so that the recipe says it all. None for anything else."""
    if not callable(function) or isinstance(function, Part):
        return None
    if isinstance(function, type) and issubclass(function, LRScheduler):
        return "optimizer"
    try:
        needs = [p.name for p in inspect.signature(function).parameters.values() if is_needed(p)]
    except (TypeError, ValueError):
        return "epoch"
    named = needs[:1] and (needs[0].startswith("opt") or isinstance(function, functools.partial))
    if len(needs) == 1 and (named or _makes_scheduler(function)):
        return "optimizer"
    return "epoch" if len(needs) == 2 else None


def _makes_scheduler(function: Any) -> bool:
    """Whether a function of anything takes an optimiser and gives a scheduler for it."""
    if isinstance(function, type):
        return False
    try:
        made = function(torch.optim.SGD([torch.zeros(1, requires_grad=True)], momentum=0.9))
    except Exception:  # a function of something else may fail in any way
        return False
    return isinstance(made, LRScheduler)


def _check_target(data: Any, target: Any) -> None:
    """The column to predict of a table in Python is found by its name, which resuming must find again."""
    if not isinstance(target, str):
        return
    frame = hasattr(data, "columns")
    renamed = (
        f"data.rename(columns={{{target!r}: 'y'}})" if frame else f"data with {target!r} called y"
    )
    raise InputError(
        "target",
        got=f"{target!r} beside data given in Python",
        expected="a table whose column to predict is called y, target or label; or (x, y)",
        repair=f"{renamed}; target= names a column of a file or of a DataFrame: ravine.train(frame, target={target!r})",
    )


def _check_model(model: Any) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model",
            got="a scripted module",
            expected="an ordinary nn.Module",
            repair="script it after training",
        )
    if callable(model) and not isinstance(model, nn.Module):
        needs = [p.name for p in inspect.signature(model).parameters.values() if is_needed(p)]
        if needs:
            expected = "a module, or a function without arguments that makes one"
            raise InputError(
                "model",
                got=f"a function of {', '.join(needs)}",
                expected=expected,
                repair="wrap it in a lambda",
            )


def check_given_again(recipe: Recipe, module: Model, arrays: Any, directory: Any) -> None:
    """What no file holds must be given again: the model, the arrays, and the recipe's own parts."""
    require([recipe], f"ravine.resume({str(directory)!r}, own=[{{}}])")
    missing = recipe.model.kind == "module" and module is None
    if missing and module_in_files(recipe.model) is None:
        raise InputError(
            "model",
            got=f"a run of the Python module {recipe.model.name}",
            expected="that module again",
            repair="in Python ravine.resume(run, model=...); on the command line --with FILE.py, where "
            f"{recipe.model.name} is defined",
        )
    if recipe.data.source.kind == "arrays" and arrays is None:
        raise InputError(
            "data",
            got="a run of arrays given in Python",
            expected="the same arrays again",
            repair="resume it in Python: ravine.resume(run, data=...)",
        )
