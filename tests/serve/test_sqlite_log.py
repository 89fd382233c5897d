"""What the log in SQLite promises while all goes well; how it fails is in test_sqlite_log_faults.py."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macrorec.errors import ConfigError
from macrorec.serve import sqlite_writer
from macrorec.serve.events import Entry, Event, EventError, Forgotten, ItemAnnounced, hidden
from macrorec.serve.log import Appended, Batch, Log, LogCompacted, LogUnavailable
from macrorec.serve.sqlite_log import SqliteLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "log.sqlite", "none") as log:
        yield log


def event(n: int, user: str = "u", **more: object) -> Event:
    return Event(user, f"i{n}", "view", n, **more)


def items(log: SqliteLog) -> list[str]:
    return [entry.item_id for entry in log.read(0, 1 << 30).entries if isinstance(entry, Event)]


def reopened(log: SqliteLog, **settings: object) -> SqliteLog:
    log.close()
    return SqliteLog(log.path, log.durability, **settings)


def test_entries_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    before = int(time.time())
    given: list[Entry] = [
        Event("u", "i", "view"),
        ItemAnnounced("j", "books", "A title"),
        Event("ü" * 256, "j", "buy", 5, 2.5, 0.5, b"key", "file", 7),
    ]
    with SqliteLog(tmp_path / "a" / "log.sqlite") as log:
        assert isinstance(log, Log)
        assert log.last() == 0 and len(log.read(0, 10)) == 0
        assert log.append(given[:2]) == Appended(2, 2, 0)
        assert log.append(given[2:]) == Appended(3, 1, 0)
        first = log.read(0, 10)
        secret = log.secret
    with SqliteLog(tmp_path / "a" / "log.sqlite") as log:
        batch = log.read(0, 10)
        assert log.last() == 3 and log.secret == secret
        assert list(batch.entries) == list(first.entries) and batch.positions.tolist() == [1, 2, 3]
        one, two, three = batch.entries
        assert before <= one.timestamp == two.timestamp <= time.time()
        assert (one.user_id, two.item_id, two.category, two.title) == ("u", "j", "books", "A title")
        assert three == Event("ü" * 256, "j", "buy", 5, 2.5, 0.5)
        assert log.read(1, 1).positions.tolist() == [2] and len(log.read(3, 10)) == 0
        assert log.health().report == ()


def test_the_same_key_or_offset_is_counted_once(log: SqliteLog) -> None:
    assert log.append([event(1, key=b"k"), event(2, key=b"k")]) == Appended(1, 1, 1)
    assert log.append([event(3, key=b"k"), event(4)]) == Appended(2, 1, 1)
    assert log.append([event(5, source="s", offset=0), event(6, source="s", offset=0)]) == Appended(3, 1, 1)
    assert log.append([event(7, source="s", offset=0), event(8, source="t", offset=0)]) == Appended(4, 1, 1)
    assert log.append([event(9, key=b"k", source="s", offset=9)]) == Appended(4, 0, 1)
    assert log.append([event(9, source="s", offset=9)]) == Appended(5, 1, 0)
    assert log.append([]) == Appended(5, 0, 0)
    log = reopened(log)
    assert log.append([event(3, key=b"k"), event(5, source="s", offset=0), event(9, source="s", offset=9)]) == Appended(
        5, 0, 3
    )
    assert items(log) == ["i1", "i4", "i5", "i8", "i9"]
    log.close()


def test_many_at_once_count_once_each(log: SqliteLog) -> None:
    n_threads, n = 16, 30
    seen: list[int] = []
    log.subscribe(lambda batch: seen.extend(batch.positions.tolist()))
    results: list[Appended] = []

    def send(thread: int) -> None:
        for k in range(n):
            own = event(thread * n + k, key=b"%d-%d" % (thread, k))
            shared = event(k, key=b"shared-%d" % k)
            results.append(log.append([own, shared]))
            assert log.append([own]).added == 0

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.added for one in results) == n_threads * n + n == log.last()
    assert sum(one.duplicates for one in results) == n_threads * n - n
    assert seen == list(range(1, log.last() + 1))


def test_subscribers_know_an_entry_before_it_is_acknowledged(log: SqliteLog) -> None:
    log.append([event(1), event(2)])
    seen: list[Entry] = []
    threads: set[str] = set()

    def apply(batch: Batch) -> None:
        time.sleep(0.01)
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


def test_who_subscribes_late_misses_nothing(log: SqliteLog) -> None:
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


def test_a_subscriber_that_fails_costs_no_event(log: SqliteLog, caplog: pytest.LogCaptureFixture) -> None:
    def fail(batch: Batch) -> None:
        raise RuntimeError("no room")

    seen: list[int] = []
    log.subscribe(fail)
    log.subscribe(lambda batch: seen.append(batch.last))
    assert log.append([event(1)]).added == 1
    assert "no room" in str(log.health().last_error) and seen == [1]
    assert "could not be applied" in caplog.text


def test_a_forgotten_user_leaves_no_byte(tmp_path: Path) -> None:
    who = "somebody-who-leaves-77"
    log = SqliteLog(tmp_path / "log.sqlite", "none")
    for n in range(300):  # many chunks, of which some are joined
        log.append([event(n, who, key=b"%d" % n, source="s", offset=n), event(n, f"other-{n}")])
    log.append([Event(who, "i", "view", 5) for _ in range(5000)])
    seen: list[Entry] = []
    log.subscribe(lambda batch: seen.extend(batch.entries))
    assert log.forget(who) == 5300
    assert seen == [Forgotten(hidden(who, log.secret), seen[0].timestamp)]
    assert found(tmp_path, who) == []  # the files of an open log
    batch = log.read(0, 1 << 30)
    assert len(batch) == 301 and len(batch.events) == 300 and [entry for _, entry in batch.others] == seen
    assert batch.positions.tolist() == [*range(2, 601, 2), 5601]
    assert log.append([event(3, who, key=b"3"), event(4, who, source="s", offset=4)]) == Appended(5601, 0, 2)
    assert log.forget(who) == 0
    assert log.forget("nobody") == 0
    log.append([event(1, who)])
    assert log.forget(who) == 1
    log = reopened(log)
    assert found(tmp_path, who) == [] and len(log.read(0, 1 << 30).events) == 300 and log.health().report == ()
    log.close()
    assert found(tmp_path, who) == []


def test_who_is_forgotten_while_events_come_is_forgotten(log: SqliteLog) -> None:
    log.append([event(1), event(2, "other")])
    held = threading.Event()
    holder: Future[None] = Future()
    log._put(held.wait, holder, 0)
    late = log.submit([event(3), event(4, "other")])
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(log.forget("u")))
    thread.start()
    while len(log._waiting) < 2:
        time.sleep(0.001)
    held.set()
    thread.join(10)
    assert late.result(0).added == 2 and results == [2] and items(log) == ["i2", "i4"]


def found(folder: Path, who: str) -> list[str]:
    """Files that hold ``who`` anywhere."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert paths
    return [path.name for path in paths if who.encode() in path.read_bytes()]


def test_bytes_of_a_user_are_found_where_there_are_some(tmp_path: Path) -> None:
    """``found`` can tell: without forgetting, the id lies there plainly."""
    with SqliteLog(tmp_path / "log.sqlite", "none") as log:
        log.append([event(1, "somebody-who-stays")])
        assert found(tmp_path, "somebody-who-stays") != []
        log.append([event(1, "a-somebody-who-stays-b")])
        assert log.forget("somebody-who-stays") == 1 and items(log) == ["i1"]


def test_compaction_keeps_what_is_known(log: SqliteLog) -> None:
    for n in range(1, 301):
        log.append([event(n, key=b"k%d" % n), event(n, source="s", offset=n)])
    log.compact(400)
    assert log.health().compacted == 0  # a chunk goes whole
    log.compact(521)
    health = log.health()
    assert health.compacted == 520 and health.position == 600
    with pytest.raises(LogCompacted, match=f"entries up to {health.compacted} are gone"):
        log.read(health.compacted - 1, 10)
    assert log.read(health.compacted, 1 << 30).positions.tolist() == list(range(health.compacted + 1, 601))
    for _ in range(2):
        again = [event(n, key=b"k%d" % n) for n in range(1, 301)] + [
            event(n, source="s", offset=n) for n in range(1, 301)
        ]
        assert log.append(again) == Appended(600, 0, 600)
        log.compact(550)
        log = reopened(log)
        assert log.read(log.health().compacted, 1).positions.tolist() == [log.health().compacted + 1]
    log.compact(1 << 40)
    assert log.health().compacted == 600 and len(log.read(600, 10)) == 0
    assert log.append(again) == Appended(600, 0, 600)
    assert log.append([event(1)]) == Appended(601, 1, 0)
    log = reopened(log)
    assert log.last() == 601 and log.append(again).added == 0
    log.close()


def test_compaction_gives_the_disk_back(log: SqliteLog) -> None:
    for k in range(10):
        log.append([Event(f"user-{n}", f"item-{k}", "view", n) for n in range(20_000)])
    full = log.health().bytes
    log.compact(log.last() + 1)
    log = reopened(log)
    assert log.path.stat().st_size < full / 20
    log.close()


def test_keys_beyond_what_is_remembered_leave_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "FEW_KEYS", 100)
    log = SqliteLog(tmp_path / "log.sqlite", "none", remember=1000)
    for start in range(0, 5000, 50):
        log.append([event(n, key=b"%d" % n) for n in range(start, start + 50)])
        log.compact(log.last() + 1)
        log.compact(log.last() + 1)  # once more is no more
    log = reopened(log, remember=1000)
    assert log.append([event(n, key=b"%d" % n) for n in range(4000, 5000)]).added == 0
    assert log.append([event(n, key=b"%d" % n) for n in range(3000)]).added == 3000
    log.close()


def test_small_chunks_are_joined(log: SqliteLog) -> None:
    for n in range(1, 601):
        log.append([event(n)])
    chunks = log._reader.execute("SELECT count(*) FROM chunk").fetchone()[0]
    assert chunks == 2 + 600 - 2 * 256
    assert items(log) == [f"i{n}" for n in range(1, 601)]
    log = reopened(log)
    assert items(log) == [f"i{n}" for n in range(1, 601)]
    log.close()


@pytest.mark.parametrize(("durability", "window"), [("fsync", 0.0), ("interval", 0.02), ("none", None)])
def test_health_tells_what_could_be_lost(tmp_path: Path, durability: str, window: float | None) -> None:
    with SqliteLog(tmp_path / "log.sqlite", durability, interval_ms=20) as log:
        log.append([event(1)])
        health = log.health()
        assert (health.durability, health.loss_window_seconds, health.position) == (durability, window, 1)
        assert health.bytes > 0 and health.last_error is None and health.queue == 0


@pytest.mark.parametrize(("durability", "level"), [("fsync", 2), ("interval", 1), ("none", 0)])
def test_sqlite_flushes_as_the_policy_says(tmp_path: Path, durability: str, level: int) -> None:
    """2 is FULL: the journal is flushed before a commit returns; also after a failure."""
    with SqliteLog(tmp_path / "log.sqlite", durability) as log:
        for _ in range(2):
            assert log._call(lambda: log._writer._db.execute("PRAGMA synchronous").fetchone()) == (level,)
            assert log._call(lambda: log._writer._db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
            log._call(log._writer._db.close)
            with pytest.raises(LogUnavailable):
                log.append([event(1)])
            log.append([event(1)])


def test_an_interval_log_is_flushed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[float] = []
    monkeypatch.setattr(sqlite_writer.os, "fdatasync", lambda file: flushes.append(time.monotonic()))
    with SqliteLog(tmp_path / "log.sqlite", "interval", interval_ms=30) as log:
        for _ in range(3):
            n, began = len(flushes), time.monotonic()
            log.append([event(1)])
            while len(flushes) == n and time.monotonic() < began + 5:
                time.sleep(0.002)
            assert 0.02 < flushes[-1] - began < 1
        n = len(flushes)
        time.sleep(0.1)
        assert len(flushes) == n  # nothing new, nothing to flush


def test_nobody_else_may_read_it(log: SqliteLog) -> None:
    log.append([event(1)])
    assert {path.stat().st_mode & 0o077 for path in log.path.parent.iterdir()} == {0}


def test_a_second_process_is_refused(log: SqliteLog) -> None:
    with pytest.raises(LogUnavailable, match="another process has the log"):
        SqliteLog(log.path)
    assert log.append([event(1)]).added == 1


def test_a_closed_log_takes_nothing(log: SqliteLog) -> None:
    waiting = [log.submit([event(n)]) for n in range(100)]
    log.close()
    log.close()
    assert [one.result(0).added for one in waiting] == [1] * 100
    with pytest.raises(LogUnavailable, match="closed"):
        log.append([event(1)])


def test_a_full_queue_is_refused(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.sqlite", "none", most_waiting=10) as log:
        held = threading.Event()
        holder: Future[None] = Future()
        log._put(held.wait, holder, 0)
        while not holder.running():
            time.sleep(0.001)
        first = log.submit([event(n) for n in range(50)])  # one may be as large as it likes
        with pytest.raises(LogUnavailable, match="50 entries wait"):
            log.submit([event(1)])
        assert log.health().queue == 50
        held.set()
        assert first.result(10).added == 50
        assert log.append([event(1)]).added == 1 and log.health().queue == 0


def test_a_caller_who_gave_up_is_left_out(log: SqliteLog) -> None:
    held = threading.Event()
    holder: Future[None] = Future()
    log._put(held.wait, holder, 0)
    while not holder.running():
        time.sleep(0.001)
    one, two = log.submit([event(1)]), log.submit([event(2)])
    assert one.cancel()
    held.set()
    assert two.result(10) == Appended(1, 1, 0)


@pytest.mark.parametrize(
    "bad",
    [
        Event("\ud800", "i", "v"),
        Event("u", "i" * 70_000, "v"),
        Event("u", "i", "v", source="s"),
        ItemAnnounced("i", "\udfff"),
    ],
)
def test_what_cannot_be_written_harms_nobody_else(log: SqliteLog, bad: Entry) -> None:
    other = log.submit([event(1)])
    with pytest.raises(EventError, match="event 1"):
        log.submit([event(2), bad])
    assert other.result(10).added == 1 and log.append([event(3)]).position == 2


def test_an_unknown_durability(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed are fsync, interval, none"):
        SqliteLog(tmp_path / "log.sqlite", "sometimes")


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


@settings(max_examples=25)
@given(steps=steps)
def test_it_is_what_a_list_would_be(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]) -> None:
    log = SqliteLog(tmp_path_factory.mktemp("log") / "log.sqlite", "none")
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
            log = reopened(log)
    compacted = log.health().compacted
    batch = log.read(compacted, 1000)
    kept = [
        (p, e if isinstance(e, Event) else Forgotten(e.user))
        for p, e in zip(batch.positions.tolist(), batch.entries, strict=True)
    ]
    assert kept == [pair for pair in plain if pair[0] > compacted] and log.last() == position
    log.close()
