"""The figures of docs/catalogue: what each technique does, drawn from the technique itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sampling
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ravine.catalogue import Technique, make
from ravine.gallery.drawing import in_both_themes
from ravine.layout import Layout
from ravine.nn.build import build
from ravine.optim.descent import path
from ravine.optim.rows.planned_rates import Schedules
from ravine.report.figures import COLOURS, DASHES, FAINT, style

SIZE = (6.4, 2.5)  # inches, two panels
MANY = 200  # points

# What techniques are given that have no default for it, or whose default shows nothing here.
GIVEN: dict[str, dict[str, Any]] = {
    "loss.expected_cost": {"costs": [[0, 1], [5, 0]]},
    "loss.multi_task": {"losses": ["squared", "absolute"], "sizes": [1, 1], "weights": [1.0, 0.5]},
    "schedule.table": {
        "values": [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05]
    },
    "schedule.step": {"every": "5ep", "factor": 0.5},
    "schedule.exponential": {"gamma": 0.8},
    "schedule.on_plateau": {"patience": "3ep", "factor": 0.3},
    "metric.mean_cost": {"costs": [[5.0 * (i != j) for j in range(10)] for i in range(10)]},
    "constraint.max_norm": {"limit": 1.0},
    "constraint.l2_ball": {"radius": 4.0},
    "constraint.l1_ball": {"radius": 6.0},
}


def part_of(technique: Technique) -> Any:
    said = GIVEN.get(f"{technique.kind}.{technique.name}", {})
    return make(technique.kind, {"kind": technique.name, **said})


def save(technique: Technique, to: Path) -> None:
    """Draw one technique into a file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with style():
        draw = DRAW[technique.kind]
        figure = (
            activation(technique) if technique.module.endswith("activations") else draw(technique)
        )
        if figure is not None:
            _as_pixels(figure)
            figure.savefig(to, dpi=144, metadata={"Date": None})
            follow_theme(to)


def _as_pixels(figure: Figure) -> None:
    """Images keep their own pixels, and many points become one image: what is written about them, and
    their axes, follow the reader's theme."""
    for axes in figure.axes:
        for image in axes.images:
            image.set_interpolation("none")
        for points in axes.collections:
            points.set_rasterized(len(points.get_offsets()) > MANY)


def follow_theme(path: Path) -> None:
    """A drawn SVG whose colours are those of the reader's theme, light or dark."""
    path.write_text(in_both_themes(path.read_text(encoding="utf-8")), encoding="utf-8")


def panels(count: int = 2, size: tuple[float, float] = SIZE) -> tuple[Figure, list[Axes]]:
    figure = Figure(size if count > 1 else (size[0] / 1.7, size[1]), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


# --- optimisers -----------------------------------------------------------------------------------

START, STEPS, CURVATURE = (-9.0, 2.5), 60, torch.tensor([1.0, 25.0], dtype=torch.float64)


def ravine(points: np.ndarray) -> np.ndarray:
    return (points**2 * CURVATURE.numpy()).sum(-1) / 2


def best_path(part: Any) -> tuple[np.ndarray, float]:
    """The descent that ends lowest, of 61 learning rates."""
    runs = []
    for lr in np.logspace(-3, 3, 61):
        fields = {**part.explicit(), "lr": float(lr)}
        points = path(fields.pop("kind"), lambda w: CURVATURE * w, START, STEPS, **fields).numpy()
        inside = bool((np.abs(points) <= (11, 4)).all())  # and it stays in the picture
        runs.append((ravine(points[-5:]).mean() if inside else np.inf, float(lr), points))
    _, lr, points = min(runs, key=lambda run: run[:2])
    return points, lr


def optimizer(technique: Technique) -> Figure:
    figure, (plane, course) = panels()
    x, y = np.meshgrid(np.linspace(-11, 11, 121), np.linspace(-4, 4, 81))
    plane.contour(
        x,
        y,
        ravine(np.stack([x, y], -1)),
        levels=np.geomspace(0.5, 300, 9),
        colors=FAINT,
        linewidths=0.4,
    )
    plain, plain_lr = best_path(make("optimizer", "sgd"))
    found, lr = best_path(part_of(technique))
    drawn = [(found, COLOURS[0], "-", f"{technique.name}, lr = {lr:.2g}")]
    if technique.name != "sgd":
        drawn.insert(0, (plain, FAINT, DASHES[1], f"sgd, lr = {plain_lr:.2g}"))
    for points, colour, dashes, label in drawn:
        plane.plot(*points.T, color=colour, ls=dashes, lw=1.1, marker="o", ms=1.8)
        course.semilogy(np.maximum(ravine(points), 1e-12), color=colour, ls=dashes, label=label)
    plane.set(xlabel="x", ylabel="y", xlim=(-11, 11), ylim=(-4, 4))
    course.set(xlabel="step", ylabel="f")
    course.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(drawn))
    return figure


def picture(accuracies: list[np.ndarray], to: Path) -> None:
    """The README's picture: paths through a ravine, and the accuracies [epochs] of some seeds."""
    with style():
        figure, (plane, course) = panels(size=(8.4, 3.0))
        x, y = np.meshgrid(np.linspace(-11, 5, 65), np.linspace(-4, 4, 49))
        levels = np.geomspace(0.5, 300, 12)
        plane.contourf(
            x, y, np.log(ravine(np.stack([x, y], -1)) + 0.3), levels=14, cmap="Blues", alpha=0.55
        )
        plane.contour(
            x, y, ravine(np.stack([x, y], -1)), levels=levels, colors="white", linewidths=0.5
        )
        for i, name in enumerate(("sgd", "momentum", "adam")):
            points, lr = best_path(make("optimizer", name))
            plane.plot(
                *points.T,
                color=COLOURS[(6, 1, 0)[i]],
                lw=1.2,
                marker="osD"[i],
                ms=(2.0, 3.5, 3.0)[i],
                mfc="none" if i == 1 else None,
                label=f"{name}, lr = {lr:.2g}",
            )
        plane.set(xlim=(-11, 5), ylim=(-4, 4), title="60 steps in a ravine", xlabel="x", ylabel="y")
        plane.legend(loc="lower right")
        for i, values in enumerate(accuracies):
            course.plot(
                np.arange(1, len(values) + 1),
                100 * values,
                color=COLOURS[i],
                ls=DASHES[i % 4],
                lw=1.2,
            )
        course.set(xlabel="epoch", ylabel="validation accuracy in %", ylim=(80, 100.5))
        course.set_title(f"handwritten digits: {len(accuracies)} seeds, one population")
        figure.savefig(to, metadata={"Date": None})
        follow_theme(to)


# --- schedules ------------------------------------------------------------------------------------


def schedule(technique: Technique) -> Figure:
    figure, (axes,) = panels(1, (8.0, 2.5))
    epochs, steps = 20, 50
    for warmup, dashes, label in (
        ("10%", DASHES[1], "after a warm-up of 10 %"),
        ("0it", "-", technique.name),
    ):
        planned = Schedules(
            [make("schedule", {**part_of(technique).explicit(), "warmup": warmup})],
            epoch_steps=steps,
            totals=[epochs * steps],
        )
        curve = []
        for epoch in range(epochs):
            curve.append(planned.factors(epoch * steps, (epoch + 1) * steps)[:, 0])
            accuracy = 0.9 - 0.5 * np.exp(
                -min(epoch, 6 if epoch < 12 else 9) / 3
            )  # it stalls twice
            planned.observe(
                {"val_accuracy": np.array([accuracy]), "val_loss": np.array([1 - accuracy])}
            )
        axes.plot(
            np.arange(epochs * steps) / steps,
            np.concatenate(curve),
            ls=dashes,
            color=COLOURS[1 if dashes != "-" else 0],
            label=label,
        )
    axes.set(
        xlabel="epoch",
        ylabel="multiplier of lr",
        ylim=(-0.03, None),
        xticks=range(0, epochs + 1, 5),
    )
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


# --- functions of one number ----------------------------------------------------------------------


def curve(
    axes: Axes,
    x: Tensor,
    function: Callable[[Tensor], Tensor],
    ylabel: str,
    xlabel: str,
    legend: bool = True,
) -> None:
    """A function [N] -> [N] and its derivative."""
    x = x.clone().requires_grad_()
    y = function(x)
    slope = torch.autograd.grad(y.sum(), x, allow_unused=True)[0] if y.requires_grad else None
    axes.plot(x.detach(), y.detach(), color=COLOURS[0], label=ylabel)
    if slope is not None:
        axes.plot(x.detach(), slope, color=COLOURS[1], ls=DASHES[1], label="derivative")
    axes.set(xlabel=xlabel)
    axes.axhline(0, color=FAINT, lw=0.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def activation(technique: Technique) -> Figure:
    figure, (axes,) = panels(1, (8.0, 2.5))
    functions: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
        "softmax": lambda module, x: module(
            torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], 1)
        )[:, 0],
        "log_softmax": lambda module, x: module(
            torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], 1)
        )[:, 0],
        "maxout": lambda module, x: module(torch.stack([x, -0.5 * x - 0.5], 1))[:, 0],
    }
    inputs = {"softmax": 3, "log_softmax": 3, "maxout": 2}.get(technique.name, 1)
    module = technique.function()((inputs,), **part_of(technique).arguments)
    apply = functions.get(technique.name, lambda module, x: module(x[:, None])[:, 0])
    label = {1: "a(x)", 2: "max(x, -x/2 - 1/2)", 3: f"{technique.name}(x, 0, 0), first entry"}[
        inputs
    ]
    curve(axes, torch.linspace(-4, 4, 401), lambda x: apply(module, x), label, "x")
    return figure


def loss(technique: Technique) -> Figure:
    figure, (axes,) = panels(1, (8.0, 2.5))
    module = build_loss_of(technique)
    z = torch.linspace(-3, 3, 401)
    zero, one = torch.zeros(len(z)), torch.ones(len(z), dtype=torch.long)
    scores = lambda z: torch.stack([zero, z], 1)  # noqa: E731  two classes, the second is right
    drawn: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
        **dict.fromkeys(
            ("squared", "absolute", "huber", "auto"),
            (lambda r: module(r[:, None], zero[:, None]), "error s - t"),
        ),
        "multi_task": (
            lambda r: module(torch.stack([r, r], 1), torch.zeros(len(z), 2)),
            "error of both heads",
        ),
        "output": (lambda s: module(s[:, None], zero), "output of the model"),
        "nll": (
            lambda s: module(scores(s).log_softmax(1), one),
            "margin: score of the right class minus the other's",
        ),
        "kl": (
            lambda s: module(scores(s), torch.tensor([[0.2, 0.8]]).expand(len(z), 2)),
            "margin; the target is (0.2, 0.8)",
        ),
        **dict.fromkeys(
            ("binary_cross_entropy", "binary_hinge"),
            (lambda s: module(s[:, None], one[:, None].float()), "score s; t = 1"),
        ),
    }
    function, label = drawn.get(
        technique.name,
        (lambda s: module(scores(s), one), "margin: score of the right class minus the other's"),
    )
    curve(axes, z, function, "loss", label)
    return figure


def build_loss_of(technique: Technique) -> nn.Module:
    name = "squared" if technique.name == "auto" else technique.name  # for regression
    said = {**GIVEN.get(f"loss.{name}", {}), "kind": name}
    part: Any = make("loss", said)
    return part.technique.function()(**part.arguments)


def metric(technique: Technique) -> Figure:
    figure, (axes,) = panels(1, (8.0, 2.5))
    generator = torch.Generator().manual_seed(0)
    noise, n, k = np.linspace(0, 3, 31), 4000, 10
    target = torch.randint(0, k, (n,), generator=generator)
    clean = torch.nn.functional.one_hot(target, k) * 3.0
    numbers = torch.randn(n, generator=generator)
    function, arguments = technique.function(), part_of(technique).arguments
    regression = technique.name in ("mse", "rmse", "mae", "r2")
    found = []
    for level in noise:
        if regression:
            found.append(
                function(
                    numbers + level * torch.randn(n, generator=generator), numbers, **arguments
                )
            )
        elif technique.name == "roc_auc":
            scores = torch.where(target < k // 2, -1.0, 1.0) + level * torch.randn(
                n, generator=generator
            )
            found.append(function(scores, (target >= k // 2).long(), **arguments))
        else:
            found.append(
                function(
                    clean + level * torch.randn(n, k, generator=generator), target, **arguments
                )
            )
    if np.ndim(found[0]):
        image = axes.imshow(np.asarray(found[len(found) // 2]), cmap="Blues")
        figure.colorbar(image, label="samples")
        axes.set(xlabel="answer", ylabel="class")
        axes.grid(False)
        return figure
    axes.plot(noise, found, color=COLOURS[0], marker="o", ms=2.5)
    what = (
        "noise on a standard normal target" if regression else "noise on the scores of 10 classes"
    )
    axes.set(xlabel=f"sd of {what}", ylabel=technique.name)
    return figure


# --- weights --------------------------------------------------------------------------------------


def initializer(technique: Technique) -> Figure:
    figure, (histogram, depth) = panels()
    width, layers = 256, 20
    batch = torch.randn(256, width, generator=torch.Generator().manual_seed(1))
    for i, name in enumerate(("none", "relu", "tanh")):
        stack = [
            p
            for _ in range(layers)
            for p in ({"kind": "dense", "units": width}, name)
            if p != "none"
        ]
        module = build(
            {
                "kind": "layers",
                "layers": stack,
                "init": {"weights": technique.name, "biases": "zeros"},
            },
            (width,),
            width,
            batch=batch,
        )
        x, variances = batch, [float(batch.var())]
        for layer in module:
            x = layer(x)
            if name == "none" or not isinstance(layer, nn.Linear):
                variances.append(float(x.detach().var()))
        label = {"none": "linear", "relu": "ReLU"}.get(name, name)
        depth.semilogy(np.maximum(variances, 1e-30), color=COLOURS[i], ls=DASHES[i], label=label)
        if i == 0:
            weights = next(module.parameters()).detach().flatten()
            histogram.hist(weights.numpy(), bins=60, color=COLOURS[0])
            histogram.set(xlabel="weight", ylabel="count", title=f"sd {float(weights.std()):.4f}")
    depth.set(xlabel="layer", ylabel="variance of activations", ylim=(1e-12, 1e12))
    depth.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def constraint(technique: Technique) -> Figure:
    figure, (axes,) = panels(1, (6.0, 3.2))
    units = 24
    before = torch.randn(units, 2, generator=torch.Generator().manual_seed(3)) * 1.3
    after = before.clone().view(1, -1)
    layout = Layout.of([("w", (units, 2), "weight", 0)])
    technique.function()(after, layout, **part_of(technique).arguments)
    for a, b in zip(before.tolist(), after.view(units, 2).tolist(), strict=True):
        axes.plot(*zip(a, b, strict=True), color=FAINT, lw=0.8)
    axes.plot(*before.T, "o", ms=4, color=COLOURS[1], mfc="none", label="before")
    axes.plot(*after.view(units, 2).T, "o", ms=4, color=COLOURS[0], label="after")
    axes.set(xlabel="first weight of a unit", ylabel="second weight", aspect="equal")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


DRAW: dict[str, Callable[[Technique], Figure | None]] = {
    "optimizer": optimizer,
    "schedule": schedule,
    "loss": loss,
    "metric": metric,
    "initializer": initializer,
    "constraint": constraint,
    "source": sampling.source,
    "preprocess": sampling.preprocess,
    "augment": sampling.augment,
    "layer": sampling.layer,
    "model": sampling.model,
}
