"""What does a Redis-compatible server promise, is it the one we spoke to before, and what do its errors mean?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from macrorec.errors import ConfigError
from macrorec.serve.log import LogDamaged, LogFull, LogUnavailable

CONNECT_SECONDS, ANSWER_SECONDS = 1.0, 3.0
WEAKEST = ("none", "interval", "fsync")
"""Durabilities, the weakest first."""
_FLUSHES = {"always": ("fsync", 0.0), "everysec": ("interval", 2.0), "no": ("none", None)}
"""``everysec`` waits for a slow disk up to two seconds before it makes clients wait."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Promise:
    """What becomes of what the server took, if its machine loses power."""

    durability: str
    """As in ``log.Durability``; ``unknown`` where the server does not tell its settings."""
    loss_window_seconds: float | None
    why: str
    """The setting that decides it."""
    evicts: str | None = None
    """The setting by which the server may drop the log when memory is short; None: it refuses writes then."""

    def covers(self, wanted: str) -> bool:
        """Whether it is ``wanted``, or stronger."""
        own = WEAKEST.index(self.durability) if self.durability in WEAKEST else 0
        return own >= WEAKEST.index(wanted)


class Gone(LogUnavailable):
    """The server has no log, or not the one that a call was for."""


class Server:
    """Connections to one server; every thread that waits on its own has its own ``client``."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet. Raises ConfigError for a URL that is none, or without the client's library."""
        try:
            import redis
        except ModuleNotFoundError:
            raise ConfigError("--store needs the redis client: pip install 'macrorec[redis]'") from None
        self._redis = redis
        self.where = shown(url)
        self._url = url
        try:
            self.client().close()
        except ValueError:
            raise ConfigError(
                f"{self.where} is no address of a store; it looks like redis://host:6379/0, rediss:// or unix://"
            ) from None

    def client(self, expected: Callable[[str], bool] | None = None) -> Any:
        """A client that connects when it is used, and repeats nothing by itself.

        ``expected`` is asked on every connection about the run of the server, which is another one after every restart
        (empty where the server does not tell); where it says False, the connection is not used, and the call fails.
        """
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        def connected(connection: Any) -> None:
            connection.on_connect()
            if expected is not None and not expected(self._run_of(connection)):
                raise self._redis.ConnectionError("it was restarted")

        return self._redis.Redis.from_url(
            self._url,
            protocol=2,
            decode_responses=True,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=connected,
            client_name="macrorec",
        )

    def _run_of(self, connection: Any) -> str:
        connection.send_command("INFO", "server")
        try:
            told = re.search(r"run_id:(\w+)", str(connection.read_response()))
        except self._redis.ResponseError as error:
            if self._denied(error):
                return ""
            raise
        return told[1] if told else ""

    def call(self, client: Any, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script. Raises LogFull, LogUnavailable, LogDamaged."""
        return self.ask(lambda: self._call(client, script, keys, arguments))

    def _call(self, client: Any, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return client.evalsha(_sha1(script), len(keys), *keys, *arguments)
        except self._redis.exceptions.NoScriptError:
            return client.eval(script, len(keys), *keys, *arguments)

    def ask(self, question: Callable[[], T]) -> T:
        """What ``question``, which uses a client, returns. Raises as ``call``."""
        try:
            return question()
        except (self._redis.RedisError, OSError) as error:
            raise self.failure(error) from error

    def promise(self, client: Any) -> Promise:
        """What its settings say now. Raises LogUnavailable."""
        told: dict[str, str] = {}
        try:
            for setting in ("append*", "no-appendfsync-on-rewrite", "maxmemory*"):
                told |= client.config_get(setting)
        except self._redis.ResponseError as error:
            if self._denied(error):
                return Promise("unknown", None, "CONFIG GET is not allowed")
            raise self.failure(error) from error
        except (self._redis.RedisError, OSError) as error:
            raise self.failure(error) from error
        return promised(told)

    def size(self, client: Any) -> int:
        """Bytes of the server's files, or of its memory where it keeps none."""
        told = self.ask(lambda: client.info("persistence"))
        if "aof_current_size" in told:
            return int(told["aof_current_size"])
        return int(self.ask(lambda: client.info("memory")).get("used_memory", 0))

    def rewrite(self, client: Any) -> str | None:
        """Have the server write its files anew, without what was removed; why it cannot just now, or None."""
        try:
            told = client.info("persistence")
            if told.get("aof_enabled"):
                if told.get("aof_rewrite_in_progress") or told.get("rdb_bgsave_in_progress"):
                    return "busy"
                client.bgrewriteaof()
            if told.get("rdb_last_save_time") and client.config_get("save").get("save"):
                client.execute_command("BGSAVE", "SCHEDULE")
        except self._redis.ResponseError as error:
            return "busy" if "in progress" in str(error) else str(error)
        except (self._redis.RedisError, OSError) as error:
            raise self.failure(error) from error
        return None

    def _denied(self, error: Exception) -> bool:
        return isinstance(error, self._redis.exceptions.NoPermissionError) or "unknown command" in str(error)

    def failure(self, error: Exception) -> Exception:
        """What to raise for an error of the client."""
        text = str(error).strip() or type(error).__name__
        if isinstance(error, self._redis.ResponseError):
            if text in ("GONE", "STALE"):
                return Gone(f"the store {self.where} has lost the log" if text == "GONE" else "a late call was refused")
            if text.startswith("WRONGTYPE"):
                return LogDamaged(f"the store {self.where} has something else under the log's name; choose another one")
            if text.startswith("OOM") or isinstance(error, self._redis.OutOfMemoryError):
                return LogFull(f"the store {self.where} has no memory left: {text}")
            if "No space left" in text:
                return LogFull(f"the disk of the store {self.where} is full; free some space")
        return LogUnavailable(f"the store {self.where} does not take entries: {text}")


def promised(told: dict[str, str]) -> Promise:
    """What a server's settings promise."""
    policy = told.get("maxmemory-policy", "noeviction")
    evicts = f"maxmemory-policy {policy}" if told.get("maxmemory") != "0" and policy.startswith("allkeys") else None
    if told.get("appendonly") != "yes":
        return Promise("none", None, "appendonly no", evicts)
    flush = told.get("appendfsync", "no")
    if told.get("no-appendfsync-on-rewrite") == "yes" and flush != "no":
        return Promise("none", None, "no-appendfsync-on-rewrite yes", evicts)
    durability, window = _FLUSHES[flush]
    return Promise(durability, window, f"appendfsync {flush}", evicts)


def shown(url: str) -> str:
    """An address without what is secret in it."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "(no URL)"


@cache
def _sha1(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
