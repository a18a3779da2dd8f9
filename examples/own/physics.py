"""Physics-informed regression: u'' = -u with u(0) = 0, u'(0) = 1 is learnt without a single u."""

import torch
from torch import nn

import ravine

times = torch.linspace(0, 3, 512)[:, None]


def network():
    return nn.Sequential(
        nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )


AGAIN = {"model": network, "data": times}


def slope(u, t):
    return torch.autograd.grad(u.sum(), t, create_graph=True)[0]


def oscillator(model, batch):
    t = batch.x.clone().requires_grad_()
    start = torch.zeros(1, 1, requires_grad=True)
    u, u_start = model(t), model(start)
    equation = (slope(slope(u, t), t) + u).square().mean()
    begin = u_start.square().sum() + (slope(u_start, start) - 1).square().sum()
    return {"loss": equation + begin, "equation": equation}


def main(out=None, quiet=False):
    return ravine.train(
        data=times, model=network, step=oscillator, lr=5e-3, schedule="cosine", epochs=70,
        test=0.0, out=out, quiet=quiet,
    )  # fmt: skip


def target(run):
    """The solution is the sine."""
    with torch.no_grad():
        return float((run.model(times) - times.sin()).abs().max()) < 0.05


if __name__ == "__main__":
    print(target(main()))
