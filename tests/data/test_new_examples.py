"""A run held against new data with their targets, from a file or a folder, in Python and on the command
line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app

RUNNER = CliRunner()


def table(path: Path, rows: int, seed: int, classes: tuple[str, ...] = ()) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": draw.normal(50, 9, rows).round(2), "town": draw.choice(["Bern", "Chur"], rows)})  # fmt: skip
    price = 3 * frame["size"] + 20 * (frame["town"] == "Bern")
    frame["goal"] = np.array(classes)[(price > 160).astype(int)] if classes else price.round(1)
    frame.to_csv(path, index=False)
    return frame


def trained(source: Path, out: Path) -> ravine.Run:
    return ravine.train(source, model="linear", epochs=2, out=out, quiet=True, doctor=False)


def evaluated(*words: object) -> dict:
    result = RUNNER.invoke(app, ["evaluate", *map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("classes", [(), ("cheap", "dear"), ("3", "7")], ids=str)
def test_a_new_table(classes, tmp_path):
    table(tmp_path / "old.csv", 120, 0, classes)
    new = table(tmp_path / "new.csv", 40, 1, classes)
    run = trained(tmp_path / "old.csv", tmp_path / "run")
    found, answers = run.evaluate(data=tmp_path / "new.csv"), run.predict(tmp_path / "new.csv")
    if classes:
        assert found["accuracy"] == np.mean(answers.astype(str) == new["goal"].to_numpy())
    else:
        error = answers.ravel() - new["goal"].to_numpy()
        assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert run.evaluate(data=new) == pytest.approx(found)
    # in another form, with a row that has no target
    written = pd.concat([new, new[:1].assign(goal=None)])[["goal", "town", "size"]]
    written.to_csv(tmp_path / "other.csv", index=False, sep=";")
    with pytest.warns(UserWarning, match="1 rows without a target left out"):
        assert run.evaluate(data=tmp_path / "other.csv") == pytest.approx(found)
    said = evaluated(tmp_path / "run", tmp_path / "new.csv")
    assert said["data"] == str(tmp_path / "new.csv")
    assert {name: said[name] for name in found} == pytest.approx(found)
    assert evaluated(tmp_path / "run")["split"] == "test"


def test_a_new_folder_of_images_is_read_as_the_first_was(tmp_path):
    draw = np.random.default_rng(0)
    for kind, light in (("day", 160), ("night", 60)):
        (tmp_path / "old" / kind).mkdir(parents=True)
        for i in range(12):
            height, width = draw.integers(16, 40, 2)
            image = draw.integers(0, light, (height, width, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "old" / kind / f"{i}.png")
    run = trained(tmp_path / "old", tmp_path / "run")
    folders = sorted(one for one in (tmp_path / "old").iterdir() if one.is_dir())
    answers = [run.predict(folder) == folder.name for folder in folders]
    assert evaluated(tmp_path / "run", tmp_path / "old")["accuracy"] == pytest.approx(np.concatenate(answers).mean())  # fmt: skip
    words = ["train", str(tmp_path / "old"), "--model", str(tmp_path / "run")]
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 2
    assert f"--set start.weights={tmp_path / 'run'}" in result.output
    table(tmp_path / "prices.csv", 9, 0)
    words = ["predict", str(tmp_path / "run"), str(tmp_path / "prices.csv")]
    result = RUNNER.invoke(app, [*words, "--out", str(tmp_path / "p.csv")])
    assert result.exit_code == 2
    assert "got 'a table'; expected images" in result.output
    result = RUNNER.invoke(app, ["evaluate", str(tmp_path / "run"), str(folders[0])])
    assert result.exit_code == 2
    assert "a folder for each class" in result.output


def test_a_new_text(tmp_path):
    (tmp_path / "old.txt").write_text("to be or not to be that is the question " * 40)
    (tmp_path / "new.txt").write_text("not to be or to be " * 20)
    fields = {"source": {"kind": "text", "path": str(tmp_path / "old.txt"), "length": 16}}
    recipe = ravine.Recipe(data=fields, model={"kind": "char_rnn", "units": 8}, stop={"after": "1ep"})  # fmt: skip
    ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False)
    found = evaluated(tmp_path / "run", tmp_path / "new.txt")
    assert 0 < found["accuracy"] < 1
    assert found["loss"] > 0


def test_what_cannot_be_held_against_a_run_is_said(tmp_path):
    new = table(tmp_path / "old.csv", 120, 0, ("cheap", "dear"))
    trained(tmp_path / "old.csv", tmp_path / "run")
    new.drop(columns="goal").to_csv(tmp_path / "bare.csv", index=False)
    new.assign(goal="dearr").to_csv(tmp_path / "other.csv", index=False)
    for words, said in (
        (["bare.csv"], "no column 'goal'"),
        (["other.csv"], "did you mean 'dear'"),
        (["none.csv"], "a file or folder that exists"),
        (["old.csv", "--split", "test"], "new data is taken whole"),
    ):
        place = [str(tmp_path / words[0]), *words[1:]]
        result = RUNNER.invoke(app, ["evaluate", str(tmp_path / "run"), *place])
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.output.split())
