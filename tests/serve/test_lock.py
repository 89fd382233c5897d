"""Readers together, a writer alone, and neither starves."""

import threading
import time

from macrorec.serve.lock import ReadWrite


def test_nobody_reads_while_one_writes_and_all_get_their_turn() -> None:
    lock, value, faults, turns, stop = ReadWrite(), [0, 0], list[str](), [0, 0, 0, 0], threading.Event()

    def read(place: int) -> None:
        while not stop.is_set():
            with lock.reading():
                first = value[0]
                time.sleep(0)
                if value != [first, first]:
                    faults.append("torn")
            turns[place] += 1

    def write() -> None:
        while not stop.is_set():
            with lock.writing():
                value[0] += 1
                time.sleep(0)
                value[1] += 1
            turns[3] += 1
            if lock.awaited:
                time.sleep(2e-5)

    threads = [threading.Thread(target=read, args=(place,)) for place in range(3)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not faults and min(turns) > 20 and value[0] == value[1] == turns[3]


def test_readers_are_there_together() -> None:
    lock, inside = ReadWrite(), threading.Barrier(2, timeout=10)

    def read() -> None:
        with lock.reading():
            inside.wait()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    with lock.writing():
        assert not inside.broken


def test_an_error_leaves_the_lock_free() -> None:
    lock = ReadWrite()
    for way in (lock.reading, lock.writing):
        try:
            with way():
                raise ValueError
        except ValueError:
            pass
    with lock.writing():
        pass
