"""Processes that share a log share its snapshots: one writes for all, and nobody who left stays in any."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serve.stores import RedisServer, redis_server, unused

from macrorec.errors import ResourceError
from macrorec.serve import memory, snapshots
from macrorec.serve.events import Event
from macrorec.serve.memory import Memory
from macrorec.serve.redis_log import RedisLog


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def workers(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Memory]]:
    """Begins one more worker; all share a log and a folder."""
    monkeypatch.setattr(memory, "_LOOK", 0.02)
    name = unused()
    begun: list[tuple[Memory, RedisLog]] = []

    def begin() -> Memory:
        log = RedisLog(server.url, name=name)
        begun.append((Memory(log, tmp_path / "snapshots", lambda: None, lambda user_id: None), log))
        return begun[-1][0]

    yield begin
    for one, log in begun:
        one.close()
        log.close()


def events(first: int, last: int, user: str = "u") -> list[Event]:
    return [Event(f"{user}{n % 10}", f"i{n}", "view", n) for n in range(first, last)]


def soon(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_writes_for_all(workers: Callable[[], Memory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY_ENTRIES", 100)
    written: list[int] = []
    write = snapshots.write
    monkeypatch.setattr(snapshots, "write", lambda *given: (written.append(given[1]), write(*given))[1])
    some = [workers() for _ in range(3)]
    for batch in range(5):
        some[batch % 3].log.append(events(100 * batch, 100 * batch + 100))
        soon(lambda batch=batch: all(one.written >= 100 * batch + 100 for one in some))
    assert written == [100, 200, 300, 400, 500]  # none twice
    assert snapshots.positions(tmp_path / "snapshots") == (400, 500)
    soon(lambda: all(one.log.health().compacted == 400 for one in some))
    late = workers()
    assert late.ledger.position == 500 and len(late.ledger) == 500 and late.written == 500


def test_who_left_is_in_no_snapshot(workers: Callable[[], Memory], tmp_path: Path) -> None:
    one, two = workers(), workers()
    one.log.append(events(0, 50, "stays") + events(0, 50, "leaves"))
    soon(lambda: two.ledger.position == 100)
    one.snapshot()
    two.log.append(events(50, 60))
    two.snapshot()
    assert len(snapshots.positions(tmp_path / "snapshots")) == 2
    one.forget("leaves3")
    soon(lambda: two.ledger.position == 111)
    time.sleep(0.2)  # the other has looked several times
    for position in snapshots.positions(tmp_path / "snapshots"):
        assert position >= 111
    for path in (tmp_path / "snapshots").rglob("*"):
        assert not path.is_file() or b"leaves3" not in path.read_bytes()
    assert "leaves3" not in workers().ledger.users.series().to_list()


def test_events_of_who_leaves_are_counted_wherever_they_lie(workers: Callable[[], Memory]) -> None:
    """In snapshots alone, in the log alone, in both; whoever of the workers is asked, and once."""
    one, two = workers(), workers()
    one.log.append(events(0, 50))
    for first in (50, 60):
        one.snapshot()
        one.log.append(events(first, first + 10))
    soon(lambda: two.ledger.position == 70 and one.log.health().compacted == 50)
    assert two.forget("u3") == 7 and one.forget("u4") == 7
    soon(lambda: one.ledger.position == two.ledger.position)
    assert one.forget("u3") == two.forget("u4") == 0 == one.forget("stranger")
    late = workers()
    late.log.append(events(3, 4))
    assert late.forget("u3") == 1 and late.forget("u5") == 7


def test_a_damaged_snapshot_is_written_anew(workers: Callable[[], Memory], tmp_path: Path) -> None:
    """It is not taken for one that another process has just written."""
    one = workers()
    one.log.append(events(0, 10))
    one.snapshot()
    one.log.append(events(10, 20))
    one.snapshot()
    one.close()
    (tmp_path / "snapshots" / "snapshot-20" / "meta.json").write_text("{}")
    two = workers()
    assert two.skipped and two.written == 10 and two.ledger.position == 20
    assert two.snapshot() == 20
    assert not workers().skipped


def test_the_folder_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    inside, free = threading.Event(), threading.Event()

    def hold() -> None:
        with snapshots.alone(tmp_path / "s"):
            inside.set()
            free.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(ResourceError, match="another process has had"), snapshots.alone(tmp_path / "s", 0.1):
        pass
    free.set()
    with snapshots.alone(tmp_path / "s", 5):
        assert snapshots.positions(tmp_path / "s") == ()
    thread.join()
