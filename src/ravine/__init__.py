"""Ravine trains deep networks on PyTorch: techniques, populations, a doctor, pictures."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ravine.version import VERSION

if TYPE_CHECKING:
    from ravine.app.doctor import diagnose, prove
    from ravine.engine.run import Run
    from ravine.errors import InputError, RavineError
    from ravine.interop.estimator import RavineClassifier, RavineRegressor
    from ravine.interop.watch import watch
    from ravine.optim.scaling import scaled_lr
    from ravine.recipe import Recipe
    from ravine.training import resume, train, train_many

_HOMES = {
    "InputError": "errors",
    "RavineClassifier": "interop.estimator",
    "RavineError": "errors",
    "RavineRegressor": "interop.estimator",
    "Recipe": "recipe",
    "Run": "engine.run",
    "diagnose": "app.doctor",
    "prove": "app.doctor",
    "resume": "training",
    "scaled_lr": "optim.scaling",
    "train": "training",
    "train_many": "training",
    "watch": "interop.watch",
}
__all__ = [
    "InputError",
    "RavineClassifier",
    "RavineError",
    "RavineRegressor",
    "Recipe",
    "Run",
    "diagnose",
    "prove",
    "resume",
    "scaled_lr",
    "train",
    "train_many",
    "watch",
]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that recipes and the command line do not wait
    for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ravine' has no attribute {name!r}")
    return getattr(import_module(f"ravine.{_HOMES[name]}"), name)
