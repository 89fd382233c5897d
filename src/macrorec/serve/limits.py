"""How much does the server take on? Bounded threads, a bounded wait before them, and a rate per key.

Work that computes or waits for a disk runs in the threads of a lane. A request is turned away at once (503) where the
lane's queue is full, or where it would probably wait too long: by Little's law, as many turns of the threads as stand
before it, times what one has taken of late. What has waited too long all the same is not begun. So a lane under any
load does work that somebody still waits for, and the others learn early when to come again. Where requests come faster
than the event loop can read them, their wait is there: ``Lag`` measures it, and it counts like the other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from macrorec.serve.problems import Problem

T = TypeVar("T")

_NEW = 0.05
"""Weight of the newest job in the moving average of what a job takes: it follows a change within some 20 jobs."""
_FORGET = 1.0
"""Seconds without a finished job after which the average is halved with each check: one slow call, such as the first,
must not turn everybody away for ever."""


REFUSALS = {
    "queue": "the queue is full",
    "wait": "the wait would be too long",
    "loop": "the server cannot keep up",
}


class Lag:
    """How late the event loop is: what a request waits before the server so much as reads it."""

    def __init__(self, interval: float = 0.01) -> None:
        self.seconds = 0.0
        """The least of the last three looks: a single stall, as by a compiler, is no overload."""
        self._looks: deque[float] = deque([0.0] * 3, maxlen=3)
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look every ``interval`` seconds from now on; to be called in the loop."""
        self._look(asyncio.get_running_loop(), 0.0)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._looks.append(now - due if due else 0.0)
        self.seconds = min(self._looks)
        self._timer = loop.call_at(now + self._interval, self._look, loop, now + self._interval)


class Lane:
    """Threads for one kind of work. ``run`` belongs to the event loop; counts may be read from anywhere."""

    def __init__(
        self, name: str, threads: int, queue: int, wait: float, timeout: float, lag: Lag | None = None
    ) -> None:
        """``wait``: longest expected wait; ``timeout``: longest stay, both in seconds; ``lag``: the loop's, if it
        counts as a wait."""
        self.name, self.n_threads, self.queue, self.wait, self.timeout = name, threads, queue, wait, timeout
        self.lag = lag
        self.busy = 0
        self.shed = {"queue": 0, "wait": 0, "loop": 0, "late": 0, "timeout": 0}
        """Requests turned away so far, by reason."""
        self.seconds = 0.0
        """What a job takes, moving average."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._last_end = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"serve-{name}-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread."""
        return self._jobs.qsize()

    def expected_wait(self) -> float:
        """Seconds that a job would wait that came now."""
        waiting = self._jobs.qsize()
        if not waiting and self.busy < self.n_threads:
            return 0.0
        return (waiting + 1) * self.seconds / self.n_threads

    def refusal(self) -> str:
        """Why a job that came now would be turned away; empty where it would not. What is said here is counted."""
        reason = ""
        if self._jobs.qsize() >= self.queue + self.n_threads - self.busy:
            reason = "queue"
        elif self.lag is not None and self.lag.seconds > self.wait:
            reason = "loop"
        elif self.expected_wait() > self.wait:
            if time.perf_counter() - self._last_end > _FORGET:
                self.seconds /= 2
            reason = "wait"
        if reason:
            self.shed[reason] += 1
        return reason

    def admit(self) -> None:
        """Raise Problem where a job that came now would be turned away; so that a body need not be read in vain."""
        reason = self.refusal()
        if reason:
            raise Problem("busy", REFUSALS[reason], retry_after=max(1.0, self.expected_wait()))

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, from a thread. Raises Problem where it is not begun, or not done in time."""
        self.admit()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop)
        alarm = loop.call_later(self.timeout, self._give_up, job)
        self._jobs.put(job)
        try:
            result: T = await job.future  # type: ignore[assignment]
            return result
        finally:
            alarm.cancel()

    def _give_up(self, job: _Job) -> None:
        if not job.future.done():
            self.shed["timeout"] += 1
            job.future.set_exception(Problem("timeout", f"no answer within {self.timeout:g} s"))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            began = time.perf_counter()
            if job.future.done():  # given up, or its client has gone away
                continue
            if began - job.since > 2 * self.wait:
                self.shed["late"] += 1
                job.fail(Problem("busy", "the wait was too long", retry_after=max(1.0, self.expected_wait())))
                continue
            with self._lock:
                self.busy += 1
            result: object = None
            error: BaseException | None = None
            try:
                result = job.work()
            except BaseException as raised:
                error = raised
            end = time.perf_counter()
            with self._lock:
                self.busy -= 1
                self.seconds += (end - began - self.seconds) * (_NEW if self.seconds else 1.0)
                self._last_end = end
            if error is None:
                job.done(result)
            else:
                job.fail(error)
            del job, result, error  # else the last answer would live as long as the thread is idle

    def close(self, seconds: float) -> bool:
        """Finish what has been taken on; whether that was done within ``seconds``."""
        for _ in self._threads:
            self._jobs.put(None)
        end = time.perf_counter() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.perf_counter()))
        return not any(thread.is_alive() for thread in self._threads)


class _Job:
    """A call on its way to a thread, and its answer on the way back."""

    __slots__ = ("future", "loop", "since", "work")

    def __init__(self, work: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
        self.work, self.loop = work, loop
        self.future: asyncio.Future[object] = loop.create_future()
        self.since = time.perf_counter()

    def done(self, result: object) -> None:
        self._tell(self._set_result, result)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, StopIteration):  # which a future refuses
            error = RuntimeError("StopIteration")
        self._tell(self._set_error, error)

    def _tell(self, how: Callable[[object], None], value: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(how, value)

    def _set_result(self, result: object) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _set_error(self, error: object) -> None:
        if not self.future.done():
            assert isinstance(error, BaseException)
            self.future.set_exception(error)


class Rates:
    """A token bucket per key; for the event loop alone."""

    def __init__(self, rate: float | None, burst_seconds: float) -> None:
        self.rate, self.burst_seconds = rate, burst_seconds
        self.limited = 0
        """Requests turned away so far."""
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, own_rate: float | None, now: float) -> None:
        """Count a request of ``name`` at ``now`` seconds; raises Problem where it is one too many."""
        rate = self.rate if own_rate is None else own_rate
        if rate is None:
            return
        most = max(1.0, rate * self.burst_seconds)
        tokens, last = self._buckets.get(name, (most, now))
        tokens = min(most, tokens + (now - last) * rate)
        if tokens < 1.0:
            self.limited += 1
            self._buckets[name] = (tokens, now)
            raise Problem("rate", f"this key may make {rate:g} requests per second", retry_after=(1.0 - tokens) / rate)
        self._buckets[name] = (tokens - 1.0, now)
