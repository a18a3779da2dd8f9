"""Optimisers: formulas over rows. Each updates w [P, D] in place from the gradient g [P, D].

P members, D parameters of one member. A number is a float or a float64 column [P, 1]; ``t`` counts
a row's steps from 1; ``state`` holds named slots [P, D] that start at zero. ``layout.weights``
columns, the first, are those that weight decay touches. This file: gradient descent, its momenta,
and Rprop; ``adaptive``, ``adam`` and ``layerwise`` have the others.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Decay, Flag, NonNegative, Positive, Probability
from ravine.layout import Layout
from ravine.optim.arithmetic import (
    Column,
    State,
    add,
    cast,
    choose,
    off,
    tensor,
    unscheduled,
    with_decay,
)


def sgd(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    momentum: Decay = 0.0,
    dampening: NonNegative = 0.0,
    nesterov: Flag = False,
    weight_decay: NonNegative = 0.0,
) -> None:
    """Gradient descent, with PyTorch's momentum.

    g' = g + weight_decay * w;  v = momentum * v + (1 - dampening) * g' (v = g' at the first step);
    w -= lr * v, or w -= lr * (g' + momentum * v) with ``nesterov``. Without momentum: w -= lr * g'.

    Batch, single-sample and minibatch descent are this one: the size of the batch (``"full"``, 1,
    or anything between) is the data's. Slots: ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("sgd", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.8

    Source: Robbins and Monro 1951; momentum: Polyak 1964; Nesterov's as in Sutskever et al. 2013,
    in PyTorch's form.
    """
    g = with_decay(g, w, weight_decay, layout)
    if off(momentum):
        add(w, g, -lr)
        return
    v = state["v"]
    _velocity(v, g, t, momentum, dampening)
    if nesterov:
        add(w, g, -lr)
        lr = lr * momentum
    add(w, v, -lr)


def momentum(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    momentum: Decay = 0.9,
    lr_in: Literal["step", "velocity"] = "step",
    weight_decay: NonNegative = 0.0,
) -> None:
    """Gradient descent with momentum (the heavy ball).

    ``lr_in = "step"`` (PyTorch):            v = momentum * v + g;       w -= lr * v.
    ``lr_in = "velocity"`` (most lectures):  v = momentum * v - lr * g;  w += v.

    At constant lr the two are the same. Once lr changes, the first rescales the whole velocity at
    once; in the second old gradients run out at their old rate. A form with the last gradient alone,
    w -= lr * (g_t + momentum * g_{t-1}), is a simplification found in texts: v is the sum of all earlier
    gradients, the k-th last times momentum^k. g includes weight_decay * w. Slots: ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("momentum", lambda w: 2 * w, 1.0, steps=2, lr=0.1, momentum=0.5)
    0.54

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
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    momentum: Decay = 0.9,
    gradient: Literal["here", "ahead"] = "here",
    weight_decay: NonNegative = 0.0,
) -> None:
    """Nesterov's accelerated gradient.

    ``gradient = "here"`` (PyTorch): v = momentum * v + g;  w -= lr * (g + momentum * v), with g taken at w.
    ``gradient = "ahead"`` (Nesterov's own): v = momentum * v - lr * g;  w += v, with g taken at w + momentum * v,
    where the velocity alone would lead: the network is evaluated there.

    The first is the second seen from the point ahead, at constant lr and momentum. Decay adds
    weight_decay * w to g, at the point where g is taken. Slots: ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("nesterov", lambda w: 2 * w, 1.0, steps=1, lr=0.1, momentum=0.5)
    0.7

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


@unscheduled
def rprop(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-2,
    eta_minus: Probability = 0.5,
    eta_plus: Positive = 1.2,
    step_min: NonNegative = 1e-6,
    step_max: Positive = 50.0,
) -> None:
    """Rprop: every parameter has its own step size; only the gradient's sign is used. For full
    batches.

    size *= eta_plus where the gradient keeps its sign, eta_minus where it turns (there the
    parameter rests for a step), within [step_min, step_max];  w -= size * sign(g).

    The sizes start at lr, the recipe's own number, which is not used afterwards: a schedule does
    nothing, neither its warm-up (PyTorch's Rprop starts at the first scheduled rate: near zero
    after a warm-up) nor its floor. Slots: ``size``, ``last``. There is no weight decay.

    >>> from ravine.optim.descent import descend
    >>> descend("rprop", lambda w: 2 * w, 1.0, steps=2, lr=0.1)
    0.78

    Source: Riedmiller and Braun 1993, in the form of iRprop- (Igel and Hüsken 2000), as PyTorch has
    it.
    """
    size, last = state["size"], state["last"]
    if isinstance(t, Tensor):
        size.copy_(torch.where(t == 1, cast(lr, w), size))
    elif t == 1:
        size.fill_(lr)
    turn = last.mul_(g).sign_()
    factor = torch.where(
        turn > 0, tensor(eta_plus, w), torch.where(turn < 0, tensor(eta_minus, w), 1.0)
    )
    size.mul_(factor).clamp_(tensor(step_min, w), tensor(step_max, w))
    last.copy_(g.masked_fill(turn < 0, 0.0))
    w.addcmul_(last.sign(), size, value=-1)


def _velocity(v: Tensor, g: Tensor, t: Column, momentum: Column, dampening: Column) -> None:
    """v = momentum * v + (1 - dampening) * g; at the first step v = g."""
    v.mul_(cast(momentum, v))
    if off(dampening):
        v.add_(g)
    else:
        add(v, g, choose(t == 1, 1.0, 1 - dampening))
