"""Dense networks of P members as batched matrix products with the backward pass written out: no autograd, no vmap.

Activations are feature-major, [P, H, B]: each sample is a column, so every pass over them, the softmax among them, runs along
contiguous samples, and a layer is ``W a + b`` for W as it stands in theta. The inputs, which all members share, are [1, I, B]:
the first layer of all members is then one product. Used where every layer of a program is known here; `DenseNetwork.refuses`
says why not. In bfloat16 the weights of all but small layers are cast once a step; theta and the loss stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ravine.layout import Layout
from ravine.nn.losses import Auto, CrossEntropy
from ravine.nn.randomized import Dropout
from ravine.nn.stack import Stack
from ravine.randomness import uniform

_aten = torch.ops.aten
# activation -> (forward, gradient from (gradient, kept)), and whether its output is what is kept, else its input
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], bool]] = {
    nn.ReLU: (torch.relu, lambda g, y: _aten.threshold_backward(g, y, 0), True),
    nn.Tanh: (torch.tanh, lambda g, y: _aten.tanh_backward(g, y), True),
    nn.Sigmoid: (torch.sigmoid, lambda g, y: _aten.sigmoid_backward(g, y), True),
    nn.SiLU: (nn.functional.silu, lambda g, x: _aten.silu_backward(g, x), False),
    nn.SELU: (nn.functional.selu, lambda g, x: g * _selu_slope(x), False),
}
SMALL = 2**14  # weights of a layer under which a cast costs more than a bfloat16 product saves
_NOTHING = (nn.Flatten, nn.Identity)


class DenseNetwork:
    """The layers of P members, bound to their rows of theta [P, D] and grad [P, D]."""

    def __init__(
        self, objectives: Sequence[Any], theta: Tensor, grad: Tensor, layout: Layout, buffers: dict[str, Tensor],
        precision: torch.dtype,
    ):
        self.loss = objectives[0].loss
        self.precision, self.lower = precision, precision != theta.dtype
        self.layers: list[_Dense | _Activation | _Dropout] = []
        rows = _Rows(theta, grad, layout)
        self._low = low = _Lowered(rows, precision)
        for name, layer in _leaves("model", objectives[0].model):
            if isinstance(layer, nn.Linear):
                lower = self.lower and layer.weight.numel() >= SMALL
                self.layers.append(_Dense(low if lower else rows, name, layer))
            elif isinstance(layer, Dropout):
                if not layer.idle:
                    self.layers.append(_Dropout(layer, buffers[f"{name}.key"], buffers[f"{name}.rate"]))
            elif not isinstance(layer, _NOTHING):
                fresh = bool(self.layers) and isinstance(self.layers[-1], _Dense)
                self.layers.append(_Activation(layer, fresh))
        low.close()
        self._first = next(i for i, layer in enumerate(self.layers) if isinstance(layer, _Dense))
        self._later = self.layers[:self._first:-1]  # those behind it, the last first
        first = self.layers[self._first]
        self.input_dtype = precision if self._first == 0 and isinstance(first, _Dense) and first.lower else None
        self._plain = _plain_cross_entropy(self.loss)
        self._minus_one = theta.new_full((1, 1, 1), -1.0)

    @staticmethod
    def refuses(objectives: Sequence[Any], layout: Layout) -> str | None:
        """Why a program cannot run here; None where it can."""
        first = objectives[0]
        if first.mines or first.attacks:
            return "hard negatives and adversarial examples need autograd"
        found = dict(_leaves("model", first.model))
        named = {f"{name}.{leaf}" for name, layer in found.items() for leaf, _ in layer.named_parameters()}
        if {entry.name for entry in layout.entries} != named or len(set(map(id, found.values()))) != len(found):
            return "parameters are frozen or shared"
        for layer in found.values():
            if type(layer) not in (nn.Linear, nn.Flatten, nn.Identity, Dropout, *_ACTIVATIONS) or _hooked(layer):
                return f"{type(layer).__name__} is not among the dense layers"
        if not any(isinstance(layer, nn.Linear) for layer in found.values()):
            return "no dense layer"
        losses = [dict(objective.loss.named_buffers()) for objective in objectives]
        if any(not torch.equal(held[name], losses[0][name]) for held in losses for name in held):
            return "the members' losses differ"
        return None

    def gradients(self, x: Tensor, y: Tensor, weight: Tensor | None, accumulate: float) -> Tensor:
        """Fill grad with the gradient of the mean loss; the losses [P]. x [B, ...], y [B, ...], weight [P, B] or None."""
        self._low.take()
        a = (x if x.dim() == 2 else x.flatten(1)).t().unsqueeze(0)  # [1, I, B]
        for layer in self.layers:
            a = layer.forward(a)
        losses, g = self._loss(a.float() if self.lower else a, y)  # [P, B], [P, K, B]
        share = 1.0 / x.shape[0]
        if weight is None:
            g.mul_(share)
            found = losses.mean(1)
        else:
            g.mul_((weight * share).unsqueeze(1))
            found = (losses * weight).mean(1)
        self._backward(g, accumulate)
        self._low.give(accumulate)
        return found

    def _backward(self, g: Tensor, accumulate: float) -> None:
        for layer in self._later:
            g = layer.backward(g, accumulate)
        self.layers[self._first].backward(g, accumulate, further=False)

    def _loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [P, B] and their gradients [P, K, B] at outputs z [P, K, B]."""
        if z.shape[1] > 1 and not y.is_floating_point() and y.dim() == 1 and self._plain:
            log_p = z.log_softmax(1)
            target = y.expand(z.shape[0], 1, -1)
            losses = log_p.gather(1, target).squeeze(1).neg_()
            return losses, log_p.exp_().scatter_add_(1, target, self._minus_one.expand_as(target))
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            rows = z.transpose(1, 2).flatten(0, 1)  # [P B, K]
            losses = self.loss(rows, y.repeat(z.shape[0], *(1 for _ in y.shape[1:]))).view(z.shape[0], -1)
            total = losses.sum()
        return losses.detach(), torch.autograd.grad(total, z)[0].contiguous()  # a sum's gradient is one number, expanded


class _Rows:
    """One entry's columns of theta and of grad, by the parameter's name."""

    def __init__(self, theta: Tensor, grad: Tensor, layout: Layout):
        self.theta, self.grad, self.layout = theta.detach(), grad, layout

    def pair(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        """Values and gradients, [P, *shape]."""
        entry = self.layout[name]
        return tuple(m[:, entry.start : entry.stop].view(len(m), *shape) for m in (self.theta, self.grad))  # type: ignore[return-value]


class _Lowered:
    """Entries in lower precision: their values cast once a step, their gradients raised once a step.

    Of a single member neighbouring entries are cast together: a few long copies instead of many short ones.
    """

    def __init__(self, rows: _Rows, dtype: torch.dtype):
        self.rows, self.dtype = rows, dtype
        self.names: list[str] = []
        self.copies: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # values, gradients, and both lowered
        if len(rows.theta) == 1:
            self.values, self.slopes = (torch.empty_like(rows.theta, dtype=dtype) for _ in range(2))

    def pair(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        """Values and gradients, [P, *shape], each in one piece."""
        entry = self.rows.layout[name]
        if len(self.rows.theta) == 1:
            self.names.append(name)
            return tuple(m[:, entry.start : entry.stop].view(1, *shape) for m in (self.values, self.slopes))  # type: ignore[return-value]
        full = self.rows.pair(name, *shape)
        low = tuple(torch.empty(m.shape, dtype=self.dtype, device=m.device) for m in full)
        self.copies.append((*full, *low))  # type: ignore[arg-type]
        return low  # type: ignore[return-value]

    def close(self) -> None:
        """Every entry is known: join those of a single member that lie side by side."""
        held = sorted((self.rows.layout[name].start, self.rows.layout[name].stop) for name in self.names)
        spans: list[tuple[int, int]] = []
        for start, stop in held:
            joins = bool(spans) and spans[-1][1] == start
            spans[-1:] = [(spans[-1][0], stop)] if joins else [*spans[-1:], (start, stop)]
        for start, stop in spans:
            all_four = (self.rows.theta, self.rows.grad, self.values, self.slopes)
            self.copies.append(tuple(m[:, start:stop] for m in all_four))  # type: ignore[arg-type]

    def take(self) -> None:
        for value, _, low, _ in self.copies:
            low.copy_(value)

    def give(self, accumulate: float) -> None:
        for _, gradient, _, low in self.copies:
            _fill(gradient, low, accumulate)


class _Dense:
    """y = W a + b: a [P, I, B] or [1, I, B] -> [P, H, B]."""

    def __init__(self, held: _Rows | _Lowered, name: str, layer: nn.Linear):
        self.weight, self.weight_gradient = held.pair(f"{name}.weight", layer.out_features, layer.in_features)
        pair = held.pair(f"{name}.bias", layer.out_features, 1) if layer.bias is not None else (None, None)
        self.bias, self.bias_gradient = pair
        self.lower = isinstance(held, _Lowered)
        self.members = len(self.weight)
        self.whole = self.lower or self.members == 1  # the gradients lie in one piece

    def forward(self, a: Tensor) -> Tensor:
        w, bias = self.weight, self.bias
        self.input = a = a if a.dtype == w.dtype else a.to(w.dtype)
        if self.lower and not a.is_contiguous():  # the batch as it came, shared by all members
            y = torch.mm(w.flatten(0, 1), a[0]).view(*w.shape[:2], -1)
            return y if bias is None else y.add_(bias)
        if a.shape[0] != self.members:
            a = a.expand(self.members, -1, -1)
        return torch.bmm(w, a) if bias is None else torch.baddbmm(bias, w, a)

    def backward(self, g: Tensor, accumulate: float, further: bool = True) -> Tensor:
        a = self.input.transpose(1, 2)  # [P, B, I] or [1, B, I]
        g = g if g.dtype == a.dtype else g.to(a.dtype)
        keep = 0.0 if self.lower else accumulate  # lowered gradients are added where they are raised
        straight = self.whole and not keep
        if a.shape[0] == self.members:
            found = torch.bmm(g, a, out=self.weight_gradient if straight else None)
        else:
            into = self.weight_gradient.flatten(0, 1) if straight else None
            found = torch.mm(g.flatten(0, 1), a[0], out=into).view(self.weight.shape)
        if not straight:
            _fill(self.weight_gradient, found, keep)
        if self.bias_gradient is not None:
            if keep:
                _fill(self.bias_gradient, g.sum(2, keepdim=True), keep)
            else:
                torch.sum(g, 2, keepdim=True, out=self.bias_gradient)
        return torch.bmm(self.weight.transpose(1, 2), g) if further else g


class _Activation:
    def __init__(self, layer: nn.Module, fresh: bool):
        self.function, self.slope, self.keeps_output = _ACTIVATIONS[type(layer)]
        if fresh and type(layer) is nn.ReLU:
            self.function = torch.relu_  # over a product that nobody else needs

    def forward(self, a: Tensor) -> Tensor:
        y = self.function(a)
        self.kept = y if self.keeps_output else a
        return y

    def backward(self, g: Tensor, accumulate: float, further: bool = True) -> Tensor:
        return self.slope(g if g.dtype == self.kept.dtype else g.to(self.kept.dtype), self.kept)


class _Dropout:
    """The mask that the layer itself would draw, for all members: keys and rates [P]."""

    def __init__(self, layer: Dropout, keys: Tensor, rates: Tensor):
        self.keys, self.rates = keys, rates.float()[:, None, None]
        self.scales = 1.0 if layer.classic else 1 / (1 - rates).clamp_min(1e-12)[:, None, None]

    def forward(self, a: Tensor) -> Tensor:
        drawn = uniform(self.keys, (a.shape[2], a.shape[1])).transpose(1, 2)  # [P, H, B], drawn sample by sample
        self.mask = ((drawn >= self.rates) * self.scales).to(a.dtype)
        return a * self.mask

    def backward(self, g: Tensor, accumulate: float, further: bool = True) -> Tensor:
        return g * self.mask


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) in (nn.Sequential, Stack) and not _hooked(module):
        for child, layer in module.named_children():
            yield from _leaves(f"{name}.{child}", layer)
    else:
        yield name, module


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def _plain_cross_entropy(loss: nn.Module) -> bool:
    if type(loss) is Auto:
        loss = loss.classes
    return type(loss) is CrossEntropy and loss.input == "logits" and loss.class_weights is None and not float(loss.label_smoothing)


def _fill(into: Tensor, found: Tensor, accumulate: float) -> None:
    if accumulate:
        into.add_(found, alpha=accumulate)
    else:
        into.copy_(found)


def _selu_slope(x: Tensor) -> Tensor:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return torch.where(x > 0, scale, scale * alpha * x.exp())
