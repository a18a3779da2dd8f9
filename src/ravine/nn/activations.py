"""Activation functions. Each takes any shape and works entry by entry, but for maxout and softmax.

Notation: x an input entry, y the output entry, dy/dx the derivative. At a kink the derivative is
the one PyTorch takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ravine.catalogue import Count, Flag, Integer, NonNegative, PerMember, Positive, Real
from ravine.errors import InputError
from ravine.nn.stack import Shape


def relu(shape: Shape) -> nn.Module:
    """Rectified linear unit.

    y = max(0, x); dy/dx = 1 for x > 0, 0 for x <= 0. In a list of layers, a relu right before a
    maxpool is computed after it: values and gradients are the same, on a fraction of the entries.

    >>> relu((2,))(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])

    Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
    """
    return nn.ReLU()


def sigmoid(shape: Shape) -> nn.Module:
    """Logistic sigmoid: y = 1 / (1 + exp(-x)), between 0 and 1; dy/dx = y (1 - y), at most 1/4.

    A lecture's 1 / (1 + exp(x)) is a slip: it falls.

    >>> sigmoid((1,))(torch.tensor([0.0]))
    tensor([0.5000])

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors",
    1986.
    """
    return nn.Sigmoid()


def tanh(shape: Shape) -> nn.Module:
    """Hyperbolic tangent: y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)), between -1 and 1; dy/dx = 1
    - y^2.

    >>> tanh((1,))(torch.tensor([0.0]))
    tensor([0.])

    Source: LeCun et al., "Efficient BackProp", 1998.
    """
    return nn.Tanh()


def hard_sigmoid(shape: Shape) -> nn.Module:
    """Piecewise linear sigmoid, as in PyTorch: y = min(1, max(0, x / 6 + 1/2)).

    Older texts use the slope 1/5 instead of 1/6.

    >>> hard_sigmoid((3,))(torch.tensor([-4.0, 0.0, 4.0]))
    tensor([0.0000, 0.5000, 1.0000])

    Source: Courbariaux, Bengio and David, "BinaryConnect", 2015; the slope 1/6: Howard et al.,
    "MobileNetV3", 2019.
    """
    return nn.Hardsigmoid()


def hard_tanh(shape: Shape) -> nn.Module:
    """Piecewise linear tanh: y = min(1, max(-1, x)).

    >>> hard_tanh((3,))(torch.tensor([-4.0, 0.5, 4.0]))
    tensor([-1.0000,  0.5000,  1.0000])

    Source: Collobert, "Large scale machine learning", 2004.
    """
    return nn.Hardtanh()


def softplus(shape: Shape) -> nn.Module:
    """Smooth ReLU: y = ln(1 + exp(x)); dy/dx = sigmoid(x).

    >>> softplus((1,))(torch.tensor([0.0]))
    tensor([0.6931])

    Source: Dugas et al., "Incorporating second-order functional knowledge", 2001.
    """
    return nn.Softplus()


def softsign(shape: Shape) -> nn.Module:
    """y = x / (1 + |x|), between -1 and 1; dy/dx = 1 / (1 + |x|)^2: it saturates more slowly than
    tanh.

    >>> softsign((2,))(torch.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])

    Source: Bergstra et al., "Quadratic polynomials learn better image features", 2009.
    """
    return nn.Softsign()


def leaky_relu(shape: Shape, *, slope: PerMember[NonNegative] = 0.01) -> nn.Module:
    """ReLU with a small slope for negative inputs: y = x for x > 0, slope * x otherwise.

    >>> leaky_relu((2,), slope=0.5)(torch.tensor([-2.0, 2.0]))
    tensor([-1.,  2.])

    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.
    """
    return LeakyReLU(slope)


def prelu(shape: Shape, *, start: Real = 0.25, channels: Flag = False) -> nn.Module:
    """Parametric ReLU: y = x for x > 0, a * x otherwise; a is learned, from ``start`` on.

    One a for the layer, or with ``channels`` one for each channel (the first extent of a sample's
    shape). The slopes are not decayed, as the paper advises.

    >>> prelu((2,))(torch.tensor([[-2.0, 2.0]])).tolist()
    [[-0.5, 2.0]]

    Source: He et al., "Delving deep into rectifiers", 2015.
    """
    return PReLU(shape[0] if channels else 1, init=start)


def elu(shape: Shape, *, alpha: PerMember[Positive] = 1.0) -> nn.Module:
    """Exponential linear unit: y = x for x > 0, alpha (exp(x) - 1) otherwise.

    >>> elu((2,))(torch.tensor([-1.0, 1.0]))
    tensor([-0.6321,  1.0000])

    Source: Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by ELUs",
    2016.
    """
    return ELU(alpha)


def selu(shape: Shape) -> nn.Module:
    """Self-normalising ELU: y = 1.0507 x for x > 0, 1.0507 * 1.6733 (exp(x) - 1) otherwise.

    With LeCun-normal weights activations tend to mean 0 and variance 1; use ``alpha_dropout`` with
    it.

    >>> selu((2,))(torch.tensor([-1.0, 1.0]))
    tensor([-1.1113,  1.0507])

    Source: Klambauer et al., "Self-normalizing neural networks", 2017.
    """
    return nn.SELU()


def gelu(shape: Shape) -> nn.Module:
    """Gaussian error linear unit: y = x Phi(x), Phi the normal distribution function.

    >>> gelu((2,))(torch.tensor([-1.0, 1.0]))
    tensor([-0.1587,  0.8413])

    Source: Hendrycks and Gimpel, "Gaussian error linear units", 2016.
    """
    return nn.GELU()


def silu(shape: Shape) -> nn.Module:
    """Sigmoid linear unit, or swish: y = x sigmoid(x).

    >>> silu((2,))(torch.tensor([-1.0, 1.0]))
    tensor([-0.2689,  0.7311])

    Source: Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units", 2018.
    """
    return nn.SiLU()


def softmax(shape: Shape, *, axis: Integer = -1) -> nn.Module:
    """Probabilities: y_k = exp(x_k) / sum_j exp(x_j), over one axis of a sample (stable: the
    maximum is subtracted).

    ``axis`` counts a sample's axes; the default is the last. As an output layer it wants a loss
    with ``input = "probabilities"``; logits with the default cross-entropy are more exact.

    Errors: a sample has no such axis.

    >>> softmax((2,))(torch.tensor([[0.0, 0.0]]))
    tensor([[0.5000, 0.5000]])

    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs",
    1990.
    """
    if not -len(shape) <= axis < len(shape):
        raise InputError("axis", got=axis, expected=f"an axis of a sample of shape {shape}")
    return nn.Softmax(dim=axis if axis < 0 else axis + 1)


def log_softmax(shape: Shape) -> nn.Module:
    """Logarithms of the softmax over the last axis: y_k = x_k - ln sum_j exp(x_j). Use it with the
    loss ``nll``.

    >>> log_softmax((2,))(torch.tensor([[0.0, 0.0]]))
    tensor([[-0.6931, -0.6931]])

    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs",
    1990.
    """
    return nn.LogSoftmax(dim=-1)


def maxout(shape: Shape, *, pieces: Count = 2) -> nn.Module:
    """The greatest of each group of ``pieces`` neighbouring channels (or features): y_j = max of
    x_{jk} ... x_{jk+k-1}.

    A dense or convolutional layer before it, k times as wide, makes it a maxout layer. The
    channels, the first extent of a sample's shape, must divide by ``pieces``.

    Errors: the number of channels does not divide by ``pieces``.

    >>> maxout((4,))(torch.tensor([[1.0, 2.0, 5.0, 4.0]]))
    tensor([[2., 5.]])

    Source: Goodfellow et al., "Maxout networks", 2013.
    """
    if shape[0] % pieces:
        raise InputError(
            "",
            got=shape,
            expected=f"a number of channels that divides by {pieces}",
            repair="widen the layer before",
        )
    return Maxout(pieces)


class LeakyReLU(nn.Module):
    """Leaky ReLU whose slope is a buffer, so that members of a population may differ."""

    slope: Tensor

    def __init__(self, slope: float):
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.slope.to(x.dtype))


class PReLU(nn.PReLU):
    """torch.nn's, by operations that map over members."""

    def forward(self, x: Tensor) -> Tensor:
        slope = self.weight.view(-1, *(1 for _ in x.shape[2:]))
        return torch.where(x > 0, x, x * slope)


class ELU(nn.Module):
    """ELU whose alpha is a buffer, so that members of a population may differ."""

    alpha: Tensor

    def __init__(self, alpha: float):
        super().__init__()
        self.register_buffer("alpha", torch.tensor(alpha, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.alpha.to(x.dtype) * torch.expm1(x.clamp_max(0)))


class Maxout(nn.Module):
    """Maximum over groups of neighbouring channels, x [B, C, ...]."""

    def __init__(self, pieces: int):
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"
