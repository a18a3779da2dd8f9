"""Contrastive pairs, as SimCLR has them: two noisy views of a digit lie close, others apart."""

import torch
from torch import nn
from torch.nn import functional as F

import ravine


def encoder():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))


AGAIN = {"model": encoder}


def view(x):
    kept = torch.rand(x.shape, device=x.device) > 0.15
    return x * kept + 0.1 * torch.randn(x.shape, device=x.device)


def pairs(model, batch, temperature=0.1):
    one, two = (F.normalize(model(view(batch.x)), dim=1) for _ in range(2))
    scores = one @ two.T / temperature  # [B, B]
    own = torch.arange(len(scores), device=scores.device)
    found = (scores.argmax(1) == own).float().mean()
    loss = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    return {"loss": loss, "found": found}


def main(out=None, quiet=False):
    return ravine.train(
        data="digits", preprocess="minmax", model=encoder, step=pairs, lr=3e-3, epochs=20,
        out=out, quiet=quiet,
    )  # fmt: skip


def target(run):
    """Of 360 digits half find their other view; by chance it would be one."""
    return run.result["test_found"] > 0.5


if __name__ == "__main__":
    print(target(main()))
