"""Ravine trains deep networks on PyTorch: techniques, populations, a doctor, pictures."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravine.version import VERSION

# Threads of PyTorch's kernels wait for each other by spinning, some milliseconds before they sleep. Beside
# other programs they take that time from the very threads that they wait for. With a third of libgomp's own
# number a busy machine trains three times as fast, a quiet one as before (docs/speed.md). It is read once,
# when PyTorch is loaded: a program that imports torch first keeps what it has.
if "torch" not in sys.modules:
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")

if TYPE_CHECKING:
    from ravine.doctor.api import diagnose, prove
    from ravine.engine.run import Run
    from ravine.errors import InputError, RavineError
    from ravine.interop.cross_validation import cross_validate
    from ravine.interop.estimator import RavineClassifier, RavineRegressor
    from ravine.interop.watch import watch
    from ravine.optim.scaling import scaled_lr
    from ravine.recipe import Recipe
    from ravine.registering import technique
    from ravine.study.advise.study import advise
    from ravine.study.babysit.study import babysit
    from ravine.study.compare.study import compare
    from ravine.study.ensemble.study import Ensemble, ensemble
    from ravine.study.features.study import features
    from ravine.study.gradcheck.study import gradcheck
    from ravine.study.landscape.study import landscape
    from ravine.study.lottery.study import lottery
    from ravine.study.lr.study import lr
    from ravine.study.search.study import search
    from ravine.study.signals.study import signals
    from ravine.training.train import resume, train, train_many

_HOMES = {
    "Ensemble": "study.ensemble.study",
    "InputError": "errors",
    "RavineClassifier": "interop.estimator",
    "RavineError": "errors",
    "RavineRegressor": "interop.estimator",
    "Recipe": "recipe",
    "Run": "engine.run",
    "cross_validate": "interop.cross_validation",
    "diagnose": "doctor.api",
    "prove": "doctor.api",
    "resume": "training.train",
    "scaled_lr": "optim.scaling",
    "technique": "registering",
    "train": "training.train",
    "train_many": "training.train",
    "watch": "interop.watch",
}
__all__ = [
    "Ensemble",
    "InputError",
    "RavineClassifier",
    "RavineError",
    "RavineRegressor",
    "Recipe",
    "Run",
    "advise",
    "babysit",
    "compare",
    "cross_validate",
    "diagnose",
    "ensemble",
    "features",
    "gradcheck",
    "landscape",
    "lottery",
    "lr",
    "prove",
    "resume",
    "scaled_lr",
    "search",
    "signals",
    "technique",
    "train",
    "train_many",
    "watch",
]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that recipes and the command line do not wait
    for torch. Studies are found by their declarations."""
    if name in _HOMES:
        return getattr(import_module(f"ravine.{_HOMES[name]}"), name)
    place = Path(__file__).parent / name
    if not (name.startswith("_") or place.is_dir() or place.with_suffix(".py").is_file()):
        studies = import_module("ravine.study.signature").declarations()
        if name in studies:
            return studies[name].function()
    raise AttributeError(f"module 'ravine' has no attribute {name!r}")
