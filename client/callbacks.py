"""Calls from a pump to whoever asked to be called back, who must not be able to stop it.

What a callback raises has no caller to go to: on a stream's thread, or its task, it would end all
that travel on the stream.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec

P = ParamSpec("P")


def call_back(callback: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call; what is raised goes to the loop's exception handler, or to threading.excepthook."""
    try:
        callback(*args, **kwargs)
    except Exception as error:
        _report(error)
    except SystemExit as error:
        if threading.current_thread() is threading.main_thread():
            raise
        _report(error)  # elsewhere it ends a thread and no more, and this one has others to serve


def call_all(callbacks: deque[Callable[[Any], object]], news: object) -> None:
    """Call each of them back, one time, and let go of it."""
    while True:
        try:
            callback = callbacks.popleft()
        except IndexError:
            return
        call_back(callback, news)


def _report(error: BaseException) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        thread = threading.current_thread()
        told = threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
        threading.excepthook(told)
    else:
        message = "etcd-pinwheel: a callback has raised"
        loop.call_exception_handler({"message": message, "exception": error})
