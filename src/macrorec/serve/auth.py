"""Who may ask? Keys of 256 random bits, of which only a hash is stored; clients and admins apart.

A key is ``<name>.<secret>``. The name finds its row; the secret is hashed and compared in constant time, and an unknown
name costs the same comparison. SHA-256 without salt or stretching is right here, as it would not be for passwords: a
secret of 256 random bits cannot be guessed from its hash.

The file is JSON, ``{"keys": [{"name", "role", "sha256", "rate", "created"}, ...]}``, written with mode 600.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path
from typing import Literal

import msgspec

from macrorec import files
from macrorec.errors import ConfigError, DataError

NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_NOBODY = hashlib.sha256(b"").digest()

Role = Literal["client", "admin"]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A row of the file: who may ask, and the hash of what they must show."""

    name: str
    role: Role
    sha256: str
    """Of the secret, in hexadecimal."""
    rate: float | None = None
    """Requests per second, in place of the server's own limit."""
    created: int = 0
    """Unix seconds."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Key]


class Keys:
    """The keys of a server, and of a file that may change while it runs.

    Without a file everybody is a client, and nobody is an admin. With one, even with one that has no key left, nobody
    gets in without a key.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises ConfigError or DataError as ``load`` of the file's keys does."""
        self.required = path is not None
        self.has_admin = False
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._rows: dict[bytes, tuple[Key, bytes]] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> bool:
        """Read the file again if it has changed; whether it had. Where that fails, the keys stay as they were."""
        if self._path is None:
            return False
        try:
            found = self._path.stat()
        except OSError:
            found = None  # said below, in the words for a file that cannot be read
        stamp = (found.st_mtime_ns, found.st_ino) if found else None
        if stamp == self._stamp and stamp is not None:
            return False
        keys = load(self._path)
        self._rows = {key.name.encode(): (key, bytes.fromhex(key.sha256)) for key in keys}
        self.has_admin = any(key.role == "admin" for key in keys)
        self._stamp = stamp
        return True

    def find(self, shown: bytes) -> Key | None:
        """The key that ``shown`` is, or None."""
        name, _, secret = shown.partition(b".")
        key, wanted = self._rows.get(name, (None, _NOBODY))
        same = hmac.compare_digest(hashlib.sha256(secret).digest(), wanted)
        return key if same else None


def make(path: Path, name: str, role: Role, rate: float | None = None) -> str:
    """Add a key to the file, made if need be, and return it: the only time that its secret can be seen."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"a key's name is 1 to 40 letters, digits, '-' or '_'; not {name!r}")
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"a key's rate is a positive number of requests per second; not {rate}")
    keys = load(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise ConfigError(f"{path} has a key named {name!r}; choose another name, or remove that one first")
    secret = secrets.token_urlsafe(32)
    row = Key(name, role, hashlib.sha256(secret.encode()).hexdigest(), rate, int(time.time()))
    _write(path, [*keys, row])
    return f"{name}.{secret}"


def remove(path: Path, name: str) -> None:
    """Take a key out of the file; a running server shuts it out within a second or two."""
    keys = load(path)
    if all(key.name != name for key in keys):
        raise ConfigError(f"{path} has no key named {name!r}; it has {', '.join(key.name for key in keys) or 'none'}")
    _write(path, [key for key in keys if key.name != name])


def load(path: Path) -> list[Key]:
    """The rows of a file. Raises ConfigError where it is missing or open to others, DataError where damaged."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others; chmod 600 {path}")
            keys = msgspec.json.decode(file.read(), type=_File).keys
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; make keys with macrorec keys make") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a file of keys: {error}") from error
    for key in keys:
        if not NAME.fullmatch(key.name) or not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
            raise DataError(f"{path} is not a file of keys: {key.name!r} has no allowed name, or no sha256")
    if len({key.name for key in keys}) < len(keys):
        raise DataError(f"{path} has two keys of one name")
    return keys


def _write(path: Path, keys: list[Key]) -> None:
    def fill(temporary: Path) -> None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(keys)), indent=2) + b"\n")

    with files.told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, fill)
