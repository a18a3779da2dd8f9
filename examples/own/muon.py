"""Optimisers from PyTorch: Muon for the matrices, AdamW for the vectors of each member."""

import torch

import ravine

AGAIN = {}


def muon(parameters, lr=0.02):
    parameters = list(parameters)
    return [
        torch.optim.Muon([p for p in parameters if p.dim() == 2], lr=lr),
        torch.optim.AdamW([p for p in parameters if p.dim() != 2], lr=lr / 10),
    ]


def main(out=None, quiet=False):
    return ravine.train(
        data="digits", model={"kind": "mlp", "hidden": [64]}, optimizer=muon, schedule="cosine",
        epochs=8, out=out, quiet=quiet,
    )  # fmt: skip


def target(run):
    return run.result["test_accuracy"] > 0.94


if __name__ == "__main__":
    print(target(main()))
