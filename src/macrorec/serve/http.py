"""How does the service answer over HTTP? Every request: an id, a key, a rate, a route, a reply, a line in the log.

FastAPI keeps the routes, the errors of the framework and the OpenAPI document. Our own routes are plain ASGI endpoints,
found by one look into a table before FastAPI is asked: its dependencies and pydantic cost 120 microseconds per request,
its middleware and router 30, and these routes need neither.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from macrorec import __version__
from macrorec.errors import ResourceError, UserError
from macrorec.serve import openapi, routes, routes_admin, routes_feedback, routes_health
from macrorec.serve.answer import NotReady, UnknownItem
from macrorec.serve.auth import Keys
from macrorec.serve.events import EventError
from macrorec.serve.exchange import Exchange, Operation, Reply, Shared
from macrorec.serve.limits import Lag, Lane, Rates
from macrorec.serve.log import LogCompacted, LogDamaged, LogFull, LogUnavailable
from macrorec.serve.metrics import Metrics
from macrorec.serve.problems import MEDIA_TYPE, Problem
from macrorec.serve.request_log import RequestLog
from macrorec.serve.settings import Settings

OPERATIONS = (*routes.ROUTES, *routes_feedback.ROUTES, *routes_admin.ROUTES, *routes_health.ROUTES)
"""Every route; the busiest stand first, since they are tried in order."""


def create_app(
    service: Any,
    settings: Settings | None = None,
    *,
    keys: Keys | None = None,
    log: RequestLog | None = None,
    pages: Sequence[Operation] = (),
) -> FastAPI:
    """The application that answers for ``service``. ``app.state.shared`` is what its requests share.

    ``pages``: routes for people, beside ``OPERATIONS``; OpenAPI does not describe them.
    It has threads, which end with the application's lifespan; ``service`` is the caller's to close.
    """
    settings = settings or Settings()
    timeout = settings.timeout_ms / 1e3
    lag = Lag()
    shared = Shared(
        service=service,
        settings=settings,
        keys=keys or Keys(),
        metrics=Metrics(),
        log=log or RequestLog(None),
        reads=Lane("reads", settings.threads, settings.queue, settings.wait_ms / 1e3, timeout, lag),
        writes=Lane("writes", settings.write_threads, settings.write_queue, settings.write_wait_ms / 1e3, timeout, lag),
        inner=Lane("inner", 2, 64, timeout, timeout),
        admin=Lane("admin", 1, 2, 3600, 3600),
        lag=lag,
        rates=Rates(settings.rate, settings.burst_seconds),
    )
    shared.metrics.watch(lambda: routes_health.watched(shared))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lag.start()
        yield
        lag.stop()
        for lane in shared.lanes():
            lane.close(settings.shutdown_seconds)
        shared.log.close()

    app = App(title="macrorec", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.shared = shared
    app.state.operations = (*OPERATIONS, *pages)
    for operation in app.state.operations:
        app.router.routes.append(route_of(operation, shared))
    app.openapi = lambda: openapi.document(app, OPERATIONS)  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, framework_problem)
    return app


class App(FastAPI):
    """FastAPI behind ``Edge``."""

    def build_middleware_stack(self) -> Any:
        """The edge first; FastAPI's own layers behind it."""
        return Edge(super().build_middleware_stack(), self.state.shared, self.state.operations)


def route_of(operation: Operation, shared: Shared) -> Route:
    """The route of an operation, so that FastAPI knows its path and its methods.

    Its ids may hold slashes, which the endpoint tells apart by the undecoded path.
    """
    fixed, brace, _ = operation.path.partition("{")
    path = f"{fixed}{{ids:path}}" if brace else fixed
    route = Route(path, Endpoint(operation, shared), methods=[operation.method], name=operation.name)
    route.methods = {operation.method}  # GET does not answer HEAD
    return route


class Endpoint:
    """An operation as an ASGI application."""

    def __init__(self, operation: Operation, shared: Shared) -> None:
        self.operation, self.shared = operation, shared

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.operation = self.operation.name
        try:
            admit(self.shared, exchange, self.operation.access)
            reply = await self.operation.answer(self.shared, exchange)
        except Exception as error:
            reply = reply_to(error, self.shared, exchange)
        await reply.send(send)


class Edge:
    """The outermost layer: request ids, the bound on requests in flight, counting, and the last resort for faults."""

    def __init__(self, app: Any, shared: Shared, operations: Sequence[Operation]) -> None:
        self.app, self.shared = app, shared
        self.with_ids = {
            (operation.method, operation.path.partition("{")[0].encode()): Endpoint(operation, shared)
            for operation in operations
            if "{" in operation.path
        }
        """(method, path up to the ids) -> endpoint."""
        self.fixed = {
            (operation.method, operation.path.encode()): Endpoint(operation, shared)
            for operation in operations
            if "{" not in operation.path
        }

    def find(self, method: str, path: bytes) -> Any:
        """What answers a path, as it was sent: an endpoint of ours, or FastAPI."""
        found = self.fixed.get((method, path))
        if found is None and path.startswith(b"/api/"):
            found = self.with_ids.get((method, path[: path.find(b"/", 5) + 1]))
        return found or self.app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        shared = self.shared
        exchange = scope["exchange"] = Exchange(scope, receive)
        began = time.perf_counter()
        status = 0

        async def send_more(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", exchange.request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                if shared.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        shared.in_flight += 1
        try:
            if shared.in_flight > shared.settings.in_flight:
                busy = Problem("busy", "too many requests are under way")
                await reply_to(busy, shared, exchange).send(send_more)
            else:
                await self.find(scope["method"], exchange.raw_path)(scope, receive, send_more)
        except Exception as error:
            if status:
                shared.log.fault(error, exchange.request_id)
                raise
            await reply_to(error, shared, exchange).send(send_more)
        finally:
            shared.in_flight -= 1
            seconds = time.perf_counter() - began
            shared.metrics.request(exchange.operation, status, seconds)
            shared.log.write(
                "request",
                request_id=exchange.request_id,
                method=scope["method"] if len(scope["method"]) < 10 else "?",
                route=exchange.operation,
                status=status,
                ms=round(seconds * 1e3, 3),
                key=exchange.caller.name if exchange.caller else None,
                **exchange.notes,
            )


def admit(shared: Shared, exchange: Exchange, access: str) -> None:
    """Raise Problem unless the request may use a route with that access."""
    hosts = shared.settings.hosts
    headers = exchange.headers
    if hosts is not None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in hosts:
            raise Problem("wrong-host", f"this server answers to {', '.join(hosts)}")
    if access == "open":
        return
    keys = shared.keys
    if access == "admin" and not keys.has_admin:
        raise Problem("admin-off", "no admin key was made for this server; see macrorec keys make")
    if not keys.required:
        shared.rates.take("", None, exchange.arrived)
        return
    shown = headers.get(b"x-api-key")
    if shown is None:  # Prometheus and other programs can send this one only
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        shown = token.strip() if scheme.lower() == b"bearer" else b""
    caller = keys.find(shown)
    if caller is None:
        detail = "the key in X-API-Key is not one of this server's" if shown else "send a key in the header X-API-Key"
        raise Problem("no-key", detail, headers=((b"www-authenticate", b"Bearer"),))
    exchange.caller = caller
    if access == "admin" and caller.role != "admin":
        raise Problem("forbidden", "this route takes an admin's key")
    shared.rates.take(caller.name, caller.rate, exchange.arrived)


def reply_to(error: Exception, shared: Shared, exchange: Exchange) -> Reply:
    """What a client reads of an error; a fault of ours goes to the log, and its cause nowhere else."""
    problem = problem_of(error)
    if problem.kind == "fault":
        shared.log.fault(error, exchange.request_id)
    exchange.notes["problem"] = problem.kind
    return Reply(problem.body(exchange.request_id), problem.status, MEDIA_TYPE, tuple(problem.all_headers()))


def problem_of(error: Exception) -> Problem:
    """The problem that an error of the service, or anything else, is to a client."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, LogFull):
        return Problem("log-full", "events cannot be stored until there is room; nothing of this request was stored")
    if isinstance(error, LogUnavailable | LogDamaged | LogCompacted):
        return Problem("log-unavailable", "events cannot be stored at the moment")
    if isinstance(error, UnknownItem):
        return Problem("unknown-item", str(error))
    if isinstance(error, NotReady):
        return Problem("not-ready", str(error))
    if isinstance(error, EventError):
        return Problem("invalid", error.reason, index=error.index, field=error.field)
    if isinstance(error, ResourceError):
        return Problem("log-full", str(error))
    if isinstance(error, UserError):
        return Problem("invalid", str(error))
    return Problem("fault", "the server has made a mistake; its log says more under this request_id")


async def framework_problem(request: Request, error: Exception) -> Response:
    """An error that the framework found, such as an unknown path, as a problem."""
    assert isinstance(error, HTTPException)
    kinds = {404: "not-found", 405: "no-method", 413: "too-large"}
    kind = kinds.get(error.status_code, "bad-request" if error.status_code < 500 else "fault")
    detail = {"not-found": "see /openapi.json for the routes", "no-method": "see the header Allow"}
    allow = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow")
    exchange: Exchange = request.scope["exchange"]
    problem = Problem(kind, detail.get(kind, str(error.detail)))
    exchange.notes["problem"] = kind
    headers = {"allow": allow} if allow else {}
    return Response(problem.body(exchange.request_id), problem.status, headers, MEDIA_TYPE.decode())
