"""Which routes change what is served? Load a bundle, go back to the one before, write a snapshot; by an admin's key."""

from __future__ import annotations

from pathlib import Path

import msgspec

from macrorec.serve.exchange import Exchange, Operation, Reply, Shared, decode
from macrorec.serve.messages import ReloadBody, Serving, Snapshot
from macrorec.serve.problems import Problem

_RELOAD = msgspec.json.Decoder(ReloadBody)


async def reload(shared: Shared, exchange: Exchange) -> Reply:
    """``POST /api/admin/reload``: load and verify a bundle, warm it up, then answer from it."""
    exchange.query({})
    folder = _folder(shared, decode(await exchange.body(shared.settings), _RELOAD).bundle)
    version = await shared.admin.run(lambda: shared.service.reload(folder))
    return Reply(msgspec.json.encode(Serving(version)))


async def rollback(shared: Shared, exchange: Exchange) -> Reply:
    """``POST /api/admin/rollback``: answer from the model before the last reload."""
    exchange.query({})
    return Reply(msgspec.json.encode(Serving(await shared.admin.run(shared.service.rollback))))


async def snapshot(shared: Shared, exchange: Exchange) -> Reply:
    """``POST /api/admin/snapshot``: write the state to disk, so that a start has less to replay."""
    exchange.query({})
    return Reply(msgspec.json.encode(Snapshot(await shared.admin.run(shared.service.snapshot))))


def _folder(shared: Shared, name: str | None) -> Path | None:
    """The bundle of that name in the server's folder of bundles; None for the one that is served."""
    if name is None:
        return None
    if shared.settings.bundles is None or name.startswith(".") or Path(name).name != name:
        raise Problem("invalid", "bundle is the name of a folder beside the served bundle", parameter="bundle")
    folder = shared.settings.bundles / name
    if not folder.is_dir():
        raise Problem("invalid", "there is no bundle of that name", parameter="bundle")
    return folder


ROUTES = (
    Operation("POST", "/api/admin/reload", "reload", "admin", reload),
    Operation("POST", "/api/admin/rollback", "rollback", "admin", rollback),
    Operation("POST", "/api/admin/snapshot", "snapshot", "admin", snapshot),
)
