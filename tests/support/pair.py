"""What the tests of several ranks train: ``torchrun … pair.py CASES.json DIRECTORY`` trains every case
in a directory of its own, or writes why it was refused."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

import ravine
from ravine.data import room
from ravine.engine.loop.loop import Interrupted
from ravine.engine.programs import programs_of
from ravine.engine.ranks import buckets, divide
from ravine.errors import RavineError
from ravine.report import run_page
from ravine.rundir import RunDir
from ravine.rundir.requests import ask


class Drawing(nn.Module):
    """A module of a person's own that draws from PyTorch's generator."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        return self.dense(torch.dropout(x.flatten(1), 0.5, self.training))


def own_network():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(12, 10),
    )  # fmt: skip


@ravine.technique("model")
def pair_network(shape, outputs):
    return own_network()


def own_statistics():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Linear(12, 10))


def own_step(model, batch):
    losses = nn.functional.cross_entropy(model(batch.x), batch.y, reduction="none")
    return {"loss": losses, "largest": batch.x.mean()}


def paired_step(model, batch):
    """Compares neighbours in a batch."""
    z = model(batch.x)
    return (z[1:] - z[:-1]).square().mean() + nn.functional.cross_entropy(z, batch.y)


def focal(output, target, gamma=2.0):
    log_p = nn.functional.log_softmax(output, 1).gather(1, target[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma) * log_p


def worst(output, target):
    """Of a whole part of the data, whoever has which of its samples."""
    return float((output.argmax(1) != target).float().sum())


def unseeded() -> dict:
    """As a program without a seed makes a module: each process draws weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(os.environ.get("RANK", 0)))
        return {"model": own_network()}


def unequal() -> dict:
    """As a program without a seed makes data."""
    rng = np.random.default_rng(int(os.environ.get("RANK", 0)))
    return {"data": (rng.normal(size=(300, 64)).astype("float32"), np.arange(300) % 3)}


def rare() -> dict:
    """Six of 300 samples weigh fifty times as much; none of them is among the first."""
    rng, y = np.random.default_rng(0), np.repeat(np.arange(2), [294, 6])
    x = rng.normal(size=(300, 64)).astype("float32")
    return {"data": (x, y), "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 50.0]))}


OWN = {
    "network": {"model": own_network},
    "statistics": {"model": own_statistics},
    "drawing": {"model": Drawing},
    "step": {"model": own_network, "step": own_step},
    "paired": {"model": own_network, "step": paired_step},
    "unseeded": {"made": unseeded},
    "unequal": {"made": unequal},
    "loss": {"loss": focal, "gamma": 1.5, "metrics": [worst]},
    "rare": {"made": rare},
    "torch": {"optimizer": torch.optim.Adam, "lr": 1e-2},
}


class Rows(Dataset):
    """Rows of digits, which a Dataset of a person's own reads; ``noise``: drawn anew at each look."""

    def __init__(self, noise: float = 0.0):
        found = load_digits()
        self.x, self.targets = torch.tensor(found.data, dtype=torch.float32), found.target
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int):
        return self.x[place] + self.noise * torch.randn(64), int(self.targets[place])


class InTurn(IterableDataset):
    """Rows that can only be read in order."""

    def __iter__(self):
        return map(Rows().__getitem__, range(300))


def collated(items):
    """As a person's own: rows depend on the others of their batch."""
    x, y = default_collate(items)
    return x - x.mean(0), y


OWN |= {
    "rows": {"data": Rows()},
    "noisy": {"data": Rows(0.1)},
    "in-turn": {"data": (DataLoader(InTurn(), batch_size=70), DataLoader(Rows(), batch_size=500))},
    "collated": {"data": DataLoader(Rows(), batch_size=200, shuffle=True, collate_fn=collated)},
}


class Asked:
    """A hook that asks something of the run at the ends of some epochs or steps: ``{"2": [["stop"]]}``,
    ``{"9it": [["stop"]]}``."""

    def __init__(self, asked: dict, directory: Path):
        self.asked, self.directory = asked, directory

    def __call__(self, seen: dict) -> None:
        place = str(round(seen["epoch"])) if "epoch" in seen else f"{seen['step']}it"
        for request in self.asked.get(place, ()):
            with RunDir.open(self.directory) as run:
                ask(run, *request)


STOPPING = {
    "on_epoch": lambda seen: "stop" if seen["epoch"] > 1.5 else None,
    "on_step": lambda seen: "stop" if seen["step"] == 7 else None,
}


def train(case: dict, directory: Path) -> None:
    """A case: ``recipe``, the fields; ``edits``, of each member; ``own``, what is given in Python;
    ``asked`` of the run while it trains, which is resumed where it was stopped so; ``stopping``, the
    hook that ends it; ``streamed``: nothing fits into memory; ``by_torch``: see there;
    ``overlapped``: gradients are added up within the backward pass; ``timed``: each
    rank has a recipe of its own, as of a plan by minutes."""
    recipe, own = ravine.Recipe(**case["recipe"]), dict(OWN.get(case.get("own", ""), {}))
    own.update(own.pop("made", dict)())
    if "timed" in case:
        recipe = recipe.edit({"stop.after": f"{6 + int(os.environ.get('RANK', 0))}it"})
    if "asked" in case:
        hook = "on_step" if "it" in "".join(case["asked"]) else "on_epoch"
        own[hook] = Asked(case["asked"], directory)
    if "stopping" in case:
        own[case["stopping"]] = STOPPING[case["stopping"]]
    recipes = [recipe.edit(edits) for edits in case.get("edits", [{}])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_page, "write_report", lambda rundir: None
        )  # it takes longer than training
        if case.get("overlapped"):
            patch.setattr(divide, "OVERLAPPED", 0)
            patch.setattr(buckets, "BUCKET", 256)
        if case.get("streamed"):
            patch.setattr(room, "MOST_BYTES", 0)
        if own:
            try:
                ravine.train(recipe, out=directory, quiet=True, doctor=False, **own)
            except Interrupted:
                ravine.resume(directory, quiet=True, data=own.get("data"))
        else:
            ravine.train_many(recipes, out=directory, quiet=True, group=case.get("group"))


def by_torch(case: dict, file: Path) -> None:
    """The weights and running statistics that PyTorch's DistributedDataParallel and SGD come to, where
    each rank normalises by its own samples and running statistics are averaged at the end."""
    recipe = ravine.Recipe(**case["recipe"])
    (program,) = programs_of([recipe], OWN.get(case.get("own", ""), {}).get("model"))
    module = copy.deepcopy(program.population.objectives[0].model).train()
    replica = nn.parallel.DistributedDataParallel(module, forward_sync_buffers=False)
    lr, momentum = recipe.optimizer.lr, recipe.optimizer.arguments["momentum"]
    descent = torch.optim.SGD(module.parameters(), lr, momentum)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for step in range(int(recipe.stop.after.removesuffix("it"))):
        batch = program.pipeline.batch(step)
        x, y = (whole.tensor_split(ranks)[rank] for whole in (batch.x, batch.y))
        share = len(y) * ranks / len(batch.y)  # it takes the mean over ranks
        descent.zero_grad()
        (share * nn.functional.cross_entropy(replica(x), y)).backward()
        descent.step()
    found = module.state_dict()
    for buffer in (found[name] for name, _ in module.named_buffers()):
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(ranks)
    if rank == 0:
        save_file(found, file)


def main(cases: Path, directory: Path) -> None:
    for name, case in json.loads(cases.read_text()).items():
        try:
            train(case, directory / name)
            if case.get("by_torch"):
                by_torch(case, directory / f"{name}.torch")
        except RavineError as error:
            (directory / f"{name}.refused").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
