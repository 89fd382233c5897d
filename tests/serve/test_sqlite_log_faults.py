"""What becomes of the log in SQLite when it is killed, torn, changed, when the disk is full, or not to be written."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.serve.killed import event

from macrorec.errors import ResourceError
from macrorec.serve.events import Event, ItemAnnounced
from macrorec.serve.log import Appended, LogDamaged, LogFull, LogUnavailable
from macrorec.serve.sqlite_log import SqliteLog

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("log.sqlite", "log.sqlite-wal", "log.sqlite.acknowledged")


# --- killed ---


def killed(tmp_path: Path, durability: str, rounds: int) -> None:
    """Kill a process that writes with many threads, so many times; what it was acknowledged is there once."""
    path, told = tmp_path / "log.sqlite", tmp_path / "acknowledged"
    random = np.random.default_rng(rounds)
    command = [sys.executable, "-m", "tests.serve.killed", str(path), str(told), durability]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            for turn in range(rounds):
                before = told.stat().st_size if told.exists() else 0
                print("go", file=server.stdin, flush=True)
                pid = int(server.stdout.readline())
                limit = time.monotonic() + 30
                while (
                    (not told.exists() or told.stat().st_size == before) and time.monotonic() < limit and turn % 5 < 4
                ):
                    time.sleep(0.002)  # in every fifth round it may be killed while it opens the log
                time.sleep(float(random.uniform(0, 0.25)))
                os.kill(pid, signal.SIGKILL)
                assert server.stdout.readline() == "ended\n"
                check(path, told, turn, deep=turn % 10 == 0 or turn == rounds - 1)
        finally:
            server.stdin.close()


def check(path: Path, told: Path, turn: int, deep: bool) -> None:
    acknowledged = told.read_text().split() if told.exists() else []
    assert len(acknowledged) == len(set(acknowledged))
    with SqliteLog(path, "none") as log:
        batch = log.read(0, 1 << 30)
        assert log.health().report == ()
        assert batch.positions.tolist() == list(range(1, log.last() + 1))
        there = Counter(batch.events["item_id"].to_list())
        assert not set(acknowledged) - there.keys(), "an acknowledged event is lost"
        assert set(there.values()) <= {1}, "an event is there twice"
        if deep:  # all are still known, also what was written and not acknowledged
            again = [event(*map(int, one.split(","))) for one in there]
            assert log.append(again) == Appended(len(there), 0, len(there))
        log.append([event(1000 + turn, 0, 0)])
    told.write_text("".join(f"{one}\n" for one in [*acknowledged, f"{1000 + turn},0,0"]))


def test_a_killed_process_loses_nothing_acknowledged(tmp_path: Path) -> None:
    killed(tmp_path, "fsync", 3)


@pytest.mark.slow
@pytest.mark.parametrize(("durability", "rounds"), [("fsync", 100), ("interval", 20), ("none", 20)])
def test_a_process_killed_a_hundred_times_loses_nothing_acknowledged(
    tmp_path: Path, durability: str, rounds: int
) -> None:
    killed(tmp_path, durability, rounds)


# --- torn and changed ---


def written(folder: Path) -> SqliteLog:
    """An open log of some chunks, of which the first are carried over and the others are in the journal."""
    log = SqliteLog(folder / "log.sqlite")
    log._call(lambda: log._writer._db.execute("PRAGMA synchronous=OFF"))  # the disk is not what is tested
    for n in range(30):
        log.append([Event(f"user-{n}", f"item-{k}", "view", n, key=b"%d-%d" % (n, k)) for k in range(n % 7 + 1)])
        log.append([Event(f"user-{n}", "i", "buy", n, 2.0, 0.5, source=f"s{n % 3}", offset=n), ItemAnnounced(f"j{n}")])
        if n == 19:
            log._call(lambda: log._writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    return log


def copied(source: Path, place: Path) -> Path:
    """The files of a log as they are, as if the machine had stopped."""
    place.mkdir()
    for name in NAMES:
        if (source / name).exists():
            shutil.copy(source / name, place / name)
    return place / "log.sqlite"


def content(path: Path, *, repair: bool = False) -> tuple[dict[int, object], tuple[str, ...]]:
    """Entries by position; and what was reported."""
    with SqliteLog(path, "none", repair=repair) as log:
        batch = log.read(0, 1 << 30)
        return dict(zip(batch.positions.tolist(), batch.entries, strict=True)), log.health().report


def test_a_journal_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    log = written(tmp_path / "a")
    whole = copied(tmp_path / "a", tmp_path / "whole")
    entries, report = content(whole)
    assert len(entries) == log.last() and report == ()
    size = (tmp_path / "a" / "log.sqlite-wal").stat().st_size
    assert size > 100_000
    for n, cut in enumerate([0, 10, 32, 4000, *range(5000, size, size // 3), size - 1]):
        path = copied(tmp_path / "a", tmp_path / f"cut-{n}")
        os.truncate(path.with_name("log.sqlite-wal"), cut)
        with pytest.raises(
            LogDamaged, match=r"entries \d+ to \d+ were acknowledged and are missing.*macrorec log repair"
        ):
            SqliteLog(path)
        kept, report = content(path, repair=True)
        assert kept.items() < entries.items() and list(kept) == list(range(1, len(kept) + 1))
        assert f"entries {len(kept) + 1} to {len(entries)} are lost" in report[-2]
        assert f"{len(kept):,} entries are sound" in report[-1]
        with SqliteLog(path, "none") as log_again:  # now it opens, and uses no position again
            assert log_again.append([Event("u", "new", "view")]).position == len(entries) + 1
            assert log_again.read(len(kept), 10).positions.tolist() == [len(entries) + 1]
        assert content(path)[1] == ()
    log.close()


def test_what_was_never_acknowledged_may_be_torn(tmp_path: Path) -> None:
    """The mark tells how far it was acknowledged: what was cut off after it is no loss."""
    (tmp_path / "a").mkdir()
    log = written(tmp_path / "a")
    mark = (tmp_path / "a" / "log.sqlite.acknowledged").read_bytes()
    last = log.last()
    log.append([Event("u", "later", "view", 1)])
    path = copied(tmp_path / "a", tmp_path / "b")
    log.close()
    path.with_name("log.sqlite.acknowledged").write_bytes(mark)
    wal = path.with_name("log.sqlite-wal")
    os.truncate(wal, wal.stat().st_size - 100)
    entries, report = content(path)
    assert len(entries) == last and report == ()


def test_a_machine_that_stops_may_lose_what_was_not_flushed(tmp_path: Path) -> None:
    """Of durability none: told, and the positions stay used, for a snapshot may know them."""
    (tmp_path / "a").mkdir()
    log = SqliteLog(tmp_path / "a" / "log.sqlite", "none")
    for n in range(10):
        log.append([Event("u", f"i{n}", "view", 1)])
    path = copied(tmp_path / "a", tmp_path / "b")
    log.close()
    os.truncate(path.with_name("log.sqlite-wal"), 0)
    with SqliteLog(path, "none") as log:
        assert log.health().report == (
            "entries 1 to 10 were acknowledged and are missing: the machine stopped before they were flushed to disk",
        )
        assert log.append([Event("u", "i", "view")]).position == 11
    assert content(path)[1] == ()


@pytest.mark.parametrize("where", ["log.sqlite", "log.sqlite-wal"])
@pytest.mark.parametrize("flips", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_never_silent(tmp_path: Path, where: str, flips: int) -> None:
    (tmp_path / "a").mkdir()
    log = written(tmp_path / "a")
    if where == "log.sqlite":  # closed: nothing in the journal lies over what is changed
        log.close()
    entries = content(copied(tmp_path / "a", tmp_path / "whole"))[0]
    original = (tmp_path / "a" / where).read_bytes()
    random = np.random.default_rng(flips)
    n_kept: list[int] = []
    places = random.choice(np.flatnonzero(np.frombuffer(original, np.uint8)), flips, replace=False)
    for n, place in enumerate(places.tolist()):
        path = copied(tmp_path / "a", tmp_path / f"flipped-{n}")
        changed = bytearray(original)
        changed[place] ^= 1 << int(random.integers(8))
        path.with_name(where).write_bytes(changed)
        try:
            kept, report = content(path)
        except LogDamaged as damaged:
            assert "\n" not in str(damaged) and str(path) in str(damaged)
            kept, report = content(path, repair=True)
            assert report, "mended without a word"
            assert kept.items() <= entries.items()
            n_kept.append(len(kept))
        else:
            assert kept == entries, "changed without a word"
            with SqliteLog(path, "none") as again:
                keys = [
                    Event(f"user-{k}", f"item-{m}", "view", k, key=b"%d-%d" % (k, m))
                    for k in range(30)
                    for m in range(k % 7 + 1)
                ]
                assert again.append(keys).added == 0
        shutil.rmtree(path.parent)
    assert len(n_kept) > flips / 6
    if where == "log.sqlite":
        assert np.median(n_kept) > 0.9 * len(entries)
    log.close()


def test_a_damaged_first_page_costs_no_event(tmp_path: Path) -> None:
    """It tells where the tables are: the format, the cells of the page, the names of tables."""
    (tmp_path / "a").mkdir()
    log = written(tmp_path / "a")
    log.close()
    entries = content(copied(tmp_path / "a", tmp_path / "whole"))[0]
    original = (tmp_path / "a" / "log.sqlite").read_bytes()
    for n, (place, bit) in enumerate([(3, 1), (16, 1), (18, 1), (104, 4), (original.index(b"CREATE TABLE chunk"), 2)]):
        path = copied(tmp_path / "a", tmp_path / f"changed-{n}")
        path.write_bytes(original[:place] + bytes([original[place] ^ bit]) + original[place + 1 :])
        with pytest.raises(LogDamaged, match="macrorec log repair"):
            SqliteLog(path)
        kept, report = content(path, repair=True)
        assert kept == entries and len(report) >= 2


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "DELETE FROM chunk WHERE last = (SELECT last FROM chunk ORDER BY last LIMIT 1 OFFSET 2)",
            r"entries 4 to \d+ are missing",
        ),
        ("DELETE FROM chunk WHERE last = 1", "entries 1 to 1 are missing"),
        ("DELETE FROM chunk WHERE last = (SELECT max(last) FROM chunk)", "were acknowledged and are missing"),
        ("UPDATE chunk SET first = 0 WHERE last = 1", "entries 0 to 1 are not what was written"),
        ("UPDATE chunk SET body = x'00' WHERE last = 1", "entries 1 to 1 are not what was written"),
        ("UPDATE name SET name = 'look' WHERE code = 0", "the name of code 0 is not what was written"),
        ("UPDATE offset SET last = last + 1 WHERE source = 's1'", "known offsets are not what was written"),
        ("UPDATE meta SET value = x'31' WHERE name = 'floor'", "the log's floor is not what was written"),
        ("UPDATE meta SET value = x'31' WHERE name = 'names'", "the log's names is not what was written"),
        ("DELETE FROM meta", "its format is b'none'"),
        ("DROP TABLE offset", "no such table"),
    ],
)
def test_what_is_changed_is_refused_and_mended(tmp_path: Path, statement: str, says: str) -> None:
    log = written(tmp_path)
    n = log.last()
    log.close()
    db = sqlite3.connect(tmp_path / "log.sqlite")
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(LogDamaged, match=says):
        SqliteLog(log.path)
    kept, report = content(log.path, repair=True)
    assert n - 10 < len(kept) and len(report) >= 2 and content(log.path)[1] == ()


def test_a_log_that_is_gone_or_old_is_not_begun_anew(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([Event("u", "i", "view")])
    log.close()
    shutil.copy(log.path, tmp_path / "old")
    with SqliteLog(log.path) as log:
        log.append([Event("u", "i", "view")])
    shutil.copy(tmp_path / "old", log.path)
    with pytest.raises(LogDamaged, match="entries 2 to 2 were acknowledged and are missing"):
        SqliteLog(log.path)
    log.path.unlink()
    with pytest.raises(LogDamaged, match="it is empty, but had 2 entries"):
        SqliteLog(log.path)


def test_a_lost_mark_is_told(tmp_path: Path) -> None:
    log = written(tmp_path)
    log.close()
    for data in (None, b"", b"x" * 16):
        mark = tmp_path / "log.sqlite.acknowledged"
        mark.unlink()
        if data is not None:
            mark.write_bytes(data)
        assert "the mark of the last acknowledged entry was missing or damaged" in content(log.path)[1][0]
        assert content(log.path)[1] == ()


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"something else, quite a lot of it" * 200)
    with pytest.raises(LogDamaged, match="not a database"):
        SqliteLog(tmp_path / "log.sqlite")
    with pytest.raises(LogDamaged, match="nothing of the log"):
        SqliteLog(tmp_path / "log.sqlite", repair=True)
    assert (tmp_path / "log.sqlite").read_bytes().startswith(b"something else")


# --- full, and read-only ---


@contextmanager
def by_quota(folder: Path) -> Iterator[SqliteLog]:
    """A database that may not grow."""
    with SqliteLog(folder / "log.sqlite") as log:
        log._call(lambda: log._writer._db.execute("PRAGMA max_page_count=60"))
        yield log


def free_quota(log: SqliteLog) -> None:
    log._call(lambda: log._writer._db.execute("PRAGMA max_page_count=100000"))


@contextmanager
def by_limit(folder: Path) -> Iterator[SqliteLog]:
    """A process whose files may not grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SqliteLog(folder / "log.sqlite") as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            yield log
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def free_limit(log: SqliteLog) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def by_disk(folder: Path) -> Iterator[SqliteLog]:
    """A disk of two megabytes, some of which something else takes."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
    try:
        (place / "other").write_bytes(bytes(1_200_000))
        with SqliteLog(place / "log.sqlite") as log:
            yield log
    finally:
        subprocess.run(["umount", str(place)], check=True)


def free_disk(log: SqliteLog) -> None:
    (log.path.parent / "other").unlink()


def may_mount() -> bool:
    """Whether this process may mount a file system."""
    with_powers = "CapEff:\t" in (status := Path("/proc/self/status").read_text())
    return with_powers and bool(int(status.partition("CapEff:\t")[2].split()[0], 16) >> 21 & 1)


WAYS = [(by_quota, free_quota), (by_limit, free_limit), *([(by_disk, free_disk)] if may_mount() else [])]


@pytest.mark.parametrize(("full", "free"), WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_a_full_disk_takes_nothing_and_comes_back(tmp_path: Path, full, free) -> None:
    with full(tmp_path) as log:
        added = 0
        with pytest.raises(LogFull, match="is full; free some space"):
            for n in range(1000):
                log.append([event(0, 0, n * 100 + k) for k in range(100)])
                added += 100
        assert 500 < added < 100_000
        for _ in range(3):  # reading goes on, and so does refusing
            assert len(log.read(0, 1 << 30)) == added == log.last()
            with pytest.raises(LogFull) as caught:
                log.append([event(0, 1, k) for k in range(2000)])
            assert isinstance(caught.value, ResourceError) and "full" in str(log.health().last_error)
        free(log)
        assert log.append([event(0, 0, k) for k in range(added + 100)]) == Appended(added + 100, 100, added)
        assert log.health().last_error is None
        log.close()
        with SqliteLog(log.path) as log:
            assert log.health().report == ()
            assert log.read(0, 1 << 30).events["item_id"].to_list() == [f"0,0,{n}" for n in range(added + 100)]


def test_a_log_that_may_not_be_written_is_read_on(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.sqlite") as log:
        log.append([event(0, 0, 0)])
        log._call(lambda: log._writer._db.execute("PRAGMA query_only=ON"))
        with pytest.raises(LogUnavailable, match="readonly"):
            log.append([event(0, 0, 1)])
        assert len(log.read(0, 10)) == 1 and "readonly" in str(log.health().last_error)
        assert log.append([event(0, 0, 1)]) == Appended(2, 1, 0)  # the file is opened anew by itself


def test_a_lost_connection_comes_back(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.sqlite") as log:
        log.append([event(0, 0, 0)])
        log._call(log._writer._db.close)
        with pytest.raises(LogUnavailable):
            log.append([event(0, 0, 1)])
        assert log.append([event(0, 0, 1), event(0, 0, 0)]) == Appended(2, 1, 1)
        log._call(log._writer._db.close)
        with pytest.raises(LogUnavailable):
            log.forget("u0-0")
        assert log.forget("u0-0") == 2


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "locked"
    place.mkdir()
    SqliteLog(place / "log.sqlite").close()
    if may_mount():
        subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    else:
        for path in (*place.iterdir(), place):
            path.chmod(0o500)
    try:
        with pytest.raises(LogUnavailable, match="cannot open the log"):
            SqliteLog(place / "log.sqlite")
    finally:
        if may_mount():
            subprocess.run(["umount", str(place)], check=True)
        else:
            place.chmod(0o700)
    if may_mount():
        SqliteLog(place / "log.sqlite").close()
