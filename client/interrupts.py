"""Ctrl-C in a thread that is inside grpc.

Python raises KeyboardInterrupt wherever the main thread happens to be. grpc's channels have a
``threading.Condition`` each, whose ``__enter__`` and ``__exit__`` are written in Python: raised
there, the interrupt leaves the lock taken for good, and every later call on the channel, its
streams and its closing wait for it. In those few lines an interrupt is put off here, to come a
moment later; everywhere else it comes as it always does.

Nothing is changed for other threads, nor where the application handles SIGINT by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

AGAIN_SECONDS: Final = 0.01

_LOCKING: Final = frozenset({"__enter__", "__exit__", "notify", "notify_all"})
"""Functions of a Condition in which its lock changes hands, or is held by grpc's C code around."""

# The functions of ``signal`` make enums of what those in C return, and take ten times as long
_in_c: Final = sys.modules.get("_signal", signal)
_set_handler: Callable[[int, Any], Any] = _in_c.signal
_handler_of: Callable[[int], Any] = _in_c.getsignal
_SIGINT: Final = int(signal.SIGINT)
_DEFAULT: Final = signal.default_int_handler


class _State:
    """Who the main thread is, and what it still has to be told."""

    main = threading.main_thread().ident
    put_off = False
    """Whether an interrupt is to come yet."""


_state: Final = _State()


def interruptible(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call into grpc, such that Ctrl-C ends the call and leaves no lock of grpc's taken."""
    if get_ident() != _state.main or _handler_of(_SIGINT) is not _DEFAULT:
        return call(*args, **kwargs)
    try:
        _set_handler(_SIGINT, _interrupt)
        return call(*args, **kwargs)
    finally:
        _set_handler(_SIGINT, _DEFAULT)
        if _state.put_off:
            _state.put_off = False
            raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Python does at Ctrl-C, unless a lock is changing hands just now."""
    if frame is None or not is_locking(frame):
        _state.put_off = False
        raise KeyboardInterrupt
    if not _state.put_off:
        _state.put_off = True
        start_new_thread(_interrupt_again, ())


def is_locking(frame: FrameType) -> bool:
    """Whether this is where a Condition takes its lock, or gives it back."""
    code = frame.f_code
    return code.co_name in _LOCKING and code.co_filename == threading.__file__


def _interrupt_again() -> None:
    """Interrupt a call that goes on to wait. One that returns sees by itself that it has to end."""
    while _state.put_off and _state.main is not None:
        time.sleep(AGAIN_SECONDS)
        if _state.put_off:
            signal.pthread_kill(_state.main, signal.SIGINT)


def _in_forked_child() -> None:
    """Whoever forked is the main thread there."""
    _state.main = threading.main_thread().ident


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
