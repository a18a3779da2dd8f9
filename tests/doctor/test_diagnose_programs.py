"""Sound and faulty PyTorch trainings of many kinds, before their first step: no alarm for the sound ones,
and the fault named of the others. Nothing is said of a plan that was not given."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


N = 600
X, NOISE = drawn(N, 6), drawn(N, seed=1)
NUMBER = 2 * X[:, 0] + X[:, 1] * X[:, 2]
CLASS = (X[:, 0] + X[:, 1] > 0).long() + (X[:, 2] > 0.5).long()
ZERO_ONE = (NUMBER > 0).float()[:, None]
SHARES = torch.tensor([0.1, 0.5, 0.9])


def mlp(inputs=6, outputs=3, *head):
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, outputs), *head)


IMAGES = drawn(200, 1, 6, 6, seed=2)


def images(*head):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)]
    return nn.Sequential(*layers, *head)


class Parts(nn.Module):
    """Two or three layers of one's own, and what is done with them."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers, self.run = nn.ModuleList(layers), forward

    def forward(self, *inputs):
        return self.run(self.layers, *inputs)


def parts(forward, *sizes):
    torch.manual_seed(0)
    return Parts(forward, *(nn.Linear(*size) for size in sizes))


def adam(net, lr=1e-3):
    return torch.optim.Adam(net.parameters(), lr=lr)


def pinball(output, target):
    gap = target[:, None] - output
    return torch.maximum(SHARES * gap, (SHARES - 1) * gap).sum(1)


def gaussian(output, target):
    mean, spread = output.values() if isinstance(output, dict) else output
    return 0.5 * (spread + (target - mean) ** 2 * torch.exp(-spread))


def two_heads(layers, x):
    hidden = F.relu(layers[0](x))
    return layers[1](hidden).squeeze(1), layers[2](hidden).squeeze(1)


def by_name(layers, x):
    return dict(zip(("mean", "spread"), two_heads(layers, x), strict=True))


def variational(layers, x):
    hidden = F.relu(layers[0](x))
    mean, spread = layers[1](hidden), layers[2](hidden)
    return layers[3](mean + torch.randn_like(mean) * torch.exp(spread / 2)), mean, spread


def evidence_bound(output, target):
    rebuilt, mean, spread = output
    return ((rebuilt - target) ** 2).sum(1) - 0.05 * (1 + spread - mean**2 - spread.exp()).sum(1)


def embedded(layers, one, other):
    return tuple(F.normalize(layers[1](F.relu(layers[0](x))), dim=1) for x in (one, other))


def contrastive(output, target):
    scores = output[0] @ output[1].mT / 0.2
    return F.cross_entropy(scores, torch.arange(len(scores)))


def by_place(layers, x, place):
    return layers[1](F.relu(layers[0](x) + layers[2](F.one_hot(place.long(), 5).float())))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.rnn = nn.Embedding(12, 16), nn.GRU(16, 24, batch_first=True)
        self.tags = nn.Linear(24, 3)

    def forward(self, x):
        return self.tags(self.rnn(self.words(x))[0])


WORDS = torch.randint(1, 12, (300, 8), generator=torch.Generator().manual_seed(3))
PLACES = torch.randint(0, 5, (N,), generator=torch.Generator().manual_seed(4))
HIDDEN = torch.tanh(drawn(N, 3, seed=6) @ drawn(3, 20, seed=7)) + 0.05 * drawn(N, 20, seed=8)
CENTRES = drawn(N, 6, seed=11)
VIEWS = tuple(CENTRES + 0.3 * drawn(N, 6, seed=seed) for seed in (12, 13))
HEADS = ((6, 32), (32, 1), (32, 1))
LABELS = torch.stack([X[:, 0] > 0, X[:, 1] > 0.3, X[:, 2] + X[:, 3] > 0], 1).float()

# the network, its data, its loss, its rate
SOUND = {
    "noisy numbers": (lambda: mlp(outputs=1), (X, X[:, 0] + 2 * NOISE), nn.MSELoss(), 1e-3),
    "several labels": (mlp, (X, LABELS), nn.BCEWithLogitsLoss(), 1e-3),
    "quantiles": (mlp, (X, NUMBER + NOISE), pinball, 1e-3),
    "two inputs": (
        lambda: parts(by_place, (6, 16), (16, 2), (5, 16)),
        ((X, PLACES), (X[:, 0] + PLACES - 2 > 0).long()),
        nn.CrossEntropyLoss(),
        3e-3,
    ),
    "a tuple": (lambda: parts(two_heads, *HEADS), (X, NUMBER + NOISE), gaussian, 1e-3),
    "a dictionary": (lambda: parts(by_name, *HEADS), (X, NUMBER + NOISE), gaussian, 1e-3),
    "contrastive": (
        lambda: parts(embedded, (6, 32), (32, 8)),
        (VIEWS, torch.zeros(N)),
        contrastive,
        1e-3,
    ),
    "a variational autoencoder": (
        lambda: parts(variational, (20, 32), (32, 3), (32, 3), (3, 20)),
        (HIDDEN, HIDDEN),
        evidence_bound,
        3e-3,
    ),
    "an autoencoder": (lambda: mlp(20, 20), (HIDDEN, HIDDEN), nn.MSELoss(), 1e-3),
    "class weights": (
        lambda: mlp(outputs=2),
        (X, (X[:, 0] + X[:, 1] > 1.7).long()),
        nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.8])),
        1e-3,
    ),
    "a loss of each sample": (
        mlp,
        (X, CLASS),
        lambda output, target: F.cross_entropy(output, target, reduction="none") ** 1.5,
        1e-3,
    ),
    "shares": (lambda: mlp(6, 1, nn.Sigmoid()), (X, NUMBER.sigmoid()), nn.BCELoss(), 3e-3),
    "zeros and ones": (lambda: mlp(6, 1, nn.Sigmoid()), (X, ZERO_ONE), nn.BCELoss(), 3e-3),
    "an image to an image": (images, (IMAGES, IMAGES), nn.MSELoss(), 1e-2),
    "masks": (images, (IMAGES, (IMAGES > 0).float()), nn.BCEWithLogitsLoss(), 3e-2),
    "Huber": (lambda: mlp(outputs=1), (X, NUMBER + 0.3 * NOISE), nn.HuberLoss(), 1e-3),
    "tags": (
        Tagger,
        (WORDS, (WORDS + WORDS.roll(1, 1)) % 3),
        lambda output, target: F.cross_entropy(output.transpose(1, 2), target),
        3e-3,
    ),
    "few rows": (lambda: mlp(outputs=1), (X[:50], NUMBER[:50, None]), nn.MSELoss(), 1e-3),
    "inputs scaled inside": (
        lambda: parts(lambda layers, x: layers[1](F.relu(layers[0](x / 1e4))), (6, 32), (32, 3)),
        (1e4 * X, CLASS),
        nn.CrossEntropyLoss(),
        1e-2,
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_training_is_left_alone(name):
    make, data, loss, lr = SOUND[name]
    net = make()
    found = ravine.diagnose(net, data, loss, adam(net, lr))
    assert found.verdict == "healthy", found
    assert not found.findings
    assert "of" not in found.measured  # nobody has said how long it trains


def zeroed(net):
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


def dead(net):
    nn.init.constant_(net[2].bias, -20.0)
    return net


def mse(output, target):
    return ((output.squeeze(1) - target) ** 2).mean()


NUMBERS = NUMBER + 0.3 * NOISE


def normal(output, target):
    """The log-likelihood's negative, of numbers known to 0.05: far below zero."""
    return -torch.distributions.Normal(output, 0.05).log_prob(target).sum(1)


def cosine(output, target):
    return -F.cosine_similarity(output, target)


def by_distance(output, target):
    """Outputs are distances from the classes: the smallest is the answer."""
    return F.cross_entropy(-output, target)


def weighted_return(output, target):
    return -(output * target).mean()


# losses that are negative by nature, or have no right answer among the outputs
UPRIGHT = {
    "a likelihood": (lambda: mlp(20, 20), (HIDDEN, HIDDEN), normal),
    "a cosine": (lambda: mlp(20, 20), (HIDDEN, HIDDEN), cosine),
    "hinge": (mlp, (X, CLASS), lambda o, y: F.multi_margin_loss(o, y, reduction="none")),
    "minus the share of right answers": (
        mlp, (X, CLASS), lambda o, y: -o.softmax(1).gather(1, y[:, None])[:, 0]
    ),
    "log-probabilities": (
        lambda: mlp(6, 3, nn.LogSoftmax(1)), (X, CLASS), lambda o, y: F.nll_loss(o, y)
    ),
    "distances": (mlp, (X, CLASS), by_distance),
    "a part that is taken off": (
        lambda: mlp(outputs=1), (X, NUMBERS), lambda o, y: mse(o, y) - 5.0
    ),
    "counts": (
        lambda: mlp(outputs=1), (X, torch.poisson(NUMBER.clamp(-2, 2).exp())),
        lambda o, y: (o[:, 0].exp() - y * o[:, 0]).mean(),
    ),
    "a portfolio": (
        lambda: mlp(6, 6, nn.Softmax(1)), (X, 0.1 * X.roll(1, 1) + 0.02), weighted_return
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UPRIGHT)
def test_a_loss_that_may_be_negative_is_not_of_the_wrong_sign(name):
    make, data, loss = UPRIGHT[name]
    net = make()
    found = ravine.watch(net, adam(net), data=data, loss=loss).subject
    before = getattr(found.known, "start", found.found)
    assert not [finding for finding in before if finding.code == "wrong_sign"]


# the network, its data, its loss, its optimiser, and what is named
FAULTS = {
    "rate 100 times too high": (
        lambda: mlp(outputs=1), (X, NUMBERS), mse, lambda net: adam(net, 1.0), "lr_too_high"
    ),
    "rate far too low": (
        mlp, (X, CLASS), nn.CrossEntropyLoss(), lambda net: adam(net, 1e-8), "lr_too_low"
    ),
    "inputs of 10,000": (
        lambda: mlp(outputs=1), (1e4 * X, NUMBERS), mse, adam, "inputs_unscaled"
    ),
    "inputs of 10,000 and two outputs": (
        lambda: parts(two_heads, *HEADS), (1e4 * X, NUMBERS), gaussian, adam, "inputs_unscaled"
    ),
    "sigmoid": (
        lambda: mlp(6, 3, nn.Sigmoid()), (X, CLASS), nn.CrossEntropyLoss(), adam,
        "loss_output_mismatch",
    ),
    "softmax under a function": (
        lambda: mlp(6, 3, nn.Softmax(1)), (X, CLASS), lambda o, y: F.cross_entropy(o, y), adam,
        "loss_output_mismatch",
    ),
    "targets of 300,000": (
        lambda: mlp(outputs=1), (X, 2e5 * NUMBERS + 3e5), mse, adam, "targets_unscaled"
    ),
    "weights of 0": (
        lambda: zeroed(mlp()), (X, CLASS), nn.CrossEntropyLoss(), adam, "symmetric_init"
    ),
    "dead units": (lambda: dead(mlp()), (X, CLASS), nn.CrossEntropyLoss(), adam, "dead_units"),
    "weights that no optimiser holds": (
        mlp, (X, CLASS), nn.CrossEntropyLoss(),
        lambda net: torch.optim.Adam([net[0].bias, net[2].bias]), "frozen_weights",
    ),
    "labels of the row before": (
        mlp, (X, CLASS.roll(1)), nn.CrossEntropyLoss(), adam, "labels_shifted"
    ),
    "cross-entropy of the wrong sign": (
        mlp, (X, CLASS), lambda o, y: -F.cross_entropy(o, y), adam, "wrong_sign"
    ),
    "of probabilities, of the wrong sign": (
        lambda: mlp(6, 3, nn.Softmax(1)), (X, CLASS),
        lambda o, y: o.gather(1, y[:, None]).log().mean(), adam, "wrong_sign",
    ),
    "errors of the wrong sign": (
        lambda: mlp(outputs=1), (X, NUMBERS), lambda o, y: -mse(o, y), adam, "wrong_sign"
    ),
    "masks of two sigmoids": (
        lambda: images(nn.Sigmoid()), (IMAGES, (IMAGES > 0).float()), nn.BCEWithLogitsLoss(),
        lambda net: adam(net, 3e-2), "loss_output_mismatch",
    ),
    "the sign of one output": (
        lambda: mlp(outputs=1), (X, (X[:, 0] > 0).long()),
        lambda o, y: -F.binary_cross_entropy_with_logits(o[:, 0], y.float()), adam, "wrong_sign",
    ),
    "labels of the wrong sign": (
        mlp, (X, LABELS), lambda o, y: -F.binary_cross_entropy_with_logits(o, y), adam,
        "wrong_sign",
    ),
    "an overlap that is trained away": (
        mlp, (X, CLASS), lambda o, y: o.softmax(1).gather(1, y[:, None]).mean(), adam, "wrong_sign"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    make, data, loss, optimizer, code = FAULTS[name]
    net = make()
    found = ravine.diagnose(net, data, loss, optimizer(net))
    assert found.verdict == "sick", found
    assert code in found.codes[:2], found.codes
    assert not {"too_few_epochs", "batch_too_large"} & set(found.codes)


def test_a_plan_that_was_given_is_judged():
    net = mlp()
    found = ravine.diagnose(net, (X, CLASS), nn.CrossEntropyLoss(), adam(net, 1e-4), epochs=3)
    assert found.verdict == "sick"
    assert {"too_few_epochs", "lr_too_low"} & set(found.codes)
