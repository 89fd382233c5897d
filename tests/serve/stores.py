"""A real Redis-compatible server on a free loopback port, with its files in a folder of the test's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

PROGRAMS = ("redis-server", "valkey-server")


class RedisServer:
    """One server; it may be killed and started again on the same port and files."""

    def __init__(self, program: str, folder: Path, flush: str = "always", *more: str) -> None:
        self.program, self.folder, self.flush, self.more = program, folder, flush, more
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        kept = "no" if self.flush == "off" else "yes"
        flush = "everysec" if self.flush == "off" else self.flush
        with (self.folder / "server.log").open("ab") as told:
            command = [
                *(self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)),
                *("--save", "", "--appendonly", kept, "--appendfsync", flush, "--daemonize", "no", *self.more),
            ]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.STDOUT)
        until = time.monotonic() + 20
        while True:
            try:
                with self.redis() as client:
                    client.ping()
                return
            except redis.RedisError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.folder / "server.log").read_text()[-2000:]) from None
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it; by default as a crash would."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def redis(self) -> redis.Redis:
        """A client for what a test wants to know, or to break."""
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=5)

    def files(self) -> list[Path]:
        """The append-only files."""
        return sorted(path for path in self.folder.rglob("appendonly*") if path.is_file())


def found_program() -> str:
    """The server's program; the test is skipped, and fails where the environment says CI, if there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no redis-server on this machine: see scripts/services.sh")
    return program


@contextmanager
def redis_server(folder: Path, flush: str = "always", *more: str) -> Iterator[RedisServer]:
    """A server that runs until the end."""
    server = RedisServer(found_program(), folder, flush, *more)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def unused() -> str:
    """The name of a log that nobody has used."""
    return f"test-{os.urandom(6).hex()}"
