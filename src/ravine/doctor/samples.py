"""What the samples say before any step: labels, their order, training against validation, and
whether there is anything to learn.

What stands here of the data is wrong however well the network learns them: a leak makes validation
look better, not worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ravine.data.pipeline import Pipeline
from ravine.doctor.findings import Finding

if TYPE_CHECKING:
    from ravine.doctor.static import Examined
    from ravine.doctor.symptoms import Course

SURE, SUSPECT = 0.95, 0.4
OF_DATA = (
    "split_mismatch",
    "validation_leak",
    "class_imbalance",
    "no_signal",
)  # these explain nothing of how training goes
HELD = 0.03  # skill on validation samples that shows a signal
ENOUGH = 200  # samples without which nothing is said of signal
_KEPT = 2000  # samples that are compared


def all_targets(pipeline: Pipeline, limit: int = 20_000) -> Tensor:
    """Targets of the training part, in its order."""
    return torch.cat([batch.y for batch in pipeline.split("train", limit=limit, batch=4096)])


def _labels(program: Examined) -> Iterator[Finding]:
    y = all_targets(program.pipeline)
    loss = program.loss_kind
    if loss in ("binary_cross_entropy", "cross_entropy", "kl") and y.is_floating_point():
        outside = float(((y < 0) | (y > 1)).double().mean())
        if outside > 0:
            text = (
                f"{outside:.0%} of the targets lie outside 0 to 1 ({float(y.min()):g} "
                f"to {float(y.max()):g}), where {loss} has no meaning"
            )
            yield program.finding("labels_invalid", "targets", text, SURE)
        elif (
            loss != "binary_cross_entropy"
            and y.dim() == 2
            and y.shape[1] > 1
            and program.task != "multilabel"
        ):
            odd = float(((y.sum(1) - 1).abs() > 0.01).double().mean())
            if odd > 0.01:
                text = f"{odd:.0%} of the rows of targets do not sum to 1, as shares of classes do"
                yield program.finding("labels_invalid", "targets", text, SURE)
    if program.task == "classification" and not y.is_floating_point():
        counts = y.flatten().bincount(minlength=program.pipeline.outputs).double()
        share = counts / counts.sum()
        rare = float(share[share > 0].min())
        if float(share.max()) > 0.9 and rare < 0.05:
            text = f"the most frequent class holds {float(share.max()):.1%} of the samples, the rarest {rare:.1%}"
            yield program.finding("class_imbalance", "labels", text, SUSPECT)


def _constant(program: Examined) -> Iterator[Finding]:
    """Inputs or targets that are all alike."""
    x, y = program.probe.x, all_targets(program.pipeline)
    if len(x) > 3 and x.is_floating_point() and bool((x == x[:1]).all()):
        yield program.finding(
            "no_signal", "inputs", f"all {len(x)} inputs that were looked at are equal", SURE
        )
    elif len(y) > 3 and bool((y == y[:1]).all()):
        yield program.finding("no_signal", "targets", f"all {len(y)} targets are equal", SUSPECT)


# --- the order in which they come -----------------------------------------------------------------


def _order(program: Examined) -> Iterator[Finding]:
    """How much like its predecessor each sample's target is, against what chance gives."""
    pipeline, y = (
        program.pipeline,
        program.probe.y,
    )  # drawn as training draws them, one after the other
    if program.task == "sequence" or len(y) < 100:
        return
    if y.is_floating_point():
        alike = _successive(y.double().reshape(len(y), -1))
        text = f"in the order in which they come, successive targets correlate by {alike:.2f}"
    else:
        share = pipeline.class_counts().double().to(y.device)
        share = share / share.sum().clamp_min(1)
        chance = float(share.square().sum()) if len(share) else 1.0
        same = float((y[1:] == y[:-1]).double().mean())
        alike = (same - chance) / max(1 - chance, 1e-6) if chance < 0.98 else 0.0
        text = f"{same:.0%} of the samples have the class of the one before them, where chance gives {chance:.0%}"
    if alike > 0.5:
        yield program.finding("not_shuffled", "data.order", text, SURE)


def _successive(y: Tensor) -> float:
    """The correlation of each row with the next, over all columns that vary."""
    y = y - y.mean(0)
    y = y / y.square().mean(0).sqrt().clamp_min(1e-12)
    return float((y[1:] * y[:-1]).mean())


# --- training against validation ------------------------------------------------------------------


def _splits(program: Examined) -> Iterator[Finding]:
    pipeline = program.pipeline
    if not pipeline.has("validation") or pipeline.size("validation") < 50:
        return
    held = next(iter(pipeline.split("validation", limit=_KEPT, batch=_KEPT)))
    if program.probe.x.is_floating_point():
        yield from _inputs_apart(program, held.x)
    if not program.probe.y.is_floating_point() and program.task == "classification":
        a = pipeline.class_counts().double()
        b = held.y.flatten().cpu().bincount(minlength=len(a)).double()
        apart = float((a / a.sum() - b / b.sum()).abs().sum() / 2)
        if apart > 0.2 + (pipeline.outputs / float(b.sum())) ** 0.5:
            text = f"{apart:.0%} of the labels would have to change for training and validation to hold the classes in equal shares"
            yield program.finding("split_mismatch", "labels", text, 0.92)
    leak = _copies(program, held.x)
    if leak > 0.2:
        text = f"{leak:.0%} of the validation samples stand in the training part, digit for digit"
        yield program.finding("validation_leak", "validation part", text, SURE)


def _inputs_apart(program: Examined, held: Tensor) -> Iterator[Finding]:
    x = program.probe.x
    if program.recipe.data.augment:
        x = _some(program.pipeline)[0]
    x, v = x.double().flatten(1), held.double().flatten(1)
    spread = x.std(0, correction=0)
    wide = spread > 0.05 * spread.max()
    if not bool(wide.any()):
        return
    shift = float(((v.mean(0) - x.mean(0)).abs() / spread.clamp_min(1e-12))[wide].median())
    narrower = float((v.std(0, correction=0) / spread.clamp_min(1e-12))[wide].median())
    ratio = float(v.square().mean().sqrt() / x.square().mean().sqrt().clamp_min(1e-12))
    if not 1 / 3 < ratio < 3 or not 1 / 3 < narrower < 3 or shift > 1:
        text = (
            f"validation inputs are {ratio:.2g} times the size of training inputs and spread {narrower:.2g} times as wide; "
            f"their means differ by {shift:.2g} standard deviations"
        )
        yield program.finding("split_mismatch", "validation part", text, 0.92)


def _some(pipeline: Pipeline) -> tuple[Tensor, Tensor]:
    """Training samples as they are, drawn at random from the first 20,000."""
    parts = [(batch.x, batch.y) for batch in pipeline.split("train", limit=20_000, batch=4096)]
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:_KEPT].to(x.device)
    return x[some], y[some]


def _copies(program: Examined, held: Tensor) -> float:
    """The share of validation samples that the training part holds too, beyond what chance repeats
    in the training part."""
    train = torch.cat(
        [b.x.flatten(1) for b in program.pipeline.split("train", limit=20_000, batch=4096)]
    )
    few = torch.randperm(train.shape[1], generator=torch.Generator().manual_seed(0))[:256].to(
        train.device
    )
    mix = torch.randn(len(few), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        train.device
    )
    keys, wanted = ((rows[:, few].double() * mix).sum(1) for rows in (train, held.flatten(1)))
    repeated = 1 - len(keys.unique()) / max(1, len(keys))
    return float(torch.isin(wanted, keys).double().mean()) - 3 * repeated


SAMPLE_CHECKS: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    _labels,
    _constant,
    _order,
    _splits,
)


# --- whether the inputs say anything of the targets -----------------------------------------------


def without_signal(program: Examined, course: Course) -> list[Finding]:
    """Whether there is anything to learn, asked where validation samples do not show it."""
    held = [
        curve.base.skill(curve.val_loss[-1])
        for curve in course.curves
        if curve.val_loss and curve.finite
    ]
    if (held and max(held) > HELD) or (course.plain and not held):
        return []
    found = no_signal(program)
    return [found] if found else []


def no_signal(program: Examined) -> Finding | None:
    """What simple learners (ridge regression on the features and their squares, nearest neighbours)
    find in one half of some training samples helps them nothing in the other half.
    """
    features, targets = _plain_table(program)
    n = len(features) // 2
    if 2 * n < ENOUGH:
        return None
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    a, b = order[:n], order[n : 2 * n]
    mean, spread = features[a].mean(0), features[a].std(0, correction=0)
    live = spread > 1e-9
    z = ((features - mean) / spread.clamp_min(1e-9))[:, live].clamp(-5, 5)
    t = targets - targets[a].mean(0)
    if not z.shape[1] or float(t[b].abs().max()) == 0:
        return None
    free = max(1, t.shape[1] - (1 if program.task == "classification" and t.shape[1] > 1 else 0))
    noise = (n * free) ** -0.5  # the standard deviation of the correlation where there is no signal
    best = max(_alike(guess, t[b]) for guess in _guesses(z[a], t[a], z[b]))
    if best > 4 * noise:
        return None
    text = (
        f"simple learners trained on {n} samples guess the targets of {n} others with a correlation of {max(best, 0):.3f}; "
        f"chance gives up to {4 * noise:.3f}"
    )
    return program.finding("no_signal", "inputs and targets", text, 0.9)


def _plain_table(program: Examined) -> tuple[Tensor, Tensor]:
    """Some training samples as features [n, f] and targets [n, t], float64 on the CPU."""
    x, y = (part.cpu() for part in _some(program.pipeline))
    if program.task == "sequence":
        return _steps_of(x, y, program.pipeline.outputs)
    if not x.is_floating_point() and x.dim() == 2:
        x = _of_tokens(x)
    x = x.double().flatten(1)
    if x.shape[1] > 400:
        x = (
            x
            @ torch.randn(
                x.shape[1], 400, generator=torch.Generator().manual_seed(2), dtype=torch.float64
            )
            / x.shape[1] ** 0.5
        )
    classes = program.task == "classification" and not y.is_floating_point()
    y = one_hot(y.flatten(), max(2, program.pipeline.outputs)) if classes else y
    return x, y.double().reshape(len(y), -1)


def _of_tokens(x: Tensor) -> Tensor:
    """Each place one-hot where that is not too wide, else how often each token occurs."""
    many = int(x.max()) + 1
    if many * x.shape[1] <= 800:
        return one_hot(x, many)
    return torch.zeros(len(x), many).scatter_add_(1, x, torch.ones(x.shape))


def _steps_of(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Steps of sequences: this input and the one before it, beside this step's class."""
    now, before = x[:, 1:].flatten(0, 1), x[:, :-1].flatten(0, 1)
    target = y[:, 1:].flatten()
    kept = torch.randperm(len(target), generator=torch.Generator().manual_seed(3))
    kept = kept[target[kept] >= 0][:_KEPT]
    if not x.is_floating_point():
        now, before = (one_hot(part, int(x.max()) + 1) for part in (now, before))
    features = torch.cat([now.flatten(1)[kept], before.flatten(1)[kept]], 1).double()
    return features, one_hot(target[kept], outputs).double()


def _guesses(x: Tensor, t: Tensor, asked: Tensor) -> Iterator[Tensor]:
    wide, wanted = (torch.cat([part, part.square() - 1], 1) for part in (x, asked))
    for a, b in ((x, asked), (wide, wanted)):
        kernel = a @ a.T
        for penalty in (0.1, 10.0):
            scale = penalty * float(kernel.diagonal().mean())
            yield b @ (
                a.T @ torch.linalg.solve(kernel + scale * torch.eye(len(a), dtype=a.dtype), t)
            )
    near = torch.cdist(asked, x).topk(min(10, len(x)), largest=False).indices
    yield t[near].mean(1)


def _alike(guess: Tensor, t: Tensor) -> float:
    guess, t = guess - guess.mean(0), t - t.mean(0)
    return float((guess * t).sum() / (guess.norm() * t.norm()).clamp_min(1e-12))
