"""Losses: a row for every name, held against PyTorch, scikit-learn or the formula; mapped, and
differentiated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as scikit
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ravine.catalogue import table
from ravine.errors import InputError
from ravine.nn.build import build_loss, mark_idle_layers
from ravine.nn.loss.own_loss import OwnLoss

B, K, T = 7, 4, 5
DRAWS = torch.Generator().manual_seed(0)
SCORES = torch.randn(B, K, generator=DRAWS, dtype=torch.float64) * 2
STEPS = torch.randn(B, T, K, generator=DRAWS, dtype=torch.float64)
ONE = torch.randn(B, 1, generator=DRAWS, dtype=torch.float64)
CLASSES = torch.randint(K, (B,), generator=DRAWS)
STEP_CLASSES = torch.randint(K, (B, T), generator=DRAWS)
SOFT = torch.rand(B, K, generator=DRAWS, dtype=torch.float64).softmax(-1)
LABELS = torch.randint(2, (B, K), generator=DRAWS)
BINARY = torch.randint(2, (B,), generator=DRAWS)
NUMBERS = torch.randn(B, K, generator=DRAWS, dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
COSTS = [[0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 4.0, 1.0], [5.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]]
TABLE = torch.tensor(COSTS, dtype=torch.float64)


def hinges(margin=1.0, power=1):
    """Weston and Watkins, by loops."""
    rows = []
    for s, y in zip(SCORES, CLASSES, strict=True):
        rows.append(sum(max(0.0, margin + s[k] - s[y]) ** power for k in range(K) if k != y))
    return torch.stack([torch.as_tensor(row) for row in rows])


def crammer_singer():
    rows = [
        max(0.0, 1.0 + max(s[k] for k in range(K) if k != y) - s[y])
        for s, y in zip(SCORES, CLASSES, strict=True)
    ]
    return torch.stack([torch.as_tensor(row, dtype=torch.float64) for row in rows])


SIGNS = 2.0 * LABELS - 1
HOT = F.one_hot(CLASSES, K).double()

# (name, fields, output, target, the loss of each sample by another way)
ROWS = [
    ("squared", {}, SCORES, NUMBERS, lambda: F.mse_loss(SCORES, NUMBERS, reduction="none").mean(1)),
    ("squared", {"reduction": "sum"}, SCORES, NUMBERS, lambda: ((SCORES - NUMBERS) ** 2).sum(1)),
    ("squared", {}, SCORES, CLASSES, lambda: ((SCORES - HOT) ** 2).mean(1)),
    ("squared", {}, ONE, ONE[:, 0] + 1, lambda: torch.ones(B)),
    ("squared", {}, ONE[:, 0], ONE + 1, lambda: torch.ones(B)),
    ("absolute", {}, SCORES, NUMBERS, lambda: F.l1_loss(SCORES, NUMBERS, reduction="none").mean(1)),
    (
        "huber",
        {"delta": 0.7},
        SCORES,
        NUMBERS,
        lambda: F.huber_loss(SCORES, NUMBERS, "none", 0.7).mean(1),
    ),
    (
        "cross_entropy",
        {},
        SCORES,
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, reduction="none"),
    ),
    (
        "cross_entropy",
        {},
        SCORES,
        CLASSES[:, None],
        lambda: F.cross_entropy(SCORES, CLASSES, reduction="none"),
    ),
    ("cross_entropy", {}, SCORES, SOFT, lambda: F.cross_entropy(SCORES, SOFT, reduction="none")),
    (
        "cross_entropy",
        {"label_smoothing": 0.2},
        SCORES,
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, reduction="none", label_smoothing=0.2),
    ),
    (
        "cross_entropy",
        {"label_smoothing": 0.2},
        SCORES,
        SOFT,
        lambda: F.cross_entropy(SCORES, SOFT, reduction="none", label_smoothing=0.2),
    ),
    (
        "cross_entropy",
        {"input": "probabilities"},
        SCORES.softmax(-1),
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, reduction="none"),
    ),
    (
        "cross_entropy",
        {},
        STEPS,
        STEP_CLASSES,
        lambda: F.cross_entropy(STEPS.transpose(1, 2), STEP_CLASSES, reduction="none").mean(1),
    ),
    (
        "cross_entropy",
        {"ignore": 0, "label_smoothing": 0.1},
        STEPS,
        STEP_CLASSES,
        lambda: (
            F.cross_entropy(
                STEPS.mT, STEP_CLASSES, reduction="none", ignore_index=0, label_smoothing=0.1
            ).sum(1)
            / (STEP_CLASSES != 0).sum(1).clamp_min(1)
        ),
    ),
    (
        "cross_entropy",
        {"class_weights": WEIGHTS.tolist()},
        SCORES,
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, WEIGHTS, reduction="none"),
    ),
    (
        "cross_entropy",
        {"class_weights": WEIGHTS.tolist(), "label_smoothing": 0.3},
        SCORES,
        SOFT,
        lambda: F.cross_entropy(SCORES, SOFT, WEIGHTS, reduction="none", label_smoothing=0.3),
    ),
    (
        "binary_cross_entropy",
        {},
        ONE,
        BINARY,
        lambda: F.binary_cross_entropy_with_logits(ONE[:, 0], BINARY.double(), reduction="none"),
    ),
    (
        "binary_cross_entropy",
        {},
        SCORES,
        LABELS,
        lambda: F.binary_cross_entropy_with_logits(SCORES, LABELS.double(), reduction="none").mean(
            1
        ),
    ),
    (
        "binary_cross_entropy",
        {"input": "probabilities", "reduction": "sum"},
        SCORES.sigmoid(),
        LABELS,
        lambda: F.binary_cross_entropy(SCORES.sigmoid(), LABELS.double(), reduction="none").sum(1),
    ),
    (
        "binary_cross_entropy",
        {"label_smoothing": 0.1},
        SCORES,
        LABELS,
        lambda: F.binary_cross_entropy_with_logits(
            SCORES, LABELS.double() * 0.9 + 0.05, reduction="none"
        ).mean(1),
    ),
    (
        "binary_cross_entropy",
        {"class_weights": WEIGHTS.tolist()},
        SCORES,
        LABELS,
        lambda: F.binary_cross_entropy_with_logits(
            SCORES, LABELS.double(), WEIGHTS, reduction="none"
        ).mean(1),
    ),
    (
        "binary_cross_entropy",
        {"class_weights": [1.0, 3.0]},
        ONE,
        BINARY,
        lambda: F.binary_cross_entropy_with_logits(
            ONE[:, 0], BINARY.double(), 1.0 + 2.0 * BINARY, reduction="none"
        ),
    ),
    ("hinge", {}, SCORES, CLASSES, lambda: F.multi_margin_loss(SCORES, CLASSES, reduction="none")),
    ("hinge", {"reduction": "sum", "margin": 0.5}, SCORES, CLASSES, lambda: hinges(0.5)),
    (
        "hinge",
        {"power": 2},
        SCORES,
        CLASSES,
        lambda: F.multi_margin_loss(SCORES, CLASSES, 2, reduction="none"),
    ),
    (
        "hinge",
        {"class_weights": WEIGHTS.tolist()},
        SCORES,
        CLASSES,
        lambda: F.multi_margin_loss(SCORES, CLASSES, weight=WEIGHTS, reduction="none"),
    ),
    ("crammer_singer", {}, SCORES, CLASSES, crammer_singer),
    (
        "crammer_singer",
        {},
        SCORES,
        CLASSES,
        lambda: torch.tensor(
            [
                scikit.hinge_loss([y], SCORES[i : i + 1].numpy(), labels=range(K))
                for i, y in enumerate(CLASSES)
            ],
            dtype=torch.float64,
        ),
    ),
    ("binary_hinge", {}, SCORES, LABELS, lambda: (1 - SIGNS * SCORES).clamp_min(0).mean(1)),
    ("binary_hinge", {}, ONE, BINARY, lambda: (1 - (2 * BINARY - 1) * ONE[:, 0]).clamp_min(0)),
    (
        "binary_hinge",
        {"power": 2, "reduction": "sum"},
        SCORES,
        CLASSES,
        lambda: (1 - (2 * HOT - 1) * SCORES).clamp_min(0).square().sum(1),
    ),
    (
        "one_vs_all",
        {},
        SCORES,
        CLASSES,
        lambda: F.binary_cross_entropy_with_logits(SCORES, HOT, reduction="none").sum(1),
    ),
    (
        "one_vs_all",
        {"loss": "binary_hinge"},
        SCORES,
        CLASSES,
        lambda: (1 - (2 * HOT - 1) * SCORES).clamp_min(0).sum(1),
    ),
    ("one_vs_all", {"loss": "squared"}, SCORES, CLASSES, lambda: ((SCORES - HOT) ** 2).sum(1)),
    (
        "one_vs_all",
        {"class_weights": WEIGHTS.tolist()},
        SCORES,
        CLASSES,
        lambda: (
            WEIGHTS[CLASSES]
            * F.binary_cross_entropy_with_logits(SCORES, HOT, reduction="none").sum(1)
        ),
    ),
    (
        "nll",
        {},
        SCORES.log_softmax(-1),
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, reduction="none"),
    ),
    (
        "nll",
        {},
        STEPS.log_softmax(-1),
        STEP_CLASSES,
        lambda: F.cross_entropy(STEPS.transpose(1, 2), STEP_CLASSES, reduction="none").mean(1),
    ),
    (
        "kl",
        {},
        SCORES,
        SOFT,
        lambda: F.kl_div(SCORES.log_softmax(-1), SOFT, reduction="none").sum(1),
    ),
    (
        "kl",
        {"input": "probabilities"},
        SCORES.softmax(-1),
        SOFT,
        lambda: F.kl_div(SCORES.log_softmax(-1), SOFT, reduction="none").sum(1),
    ),
    ("kl", {}, SCORES, CLASSES, lambda: F.cross_entropy(SCORES, CLASSES, reduction="none")),
    (
        "expected_cost",
        {"costs": COSTS},
        SCORES,
        CLASSES,
        lambda: (TABLE[CLASSES] * SCORES.softmax(-1)).sum(1),
    ),
    (
        "expected_cost",
        {"costs": COSTS, "class_weights": WEIGHTS.tolist()},
        SCORES,
        CLASSES,
        lambda: WEIGHTS[CLASSES] * (TABLE[CLASSES] * SCORES.softmax(-1)).sum(1),
    ),
    (
        "multi_task",
        {"losses": ["cross_entropy", "squared"], "sizes": [3, 1], "weights": [2.0, 0.5]},
        SCORES,
        torch.stack([CLASSES % 3, BINARY], 1),
        lambda: (
            2 * F.cross_entropy(SCORES[:, :3], CLASSES % 3, reduction="none")
            + 0.5 * (SCORES[:, 3] - BINARY) ** 2
        ),
    ),
    ("output", {}, ONE, BINARY, lambda: ONE[:, 0]),
    ("auto", {}, SCORES, CLASSES, lambda: F.cross_entropy(SCORES, CLASSES, reduction="none")),
    ("auto", {}, SCORES, NUMBERS, lambda: ((SCORES - NUMBERS) ** 2).mean(1)),
]
IDS = [f"{row[0]}-{i}" for i, row in enumerate(ROWS)]
PER_MEMBER = {
    "cross_entropy": ("label_smoothing", (0.0, 0.1, 0.3)),
    "binary_cross_entropy": ("label_smoothing", (0.0, 0.1, 0.3)),
    "huber": ("delta", (0.5, 1.0, 2.0)),
    "hinge": ("margin", (0.5, 1.0, 2.0)),
    "crammer_singer": ("margin", (0.5, 1.0, 2.0)),
    "binary_hinge": ("margin", (0.5, 1.0, 2.0)),
    "multi_task": ("weights", ([1.0, 0.0], [0.0, 1.0], [2.0, 3.0])),
}


def loss_of(name, fields):
    return build_loss({"kind": name, **fields}, None).double()


def test_every_loss_has_a_row():
    assert {row[0] for row in ROWS} == set(table("loss"))


@pytest.mark.parametrize(("name", "fields", "output", "target", "reference"), ROWS, ids=IDS)
def test_losses_of_the_samples(name, fields, output, target, reference):
    torch.testing.assert_close(
        loss_of(name, fields)(output, target), reference().double(), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("name", "fields", "output", "target", "reference"), ROWS, ids=IDS)
def test_gradients_by_central_differences(name, fields, output, target, reference):
    loss = loss_of(name, fields)
    assert torch.autograd.gradcheck(
        lambda s: loss(s, target), output.clone().requires_grad_(), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(("name", "fields", "output", "target", "reference"), ROWS, ids=IDS)
def test_members_mapped_equal_direct_calls(name, fields, output, target, reference):
    field, values = PER_MEMBER.get(name, ("", (None,) * 3))
    losses = [loss_of(name, {**fields, **({field: value} if field else {})}) for value in values]
    outputs = torch.stack([output.roll(i, 0) for i in range(3)])
    outputs = outputs.requires_grad_()
    buffers = stack_module_state(losses)[1]
    mapped = vmap(lambda b, s: functional_call(losses[0], b, (s, target)))(buffers, outputs)
    direct = torch.stack([loss(s, target) for loss, s in zip(losses, outputs, strict=True)])
    torch.testing.assert_close(mapped, direct, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(found.sum(), outputs)[0] for found in (mapped, direct)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "squared", "hinge", "binary_cross_entropy"])
def test_half_precision_outputs_are_summed_in_float32(name):
    loss, half = build_loss(name, None), SCORES.bfloat16()
    assert torch.equal(loss(half, CLASSES), loss(half.float(), CLASSES))


EXTREME = torch.tensor([[1000.0, -1000.0], [-1000.0, 1000.0]])


@pytest.mark.parametrize(
    "name", ["cross_entropy", "binary_cross_entropy", "kl", "hinge", "one_vs_all", "expected_cost"]
)
def test_extreme_scores_neither_overflow_nor_lose_their_gradient(name):
    fields = {"costs": [[0.0, 1.0], [1.0, 0.0]]} if name == "expected_cost" else {}
    scores = EXTREME.clone().requires_grad_()
    losses = build_loss({"kind": name, **fields}, None)(scores, torch.tensor([1, 1]))
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert bool(losses.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert losses[1].item() == pytest.approx(0.0, abs=1e-6)
    if name != "expected_cost":  # its gradient vanishes where the softmax saturates
        assert float(gradient[0].abs().sum()) > 0.5


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_certain_but_wrong_probabilities_cost_much_but_not_infinitely(name):
    loss = build_loss({"kind": name, "input": "probabilities"}, None)(
        torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    )
    assert 10 < float(loss) < 20


def test_a_step_of_padding_alone_costs_nothing():
    target = STEP_CLASSES.clone()
    target[0] = -100
    assert float(loss_of("cross_entropy", {})(STEPS, target)[0]) == 0.0


MIXABLE = [
    "cross_entropy",
    "hinge",
    "crammer_singer",
    "expected_cost",
    "binary_hinge",
    "one_vs_all",
    "nll",
]
BY_OUTPUT = ("binary_hinge", "one_vs_all")  # class weights meet soft targets output by output


@pytest.mark.parametrize(
    ("name", "weights"),
    [(n, None) for n in MIXABLE] + [(n, WEIGHTS.tolist()) for n in MIXABLE if n not in BY_OUTPUT],
)
def test_mixed_targets_give_the_mixed_loss(name, weights):
    fields = {"expected_cost": {"costs": COSTS}, "cross_entropy": {"label_smoothing": 0.1}}.get(
        name, {}
    )
    loss = loss_of(name, {**fields, "class_weights": weights})
    other = CLASSES.roll(1)
    mixed = 0.3 * F.one_hot(CLASSES, K) + 0.7 * F.one_hot(other, K)
    expected = 0.3 * loss(SCORES, CLASSES) + 0.7 * loss(SCORES, other)
    torch.testing.assert_close(loss(SCORES, mixed.double()), expected)


def test_settled_cross_entropy_is_the_plain_one():
    loss = loss_of("cross_entropy", {})
    before = loss(SCORES, CLASSES)
    mark_idle_layers(nn.ModuleDict({"loss": loss}), {"loss.label_smoothing": torch.zeros(3)})
    assert loss.idle
    assert torch.equal(loss(SCORES, CLASSES), before)


def test_one_class_takes_its_target_as_a_probability():
    assert torch.equal(
        loss_of("cross_entropy", {})(ONE, BINARY), torch.zeros(B, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("classification", "CrossEntropy"),
        ("sequence", "CrossEntropy"),
        ("regression", "Squared"),
        ("multilabel", "BinaryCrossEntropy"),
    ],
)
def test_auto_is_chosen_by_the_task(task, name):
    assert type(build_loss("auto", task)).__name__ == name


def test_balanced_weights_are_those_of_scikit_learn():
    y = np.array([0] * 5 + [1] * 3 + [2] * 12)
    from sklearn.utils.class_weight import compute_class_weight

    loss = build_loss(
        {"kind": "auto", "class_weights": "balanced"},
        "classification",
        counts=np.bincount(y).tolist(),
    )
    np.testing.assert_allclose(
        loss.class_weights.numpy(), compute_class_weight("balanced", classes=np.arange(3), y=y)
    )


WRONG = [
    ({"kind": "squared"}, SCORES, NUMBERS[:, :2], "one target for each output"),
    ({"kind": "squared"}, SCORES, NUMBERS[:, 0], "one target for each output"),
    ({"kind": "cross_entropy"}, SCORES, STEP_CLASSES, "class number for each row"),
    ({"kind": "cross_entropy"}, SCORES[:, 0], CLASSES, "score for each class"),
    ({"kind": "output"}, SCORES, CLASSES, "loss of each sample"),
    (
        {"kind": "expected_cost", "costs": [[0.0, 1.0], [1.0, 0.0]]},
        SCORES,
        CLASSES,
        "one for each class",
    ),
    (
        {"kind": "multi_task", "losses": ["squared", "squared"], "sizes": [3, 1]},
        SCORES,
        NUMBERS[:, :3],
        "by head",
    ),
]


@pytest.mark.parametrize(("part", "output", "target", "said"), WRONG)
def test_targets_that_do_not_fit_are_refused(part, output, target, said):
    with pytest.raises(InputError, match=said):
        build_loss(part, None)(output, target)


WRONG_PARTS = [
    ({"kind": "expected_cost", "costs": [[0.0, 1.0]]}, None, "square matrix"),
    ({"kind": "output", "class_weights": [1.0]}, None, "loss over classes"),
    ({"kind": "cross_entropy", "class_weights": "balanced"}, None, "counts"),
    ({"kind": "cross_entropy", "class_weights": [1.0, 2.0]}, [3, 4, 5], "one for each class"),
    ({"kind": "multi_task", "losses": ["squared"], "sizes": [3, 1]}, None, "for every head"),
    ({"kind": "cross_entropi"}, None, "cross_entropy"),
]


@pytest.mark.parametrize(("part", "counts", "said"), WRONG_PARTS)
def test_losses_that_cannot_be_built_are_refused(part, counts, said):
    with pytest.raises(InputError, match=said):
        build_loss(part, "classification", counts=counts)


def test_a_function_of_vectors_is_given_vectors():
    """Of [B] and [B, 1] it would compare each sample with all."""
    own = OwnLoss(lambda output, target: (output.squeeze(1) - target).square(), "regression")
    y = torch.tensor([[0.0], [1.0], [3.0]])
    assert own(y, y).tolist() == [0, 0, 0]
    assert own.takes_vector
    assert own(y + 1, y).tolist() == [1, 1, 1]


def test_the_loss_of_one_sample_is_no_mean():
    own = OwnLoss(lambda output, target: (output - target).square().mean(1))
    assert own(torch.ones(1, 1), torch.zeros(1, 1)).tolist() == [1]
    assert not own.one_number
    mean = OwnLoss(lambda output, target: (output - target).square().mean(0))
    assert mean(torch.ones(3, 1), torch.zeros(3, 1)).tolist() == [1, 1, 1]
    assert mean.one_number


@pytest.mark.parametrize("kind", list(table("loss")))
def test_the_numbers_of_a_loss_are_no_weights_of_the_network(kind):
    needed = {
        "multi_task": {"losses": ["squared"], "sizes": [1]},
        "expected_cost": {"costs": [[0, 1], [1, 0]]},
    }
    assert not build_loss({"kind": kind, **needed.get(kind, {})}, None).state_dict()
