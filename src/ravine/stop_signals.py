"""Ctrl-C and SIGTERM, treated alike everywhere: the first is answered with care, a second ends the process
at once (exit code 128 and the signal's number)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def raised() -> Iterator[None]:
    """In this block SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def answer(number: int, frame: Any) -> None:
        for each in _SIGNALS:
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
    before = {number: signal.signal(number, answer) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not _end:  # after a first signal the next ends at once
                signal.signal(number, handler)


def _end(number: int, frame: Any) -> None:
    os._exit(128 + number)
