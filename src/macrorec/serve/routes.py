"""Which routes read? Recommendations, rankings, reasons, alike items, the model, and the map of its items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from macrorec.serve.answer import Answer
from macrorec.serve.exchange import Exchange, Operation, Reply, Shared, check_id, decode, whole
from macrorec.serve.messages import Answered, RankBody, RankedItem
from macrorec.serve.problems import Problem

MOST_FILTERED = 100
"""Ids or categories of one filter: it is written into the URL."""
_RANK = msgspec.json.Decoder(RankBody)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_RECOMMEND = {
    "n": False,
    "offset": False,
    "category": True,
    "only": True,
    "exclude": True,
    "seen": False,
    "reasons": False,
}


async def recommend(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/recommend/{user}``: the best items for a user, by what is known of the user now."""
    (user,) = exchange.ids(1)
    query = exchange.query(_RECOMMEND)
    most = shared.settings.max_n
    n = whole(query.get("n"), "n", 10, 1, most)
    offset = whole(query.get("offset"), "offset", 0, 0, most - n)
    wanted: dict[str, Any] = {}
    for name, plural in (("category", "categories"), ("only", "only"), ("exclude", "exclude")):
        if name in query:
            if len(query[name]) > MOST_FILTERED:
                raise Problem("invalid", f"{name} may be given {MOST_FILTERED} times", parameter=name)
            wanted[plural] = [check_id(text, name) for text in query[name]]
    for name in ("seen", "reasons"):
        if name in query:
            if query[name] not in _FLAGS:
                raise Problem("invalid", f"{name} is true or false", parameter=name)
            wanted[name] = _FLAGS[query[name]]
    deadline = exchange.deadline(shared.settings)

    return await answer_of(
        shared, exchange, lambda: shared.service.recommend(user, n, offset, deadline=deadline, **wanted)
    )


async def rank(shared: Shared, exchange: Exchange) -> Reply:
    """``POST /api/rank``: these items, in the order of a user's taste."""
    shared.reads.admit()
    exchange.query({})
    deadline = exchange.deadline(shared.settings)
    body = await exchange.body(shared.settings)

    def ask() -> Answer:
        asked = decode(body, _RANK)
        most = shared.settings.max_ranked
        if not 1 <= len(asked.item_ids) <= most:
            raise Problem("invalid", f"item_ids holds 1 to {most:,} ids")
        user = check_id(asked.user_id, "user_id")
        answer: Answer = shared.service.rank(user, [check_id(item) for item in asked.item_ids], deadline=deadline)
        return answer

    return await answer_of(shared, exchange, ask)


async def explain(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/explain/{user}/{item}``: what carries the score of an item."""
    user, item = exchange.ids(2)
    exchange.query({})
    return Reply(await shared.reads.run(lambda: encoded(shared.service.explain(user, item))))


async def similar(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/item-to-item/{item}``: items most like an item."""
    (item,) = exchange.ids(1)
    n = whole(exchange.query({"n": False}).get("n"), "n", 10, 1, shared.settings.max_n)
    return await answer_of(shared, exchange, lambda: shared.service.similar(item, n))


async def model(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/model``: which model answers, and on what it was fitted."""
    exchange.query({})
    return Reply(await shared.inner.run(lambda: encoded(shared.service.model())))


async def item_map(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/map``: a place in the plane for items, with their clusters."""
    n = whole(exchange.query({"n": False}).get("n"), "n", 2_000, 1, 20_000)
    return Reply(await shared.inner.run(lambda: encoded(shared.service.item_map(n))))


async def answer_of(shared: Shared, exchange: Exchange, ask: Callable[[], Answer]) -> Reply:
    """The reply to what is asked of the service in a thread, with what it tells counted and noted."""

    def work() -> tuple[bytes, Answer]:
        answer = ask()
        return encoded(answered(answer)), answer

    body, answer = await shared.reads.run(work)
    shared.metrics.answer(answer.path, answer.timings, answer.degraded)
    exchange.notes["path"], exchange.notes["version"] = answer.path, answer.version
    if answer.degraded:
        exchange.notes["degraded"] = list(answer.degraded)
    return Reply(body)


def answered(answer: Answer) -> Answered:
    """The service's answer as it is written in JSON."""
    none = msgspec.UNSET
    items = [
        RankedItem(
            one.item_id,
            one.score,
            one.rank,
            none if one.reasons is None else one.reasons,
            none if one.title is None else one.title,
        )
        for one in answer.items
    ]
    return Answered(items, answer.path, answer.version, answer.position, answer.ranked, list(answer.degraded))


def encoded(value: Any) -> bytes:
    """Any answer of the service as JSON; numbers of numpy become plain ones."""
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


ROUTES = (
    Operation("GET", "/api/recommend/{user}", "recommend", "client", recommend),
    Operation("POST", "/api/rank", "rank", "client", rank),
    Operation("GET", "/api/explain/{user}/{item}", "explain", "client", explain),
    Operation("GET", "/api/item-to-item/{item}", "item-to-item", "client", similar),
    Operation("GET", "/api/model", "model", "client", model),
    Operation("GET", "/api/map", "map", "client", item_map),
)
