"""The doctor on recipes and runs with a step of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
from ravine.doctor.examination import examine
from ravine.engine.inputs import resolve_inputs


def plain(model, batch):
    return F.cross_entropy(model(batch.x), batch.y)


def rebuild(model, batch):
    return F.mse_loss(model(batch.x), batch.x)


def parts(model, batch):
    yield "first", model.first(batch.x).square().mean()
    yield "second", F.cross_entropy(model.second(batch.x), batch.y)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(2, 3)


def data(shuffled=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 8, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 0] + x[:, 1] > 0.5).long()
    return x, y[torch.randperm(600, generator=generator)] if shuffled else y


def mlp(act=nn.ReLU, depth=1, dead=False, outputs=3):
    def make():
        layers = [nn.Linear(8, 32), act()]
        for _ in range(depth - 1):
            layers += [nn.Linear(32, 32), act()]
        net = nn.Sequential(*layers, nn.Linear(32, outputs))
        if dead:
            nn.init.constant_(net[0].bias, -100.0)
        return net

    return make


SGD = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "batch": 50, "epochs": 15}
CASES = {  # model, data, step, fields, what is found
    "sound": (mlp(), data(), plain, SGD, None),
    "low rate": (mlp(), data(), plain, {**SGD, "lr": 1e-8}, "lr_too_low"),
    "low rate of Adam": (mlp(), data(), plain, {"lr": 1e-7, "epochs": 15}, "lr_too_low"),
    "high rate": (mlp(), data(), plain, {**SGD, "lr": 1e4}, "lr_too_high"),
    "dead": (mlp(dead=True), data(), plain, SGD, "dead_units"),
    "deep": (mlp(nn.Sigmoid, 9), data(), plain, SGD, "vanishing_gradient"),
    "random labels": (mlp(), data(True), plain, {**SGD, "lr": 0.01}, "no_signal"),
    "random labels unused": (mlp(outputs=8), data(True), rebuild, SGD, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_judged_by_what_its_step_gives(case, tmp_path):
    model, given, step, fields, code = CASES[case]
    run = ravine.train(
        model=model, data=given, step=step, out=tmp_path / "run", quiet=True, **fields
    )
    stored = [event["data"]["code"] for event in run.events_of("finding")]
    judged = ravine.diagnose(run.directory, model=model, data=given)
    if code is None:
        assert judged.verdict == "healthy", judged
        assert stored == []
    elif code == "lr_too_low" and "optimizer" not in fields:
        assert judged.verdict != "healthy"  # that needs experiments
    else:
        assert judged.verdict == "sick", judged
        assert code in judged.codes
        assert code in stored


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_is_examined_before_it_trains(case):
    model, given, step, fields, code = CASES[case]
    found = ravine.diagnose(ravine.Recipe(), given, model=model, step=step, **fields)
    if code is None:
        assert found.verdict == "healthy", found
        assert not found.findings
    else:
        assert found.verdict == "sick", found
        assert code in found.codes


def test_steps_in_parts_are_examined(tmp_path):
    fields = {"data": "blobs", "model": Two, "step": parts, "optimizer": torch.optim.SGD}
    run = ravine.train(**fields, lr=0.01, epochs=5, out=tmp_path / "run", quiet=True)
    assert run.events_of("doctor") == []
    assert run.events_of("finding") == []
    fields = {**fields, "lr": 0.01, "epochs": 5}
    recipe, module, arrays = resolve_inputs(
        ravine.Recipe(), fields.pop("model"), fields.pop("data"), fields
    )
    assert examine(recipe, module=module, arrays=arrays).verdict in ("healthy", "uncertain")
