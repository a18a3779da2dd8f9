"""What the crash tests train: five programs with dropout, shuffling and augmentation on, alone and
as eight members.

``python crash.py PROGRAM MEMBERS DIRECTORY`` trains, or resumes where the directory exists, with a
snapshot at every block.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ravine import Recipe

TEXT = "to be or not to be, that is the question: whether tis nobler in the mind to suffer\n" * 20
PROGRAMS = {
    "digits": {
        "model": {"kind": "mlp", "hidden": [16, 12], "dropout": 0.3},
        "data": {"batch": 48, "augment": ["shift"]},
    },
    "ragged": {  # steps of 4 + 1 batches of 60, the last one of each epoch incomplete
        "model": {"kind": "mlp", "hidden": [8], "dropout": 0.1},
        "data": {"batch": 60},
        "accumulate": 4,
        "loss": {
            "l1": 1e-3,
            "l1_step": "proximal",
            "class_weights": [0.5 * (i + 1) for i in range(10)],
        },
    },
    "lenet": {
        "data": {"batch": 64, "augment": ["shift"]},
        "model": {
            "layers": [
                {"kind": "conv", "channels": 4, "kernel": 5, "padding": "same"},
                "relu",
                {"kind": "maxpool", "size": 2},
                "flatten",
                {"kind": "dense", "units": 16},
                "relu",
                {"kind": "dropout", "rate": 0.4},
                {"kind": "dense", "units": 10},
            ]
        },
    },
    "resnet": {
        "data": {"batch": 96, "augment": ["shift"]},
        "model": {"kind": "resnet", "depth": 8, "width": 4},
    },
    "lstm": {
        "data": {"batch": 8},
        "model": {"kind": "char_lstm", "units": 12, "layers": 2, "dropout": 0.25},
    },
}


def recipes(program: str, members: int, directory: Path, epochs: int = 2) -> list[Recipe]:
    said = PROGRAMS[program]
    data = dict(said["data"])
    if program == "lstm":
        text = directory.parent / "text.txt"
        if not text.exists():
            text.write_text(TEXT)
        data["source"] = {"kind": "text", "path": str(text), "length": 12}
    kinds = ["adam", "sgd", "nadam" if program == "ragged" else "rmsprop", "adamw"]
    common = {
        "average": {"ema": 0.9},
        "stop": {"after": f"{epochs}ep", "best": True},
        "threads": 1,
        "precision": "float32",
    }
    return [
        Recipe(
            name=program,
            seed=seed,
            model=said["model"],
            data=data,
            optimizer={
                "kind": kinds[seed % 4],
                "lr": 1e-3 * (1 + seed),
                "accumulate": said.get("accumulate", 1),
            },
            loss={"kind": "cross_entropy", **said.get("loss", {})},
            schedule={"kind": "cosine", "warmup": "10%"},
            **common,
        )
        for seed in range(members)
    ]


def main(program: str, members: int, directory: Path) -> None:
    import ravine
    from ravine.engine.loop import loop

    loop.BLOCK_SECONDS = loop.SNAPSHOT_SECONDS = 0.0
    if (directory / "recipe.json").exists():
        ravine.resume(directory, quiet=True)
    else:
        ravine.train_many(recipes(program, members, directory), out=directory, quiet=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
