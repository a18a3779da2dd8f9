"""Studies and the doctor's trials on techniques of a person's own."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import ravine
from ravine import InputError
from ravine.app.cli import app
from ravine.catalogue import Decay, NonNegative, Positive
from ravine.catalogue import catalogue as own_catalogue
from ravine.optim.arithmetic import add, average
from ravine.study.compare.study import variants_of
from ravine.study.declare import resume_study
from ravine.study.directory import Study
from ravine.study.signature import as_texts


@ravine.technique("optimizer")
def signs_of_mine(
    w, g, state, t, layout, *, lr: Positive = 0.01, momentum: Decay = 0.9, shrink: NonNegative = 0.0
):
    average(state["v"], g, momentum)
    add(w, state["v"].sign() + shrink * w, -lr)


@ravine.technique("loss")
def focal_of_mine(output, target, *, gamma: NonNegative = 2.0):
    p = F.log_softmax(output, 1).gather(1, target[:, None])[:, 0]
    return -((1 - p.exp()) ** gamma) * p


BASE = ravine.Recipe(data={"source": "blobs"}, model="mlp", stop={"after": "2ep"})
OWN = BASE.edit({"optimizer": "own:signs_of_mine", "loss": "own:focal_of_mine"})
FEW = {"seeds": 2, "rates": [0.003, 0.03], "quiet": True}


@pytest.mark.parametrize(
    ("recipe", "over", "more"),
    [
        (BASE, "optimizer=adam,own:signs_of_mine", {}),
        (BASE, "loss=cross_entropy,own:focal_of_mine", {}),
        (OWN, "loss.gamma=0,2", {"tune": "optimizer.momentum", "rates": [0.5, 0.9]}),
    ],
)
def test_own_techniques_are_compared(recipe, over, more, tmp_path):
    """A rate, or another field, is tuned for each variant, an own one's too."""
    found = ravine.compare(recipe, over=[over], out=tmp_path / "study", **FEW | more)
    assert len(found["table"]) == 2
    tuned = more.get("tune", "optimizer.lr")
    for row in found["table"]:
        assert row[tuned] in (more or FEW)["rates"]
        assert row["test_accuracy"][0] > 0.5


def smoothed_of_mine(output, target, smoothing=0.1):
    return F.cross_entropy(output, target, label_smoothing=smoothing, reduction="none")


def test_functions_and_classes_are_compared(tmp_path):
    """Beside names and tables, as ``train`` takes them."""
    over = {"loss": ["cross_entropy", smoothed_of_mine, focal_of_mine]}
    found = ravine.compare(BASE, over, out=tmp_path / "losses", **FEW)
    assert {row["variant"].replace("own:", "") for row in found["table"]} == {
        "cross_entropy", "smoothed_of_mine", "focal_of_mine"
    }  # fmt: skip
    over = {"optimizer": [{"kind": "adam"}, torch.optim.RMSprop, signs_of_mine]}
    kinds = [variant.recipe.optimizer.kind for variant in variants_of(BASE, as_texts(over))]
    assert kinds == ["adam", "own:RMSprop", "own:signs_of_mine"]


class Died(BaseException):
    pass


def test_a_study_of_objects_that_was_killed_goes_on_with_them(tmp_path, monkeypatch):
    """The same call again, or the command where a file brings them; else one message names them and the
    call."""
    over = {"loss": ["cross_entropy", smoothed_of_mine], "optimizer": [torch.optim.RMSprop]}
    given = FEW | {"rates": [0.01, 0.1]}
    whole = ravine.compare(BASE, over, out=tmp_path / "whole", **given)
    train = Study.train

    def dies(self, stage, *args, **how):
        if stage == "seeds":
            raise Died
        return train(self, stage, *args, **how)

    monkeypatch.setattr(Study, "train", dies)
    for name in ("again", "command"):
        with pytest.raises(Died):
            ravine.compare(BASE, over, out=tmp_path / name, **given)
    monkeypatch.setattr(Study, "train", train)
    assert ravine.compare(BASE, over, out=tmp_path / "again", **given)["pairs"] == whole["pairs"]
    monkeypatch.setattr(own_catalogue, "_OWN", {})
    line = r"ravine\.compare\(recipe, over=\{'loss': \['cross_entropy', smoothed_of_mine\], 'optimizer': "
    with pytest.raises(InputError, match=line + r"\[RMSprop\]\}, out='.*command'\)"):
        resume_study(tmp_path / "command", quiet=True)
    (tmp_path / "mycode.py").write_text(FILE)
    done = CliRunner().invoke(
        app, ["resume", str(tmp_path / "command"), "--with", str(tmp_path / "mycode.py"), "--quiet"]
    )
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "command" / "summary.json").read_text())
    assert summary["pairs"] == whole["pairs"]
    with pytest.raises(InputError, match=r"it is a study: call the study again with out="):
        ravine.resume(tmp_path / "command")


def test_a_source_that_changed_within_a_study_is_said(tmp_path):
    def other(output, target, smoothing=0.2):
        return smoothed_of_mine(output, target, smoothing)

    other.__name__ = "smoothed_of_mine"
    first, second = ({"loss": [one, "squared"]} for one in (smoothed_of_mine, other))
    given = {"seeds": 2, "tune": None, "quiet": True, "out": tmp_path / "study"}
    ravine.compare(BASE, first, **given)
    with pytest.raises(InputError, match=r"own code with another source.*another out="):
        ravine.compare(BASE, second, **given)


FILE = """
import torch
import ravine
from torch.nn import functional as F

def smoothed_of_mine(output, target, smoothing=0.1):
    return F.cross_entropy(output, target, label_smoothing=smoothing, reduction="none")

ravine.technique("loss")(smoothed_of_mine)
ravine.technique("optimizer")(torch.optim.RMSprop)
"""


@pytest.mark.parametrize(
    ("over", "text"),
    [
        ({"loss": F.mse_loss}, "a list of its values"),
        ({"loss": [object()]}, "got 'object'"),
        (
            {"loss": ["cross_entropy", lambda o, y: o.sum(), lambda o, y: o.mean()]},
            "a name for each",
        ),
        ({"optimizer": [torch.optim.SGD([torch.zeros(1, requires_grad=True)])]}, "optimizer"),
        ([F.mse_loss], "--over"),
    ],
)
def test_what_cannot_be_compared_gets_one_message(over, text, tmp_path):
    with pytest.raises(InputError, match=re.escape(text)):
        ravine.compare(BASE, over=over, out=tmp_path / "study", **FEW)
    assert not (tmp_path / "study").exists()


@pytest.mark.slow  # fifteen seconds: a whole search
def test_fields_of_own_techniques_are_searched(tmp_path):
    vary = ["loss.gamma=uniform:0.1:3", "optimizer.momentum=uniform:0.1:0.9"]
    found = ravine.search(OWN, vary=vary, points=2, finals=1, quiet=True, out=tmp_path / "study")
    text = json.dumps(found if isinstance(found, dict) else found.data)
    assert "loss.gamma" in text
    assert "optimizer.momentum" in text


def test_the_doctor_tries_and_proves_fields_of_own_techniques():
    slow = OWN.edit({"optimizer.lr": 1e-8, "stop.after": "6ep"})
    found = ravine.diagnose(slow)
    assert found.codes[0] == "lr_too_low"
    tried = [each for each in found.findings[0].advised if "tried" in each]
    assert tried[0]["edits"]["optimizer.lr"] > 1e-4
    cure = ravine.prove(slow, budget=6, diagnosis=found)
    assert cure.accepted
    heavy = OWN.edit({"optimizer.shrink": 50.0})
    assert ravine.diagnose(heavy).verdict == "sick"


CODE = """
import ravine
from ravine.catalogue import Positive

@ravine.technique("optimizer")
def steps_of_a_file(w, g, state, t, layout, *, lr: Positive = 0.1):
    w.sub_(lr * g)
"""


def test_a_study_on_the_command_line_takes_what_a_file_brings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mycode.py").write_text(CODE)
    named = ["--set", "data.source=blobs", "--set", "model=mlp", "--epochs", "1", "--seeds", "2"]
    over = [
        "--over",
        'optimizer={kind="sgd",lr=0.1},own:steps_of_a_file',
        "--no-tune",
        "--json",
        "--out",
        "study",
    ]
    done = CliRunner().invoke(app, ["compare", *named, *over, "--with", "mycode.py"])
    assert done.exit_code == 0, done.output
    one, other = json.loads(done.stdout.splitlines()[-1])["table"]
    assert one["test_accuracy"] == other["test_accuracy"]  # the same formula


@pytest.mark.parametrize("part", ["optimizer", "loss", "schedule", "step", "data.augment"])
@pytest.mark.parametrize("command", ["doctor", "lr", "compare", "search"])
def test_what_nobody_brought_is_asked_for_by_every_command(command, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["--set", "data.source=blobs", "--set", "model=mlp", "--set", f"{part}=own:nobody_else"]
    more = ["--over", "seed=0,1"] if command == "compare" else []
    done = CliRunner().invoke(app, [command, *named, *more])
    assert done.exit_code == 2
    assert "--with FILE.py" in done.output
    assert "own=[nobody_else]" in done.output
    assert "fails" not in done.output
