"""Distillation: a small network learns the soft answers of a larger one that is trained already."""

import tempfile
from pathlib import Path

from torch.nn import functional as F

import ravine

AGAIN = {}
_TEACHER = []


def teacher(x):
    """The larger network, trained once."""
    if not _TEACHER:
        out = Path(tempfile.mkdtemp()) / "teacher"
        large = {"kind": "mlp", "hidden": [256]}
        run = ravine.train(data="digits", model=large, lr=3e-3, epochs=12, out=out, quiet=True)
        _TEACHER.append(run.model.requires_grad_(False))
    return _TEACHER[0](x)


def distil(model, batch, temperature=3.0, share=0.7):
    x, y = batch
    own, soft = model(x), F.softmax(teacher(x) / temperature, 1)
    hints = F.cross_entropy(own / temperature, soft) * temperature**2
    return {"loss": share * hints + (1 - share) * F.cross_entropy(own, y), "hints": hints}


def main(out=None, quiet=False):
    teacher_first = ravine.Recipe(data={"source": "digits"}, step=distil)
    small = {"model": {"kind": "mlp", "hidden": [16]}, "optimizer.lr": 0.01, "stop.after": "15ep"}
    return ravine.train(teacher_first.edit(small), out=out, quiet=quiet)


def target(run):
    return run.result["test_accuracy"] > 0.92


if __name__ == "__main__":
    print(target(main()))
