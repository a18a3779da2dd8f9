"""Writes a file of cases in the manner of published ones: deep narrow networks on blobs and
circles, small ones on a table.

    python bench/imitations.py FOLDER
    python bench/doctor.py --cases FOLDER/cases.json [--prove --budget 20]

The faults are those that others' generators plant (vanishing and exploding gradients, dying ReLUs,
rates far off, weights that are all zero or far too large, a penalty that holds everything), in
networks of up to thirteen layers of five units; the controls are the same networks as they should
be. ``fixed`` is what the generator would have written without the fault.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes, make_blobs, make_circles
from sklearn.preprocessing import minmax_scale

ADAM, SGD = {"name": "adam"}, {"name": "sgd"}
Layer = dict[str, Any]


def dense(units: int, activation: str, init: str = "he_uniform", **more: Any) -> Layer:
    return {
        "type": "dense",
        "units": units,
        "activation": activation,
        "kernel_init": init,
        "bias_init": "zeros",
        **more,
    }


def data(folder: Path) -> None:
    """circles.npz, blobs.npz and table.npz, each cut into 70 and 30 %."""
    x, y = make_circles(1000, noise=0.1, random_state=1)
    _write(folder / "circles.npz", minmax_scale(x, (-1, 1)), y)
    x, y = make_blobs(1000, centers=3, random_state=2, cluster_std=2.0)
    _write(folder / "blobs.npz", x, np.eye(3, dtype=np.float32)[y])
    x, y = load_diabetes(return_X_y=True)
    _write(folder / "table.npz", minmax_scale(x), minmax_scale(y)[:, None])


def _write(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    cut = int(0.7 * len(x))
    np.savez(path, x=x[:cut], y=y[:cut], x_val=x[cut:], y_val=y[cut:])


def circles(
    hidden: list[Layer], last: Layer | None = None, *, loss: str = "binary_crossentropy"
) -> dict[str, Any]:
    return {
        "data_file": "circles.npz",
        "layers": [*hidden, last or dense(1, "sigmoid")],
        "loss": loss,
        "epochs": 100,
    }


def blobs(hidden: list[Layer], last: str = "softmax") -> dict[str, Any]:
    return {
        "data_file": "blobs.npz",
        "layers": [*hidden, dense(3, last)],
        "loss": "categorical_crossentropy",
        "epochs": 100,
    }


def table(init: str = "he_normal", l2: float = 1e-5, last: str = "linear") -> dict[str, Any]:
    layers = [
        dense(64, "relu", init, l2=l2),
        dense(64, "relu", init, l2=l2),
        dense(1, last, "glorot_uniform", l2=l2),
    ]
    return {
        "data_file": "table.npz",
        "layers": layers,
        "loss": "mse",
        "epochs": 100,
        "batch_size": 64,
        "metric": "mae",
    }


def cases() -> list[dict[str, Any]]:
    """Twelve controls on circles and blobs and one on the table, then the faults."""
    found: list[dict[str, Any]] = []

    def add(
        name: str,
        program: dict[str, Any],
        optimizer: Layer,
        lr: float,
        label: str = "none",
        fixed: dict[str, Any] | None = None,
    ) -> None:
        common = {
            "id": name,
            "batch_size": 128,
            "metric": "accuracy",
            "is_control": label == "none",
            "fault_labels": [label],
        }
        found.append(
            {
                **common,
                **program,
                "optimizer": optimizer,
                "lr": lr,
                **({"fixed": fixed} if fixed else {}),
            }
        )

    for depth in (2, 4, 7):
        add(
            f"blobs-sigmoid-{depth}",
            blobs([dense(5, "tanh")] * depth, "sigmoid") | {"epochs": 300},
            ADAM,
            0.001,
        )
        add(
            f"blobs-softmax-{depth}",
            blobs([dense(5, "relu")] * depth) | {"epochs": 300},
            ADAM,
            0.001,
        )
        add(
            f"circles-relu-{depth}",
            circles([dense(8, "relu")] * depth) | {"epochs": 300},
            ADAM,
            0.001,
        )
        add(
            f"circles-elu-{depth}",
            circles([dense(8, "elu")] * depth) | {"epochs": 300},
            {"name": "rmsprop"},
            0.001,
        )
    add("table", table(), ADAM, 0.001)

    sound = circles([dense(5, "relu")] * 4)["layers"]
    deep = [dense(5, "sigmoid", "normal(0,0.05)")] * 10
    add(
        "vanish-sigmoid",
        circles(deep),
        SGD,
        0.01,
        "vanishing_gradient",
        {"layers": sound, "optimizer": ADAM},
    )
    tanh = [dense(5, "tanh")] * 12
    small = [dense(5, "tanh", "normal(0,0.05)")] * 12
    add(
        "vanish-tanh",
        circles(small),
        SGD,
        0.01,
        "vanishing_gradient",
        {"layers": circles(tanh)["layers"], "optimizer": ADAM, "lr": 0.001},
    )
    relu_blobs = blobs([dense(5, "relu")] * 4)["layers"]
    add(
        "vanish-blobs",
        blobs(deep),
        SGD,
        0.01,
        "vanishing_gradient",
        {"layers": relu_blobs, "optimizer": ADAM},
    )
    relus = circles([dense(5, "relu")] * 12)["layers"]
    add(
        "dying-relu",
        circles([dense(5, "relu", "normal(0,0.05)")] * 12),
        ADAM,
        0.001,
        "dying_relu",
        {"layers": relus},
    )
    wild = circles([dense(5, "relu", "normal(0,5)")] * 10)
    add(
        "explode",
        wild,
        SGD,
        0.1,
        "exploding_gradient",
        {"layers": sound, "optimizer": ADAM, "lr": 0.01},
    )
    add(
        "oscillate-circles",
        circles([dense(5, "relu")] * 4),
        ADAM,
        1.0,
        "oscillating_loss",
        {"lr": 0.01},
    )
    add(
        "oscillate-blobs", blobs([dense(5, "relu")] * 4), SGD, 5.0, "oscillating_loss", {"lr": 0.01}
    )
    add("slow-circles", circles([dense(5, "tanh")] * 4), SGD, 1e-5, "slow_convergence", {"lr": 0.1})
    add("slow-blobs", blobs([dense(5, "tanh")] * 3), ADAM, 1e-6, "slow_convergence", {"lr": 0.001})
    add("table-rate-high", table(), ADAM, 1.0, "lr_too_high", {"lr": 0.001})
    add("table-rate-low", table(), ADAM, 1e-7, "lr_too_low", {"lr": 0.001})
    add("table-zeros", table("zeros"), ADAM, 0.001, "zero_init", {"layers": table()["layers"]})
    add(
        "table-large-init",
        table("normal(0,10)"),
        ADAM,
        0.001,
        "init_too_large",
        {"layers": table()["layers"]},
    )
    add(
        "table-penalty",
        table(l2=10.0),
        ADAM,
        0.001,
        "over_regularised",
        {"layers": table()["layers"]},
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    data(folder)
    (folder / "cases.json").write_text(json.dumps(cases(), indent=1), encoding="utf-8")
    print(f"{len(cases())} cases in {folder / 'cases.json'}")


if __name__ == "__main__":
    main()
