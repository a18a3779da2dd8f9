"""What a network looks at: first-layer filters, the patches that excite its units most,
saliency."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ravine.catalogue import Count, Whole
from ravine.engine.run import Run
from ravine.errors import InputError, unknown
from ravine.study import measuring
from ravine.study.declare import Common, Conclusion, study
from ravine.study.directory import Study
from ravine.study.features.figures import page_of
from ravine.study.signature import Split

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


@study
def features(
    study: Study,
    run: Run,
    *,
    layer: str | None = None,
    units: Count = 8,
    patches: Count = 8,
    samples: Count = 2000,
    split: Split = "train",
    member: Whole = 0,
    **common: Unpack[Common],
) -> Conclusion:
    """First-layer filters, the patches that excite units most, saliency.

    *Filters*: the first layer's weights as images (a dense layer's rows in the shape of the input).
    *Patches*: for the ``units`` units of ``layer`` (default: the last convolution, else the first
    dense layer) that vary most, the parts of ``samples`` inputs that excite them most, cut to what
    the unit can see. *Saliency*: |d score of the class / d input| for one sample of each class; for
    inputs that are not images, its mean for each feature.

    Args:
        layer: The layer whose units are shown; none: the last convolution.
        units: How many units.
        patches: Patches of each unit.
        samples: Samples that are searched.
        split: The part of the data that is searched.
        member: Which member of the run directory.

    Source: Zeiler and Fergus, 2014; Simonyan et al. (saliency), 2014.
    """
    names: dict[str, nn.Module] = {
        name: module for name, module in run.model.named_modules() if isinstance(module, _WEIGHTED)
    }
    if not names:
        raise InputError(
            "features",
            got="a network without dense or convolutional layers",
            expected="at least one",
        )
    if layer is not None and layer not in names:
        raise unknown("--layer", layer, names)
    pipeline = measuring.pipeline_of(run.recipe, study.data)
    measuring.need(pipeline, split)
    batches = list(pipeline.split(split, limit=samples))
    x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
    chosen = layer or _default_layer(names)
    found: dict[str, Any] = {
        "first layer": next(iter(names)),
        "layer": chosen,
        "filters": filters(next(iter(names.values())), tuple(pipeline.input_shape)),
        "saliency": saliency(run.model, x, y, pipeline.classes),
        "columns": pipeline.preparation.facts.get("columns"),
    }
    if x.dim() == 4:
        found["units"] = exciting(run.model, names[chosen], x, units, patches)
    return _conclude(study, found)


def _default_layer(names: dict[str, nn.Module]) -> str:
    convolutions = [name for name, module in names.items() if isinstance(module, nn.Conv2d)]
    return convolutions[-1] if convolutions else next(iter(names))


def filters(layer: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """The first layer's weights [units, C, h, w]; for inputs that are not images [units, 1, 1,
    inputs]."""
    weight: Tensor = layer.weight.detach().float().cpu()  # type: ignore[operator]
    if weight.dim() == 2 and len(shape) == 3 and weight.shape[1] == int(np.prod(shape)):
        weight = weight.view(-1, *shape)
    while weight.dim() < 4:
        weight = weight.unsqueeze(1)
    return weight.numpy()


def exciting(
    model: nn.Module, layer: nn.Module, x: Tensor, units: int, patches: int
) -> list[dict[str, Any]]:
    """For each of the units that vary most: the inputs' parts [patches, C, h, w] of its largest
    values, and these values."""
    responses = _responses(model, layer, x)  # [N, U, H, W] or [N, U]
    flat = responses.flatten(2).amax(2) if responses.dim() == 4 else responses
    chosen = flat.std(0).argsort(descending=True)[:units]
    found = []
    for unit in chosen.tolist():
        values, best = flat[:, unit].topk(min(patches, len(flat)))
        parts = [_patch(model, layer, x[i], unit, responses[i, unit]) for i in best.tolist()]
        found.append({"unit": unit, "values": values.tolist(), "patches": parts})
    return found


def _responses(model: nn.Module, layer: nn.Module, x: Tensor, batch: int = 256) -> Tensor:
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(
        lambda _, __, output: seen.append(output.detach().float().cpu())
    )
    model.eval()
    try:
        with torch.no_grad():
            for part in x.split(batch):
                model(part)
    finally:
        handle.remove()
    return torch.cat(seen)


def _patch(
    model: nn.Module, layer: nn.Module, image: Tensor, unit: int, response: Tensor
) -> np.ndarray:
    """The part of an image [C, H, W] that the unit sees where it responds most: where its gradient
    is not zero."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    pixels = image[None].clone().requires_grad_()
    try:
        model(pixels)
    finally:
        handle.remove()
    value = seen[0][0, unit]
    value = value.flatten()[int(response.flatten().argmax())] if value.dim() else value
    (slope,) = torch.autograd.grad(value, pixels)
    seen_by = slope[0].abs().amax(0)
    rows, columns = seen_by.amax(1).nonzero().flatten(), seen_by.amax(0).nonzero().flatten()
    shown = image.detach().float().cpu().numpy()
    if not len(rows) or not len(columns):
        return shown
    return shown[:, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]


def saliency(model: nn.Module, x: Tensor, y: Tensor, classes: Any, most: int = 8) -> dict[str, Any]:
    """|d score of the target's class / d input|: of the first sample of each class for images, else
    the mean over samples."""
    image = x.dim() == 4
    picked = (
        [int((y == c).nonzero()[0]) for c in y.unique()[:most]]
        if image and y.dim() == 1 and not y.is_floating_point()
        else range(min(len(x), most if image else 500))
    )
    index = torch.tensor(list(picked))
    if not x.is_floating_point():
        return {"features": None}
    inputs = x[index].clone().requires_grad_()
    model.eval()
    scores = model(inputs)
    targets = y[index]
    chosen = (
        scores.gather(-1, targets.long()[:, None])
        if scores.dim() == 2 and scores.shape[-1] > 1 and not targets.is_floating_point()
        else scores
    )
    (slope,) = torch.autograd.grad(chosen.sum(), inputs)
    size = slope.abs().float()
    if not image:
        return {"features": size.flatten(1).mean(0).tolist()}
    names = [
        str(classes[int(t)])
        if classes and not targets.is_floating_point() and targets.dim() == 1
        else f"{i}"
        for i, t in enumerate(targets)
    ]
    return {
        "images": x[index].float().cpu().numpy(),
        "maps": size.amax(1).cpu().numpy(),
        "names": names,
    }


def _conclude(study: Study, found: dict[str, Any]) -> Conclusion:
    weights = found["filters"]
    norms = np.sqrt((weights.reshape(len(weights), -1) ** 2).sum(1))
    table = [
        {
            "unit": one["unit"],
            "largest value": one["values"][0],
            "least of these": one["values"][-1],
        }
        for one in found.get("units", [])
    ]
    summary = {
        "layer": found["layer"],
        "first layer": found["first layer"],
        "filters": len(weights),
        "idle filters": int((norms < 0.05 * norms.max()).sum()),
        "units": table,
        "features": found["saliency"].get("features"),
    }
    return summary, page_of(study, summary, found)
