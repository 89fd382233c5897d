"""Lanes do what can be done in time and turn the rest away; rates are counted per key."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from macrorec.serve.limits import Lane, Rates
from macrorec.serve.problems import Problem

Make = Callable[..., Lane]


@pytest.fixture
def lane() -> Iterator[Make]:
    made = []

    def make(threads: int = 1, queue: int = 8, wait: float = 10.0, timeout: float = 10.0) -> Lane:
        made.append(Lane("test", threads, queue, wait, timeout))
        return made[-1]

    yield make
    for one in made:
        assert one.close(5)


def outcomes(calls: list[Awaitable[Any]]) -> list[Any]:
    async def gather() -> list[Any]:
        return list(await asyncio.gather(*calls, return_exceptions=True))

    return asyncio.run(asyncio.wait_for(gather(), 20))


def test_answers_and_errors_come_back_from_another_thread(lane: Make) -> None:
    one = lane()

    def fail() -> None:
        raise KeyError("x")

    name, error, stop = outcomes(
        [one.run(lambda: threading.current_thread().name), one.run(fail), one.run(lambda: next(iter([])))]
    )
    assert name == "serve-test-0" and isinstance(error, KeyError) and isinstance(stop, RuntimeError)
    assert (one.busy, one.waiting) == (0, 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_full_queue_turns_away_at_once(lane: Make, threads: int) -> None:
    one = lane(threads, queue=2)
    gate = threading.Event()

    async def scene() -> list[Any]:
        held = [asyncio.ensure_future(one.run(lambda: gate.wait(10))) for _ in range(threads + 2)]
        began = time.perf_counter()
        while one.busy < threads:
            assert time.perf_counter() < began + 10
            await asyncio.sleep(0.001)
        began = time.perf_counter()
        with pytest.raises(Problem) as caught:
            await one.run(lambda: None)
        assert time.perf_counter() - began < 0.1
        assert (caught.value.kind, caught.value.status) == ("busy", 503) and caught.value.retry_after >= 1
        gate.set()
        return list(await asyncio.gather(*held))

    assert asyncio.run(scene()) == [True] * (threads + 2)
    assert one.shed == {"queue": 1, "wait": 0, "loop": 0, "late": 0, "timeout": 0}


def test_an_expected_wait_that_is_too_long_turns_away(lane: Make) -> None:
    one = lane(threads=2, queue=100, wait=0.05)
    answers = outcomes([one.run(lambda: time.sleep(0.02)) for _ in range(4)])
    assert answers == [None] * 4 and 0.015 < one.seconds < 0.1
    answers = outcomes([one.run(lambda: time.sleep(0.02)) for _ in range(40)])
    done = sum(answer is None for answer in answers)
    assert 2 <= done <= 12 and one.shed["wait"] == 40 - done  # (waiting + 1) * .02 / 2 <= .05, about


def test_what_waited_too_long_is_not_begun(lane: Make) -> None:
    one = lane(threads=1, queue=100, wait=0.02)
    begun = []
    first, second = outcomes([one.run(lambda: time.sleep(0.2)), one.run(lambda: begun.append(1))])
    assert first is None and isinstance(second, Problem) and begun == []
    assert one.shed["late"] == 1


def test_what_takes_too_long_is_given_up_and_the_thread_goes_on(lane: Make) -> None:
    one = lane(timeout=0.05)
    (answer,) = outcomes([one.run(lambda: time.sleep(0.2))])
    assert isinstance(answer, Problem) and answer.kind == "timeout"
    assert one.close(5) and one.shed["timeout"] == 1


def test_one_slow_call_does_not_turn_all_away_for_ever(lane: Make) -> None:
    one = lane(threads=1, wait=0.05)
    outcomes([one.run(lambda: time.sleep(0.5))])
    assert one.seconds > 0.4
    assert outcomes([one.run(lambda: 7)]) == [7]  # nobody waits, so nothing is expected of the average


def test_a_client_that_went_away_costs_no_work(lane: Make) -> None:
    one = lane()
    begun = []

    async def scene() -> None:
        first = asyncio.ensure_future(one.run(lambda: time.sleep(0.1)))
        second = asyncio.ensure_future(one.run(lambda: begun.append(1)))
        await asyncio.sleep(0.02)
        second.cancel()
        await first

    asyncio.run(scene())
    assert one.close(5) and begun == []


def test_closing_finishes_what_was_taken_on(lane: Make) -> None:
    one = lane(threads=2)
    done = []

    async def scene() -> None:
        held = [asyncio.ensure_future(one.run(lambda: (time.sleep(0.02), done.append(1)))) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.to_thread(one.close, 5)
        await asyncio.gather(*held)

    asyncio.run(scene())
    assert len(done) == 6


# --- rates ---


def taken(rates: Rates, times: list[float], own: float | None = None) -> list[bool]:
    found = []
    for now in times:
        try:
            rates.take("a", own, now)
            found.append(True)
        except Problem as problem:
            assert problem.status == 429
            found.append(False)
    return found


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    rates = Rates(2.0, 2.0)
    assert taken(rates, [0.0] * 6) == [True] * 4 + [False] * 2
    assert taken(rates, [0.4, 0.5, 0.5, 0.9, 1.0]) == [False, True, False, False, True]
    assert rates.limited == 5
    rates.take("b", None, 1.0)


def test_retry_after_is_when_the_next_token_is_there() -> None:
    rates = Rates(0.1, 1.0)
    rates.take("a", None, 0.0)
    with pytest.raises(Problem) as caught:
        rates.take("a", None, 2.0)
    assert caught.value.retry_after == pytest.approx(8.0)
    assert dict(caught.value.all_headers())[b"retry-after"] == b"8"


def test_a_keys_own_rate_goes_before_the_servers() -> None:
    assert taken(Rates(None, 1.0), [0.0] * 100) == [True] * 100
    assert taken(Rates(None, 1.0), [0.0] * 3, own=2.0) == [True, True, False]
    assert taken(Rates(1.0, 1.0), [0.0] * 3, own=2.0) == [True, True, False]
