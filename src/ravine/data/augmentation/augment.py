"""Augmentation but for geometry: batched, on the device, each sample by its own draw, the label
kept (except where samples are mixed).

Every function here is a technique: it receives the raw samples of a training batch, before
preprocessing, and a ``Draw``, the only randomness. Amounts that depend on the data are in units of
the training part: its range for light, its standard deviation (by channel, by feature in tables)
for noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ravine.catalogue import Count, Positive, Probability
from ravine.data.augmentation.draw import Draw, Samples, need_images
from ravine.errors import InputError

# --- light ----------------------------------------------------------------------------------------


def brightness(batch: Samples, draw: Draw, *, amount: Positive = 0.2) -> Samples:
    """Add to each image a number uniform in [-``amount``, ``amount``] times the range of the data;
    cut to the range.

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> x = brightness(samples([[[[0.0, 1.0, 0.5]]]]), Draw(0), amount=0.3).x
    >>> bool((x >= 0).all() and (x <= 1).all())
    True
    """
    need_images(batch, "brightness")
    added = draw.uniform(len(batch), low=-amount, high=amount).view(-1, 1, 1, 1) * (
        batch.high - batch.low
    )
    return _within(batch, batch.floats() + added)


def contrast(batch: Samples, draw: Draw, *, amount: Positive = 0.2) -> Samples:
    """Move each image away from or towards its mean: m + f (x - m), f uniform in [1 - ``amount``, 1
    + ``amount``].

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> x = contrast(samples([[[[0.4, 0.6, 0.0, 1.0]]]]), Draw(0), amount=0.1).x
    >>> round(float(x[0, 0, 0, :2].mean()), 4)
    0.5
    """
    need_images(batch, "contrast")
    x = batch.floats()
    mean = x.mean((1, 2, 3), keepdim=True)
    return _within(batch, mean + _factor(draw, len(batch), amount) * (x - mean))


def saturation(batch: Samples, draw: Draw, *, amount: Positive = 0.2) -> Samples:
    """Move each pixel away from or towards its gray: g + f (x - g), f uniform in [1 - ``amount``, 1
    + ``amount``].

    g = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); images of three channels.

    Errors: the samples are not images of 3 channels.

    >>> from ravine.data.augmentation.draw import samples
    >>> saturation(samples([[[[0.5]], [[0.5]], [[0.5]]]]), Draw(0)).x.flatten()
    tensor([0.5000, 0.5000, 0.5000])
    """
    need_images(batch, "saturation")
    if batch.shape[1] != 3:
        raise InputError(
            "data.augment.saturation",
            got=f"{batch.shape[1]} channel(s)",
            expected="3: red, green, blue",
        )
    x = batch.floats()
    gray = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return _within(batch, gray + _factor(draw, len(batch), amount) * (x - gray))


# --- anything with numbers ------------------------------------------------------------------------


def noise(batch: Samples, draw: Draw, *, std: Positive = 0.1) -> Samples:
    """Add normal noise to every number: images, sequences or tables.

    ``std`` is a multiple of the standard deviation of the training part, by channel (images,
    sequences) or by feature (tables), so that it means the same before and after ``standardize``.
    Padding stays padding.

    >>> from ravine.data.augmentation.draw import samples
    >>> noise(samples([[[[0.0, 1.0]]]]), Draw(0), std=0.1).x.shape
    torch.Size([1, 1, 1, 2])

    Source: Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995.
    """
    x = batch.floats()
    return batch.with_x(x + std * batch.deviation * draw.normal(*x.shape))


def erase(
    batch: Samples,
    draw: Draw,
    *,
    p: Probability = 0.5,
    scale: tuple[Probability, Probability] = (0.02, 0.33),
    ratio: tuple[Positive, Positive] = (0.3, 3.3),
) -> Samples:
    """With probability ``p`` replace a rectangle of an image by the mean of the training part.

    Its area is the image's times a uniform number from ``scale``, its width over its height
    log-uniform from ``ratio``.

    Errors: the samples are not images [C, H, W]; ``scale`` or ``ratio`` is no (low, high).

    >>> from ravine.data.augmentation.draw import samples
    >>> erase(samples([[[[0.0, 1.0], [0.0, 1.0]]]]), Draw(0), p=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0)).x.unique()
    tensor([0.5000])

    Source: Zhong et al., "Random erasing data augmentation", 2020.
    """
    need_images(batch, "erase")
    if scale[0] > scale[1] or ratio[0] > ratio[1]:
        raise InputError(
            "data.augment.erase", got=f"scale {scale}, ratio {ratio}", expected="(low, high)"
        )
    size = len(batch)
    height, width = batch.shape[2:]
    area = draw.uniform(size, low=scale[0], high=scale[1]) * draw.chance(size, p)
    aspect = torch.exp(draw.uniform(size, low=math.log(ratio[0]), high=math.log(ratio[1])))
    extents = ((area / aspect * width * height).sqrt(), (area * aspect * height * width).sqrt())
    return _blank(batch, _rectangles(draw, extents, height, width, inside=True))


def cutout(batch: Samples, draw: Draw, *, size: Count = 8) -> Samples:
    """Replace a square of ``size`` pixels around a random pixel by the mean of the training part.

    The square may reach over the edge, where it is cut.

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> cutout(samples([[[[0.0, 1.0], [0.0, 1.0]]]]), Draw(0), size=4).x.shape
    torch.Size([1, 1, 2, 2])

    Source: DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout",
    2017.
    """
    need_images(batch, "cutout")
    height, width = batch.shape[2:]
    extent = torch.full((len(batch),), float(size), device=batch.device)
    return _blank(batch, _rectangles(draw, (extent, extent), height, width, inside=False))


# --- sequences ------------------------------------------------------------------------------------


def time_shift(batch: Samples, draw: Draw, *, steps: Count = 2) -> Samples:
    """Move sequences in time by a whole number of steps, uniform from -``steps`` to ``steps``.

    The first or last step is repeated where the sequence has moved away. For sequences [T, F] and
    tokens [T] with one target for the whole sequence.

    Errors: the samples are not sequences [T, F] or tokens [T]; a target at each step.

    >>> from ravine.data.augmentation.draw import samples
    >>> time_shift(samples([[5, 6, 7]]), Draw(0), steps=1).x.shape
    torch.Size([1, 3])
    """
    _sequences(batch, "time_shift")
    if batch.task == "sequence":
        raise InputError(
            "data.augment.time_shift",
            got="a target at each step",
            expected="one target for each sequence",
        )
    x = batch.x
    moved = draw.integers(len(batch), low=-steps, high=steps)
    places = torch.arange(x.shape[1], device=x.device) - moved[:, None]
    last = _lengths(x)[:, None] - 1
    places = torch.minimum(places.clamp(min=0), last)
    shifted = x[torch.arange(len(x), device=x.device)[:, None], places]
    padding = torch.arange(x.shape[1], device=x.device) > last
    return batch.with_x(torch.where(_as(padding, x), x, shifted))


def time_mask(batch: Samples, draw: Draw, *, steps: Count = 2) -> Samples:
    """Mask a stretch of 0 to ``steps`` steps of each sequence: with the mean of the training part,
    tokens with 0.

    Errors: the samples are not sequences [T, F] or tokens [T].

    >>> from ravine.data.augmentation.draw import samples
    >>> time_mask(samples([[5, 6, 7]]), Draw(0), steps=2).x.shape
    torch.Size([1, 3])

    Source: Park et al., "SpecAugment", 2019.
    """
    _sequences(batch, "time_mask")
    x = batch.x
    lengths = _lengths(x)
    width = torch.minimum(draw.integers(len(batch), low=0, high=steps), lengths - 1)
    start = (draw.uniform(len(batch)) * (lengths - width + 1)).long()
    places = torch.arange(x.shape[1], device=x.device)
    masked = (places >= start[:, None]) & (places < (start + width)[:, None])
    filling = (
        batch.mean.to(x.dtype)
        if x.is_floating_point()
        else torch.zeros((), dtype=x.dtype, device=x.device)
    )
    return batch.with_x(torch.where(_as(masked, x), filling, x))


# --- tables ---------------------------------------------------------------------------------------


def feature_dropout(batch: Samples, draw: Draw, *, rate: Probability = 0.1) -> Samples:
    """Replace each feature of a sample by its mean in the training part with probability ``rate``:
    rows of tables.

    Nothing is scaled. What is missing in a CSV file stays missing.

    Errors: the samples are not rows of a table [D].

    >>> from ravine.data.augmentation.draw import samples
    >>> feature_dropout(samples([[1.0, 5.0], [3.0, 5.0]]), Draw(0), rate=1.0).x
    tensor([[2., 5.],
            [2., 5.]])
    """
    x = batch.floats()
    if x.ndim != 2:
        raise InputError(
            "data.augment.feature_dropout",
            got=f"samples of shape {list(x.shape[1:])}",
            expected="rows of a table [D]",
        )
    dropped = draw.uniform(*x.shape) < rate
    return batch.with_x(torch.where(dropped, batch.mean.to(x.dtype), x))


# --- pairs of samples -----------------------------------------------------------------------------


def mixup(batch: Samples, draw: Draw, *, alpha: Positive = 0.2) -> Samples:
    """Mix each sample with another of the batch: x = l x_i + (1 - l) x_j and so the targets, l from
    Beta(alpha, alpha).

    Classes become shares [B, K] (soft targets); each sample has its own l.

    Errors: tokens, or a target at each step.

    >>> from ravine.data.augmentation.draw import samples
    >>> mixup(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0)).y
    tensor([[1., 0.]])

    Source: Zhang et al., "mixup: Beyond empirical risk minimization", 2018.
    """
    _can_mix(batch, "mixup")
    share, partner = draw.beta(len(batch), alpha), draw.permutation(len(batch))
    x, y = batch.floats(), batch.soft_targets()
    batch.y = _blend(y, y[partner], share)
    return batch.with_x(_blend(x, x[partner], share))


def cutmix(batch: Samples, draw: Draw, *, alpha: Positive = 1.0) -> Samples:
    """Replace a rectangle of each image by that of another, and mix the targets by the areas.

    The rectangle takes the fraction 1 - l of the area, l from Beta(alpha, alpha), around a random
    pixel, cut at the edge.

    Errors: the samples are not images [C, H, W]; a target at each step.

    >>> from ravine.data.augmentation.draw import samples
    >>> cutmix(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0)).y
    tensor([[1., 0.]])

    Source: Yun et al., "CutMix: Regularization strategy to train strong classifiers", 2019.
    """
    need_images(batch, "cutmix")
    _can_mix(batch, "cutmix")
    height, width = batch.shape[2:]
    side = (1 - draw.beta(len(batch), alpha)).sqrt()
    partner = draw.permutation(len(batch))
    inside = _rectangles(draw, (side * height, side * width), height, width, inside=False)
    share = 1 - inside.float().mean((1, 2, 3))
    x, y = batch.x, batch.soft_targets()
    batch.y = _blend(y, y[partner], share)
    return batch.with_x(torch.where(inside, x[partner], x))


# --- what they share ------------------------------------------------------------------------------


def _sequences(batch: Samples, name: str) -> None:
    tokens = len(batch.shape) == 2 and not batch.x.is_floating_point()
    if len(batch.shape) != 3 and not tokens:
        raise InputError(
            f"data.augment.{name}",
            got=f"samples of shape {list(batch.shape[1:])}",
            expected="sequences [T, F] or tokens [T]",
        )


def _can_mix(batch: Samples, name: str) -> None:
    if batch.task == "sequence":
        raise InputError(
            f"data.augment.{name}",
            got="a target at each step",
            expected="one target for each sample",
        )
    if batch.tokens:
        raise InputError(f"data.augment.{name}", got="tokens", expected="inputs that are numbers")


def _factor(draw: Draw, size: int, amount: float) -> Tensor:
    return draw.uniform(size, low=max(0.0, 1 - amount), high=1 + amount).view(-1, 1, 1, 1)


def _within(batch: Samples, x: Tensor) -> Samples:
    """Light stays in the range of the training part."""
    return batch.with_x(torch.minimum(torch.maximum(x, batch.low), batch.high))


def _blank(batch: Samples, inside: Tensor) -> Samples:
    x = batch.x
    mean = batch.mean.round().to(x.dtype) if x.dtype == torch.uint8 else batch.mean.to(x.dtype)
    return batch.with_x(torch.where(inside, mean, x))


def _rectangles(
    draw: Draw, extents: tuple[Tensor, Tensor], height: int, width: int, *, inside: bool
) -> Tensor:
    """[B, 1, H, W]: rectangles of about those extents [B], wholly ``inside`` the image or around
    any of its pixels."""
    masks = []
    for extent, size in zip(extents, (height, width), strict=True):
        whole = extent.round().clamp(max=size).long()
        where = draw.uniform(len(whole))
        start = (
            (where * (size - whole + 1)).long() if inside else (where * size).long() - whole // 2
        )
        places = torch.arange(size, device=whole.device)
        masks.append((places >= start[:, None]) & (places < (start + whole)[:, None]))
    return masks[0][:, None, :, None] & masks[1][:, None, None, :]


def _lengths(x: Tensor) -> Tensor:
    """[B]: steps before the padding (NaN in numbers, 0 in tokens)."""
    used = ~torch.isnan(x).all(-1) if x.ndim == 3 else x != 0
    return (x.shape[1] - used.flip(1).int().argmax(1)).where(used.any(1), x.shape[1])


def _as(mask: Tensor, x: Tensor) -> Tensor:
    return mask[..., None] if x.ndim == 3 else mask


def _blend(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    share = share.to(a.dtype).view(-1, *[1] * (a.ndim - 1))
    return share * a + (1 - share) * b
