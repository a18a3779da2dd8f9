"""Optimisers: formulas over rows. Each updates w [P, D] in place from the gradient g [P, D].

P members, D parameters of one member. A number is a float or a float64 column [P, 1]; ``t`` counts a row's steps from 1;
``state`` holds named slots [P, D] that start at zero. ``layout.weights`` columns, the first, are those that weight decay touches.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ravine.catalogue import Decay, Flag, NonNegative, Positive
from ravine.layout import Layout
from ravine.optim.columns import (
    Column,
    State,
    add,
    add_quotient,
    average,
    average_square,
    cast,
    choose,
    off,
    shrink,
    with_decay,
)


def sgd(
    w: Tensor, g: Tensor, state: State, t: Column, layout: Layout, *,
    lr: Positive = 1e-3, momentum: Decay = 0.0, dampening: NonNegative = 0.0, nesterov: Flag = False, weight_decay: NonNegative = 0.0,
) -> None:
    """Gradient descent, with PyTorch's momentum.

    g' = g + weight_decay * w;  v = momentum * v + (1 - dampening) * g' (v = g' at the first step);  w -= lr * v,
    or w -= lr * (g' + momentum * v) with ``nesterov``. Without momentum, w -= lr * g'.

    Batch, single-sample and minibatch descent are this with ``batch = "full"``, 1, or anything between. The size of the batch
    is the data's field. Slots: ``v``.

    Source: Robbins and Monro 1951; momentum: Polyak 1964; this form of Nesterov's: Sutskever et al. 2013, as PyTorch has it.
    """
    g = with_decay(g, w, weight_decay, layout)
    if off(momentum):
        add(w, g, -lr)
        return
    v = state["v"]
    _velocity(v, g, t, momentum, dampening)
    if nesterov:
        add(w, g, -lr)
        v = v * cast(momentum, w)
    add(w, v, -lr)


def momentum(
    w: Tensor, g: Tensor, state: State, t: Column, layout: Layout, *,
    lr: Positive = 1e-3, momentum: Decay = 0.9, lr_in: Literal["step", "velocity"] = "step", weight_decay: NonNegative = 0.0,
) -> None:
    """Gradient descent with momentum (the heavy ball).

    ``lr_in = "step"`` (PyTorch):            v = momentum * v + g;       w -= lr * v.
    ``lr_in = "velocity"`` (most lectures):  v = momentum * v - lr * g;  w += v.

    At constant lr the two are the same; once lr changes, the first rescales the whole velocity at once, the second lets old steps
    run out at their old rate. g includes weight_decay * w. Slots: ``v``.

    Source: Polyak 1964; Sutskever et al. 2013.
    """
    g = with_decay(g, w, weight_decay, layout)
    v = state["v"]
    if lr_in == "velocity":
        add(v.mul_(cast(momentum, w)), g, -lr)
        w.add_(v)
    else:
        _velocity(v, g, t, momentum, 0.0)
        add(w, v, -lr)


def nesterov(
    w: Tensor, g: Tensor, state: State, t: Column, layout: Layout, *,
    lr: Positive = 1e-3, momentum: Decay = 0.9, gradient: Literal["here", "ahead"] = "here", weight_decay: NonNegative = 0.0,
) -> None:
    """Nesterov's accelerated gradient.

    ``gradient = "here"`` (PyTorch): v = momentum * v + g;  w -= lr * (g + momentum * v), with g taken at w.
    ``gradient = "ahead"`` (Nesterov's own): v = momentum * v - lr * g;  w += v, with g taken at w + momentum * v, where the
    velocity alone would lead: the engine evaluates the network there.

    g includes weight_decay * w, at the same point as the gradient. Slots: ``v``.

    Source: Nesterov 1983; Sutskever et al. 2013.
    """
    v = state["v"]
    if gradient == "ahead":
        ahead = w if off(weight_decay) else add(w.clone(), v, momentum)
        g = with_decay(g, ahead, weight_decay, layout)
        add(v.mul_(cast(momentum, w)), g, -lr)
        w.add_(v)
        return
    g = with_decay(g, w, weight_decay, layout)
    _velocity(v, g, t, momentum, 0.0)
    add(w, g, -lr)
    add(w, v, -lr * momentum)


def rmsprop(
    w: Tensor, g: Tensor, state: State, t: Column, layout: Layout, *,
    lr: Positive = 1e-2, alpha: Decay = 0.99, eps: NonNegative = 1e-8, momentum: Decay = 0.0, centered: Flag = False,
    eps_in: Literal["outside", "inside", "no_root"] = "outside", weight_decay: NonNegative = 0.0,
) -> None:
    """RMSProp: each step divided by a running root mean square of the gradient.

    s = alpha * s + (1 - alpha) * g^2;  w -= lr * g / (sqrt(s) + eps).

    ``centered``: s - m^2 in place of s, with m = alpha * m + (1 - alpha) * g. ``momentum``: v = momentum * v + g / (sqrt(s) + eps);
    w -= lr * v. ``eps_in``: ``outside`` the root (PyTorch), ``inside`` it, sqrt(s + eps), or ``no_root``: g / (s + eps), as some
    lectures print it (a slip: the step then grows as the gradient shrinks). g includes weight_decay * w. Slots: ``s``, ``m``, ``v``.

    Source: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013.
    """
    g = with_decay(g, w, weight_decay, layout)
    s = average_square(state["s"], g, alpha)
    if centered:
        m = average(state["m"], g, alpha)
        s = s.addcmul(m, m, value=-1)
    below = _below(s, eps, eps_in)
    if off(momentum):
        add_quotient(w, g, below, -lr)
    else:
        add(w, state["v"].mul_(cast(momentum, w)).addcdiv_(g, below), -lr)


def adam(
    w: Tensor, g: Tensor, state: State, t: Column, layout: Layout, *,
    lr: Positive = 1e-3, beta1: Decay = 0.9, beta2: Decay = 0.999, eps: NonNegative = 1e-8, bias_correction: Flag = True,
    weight_decay: NonNegative = 0.0,
) -> None:
    """Adam: momentum over a running root mean square, both corrected for their start at zero.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    ``bias_correction = false`` leaves out the two divisions, as some lectures do: the first steps are then too long.
    g includes weight_decay * w (coupled: as a penalty; for the decoupled form see ``adamw``). Slots: ``m``, ``v``.

    Source: Kingma and Ba 2015.
    """
    g = with_decay(g, w, weight_decay, layout)
    _adam(w, g, state, t if bias_correction else None, lr, beta1, beta2, eps)


def adamw(
    w: Tensor, g: Tensor, state: State, t: Column, layout: Layout, *,
    lr: Positive = 1e-3, beta1: Decay = 0.9, beta2: Decay = 0.999, eps: NonNegative = 1e-8, weight_decay: NonNegative = 1e-2,
    decay_by: Literal["lr", "schedule"] = "lr",
) -> None:
    """Adam with decoupled weight decay: the decay does not pass through the division by the root mean square.

    w *= 1 - lr * weight_decay, then Adam's step without decay in g.

    ``decay_by = "lr"`` (PyTorch): the decay is scaled by lr. ``"schedule"`` (the paper): w *= 1 - eta * weight_decay, where eta is
    the schedule's multiplier alone, so lr and weight_decay can be tuned apart (weight_decay is then smaller by about lr).
    Slots: ``m``, ``v``.

    Source: Loshchilov and Hutter 2019.
    """
    shrink(w, weight_decay if decay_by == "schedule" else lr * weight_decay, layout)
    _adam(w, g, state, t, lr, beta1, beta2, eps)


def _velocity(v: Tensor, g: Tensor, t: Column, momentum: Column, dampening: Column) -> None:
    """v = momentum * v + (1 - dampening) * g; at the first step v = g."""
    v.mul_(cast(momentum, v))
    if off(dampening):
        v.add_(g)
    else:
        add(v, g, choose(t == 1, 1.0, 1 - dampening))


def _below(s: Tensor, eps: Column, eps_in: str) -> Tensor:
    """What a step is divided by: sqrt(s) + eps, sqrt(s + eps), or s + eps."""
    eps = cast(eps, s)
    if eps_in == "outside":
        return s.sqrt().add_(eps)
    return s.add(eps).sqrt_() if eps_in == "inside" else s.add(eps)


def _adam(w: Tensor, g: Tensor, state: State, t: Column, lr: Column, beta1: Column, beta2: Column, eps: Column) -> None:
    m = average(state["m"], g, beta1)
    v = average_square(state["v"], g, beta2)
    corrected1, corrected2 = (1.0, 1.0) if t is None else (1 - beta1**t, 1 - beta2**t)
    below = v.sqrt().div_(cast(corrected2**0.5, w)).add_(cast(eps, w))
    add_quotient(w, m, below, -lr / corrected1)
