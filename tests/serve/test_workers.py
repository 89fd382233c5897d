"""Several processes on one port: started, started again, ended together; and none outlives its parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from macrorec.serve.server import bind

CHILD = """
import os, signal, socket, sys, threading, time
from macrorec.serve.workers import follow
folder, port, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[4])
end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())
follow(parent)
mode = open(folder + "/mode").read()
if mode == "bad":
    sys.exit(7)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("127.0.0.1", port))
s.listen()
s.settimeout(0.05)
print("ready", flush=True)
while not end.is_set():
    try:
        c, _ = s.accept()
    except TimeoutError:
        continue
    c.sendall(str(os.getpid()).encode())
    c.close()
open(folder + f"/ended-{os.getpid()}", "w").close()
"""
PARENT = """
import sys
from macrorec.errors import UserError
from macrorec.serve.workers import supervise
child, folder, port, n = sys.argv[1:]
try:
    supervise([sys.executable, child, folder, port], int(n), lambda: print("all", flush=True), patience=2)
except UserError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@contextmanager
def started(folder: Path, n: int = 2, mode: str = "good") -> Iterator[tuple[subprocess.Popen[str], int]]:
    (folder / "child.py").write_text(CHILD)
    (folder / "parent.py").write_text(PARENT)
    (folder / "mode").write_text(mode)
    with bind("127.0.0.1", 0, shared=True) as held:
        port = held.getsockname()[1]
        command = [
            sys.executable,
            *(str(part) for part in (folder / "parent.py", folder / "child.py", folder, port, n)),
        ]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield parent, port
        finally:
            parent.kill()
            parent.communicate()


def pid_that_answers(port: int) -> int | None:
    """None where the connection fell to a worker that died before it accepted it: the kernel resets those."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return int(connection.recv(100)) or None
    except (ConnectionError, ValueError):
        return None


def pids(port: int, n: int) -> set[int]:
    found: set[int] = set()

    def enough() -> bool:
        if (pid := pid_that_answers(port)) is not None:
            found.add(pid)
        return len(found) >= n

    soon(enough)
    return found


def soon(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_answer_and_all_end(tmp_path: Path, number: int) -> None:
    with started(tmp_path, 3) as (parent, port):
        assert parent.stdout is not None and parent.stdout.readline() == "all\n"
        found = pids(port, 3)
        parent.send_signal(number)
        assert parent.wait(10) == 0
        assert {path.name for path in tmp_path.glob("ended-*")} == {f"ended-{pid}" for pid in found}


def test_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with started(tmp_path) as (parent, port):
        assert parent.stdout is not None and parent.stdout.readline() == "all\n"
        found = pids(port, 2)
        dead = found.pop()
        os.kill(dead, signal.SIGKILL)
        soon(lambda: not alive(dead))
        assert pids(port, 1) == found  # the other answers meanwhile
        assert len(pids(port, 2) - found) == 1
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(10) == 0
        assert parent.stderr is not None and f"worker {dead} ended with exit code -9" in parent.stderr.read()


def test_none_outlives_its_parent(tmp_path: Path) -> None:
    with started(tmp_path) as (parent, port):
        assert parent.stdout is not None and parent.stdout.readline() == "all\n"
        found = pids(port, 2)
        parent.kill()
        soon(lambda: not any(map(alive, found)))
        assert len(list(tmp_path.glob("ended-*"))) == 2  # in good order


def test_one_that_never_answers_ends_it_all(tmp_path: Path) -> None:
    with started(tmp_path, mode="bad") as (parent, _):
        assert parent.wait(10) == 2
        assert parent.stdout is not None
        assert parent.stdout.read() == "a worker ended with exit code 7 before it answered; see above\n"


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, mode="stubborn") as (parent, port):
        assert parent.stdout is not None and parent.stdout.readline() == "all\n"
        found = pids(port, 2)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(10) == 4 and not any(map(alive, found))
        assert "did not end within 2 s, and were killed" in parent.stdout.read()
