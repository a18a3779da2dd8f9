"""``ravine.watch``: the doctor in any PyTorch loop."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import ravine
from ravine.doctor.table import codes


def data(n=512):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=generator)
    return x, (x[:, :1] * x[:, 1:2] > 0).float()


def loop(net, lr, steps=300, optimizer=torch.optim.SGD, watch=True, scale=1.0, **options):
    torch.manual_seed(1)
    x, y = data()
    x = x * scale
    made = optimizer(net.parameters(), lr=lr, **options)
    eye = ravine.watch(net, made) if watch else None
    for i in range(steps):
        rows = slice(64 * (i % 8), 64 * (i % 8) + 64)
        loss = nn.functional.binary_cross_entropy_with_logits(net(x[rows]), y[rows])
        made.zero_grad()
        loss.backward()
        if eye is not None:
            eye.step(loss)
        made.step()
    return eye


def mlp(act=nn.ReLU, depth=1, width=32):
    torch.manual_seed(0)
    layers = [nn.Linear(8, width), act()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def dead():
    net = mlp()
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    return net


@pytest.mark.parametrize(
    ("net", "lr", "options", "code"),
    [
        (lambda: mlp(), 1e-9, {}, "lr_too_low"),
        (lambda: mlp(), 1e4, {}, "lr_too_high"),
        (dead, 0.01, {}, "dead_units"),
        (lambda: mlp(nn.Sigmoid, depth=9), 0.01, {}, "vanishing_gradient"),
        (lambda: mlp(nn.Tanh), 1e-4, {"scale": 1000.0}, "saturated_units"),
    ],
)
def test_a_planted_fault_is_named(net, lr, options, code):
    diagnosis = loop(net(), lr, **options).diagnose()
    assert diagnosis.verdict == "sick", diagnosis
    assert code in diagnosis.codes, diagnosis.codes
    assert all(
        finding.code in codes() and any(c.isdigit() for c in finding.evidence)
        for finding in diagnosis.findings
    )


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_healthy_loop_raises_no_alarm(optimizer):
    lr, options = (1e-2, {}) if optimizer is torch.optim.Adam else (0.3, {"momentum": 0.9})
    diagnosis = loop(mlp(), lr, optimizer=optimizer, **options).diagnose()
    assert diagnosis.verdict == "healthy", diagnosis
    assert not diagnosis.findings


def test_a_loss_that_is_not_a_number_is_dated():
    net = mlp()
    made = torch.optim.SGD(net.parameters(), lr=0.1)
    eye = ravine.watch(net, made)
    for i in range(40):
        nn.init.normal_(net[0].weight)
        eye.step(float("nan") if i >= 29 else 1.0)
    diagnosis = eye.diagnose()
    assert diagnosis.codes[0] == "non_finite"
    assert "step 30" in diagnosis.findings[0].evidence


def test_too_little_seen_is_uncertain():
    net = mlp()
    eye = ravine.watch(net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert eye.diagnose().verdict == "uncertain"


@pytest.mark.parametrize("fault", ["none", "labels", "sign"])
def test_without_data_it_says_what_could_not_be_judged(fault):
    """A short loop is never called healthy: its loss falls as well where labels are noise or a bounded
    score is turned round."""
    torch.manual_seed(0)
    x, y = data(64)
    y = {"labels": y[torch.randperm(64)], "none": y, "sign": y}[fault]
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    eye = ravine.watch(net, optimizer)
    for step in range(120):
        p = net(x).sigmoid()
        loss = nn.functional.binary_cross_entropy(p, y) if fault != "sign" else (p * y).mean()
        optimizer.zero_grad()
        loss.backward()
        eye.step(loss)
        optimizer.step()
        if step == 49:
            early = eye.diagnose()
            assert early.verdict == "uncertain", early
            assert "in 50 steps, too few to call the loop healthy" in early.why
    late = eye.diagnose()
    assert late.verdict == "healthy"
    for found in (early, late):
        assert "not judged without the data: whether the answers are better" in found.why
        assert "data=" in found.why
        assert "labels" in found.measured["not judged"]


def test_watching_changes_no_bit():
    seen, alone = mlp(), mlp()
    loop(seen, 0.1, steps=60)
    loop(alone, 0.1, steps=60, watch=False)
    assert all(
        torch.equal(a, b) for a, b in zip(seen.parameters(), alone.parameters(), strict=True)
    )


def test_no_tensor_of_the_loop_is_kept():
    net = mlp()
    made = torch.optim.SGD(net.parameters(), lr=0.1)
    eye = ravine.watch(net, made)
    x, y = data(64)
    alive = []
    for _ in range(5):
        loss = nn.functional.binary_cross_entropy_with_logits(net(x), y)
        made.zero_grad()
        loss.backward()
        eye.step(loss)
        alive.append(weakref.ref(loss))
        del loss
    gc.collect()
    assert all(reference() is None for reference in alive)
    eye.diagnose()
    assert not any(module._forward_hooks for module in net.modules())


# --- losses that need not fall --------------------------------------------------------------------


def test_an_adversarial_pair_is_not_called_stuck():
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    judge = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    steps = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (maker, judge)]
    eyes = [ravine.watch(net, step) for net, step in zip((maker, judge), steps, strict=True)]
    loss = nn.BCEWithLogitsLoss()
    for _ in range(200):
        real, fake = torch.randn(64, 2) + 1, maker(torch.randn(64, 4))
        own = loss(judge(real), torch.ones(64, 1)) + loss(judge(fake.detach()), torch.zeros(64, 1))
        steps[1].zero_grad()
        own.backward()
        eyes[1].step(own)
        steps[1].step()
        fooled = loss(judge(fake), torch.ones(64, 1))
        steps[0].zero_grad()
        fooled.backward()
        eyes[0].step(fooled)
        steps[0].step()
    assert [eye.diagnose().verdict for eye in eyes].count("sick") == 0


@pytest.mark.parametrize("kind", ["contrastive", "noise"])
def test_a_loss_that_hardly_falls_is_not_called_stuck(kind):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8 if kind == "contrastive" else 1)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    eye = ravine.watch(net, optimizer)
    for _ in range(200):
        x = torch.randn(64, 8)
        if kind == "contrastive":  # pairs of two views are to be nearer than others
            a, b = (nn.functional.normalize(net(x + torch.randn_like(x)), dim=1) for _ in range(2))
            loss = nn.functional.cross_entropy(a @ b.T, torch.arange(64))
        else:
            loss = (net(x) - 0.1 * x[:, :1] - torch.randn(64, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        eye.step(loss)
        optimizer.step()
    assert eye.diagnose().verdict != "sick"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((3, None), "watch: model: got 3"),
        ((nn.Linear(2, 1), None), "watch: optimizer: expected the optimiser of the loop"),
        ((nn.Linear(2, 1), "adam"), "watch: optimizer: got 'adam'"),
        ((nn.Linear, torch.optim.SGD), "watch: model"),
    ],
)
def test_what_cannot_be_watched_gets_one_message(given, text):
    with pytest.raises(ravine.InputError, match=text):
        ravine.watch(*given)
