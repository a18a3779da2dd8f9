"""How well probabilities say what happens: accuracy, log-loss, Brier score, expected calibration
error, reliability."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15


def calibration(p: np.ndarray, y: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Measures of class probabilities p [N, K] against classes y [N].

    log_loss = mean of -ln p_y; brier = mean over samples of the sum over classes of (p - 1[y])²;
    ece = sum over bins of equal width of (share of samples) |accuracy - mean confidence|, where
    confidence is the largest probability of a sample. ``bins`` holds for each of them confidence,
    accuracy and count.

    >>> found = calibration(np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]]), np.array([0, 0, 0, 1]))
    >>> round(found["accuracy"], 2), round(found["ece"], 2)
    (0.75, 0.05)

    Source: Guo et al., "On calibration of modern neural networks", 2017; Brier, 1950.
    """
    n = len(y)
    confidence, right = p.max(1), p.argmax(1) == y
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    known = np.maximum(count, 1)
    mean_confidence = np.bincount(place, weights=confidence, minlength=bins) / known
    accuracy = np.bincount(place, weights=right, minlength=bins) / known
    truth = np.zeros_like(p)
    truth[np.arange(n), y] = 1
    return {
        "accuracy": float(right.mean()),
        "log_loss": float(-np.log(np.clip(p[np.arange(n), y], 1e-12, 1)).mean()),
        "brier": float(((p - truth) ** 2).sum(1).mean()),
        "ece": float((count / n * np.abs(accuracy - mean_confidence)).sum()),
        "bins": [
            {"confidence": float(c), "accuracy": float(a), "count": int(k)}
            for c, a, k in zip(mean_confidence, accuracy, count, strict=True)
            if k
        ],
    }
