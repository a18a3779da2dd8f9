"""Initialisers: each fills one weight (or bias) from a generator.

Fans: fan_in is the number of inputs of one unit, fan_out the number of outputs that one input
reaches, both with the kernel's area (of a convolution in groups: of its group alone, where PyTorch's
fan_out counts all groups); a recurrent layer's gates are filled one by one. The variance of a unit's
pre-activation is fan_in * Var(w) * E[x^2]: LeCun keeps it for linear units, He for ReLU, Glorot
compromises between forward and backward. ``truncate`` c redraws what lies beyond c standard
deviations (of the normal before truncation), which lowers the variance (c = 2: to 0.774 of it);
``rescale`` makes up for that, as Keras's initialisers do.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from ravine.catalogue import Count, Flag, NonNegative, Positive, Real
from ravine.errors import InputError

Fans = tuple[int, int]


def zeros(w: Tensor, fans: Fans, generator: Generator) -> None:
    """All zero. Right for biases; weights of a hidden layer that start so stay alike for ever
    (symmetry).

    >>> w = torch.ones(2); zeros(w, (2, 1), Generator()); w
    tensor([0., 0.])

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors",
    1986 (on symmetry).
    """
    w.zero_()


def constant(w: Tensor, fans: Fans, generator: Generator, *, value: Real = 0.1) -> None:
    """All ``value``: for biases, for instance 0.1 so that ReLUs start active.

    >>> w = torch.zeros(2); constant(w, (2, 1), Generator(), value=0.5); w
    tensor([0.5000, 0.5000])

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    networks", 2012 (biases of 1).
    """
    w.fill_(value)


def uniform(
    w: Tensor, fans: Fans, generator: Generator, *, range: Positive = 0.07, mean: Real = 0.0
) -> None:
    """Uniform in [mean - range, mean + range]; variance range^2 / 3. The default is a customary
    small uniform.

    >>> w = torch.zeros(1000); uniform(w, (2, 1), Generator().manual_seed(0)); bool((w.abs() <= 0.07).all())
    True

    Source: Rumelhart, Hinton and Williams, "Learning internal representations by error
    propagation", 1986 (small random weights).
    """
    w.uniform_(mean - range, mean + range, generator=generator)


def normal(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    std: NonNegative = 0.01,
    mean: Real = 0.0,
    truncate: Positive | None = None,
) -> None:
    """Normal with ``mean`` and standard deviation ``std``. The default is a customary small normal.

    ``truncate`` redraws beyond that many standard deviations.

    >>> w = torch.zeros(10_000); normal(w, (2, 1), Generator().manual_seed(0), std=2.0); round(float(w.std()), 1)
    2.0

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    networks", 2012 (standard deviation 0.01).
    """
    _normal(w, generator, std, mean, truncate)


def lecun_uniform(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
    gain: Positive = 1.0,
) -> None:
    """Uniform in +-gain sqrt(3 / fan_in); variance gain^2 / fan_in. Some texts call it Xavier's.

    ``mode`` names the fan: fan_in, fan_out, or fan_avg, their mean.

    >>> w = torch.zeros(10, 300); lecun_uniform(w, (300, 10), Generator().manual_seed(0)); bool((w.abs() <= 0.1).all())
    True

    Source: LeCun et al., "Efficient BackProp", 1998.
    """
    _uniform(w, generator, gain / math.sqrt(_fan(fans, mode)))


def lecun_normal(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
    gain: Positive = 1.0,
    truncate: Positive | None = None,
    rescale: Flag = False,
) -> None:
    """Normal of variance gain^2 / fan_in. SELU networks want it. Some texts call this variance, 1
    / fan_in, Xavier's; Xavier Glorot's paper has ``glorot_normal``.

    ``mode`` names the fan: fan_in, fan_out, or fan_avg, their mean. ``gain`` multiplies the standard
    deviation. ``truncate`` redraws beyond that many standard deviations; ``rescale`` widens the
    truncated normal to the variance above: Keras has truncate = 2 with rescale.

    >>> w = torch.zeros(100, 100); lecun_normal(w, (100, 100), Generator().manual_seed(0)); round(float(w.std()), 2)
    0.1

    Source: LeCun et al., "Efficient BackProp", 1998.
    """
    _normal(w, generator, gain / math.sqrt(_fan(fans, mode)), 0.0, truncate, rescale)


def glorot_uniform(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_avg",
    gain: Positive = 1.0,
) -> None:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)); variance gain^2 * 2 / (fan_in + fan_out).
    Also called Xavier.

    ``mode`` names the fan: fan_in, fan_out, or fan_avg, their mean.

    >>> w = torch.zeros(9, 591); glorot_uniform(w, (591, 9), Generator().manual_seed(0)); bool((w.abs() <= 0.1).all())
    True

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010.
    """
    _uniform(w, generator, gain / math.sqrt(_fan(fans, mode)))


def glorot_normal(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_avg",
    gain: Positive = 1.0,
    truncate: Positive | None = None,
    rescale: Flag = False,
) -> None:
    """Normal of variance gain^2 * 2 / (fan_in + fan_out). Also called Xavier.

    ``mode`` names the fan: fan_in, fan_out, or fan_avg, their mean. ``gain`` multiplies the standard
    deviation. ``truncate`` redraws beyond that many standard deviations; ``rescale`` widens the
    truncated normal to the variance above: Keras has truncate = 2 with rescale.

    >>> w = torch.zeros(100, 100); glorot_normal(w, (100, 100), Generator().manual_seed(0)); round(float(w.std()), 2)
    0.1

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010.
    """
    _normal(w, generator, gain / math.sqrt(_fan(fans, mode)), 0.0, truncate, rescale)


def he_uniform(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
    slope: NonNegative = 0.0,
) -> None:
    """Uniform of variance 2 / ((1 + slope^2) fan_in), ``slope`` that of a leaky ReLU. Also called
    Kaiming.

    ``mode`` names the fan: fan_in, fan_out, or fan_avg, their mean. fan_in keeps the variance of
    activations, fan_out that of gradients.

    >>> w = torch.zeros(10, 600); he_uniform(w, (600, 10), Generator().manual_seed(0)); bool((w.abs() <= 0.1).all())
    True

    Source: He et al., "Delving deep into rectifiers", 2015.
    """
    _uniform(w, generator, math.sqrt(2 / ((1 + slope * slope) * _fan(fans, mode))))


def he_normal(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
    slope: NonNegative = 0.0,
    truncate: Positive | None = None,
    rescale: Flag = False,
) -> None:
    """Normal of variance 2 / ((1 + slope^2) fan_in), ``slope`` that of a leaky ReLU. Also called
    Kaiming, or MSRA.

    ``mode`` names the fan: fan_in, fan_out, or fan_avg, their mean. fan_in keeps the variance of
    activations, fan_out that of gradients. ``truncate`` redraws beyond that many standard
    deviations; ``rescale`` widens the
    truncated normal to the variance above: Keras has truncate = 2 with rescale.

    >>> w = torch.zeros(100, 200); he_normal(w, (200, 100), Generator().manual_seed(0)); round(float(w.std()), 2)
    0.1

    Source: He et al., "Delving deep into rectifiers", 2015.
    """
    std = math.sqrt(2 / ((1 + slope * slope) * _fan(fans, mode)))
    _normal(w, generator, std, 0.0, truncate, rescale)


def orthogonal(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    gain: Positive = 1.0,
    method: Literal["qr", "svd"] = "qr",
) -> None:
    """Orthonormal rows (or columns, where there are more rows), times ``gain``; the weight is seen
    as [out, rest].

    ``method`` says what is taken of a Gaussian matrix: qr, Q with the signs of R's diagonal, or
    svd, U V^T; both are uniform over orthogonal matrices. A vector becomes one of norm ``gain``.

    Errors: a parameter of one dimension: a bias.

    >>> w = torch.zeros(3, 5).double(); orthogonal(w, (5, 3), Generator().manual_seed(0))
    >>> bool(torch.allclose(w @ w.T, torch.eye(3).double()))
    True

    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks", 2014.
    """
    if w.dim() < 2:
        raise InputError(
            "orthogonal",
            got=f"a parameter of shape {tuple(w.shape)}",
            expected="a matrix or a kernel: weights",
        )
    rows, columns = w.shape[0], w[0].numel()
    a = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=w.dtype)
    if method == "qr":
        q, r = torch.linalg.qr(a)
        q = q * torch.sgn(r.diagonal())
    else:
        u, _, vt = torch.linalg.svd(a, full_matrices=False)
        q = u @ vt
    w.copy_((q if rows >= columns else q.T).reshape(w.shape)).mul_(gain)


def identity(
    w: Tensor, fans: Fans, generator: Generator, *, gain: Real = 1.0, groups: Count = 1
) -> None:
    """The layer hands its input through: a unit matrix, or kernels that are 1 at their centre
    (Dirac), times ``gain``.

    Kernels in ``groups`` repeat the unit matrix in each.

    Errors: a parameter of one dimension: a bias.

    >>> w = torch.zeros(2, 3); identity(w, (3, 2), Generator()); w.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    Source: Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified
    linear units", 2015.
    """
    if w.dim() == 2:
        nn.init.eye_(w)
    elif w.dim() in (3, 4, 5):
        nn.init.dirac_(w, groups)
    else:
        raise InputError(
            "identity",
            got=f"a parameter of shape {tuple(w.shape)}",
            expected="a matrix or a kernel: weights",
        )
    w.mul_(gain)


def lsuv(
    w: Tensor,
    fans: Fans,
    generator: Generator,
    *,
    tolerance: Positive = 0.01,
    iterations: Count = 10,
) -> None:
    """Layer-sequential unit variance: orthogonal weights, scaled until each layer's outputs have
    variance 1.

    From the input on, each layer's weights are divided by the standard deviation of its outputs
    over a batch, at most ``iterations`` times, until their variance is 1 within ``tolerance``.

    The batch is drawn from the training data where these are at hand, else standard normal (as
    standardised data are).

    Errors: a parameter of one dimension: a bias.

    >>> w = torch.zeros(3, 5).double(); lsuv(w, (5, 3), Generator().manual_seed(0))
    >>> bool(torch.allclose(w @ w.T, torch.eye(3).double()))
    True

    Source: Mishkin and Matas, "All you need is a good init", 2016.
    """
    orthogonal(w, fans, generator)


def _fan(fans: Fans, mode: str) -> float:
    return {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": (fans[0] + fans[1]) / 2}[mode]


def _uniform(w: Tensor, generator: Generator, std: float) -> None:
    bound = math.sqrt(3) * std
    w.uniform_(-bound, bound, generator=generator)


def _normal(
    w: Tensor,
    generator: Generator,
    std: float,
    mean: float,
    truncate: float | None,
    rescale: bool = False,
) -> None:
    if truncate is None or std == 0:
        w.normal_(mean, std, generator=generator)
        return
    if rescale:
        std /= _truncated_std(truncate)
    low, high = mean - truncate * std, mean + truncate * std
    nn.init.trunc_normal_(w, mean, std, low, high, generator=generator)


def _truncated_std(c: float) -> float:
    """The standard deviation of a standard normal cut at +-c: sqrt(1 - 2 c phi(c) / (2 Phi(c) - 1)).

    >>> round(_truncated_std(2.0), 12)  # Keras's constant
    0.879625661034
    """
    if c < 1e-3:
        return c / math.sqrt(3)  # as good as uniform, where the formula loses its digits
    inside = math.erf(c / math.sqrt(2))
    return math.sqrt(1 - 2 * c * math.exp(-(c**2) / 2) / math.sqrt(2 * math.pi) / inside)
