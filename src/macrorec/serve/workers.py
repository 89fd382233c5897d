"""How do several processes answer on one port? A parent starts them, starts them again, and ends them together.

Each binds the port for itself (SO_REUSEPORT), and the kernel deals new connections out among them. A worker ends when
its parent does, however that came about: it holds the end of a pipe that only the parent writes to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from macrorec.errors import ConfigError, ResourceError

_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
"""Seconds before a worker that died is started again: at first, and at most; doubled while it does not last."""
_LASTING = 60.0
"""Seconds after which a worker has lasted."""
_LOOK = 0.05


class _Worker:
    """One process, and those that come after it in its place."""

    def __init__(self, command: Sequence[str], parent: int) -> None:
        self.command, self.parent = command, parent
        self.deaths = 0
        self.lines = 0
        """Lines that any of its processes has written: the first says that it answers."""
        self.process: subprocess.Popen[str]
        self.due = 0.0
        """When it is to be started again."""
        self.start()

    def start(self) -> None:
        self.ready = threading.Event()
        self.process = subprocess.Popen(
            [*self.command, "--parent", str(self.parent)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(self.parent,),
            start_new_session=True,  # Ctrl-C comes to the parent alone, which tells the others
            text=True,
        )
        self.since = time.monotonic()
        threading.Thread(target=self._read, args=(self.process.stdout, self.ready), daemon=True).start()

    def _read(self, stdout: Any, ready: threading.Event) -> None:
        with stdout:
            for _ in stdout:
                self.lines += 1
                ready.set()

    def tell(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


def supervise(command: Sequence[str], n: int, on_listening: Callable[[], None], *, patience: float = 60.0) -> None:
    """Run ``command`` in ``n`` processes until SIGTERM or SIGINT, and then until all have ended.

    Each gets ``--parent FD``, and writes a line when it answers; ``on_listening`` is called when all have.
    ``patience``: seconds for which they may go on ending. Raises ConfigError if one ends before it has ever answered,
    ResourceError if one does not end well; whichever dies meanwhile is told of, and started again.
    """
    reader, writer = os.pipe()
    workers: list[_Worker] = []
    end = threading.Event()
    try:
        with _signals(lambda number: end.set()):
            workers += [_Worker(command, reader) for _ in range(n)]
            told = False
            while not end.is_set():
                for worker in workers:
                    _look_after(worker)
                if not told and all(worker.ready.is_set() for worker in workers):
                    told = True
                    on_listening()
                end.wait(_LOOK)
            _end(workers, patience)
    finally:
        for worker in workers:
            worker.tell(signal.SIGKILL)
            worker.process.wait()
        os.close(reader)
        os.close(writer)


def _look_after(worker: _Worker) -> None:
    code = worker.process.poll()
    if code is None:
        return
    if not worker.due:
        if not worker.lines:
            raise ConfigError(f"a worker ended with exit code {code} before it answered; see above")
        lasted = time.monotonic() - worker.since
        worker.deaths = 0 if lasted > _LASTING else worker.deaths + 1
        wait = min(_BACKOFF * 2 ** max(0, worker.deaths - 1), _LONGEST_BACKOFF)
        print(f"worker {worker.process.pid} ended with exit code {code}; another in {wait:g} s", file=sys.stderr)  # noqa: T201
        worker.due = time.monotonic() + wait
    elif time.monotonic() >= worker.due:
        worker.due = 0.0
        worker.start()


def _end(workers: Sequence[_Worker], patience: float) -> None:
    for worker in workers:
        worker.tell(signal.SIGTERM)
    until = time.monotonic() + patience
    slow = []
    for worker in workers:
        try:
            worker.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            slow.append(worker.process.pid)
    if slow:
        raise ResourceError(f"workers {', '.join(map(str, slow))} did not end within {patience:g} s, and were killed")
    bad = [worker.process.returncode for worker in workers if worker.process.returncode and not worker.due]
    if bad:
        raise ResourceError(f"a worker ended with exit code {bad[0]}")


@contextmanager
def _signals(heed: Callable[[int], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT do nothing but ``heed``."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    wakeup = signal.set_wakeup_fd(-1)
    before = {number: signal.signal(number, lambda number, _: heed(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)


def follow(parent: int) -> None:
    """Have this process end as by SIGTERM when the writing end of ``parent`` is closed: the parent is gone."""

    def wait() -> None:
        while os.read(parent, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
