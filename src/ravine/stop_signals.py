"""Ctrl-C, SIGTERM and SIGHUP (the terminal was closed), treated alike everywhere: the first is answered with
care, a second ends the process at once (exit code 128 and the signal's number). ``nohup`` keeps its effect."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_HANG_UP: Any = getattr(signal, "SIGHUP", None)  # Windows has none
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANG_UP] if _HANG_UP else []))


@contextmanager
def raised() -> Iterator[None]:
    """In this block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""

    def answer(number: int, frame: Any) -> None:
        for each in _answered():
            signal.signal(each, _end)
        raise KeyboardInterrupt

    with _handled(answer):
        yield


def came() -> bool:
    """Whether a signal has raised KeyboardInterrupt."""
    return signal.getsignal(signal.SIGTERM) is _end


@contextmanager
def noted(asked: list[int]) -> Iterator[None]:
    """In this block a signal is added to ``asked``, so that what has begun can be finished and
    stored."""

    def note(number: int, frame: Any) -> None:
        if asked:
            _end(number, frame)
        asked.append(number)

    with _handled(note):
        yield


@contextmanager
def _handled(answer: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    before = {number: signal.signal(number, answer) for number in _answered()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not _end:  # after a first signal the next ends at once
                signal.signal(number, handler)


def _answered() -> list[int]:
    """The signals that are answered: not a SIGHUP that the process was started to ignore."""
    return [
        number
        for number in _SIGNALS
        if number != _HANG_UP or signal.getsignal(number) != signal.SIG_IGN
    ]


def _end(number: int, frame: Any) -> None:
    os._exit(128 + number)
