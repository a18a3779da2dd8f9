"""What a network makes of its last weighted layer's values: found by how it behaves, so that a
module of one's own whose ``forward`` ends in ``torch.sigmoid`` is recognised too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.nn.stack import evaluated

# Values that are handed to what follows the last weighted layer: both ends, and the middle.
_VALUES = (-50.0, -3.0, -0.5, 0.0, 0.5, 3.0, 50.0)
_BY_CLASS = {
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "sigmoid",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
    nn.LogSigmoid: "logsigmoid",
    nn.Tanh: "tanh",
    nn.Hardtanh: "tanh",
    nn.ReLU: "relu",
}
_PASSES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout)  # what changes no value


def output_layer(model: nn.Module, x: Tensor) -> str:
    """linear, sigmoid, softmax, log_softmax, logsigmoid, tanh, relu, constant or other.

    Values from -50 to 50 are put in the place of what the last dense or convolutional layer gives
    for the inputs ``x``, and what comes out is looked at: everything within 0 and 1 is a sigmoid
    (whatever its form), rows that sum to 1 a softmax. Where there is no such layer, or what comes
    out has no such form, the last module of nested ``nn.Sequential`` containers decides; and where
    that is not known either, rows that sum to 1 for every input are those of a softmax. The model
    is left as it was.

    >>> output_layer(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), torch.zeros(8, 4))
    'softmax'
    """
    found = _by_behaviour(model, x)
    if found in ("other", "constant"):
        found = _by_structure(model) or found
    if found == "other":
        with evaluated(model), torch.random.fork_rng(devices=[]):
            output = model(x)
        if isinstance(output, Tensor) and output.dim() > 1 and output.shape[-1] > 1:
            form = _form(output.float())
            found = form if form in ("softmax", "log_softmax") else found
    return found


def _by_structure(model: nn.Module) -> str | None:
    """By the class of the last module of nested containers; None where that says nothing."""
    if not isinstance(model, nn.Sequential):
        return next((name for kind, name in _BY_CLASS.items() if type(model) is kind), None)
    for part in reversed(model):
        if not isinstance(part, _PASSES):
            return _by_structure(part)
    return None


def _by_behaviour(model: nn.Module, x: Tensor) -> str:
    last = last_weighted(model, x)
    if last is None:
        return "other"
    values = torch.tensor(_VALUES, device=x.device)
    given: list[Tensor] = []

    def replace(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(0)
        draw = torch.randint(0, len(values), output.shape, generator=generator).to(x.device)
        given.append(values[draw].to(output.dtype))
        return given[-1]

    handle = last.register_forward_hook(replace)
    try:
        with evaluated(model), torch.random.fork_rng(devices=[]):
            output = model(x)
    finally:
        handle.remove()
    if not isinstance(output, Tensor) or output.dim() == 0:
        return "other"
    return _behaviour(given[-1].float(), output.float())


def _behaviour(given: Tensor, out: Tensor) -> str:
    low, high = float(out.min()), float(out.max())
    if high - low < 1e-6:
        return "constant"
    if out.shape == given.shape:
        if torch.allclose(out, given, atol=1e-3):
            return "linear"
        if torch.allclose(out, given.clamp_min(0), atol=1e-3):
            return "relu"
        if torch.allclose(out, F.logsigmoid(given), atol=1e-3):
            return "logsigmoid"
    form = _form(out)
    if form is not None:
        return form
    if low >= 0 and high <= 1 + 1e-5:
        return "sigmoid"
    if low >= -1 - 1e-5 and high <= 1 + 1e-5:
        return "tanh"
    if low >= 0:
        return "relu"
    return "linear" if low < -10 and high > 10 else "other"


def _form(out: Tensor) -> str | None:
    """Whether all rows are probabilities, or their logarithms."""
    ones = torch.ones_like(out[..., 0])
    if float(out.min()) >= 0 and torch.allclose(out.sum(-1), ones, atol=1e-4):
        return "softmax"
    if float(out.max()) <= 1e-4 and torch.allclose(out.exp().sum(-1), ones, atol=1e-3):
        return "log_softmax"
    return None


def largest_probability(model: nn.Module, x: Tensor) -> float:
    """The largest output where one value of the last weighted layer is 50 and the others -50, in
    each place once: 1 of a softmax, less where something between them bounds its scores.

    >>> capped = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Softmax(-1))
    >>> round(largest_probability(capped, torch.zeros(10, 4)), 2)
    0.45
    """
    last = last_weighted(model, x)
    if last is None:
        return 1.0

    def one_high(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        low = torch.full_like(output, -50.0).flatten(1)
        rows = torch.arange(len(low), device=low.device)
        low[rows, rows % low.shape[1]] = 50.0
        return low.view_as(output)

    handle = last.register_forward_hook(one_high)
    try:
        with evaluated(model), torch.random.fork_rng(devices=[]):
            output = model(x)
    finally:
        handle.remove()
    return float(output.max()) if isinstance(output, Tensor) else 1.0


def last_weighted(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The dense or convolutional layer that runs last."""
    ran: list[nn.Module] = []
    handles = [
        m.register_forward_hook(lambda module, _, output: ran.append(module))
        for m in model.modules()
        if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)
    ]
    try:
        with evaluated(model), torch.random.fork_rng(devices=[]):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1] if ran else None
