"""Several processes train as one: the same numbers, whatever their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import pair
from ravine.catalogue import table
from ravine.engine import snapshot
from ravine.engine.run import Run
from ravine.rundir import RunDir
from test_resume import assert_same

DATA = {"source": "digits", "batch": 200}
COMMON = {"precision": "float64", "threads": 1, "stop": {"after": "6it"}}
DROPPED = {"kind": "mlp", "hidden": [8], "dropout": 0.3}
NORMED = [
    "flatten", {"kind": "dense", "units": 8}, "batch_norm", "relu", {"kind": "dropout", "rate": 0.2},
    {"kind": "dense", "units": 10},
]  # fmt: skip
CUMULATIVE = [*NORMED[:2], {"kind": "batch_norm", "average": "cumulative"}, "relu", NORMED[5]]
TECHNIQUES = {
    "plain": {"model": "softmax"},
    "own technique": {"model": "own:pair_network"},
    "augmented": {"data": {**DATA, "augment": ["shift", "mixup"]}},
    "uneven": {"data": {**DATA, "batch": 201, "last_batch": "keep"}, "stop": {"after": "8it"}},
    "few": {  # a last batch of 1
        "data": {**DATA, "batch": 129},
        "model": {"layers": [*NORMED[:3], {"kind": "gaussian_noise", "std": 0.1}, *NORMED[3:]]},
        "stop": {"after": "12it"},
    },
    "batch_norm": {"model": {"layers": NORMED}, "data": {**DATA, "batch": 201}},
    "own_batch_norm": {
        "model": {
            "layers": [*NORMED[:2], {"kind": "batch_norm", "average": "cumulative"}, *NORMED[3:]]
        }
    },
    "convolution": {
        "model": {"kind": "resnet", "depth": 8, "width": 2},
        "data": {**DATA, "batch": 100},
        "stop": {"after": "3it"},
    },
    "bfloat16": {
        "model": {"kind": "resnet", "depth": 8, "width": 4},
        "data": {**DATA, "batch": 100},
        "optimizer": {"kind": "sgd", "lr": 0.01},
        "precision": "bfloat16",
        "ranks": {"reduce": "bfloat16"},
        "stop": {"after": "3it"},
    },
    "clipping": {"clip": {"norm": 0.1, "tensor_norm": 0.05, "value": 0.02}},
    "ema": {"average": {"ema": 0.8}},
    "swa": {"average": {"swa": "0ep"}, "model": {"layers": NORMED}, "stop": {"after": "2ep"}},
    "accumulate": {"optimizer": {"kind": "adam", "accumulate": 3}, "data": {**DATA, "batch": 90}},
    "weights": {
        "loss": {"kind": "cross_entropy", "class_weights": [0.5 * (i + 1) for i in range(10)]},
        "data": {**DATA, "batch": 299, "last_batch": "keep"},
        "optimizer": {"kind": "adam", "accumulate": 2},
    },
    "penalties": {"loss": {"kind": "cross_entropy", "l1": 1e-3, "l2": 1e-3}},
    "plateau": {
        "schedule": {"kind": "on_plateau", "patience": "0ep", "factor": 0.5},
        "optimizer": {"kind": "sgd", "lr": 3.0},
        "stop": {"after": "4ep"},
    },
    "early": {
        "stop": {"after": "30ep", "patience": "1ep"},
        "optimizer": {"kind": "sgd", "lr": 3.0},
    },
    "rollback": {
        "stop": {"after": "3ep", "on_trouble": "rollback"},
        "optimizer": {"kind": "sgd", "lr": 1e30},
    },
    "noise": {"regularize": {"weight_noise": 0.01, "adversarial": 0.1}},
    "bootstrap": {"data": {**DATA, "bootstrap": True}},
    "sequences": {
        "model": {"kind": "lstm", "units": 6, "layers": 2, "dropout": 0.3},
        "data": {"source": {"kind": "adding", "samples": 200, "length": 8}, "batch": 50},
    },
    "attention": {
        "model": {"kind": "transformer", "units": 8, "layers": 1, "heads": 2, "dropout": 0.3},
        "data": {"source": {"kind": "adding", "samples": 200, "length": 8}, "batch": 50},
    },
    "table": {
        "model": {"kind": "tabular", "members": 3, "hidden": [8]},
        "data": {"source": "blobs", "batch": 60},
    },
}


def complete(fields: dict) -> dict:
    return {"data": DATA, "model": DROPPED, **COMMON, **fields}


REFUSED = {
    "unequal": {"own": "unequal", "recipe": complete({})},
    "drawing": {"own": "drawing", "recipe": complete({})},
    "paired": {"own": "paired", "recipe": complete({})},
    "rare": {"own": "rare", "recipe": complete({"data": {**DATA, "validation": 0.1, "test": 0.0}})},
    "hard": {"recipe": complete({"regularize": {"hard_negatives": 0.5}})},
    "ghost": {
        "recipe": complete({"model": {"layers": [{"kind": "batch_norm", "ghost": 8}, *NORMED]}})
    },
}

UNSHARDED = {
    "lars": {"optimizer": {"kind": "lars"}},
    "constraint": {"constraint": {"kind": "max_norm"}},
    "weight_noise": {"regularize": {"weight_noise": 0.01}},
}
UNSHARDED = {
    f"sharded-{name}": {"recipe": complete({**fields, "ranks": {"shard": True}})}
    for name, fields in UNSHARDED.items()
}
UNSHARDED["sharded-torch"] = {"own": "torch", "recipe": complete({"ranks": {"shard": True}})}
UNSHARDED["sharded-step"] = {"own": "step", "recipe": complete({"ranks": {"shard": True}})}


CASES = {name: {"recipe": complete(fields)} for name, fields in TECHNIQUES.items()}
CASES |= {
    f"own-{name}": {"own": name, "recipe": complete({})}
    for name in ("network", "loss", "step", "torch", "unseeded")
}
ASKED = {"1": [["set", "optimizer.lr", 0.5]], "2": [["stop"]], "3": [["snapshot"]]}
CASES |= {
    f"overlapped-{name}": {"overlapped": True, "recipe": complete(TECHNIQUES[name])}
    for name in ("convolution", "bfloat16")
}
CASES["overlapped-later"] = {  # one sum of three parts of a batch
    "overlapped": True,
    "recipe": complete(
        {**TECHNIQUES["convolution"], "optimizer": {"kind": "adam", "accumulate": 3}}
    ),
}
CASES["timed"] = {"timed": True, "recipe": complete({"ranks": {"timeout": 20}})}
CASES["asked"] = {"asked": ASKED, "recipe": complete({"stop": {"after": "4ep"}})}
LONG = {"stop": {"after": "4ep"}}
CASES |= {hook: {"stopping": hook, "recipe": complete(LONG)} for hook in ("on_epoch", "on_step")}
# rows read as they are needed; stopped in the middle of an epoch
STREAMED = {
    "rows": {"loss": TECHNIQUES["weights"]["loss"], "data": {"batch": 129}},  # a last batch of 1
    "noisy": {"data": {"batch": 200}},
    "in-turn": {},
    "collated": {},
    "table": {
        "optimizer": TECHNIQUES["accumulate"]["optimizer"],
        "data": {"batch": 101, "source": "parquet:TABLE", "order": "replacement"},
    },
}
CASES |= {
    f"streamed-{name}": {
        "own": name,
        "streamed": True,
        "asked": {"4it": [["stop"]]},
        "recipe": complete({"stop": {"after": "13it"}, **fields}),
    }
    for name, fields in STREAMED.items()
}
# parameters divided among the ranks
SHARDED = {
    "momentum": {"clip": {"norm": 0.1, "tensor_norm": 0.05, "value": 0.02}},
    "adam": {
        **TECHNIQUES["weights"],
        "optimizer": {"accumulate": 3, "lookahead": 2},
        "loss": {**TECHNIQUES["weights"]["loss"], "l1": 1e-3, "l2": 1e-3, "l1_step": "proximal"},
    },
    "adamw": {"model": {"layers": NORMED}, "average": {"ema": 0.8}},
    "nadam": {**TECHNIQUES["sequences"], "stop": {"after": "3ep", "patience": "0ep"}},
    "nesterov": {**TECHNIQUES["rollback"], "optimizer": {"gradient": "ahead", "lr": 1e30}},
}


def sharded(kind: str, fields: dict) -> dict:
    optimizer = {"kind": kind, **fields.get("optimizer", {})}
    return complete({**fields, "optimizer": optimizer, "ranks": {"shard": True}})


CASES |= {f"sharded-{kind}": {"recipe": sharded(kind, f)} for kind, f in SHARDED.items()}
CASES["sharded-bfloat16"] = {
    "recipe": {**complete(TECHNIQUES["bfloat16"]), "ranks": {"reduce": "bfloat16", "shard": True}}
}
ROUNDED = [name for name in CASES if "bfloat16" in name]
EVERY = [
    {"optimizer.kind": kind} for kind in sorted(table("optimizer"))
]  # members of one population
CASES["optimizers"] = {"edits": EVERY, "recipe": complete({"ranks": {"rows": 1}})}
# statistics of each rank's part of a batch, of which one process knows nothing
APART = {
    "cumulative": {"model": {"layers": CUMULATIVE}},
    "convolution": {"model": {"kind": "resnet", "depth": 8, "width": 2}},
    "sharded": {
        "model": {"layers": CUMULATIVE},
        "ranks": {"sync_batch_norm": False, "shard": True},
    },
    "own": {},
}
APART = {
    f"apart-{name}": {
        "by_torch": True,
        "own": "statistics" if name == "own" else "",
        "recipe": complete(
            {
                "data": {**DATA, "batch": 201},
                "optimizer": {"kind": "momentum", "lr": 0.05, "momentum": 0.8},
                "ranks": {"sync_batch_norm": False},
                **fields,
            }
        ),
    }
    for name, fields in APART.items()
}
SEEDS = {
    "edits": [{"seed": seed} for seed in range(4)],
    "recipe": complete({"average": {"ema": 0.8}}),
}


def torchrun(
    *arguments: object, ranks: int = 2, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [*command, str(ranks), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """Directories ``pair`` and ``one``: every case on two ranks, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("ranks")
    cases, found = folder / "cases.json", load_digits()
    digits = pandas.DataFrame(found.data[:300], columns=[f"c{i}" for i in range(64)])
    digits.assign(y=found.target[:300]).to_parquet(folder / "table.parquet")
    text = json.dumps({**CASES, **APART, **REFUSED, **UNSHARDED, "rows": SEEDS})
    cases.write_text(text.replace("TABLE", str(folder / "table.parquet")))
    (folder / "pair").mkdir()
    done = torchrun(pair.__file__, cases, folder / "pair")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def assert_close(one: Path, other: Path, tolerance: float = 1e-9) -> None:
    """Losses, metrics, results, and all that members ended with: weights, slots, averages, buffers."""
    a, b = RunDir.open(one), RunDir.open(other)

    def same(x: object, y: object) -> None:
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)

    for member in range(len(a.recipes)):
        same(a.steps(member), b.steps(member))
        result, other_result = a.result(member), b.result(member)
        assert result.keys() == other_result.keys()
        for name in result.keys() - {"seconds", "stopped"}:
            same(result[name], other_result[name])
        assert result["stopped"] == other_result["stopped"]
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in d.epochs()] for d in (a, b)
    ]
    assert len(rows[0]) == len(rows[1]) > 0
    for row, other_row in zip(*rows, strict=True):
        assert row.keys() == other_row.keys()
        same(list(row.values()), list(other_row.values()))
    for path, other_path in zip(a.final_snapshots(0), b.final_snapshots(0), strict=True):
        arrays, others = snapshot.read(path)[0], snapshot.read(other_path)[0]
        assert arrays.keys() == others.keys()
        for name, tensor in arrays.items():
            same(tensor.double().numpy(), others[name].double().numpy())


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_one_process(name, both, tmp_path):
    pair.train(json.loads((both / "cases.json").read_text())[name], tmp_path / "one")
    assert_close(tmp_path / "one", both / "pair" / name, 3e-2 if name in ROUNDED else 1e-9)
    why = RunDir.open(both / "pair" / name).facts["programs"][0]["execution"]["why"]
    divided = any("its parameters are divided among ranks" in reason for reason in why)
    assert divided == name.startswith("sharded")
    overlapped = any("within the backward pass" in reason for reason in why)
    assert overlapped == name.startswith("overlapped")


def test_members_on_two_ranks_are_those_of_one_process_of_that_width(both, tmp_path):
    pair.train({**SEEDS, "group": 2}, tmp_path / "one")
    assert_same(tmp_path / "one", both / "pair" / "rows")


@pytest.mark.parametrize("name", APART)
def test_without_synchronisation_two_ranks_train_as_by_torch(name, both):
    """PyTorch's DistributedDataParallel, each rank's batch norm by itself."""
    module = pair.own_statistics if "own" in name else None
    state = Run(both / "pair" / name, module=module).model.state_dict()
    expected = load_file(both / "pair" / f"{name}.torch")
    assert [key for key in state if "running" in key]
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_optimizer_of_numbers_alone_on_divided_parameters(ranks, tmp_path):
    kinds = [kind for kind in table("optimizer") if kind not in ("lars", "lamb")]
    cases = {kind: {"recipe": sharded(kind, {})} for kind in kinds}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    done = torchrun(pair.__file__, tmp_path / "cases.json", tmp_path, ranks=ranks)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, case in cases.items():
        pair.train(case, tmp_path / f"{kind}-one")
        assert_close(tmp_path / f"{kind}-one", tmp_path / kind)


@pytest.mark.slow
def test_members_and_batches_divided_on_four_ranks(tmp_path):
    (tmp_path / "cases.json").write_text(
        json.dumps({"mesh": {**SEEDS, "edits": SEEDS["edits"][:2]}})
    )
    done = torchrun(pair.__file__, tmp_path / "cases.json", tmp_path, ranks=4)
    assert done.returncode == 0, done.stderr[-3000:]
    pair.train({**SEEDS, "edits": SEEDS["edits"][:2], "group": 1}, tmp_path / "one")
    assert_close(tmp_path / "one", tmp_path / "mesh")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_divided_is_refused_before_anything_is_written(name, both):
    text = (both / "pair" / f"{name}.refused").read_text()
    assert ("the same on all" if name == "unequal" else "one process") in text
    assert not (both / "pair" / name).exists()


@pytest.mark.parametrize("name", UNSHARDED)
def test_what_sees_more_than_single_numbers_is_not_sharded(name, both):
    assert (both / "pair" / f"{name}.refused").read_text().startswith("ranks.shard: got")
    assert not (both / "pair" / name).exists()
