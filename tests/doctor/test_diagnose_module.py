"""The doctor on PyTorch trainings that are not Ravine's: before their first step, and while they are
watched with their data and plan."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
from ravine import InputError
from ravine.engine.held_optimizer import described


def data(n=600):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 0] + x[:, 1] > 0.5).long()


def mlp(*head, act=nn.ReLU, depth=1):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 32), act()]
    for _ in range(depth - 1):
        layers += [nn.Linear(32, 32), act()]
    return nn.Sequential(*layers, nn.Linear(32, 3), *head)


def sgd(net, lr=0.1):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


FAULTS = {
    "loss_output_mismatch": (lambda: mlp(nn.Softmax(1)), sgd, lambda x, y: (x, y)),
    "lr_too_low": (
        mlp,
        lambda net: torch.optim.Adam(net.parameters(), lr=1e-8),
        lambda x, y: (x, y),
    ),
    "lr_too_high": (
        mlp,
        lambda net: torch.optim.Adam(net.parameters(), lr=30.0),
        lambda x, y: (x, y),
    ),
    "inputs_unscaled": (mlp, sgd, lambda x, y: (x * 3000 + 40000, y)),
    "vanishing_gradient": (lambda: mlp(act=nn.Sigmoid, depth=9), sgd, lambda x, y: (x, y)),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_training_is_examined_before_its_first_step(code):
    make, optimizer, change = FAULTS[code]
    net = make()
    before = copy.deepcopy(net.state_dict())
    found = ravine.diagnose(net, change(*data()), nn.CrossEntropyLoss(), optimizer(net), epochs=20)
    assert found.verdict == "sick", found
    assert code in found.codes, found.codes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy, "cross_entropy"])
def test_a_sound_training_is_left_alone(loss):
    net = mlp()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data()), batch_size=64, shuffle=True
    )
    found = ravine.diagnose(net, loader, loss, sgd(net), epochs=20)
    assert found.verdict == "healthy", found
    assert not found.findings


def test_an_optimiser_of_another_model_is_refused():
    net, other = mlp(), mlp()
    with pytest.raises(InputError, match="none of them the model's"):
        ravine.diagnose(net, data(), nn.CrossEntropyLoss(), sgd(other))


def groups(net):
    decayed = [p for p in net.parameters() if p.dim() == 2]
    rest = [p for p in net.parameters() if p.dim() != 2]
    return [
        {"params": decayed, "lr": 0.01, "weight_decay": 0.1},
        {"params": rest, "lr": 0.003, "weight_decay": 0.0},
    ]


OPTIMIZERS = {
    "SGD": lambda net: torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "Adam": lambda net: torch.optim.Adam(
        net.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.1
    ),
    "AdamW": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1),
    "RMSprop": lambda net: torch.optim.RMSprop(
        net.parameters(), lr=0.01, momentum=0.5, centered=True
    ),
    "groups": lambda net: torch.optim.AdamW(groups(net)),
    "amsgrad": lambda net: torch.optim.Adam(net.parameters(), lr=0.01, amsgrad=True),
    "NAdam": lambda net: torch.optim.NAdam(net.parameters(), lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_becomes_a_part_of_a_recipe_that_does_the_same(name):
    """Ten steps on the whole data, by the optimiser itself and by a run of the recipe."""
    x, y = data(96)
    net = mlp().double()
    start = copy.deepcopy(net)
    made = OPTIMIZERS[name](net)
    part = described(made, net)
    for _ in range(10):
        made.zero_grad()
        F.cross_entropy(net(x.double()), y).backward()
        made.step()
    run = ravine.train(
        model=start,
        data=(x.double(), y),
        loss=F.cross_entropy,
        optimizer=part,
        batch="full",
        steps=10,
        validation=0.0,
        precision="float64",
        quiet=True,
        doctor=False,
        test=0.0,
    )
    for ours, theirs in zip(run.model.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def loop(net, optimizer, x, y, epochs=20, batch=50, planned=None, **options):
    plan = {"epochs": planned or epochs, "batch": batch}
    eye = ravine.watch(net, optimizer, data=(x, y), loss=nn.CrossEntropyLoss(), **plan, **options)
    torch.manual_seed(1)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for rows in order.split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            eye.step(loss)
            optimizer.step()
    return eye


def test_a_watch_that_knows_data_and_plan_judges_as_the_doctor_judges_a_run(tmp_path):
    x, y = data()
    net = mlp()
    sound = loop(net, sgd(net), x, y).diagnose()
    assert sound.verdict == "healthy", sound
    assert sound.measured["of"] == 240
    assert sound.measured["skill"][0] > 0.8
    net = mlp()
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(2))]
    noise = loop(net, sgd(net, 1e-3), x, shuffled).diagnose()
    assert noise.verdict == "sick", noise
    assert noise.codes[0] == "no_signal"
    net = mlp()
    slow = loop(net, sgd(net, 1e-3), x, y, epochs=4).diagnose()
    assert slow.verdict == "sick"
    assert {"too_few_epochs", "lr_too_low"} & set(slow.codes), slow
    net = mlp()
    early = loop(net, sgd(net, 1e-3), x, y, epochs=4, planned=100).diagnose()
    assert "too_few_epochs" not in early.codes, early


def test_a_watch_names_a_contradiction_before_the_first_step():
    x, y = data()
    net = mlp(nn.Softmax(1))
    found = loop(net, sgd(net), x, y, epochs=3).diagnose()
    assert found.verdict == "sick"
    assert "loss_output_mismatch" in found.codes


def test_overfitting_is_seen_from_validation_losses():
    x, y = data(60)
    generator = torch.Generator().manual_seed(3)
    y = torch.where(torch.rand(60, generator=generator) < 0.4, torch.randint(0, 3, (60,)), y)
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    eye = ravine.watch(net, optimizer, data=(x, y), loss=F.cross_entropy, epochs=60, batch=20)
    vx, vy = data(500)
    for _ in range(60):
        for rows in torch.randperm(60).split(20):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            eye.step(loss)
            optimizer.step()
        with torch.no_grad():
            eye.validation(F.cross_entropy(net(vx), vy))
    assert "overfitting" in eye.diagnose().codes


def test_what_a_watch_is_given_alone_is_refused():
    net = mlp()
    with pytest.raises(InputError, match="data beside it"):
        ravine.watch(net, sgd(net), loss=F.cross_entropy)
