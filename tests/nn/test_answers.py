"""What outputs mean is decided once: accuracy, predict and predict_proba agree for every pairing of
output layer, loss and task, and so do ensembles, the estimator, exports and the doctor."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional as F

import stored
from ravine import Recipe, Run, train, train_many
from ravine.doctor.measure.baseline import baseline
from ravine.engine.rows.evaluate import metric_functions
from ravine.errors import InputError
from ravine.interop.estimator import RavineClassifier
from ravine.interop.export import export
from ravine.nn.analysis.output_layer import output_layer
from ravine.nn.answers import Answers
from ravine.nn.build import build, build_loss
from ravine.nn.metrics import accuracy
from ravine.study.ensemble.study import Ensemble, EnsembleModel, ensemble

RNG = np.random.default_rng(0)
N, K = 60, 3
X = RNG.normal(size=(N, 4)).astype(np.float32)
CLASSES = RNG.integers(K, size=N)
TWO = (X[:, 0] > 0).astype(np.int64)
LABELS = RNG.integers(2, size=(N, K))
STEPS, STEP_CLASSES = RNG.normal(size=(N, 5, 4)).astype(np.float32), RNG.integers(K, size=(N, 5))
COSTS = [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [5.0, 1.0, 0.0]]


def loss(kind, **fields):
    return {"kind": kind, **fields}


P = {"input": "probabilities"}
JOINT = [
    loss("cross_entropy"),
    loss("cross_entropy", **P),
    loss("cross_entropy", label_smoothing=0.1),
    loss("nll"),
    loss("kl"),
    loss("kl", **P),
    loss("hinge"),
    loss("crammer_singer"),
    loss("expected_cost", costs=COSTS),
    loss("expected_cost", costs=COSTS, **P),
]
EACH = [
    loss("squared"),
    loss("absolute"),
    loss("huber"),
    loss("binary_cross_entropy"),
    loss("binary_cross_entropy", **P),
    loss("binary_hinge"),
    loss("one_vs_all", loss=loss("binary_cross_entropy")),
    loss("one_vs_all", loss=loss("binary_cross_entropy", **P)),
    loss("one_vs_all", loss=loss("binary_hinge")),
    loss("one_vs_all", loss=loss("squared")),
]
LAST = ["none", "sigmoid", "hard_sigmoid", "softmax", "log_softmax", "tanh", "relu"]
# task -> (inputs, targets, outputs, losses, output layers)
TASKS = {
    "classes": (X, CLASSES, K, [*JOINT, *EACH], LAST),
    "one output": (X, TWO, 1, EACH, [x for x in LAST if "softmax" not in x]),
    "labels": (X, LABELS, K, EACH, LAST),
    "sequence": (STEPS, STEP_CLASSES, K, JOINT[:5], LAST),
}
PAIRS = [
    (task, last, part) for task, row in TASKS.items() for last in row[4] for part in row[3]
]  # fmt: skip
QUICK = 25  # every so many pairings are trained and stored in the quick suite; all in the slow one


def name_of(part):
    inner = part.get("loss", {})
    return "-".join([part["kind"], *([part["input"]] if "input" in part else [])]) + (
        f"({name_of(inner)})" if inner else ""
    )


def recipe_of(task, last, part):
    layers = [{"kind": "dense", "units": TASKS[task][2]}, *([] if last == "none" else [last])]
    if task == "sequence":
        layers = [{"kind": "lstm", "units": 4, "output": "all"}, *layers]
    return Recipe(
        data={"batch": 20, "validation": 0.0, "test": 0.0},
        model={"layers": layers},
        loss=part,
        optimizer={"kind": "sgd", "lr": 0.1},
        stop={"after": "1it"},
        threads=1,
        precision="float32",
    )


def by_hand(task, probabilities):
    """The answers that probabilities give: the likeliest class, or what is likelier than not."""
    if task == "labels":
        return probabilities > 0.5
    return probabilities[..., 0] > 0.5 if task == "one output" else probabilities.argmax(-1)


def check(run, task, x, y):
    p = run.predict_proba(x)
    assert (p >= 0).all()
    assert (p <= 1).all()
    if task in ("classes", "sequence"):
        np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-6)
    answers = by_hand(task, p)
    np.testing.assert_array_equal(run.predict(x), answers.astype(int))
    right = answers == y
    assert run.evaluate(data=(x, y))["accuracy"] == pytest.approx(right.mean(), abs=1e-9)
    few = np.arange(0, len(x), 9)  # whether one sample is answered rightly is its own matter
    found = run.evaluate(data=(x[few], y[few]))["accuracy"]
    assert found == pytest.approx(right[few].mean(), abs=1e-9)
    outputs = run.outputs(x).double()
    if task == "labels" and last_of(run) == "softmax":
        return
    expected = {
        "softmax": outputs,
        "log_softmax": outputs.exp(),
        "sigmoid": outputs / outputs.sum(-1, keepdim=True) if p.shape[-1] > 1 else outputs,
    }.get(last_of(run))
    if expected is not None and task != "labels":
        np.testing.assert_allclose(p, expected.numpy(), atol=1e-6)


def last_of(run):
    kind = run.recipe.model.arguments["layers"][-1].kind
    return "none" if kind == "dense" else kind


TASK = {"classes": "classification", "one output": "classification", "labels": "multilabel"}
IDS = [f"{task}-{last}-{name_of(part)}" for task, last, part in PAIRS]


def network_of(task, last, part, seed=0):
    x = torch.from_numpy(TASKS[task][0])
    kind = TASK.get(task, task)
    model = build(recipe_of(task, last, part).model, tuple(x.shape[1:]), TASKS[task][2], seed=seed)
    return model, Answers.of(model, build_loss(part, kind), kind, x[:4])


@pytest.mark.parametrize(("task", "last", "part"), PAIRS, ids=IDS)
def test_every_pairing_in_memory(task, last, part):
    model, answers = network_of(task, last, part)
    x, y = torch.from_numpy(TASKS[task][0]), torch.from_numpy(TASKS[task][1])
    kind = TASK.get(task, task)
    with torch.no_grad():
        outputs = model(x)
    p = answers.probabilities(outputs)
    assert p.dtype == torch.float64
    assert bool(((p >= 0) & (p <= 1)).all())
    if kind != "multilabel":
        assert answers.by_class(outputs).sum(-1).numpy() == pytest.approx(1.0)
    own = torch.from_numpy(np.asarray(by_hand(task, p.numpy()), np.int64))
    assert answers.classes(outputs).tolist() == own.tolist()
    measure = metric_functions(answers, kind, ())["accuracy"]
    right = (own == y).double()
    assert measure(outputs, y) == pytest.approx(float(right.mean()))
    each = [measure(outputs[i : i + 1], y[i : i + 1]) for i in range(0, N, 7)]  # one by one
    assert each == pytest.approx(right[::7].reshape(len(each), -1).mean(1).tolist())
    assert Answers.from_dict(json.loads(json.dumps(answers.to_dict()))) == answers
    whole = EnsembleModel([model, *(network_of(task, last, part, s)[0] for s in (1, 2))], answers)
    with torch.no_grad():
        mean = torch.stack([answers.probabilities(m(x)) for m in whole.members]).mean(0)
        found = answers.probabilities(whole(x))
    torch.testing.assert_close(found, mean, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "last", "part"),
    [
        pytest.param(*pair, id=name, marks=[] if i % QUICK == 0 else pytest.mark.slow)
        for i, (pair, name) in enumerate(zip(PAIRS, IDS, strict=True))
    ],
)
def test_evaluate_predict_and_predict_proba_agree(task, last, part, tmp_path):
    x, y = TASKS[task][:2]
    recipe = recipe_of(task, last, part)
    run = train_many([recipe], data=(x, y), out=tmp_path / "r", quiet=True)[0]
    check(run, task, x, y)


# --- the output layer -----------------------------------------------------------------------------


class Own(nn.Module):
    """A module of one's own that applies a function to its last layer."""

    def __init__(self, last, units=3, squeeze=False):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, units)
        self.last, self.squeeze = last, squeeze

    def forward(self, x):
        y = self.last(self.second(torch.relu(self.first(x))))
        return y[:, 0] if self.squeeze else y


class Bare(nn.Module):
    """No layer that is known: its weights are its own."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return x @ self.w


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (Own(lambda z: z), "linear"),
        (Own(torch.sigmoid), "sigmoid"),
        (Own(lambda z: z.softmax(-1)), "softmax"),
        (Own(lambda z: z.log_softmax(-1)), "log_softmax"),
        (Own(F.logsigmoid), "logsigmoid"),
        (Own(torch.tanh), "tanh"),
        (Own(F.relu), "relu"),
        (Own(torch.sigmoid, 1, squeeze=True), "sigmoid"),
        (nn.Sequential(Own(lambda z: z), nn.Sequential(nn.Sigmoid(), nn.Identity())), "sigmoid"),
        (nn.Sequential(Bare(), nn.Sigmoid(), nn.Dropout()), "sigmoid"),
        (nn.Sequential(Bare(), nn.Softmax(-1)), "softmax"),
        (Bare(), "other"),
    ],
)
def test_the_output_layer_is_found(model, layer):
    model.train()
    before = copy.deepcopy(model.state_dict())
    assert output_layer(model, torch.zeros(4, 4)) == layer
    assert output_layer(model, torch.from_numpy(X[:16])) == layer
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_one_output_as_a_vector():
    model = Own(torch.sigmoid, 1, squeeze=True)
    answers = Answers.of(model, build_loss("squared", None), "classification", torch.zeros(4, 4))
    assert (answers.kind, answers.link, answers.threshold) == ("binary", "probabilities", 0.5)
    assert answers.probabilities(torch.tensor([0.2, 0.7, 0.9])).shape == (3, 1)
    assert answers.classes(torch.tensor([0.2, 0.7, 0.9])).tolist() == [0, 1, 1]
    assert answers.by_class(torch.tensor([0.25])).tolist() == [[0.75, 0.25]]


@pytest.mark.parametrize(
    ("part", "link"),
    [
        ("cross_entropy", "softmax"),
        ("nll", "log"),
        ("squared", "targets"),
        ("binary_cross_entropy", "sigmoid"),
        (loss("kl", **P), "probabilities"),
    ],
)
def test_of_an_unknown_output_layer_the_loss_decides(part, link):
    found = Answers.of(Bare(), build_loss(part, None), "classification", torch.zeros(4, 4))
    assert found.link == link


# --- fitted targets, regressions, heads -----------------------------------------------------------


def test_fitted_targets_give_the_nearest_probabilities():
    s = torch.tensor(RNG.normal(size=(50, 4)) * 2)
    found = Answers("classes", "targets").probabilities(s)
    for row, p in zip(s.numpy(), found.numpy(), strict=True):
        over = lambda tau, row=row: np.maximum(row - tau, 0).sum() - 1  # noqa: E731
        tau = brentq(over, row.min() - 1, row.max())
        assert p == pytest.approx(np.maximum(row - tau, 0), abs=1e-9)
    assert (found.argmax(-1) == s.argmax(-1)).all()
    on_it = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(Answers("classes", "targets").probabilities(on_it), on_it)


def test_whether_one_sample_is_right_does_not_depend_on_the_others():
    logits = torch.tensor([0.1, 0.3, 0.45])
    assert accuracy(logits, torch.tensor([1, 1, 1])) == 1.0
    assert accuracy(torch.cat([logits, torch.tensor([2.0])]), torch.tensor([1, 1, 1, 1])) == 1.0
    fitted, y = torch.tensor([[0.2], [0.4], [1.05]]), torch.tensor([0, 0, 1])
    assert accuracy(Answers("binary", "targets").scores(fitted), y) == 1.0


def test_a_regression_on_shares_answers_with_probabilities(tmp_path):
    shares = np.random.default_rng(0).uniform(size=N)
    recipe = Recipe(
        model={"layers": [{"kind": "dense", "units": 1}]},
        loss="binary_cross_entropy",
        data={"batch": 20},
        stop={"after": "2ep"},
    )
    run = train(recipe, data=(X, shares), quiet=True, doctor=False, out=tmp_path / "r")
    found = run.predict(X)
    assert ((found > 0) & (found < 1)).all()
    assert found == pytest.approx(run.outputs(X).sigmoid().numpy(), abs=1e-6)
    rmse = run.evaluate(data=(X, shares))["rmse"]
    assert rmse == pytest.approx(np.sqrt(((found[:, 0] - shares) ** 2).mean()), abs=1e-6)
    with pytest.raises(InputError, match="a network for classes"):
        run.predict_proba(X)


def test_heads_answer_in_the_columns_of_their_targets(tmp_path):
    y = np.stack([CLASSES, X[:, 0]], 1)
    heads = {"kind": "multi_task", "losses": ["cross_entropy", "squared"], "sizes": [3, 1]}
    layers = [{"kind": "dense", "units": 4}]
    recipe = Recipe(model={"layers": layers}, loss=heads, data={"batch": 20}, stop={"after": "2ep"})
    run = train_many([recipe], data=(X, y), out=tmp_path / "r", quiet=True)[0]
    found, outputs = run.predict(X), run.outputs(X)
    assert (found[:, 0] == outputs[:, :3].argmax(-1).numpy()).all()
    assert found[:, 1] == pytest.approx(outputs[:, 3].numpy())
    measured = run.evaluate(data=(X, y))
    assert measured["head0_accuracy"] == pytest.approx((found[:, 0] == CLASSES).mean())
    assert measured["head1_rmse"] == pytest.approx(
        np.sqrt(((found[:, 1] - X[:, 0]) ** 2).mean()), abs=1e-6
    )


def test_as_many_heads_as_sizes_answer():
    heads = (Answers("classes", "softmax"), Answers("numbers", "values"))
    answers = Answers("heads", "values", heads=heads, sizes=(3, 1))
    assert answers.values(torch.eye(4)[:2]).tolist() == [[0, 0], [1, 0]]
    with pytest.raises(ValueError, match="argument 2"):
        Answers("heads", "values", heads=heads, sizes=(2, 1, 1)).values(torch.eye(4))


@pytest.mark.parametrize("kind", ["nll", "cross_entropy"])
def test_the_best_constant_of_log_probabilities_is_that_of_logits(kind):
    y = torch.tensor([0, 0, 0, 1])
    assert baseline(build_loss(kind, None), y, 2, "classification").loss == pytest.approx(
        -0.75 * np.log(0.75) - 0.25 * np.log(0.25), rel=1e-5
    )


# --- stored, and used everywhere ------------------------------------------------------------------

CASES = {
    "softmax": ([K, "softmax"], loss("cross_entropy", **P), CLASSES),
    "squared": ([1, "sigmoid"], "squared", TWO),
    "log-softmax": ([K, "log_softmax"], "nll", CLASSES),
    "fitted": ([1], "squared", TWO),
}


def case_of(name):
    (units, *last), part, y = CASES[name]
    recipe = Recipe(
        model={"layers": [{"kind": "dense", "units": units}, *last]},
        loss=part,
        data={"batch": 20, "test": 0.3},
        optimizer={"kind": "adam", "lr": 0.05},
        stop={"after": "2ep"},
        threads=1,
    )
    return recipe, y


@pytest.mark.parametrize("name", CASES)
def test_a_run_keeps_what_was_decided(name, tmp_path):
    recipe, y = case_of(name)
    train_many([recipe], data=(X, y), out=tmp_path / "r", quiet=True)
    decided = Run(tmp_path / "r").answers
    answers = {}
    stored.edit(
        tmp_path / "r", lambda about: answers.update(about["facts"]["programs"][0].pop("answers"))
    )
    assert answers == decided.to_dict()
    assert Run(tmp_path / "r").answers == decided  # a run from before answers were stored
    other = {"answers": {**answers, "layer": "constant"}}
    stored.edit(tmp_path / "r", lambda about: about["facts"]["programs"][0].update(other))
    assert Run(tmp_path / "r").answers.layer == "constant"  # what is stored is not decided anew


@pytest.mark.parametrize("name", ["softmax", "squared"])
def test_an_ensemble_is_the_plain_average_of_its_members(name, tmp_path):
    recipe, y = case_of(name)
    ensemble(recipe, members=3, data=(X, y), quiet=True, out=tmp_path / "e")
    saved = Ensemble(tmp_path / "e")
    inputs = saved.pipeline.transform(X)
    with torch.no_grad():
        members = torch.stack([member(inputs) for member in saved.members]).double()
    mean = members.mean(0).numpy()  # the networks end in probabilities
    np.testing.assert_allclose(saved.predict_proba(X), mean, atol=1e-6)
    answers = by_hand("one output" if name == "squared" else "classes", mean)
    assert (saved.predict(X) == answers).all()
    measured = saved.evaluate(data=(X, y))
    assert measured["accuracy"] == pytest.approx((answers == y).mean())
    own = build_loss(recipe.loss, "classification")(torch.from_numpy(mean), torch.from_numpy(y))
    assert measured["loss"] == pytest.approx(float(own.mean()), rel=1e-4)
    export(tmp_path / "e", form="torch", out=tmp_path / "there")
    program = torch.export.load(tmp_path / "there" / "model.pt2").module()
    np.testing.assert_allclose(program(inputs).detach().numpy(), mean, atol=1e-6)


@pytest.mark.parametrize("name", ["log-softmax", "fitted"])
def test_exports_say_what_their_outputs_mean(name, tmp_path):
    recipe, y = case_of(name)
    run = train_many([recipe], data=(X, y), out=tmp_path / "r", quiet=True)[0]
    export(run, form="torch", out=tmp_path / "there")
    about = json.loads((tmp_path / "there" / "export.json").read_text())["answers"]
    program = torch.export.load(tmp_path / "there" / "model.pt2").module()
    answers = Answers.from_dict(about)
    assert about["threshold"] == answers.threshold
    found = answers.probabilities(program(run.pipeline.transform(X)).detach())
    np.testing.assert_allclose(found.numpy(), run.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_estimator_agrees_with_the_run(name, tmp_path):
    recipe, y = case_of(name)
    own = RavineClassifier(recipe, out=str(tmp_path / "r"), preprocess=None).fit(X, y)
    run = Run(tmp_path / "r")
    p, of_run = own.predict_proba(X), run.predict_proba(X)
    assert p.sum(1) == pytest.approx(1.0)
    assert p[:, -of_run.shape[1] :] == pytest.approx(of_run, abs=1e-6)
    assert (own.predict(X) == p.argmax(1)).all()
    assert own.score(X, y) == pytest.approx(run.evaluate(data=(X, y))["accuracy"])
