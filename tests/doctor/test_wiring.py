"""How a person's own program is put together: samples that are mixed, draws in evaluation, gradients that are
kept, weights that nothing changes."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine

N = 256
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long() + (X[:, 2] > 1).long()


def mlp(*head, act=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), act(), nn.Linear(32, 3), *head)


class Own(nn.Module):
    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.run = nn.Linear(6, 32), nn.Linear(32, 3), forward

    def forward(self, x):
        return self.run(self, x)


class Steps(nn.Module):
    """Features as a sequence, read by a recurrent layer."""

    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.GRU(2, 16, batch_first=batch_first)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(x.unflatten(1, (3, 2)))[0][:, -1])


def adam(net, **options):
    return torch.optim.Adam(net.parameters(), lr=1e-2, **options)


def diagnosed(net, loss=None, **options):
    return ravine.diagnose(net, (X, Y), loss or nn.CrossEntropyLoss(), adam(net, **options))


SOUND = {
    "dense": mlp,
    "dropout": lambda: mlp(nn.Dropout(0.1)),
    "F.dropout in training": lambda: Own(
        lambda m, x: m.last(F.dropout(F.relu(m.first(x)), 0.1, m.training))
    ),
    "batch statistics": lambda: nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), mlp()),
    "recurrent": lambda: Steps(True),
}


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_said_of_sound_modules(name):
    found = diagnosed(SOUND[name]())
    said = {finding.code for finding in (*found.findings, *found.notes)}
    assert not said & {"samples_mixed", "random_in_evaluation", "frozen_weights"}, said


def test_a_softmax_over_the_samples_is_named():
    found = diagnosed(mlp(nn.LogSoftmax(0)), nn.NLLLoss())
    assert found.verdict == "sick"
    assert found.codes[0] == "samples_mixed"
    assert "dim=0" in found.findings[0].evidence


NOTED = {
    "a recurrent layer along the samples": (lambda: Steps(False), "samples_mixed"),
    "dropout that never ends": (
        lambda: Own(lambda m, x: m.last(F.dropout(F.relu(m.first(x)), 0.5))),
        "random_in_evaluation",
    ),
    "a detached layer": (
        lambda: Own(lambda m, x: m.last(F.relu(m.first(x)).detach())),
        "frozen_weights",
    ),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_may_be_meant_so_is_a_note_while_it_learns(name):
    make, code = NOTED[name]
    found = diagnosed(make())
    assert code in {finding.code for finding in (*found.findings, *found.notes)}, found


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), lambda o, y: F.cross_entropy(o, y) ** 1.1])
def test_an_optimiser_that_maximises_a_loss_is_named(loss):
    found = diagnosed(mlp(), loss, maximize=True)
    assert found.codes[0] == "wrong_sign"
    assert "maximize=True" in found.findings[0].evidence
    score = lambda output, y: output.log_softmax(1).gather(1, y[:, None]).mean()  # noqa: E731
    assert "wrong_sign" not in diagnosed(mlp(), score, maximize=True).codes


def loop(change, steps=100, given=False, lr=1e-2, every=1):
    """A watched loop, in which ``change`` says what is done before, between and after."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    plan = {"data": (X, Y), "loss": nn.CrossEntropyLoss(), "steps": steps, "batch": 64}
    eye = ravine.watch(net, optimizer, **(plan if given else {}))
    for step in range(steps):
        rows = torch.arange(64) + 64 * (step % 4)
        loss = F.cross_entropy(net(X[rows]), Y[rows])
        if "zero" in change and step % every == 0:
            optimizer.zero_grad("none" in change)
        if "backward" in change:
            loss.backward()
        if "clip" in change:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        eye.step(loss)
        if "step" in change and (step + 1) % every == 0:
            optimizer.step()
    return net, eye.diagnose()


@pytest.mark.parametrize("given", [True, False], ids=["data", "no data"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("backward step", "gradients_kept"),
        ("backward clip step", "gradients_kept"),
        ("zero none backward", "frozen_weights"),
        ("zero none", "frozen_weights"),
    ],
)
def test_a_forgotten_line_of_a_loop_is_named(change, code, given):
    _, found = loop(change, given=given)
    assert found.verdict == "sick", found
    assert found.codes[0] == code, found.codes


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ("zero none backward step", {}),
        ("zero backward step", {}),
        ("zero none backward clip step", {}),
        ("zero none backward step", {"every": 4}),
        ("zero none backward step", {"every": 64, "steps": 200}),
        ("zero none backward step", {"every": 100, "steps": 300}),
        ("zero none backward step", {"lr": 0.0}),
    ],
)
def test_sound_loops_miss_no_line_and_lose_no_number(change, options):
    net, found = loop(change, **options)
    assert not {"gradients_kept", "frozen_weights"} & set(found.codes), found.codes
    assert all(p._backward_hooks is None or not p._backward_hooks for p in net.parameters())


def test_gradients_of_another_networks_loss_are_not_kept_ones():
    real, fake = nn.Linear(3, 1), nn.Linear(3, 3)
    step = partial(torch.optim.SGD, lr=1e-3)
    mine, other = step(real.parameters()), step(fake.parameters())
    eye = ravine.watch(real, mine)
    for _ in range(100):
        made = fake(torch.randn(8, 3))
        mine.zero_grad()
        loss = F.softplus(real(made.detach())).mean()
        loss.backward()
        eye.step(loss)
        mine.step()
        other.zero_grad()
        F.softplus(-real(made)).mean().backward()
        other.step()
    assert "gradients_kept" not in eye.diagnose().codes


class Listed(nn.Module):
    """A network whose middle stands in a plain list."""

    def __init__(self, frozen=False):
        super().__init__()
        self.inner = nn.Module()
        self.inner.middle = [nn.Linear(6, 6).requires_grad_(not frozen)]
        self.last = nn.Linear(6, 3)
        self.shared = {"last": self.last}

    def forward(self, x):
        return self.last(torch.relu(self.inner.middle[0](x)))


def test_layers_in_a_plain_list_are_warned_of_and_named():
    with pytest.warns(UserWarning, match=r"inner\.middle\[0\] in a Python list"):
        found = diagnosed(Listed())
    said = [each for each in (*found.findings, *found.notes) if each.code == "frozen_weights"]
    assert "inner.middle[0]" in said[0].evidence
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnosed(Listed(frozen=True))
