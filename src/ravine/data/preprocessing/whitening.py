"""Preprocessing along principal components: PCA, whitened or not, and ZCA. The contract of these functions
is that of ``preprocess.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.catalogue import Count, NonNegative, Probability
from ravine.data.preprocessing.statistics import Rows, covariance
from ravine.data.preprocessing.transform import Projection, Transform
from ravine.errors import InputError


def pca(x: Tensor | Rows, *, components: Count | Probability | None = None) -> Transform:
    """Principal components of the flattened samples: y = (x - mean) U, columns of U the
    eigenvectors of the covariance.

    ``components`` is a number, or the fraction of the variance to keep; all unless given. Undoing
    gives the best approximation by those components. Signs as in scikit-learn: the largest entry of
    each eigenvector is positive.

    Some lectures print ``X = mean(X)`` for the centring, a slip: the mean is subtracted, X -=
    mean(X). The covariance divides by N - 1 (some lectures by N).

    Meant for tables and dense networks: components have no neighbours, so they are no input for
    convolutions, which profit from centring alone.

    Errors: more than 16,384 features; padded sequences.

    >>> pca(torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]), components=1)(torch.tensor([[3.0, 3.0]]).double())
    tensor([[1.4142]], dtype=torch.float64)

    Source: Pearson 1901; Hotelling 1933.
    """
    mean, variance, vectors = _principal(x, "pca")
    kept = vectors[:, : _how_many(components, variance)]
    return _projection(x, mean, kept, kept.T)


def pca_whiten(
    x: Tensor | Rows, *, components: Count | Probability | None = None, epsilon: NonNegative = 1e-5
) -> Transform:
    """Principal components with unit variance: y = (x - mean) U / sqrt(lambda + epsilon).

    lambda is the variance along each direction (over N - 1), in the units of the data squared; the
    covariance of the result is lambda / (lambda + epsilon). Undoing gives the best approximation by
    the components kept.

    As ``pca``, no input for convolutions; there too, of lectures' ``X = mean(X)``.

    Errors: more than 16,384 features; padded sequences.

    >>> y = pca_whiten(torch.randn(500, 3).double() * 10)(torch.zeros(1, 3).double())
    >>> y.shape
    torch.Size([1, 3])
    """
    mean, variance, vectors = _principal(x, "pca_whiten")
    count = _how_many(components, variance)
    width = _width(variance[:count], epsilon)
    kept = vectors[:, :count]
    return _projection(x, mean, kept / width, (kept * width).T)


def zca(x: Tensor | Rows, *, epsilon: NonNegative = 1e-5) -> Transform:
    """Whitening that stays closest to the data: y = (x - mean) U diag(1 / sqrt(lambda + epsilon))
    U^T.

    The result has the shape of x; lambda is the variance along each direction (over N - 1), in the
    units of the data squared. Can be undone where epsilon > 0 or every direction varies.

    Errors: more than 16,384 features; padded sequences.

    >>> zca(torch.randn(50, 1, 4, 4).double())(torch.zeros(2, 1, 4, 4).double()).shape
    torch.Size([2, 1, 4, 4])

    Source: Bell, Sejnowski, "The independent components of natural scenes are edge filters", 1997.
    """
    mean, variance, vectors = _principal(x, "zca")
    width = _width(variance, epsilon)
    return _projection(
        x, mean, (vectors / width) @ vectors.T, (vectors * width) @ vectors.T, Rows.of(x).shape
    )


def _principal(x: Tensor | Rows, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [D], variances [D] in falling order and their directions [D, D] in columns."""
    rows = Rows.of(x)
    width = torch.Size(rows.shape).numel()
    if width > 16_384:
        raise InputError(f"preprocess.{name}", got=f"{width} features", expected="at most 16,384")
    mean, matrix = covariance(rows)
    if not bool(torch.isfinite(matrix).all()):
        raise InputError(
            f"preprocess.{name}", got="padded sequences", expected="samples without padding"
        )
    variance, vectors = torch.linalg.eigh(matrix)
    variance, vectors = variance.flip(0).clamp(min=0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return mean, variance, vectors * torch.where(largest < 0, -1.0, 1.0)


def _how_many(components: float | None, variance: Tensor) -> int:
    """A number of components from a number or a fraction of the variance."""
    if components is None:
        return len(variance)
    if isinstance(components, int):
        if not 1 <= components <= len(variance):
            raise InputError(
                "preprocess.pca.components", got=components, expected=f"1 to {len(variance)}"
            )
        return components
    if components <= 0:
        raise InputError(
            "preprocess.pca.components",
            got=components,
            expected="a number of components or a fraction above 0",
        )
    share = variance.cumsum(0) / variance.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return min(len(variance), int((share < components).sum()) + 1)


def _width(variance: Tensor, epsilon: float) -> Tensor:
    """sqrt(lambda + epsilon); directions without any variance are not blown up."""
    width = (variance + epsilon).sqrt()
    nothing = width <= variance.max().sqrt() * 1e-12
    return torch.where(nothing, torch.inf, width) if epsilon == 0 else width


def _projection(
    x: Tensor | Rows,
    mean: Tensor,
    matrix: Tensor,
    back: Tensor,
    shape: tuple[int, ...] | None = None,
) -> Projection:
    settings = {"shape": list(shape or (matrix.shape[1],)), "raw_shape": list(Rows.of(x).shape)}
    return Projection(
        settings,
        mean=mean,
        matrix=matrix.contiguous(),
        back=back.nan_to_num(posinf=0.0).contiguous(),
    )
