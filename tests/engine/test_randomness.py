"""Global random numbers, of which a person's Dataset or module may draw."""

from __future__ import annotations

import traceback

import pytest
import torch
from torch import nn

import ravine
from ravine import Recipe
from ravine.randomness import seed_globally


class Draws(nn.Module):
    """A module that draws from PyTorch's global generator."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(x + 0.1 * torch.randn(x.shape))


class Drawn(torch.utils.data.Dataset):
    """Samples that differ each time that they are asked for."""

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return torch.randn(2), i % 2


def test_seeds_are_those_of_pytorch():
    torch.manual_seed(5)
    expected = torch.randn(3)
    seed_globally(5)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="its generators are seeded too")
@pytest.mark.parametrize("draws", ["module", "samples"])
def test_a_step_that_draws_globally_notes_no_stack(draws, tmp_path, monkeypatch):
    """Which torch.manual_seed does, three times a call, and takes longer than a small step."""
    recipe = Recipe(data={"batch": 10}, stop={"after": "2ep"}, threads=1)
    x, y = torch.randn(40, 2), torch.arange(40) % 2
    monkeypatch.setattr(ravine.data.objects.stream, "reading_processes", lambda: 0)
    noted = []
    whole = traceback.format_stack
    monkeypatch.setattr(
        traceback, "format_stack", lambda *a, **k: noted.append(1) or whole(*a, **k)
    )
    model, data = {"module": (Draws(), (x, y)), "samples": (nn.Linear(2, 2), Drawn())}[draws]
    ravine.train(recipe, model=model, data=data, out=tmp_path, quiet=True, doctor=False)
    assert len(noted) < 8  # by what prepares the run
