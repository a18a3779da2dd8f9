"""A GAN on a cloud of points: each network has its own loss and its own optimiser."""

import torch
from torch import nn
from torch.nn import functional as F

import ravine

generator = torch.Generator().manual_seed(0)
cloud = torch.randn(4000, 2, generator=generator)
points = cloud @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]) + torch.tensor([2.0, -1.0])


def network(inputs, outputs):
    layers = [nn.Linear(inputs, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(32, outputs))


class GAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = network(8, 2), network(2, 1)


AGAIN = {"model": GAN, "data": points}


def play(model, batch):
    fake = model.generator(torch.randn(len(batch.x), 8))
    on_real, on_fake = model.discriminator(batch.x), model.discriminator(fake.detach())
    yield "discriminator", F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    yield "generator", F.softplus(-model.discriminator(fake)).mean()


def optimizers(model, lr=1e-3):
    parts = (("generator", lr), ("discriminator", 2 * lr))
    return {
        n: torch.optim.Adam(getattr(model, n).parameters(), rate, (0.5, 0.99)) for n, rate in parts
    }


def main(out=None, quiet=False):
    return ravine.train(
        data=points, model=GAN, step=play, optimizer=optimizers, epochs=25, out=out, quiet=quiet
    )


def target(run):
    """What the generator draws has the mean and the covariance of the points, about."""
    drawn = run.model.generator(torch.randn(2000, 8, generator=generator)).detach()
    shift = (drawn.mean(0) - points.mean(0)).abs().max()
    return float(shift) < 0.4 and float((drawn.T.cov() - points.T.cov()).abs().max()) < 0.5


if __name__ == "__main__":
    print(target(main()))
