"""Metrics: a row for every name, held against scikit-learn on its own inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as scikit

from ravine.catalogue import find, table
from ravine.errors import InputError

N, K = 60, 4
RNG = np.random.default_rng(0)
SCORES = torch.tensor(RNG.normal(size=(N, K)))
CLASSES = torch.tensor(RNG.integers(K, size=N))
ANSWERS = SCORES.numpy().argmax(1)
LOGITS = torch.tensor(RNG.normal(size=N))
BINARY = torch.tensor(RNG.integers(2, size=N))
LABELS = torch.tensor(RNG.integers(2, size=(N, K)))
NUMBERS = torch.tensor(RNG.normal(size=(N, 2)))
OTHERS = torch.tensor(RNG.normal(size=(N, 2)))
STEPS = torch.tensor(RNG.normal(size=(N, 3, K)))
STEP_CLASSES = torch.tensor(RNG.integers(K, size=(N, 3)))
P = SCORES.softmax(1).numpy()
y, b, labels, s, t = (
    CLASSES.numpy(),
    BINARY.numpy(),
    LABELS.numpy(),
    NUMBERS.numpy(),
    OTHERS.numpy(),
)
positive, several = (LOGITS.numpy() > 0).astype(int), (SCORES.numpy() > 0).astype(int)

COSTS = RNG.uniform(0, 5, (K, K)).tolist()


def cost_of(p, right, answers=None):
    """Elkan's definition, sample by sample."""
    matrix = np.array(COSTS)[: p.shape[1], : p.shape[1]]
    paid = []
    for i, row in enumerate(p):
        expected = [sum(row[c] * matrix[c, a] for c in range(len(row))) for a in range(len(row))]
        answer = int(np.argmin(expected)) if answers is None else answers[i]
        paid.append(matrix[right[i], answer])
    return np.mean(paid)


TWO = np.stack([1 - LOGITS.sigmoid().numpy(), LOGITS.sigmoid().numpy()], 1)
TWO_COSTS = [row[:2] for row in COSTS[:2]]

# (name, fields, output, target, expected)
ROWS = [
    ("accuracy", {}, SCORES, CLASSES, scikit.accuracy_score(y, ANSWERS)),
    ("accuracy", {}, LOGITS, BINARY, scikit.accuracy_score(b, positive)),
    ("accuracy", {}, LOGITS[:, None], BINARY[:, None], scikit.accuracy_score(b, positive)),
    ("accuracy", {}, LOGITS.abs(), BINARY, scikit.accuracy_score(b, np.ones(N))),  # one by one
    ("accuracy", {}, SCORES, LABELS, (several == labels).mean()),
    (
        "accuracy",
        {},
        STEPS,
        STEP_CLASSES,
        (STEPS.argmax(-1) == STEP_CLASSES).double().mean().item(),
    ),
    ("mean_cost", {"costs": COSTS}, SCORES, CLASSES, cost_of(P, y)),
    (
        "mean_cost",
        {"costs": COSTS, "decision": "likeliest"},
        SCORES,
        CLASSES,
        cost_of(P, y, ANSWERS),
    ),
    ("mean_cost", {"costs": TWO_COSTS}, LOGITS, BINARY, cost_of(TWO, b)),
    ("error", {}, SCORES, CLASSES, scikit.zero_one_loss(y, ANSWERS)),
    ("balanced_accuracy", {}, SCORES, CLASSES, scikit.balanced_accuracy_score(y, ANSWERS)),
    ("top_k", {"k": 2}, SCORES, CLASSES, scikit.top_k_accuracy_score(y, P, k=2)),
    ("top_k", {}, SCORES, CLASSES, 1.0),
    *[
        (name, {"average": average}, SCORES, CLASSES, score(y, ANSWERS, average=average))
        for name, score in (
            ("precision", scikit.precision_score),
            ("recall", scikit.recall_score),
            ("f1", scikit.f1_score),
        )
        for average in ("macro", "micro", "weighted")
    ],
    ("f1", {}, LOGITS, BINARY, scikit.f1_score(b, positive)),
    ("f1", {}, SCORES, LABELS, scikit.f1_score(labels, several, average="macro")),
    ("roc_auc", {}, LOGITS, BINARY, scikit.roc_auc_score(b, LOGITS.numpy())),
    ("roc_auc", {}, SCORES, LABELS, scikit.roc_auc_score(labels, SCORES.numpy())),
    ("roc_auc", {}, SCORES, CLASSES, scikit.roc_auc_score(y, P, multi_class="ovr")),
    ("log_loss", {}, SCORES, CLASSES, scikit.log_loss(y, P)),
    ("log_loss", {}, LOGITS, BINARY, scikit.log_loss(b, LOGITS.sigmoid().numpy())),
    ("perplexity", {}, SCORES, CLASSES, math.exp(scikit.log_loss(y, P))),
    ("confusion_matrix", {}, SCORES, CLASSES, scikit.confusion_matrix(y, ANSWERS)),
    ("mse", {}, NUMBERS, OTHERS, scikit.mean_squared_error(t, s)),
    ("rmse", {}, NUMBERS[:, 0], OTHERS[:, :1], scikit.root_mean_squared_error(t[:, 0], s[:, 0])),
    ("mae", {}, NUMBERS, OTHERS, scikit.mean_absolute_error(t, s)),
    ("r2", {}, NUMBERS, OTHERS, scikit.r2_score(t, s)),
]


def measured(name, output, target, **fields):
    technique = find("metric", name)
    return technique.function()(output, target, **technique.part(kind=name, **fields).arguments)


def test_every_metric_has_a_row():
    assert {row[0] for row in ROWS} == set(table("metric"))


@pytest.mark.parametrize(("name", "fields", "output", "target", "expected"), ROWS)
def test_metrics(name, fields, output, target, expected):
    np.testing.assert_allclose(measured(name, output, target, **fields), expected, rtol=1e-10)


def test_padding_does_not_count():
    target = STEP_CLASSES.clone()
    target[:, 2] = -100
    assert measured("accuracy", STEPS, target) == measured(
        "accuracy", STEPS[:, :2], STEP_CLASSES[:, :2]
    )
    assert measured("log_loss", STEPS, target) == pytest.approx(
        measured("log_loss", STEPS[:, :2], STEP_CLASSES[:, :2])
    )


def test_what_cannot_be_measured_is_nan_not_an_error():
    assert math.isnan(measured("roc_auc", LOGITS, torch.zeros(N, dtype=torch.int64)))
    assert math.isnan(measured("r2", torch.full((3, 1), math.nan), torch.ones(3)))
    assert math.isnan(measured("r2", torch.ones(1, 1), torch.ones(1)))


@pytest.mark.parametrize(
    ("name", "output", "target"),
    [
        ("rmse", NUMBERS, OTHERS[:, 0]),
        ("accuracy", SCORES, CLASSES[:5]),
        ("top_k", LOGITS, BINARY),
    ],
)
def test_outputs_that_do_not_fit_are_refused(name, output, target):
    with pytest.raises(InputError):
        measured(name, output, target)


@pytest.mark.parametrize(
    ("costs", "output", "target"),
    [
        (((0.0, 1.0), (1.0, 0.0)), SCORES, CLASSES),  # two rows for four classes
        (((0.0, 1.0, 2.0), (1.0, 0.0)), LOGITS, BINARY),
        (((0.0, 1.0), (1.0, 0.0)), SCORES[:, :2], LABELS[:, :2]),  # labels, not one class
    ],
)
def test_costs_that_do_not_fit_are_refused(costs, output, target):
    with pytest.raises(InputError, match=r"costs|labels"):
        measured("mean_cost", output, target, costs=costs)
