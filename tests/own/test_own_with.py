"""Code that a person brings to the command line, hooks, and directories that bring none."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import ravine
import stored
from ravine.app.cli import app

BLOBS = {"data": "blobs", "model": "mlp", "epochs": 3, "quiet": True, "doctor": False}
CODE = '''
import ravine
from torch.nn import functional as F
from ravine.catalogue import NonNegative, PerMember

@ravine.technique("loss")
def NAME(output, target, *, gamma: PerMember[NonNegative] = 1.0):
    """A focal loss of a file."""
    lp = F.log_softmax(output, 1).gather(1, target[:, None])[:, 0]
    return -((1 - lp.exp()) ** gamma) * lp
'''


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """A recipe file that names a loss, and the file that brings it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mycode.py").write_text(CODE.replace("NAME", "from_file"))
    (tmp_path / "recipe.toml").write_text(
        'model = "mlp"\ndata = { source = "blobs" }\nstop = { after = "2ep" }\n'
        'loss = { kind = "own:from_file", gamma = 2.0 }\n'
    )
    return tmp_path


def test_a_file_that_is_named_brings_its_techniques(brought):
    named = ["recipe.toml", "--quiet", "--no-doctor"]
    refused = invoke("train", *named, "--out", "none", "--set", "loss=own:nobody_has_this")
    assert refused.exit_code == 2
    assert "--with FILE.py" in refused.output
    assert "own=[nobody_has_this]" in refused.output
    assert not (brought / "none").exists()
    done = invoke("train", *named, "--out", "run", "--with", "mycode.py", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["test_accuracy"] > 0.5
    shown = invoke("catalogue", "from_file", "--with", "mycode.py", "--json")
    found = json.loads(shown.stdout.splitlines()[-1])["techniques"][0]
    assert found["fields"][0]["name"] == "gamma"
    assert found["doc"] == "A focal loss of a file."
    schema = invoke("catalogue", "recipe", "--json", "--with", "mycode.py").stdout
    assert "loss.own:from_file" in json.loads(schema.splitlines()[-1])["$defs"]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("no.py", "a Python file"),
        ("nopackage", "entry points"),
        ("bad.py", "line 3: .*ZeroDiv|Zero"),
    ],
)
def test_what_cannot_be_brought_is_said(place, text, brought):
    (brought / "bad.py").write_text("a = 1\nb = 0\na / b\n")
    done = invoke("train", "recipe.toml", "--with", place)
    assert done.exit_code == 2
    assert "--with" in done.output
    import re

    assert re.search(text, done.output.replace("\n", " "))


def wheel_of(place):
    """A package with two modules of techniques, as a build gives it."""
    parts = {
        "mine/__init__.py": "",
        "mine/losses.py": CODE.replace("NAME", "from_package"),
        "mine/others.py": CODE.replace("NAME", "of_another_module"),
        "mine-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: package-of-mine\nVersion: 1.0\n",
        "mine-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "mine-1.0.dist-info/entry_points.txt": "[ravine.techniques]\na = mine.losses\nb = mine.others\n",
    }
    record = "".join(f"{name},,\n" for name in (*parts, "mine-1.0.dist-info/RECORD"))
    file = place / "package_of_mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for name, text in (parts | {"mine-1.0.dist-info/RECORD": record}).items():
            wheel.writestr(
                name.replace("mine-1.0", "package_of_mine-1.0"),
                text.replace("mine-1.0", "package_of_mine-1.0"),
            )
    return file


def test_a_package_that_is_installed_brings_its_techniques(brought, monkeypatch):
    pytest.importorskip("pip")
    target = brought / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", target, wheel_of(brought)], check=True)
    monkeypatch.syspath_prepend(target)
    asked = invoke("catalogue", "loss", "--json")
    assert "own:from_package" not in json.loads(asked.stdout.splitlines()[-1])["loss"]
    assert "mine.losses" not in sys.modules  # being installed runs nothing
    done = invoke("catalogue", "loss", "--json", "--with", "package-of-mine")
    found = json.loads(done.stdout.splitlines()[-1])["loss"]
    assert {"own:from_package", "own:of_another_module"} <= set(found)
    named = [
        "--set",
        "loss=own:from_package",
        "--set",
        "loss.gamma=1.5",
        "--with",
        "package-of-mine",
    ]
    done = invoke("train", "recipe.toml", *named, "--out", "run", "--json", "--no-doctor")
    assert done.exit_code == 0, done.output


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_see_every_epoch_and_step_and_change_nothing(tmp_path):
    rows, steps = [], []
    plain = ravine.train(out=tmp_path / "plain", **BLOBS)

    def spoil(row):
        rows.append(dict(row))
        row.clear()

    run = ravine.train(
        on_epoch=spoil, on_step=lambda step: steps.append(step), out=tmp_path / "run", **BLOBS
    )
    assert np.array_equal(plain.losses, run.losses)
    assert [step["loss"] for step in steps] == run.losses.tolist()
    assert [row["val_loss"] for row in rows] == run.metrics["val_loss"].tolist()


def test_hooks_end_a_member_where_they_say(tmp_path):
    run = ravine.train(
        on_step=lambda s: "stop" if s["step"] == 5 else None, out=tmp_path / "step", **BLOBS
    )
    assert run.result["steps"] == 5
    assert run.result["stopped"] == 'on_step gave "stop"'
    run = ravine.train(
        on_epoch=lambda row: "stop" if row["epoch"] == 2 else None, out=tmp_path / "epoch", **BLOBS
    )
    assert run.result["epochs"] == 2
    assert run.result["stopped"] == 'on_epoch gave "stop"'
    with pytest.raises(ravine.InputError, match=r'on_step: got 3; expected None, or "stop"'):
        ravine.train(on_step=lambda s: 3, out=tmp_path / "bad", **BLOBS)


# --- a stranger's directory -----------------------------------------------------------------------

OPEN = """
import sys, json, contextlib, warnings
warnings.simplefilter("ignore")
import ravine, torch, numpy as np
from ravine.app.cli import app
import ravine.engine.run, ravine.training.train, ravine.report.run_page
from typer.testing import CliRunner
seen = []
def hook(event, arguments):
    if event in ("import", "exec", "compile", "os.system", "subprocess.Popen", "os.exec", "os.fork",
                 "os.posix_spawn", "pickle.find_class", "ctypes.dlopen"):
        seen.append((event, str(arguments[0])))
sys.addaudithook(hook)
found = []
for run in sys.argv[1:]:
    seen.clear()
    tries = [
        lambda: ravine.Run(run).result,
        lambda: ravine.Run(run).predict(np.zeros((2, 2))),
        lambda: ravine.Run(run).evaluate(),
        lambda: ravine.resume(run, after="9ep", quiet=True),
        lambda: ravine.train(ravine.Recipe.from_json(json.dumps(
            json.load(open(run + "/recipe.json"))["recipes"][0])), quiet=True, out=run + "-again"),
        *[lambda a=a: CliRunner().invoke(app, a) for a in (
            ["evaluate", run], ["resume", run], ["report", run], ["doctor", run], ["predict", run])],
    ]
    for each in tries:
        with contextlib.suppress(Exception):
            each()
    found.append([pair for pair in seen if "evil" in pair[1].lower() or pair[0] in
                  ("os.system", "subprocess.Popen", "os.exec", "pickle.find_class")])
print(json.dumps(found))
"""


class Evil:
    """What a pickle would run when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (self.marker, "w"))


def own_parts(recipe, place):
    recipe["loss"] = {"kind": "own:evil.loss", "code": "evil.py", "module": "evil"}
    recipe["metrics"] = [{"kind": "own:os.system", "code": "evil"}]
    recipe["optimizer"] = {"kind": "own:evil:loss", "lr": 0.1, "with": "evil.py"}
    recipe["step"] = {"kind": "own:__import__('evil')", "code": "evil"}
    recipe["model"] = {"kind": "own:evil.Net", "code": "x", "file": "evil.py"}
    recipe["data"]["augment"] = [{"kind": "own:evil", "code": "evil.py"}]


def modules(recipe, place):
    recipe["model"] = {"kind": "module", "name": "evil.Net", "code": "evil.py"}


def modules_by_path(recipe, place):
    recipe["model"] = {"kind": "module", "name": str(place / "evil.py"), "code": "evil"}
    recipe["data"]["source"] = {"kind": "arrays"}


def weights(recipe, place):
    recipe["start"] = {"weights": str(place / "evil.pt")}


def sources(recipe, place):
    recipe["data"]["source"] = {"kind": "npz", "path": str(place / "evil.npz")}


KINDS = [own_parts, modules, modules_by_path, weights, sources]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Folders with an evil directory of each kind, and what one process did that has opened them all."""
    trained = tmp_path_factory.mktemp("trained") / "run"
    run = ravine.train(out=trained, preprocess="standardize", **BLOBS)
    places = [tmp_path_factory.mktemp(evil.__name__) for evil in KINDS]
    for place, evil in zip(places, KINDS, strict=True):
        shutil.copytree(run.directory, place / "run")
        marker = place / "marker"
        code = f"open({str(marker)!r}, 'w').write('ran')\ndef loss(output, target): return output\n"
        for folder in (place, place / "run"):
            (folder / "evil.py").write_text(code)
        with (place / "evil.pt").open("wb") as file:
            pickle.dump({"model": Evil(str(marker))}, file)
        np.savez(place / "evil.npz", x=np.array([Evil(str(marker))], dtype=object), y=np.zeros(1))

        def change(about, evil=evil, place=place):
            for recipe in (*about["explicit"], *about["recipes"]):
                evil(recipe, place)

        stored.edit(place / "run", change)
    script = places[0] / "open.py"
    script.write_text(OPEN)
    runs = [place / "run" for place in places]
    command = [sys.executable, script, *runs]
    path = os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=places[0],
        env={**os.environ, "PYTHONPATH": path},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return dict(zip(KINDS, zip(places, found, strict=True), strict=True))


@pytest.mark.parametrize("evil", KINDS)
def test_a_strangers_directory_makes_ravine_run_nothing(evil, opened):
    """Whatever a directory names, own parts, modules or files, nothing is imported or run."""
    place, done = opened[evil]
    assert done == []
    assert not (place / "marker").exists()


TRAIN = """
import sys
import torch, ravine
from torch.nn import functional as F

def mine(output, target, gamma=2.0):
    return F.cross_entropy(output, target, label_smoothing=gamma / 100)

def halved(x):
    return x / 2

def optimizer(w, g, state, t, layout, lr=0.01):
    state["v"].mul_(0.9).add_(g)
    w.sub_(lr * state["v"])

OWN = [mine, halved, optimizer]
if __name__ == "__main__":
    for name, epochs in (("whole", 4), ("part", 2)):
        ravine.train(loss=mine, preprocess=halved, optimizer=optimizer, data="blobs", model="mlp",
                     epochs=epochs, quiet=True, out=sys.argv[1] + "/" + name)
"""


def test_a_run_of_another_process_goes_on_with_what_is_brought(tmp_path, monkeypatch):
    (tmp_path / "mine_and_more.py").write_text(TRAIN)
    subprocess.run([sys.executable, tmp_path / "mine_and_more.py", tmp_path], check=True)
    run = ravine.Run(tmp_path / "part")
    line = r"ravine.resume\('.*part', own=\[halved, mine, optimizer\]\); on the command line --with"
    with pytest.raises(ravine.InputError, match=line):
        ravine.resume(tmp_path / "part", after="4ep", quiet=True)
    with pytest.raises(ravine.InputError, match=r"loss: .*own=\[mine\]"):
        run.evaluate()
    with pytest.raises(ravine.InputError, match=r"own: got 'nobody'; expected one of halved, mine"):
        ravine.Run(tmp_path / "part", own={"nobody": print})
    monkeypatch.syspath_prepend(tmp_path)
    import mine_and_more

    (again,) = ravine.resume(tmp_path / "part", own=mine_and_more.OWN, after="4ep", quiet=True)
    whole = ravine.Run(tmp_path / "whole", own=mine_and_more.OWN)
    assert np.array_equal(again.losses, whole.losses)
    assert np.array_equal(again.theta, whole.theta)
    assert whole.evaluate()["loss"] == whole.result["test_loss"]
    assert ravine.Run(tmp_path / "whole").predict(np.zeros((2, 2))).shape == (2,)


MODULES = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x)

def made():
    return nn.Sequential(nn.Linear(2, 3))

def main():
    raise SystemExit("called because a recipe named it")
"""


@pytest.mark.parametrize("name", ["Small", "made"])
def test_a_file_brings_the_module_of_a_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(MODULES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    monkeypatch.setattr("ravine.registering._FILES", [])
    made = getattr(importlib.import_module("nets"), name)
    run = ravine.train(**{**BLOBS, "model": made, "epochs": 1}, out="run")
    weights = {name: value.tolist() for name, value in run.model.state_dict().items()}
    refused = invoke("export", "run", "--out", "net.safetensors")
    assert refused.exit_code == 2
    assert f"--with FILE.py, where {name} is defined" in " ".join(refused.output.split())
    for command in (
        ["export", "run", "--out", "net.safetensors"],
        ["resume", "run", "--after", "2ep", "--quiet"],
        ["evaluate", "run"],
    ):
        done = invoke(*command, "--with", "nets.py")
        assert done.exit_code == 0, done.output
    stored = load_file("net.safetensors")
    assert {name: value.tolist() for name, value in stored.items()} == weights


def test_no_function_is_called_because_a_recipe_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ravine.registering._FILES", [])
    (tmp_path / "other_nets.py").write_text(MODULES)
    ravine.registering.load(str(tmp_path / "other_nets.py"))
    find = ravine.registering.module_in_files
    assert find(ravine.Recipe(model={"kind": "module", "name": "main"}).model) is None
    assert find(ravine.Recipe(model={"kind": "module", "name": "made"}).model) is None
    assert find(ravine.Recipe(model={"kind": "module", "name": "Small"}).model).__name__ == "Small"
    assert find(ravine.Recipe(model="mlp").model) is None
