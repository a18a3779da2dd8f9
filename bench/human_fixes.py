"""The human fixes of the public cases, in the fields of a case: only those that the fix changes.

``prove: False`` stands where the fix cannot be proved on the case's own data or metric: the fix of
SO-48251943 has the higher loss, and the accuracy of SO-58609115's fix counts 69 outputs that are
nearly all zero.
"""

from __future__ import annotations

from typing import Any


def _dense(units: int, activation: str, init: str = "glorot_uniform") -> dict[str, Any]:
    return {
        "type": "dense",
        "units": units,
        "activation": activation,
        "kernel_init": init,
        "bias_init": "zeros",
    }


def _dropout(rate: float) -> dict[str, Any]:
    return {"type": "dropout", "rate": rate}


_SMALL, _NORMAL = "uniform(-0.05,0.05)", "normal(0,0.05)"

FIXES: dict[str, dict[str, Any]] = {
    "SO-44164749": {"lr": 0.05},
    "SO-50306988": {"lr": 0.1},
    "SO-48251943": {"layers": [_dense(4, "relu"), _dense(1, "tanh")], "prove": False},
    "SO-38648195": {
        "layers": [
            _dense(20, "relu"),
            _dropout(0.5),
            _dense(20, "relu"),
            _dropout(0.5),
            _dense(3, "sigmoid"),
        ],
        "loss": "binary_crossentropy",
    },
    "SO-34311586": {
        "layers": [
            _dense(2, "sigmoid", _SMALL),
            _dense(3, "sigmoid", _SMALL),
            _dense(1, "sigmoid", _SMALL),
        ],
        "lr": 0.1,
    },
    "SO-39525358": {"preprocess": "standardize"},
    "SO-47724077": {"preprocess": "standardize"},
    "SO-59278771": {
        "layers": [
            _dense(4, "relu", _NORMAL),
            _dense(8, "relu", _NORMAL),
            _dense(3, "softmax", _NORMAL),
        ],
        "preprocess": "minmax",
    },
    "SO-34673164": {
        "layers": [
            {"type": "batch_normalization"},
            _dense(64, "tanh", _SMALL),
            _dropout(0.5),
            _dense(64, "tanh", _SMALL),
            _dropout(0.5),
            _dense(2, "sigmoid", _SMALL),
        ],
        "loss": "binary_crossentropy",
    },
    "SO-48221692": {"layers": [_dense(5, "sigmoid"), _dense(1, "linear")]},
    "SO-44066044": {
        "layers": [
            _dense(12, "relu", _NORMAL),
            _dense(12, "relu", _NORMAL),
            _dense(1, "sigmoid", _NORMAL),
        ],
        "preprocess": "standardize",
    },
    "SO-45442843": {
        "layers": [_dense(1, "sigmoid"), _dense(1, "sigmoid", _NORMAL)],
        "loss": "binary_crossentropy",
        "optimizer": {"name": "adam"},
    },
    "SO-48594888": {"preprocess": "rescale", "epochs": 10},
    "SO-31627380": {"optimizer": {"name": "sgd"}, "lr": 0.01},
    "SO-58609115": {
        "layers": [
            _dense(69, "sigmoid", _NORMAL),
            _dense(69, "sigmoid", _NORMAL),
            _dense(69, "sigmoid", _NORMAL),
        ],
        "loss": "binary_crossentropy",
        "prove": False,
    },
    "SO-51181393": {"lr": 0.1},
    "M1": {"lr": 1.0},
}
