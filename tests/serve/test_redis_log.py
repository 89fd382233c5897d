"""What many processes see of one log in a real server, and what becomes of it when the server fails."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serve.stores import RedisServer, found_program, redis_server, unused

from macrorec.errors import ConfigError
from macrorec.serve import redis_scripts
from macrorec.serve.events import Entry, Event, Forgotten, hidden
from macrorec.serve.log import Appended, Batch, LogCompacted, LogDamaged, LogFull, LogUnavailable
from macrorec.serve.redis_log import RedisLog
from macrorec.serve.redis_server import promised, shown

ALL = 1 << 30
JUMP = redis_scripts.JUMP


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that lives through all tests that do it no harm."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may kill."""
    with redis_server(tmp_path / "redis") as server:
        yield server


def event(n: int, user: str = "u", **more: object) -> Event:
    return Event(user, f"i{n}", "view", n, **more)


def items(log: RedisLog) -> list[str]:
    return [entry.item_id for entry in log.read(0, ALL).entries if isinstance(entry, Event)]


def soon(what: Callable[[], bool], seconds: float = 10.0) -> float:
    """Seconds until it is so; fails if it is not."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() < began + seconds
        time.sleep(0.001)
    return time.monotonic() - began


def holds(server: RedisServer, who: str) -> bool:
    """Whether the server's files have it anywhere; it may be writing them anew."""
    try:
        return any(who.encode() in path.read_bytes() for path in server.files())
    except FileNotFoundError:
        return True


# --- many at once ---


def test_each_worker_sees_all_entries_in_the_same_order(server: RedisServer) -> None:
    name, n = unused(), 60
    logs = [RedisLog(server.url, name=name) for _ in range(3)]
    seen: list[list[tuple[int, str]]] = [[] for _ in logs]

    def follow(own: list[tuple[int, str]]) -> Callable[[Batch], None]:
        return lambda batch: own.extend(
            (position, entry.item_id) for position, entry in zip(batch.positions.tolist(), batch.entries, strict=True)
        )

    def send(worker: int) -> None:
        for k in range(n):
            done = logs[worker].append([event(1000 * worker + k), event(k, key=b"%d" % k)])
            own = dict(seen[worker])
            assert own[done.position] in (f"i{1000 * worker + k}", f"i{k}")  # acknowledged, so it is in the state here
            assert done.position <= logs[worker].last()

    for log, own in zip(logs, seen, strict=True):
        log.subscribe(follow(own), after=0)
    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    soon(lambda: all(len(own) == 4 * n for own in seen))
    assert seen[0] == seen[1] == seen[2] and [position for position, _ in seen[0]] == list(range(1, 4 * n + 1))
    assert items(logs[0]) == [item for _, item in seen[0]]
    for log in logs:
        log.close()


def test_others_hear_of_an_entry_at_once(server: RedisServer) -> None:
    name = unused()
    with RedisLog(server.url, name=name) as one, RedisLog(server.url, name=name) as two:
        heard: list[int] = []
        two.subscribe(lambda batch: heard.append(batch.last))
        time.sleep(0.1)  # two listens
        waits = []
        for n in range(1, 21):
            one.append([event(n)])
            waits.append(soon(lambda n=n: heard[-1:] == [n]))
        assert sorted(waits)[10] < 0.05


def test_all_workers_are_told_who_left(server: RedisServer) -> None:
    name = unused()
    with RedisLog(server.url, name=name) as one, RedisLog(server.url, name=name) as two:
        told: list[Entry] = []
        two.subscribe(lambda batch: told.extend(batch.entries))
        one.append([event(1, "leaves"), event(2, "stays")])
        soon(lambda: len(told) == 2)
        assert two.secret == one.secret and one.forget("leaves") == 1
        soon(lambda: len(told) == 3)
        assert isinstance(told[2], Forgotten) and told[2].user == hidden("leaves", two.secret)
        assert [entry.user_id for entry in two.read(0, ALL).entries if isinstance(entry, Event)] == ["stays"]


def test_a_worker_that_was_asleep_while_entries_were_dropped_says_so(server: RedisServer) -> None:
    name, called = unused(), threading.Event()
    with RedisLog(server.url, name=name) as one, RedisLog(server.url, name=name, on_fatal=called.set) as two:
        asleep = threading.Event()
        sleeping = threading.Thread(target=lambda: two._call(asleep.wait))
        sleeping.start()
        for n in range(1, 11):
            one.append([event(n)])
        one.compact(8)
        asleep.set()
        sleeping.join()
        with pytest.raises((LogUnavailable, LogCompacted), match=r"fell behind|are gone"):
            for _ in range(100):
                two.append([event(1)])
        soon(lambda: "fell behind" in str(two.health().last_error))
        with pytest.raises(LogUnavailable, match="started again"):
            two.append([event(1)])
        assert called.wait(10) and "fell behind" in str(two.fatal) and one.fatal is None
        assert one.append([event(11)]).added == 1


# --- the server's policy ---


@pytest.mark.parametrize(
    ("told", "durability", "window"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, "fsync", 0.0),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "interval", 2.0),
        ({"appendonly": "yes", "appendfsync": "no"}, "none", None),
        ({"appendonly": "no", "appendfsync": "always"}, "none", None),
        ({"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}, "none", None),
    ],
)
def test_the_promise_is_what_the_settings_say(told: dict[str, str], durability: str, window: float | None) -> None:
    promise = promised(told)
    assert (promise.durability, promise.loss_window_seconds) == (durability, window)
    assert promise.covers(durability) and promise.covers("none")
    assert promise.covers("fsync") == (durability == "fsync")


def test_a_server_that_promises_less_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "everysec") as server:
        with pytest.raises(ConfigError, match=r"promises interval \(appendfsync everysec\), not fsync"):
            RedisLog(server.url)
        with RedisLog(server.url, "interval") as log:
            health = log.health()
            assert (health.durability, health.loss_window_seconds) == ("interval", 2.0)
            with server.redis() as client:
                client.config_set("appendfsync", "no")
            log._call(lambda: setattr(log, "_tended", 0.0))
            soon(lambda: log.health().last_error is not None)
            with pytest.raises(LogUnavailable, match="promises none"):
                log.append([event(1)])
            with server.redis() as client:
                client.config_set("appendfsync", "everysec")
            soon(lambda: log.health().last_error is None)
            assert log.append([event(1)]).added == 1


def test_a_server_that_may_drop_the_log_is_refused(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "r", "always", "--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru") as server,
        pytest.raises(ConfigError, match="may drop the log"),
    ):
        RedisLog(server.url)


def test_a_full_server_says_so_and_recovers(own: RedisServer) -> None:
    with RedisLog(own.url) as log, own.redis() as client:
        log.append([event(1)])
        client.config_set("maxmemory", "1mb")
        with pytest.raises(LogFull, match="no memory left"):
            log.append([event(2)])
        assert items(log) == ["i1"]
        client.config_set("maxmemory", "0")
        assert log.append([event(3)]) == Appended(2, 1, 0) and log.health().last_error is None


def test_settings_that_may_not_be_read(own: RedisServer) -> None:
    with own.redis() as client:
        client.acl_setuser(
            "default", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-config"]
        )
    with pytest.raises(ConfigError, match="promises unknown"):
        RedisLog(own.url)
    with RedisLog(own.url, "none") as log:
        assert log.append([event(1)]).added == 1
        assert (log.health().durability, log.health().loss_window_seconds) == ("unknown", None)


@pytest.mark.parametrize("url", ["", "nothing", "http://127.0.0.1:1", "redis://[", "redis://127.0.0.1:port/0"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a store"):
        RedisLog(url)


def test_nobody_there() -> None:
    began = time.monotonic()
    with pytest.raises(LogUnavailable, match=r"redis://127.0.0.1:1/3 ") as error:
        RedisLog("redis://:secret-word@127.0.0.1:1/3", patience=0.2)
    assert "secret-word" not in str(error.value) and time.monotonic() < began + 3
    assert shown("rediss://me:secret-word@host:7/1?ssl_cert_reqs=none") == "rediss://host:7/1"


def test_another_format_and_something_else_under_the_name(server: RedisServer) -> None:
    name = unused()
    RedisLog(server.url, name=name).close()
    with server.redis() as client:
        client.hset(f"{{{name}}}:meta", "format", "macrorec-log 9")
        with pytest.raises(LogDamaged, match="'macrorec-log 9'"):
            RedisLog(server.url, name=name)
        client.set(f"{{{name}}}:meta", "x")
        with pytest.raises(LogDamaged, match="something else under the log's name"):
            RedisLog(server.url, name=name)


# --- what is removed ---


def test_a_forgotten_user_leaves_no_byte(own: RedisServer) -> None:
    who = "somebody-who-leaves-77"
    with RedisLog(own.url) as log:
        for n in range(200):
            log.append([event(n, who, key=b"%d" % n, source=who, offset=n), event(n, f"other-{n}")])
        assert holds(own, who)  # it can be found while it is there
        assert log.forget(who) == 200
        soon(lambda: not holds(own, who))
        assert len(log.read(0, ALL).events) == 200
    own.stop()
    own.start()
    with RedisLog(own.url) as log:
        assert len(log.read(0, ALL).events) == 200 and log.forget(who) == 0
        assert not holds(own, who)


def test_ids_without_entries_are_swept_out(server: RedisServer) -> None:
    name = unused()
    with RedisLog(server.url, name=name) as log, server.redis() as client:
        log.append([event(n, f"user-{n}") for n in range(2_500)])
        assert client.hlen(f"{{{name}}}:users") == 2_500
        log.compact(2_001)
        assert client.hlen(f"{{{name}}}:users") == 500
        log.compact(ALL)
        assert client.hlen(f"{{{name}}}:users") == 0 and client.xlen(f"{{{name}}}:entries") == 0


def test_the_oldest_keys_go(server: RedisServer) -> None:
    with RedisLog(server.url, name=unused(), remember=100) as log:
        for n in range(350):
            log.append([event(n, key=b"%d" % n)])
        assert [log.append([event(n, key=b"%d" % n)]).added for n in (349, 250, 0, 100)] == [0, 0, 1, 1]


# --- what somebody else did ---


def test_a_changed_entry_is_not_read(server: RedisServer) -> None:
    name = unused()
    with RedisLog(server.url, name=name) as log, server.redis() as client:
        log.append([event(1)])
        value = client.xrange(f"{{{name}}}:entries")[0][1]["e"]
        for changed in (value.replace("i1", "i2"), value.replace("view", "vie"), "0" * 8 + value[8:]):
            client.delete(f"{{{name}}}:entries")
            client.xadd(f"{{{name}}}:entries", {"e": changed}, id="1-0")
            with pytest.raises(LogDamaged, match="entry 1 is not what was written"):
                log.read(0, 10)
        client.delete(f"{{{name}}}:entries")
        client.xadd(f"{{{name}}}:entries", {"e": value}, id="1-0")
        assert items(log) == ["i1"]
        client.hset(f"{{{name}}}:users", hidden("u", log.secret), '1 "v"')
        with pytest.raises(LogDamaged, match="entry 1 is not what was written"):
            log.read(0, 10)


def test_entries_that_somebody_removed_are_missed(server: RedisServer) -> None:
    name = unused()
    with RedisLog(server.url, name=name) as log, server.redis() as client:
        log.append([event(n) for n in range(5)])
        client.xdel(f"{{{name}}}:entries", "2-0", "3-0")
        log._call(log._store.tend)
        assert ["2 entries are missing" in line for line in log.health().report] == [True]
    with RedisLog(server.url, name=name) as log:
        assert "2 entries are missing" in log.health().report[0]


def test_a_call_that_comes_twice_is_done_once(server: RedisServer) -> None:
    name = unused()
    with RedisLog(server.url, name=name) as log:
        store = log._store
        first = store.add([[redis_scripts.NOBODY, "", "0" * 8, "[]", "", "", "", "", ""]], 10)
        store._calls -= 1
        again = store.add([[redis_scripts.NOBODY, "", "0" * 8, "[]", "", "", "", "", ""]], 10)
        assert first == again == (0, 1, "1")
        store._calls -= 2
        store._patience = 0
        with pytest.raises(LogUnavailable, match="late call"):
            store.add([], 10)


# --- a server that goes, and comes back ---


def test_a_server_that_is_killed_and_comes_back_has_all_that_was_acknowledged(own: RedisServer) -> None:
    """Three times under load: errors are bounded, and each acknowledged event is there once."""
    logs = [RedisLog(own.url, patience=0.3) for _ in range(2)]
    states: list[list[str]] = [[] for _ in logs]
    for log, state in zip(logs, states, strict=True):
        log.subscribe(lambda batch, state=state: state.extend(entry.item_id for entry in batch.entries))
    acknowledged: list[str] = []
    slowest = [0.0]
    errors: list[str] = []
    stop = threading.Event()

    def send(worker: int, thread: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            one = event(n * 1000 + worker * 100 + thread, f"u{thread}", key=b"%d-%d-%d" % (worker, thread, n))
            while not stop.is_set():
                began = time.monotonic()
                try:
                    logs[worker].append([one])
                except LogUnavailable as error:
                    errors.append(str(error))
                    time.sleep(0.01)
                else:
                    acknowledged.append(one.item_id)
                    break
                finally:
                    slowest[0] = max(slowest[0], time.monotonic() - began)

    threads = [threading.Thread(target=send, args=(worker, thread)) for worker in range(2) for thread in range(2)]
    for thread in threads:
        thread.start()
    for down in (0.02, 0.8, 0.02):
        n = len(acknowledged)
        soon(lambda n=n: len(acknowledged) > n + 50)
        own.stop()
        time.sleep(down)
        own.start()
    n = len(acknowledged)
    back = soon(lambda: len(acknowledged) > n + 50)
    stop.set()
    for thread in threads:
        thread.join()
    soon(lambda: logs[0].last() == logs[1].last())
    there = items(logs[0])
    assert len(there) == len(set(there)) and set(acknowledged) <= set(there)
    assert len(acknowledged) == len(set(acknowledged))
    assert errors and slowest[0] < 3.0 and back < 3.0  # the outage was longer than patience; nobody waited for its end
    for log, state in zip(logs, states, strict=True):
        assert state == there
        assert log.health().report == () and log.health().last_error is None
        assert log.last() > 3 * JUMP and log.read(0, ALL).positions.tolist() == sorted({*log.read(0, ALL).positions})
        log.close()


def test_a_server_that_does_not_answer_is_given_up_in_time(own: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("macrorec.serve.redis_server.ANSWER_SECONDS", 0.3)
    with RedisLog(own.url, patience=0.1) as log:
        log.append([event(1)])
        assert own.process is not None
        own.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(LogUnavailable):
                log.append([event(2, key=b"2")])
            assert time.monotonic() - began < 2
            began = time.monotonic()
            with pytest.raises(LogUnavailable):
                log.append([event(3)])
            assert time.monotonic() - began < 0.1  # known to be down: refused at once
        finally:
            own.process.send_signal(signal.SIGCONT)
        soon(lambda: log.health().last_error is None)
        log.append([event(2, key=b"2")])  # nobody knows whether the first one was taken
        assert items(log).count("i2") == 1


def test_a_server_that_lost_the_end_of_the_log_is_told(own: RedisServer, tmp_path: Path) -> None:
    """As everysec may: the last entries were acknowledged, and are gone after the restart."""
    with RedisLog(own.url, patience=5) as one, RedisLog(own.url, patience=5) as two:
        one.append([event(n) for n in range(1, 6)])
        soon(lambda: two.last() == 5)
        kept = {path: path.read_bytes() for path in own.files()}
        one.append([event(n, key=b"%d" % n) for n in range(6, 9)])
        soon(lambda: two.last() == 8)
        own.stop()
        for path, data in kept.items():
            path.write_bytes(data)
        own.start()
        assert one.append([event(9)]).position == JUMP + 1  # no position is used twice
        soon(lambda: two.last() == JUMP + 1)
        soon(lambda: bool(one.health().report and two.health().report))
        for log in (one, two):
            assert log.health().report == (
                "entries 6 to 8 were acknowledged, and lost when the server stopped (appendfsync always)",
            )
        assert one.append([event(7, key=b"7")]).added == 1
        assert items(one) == ["i1", "i2", "i3", "i4", "i5", "i9", "i7"]
    with RedisLog(own.url) as log:  # a worker that starts from a snapshot that knows more than the server does
        late: list[Entry] = []
        log.subscribe(lambda batch: late.extend(batch.entries), after=7)
        assert [entry.item_id for entry in late] == ["i9", "i7"] and "entries 6 to 7" in log.health().report[0]
        log.subscribe(lambda batch: late.extend(batch.entries), after=JUMP + 50)
        assert log.append([event(1)]).position == 2 * JUMP + 1
        assert [entry.item_id for entry in late] == ["i9", "i7", "i1", "i1"]


def test_a_server_that_lost_all(own: RedisServer) -> None:
    with RedisLog(own.url, patience=5) as one:
        one.append([event(n) for n in range(1, 6)])
        with own.redis() as client:
            client.flushall()
        assert one.append([event(6)]).position == JUMP + 1 and items(one) == ["i6"]
        assert "entries 1 to 5 were acknowledged, and lost" in one.health().report[0]
        with own.redis() as client:
            client.flushall()
            with RedisLog(own.url) as other:  # another process begins a new log
                other.append([event(1)])
        with pytest.raises(LogUnavailable):
            one.read(JUMP, 10)
        with pytest.raises(LogUnavailable, match="another log"):
            for _ in range(100):
                one.append([event(7)])
                time.sleep(0.05)


def test_a_torn_end_of_the_servers_file(own: RedisServer) -> None:
    """The server drops an addition that is not whole; what was acknowledged before it stays."""
    with RedisLog(own.url) as log:
        log.append([event(1)])
        log.append([event(2), event(3)])
    own.stop()
    last = max(own.files(), key=lambda path: (path.suffix != ".manifest", path.stat().st_mtime_ns))
    data = last.read_bytes()
    last.write_bytes(data[:-30])
    own.start()
    with RedisLog(own.url) as log:
        assert items(log) in (["i1"], ["i1", "i2", "i3"]) and log.health().report == ()
        assert log.append([event(4)]).position == JUMP + 1


CHILD = """
import sys, time
from macrorec.serve.events import Event
from macrorec.serve.redis_log import RedisLog
log = RedisLog(sys.argv[1])
for n in range(1000000):
    one = Event("u", f"{sys.argv[2]}-{n}", "view", 5, key=f"{sys.argv[2]}-{n}".encode())
    log.append([one])
    print(one.item_id, flush=True)
"""


def test_a_worker_that_is_killed_loses_nothing_that_it_acknowledged(own: RedisServer) -> None:
    found_program()
    command = [sys.executable, "-c", CHILD, own.url]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, text=True, env=environment) for k in range(2)
    ]
    acknowledged = []
    for worker in workers:
        assert worker.stdout is not None
        acknowledged += [worker.stdout.readline().strip() for _ in range(100)]
        worker.kill()
        acknowledged += [line.strip() for line in worker.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        worker.wait()
        worker.stdout.close()
    with RedisLog(own.url) as log:
        there = items(log)
        assert len(there) == len(set(there)) and set(acknowledged) <= set(there)
        assert len(there) <= len(acknowledged) + 2
        assert log.health().report == ()
