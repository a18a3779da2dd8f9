"""Three ways to convolve: direct, by matrix products (im2col), by FFT.

Claim: All three give the same numbers. Texts call the FFT the way for small filters; here, for filters of 3 x 3 and
5 x 5, PyTorch's direct convolution is the faster one by half or more, and the FFT, whose time hardly depends on the
filter, passes it at the largest.

To see it fail: ``KERNELS = (31, 41)``: there the FFT is the fastest.
"""

import time

import numpy as np
import torch
from torch.nn import functional as F

from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

KERNELS = (3, 5, 9, 15, 21)


def by_im2col(x, w):
    rows = F.unfold(x, w.shape[-1])  # [B, C k k, places]
    side = x.shape[-1] - w.shape[-1] + 1
    return (w.flatten(1) @ rows).unflatten(2, (side, side))


def by_fft(x, w):
    n = x.shape[-1]
    product = torch.einsum(
        "bchw,ochw->bohw", torch.fft.rfft2(x), torch.fft.rfft2(w, s=(n, n)).conj()
    )
    side = n - w.shape[-1] + 1
    return torch.fft.irfft2(product, s=(n, n))[..., :side, :side]


WAYS = {"direct": F.conv2d, "im2col": by_im2col, "FFT": by_fft}


def rounds(x, w, count):
    """Processor seconds of each way [count, ways], one after the other in every round; on one thread, for
    threads that wait for each other count as well."""
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(count + 1):
        row = []
        for way in WAYS.values():
            begun = time.process_time()
            way(x, w)
            row.append(time.process_time() - begun)
        found.append(row)
    torch.set_num_threads(threads)
    return np.array(found[1:])  # the first warms up


def draw(item):
    torch.manual_seed(0)
    times = []  # [kernels, rounds, ways]
    for k in KERNELS:
        x, w = torch.rand(4, 8, 64, 64), torch.randn(8, 8, k, k)
        answers = [way(x, w) for way in WAYS.values()]
        error = max(float((a - answers[0]).abs().max() / answers[0].abs().max()) for a in answers)
        item.claim(f"largest difference of the three ways, kernel {k}", error, below=1e-4)
        times.append(rounds(x, w, item.size(15, 9)))
    times = 1000 * np.array(times)
    ratio = np.log10(times[..., 2].clip(1e-3) / times[..., 0].clip(1e-3))
    for i in (0, 1):
        item.claim(
            f"log10 of the time, FFT / direct, kernel {KERNELS[i]}",
            ratio[i],
            above=(0.3, 0.15)[i],
            timed=True,
        )
    item.claim(f"the same, kernel {KERNELS[-1]}", ratio[-1], below=0, timed=True)
    slow = np.median(times[-1, :, 2]) / np.median(times[0, :, 2])
    item.claim("time of FFT, kernel 21 / kernel 3", slow, above=0.3, below=3.0, timed=True)

    figure, (axes,) = panels(1, 1, 5.4, 3.4)
    for i, name in enumerate(WAYS):
        middle = np.median(times[..., i], 1)
        axes.plot(KERNELS, middle, color=COLOURS[i], ls=DASHES[i], marker=MARKERS[i], label=name)
    log_axis(axes, "y")
    axes.set(
        xlabel="side of the kernel in pixels",
        ylabel="processor time in milliseconds",
        title="4 images, 8 to 8 channels of 64 x 64",
        xticks=KERNELS,
    )
    axes.legend()
    return figure
