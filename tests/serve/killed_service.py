"""A service that stores events and writes snapshots until it is killed: forks once per line, tells the child's pid.

Run as ``python -m tests.serve.killed_service BUNDLE DATA ACKNOWLEDGED``. Each event is of a user of its own; a child
appends the users whose events were acknowledged to ACKNOWLEDGED.
"""

import os
import sys
import threading
from pathlib import Path

from tests.serve import market

from macrorec.serve.service import Service
from macrorec.serve.sqlite_log import SqliteLog

THREADS = 4


def send(service: Service, acknowledged: int, turn: int, thread: int) -> None:
    """Store events, a few at a time, each twice; and ask meanwhile."""
    n = 0
    while True:
        users = [f"{turn}-{thread}-{n + k}" for k in range(1 + n % 7)]
        raw = [{"user_id": user, "item_id": f"i{n % 29}", "behavior": "buy"} for user in users]
        service.feedback(service.check(raw, f"{turn}-{thread}-{n}".encode()))
        os.write(acknowledged, "".join(f"{user}\n" for user in users).encode())
        assert service.feedback(service.check(raw, f"{turn}-{thread}-{n}".encode())).added == 0
        service.recommend(users[0], 5)
        n += len(users)


def child(bundle: str, data: Path, acknowledged: int, turn: int) -> None:
    """Serve until killed."""
    service = Service(bundle, SqliteLog(data / "log.sqlite"), data / "snapshots")
    for thread in range(THREADS):
        threading.Thread(target=send, args=(service, acknowledged, turn, thread), daemon=True).start()
    while True:
        service.snapshot()


def main() -> None:
    """Fork for each line, until there is none."""
    bundle, data, told = sys.argv[1:]
    acknowledged = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for turn, _ in enumerate(sys.stdin):
        pid = os.fork()
        if not pid:
            try:
                child(bundle, Path(data), acknowledged, turn)
            finally:
                os._exit(1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


assert market.N_ITEMS > 29

if __name__ == "__main__":
    main()
