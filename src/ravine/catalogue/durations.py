"""Durations carry their unit: ``"30ep"`` epochs, ``"500it"`` iterations (steps), ``"5%"`` of the
whole run.

Arithmetic is exact (rationals), so no conversion loses a step to rounding.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ravine.errors import InputError

_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ep|it|%)\s*")
_MOST = 10**12  # as steps of any epoch they are still a number of 64 bits


def parse(text: object) -> tuple[Fraction, str]:
    """Amount and unit of a duration.

    >>> parse("2.5ep")
    (Fraction(5, 2), 'ep')
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        repair = f'write "{text}ep" for epochs or "{text}it" for steps' if _is_number(text) else ""
        raise InputError(
            "",
            got=text,
            expected='a duration with its unit: "30ep", "500it" or "5%"',
            repair=repair,
        )
    if (amount := Fraction(match[1])) > _MOST:
        raise InputError("", got=text, expected=f"at most {_MOST:,}{match[2]}")
    return amount, match[2]


def canonical(text: object) -> str:
    """One spelling for each duration.

    >>> canonical(" 5.0 % ")
    '5%'
    """
    parse(text)
    number, unit = _FORM.fullmatch(str(text)).groups()  # type: ignore[union-attr]
    whole, _, part = number.partition(".")
    return f"{whole.lstrip('0') or '0'}.{part.rstrip('0')}".removesuffix(".") + unit


def steps(text: str, epoch_steps: int, total_steps: int | None = None) -> int:
    """Steps in a duration, to the nearest step (halves up).

    >>> steps("2ep", epoch_steps=10), steps("500it", epoch_steps=10), steps("5%", 10, total_steps=200)
    (20, 500, 10)
    """
    amount, unit = parse(text)
    if unit == "%" and total_steps is None:
        raise InputError(
            "",
            got=text,
            expected="epochs (ep) or iterations (it)",
            repair="there is no whole of which this could be a percentage",
        )
    wholes: dict[str, int | Fraction] = {
        "ep": epoch_steps,
        "it": 1,
        "%": Fraction(total_steps or 0, 100),
    }
    return int(amount * wholes[unit] + Fraction(1, 2))


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True
