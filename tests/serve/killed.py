"""A process that writes to a log until it is killed: forks once per line on standard input, and tells the child's pid.

Run as ``python -m tests.serve.killed LOG ACKNOWLEDGED DURABILITY``. A child appends what it was acknowledged to
ACKNOWLEDGED, a line per event: round, thread, number.
"""

import os
import sys
import threading

from macrorec.serve.events import Event
from macrorec.serve.log import LogUnavailable
from macrorec.serve.sqlite_log import SqliteLog

THREADS = 8


def event(turn: int, thread: int, n: int) -> Event:
    """Even threads know their events by keys, odd ones by offsets."""
    user, item = f"u{turn}-{thread}", f"{turn},{thread},{n}"
    if thread % 2:
        return Event(user, item, "view", n, source=user, offset=n)
    return Event(user, item, "view", n, key=item.encode())


def send(log: SqliteLog, acknowledged: int, turn: int, thread: int) -> None:
    """Append groups of growing size, each sent twice."""
    n = 0
    while True:
        size = 1 + n % 40 if thread > 1 else 1
        events = [event(turn, thread, k) for k in range(n, n + size)]
        log.append(events)
        os.write(acknowledged, "".join(f"{one.item_id}\n" for one in events).encode())
        assert log.append(events).added == 0
        n += size


def child(path: str, acknowledged: int, durability: str, turn: int) -> None:
    """Write until killed."""
    log = SqliteLog(path, durability)
    for thread in range(THREADS):
        threading.Thread(target=send, args=(log, acknowledged, turn, thread), daemon=True).start()
    threading.Event().wait(60)


def main() -> None:
    """Fork for each line, until there is none."""
    path, told, durability = sys.argv[1:]
    acknowledged = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for turn, _ in enumerate(sys.stdin):
        pid = os.fork()
        if not pid:
            try:
                child(path, acknowledged, durability, turn)
            except LogUnavailable as error:
                print(error, file=sys.stderr)
            os._exit(1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
