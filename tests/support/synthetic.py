"""Run directories with measurements such as training gives, made without training: for the tests of
reports.

``python tests/support/synthetic.py DIRECTORY`` makes one of each kind, to be looked at.
"""

import math
import sys
from pathlib import Path

import numpy as np

from ravine.recipe import Recipe
from ravine.rundir import RunDir

EPOCH_STEPS = 23


def recipe(seed=0, lr=3e-3, epochs=30, **changes):
    recipe = Recipe(
        name="digits",
        seed=seed,
        data={"source": "digits", "batch": 64, "preprocess": ["standardize"]},
        optimizer={"kind": "adam", "lr": lr},
        schedule={"kind": "cosine", "warmup": "5%"},
        stop={"after": f"{epochs}ep", "patience": "8ep"},
    )
    return recipe.edit(changes) if changes else recipe


def measurements(recipe, epochs, *, diverges_at=None, task="classification"):
    """Step losses [epochs * EPOCH_STEPS] and epoch rows as of a real run: fast descent, slow
    descent, overfitting."""
    rng = np.random.default_rng([recipe.seed, int(recipe.optimizer.lr * 1e7)])
    step = np.arange(epochs * EPOCH_STEPS)
    speed = 40 / (1 + 20 * abs(math.log10(recipe.optimizer.lr / 3e-3)))
    clean = 0.02 + 2.28 * np.exp(-step / max(speed, 3) / 1.6) + 0.25 * np.exp(-step / 180)
    losses = clean * np.exp(rng.normal(0, 0.18, len(step)))
    if diverges_at is not None:
        losses[diverges_at:] = np.nan
        losses[max(diverges_at - 12, 0) : diverges_at] *= np.exp(
            np.linspace(0, 9, min(12, diverges_at))
        )
    rows, total = [], recipe_epochs(recipe) * EPOCH_STEPS
    for epoch in range(1, epochs + 1):
        done = epoch * EPOCH_STEPS
        part = losses[done - EPOCH_STEPS : done]
        if diverges_at is not None and done > diverges_at:
            break
        val = clean[done - 1] + 0.06 + 0.0035 * max(epoch - 14, 0) + rng.normal(0, 0.008)
        lr = (
            recipe.optimizer.lr
            * min(1, done / (0.05 * total))
            * (1 + math.cos(math.pi * done / total))
            / 2
        )
        row = {
            "epoch": epoch,
            "step": done,
            "seconds": 0.41 * epoch,
            "train_loss": part.mean(),
            "lr": lr,
        }
        row |= {
            "grad_norm": 0.3 + 2 * clean[done - 1] * math.exp(rng.normal(0, 0.1)),
            "val_loss": val,
        }
        if task == "classification":
            row["val_accuracy"] = max(0.1, 0.99 - 0.33 * val - abs(rng.normal(0, 0.003)))
        else:
            row |= {"val_rmse": math.sqrt(val), "val_r2": 1 - val / 2.4}
        rows.append(row)
    return losses, rows


def recipe_epochs(recipe):
    return int(recipe.stop.after.removesuffix("ep"))


def make_run(
    path, recipes, *, epochs=None, ended=True, diverges_at=None, findings=(), task="classification"
):
    """A run of these recipes; ``diverges_at`` maps members to the step at which they fail."""
    facts = {
        "programs": [{"members": list(range(len(recipes)))}],
        "machine": {"gpu": None, "memory": "24 GiB"},
    }
    run = RunDir.create(path, recipes, facts=facts)
    execution = {
        "device": "cpu",
        "precision": "float32",
        "rows": "together",
        "threads": 2,
        "why": ["small and dense"],
    }
    run.add_event(0, None, "execution", "cpu, float32, 2 threads, members together", execution)
    for member, recipe in enumerate(recipes):
        at = (diverges_at or {}).get(member)
        losses, rows = measurements(
            recipe, epochs or recipe_epochs(recipe), diverges_at=at, task=task
        )
        keep = len(losses) if at is None else at + 1
        run.add_steps(0, [member], losses[:keep, None])
        run.add_epochs([{"member": member, **row} for row in rows])
        if at is not None:
            run.add_event(at, member, "frozen", f"frozen at step {at}: loss nan, gradient norm inf")
        if ended:
            run.set_result(member, result(recipe, losses, rows, diverged=at is not None))
    for step, member, text, data in findings:
        run.add_event(step, member, "finding", text, data)
    return run


def result(recipe, losses, rows, *, diverged):
    if diverged:
        said = {
            "val_loss": math.nan,
            "test_loss": math.nan,
            "train_loss": math.nan,
            "stopped": "diverged",
        }
        return {
            "steps": len(losses),
            "epochs": len(rows),
            "seconds": 0.4 * len(rows),
            "best_step": 0,
            **said,
        }
    best = min(rows, key=lambda row: row["val_loss"])
    measured = {name: value for name, value in best.items() if name.startswith("val_")}
    measured |= {f"test_{name[4:]}": value - 0.004 for name, value in measured.items()}
    early = len(rows) < recipe_epochs(recipe)
    ended = {"steps": rows[-1]["step"], "epochs": rows[-1]["epoch"], "seconds": rows[-1]["seconds"]}
    stopped = f"no better val_loss for {recipe.stop.patience}" if early else "finished"
    return {
        **ended,
        "train_loss": best["train_loss"],
        **measured,
        "stopped": stopped,
        "best_step": best["step"],
    }


FINDING = {
    "code": "overfitting",
    "where": "validation",
    "evidence": "from epoch 14 on validation loss rose from 0.094 to 0.121; training loss fell to 0.031",
    "cause": "The network learns the training samples by heart.",
    "consequences": [
        "validation gets worse while training gets better",
        "the last epochs are wasted",
    ],
    "remedies": [
        {
            "edits": {"optimizer.weight_decay": 0.01, "optimizer.kind": "adamw"},
            "why": "Small weights fit less noise.",
        },
        {
            "edits": {"data.augment": [{"kind": "shift", "pixels": 2}]},
            "why": "Shifted images are new examples.",
        },
    ],
    "strength": 0.7,
    "docs": "docs/doctor.md#overfitting",
}


def make_all(root):
    make_run(
        root / "one",
        [recipe()],
        epochs=24,
        findings=[(552, 0, "overfitting (validation)", FINDING)],
    )
    make_run(root / "five-seeds", [recipe(seed=seed) for seed in range(5)], epochs=24)
    rates = np.geomspace(1e-5, 1, 25)
    wild = {member: 20 + 9 * (25 - member) for member in range(21, 25)}
    make_run(
        root / "rates",
        [recipe(lr=float(f"{rate:.3g}")) for rate in rates],
        epochs=20,
        diverges_at=wild,
    )
    make_run(root / "regression", [recipe()], epochs=30, task="regression")
    make_run(root / "study" / "adam", [recipe(seed=seed) for seed in range(10)], epochs=20)
    make_run(root / "study" / "slow", [recipe(seed=seed, lr=3e-4) for seed in range(10)], epochs=20)
    make_run(root / "stopped", [recipe()], epochs=11, ended=False).close()
    make_run(root / "wild", [recipe(lr=1.0)], diverges_at={0: 31})


if __name__ == "__main__":
    make_all(Path(sys.argv[1]))
