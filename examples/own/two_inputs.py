"""A network of two inputs: numbers and a category meet in one layer."""

import torch
from torch import nn

import ravine

generator = torch.Generator().manual_seed(0)
numbers = torch.randn(2000, 4, generator=generator)
category = torch.randint(0, 6, (2000,), generator=generator)
sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])[category]
answer = (sign * numbers.sum(1) > 0).long()  # neither input says it alone


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 8)
        self.layers = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, numbers, category):
        return self.layers(torch.cat([numbers, self.embed(category)], 1))


AGAIN = {"model": TwoInputs, "data": ((numbers, category), answer)}


def main(out=None, quiet=False):
    return ravine.train(**AGAIN, lr=0.01, epochs=15, out=out, quiet=quiet)


def target(run):
    few = run.predict((numbers[:5], category[:5]))
    return run.result["test_accuracy"] > 0.93 and few.shape == (5,)


if __name__ == "__main__":
    print(target(main()))
