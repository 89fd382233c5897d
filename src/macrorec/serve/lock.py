"""How do many read what one keeps changing? Readers together, a writer alone, before readers that come later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWrite:
    """A lock. Neither side may enter it twice, and a reader may not become a writer."""

    def __init__(self) -> None:
        self._gate = threading.Lock()  # held by a writer, waiting or at work
        self._count = threading.Lock()
        self._free = threading.Lock()  # held by a writer at work, or by the readers together
        self._readers = 0
        self._queued = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Among other readers."""
        if not self._gate.acquire(blocking=False):
            self._queued += 1
            self._gate.acquire()
            self._queued -= 1
        self._gate.release()
        with self._count:
            self._readers += 1
            if self._readers == 1:
                self._free.acquire()
        try:
            yield
        finally:
            with self._count:
                self._readers -= 1
                if not self._readers:
                    self._free.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone."""
        with self._gate, self._free:
            yield

    @property
    def awaited(self) -> bool:
        """Whether readers wait for a writer to end: about right, for a writer that could pause."""
        return self._queued > 0
