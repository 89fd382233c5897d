"""What does a browser get at /? Static files, under a policy by which nothing else can run, compressed and with tags.

The map is drawn by the script that the installed plotly package brings; it is sent when somebody asks for the map.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from macrorec.serve.exchange import Exchange, Operation, Reply, Shared
from macrorec.serve.problems import Problem

FOLDER = Path(__file__).parent
MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
NAMES = ("style.css", "icon.svg", "api.js", "app.js", "list.js", "live.js", "map.js", "more.js")
"""What ``/ui/`` serves beside the plotting script."""
PLOTLY = "plotly.js"
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS = (
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_SHEETS = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
"""How the plotting script looks for a style sheet of its own before it writes one into the page."""
_MARK = "<!-- sheets -->"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    plain: bytes
    packed: bytes
    """By gzip."""
    tag: bytes
    """Changes with the content."""
    media_type: bytes
    keep: bytes
    """What caches may do with it."""


class Sent(Reply):
    """A file, or the news that the browser has it already."""

    __slots__ = ()

    async def send(self, send: Any) -> None:
        """Send it over ASGI."""
        headers = [*self.headers, *GUARDS]
        if self.status == 200:
            headers += [(b"content-type", self.media_type), (b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def reply(file: File, headers: dict[bytes, bytes]) -> Sent:
    """``file`` for a browser that sent these headers."""
    packed = b"gzip" in headers.get(b"accept-encoding", b"")
    tag = b'W/"%s"' % file.tag  # weak: the packed bytes have the same one
    own = [(b"cache-control", file.keep), (b"etag", tag), (b"vary", b"accept-encoding")]
    known = {one.strip() for one in headers.get(b"if-none-match", b"").split(b",")}
    if tag in known:
        return Sent(b"", 304, file.media_type, tuple(own))
    if packed:
        own.append((b"content-encoding", b"gzip"))
    return Sent(file.packed if packed else file.plain, 200, file.media_type, tuple(own))


def plotly() -> Path | None:
    """The script in the installed plotly package, which is not imported."""
    spec = find_spec("plotly")
    places = spec.submodule_search_locations if spec is not None else None
    found = [Path(place) / "package_data" / "plotly.min.js" for place in places or ()]
    return next((path for path in found if path.is_file()), None)


@cache
def index() -> File:
    """The page. It holds an element for every style sheet that the plotting script would write, so that it does not:
    the policy would refuse it, and the map needs none of them."""
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    script = plotly()
    ids = sorted(set(_SHEETS.findall(script.read_text(encoding="utf-8")))) if script is not None else []
    assert html.count(_MARK) == 1
    sheets = "".join(f'<template id="{one}"></template>' for one in ids)
    return _file(html.replace(_MARK, sheets).encode(), ".html", b"no-cache")


@cache
def static(name: str) -> File:
    """One of ``NAMES``."""
    path = FOLDER / name
    return _file(path.read_bytes(), path.suffix, b"no-cache")


@cache
def plotting() -> File:
    """The plotting script. Raises Problem where there is none."""
    path = plotly()
    if path is None:
        raise Problem("not-found", "the map needs plotly: pip install 'macrorec[serve]'")
    return _file(path.read_bytes(), ".js", b"max-age=86400")


def _file(plain: bytes, suffix: str, keep: bytes) -> File:
    tag = hashlib.sha256(plain).hexdigest()[:16].encode()
    return File(plain, gzip.compress(plain, 6, mtime=0), tag, MEDIA_TYPES[suffix], keep)


def _route(path: str, name: str, load: Callable[[], File]) -> Operation:
    async def answer(shared: Shared, exchange: Exchange) -> Reply:
        return reply(await shared.inner.run(load), exchange.headers)

    return Operation("GET", path, name, "open", answer)


ROUTES = (
    _route("/", "page", index),
    *(_route(f"/ui/{name}", "ui", lambda name=name: static(name)) for name in NAMES),  # type: ignore[misc]
    _route(f"/ui/{PLOTLY}", "ui", plotting),
)
"""They need no key: they are the same for everybody, and tell nothing."""
