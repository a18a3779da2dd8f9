"""A variational autoencoder of digits: the step gives the bound, and records its divergence."""

import torch
from torch import nn
from torch.nn import functional as F

import ravine


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


AGAIN = {"model": VAE}


def bound(model, batch):
    pixels = batch.x.flatten(1)
    output, mean, log_variance = model(batch.x)
    rebuilt = F.binary_cross_entropy_with_logits(output, pixels, reduction="none").sum(1)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return {"loss": rebuilt + kl, "kl": kl.mean()}


def main(out=None, quiet=False):
    return ravine.train(
        data="digits", preprocess="minmax", model=VAE, step=bound, lr=3e-3, epochs=20,
        out=out, quiet=quiet,
    )  # fmt: skip


def target(run):
    """Below what the pixels' own means give (29 nats), and the code is used."""
    return run.result["test_loss"] < 27 and run.result["test_kl"] > 1


if __name__ == "__main__":
    print(target(main()))
