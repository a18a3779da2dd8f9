"""A loss of one's own: the pinball loss, whose minimum is a quantile of the target."""

import torch

import ravine

generator = torch.Generator().manual_seed(0)
x = torch.rand(2000, 1, generator=generator)
y = x + x * torch.randn(2000, 1, generator=generator)  # the spread grows with x
AGAIN = {"data": (x, y)}  # what no file holds, to resume with


def pinball(output, target, quantile=0.9):
    error = target - output
    return torch.maximum(quantile * error, (quantile - 1) * error)


def main(out=None, quiet=False):
    return ravine.train(
        data=(x, y), loss=pinball, model={"kind": "mlp", "hidden": [32]}, lr=0.01, epochs=30,
        out=out, quiet=quiet,
    )  # fmt: skip


def target(run):
    """Nine tenths of the targets lie below the predicted quantile."""
    below = float((y.numpy() < run.predict(x)).mean())
    return abs(below - 0.9) < 0.03


if __name__ == "__main__":
    print(target(main()))
