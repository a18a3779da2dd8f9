"""Ctrl-C, SIGTERM and SIGHUP (the terminal was closed), treated alike everywhere: the first is answered with
care, a second ends the process at once (exit code 128 and the signal's number). ``nohup`` keeps its effect."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_HANG_UP: Any = getattr(signal, "SIGHUP", None)  # Windows has none
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANG_UP] if _HANG_UP else []))
_ALARM: Any = getattr(signal, "SIGALRM", None)  # nor this
_PATIENCE, _PAUSE = 3.0, 0.05  # seconds that an import may go on after a signal, and between looks


@contextmanager
def raised() -> Iterator[None]:
    """In this block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.

    What is being imported is let finish first, for up to 3 seconds: packages that are half loaded swallow an
    interruption (PyTorch: 2 of 180 starts went on to train), or make another error of it.
    """
    first: list[float] = []  # when the first signal came
    looking = False  # whether this call is a look after that

    def answer(number: int, frame: Any) -> None:
        nonlocal looking
        if first and not looking:
            _end(number, frame)
        looking = False
        first.append(time.monotonic())
        if _ALARM and _importing(frame) and first[-1] - first[0] < _PATIENCE:
            signal.signal(_ALARM, lambda *_: look(number))
            signal.setitimer(signal.ITIMER_REAL, _PAUSE)
            return
        for each in _answered():
            signal.signal(each, _end)
        raise KeyboardInterrupt

    def look(number: int) -> None:
        nonlocal looking
        looking = True
        signal.raise_signal(number)  # whoever answers it now

    with _handled(answer):
        try:
            yield
        finally:
            if first and _ALARM:
                signal.setitimer(signal.ITIMER_REAL, 0)


def _importing(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def came() -> bool:
    """Whether a signal has raised KeyboardInterrupt."""
    return signal.getsignal(signal.SIGTERM) is _end


@contextmanager
def noted(asked: list[int]) -> Iterator[None]:
    """In this block a signal is added to ``asked``, so that what has begun can be finished and
    stored. One that came before it and was swallowed raises KeyboardInterrupt again."""
    if came():
        raise KeyboardInterrupt

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
