"""What every log promises, in one file or in a server: the same tests for all."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.stores import RedisServer, redis_server, unused

from macrorec.serve.events import Entry, Event, EventError, Forgotten, ItemAnnounced, hidden
from macrorec.serve.log import Appended, Batch, Log, LogCompacted, LogUnavailable
from macrorec.serve.redis_log import RedisLog
from macrorec.serve.sqlite_log import SqliteLog

ALL = 1 << 30
Opener = Callable[..., Log]
FRESH = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""``make`` makes a new log for every example."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Opener]]:
    """Makes logs: what it returns opens one, each time the same."""
    opened: list[Log] = []

    def new() -> Opener:
        if request.param == "sqlite":
            path = tmp_path_factory.mktemp("log") / "log.sqlite"
            return lambda **more: kept(SqliteLog(path, "none", **more))
        url, name = request.getfixturevalue("server").url, unused()
        return lambda **more: kept(RedisLog(url, name=name, **more))

    def kept(log: Log) -> Log:
        opened.append(log)
        return log

    yield new
    for log in opened:
        log.close()


@pytest.fixture
def log(make: Callable[[], Opener]) -> Log:
    return make()()


def event(n: int, user: str = "u", **more: object) -> Event:
    return Event(user, f"i{n}", "view", n, **more)


def items(log: Log) -> list[str]:
    after = log.health().compacted
    return [entry.item_id for entry in log.read(after, ALL).entries if isinstance(entry, Event)]


def test_entries_come_back_in_order_with_their_times(make: Callable[[], Opener]) -> None:
    before = int(time.time())
    given: list[Entry] = [
        Event("u", "i", "view"),
        ItemAnnounced("j", "books", 'A "title", \\ and more'),
        Event("ü" * 256, 'j"', "buy", 5, 2.5, 0.1, b"key", "file", 7),
        Event(" a b ", "1", "buy", -(1 << 53), 3e38, -1e-7),
    ]
    open_log = make()
    log = open_log()
    assert isinstance(log, Log)
    assert log.last() == 0 and len(log.read(0, 10)) == 0
    assert log.append(given[:2]) == Appended(2, 2, 0)
    assert log.append(given[2:]) == Appended(4, 2, 0)
    secret = log.secret
    log.close()
    log = open_log()
    batch = log.read(0, 10)
    assert log.last() == 4 and log.secret == secret and batch.positions.tolist() == [1, 2, 3, 4]
    one, two, three, four = batch.entries
    assert before <= one.timestamp == two.timestamp <= time.time()
    assert (one.user_id, two.item_id, two.category, two.title) == ("u", "j", "books", 'A "title", \\ and more')
    assert three == Event("ü" * 256, 'j"', "buy", 5, 2.5, 0.1) and four == given[3]
    assert log.read(1, 1).positions.tolist() == [2] and len(log.read(4, 10)) == 0
    assert log.health().report == () and log.health().last_error is None and log.health().bytes > 0


def test_the_same_key_or_offset_is_counted_once(make: Callable[[], Opener]) -> None:
    open_log = make()
    log = open_log()
    assert log.append([event(1, key=b"k"), event(2, key=b"k")]) == Appended(1, 1, 1)
    assert log.append([event(3, key=b"k"), event(4)]) == Appended(2, 1, 1)
    assert log.append([event(5, source="s", offset=0), event(6, source="s", offset=0)]) == Appended(3, 1, 1)
    assert log.append([event(7, source="s", offset=0), event(8, source="t", offset=0)]) == Appended(4, 1, 1)
    assert log.append([event(9, key=b"k", source="s", offset=9)]) == Appended(4, 0, 1)
    assert log.append([event(9, source="s", offset=9)]) == Appended(5, 1, 0)
    assert log.append([]) == Appended(5, 0, 0)
    log.close()
    log = open_log()
    again = [event(3, key=b"k"), event(5, source="s", offset=0), event(9, source="s", offset=9)]
    assert log.append(again) == Appended(5, 0, 3)
    assert items(log) == ["i1", "i4", "i5", "i8", "i9"]


@FRESH
@given(
    batches=st.lists(st.lists(st.integers(0, 40) | st.integers((1 << 62) - 9, (1 << 62) - 1), max_size=8), max_size=8)
)
def test_offsets_in_any_order_are_counted_once(batches: list[list[int]], make: Callable[[], Opener]) -> None:
    log, known = make()(), set()
    for batch in batches:
        for source in ("s", "t"):
            new = len({*batch} - known)
            done = log.append([event(1, source=source, offset=offset) for offset in batch])
            assert (done.added, done.duplicates) == (new, len(batch) - new)
        known |= {*batch}
    log.close()


def test_many_at_once_count_once_each(log: Log) -> None:
    n_threads, n = 8, 20
    seen: list[int] = []
    log.subscribe(lambda batch: seen.extend(batch.positions.tolist()))
    results: list[Appended] = []

    def send(thread: int) -> None:
        for k in range(n):
            own = event(thread * n + k, key=b"%d-%d" % (thread, k))
            results.append(log.append([own, event(k, key=b"shared-%d" % k)]))
            assert log.append([own]).added == 0

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.added for one in results) == n_threads * n + n == log.last()
    assert sum(one.duplicates for one in results) == n_threads * n - n
    assert seen == list(range(1, log.last() + 1))


def test_subscribers_know_an_entry_before_it_is_acknowledged(log: Log) -> None:
    log.append([event(1), event(2)])
    seen: list[Entry] = []
    threads: set[str] = set()

    def apply(batch: Batch) -> None:
        seen.extend(batch.entries)
        threads.add(threading.current_thread().name)

    end = log.subscribe(apply, after=1)
    assert [entry.item_id for entry in seen] == ["i2"]
    for n in range(3, 9):
        assert log.append([event(n)]).position == n
        assert seen[-1] == event(n)
    end()
    log.append([event(9)])
    assert [entry.item_id for entry in seen] == [f"i{n}" for n in range(2, 9)] and len(threads) == 1


def test_who_subscribes_late_misses_nothing(log: Log) -> None:
    """While others write: each entry once, in order."""
    stop = threading.Event()

    def send() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            log.append([event(n)])

    thread = threading.Thread(target=send)
    thread.start()
    collected: list[list[int]] = []
    try:
        for after in (0, 5, 0):
            while log.last() < 20:
                time.sleep(0.001)
            positions: list[int] = []
            log.subscribe(lambda batch, positions=positions: positions.extend(batch.positions.tolist()), after=after)
            collected.append(positions)
    finally:
        stop.set()
        thread.join()
    for after, positions in zip((0, 5, 0), collected, strict=True):
        assert positions == list(range(after + 1, log.last() + 1))


def test_a_subscriber_that_fails_costs_no_event(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    def fail(batch: Batch) -> None:
        raise RuntimeError("no room")

    seen: list[int] = []
    log.subscribe(fail)
    log.subscribe(lambda batch: seen.append(batch.last))
    assert log.append([event(1)]).added == 1
    assert "no room" in str(log.health().last_error) and seen == [1]
    assert "could not be applied" in caplog.text


def test_a_forgotten_user_is_gone_and_stays_counted(make: Callable[[], Opener]) -> None:
    open_log = make()
    log, who = open_log(), "somebody who leaves"
    for n in range(50):
        log.append([event(n, who, key=b"%d" % n, source="s", offset=n), event(n, f"other-{n}")])
    log.append([Event(who, "i", "view", 5) for _ in range(2500)])
    seen: list[Entry] = []
    log.subscribe(lambda batch: seen.extend(batch.entries))
    assert log.forget(who) == 2550
    assert seen == [Forgotten(hidden(who, log.secret), seen[0].timestamp)]
    batch = log.read(0, ALL)
    assert len(batch) == 51 and len(batch.events) == 50 and [entry for _, entry in batch.others] == seen
    assert batch.positions.tolist() == [*range(2, 101, 2), 2601]
    assert log.append([event(3, who, key=b"3"), event(4, who, source="s", offset=4)]) == Appended(2601, 0, 2)
    assert log.forget(who) == 0 and log.forget("nobody") == 0
    log.append([event(1, who), event(2, "other-2")])
    assert log.forget(who) == 1
    log.close()
    log = open_log()
    assert len(log.read(0, ALL).events) == 51 and log.health().report == ()
    late: list[Entry] = []
    log.subscribe(lambda batch: late.extend(batch.entries), after=0)
    assert late == list(log.read(0, ALL).entries) and len(late) == 55


def test_compaction_keeps_what_is_known(make: Callable[[], Opener]) -> None:
    open_log = make()
    log = open_log()
    for n in range(1, 301):
        log.append([event(n, f"u{n}", key=b"k%d" % n), event(n, source="s", offset=n)])
    log.compact(521)
    compacted = log.health().compacted
    assert compacted == 520 and log.health().position == 600
    with pytest.raises(LogCompacted, match="entries up to 520 are gone"):
        log.read(519, 10)
    with pytest.raises(LogCompacted):
        log.subscribe(print, after=5)
    assert log.read(520, ALL).positions.tolist() == list(range(521, 601))
    again = [event(n, key=b"k%d" % n) for n in range(1, 301)] + [event(n, source="s", offset=n) for n in range(1, 301)]
    assert log.append(again) == Appended(600, 0, 600)
    assert log.forget("u1") == 0 and log.forget("u300") == 1 and log.forget("u") == 40
    log.close()
    log = open_log()
    log.compact(1 << 40)
    assert log.health().compacted == log.last() == 603 and len(log.read(603, 10)) == 0
    assert log.append(again) == Appended(603, 0, 600) and log.append([event(1)]) == Appended(604, 1, 0)
    log.close()
    assert open_log().last() == 604


def test_a_closed_log_takes_nothing(log: Log) -> None:
    waiting = [log.submit([event(n)]) for n in range(100)]
    log.close()
    log.close()
    assert [one.result(0).added for one in waiting] == [1] * 100
    with pytest.raises(LogUnavailable, match="closed"):
        log.append([event(1)])


@pytest.mark.parametrize(
    "bad",
    [
        Event("\ud800", "i", "v"),
        Event("u", "i" * 70_000, "v"),
        Event("u", "i", "v", source="s"),
        ItemAnnounced("i", "\udfff"),
    ],
)
def test_what_cannot_be_written_harms_nobody_else(log: Log, bad: Entry) -> None:
    other = log.submit([event(1)])
    with pytest.raises(EventError, match="event 1"):
        log.submit([event(2), bad])
    assert other.result(10).added == 1 and log.append([event(3)]).position == 2


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 9)), max_size=4)),
        st.tuples(st.just("offset"), st.lists(st.integers(0, 15), max_size=4)),
        st.tuples(st.just("forget"), st.integers(0, 3)),
        st.tuples(st.just("compact"), st.integers(0, 40)),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=15,
)


@FRESH
@given(steps=steps)
def test_it_is_what_a_list_would_be(make: Callable[[], Opener], steps: list[tuple[str, object]]) -> None:
    open_log = make()
    log = open_log()
    plain: list[tuple[int, Entry]] = []
    known: set[object] = set()
    position = 0
    for step, what in steps:
        if step in ("add", "offset"):
            events = [
                Event(f"u{one[0]}", "i", "view", 5, key=None if one[1] is None else b"%d" % one[1])
                if isinstance(one, tuple)
                else Event("u0", f"i{one}", "view", 5, source="s", offset=one)
                for one in what
            ]
            added = 0
            for one in events:
                mark = one.key if one.key is not None else one.offset
                if mark is None or mark not in known:
                    position += 1
                    added += 1
                    plain.append((position, Event(one.user_id, one.item_id, "view", 5)))
                known |= {mark} if mark is not None else set()
            assert log.append(events) == Appended(position, added, len(events) - added)
        elif step == "forget":
            mine = [pair for pair in plain if getattr(pair[1], "user_id", None) == f"u{what}"]
            gone = [pair for pair in mine if pair[0] > log.health().compacted]
            assert log.forget(f"u{what}") == len(gone)
            position += 1
            plain = [pair for pair in plain if pair not in mine]
            plain.append((position, Forgotten(hidden(f"u{what}", log.secret))))
        elif step == "compact":
            log.compact(what)
        else:
            log.close()
            log = open_log()
    compacted = log.health().compacted
    batch = log.read(compacted, 1000)
    kept = [
        (p, e if isinstance(e, Event) else Forgotten(e.user))
        for p, e in zip(batch.positions.tolist(), batch.entries, strict=True)
    ]
    assert kept == [pair for pair in plain if pair[0] > compacted] and log.last() == position
    assert log.health().report == ()
    log.close()
