"""Work in a thread that shows what it has so far: what turns a solver's callback into a generator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
Emit = Callable[[T], None]


class Stopped(Exception):
    """Raised inside the work, by ``emit``, once nobody waits for it any more."""


def follow(work: Callable[[Emit[T]], None], every: float = 0.25) -> Iterator[T]:
    """Run ``work(emit)`` in a thread and yield what it emits: the newest every ``every`` seconds, and the last.

    Closing the generator makes the next ``emit`` raise :class:`Stopped` in the work, without waiting for it: a server
    closes generators in its event loop. What the work raises is raised here.
    """
    news = threading.Condition()
    newest: list[T] = []
    over = threading.Event()
    stop = threading.Event()
    failure: list[BaseException] = []

    def emit(value: T) -> None:
        if stop.is_set():
            raise Stopped
        with news:
            newest[:] = [value]
            news.notify()

    def run() -> None:
        try:
            work(emit)
        except Stopped:
            pass
        except BaseException as error:  # handed over to the generator
            failure.append(error)
        finally:
            with news:
                over.set()
                news.notify()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            with news:
                news.wait_for(lambda: newest or over.is_set())
                value = newest.pop() if newest else None
                ended = over.is_set()
            if value is not None:
                yield value
            if ended:
                break
            over.wait(every)
    finally:
        stop.set()
    if failure:
        raise failure[0]
