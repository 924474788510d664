"""An event loop in a thread of its own, which blocking code hands coroutines to."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from schemas.errors import InvalidInputError

_T = TypeVar("_T")

_JOIN_S = 10.0
_CLOSED = "expected an open client, was closed; make a new one"


class LoopThread:
    """Runs coroutines for threads that may have an event loop of their own, as in a notebook.

    Attributes:
        loop: The event loop; it runs until `stop`, at the latest until the interpreter ends.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self.loop,), name="mystocks-client", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self.loop, self._thread)

    @property
    def is_running(self) -> bool:
        """Whether coroutines can be run."""
        return self._finalizer.alive

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Returns the result of a coroutine; an interrupt such as Ctrl-C cancels it.

        Raises:
            InvalidInputError: The thread was stopped.
        """
        if not self.is_running:
            coroutine.close()
            raise InvalidInputError(_CLOSED)
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except CancelledError:
            raise InvalidInputError(_CLOSED) from None  # by another thread, meanwhile
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Ends the loop and its thread."""
        self._finalizer()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_JOIN_S)
