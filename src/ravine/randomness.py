"""Randomness is stateless: every draw is a function of what it is for, so any step can be entered
without replaying.

A *key* is a 63-bit hash of plain parts, for instance ``key(seed, "order", epoch)``. Equal parts
give equal draws.
"""

from __future__ import annotations

import hashlib
import math

import torch


def key(*parts: int | str) -> int:
    """A 63-bit key from integers and strings.

    >>> key(0, "order", 3) == key(0, "order", 3) != key(0, "order", 4)
    True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose."""
    return torch.Generator(device).manual_seed(key(*parts))


def seed_globally(seed: int) -> None:
    """Seed PyTorch's global generators, as ``torch.manual_seed`` does.

    That one also notes its callers for the generators of devices which are not there: half a millisecond
    a call, or a few from deep inside a program.
    """
    torch.default_generator.manual_seed(seed)
    if torch.accelerator.is_available():
        device = torch.get_device_module()
        getattr(device, "manual_seed_all", device.manual_seed)(seed)


def uniform(key: torch.Tensor, shape: tuple[int, ...] | torch.Size, first: int = 0) -> torch.Tensor:
    """float32 uniforms in [0, 1) as a pure function of a key (int64 scalar) and the index; keys [P]
    give [P, *shape]. ``first`` is the index of the first number: a part of a longer draw.

    Counter-based: the index is hashed with the two halves of the key by two rounds of a 32-bit
    finaliser (lowbias32, Wellons 2018).

    >>> u = uniform(torch.tensor(7), (1000,))
    >>> bool((u >= 0).all() and (u < 1).all() and abs(u.mean() - 0.5) < 0.05)
    True
    """
    drawn = _words(key, shape, first).to(torch.float32).mul_(2.0**-24)
    return drawn.view(*key.shape, *shape)


def at_least(
    rate: torch.Tensor, key: torch.Tensor, shape: tuple[int, ...] | torch.Size, first: int = 0
) -> torch.Tensor:
    """1 where ``uniform(key, shape, first) >= rate``, else 0, in float32; rates alike with keys.
    Whole numbers tell it: to compare numbers and to read what was compared are slow beside the draw.

    >>> key, rate = torch.tensor(7), torch.tensor(0.3)
    >>> bool(((uniform(key, (5, 100)) >= rate) == at_least(rate, key, (5, 100))).all())
    True
    """
    least = torch.ceil(rate.to(torch.float32) * 2.0**24).to(torch.int32).unsqueeze(-1)
    below = (_words(key, shape, first) - least) >> 31  # -1 or 0
    return (below + 1).to(torch.float32).view(*key.shape, *shape)


def _words(key: torch.Tensor, shape: tuple[int, ...] | torch.Size, first: int) -> torch.Tensor:
    """24 random bits for each index, as int32 [*key.shape, size]."""
    size = math.prod(shape)
    index = torch.arange(first, first + size, dtype=torch.int32, device=key.device)
    low, high = (
        (key & 0x7FFFFFFF).to(torch.int32).unsqueeze(-1),
        (key >> 32).to(torch.int32).unsqueeze(-1),
    )
    bits = _mix(_mix(index ^ low) + high)
    return (bits >> 8).bitwise_and_(0xFFFFFF)


def normal(key: torch.Tensor, shape: tuple[int, ...] | torch.Size, first: int = 0) -> torch.Tensor:
    """float32 standard normals from a key, by the inverse of the normal distribution function."""
    return torch.special.ndtri(uniform(key, shape, first).double() + 2.0**-25).float()


def _mix(x: torch.Tensor) -> torch.Tensor:
    # in place where it can be: fresh memory costs more than the arithmetic
    x = (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x)
    x *= 0x7FEB352D
    x = (x >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(x)
    x *= -0x7B935975  # 0x846CA68B as a signed 32-bit number
    return (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x)
