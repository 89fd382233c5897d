"""Which verbs run the live service? The server itself, and the keys that its clients show."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.options import Json, group
from macrorec.cli.output import answer, note, table
from macrorec.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from macrorec.serve.settings import Settings

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The file of keys; made if it is not there.")]


def serve(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle: macrorec export.")],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes any free one.")] = 8000,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Where the event log and snapshots are kept.")
    ] = Path("macrorec-data"),
    api_keys: Annotated[
        Path | None, typer.Option("--api-keys", metavar="FILE", help="Ask for keys: macrorec keys make FILE NAME.")
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Listen on a public address without keys: anybody reads and writes.")
    ] = False,
    durability: Annotated[
        str, typer.Option("--durability", help="When an event counts as stored: fsync, interval, or none.")
    ] = "fsync",
    interval_ms: Annotated[
        int, typer.Option("--interval-ms", min=1, help="With durability interval: between two writes to the disk.")
    ] = 100,
    bundles: Annotated[
        Path | None,
        typer.Option("--bundles", metavar="DIR", help="Bundles that reload may name; by default those beside BUNDLE."),
    ] = None,
    deadline_ms: Annotated[
        int, typer.Option("--deadline-ms", min=1, help="What a request may take until stages are left out.")
    ] = 100,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that answer requests.")] = 2,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests per second that each key may make; any number by default.")
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option("--drain", help="Seconds after SIGTERM in which requests are still taken, but not ready.")
    ] = 0.0,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="URL", envvar="MACROREC_STORE", help="Share the log in a server: redis://host:6379/0."
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that answer; with --store.")] = 1,
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="BROKERS", help="Take events from Kafka, too; with --topic.")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="Kafka's topic of events in JSON.")] = None,
    consumer_group: Annotated[str, typer.Option("--group", help="Kafka's group of consumers.")] = "macrorec",
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per request on standard error.")] = False,
    json: Json = False,
) -> None:
    """Answer requests over HTTP, and count every event at once.

    Ends on SIGTERM or Ctrl-C: ready says 503 first, requests in flight finish, events are on disk; exit code 0.

    Example: macrorec serve shop.bundle --port 8000 --data shop-data --api-keys keys.json
    """
    from macrorec.serve import auth
    from macrorec.serve.server import bind
    from macrorec.serve.settings import Settings, check_bind

    known = auth.Keys(api_keys)
    hosts = check_bind(host, has_keys=known.required, open_to_all=open_to_all)
    settings = Settings(
        deadline_ms=deadline_ms,
        threads=threads,
        rate=rate,
        drain_seconds=drain_seconds,
        bundles=(bundles or bundle.resolve().parent),
        hosts=hosts,
    )
    if durability not in ("fsync", "interval", "none"):
        raise ConfigError(f"--durability is {durability!r}; allowed are fsync, interval, none")
    if workers > 1 and store is None:
        raise ConfigError("several workers need a log that they share: --store redis://host:6379/0")
    if (kafka is None) != (topic is None):
        raise ConfigError("--kafka and --topic go together")
    bound = bind(host, port, shared=workers > 1 or parent is not None)
    with bound:
        address = f"[{host.strip('[]')}]" if ":" in host else host
        url = f"http://{address}:{bound.getsockname()[1]}"
        if workers > 1:
            os.environ["MACROREC_STORE"] = store or ""  # where no other user of the machine can read a password
            from macrorec.serve.workers import supervise

            def tell() -> None:
                _tell(
                    json, {"url": url, "workers": workers, "durability": durability, "keys": len(known)}, bundle, known
                )

            own = {"port": bound.getsockname()[1], "rate": None if rate is None else rate / workers}
            patience = settings.drain_seconds + settings.shutdown_seconds + 10
            supervise(_one_of_them(ctx, own), workers, tell, patience=patience)
        else:
            if parent is not None:
                from macrorec.serve.workers import follow

                follow(parent)
            _run(
                bundle,
                data,
                (store, durability, interval_ms),
                (kafka, topic, consumer_group),
                settings,
                known,
                bound,
                url,
                quiet,
                json,
            )


def _one_of_them(ctx: typer.Context, own: dict[str, Any]) -> list[str]:
    """The command of one worker: as this one, but for ``own``; the store's address is in the environment."""
    command = [sys.executable, "-m", "macrorec", "serve", str(ctx.params["bundle"])]
    for option in ctx.command.params:
        value = own.get(option.name or "", ctx.params.get(option.name or ""))
        if option.name in ("bundle", "store", "workers") or value in (None, False, option.default):
            continue
        command += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return command


def _run(
    bundle: Path,
    data: Path,
    kept: tuple[str | None, Any, int],
    consumed: tuple[str | None, str | None, str],
    settings: Settings,
    known: Any,
    bound: Any,
    url: str,
    quiet: bool,
    json: bool,
) -> None:
    """``kept``: store, durability, milliseconds between flushes; ``consumed``: Kafka's brokers, topic and group."""
    from contextlib import ExitStack, closing

    import torch

    from macrorec import files
    from macrorec.serve.http import create_app
    from macrorec.serve.request_log import RequestLog
    from macrorec.serve.server import serve as run
    from macrorec.serve.service import Service
    from macrorec.serve.ui import page

    torch.set_num_threads(1)  # requests run beside each other; threads inside each would only wait for one another
    with files.told(data):
        data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context(closing(_log(data, *kept)))
        service: Any = stack.enter_context(closing(Service(bundle, log, data / "snapshots")))
        if kept[0] is not None:
            from macrorec.serve.fleet import Together

            service = Together(service, log)
        if consumed[0] is not None and consumed[1] is not None:
            from macrorec.serve.kafka import Intake, connect

            intake = Intake(
                connect(consumed[0], consumed[1], consumed[2]), service.feedback, lambda raw: service.check([raw])[0]
            )
            stack.enter_context(closing(intake))
            intake.start()
        result = {"url": url, "version": service.model()["version"], "durability": kept[1], "keys": len(known)}
        app = create_app(
            service, settings, keys=known, log=RequestLog(None if quiet else sys.stderr), pages=page.ROUTES
        )
        run(app, bound, lambda: _tell(json, result, bundle, known))
        if getattr(log, "fatal", None) is not None:
            raise ResourceError(log.fatal)


def _log(data: Path, store: str | None, durability: Any, interval_ms: int) -> Any:
    if store is not None:
        from macrorec.serve.redis_log import RedisLog

        return RedisLog(store, durability, on_fatal=lambda: os.kill(os.getpid(), signal.SIGTERM))
    from macrorec.serve.sqlite_log import SqliteLog

    return SqliteLog(data / "log.sqlite", durability=durability, interval_ms=interval_ms)


def _tell(json: bool, result: dict[str, Any], bundle: Path, known: Any) -> None:
    what = f"version {result['version']}" if "version" in result else f"{result['workers']} workers"
    answer(result, json, [f"{bundle}, {what}, at {result['url']}; {result['durability']}; {_guarded(known)}"])
    sys.stdout.flush()


def _guarded(known: Any) -> str:
    if not known.required:
        return "no keys, no admin routes"
    return f"{len(known)} key{'s' * (len(known) != 1)}, admin routes {'on' if known.has_admin else 'off'}"


keys = group("The keys that clients of the live service show; the file holds their hashes alone.")


@keys.command("make")
def make(
    file: KeyFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will use it; not secret.")],
    admin: Annotated[bool, typer.Option("--admin", help="May load models, too.")] = False,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests per second that it may make.")] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, once: the file keeps a hash, from which it cannot be told again.

    Example: macrorec keys make keys.json shop
    """
    from macrorec.serve import auth

    key = auth.make(file, name, "admin" if admin else "client", rate)
    answer({"key": key, "name": name, "role": "admin" if admin else "client"}, json, [key])
    note(f"{name} is in {file}; a server that runs with it lets it in within seconds")


@keys.command("list")
def list_keys(file: KeyFile, json: Json = False) -> None:
    """List the keys in a file: names, roles, rates; nobody can list the keys themselves.

    Example: macrorec keys list keys.json
    """
    from datetime import UTC, datetime

    from macrorec.serve import auth

    rows = [
        {
            "name": key.name,
            "role": key.role,
            "rate": key.rate,
            "created": f"{datetime.fromtimestamp(key.created, UTC):%Y-%m-%d}",
        }
        for key in auth.load(file)
    ]
    head = ["name", "role", "rate", "created"]
    cells = [["any" if row[column] is None else row[column] for column in head] for row in rows]
    answer({"keys": rows}, json, table([head, *cells]))


@keys.command("remove")
def remove(
    file: KeyFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As macrorec keys list shows it.")],
    json: Json = False,
) -> None:
    """Take a key out of a file.

    Example: macrorec keys remove keys.json shop
    """
    from macrorec.serve import auth

    auth.remove(file, name)
    answer(
        {"removed": name},
        json,
        [f"{name} is not in {file} any more; a server that runs with it shuts it out within seconds"],
    )
