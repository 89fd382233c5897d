"""What does the OpenAPI document say? Per route a description, an example, and the problems that it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from macrorec.serve.auth import NAME
from macrorec.serve.events import LONGEST_ID
from macrorec.serve.exchange import Operation
from macrorec.serve.messages import (
    PATTERN,
    Answered,
    EventBody,
    Forgot,
    ItemBody,
    RankBody,
    ReloadBody,
    Serving,
    Snapshot,
    Stored,
)
from macrorec.serve.problems import KINDS
from macrorec.serve.routes import MOST_FILTERED

ID = {"type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": PATTERN}
ITEMS = [{"item_id": "i7", "score": 0.83, "rank": 1}, {"item_id": "i2", "score": 0.61, "rank": 2}]
ANSWER = {"items": ITEMS, "path": "model", "version": "3f2a9c01be77", "position": 1042, "ranked": 2}
STORED = {"added": 2, "duplicates": 0, "position": 1042}


def whole(name: str, text: str, default: int, least: int, most: int) -> dict[str, Any]:
    """A query parameter that is a whole number."""
    schema = {"type": "integer", "minimum": least, "maximum": most, "default": default}
    return {"name": name, "in": "query", "description": text, "schema": schema}


def flag(name: str, text: str) -> dict[str, Any]:
    """A query parameter that is true or false."""
    return {"name": name, "in": "query", "description": text, "schema": {"type": "boolean", "default": False}}


def several(name: str, text: str) -> dict[str, Any]:
    """A query parameter that may be repeated."""
    return {
        "name": name,
        "in": "query",
        "description": text,
        "schema": {"type": "array", "items": ID, "maxItems": MOST_FILTERED},
    }


HEADERS = {
    "deadline": {
        "name": "X-Deadline-Ms",
        "in": "header",
        "description": "After so many milliseconds stages are left out, and the answer says which.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10_000},
    },
    "idempotency": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A request that is sent again with the same key counts once, also after a restart.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
}

ROUTES: Mapping[str, Mapping[str, Any]] = {
    "recommend": {
        "summary": "The best items for a user",
        "description": "By what is known of the user now, events of a moment ago included. Somebody unknown gets what "
        "is popular; `path` says what made the answer.",
        "ids": {"user": "ann"},
        "parameters": [
            whole("n", "How many items; with offset at most 1,000.", 10, 1, 1_000),
            whole("offset", "How many of the best to leave out: the next page.", 0, 0, 999),
            several("category", "Only items of these categories."),
            several("only", "Only these items."),
            several("exclude", "None of these items."),
            flag("seen", "Show what the user has already, too."),
            flag("reasons", "Say with each item what carried its score."),
            HEADERS["deadline"],
        ],
        "answer": (Answered, ANSWER),
        "problems": ("invalid", "busy", "timeout"),
    },
    "rank": {
        "summary": "These items, in the order of a user's taste",
        "description": "Items that nobody knows are left out.",
        "parameters": [HEADERS["deadline"]],
        "body": (RankBody, {"user_id": "ann", "item_ids": ["i2", "i7"]}),
        "answer": (Answered, ANSWER),
        "problems": ("invalid", "busy", "timeout"),
    },
    "explain": {
        "summary": "What carries the score of an item for a user",
        "description": "The macro neighbours with their weights, counts and contributions, where a ranker answers.",
        "ids": {"user": "ann", "item": "i7"},
        "answer": (
            dict[str, Any],
            {
                "user_id": "ann",
                "item_id": "i7",
                "score": 0.83,
                "path": "model",
                "reasons": [{"side": "user", "group": "shoes", "count": 3, "weight": 0.7, "contribution": 0.4}],
            },
        ),
        "problems": ("unknown-item", "unknown-user", "invalid", "busy", "timeout"),
    },
    "item-to-item": {
        "summary": "Items most like an item",
        "ids": {"item": "i7"},
        "parameters": [whole("n", "How many items.", 10, 1, 1_000)],
        "answer": (Answered, {**ANSWER, "items": ITEMS[1:]}),
        "problems": ("unknown-item", "invalid", "busy", "timeout"),
    },
    "model": {
        "summary": "Which model answers",
        "answer": (dict[str, Any], {"version": "3f2a9c01be77", "retriever": "lightgcn", "ranker": "macgnn"}),
        "problems": ("invalid", "busy", "timeout"),
    },
    "map": {
        "summary": "Places in the plane for items, with their clusters",
        "parameters": [whole("n", "How many items at most, the most popular ones.", 2_000, 1, 20_000)],
        "answer": (dict[str, Any], {"items": [{"item_id": "i7", "x": 0.1, "y": -0.4, "cluster": 2}]}),
        "problems": ("invalid", "busy", "timeout"),
    },
    "feedback": {
        "summary": "Post events",
        "description": "All are stored, or none. The answer comes when they are durable, and the next recommendation "
        "knows them.",
        "parameters": [HEADERS["idempotency"]],
        "body": (
            list[EventBody],
            [
                {"user_id": "ann", "item_id": "i7", "behavior": "buy"},
                {"user_id": "ann", "item_id": "i2", "behavior": "buy", "timestamp": 1767225600, "weight": 2.0},
            ],
        ),
        "answer": (Stored, STORED),
        "problems": ("invalid", "reused-key", "busy", "timeout", "log-unavailable", "log-full"),
    },
    "item": {
        "summary": "Announce items",
        "description": "A new item can be recommended from now on, by way of its category. One object, or an array.",
        "body": (ItemBody | list[ItemBody], {"item_id": "i9000", "category": "shoes", "title": "Red shoe"}),
        "answer": (Stored, {**STORED, "added": 1}),
        "problems": ("invalid", "busy", "timeout", "log-unavailable", "log-full"),
    },
    "forget": {
        "summary": "Remove a user",
        "description": "From log, state, snapshots and answers, across restarts. Doing it again changes nothing.",
        "ids": {"user": "ann"},
        "answer": (Forgot, {"events": 17}),
        "problems": ("invalid", "busy", "timeout", "log-unavailable", "log-full"),
    },
    "reload": {
        "summary": "Load a bundle and answer from it",
        "description": "Every file is verified and the model warmed up before the switch; no request sees a mix.",
        "body": (ReloadBody, {"bundle": "shop-2026-01-02"}),
        "answer": (Serving, {"version": "3f2a9c01be77"}),
        "problems": ("invalid", "busy", "timeout"),
    },
    "rollback": {
        "summary": "Go back to the model before the last reload",
        "answer": (Serving, {"version": "77be019c2a3f"}),
        "problems": ("invalid", "busy", "timeout"),
    },
    "snapshot": {
        "summary": "Write the state to disk",
        "answer": (Snapshot, {"position": 1042}),
        "problems": ("invalid", "busy", "timeout", "log-full"),
    },
    "live": {"summary": "Whether the process answers", "answer": (dict[str, Any], {"status": "live"})},
    "ready": {
        "summary": "Whether requests may be sent here",
        "answer": (dict[str, Any], {"status": "ready"}),
        "problems": ("not-ready",),
    },
    "health": {
        "summary": "How durable events are, how much could be lost, and what waits",
        "answer": (
            dict[str, Any],
            {"status": "ready", "durability": "fsync", "loss_window_seconds": 0.0, "log_position": 1042},
        ),
        "problems": ("invalid", "busy", "timeout"),
    },
    "metrics": {
        "summary": "Prometheus' metrics",
        "answer": (str, "macrorec_ready 1.0\n"),
        "problems": ("busy", "timeout"),
    },
}
"""Operation -> its summary, ids, parameters, body and answer with examples, and the problems of its own."""


def document(app: FastAPI, operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document."""
    whole_document = get_openapi(
        title=app.title,
        version=app.version,
        summary="Recommendations that count every event at once.",
        routes=app.routes,
    )
    types = [message for route in ROUTES.values() for message, _ in (route["answer"], route.get("body", (str, 0)))]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(str, types), schemas, strict=True))
    for operation in operations:
        path = whole_document["paths"].setdefault(operation.path, {})
        path[operation.method.lower()] = _operation(operation, ROUTES[operation.name], schema_of)
    whole_document["components"] = {
        "schemas": {**components, "Problem": _problem_schema()},
        "securitySchemes": {
            "key": {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": f"A name ({NAME.pattern}) and a secret, with a dot between.",
            },
            "bearer": {"type": "http", "scheme": "bearer", "description": "The same key."},
        },
    }
    return whole_document


def _operation(operation: Operation, route: Mapping[str, Any], schema_of: Mapping[str, Any]) -> dict[str, Any]:
    answer, example = route["answer"]
    media_type = "text/plain" if answer is str else "application/json"
    content = {media_type: {"schema": schema_of[str(answer)], "examples": {"answer": {"value": example}}}}
    kinds = [*route.get("problems", ()), "bad-request", "wrong-host", "fault"]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": route["summary"],
        "tags": [operation.access],
        "responses": {"200": {"description": "Done", "content": content}},
    }
    if "description" in route:
        described["description"] = route["description"]
    parameters = [_id(name, example) for name, example in route.get("ids", {}).items()]
    described["parameters"] = [*parameters, *route.get("parameters", ())]
    if "ids" in route:
        kinds.append("not-found")
    if "body" in route:
        body, example = route["body"]
        content = {"application/json": {"schema": schema_of[str(body)], "examples": {"body": {"value": example}}}}
        described["requestBody"] = {"required": True, "content": content}
        kinds += ["too-large", "not-json", "slow-body"]
    if operation.access != "open":
        described["security"] = [{"key": []}, {"bearer": []}] + ([{}] if operation.access == "client" else [])
        kinds += ["no-key", "rate", *(("forbidden", "admin-off") if operation.access == "admin" else ())]
    for status, of_status in sorted(_by_status(kinds).items()):
        described["responses"][str(status)] = _problem(status, of_status)
    return described


def _id(name: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "An id of yours, percent-encoded; a slash inside it is %2F.",
        "schema": ID,
        "examples": {"id": {"value": example}},
    }


def _by_status(kinds: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for kind in kinds:
        found.setdefault(KINDS[kind][0], []).append(kind)
    return found


def _problem(status: int, kinds: list[str]) -> dict[str, Any]:
    examples = {
        kind: {
            "value": {
                "type": f"urn:macrorec:problem:{kind}",
                "title": KINDS[kind][1],
                "status": status,
                "detail": KINDS[kind][1],
                "request_id": "5f0c2f7d9a1b4e66",
            }
        }
        for kind in kinds
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    described: dict[str, Any] = {
        "description": "; ".join(KINDS[kind][1] for kind in kinds),
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }
    if status in (429, 503, 507):
        text = "Whole seconds after which to try again."
        described["headers"] = {"Retry-After": {"description": text, "schema": {"type": "integer", "minimum": 1}}}
    return described


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457; further members depend on the type.",
        "required": ["type", "title", "status", "detail", "request_id"],
        "properties": {
            "type": {"type": "string", "enum": [f"urn:macrorec:problem:{kind}" for kind in KINDS]},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
        },
    }
