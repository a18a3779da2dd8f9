"""A person's own data and own module: each trained from the command line, or in three lines of
Python."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.data.pipeline import Pipeline
from ravine.data.read.texts import split
from ravine.data.tables.load import rows_of_table
from ravine.errors import InputError
from ravine.recipe import Data

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, 3))).argmax(1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cli(*arguments: str) -> dict:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1]) | {"said": result.stderr}


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_finds_its_file_from_elsewhere(place, monkeypatch):
    (place / "t.csv").write_text(
        "a,b,y\n" + "".join(f"{i % 7},{i % 5},{'pq'[i % 2]}\n" for i in range(120))
    )
    cli("train", "--set", "data.source=csv:t.csv", "--set", "stop.after=3ep", "--out", "run")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert set(cli("evaluate", "../run")) >= {"loss", "accuracy"}
    assert cli("resume", "../run", "--after", "5ep")


# --- from the command line, without a recipe ------------------------------------------------------


def test_a_folder_of_photos(place):
    """Two classes of mixed sizes, forms and colours, and two files that are not images."""
    for kind, colour in (("Köln", (200, 60, 40)), ("Zürich", (40, 80, 200))):
        folder = place / "photos" / kind
        folder.mkdir(parents=True)
        for i in range(24):
            pixels = np.clip(RNG.normal(colour, 30, (14 + i % 5, 12 + i % 3, 3)), 0, 255).astype(
                "uint8"
            )
            Image.fromarray(pixels).convert("RGBA" if i % 8 == 3 else "RGB").save(
                folder / f"{i}.{('png', 'webp')[i % 2]}"
            )
    (place / "photos" / "Köln" / "Thumbs.db").write_bytes(b"no image")
    (place / "photos" / "Zürich" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    ended = cli(
        "train", "--set", "data.source=folder:photos", "--set", "stop.after=12ep", "--out", "run"
    )
    warnings = [line for line in ended["said"].splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "Thumbs.db" in warnings[0]
    assert "torn.jpg" in warnings[0]
    cli("predict", "run", "photos", "--out", "answers.csv")
    answers = rows_of("answers.csv")
    assert len(answers) == 48
    assert sum(row["input"].startswith(row["prediction"]) for row in answers) > 40
    assert all(
        float(row["p_Köln"]) + float(row["p_Zürich"]) == pytest.approx(1, abs=1e-5)
        for row in answers
    )
    cli("predict", "run", "photos/Köln/0.png", "--out", "one.csv")
    assert rows_of("one.csv")[0]["input"] == "0.png"


def flats(place, name="flats.csv", separator=";"):
    """A German spreadsheet: decimal commas, a quoted header with a comma, gaps, categories, a
    constant, free text, dates."""
    with open(place / name, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(
            ["Größe, m²", "Stadt", "Zimmer", "leer", "gleich", "Notiz", "gebaut", "Preis"]
        )
        for i in range(240):
            size, rooms, city = (
                40 + 2.5 * (i % 50),
                1 + i % 5,
                ("Köln", "Bonn; Süd", "Essen, Ruhr")[i % 3],
            )
            price = 3000 * size + 8000 * rooms + (0, 40000, -30000)[i % 3]
            cells = [
                size if i % 11 else "",
                city if i % 13 else "NA",
                rooms,
                "",
                7,
                f"Nr. {i}, hell",
                f"20{i % 30:02d}-01-01",
                price,
            ]
            writer.writerow(
                [str(cell).replace(".", ",") if isinstance(cell, float) else cell for cell in cells]
            )


def test_a_table_for_a_regression(place):
    flats(place)
    ended = cli("train", "flats.csv", "--epochs", "30", "--out", "run")
    assert ended["test_r2"] > 0.6
    assert 1000 < ended["test_rmse"] < 60000  # in the target's units
    assert "'leer' (empty)" in ended["said"]
    cli("predict", "run", "flats.csv", "--out", "answers.csv")
    answers = [float(row["prediction"]) for row in rows_of("answers.csv")]
    prices = pd.read_csv("flats.csv", sep=";", decimal=",")["Preis"]
    assert np.corrcoef(answers, prices)[0, 1] > 0.9
    new = place / "new.csv"
    new.write_text(
        'Stadt,Zimmer,"Größe, m²",gleich,gebaut\nParis,3,90.5,7,1900-01-01\n,,,,\n',
        encoding="utf-8",
    )
    cli(
        "predict", "run", "new.csv", "--out", "new_answers.csv"
    )  # a city and a year that training did not have; gaps
    assert len(rows_of("new_answers.csv")) == 2


def test_a_table_for_a_classification(place):
    """Missing cells, a category, a quoted comma, and a class with three rows only."""
    lines = ["size,colour,kind"]
    for i in range(200):
        kind = "rare" if i in (5, 90, 150) else ("small", "large, really")[i % 2]
        size = {"rare": 50.0, "small": 1.0}.get(kind, 9.0) + i % 7 / 10
        lines.append(f'{size if i % 10 else ""},{("red", "blue", "?")[i % 3]},"{kind}"')
    (place / "things.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = cli("data", "csv:things.csv")
    assert found["classes"] == ["large, really", "rare", "small"]
    assert sum(part["class_counts"][1] for part in found["parts"].values()) == 3
    ended = cli(
        "train", "--set", "data.source=csv:things.csv", "--set", "stop.after=30ep", "--out", "run"
    )
    assert ended["test_accuracy"] > 0.9
    cli("predict", "run", "things.csv", "--out", "answers.csv")
    assert rows_of("answers.csv")[1]["prediction"] == "large, really"


def test_a_text(place):
    (place / "faust.txt").write_text(
        "Da steh ich nun, ich armer Tor – und bin so klug: Größe, äöüß!\n" * 80, encoding="utf-8"
    )
    ended = cli(
        "train", "--set", "data.source=text:faust.txt", "--set", "stop.after=12ep", "--out", "run"
    )
    assert ended["val_loss"] < 2.0  # nats; the entropy of its letters is 3.1
    cli("predict", "run", "--out", "sample.txt", "--length", "40", "--prompt", "Größe")
    sample = (place / "sample.txt").read_text(encoding="utf-8")
    assert sample.startswith("Größe")
    assert len(sample) == 45
    (place / "begin.txt").write_text("Da steh ", encoding="utf-8")
    cli("predict", "run", "begin.txt", "--out", "more.txt", "--length", "30")
    assert (place / "more.txt").read_text(encoding="utf-8").startswith("Da steh ")


def test_samples_go_on_from_any_prompt_and_hold_no_unknown_characters(place):
    text = "the cat sat on the mat. " * 60
    (place / "line.txt").write_text(text, encoding="utf-8")
    recipe = ravine.Recipe(
        data={"source": "text:line.txt"}, model="char_rnn", stop={"after": "2it"}
    )
    run = ravine.train(recipe, quiet=True, out="run", doctor=False)
    with pytest.warns(UserWarning, match="does not have 'ü', '日'"):
        sample = run.sample(40, prompt="ü日 the", temperature=9.0)
    assert sample.startswith("ü日 the")
    assert len(sample) == 46
    assert set(sample[6:]) <= set(text)
    assert run.sample(5)[0] == " "
    assert run.sample(20, temperature=0, seed=1) == run.sample(20, temperature=0, seed=2)
    with pytest.raises(InputError, match="at least 0"):
        run.sample(temperature=-1.0)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_ends_of_lines_are_one_character_whatever_system_wrote_them(place, end):
    (place / "a.txt").write_bytes(f"to be{end}or not{end}".encode() * 90)
    assert "\r" not in Pipeline(Data(source="text:a.txt")).classes


def test_texts_of_scripts_without_spaces_are_read_by_their_words(place):
    """A sentence is no single word, as a cell of a table and as a file of a class."""
    draw = np.random.default_rng(0)
    words = ["".join(map(chr, pair)) for pair in draw.integers(0x4E00, 0x4E40, (60, 2))]
    texts = ["".join(draw.choice(words, 9)) for _ in range(60)]
    pd.DataFrame({"text": texts, "label": ["a", "b"] * 30}).to_csv("t.csv", index=False)
    facts = Pipeline(Data(source="csv:t.csv", validation=0, test=0)).preparation.facts
    assert [one["kind"] for one in facts["columns"]] == ["text"]
    both = rows_of_table([{"text": "很好电影我喜欢"}, {"text": "不看这部电影了"}], facts)
    assert float(both[0] @ both[1]) > 0.1  # letters and the word of two that they share
    assert {"电影", "电"} <= set(split("很好电影我喜欢")) & set(split("不看这部电影了"))


def test_arrays_in_a_file(place):
    np.savez("mine.npz", x=X, y=Y)
    ended = cli(
        "train", "--set", "data.source=npz:mine.npz", "--set", "stop.after=30ep", "--out", "run"
    )
    assert ended["test_accuracy"] > 0.85
    assert cli("evaluate", "run")["accuracy"] == pytest.approx(ended["test_accuracy"])
    np.save("new.npy", X[:9])
    assert cli("predict", "run", "new.npy", "--out", "answers.csv")["count"] == 9


# --- in three lines of Python: modules ------------------------------------------------------------


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = (
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.Linear(8 * 9, 10),
        )

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(F.dropout(x, 0.2, self.training).flatten(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 16, batch_first=True), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Counting(nn.Module):
    """Buffers that training changes: one in place, one replaced."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.steps += 1
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.head(x - self.mean)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.kind, self.size = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.kind(h), self.size(h)


def train(place, model, data, **said):
    defaults = {"epochs": 15, "lr": 0.03, "batch": 32, "quiet": True, "out": place / "run"}
    return ravine.train(model=model, data=data, **defaults | said)


def test_a_convolutional_module(place):
    from sklearn.datasets import load_digits

    found = load_digits()
    run = train(
        place, Convolutional(), (found.images[:600, None] / 16, found.target[:600]), epochs=6
    )
    assert run.result["test_accuracy"] > 0.8
    assert run.predict(found.images[:3, None] / 16).shape == (3,)


def test_a_recurrent_module_and_sequences_of_different_lengths(place):
    x = [RNG.normal(size=(5 + i % 4, 2)).astype("float32") + (i % 2) for i in range(300)]
    run = train(place, Recurrent(), (x, np.arange(300) % 2))
    assert run.result["test_accuracy"] > 0.8


def test_tied_weights_stay_tied(place):
    module = Tied()
    run = train(place, module, (X, Y))
    assert run.result["test_accuracy"] > 0.7
    assert run.model is module
    assert module.a.weight is module.b.weight
    several = ravine.train_many(
        [ravine.Recipe(seed=i, stop={"after": "2ep"}) for i in range(3)],
        model=Tied,
        data=(X, Y),
        quiet=True,
        out=place / "many",
    )
    assert all(run.model.a.weight is run.model.b.weight for run in several)


@pytest.mark.parametrize("members", [1, 3])
def test_buffers_are_the_members_own(members, place):
    recipes = [
        ravine.Recipe(seed=i, stop={"after": "2ep"}, data={"batch": 64}) for i in range(members)
    ]
    runs = ravine.train_many(recipes, model=Counting, data=(X, Y), quiet=True, out=place / "run")
    for run in runs:
        assert int(run.model.steps) == run.result["steps"] == len(run.losses)
        assert float(run.model.mean.abs().sum()) > 0
    again = ravine.Run(runs[0].directory, members - 1, module=Counting)
    assert torch.equal(again.model.mean, runs[-1].model.mean)
    if members > 1:
        assert "vmap gives other values" in " ".join(
            runs[0].events_of("execution")[0]["data"]["why"]
        )


def test_several_heads(place):
    torch.manual_seed(0)  # of the weights that the module is made with
    y = np.stack([Y, X[:, 0] * 2], 1)
    loss = {"kind": "multi_task", "losses": ["cross_entropy", "squared"], "sizes": [3, 1]}
    run = train(place, Heads(), (X, y), loss=loss, monitor="val_head0_accuracy", patience="15ep")
    assert run.result["test_head0_accuracy"] > 0.8
    assert run.result["test_head1_rmse"] < 1.0
    assert run.predict(X[:5]).shape == (5, 2)  # a class, and a number


def test_frozen_parameters_stay(place):
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    run = train(place, module, (X, Y))
    assert torch.equal(run.model[0].weight, before)
    assert run.result["test_accuracy"] > 0.5


# --- in three lines of Python: data ---------------------------------------------------------------


class Pairs(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        return X[place], int(Y[place])


class Noisy(Pairs):
    """Other samples each time: it cannot be kept."""

    def __getitem__(self, place):
        return torch.from_numpy(X[place]) + 0.1 * torch.randn(6), int(Y[place])


class Stream(IterableDataset):
    def __iter__(self):
        return ((torch.from_numpy(x), int(y)) for x, y in zip(X, Y, strict=True))


DATA = {
    "arrays": (X, Y),
    "doubles": (X.astype("float64"), Y),
    "tensors": (torch.from_numpy(X), torch.from_numpy(Y)),
    "lists": (X.tolist(), Y.tolist()),
    "a frame": (pd.DataFrame(X, columns=list("abcdef")), pd.Series(Y)),
    "nullable columns": (pd.DataFrame(X).convert_dtypes(), pd.Series(Y).astype("Int64")),
    "a Dataset": Pairs(),
    "a TensorDataset": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
}
KINDS = {
    "small whole numbers": ((X * 20).astype("int8"), Y),
    "whole numbers above zero": ((X * 20 + 100).astype("int64"), Y),
    "names of classes": (X, np.array(["a", "b", "c"])[Y]),
    "rows of one": (X, np.eye(3)[Y]),
    "truth": (X, Y > 0),
    "a Dataset that differs": Noisy(),
    "a DataLoader": DataLoader(Noisy(), batch_size=20, shuffle=True),
    "a stream": (Stream(), Stream()),
    "training and validation": ((X[:300], Y[:300]), (X[300:], Y[300:])),
    "parts by name": {
        "train": (X[:300], Y[:300]),
        "val": (X[300:], Y[300:]),
        "test": (X[300:], Y[300:]),
    },
}


@pytest.mark.parametrize("kind", DATA)
def test_the_same_data_train_the_same(kind, place):
    """However they come: the same split, the same batches, the same losses."""
    said = {"model": {"kind": "mlp", "hidden": [16]}, "epochs": 2, "quiet": True}
    expected = ravine.train(data=(X, Y), out=place / "arrays", **said)
    found = ravine.train(data=DATA[kind], out=place / "other", **said)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    assert found.result["test_accuracy"] == pytest.approx(expected.result["test_accuracy"])


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind(kind, place):
    scaled = {"preprocess": "standardize"} if kind == "whole numbers above zero" else {}
    run = train(
        place,
        {"kind": "mlp", "hidden": [16]},
        KINDS[kind],
        lr=0.01 if "numbers" in kind else 0.03,
        **scaled,
    )
    assert run.metrics["val_accuracy"].max() > 0.7


def test_whole_numbers_are_numbers_or_tokens_by_the_model(place):
    x = RNG.integers(0, 9, (300, 5))
    y = (x[:, 0] > 4).astype(int)
    embedding = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))
    assert train(place, embedding, (x, y)).result["test_accuracy"] > 0.85
    run = train(place, nn.Linear(5, 2), (x, y), out=place / "numbers")
    assert run.result["test_accuracy"] > 0.8
    assert run.evaluate(data=(x, y))["accuracy"] > 0.8
    assert run.predict(x[:4]).shape == (4,)


def test_several_labels(place):
    run = train(place, {"kind": "mlp", "hidden": [16]}, (X, (X[:, :3] > 0).astype(int)))
    assert run.result["test_accuracy"] > 0.85
    assert set(np.unique(run.predict(X[:50]))) <= {0, 1}
    assert run.predict_proba(X[:5]).shape == (5, 3)


def test_several_targets(place):
    y = np.stack([1000 * X[:, 0] + 5e4, 0.01 * X[:, 1]], 1)
    scale = ["standardize", {"kind": "standardize", "of": "targets"}]
    run = train(place, {"kind": "mlp", "hidden": [16]}, (X, y), preprocess=scale)
    answers = run.predict(X)
    assert answers.shape == (400, 2)
    for k in range(2):
        assert np.corrcoef(answers[:, k], y[:, k])[0, 1] > 0.9
    assert abs(answers[:, 0].mean() - 5e4) < 500


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_precisions(precision, place):
    run = train(place, {"kind": "mlp", "hidden": [32]}, (X, Y), precision=precision, threads=1)
    record = run.events_of("execution")[0]["data"]
    assert (record["precision"], record["threads"]) == (precision, 1)
    assert run.result["test_accuracy"] > 0.8
    assert next(run.model.parameters()).dtype == (
        torch.float64 if precision == "float64" else torch.float32
    )
    assert run.evaluate(data=(X, Y))["accuracy"] > 0.8


def test_programs_are_mixed(place):
    """Recipes of different architectures, batch sizes and precisions come back in their order."""
    recipes = [
        ravine.Recipe(model="softmax", data={"batch": 32}, stop={"after": "1ep"}),
        ravine.Recipe(model={"kind": "mlp", "hidden": [8]}, stop={"after": "2ep"}),
        ravine.Recipe(model="softmax", data={"batch": 32}, stop={"after": "3ep"}, seed=1),
        ravine.Recipe(
            model="softmax", data={"batch": 64}, precision="float64", stop={"after": "1ep"}
        ),
    ]
    runs = ravine.train_many(recipes, data=(X, Y), quiet=True, out=place / "run")
    assert [run.recipe for run in runs] == [ravine.Run(place / "run", i).recipe for i in range(4)]
    assert [run.result["epochs"] for run in runs] == [1, 2, 3, 1]
    assert [run.result["steps"] for run in runs] == [9, 6, 27, 5]
    assert [sum(p.numel() for p in run.model.parameters()) for run in runs] == [21, 83, 21, 21]


def test_averaged_weights_are_the_runs_model(place):
    """With a decay so near 1 that the average hardly moves, the model is nearly the initial one."""
    said = {"model": "softmax", "data": (X, Y), "epochs": 3, "lr": 0.1, "batch": 32, "quiet": True}
    plain, averaged = (
        ravine.train(ema=ema, out=place / f"ema{ema}", **said) for ema in (0.0, 0.9999)
    )
    assert torch.equal(plain.slots["theta"], averaged.slots["theta"])
    assert averaged.result["val_loss"] > plain.result["val_loss"]
    assert float(averaged.model[1].weight.detach().norm()) < float(
        plain.model[1].weight.detach().norm()
    )


def test_photos_of_a_camera_are_made_smaller(place):
    for kind in ("a", "b"):
        (place / "camera" / kind).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (1200, 800), (200 * (kind == "a"), 40 * i, 90)).save(
                place / "camera" / kind / f"{i}.jpg"
            )
    found = cli("data", "folder:camera", "--set", "data.test=0", "--set", "data.validation=0")
    assert found["raw_shape"] == [3, 171, 256]
    asked = '{kind = "folder", path = "camera", size = [30, 40]}'
    assert cli("data", asked, "--set", "data.test=0", "--set", "data.validation=0")[
        "raw_shape"
    ] == [3, 30, 40]


# --- what goes wrong with own modules -------------------------------------------------------------


class Scaled(nn.Module):
    """A parameter that is a single number, and parameters in a list."""

    def __init__(self):
        super().__init__()
        self.scale, self.weights = (
            nn.Parameter(torch.tensor(1.0)),
            nn.ParameterList([nn.Parameter(0.1 * torch.ones(6, 3))]),
        )

    def forward(self, x):
        return self.scale * (x @ self.weights[0])


def test_modules_of_unusual_form_train(place):
    lazy = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))
    for i, module in enumerate(
        [Scaled(), lazy, nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))]
    ):
        run = train(place, module, (X, Y), out=place / f"run{i}")
        assert run.result["test_accuracy"] > 0.7
        assert run.predict(X[:2]).shape == (2,)


def test_training_leaves_the_persons_random_numbers_alone(place):
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(place, module, (X, Y), epochs=1)
    assert torch.equal(torch.rand(2), expected)


def test_a_run_goes_on_with_its_own_data_and_module_alone(place):
    train(place, nn.Linear(6, 3), (X, Y), epochs=1)
    with pytest.raises(ravine.InputError, match="the same data"):
        ravine.resume("run", model=nn.Linear(6, 3), data=(X[:200], Y[:200]), after="2ep")
    with pytest.raises(ravine.InputError, match=r"18.*the run's own model"):
        ravine.resume("run", model=nn.Linear(6, 3, bias=False), data=(X, Y), after="2ep")
    with pytest.raises(ravine.InputError, match="18 parameters"):
        ravine.Run("run", module=nn.Linear(6, 3, bias=False)).predict(X)
    with pytest.raises(ravine.InputError, match="that module again"):
        ravine.Run("run").predict(X)
    assert (
        ravine.resume("run", model=nn.Linear(6, 3), data=(X, Y), after="2ep", quiet=True)[0].result[
            "epochs"
        ]
        == 2
    )


@pytest.mark.parametrize(
    ("model", "holds"),
    [(torch.jit.script(nn.Linear(6, 3)), "scripted"), (nn.Linear, "in_features")],
)
def test_models_that_cannot_be_trained(model, holds, place):
    with pytest.raises(ravine.InputError, match=holds):
        train(place, model, (X, Y))


def test_a_long_name(place):
    run = ravine.train(model="softmax", data=(X, Y), name="x" * 400, epochs=1, quiet=True)
    assert len(run.directory.name) < 120


@pytest.mark.parametrize(
    "augment", ["feature_dropout", {"kind": "noise", "std": 0.5}, {"kind": "mixup", "alpha": 1.0}]
)
def test_tables_are_augmented_behind_their_categories(augment, place):
    """Numbers move and mix; what is not a number is never taken for another category."""
    rows = [f"{i % 9},{('x', 'y', 'z')[i % 3]},{i % 2}" for i in range(90)]
    (place / "t.csv").write_text(
        "number,letter,target\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    pipeline = Pipeline(Data(source="csv:t.csv", augment=[augment], validation=0.0, test=0.0))
    batch = pipeline.batch(0)
    shares = batch.x[:, 1:]  # the one-hot columns
    assert batch.x.shape == (90, 4)
    if augment != {"kind": "noise", "std": 0.5}:
        torch.testing.assert_close(shares.sum(1), torch.ones(90), atol=0.7, rtol=0)
        assert float(shares.min()) >= 0
    plain = Pipeline(Data(source="csv:t.csv", validation=0.0, test=0.0)).batch(0)
    assert not torch.equal(plain.x, batch.x)
    assert float((batch.x.mean(0) - plain.x.mean(0)).abs().max()) < 0.6


def test_predictions_keep_identifiers_and_say_four_digits(place):
    rows = [f"K-{5000 + i},{i % 9},{'ab'[i % 9 > 4]}" for i in range(120)]
    (place / "t.csv").write_text("\n".join(["customer,x,y", *rows]) + "\n")
    cli(
        "train",
        "t.csv",
        "--epochs",
        "2",
        "--model",
        "softmax",
        "--no-doctor",
        "--no-baselines",
        "--out",
        "run",
    )
    cli("predict", "run", "t.csv", "--out", "answers.csv")
    answers = rows_of("answers.csv")
    assert [row["customer"] for row in answers] == [f"K-{5000 + i}" for i in range(120)]
    assert list(answers[0]) == ["input", "customer", "prediction", "p_a", "p_b"]
    assert all(len(row["p_a"]) <= 6 for row in answers)
