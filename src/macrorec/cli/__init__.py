"""How does a line typed at a terminal reach the code that answers it?

``VERBS`` lists every verb with the place of its code and one line of help, so that ``macrorec --help`` imports nothing
heavy; a verb's module is imported when the verb is called. To write one, export from ``macrorec.cli.<module>`` either a
function (one command) or a ``typer.Typer`` made by ``macrorec.cli.options.group`` (a verb with sub-commands)::

    from macrorec.cli.options import Json, group
    from macrorec.cli.output import answer

    def evaluate(run: str, json: Json = False) -> None:
        '''Evaluate a finished run again.

        Example: macrorec evaluate runs/ease-ml-100k-u1-0-1a2b3c4d
        '''
        from macrorec.eval.evaluate import evaluate     # heavy imports stand inside the function
        ...
        answer(result, json, lines=["recall@20  0.1849"])

A command returns nothing and prints its answer once through ``answer`` (with ``--json``: exactly one JSON object on
standard output); everything else (progress, notes, warnings) goes to standard error. It raises ``UserError`` for a
mistake of the user's; ``main`` prints that as one line and exits with its code. Anything else keeps its traceback.

Exit codes: 0 done; 1, 2, 3, 4 as in ``macrorec.errors`` (2 also for a wrong flag or verb, 4 also for a full or
read-only disk); 130 Ctrl-C; 141 the reader of our output went away; 143 SIGTERM.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from macrorec.cli import sigterm
from macrorec.errors import ConfigError, ResourceError, UserError

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("recommend:demo", "See everything work on a small synthetic market"),
    "data": ("data:app", "Import, describe, check, convert, group, or make a behaviour log"),
    "fit": ("fit:fit", "Fit a model to one's own log, save a bundle, and recommend"),
    "run": ("run:run", "Fit and evaluate a recipe or a TOML file"),
    "evaluate": ("run:evaluate", "Evaluate a finished run again"),
    "tune": ("run:tune", "Search a model's settings on the validation part"),
    "compare": ("compare:compare", "Compare two runs, or groups of runs, with bootstrap intervals"),
    "sweep": ("results:sweep", "Run a recipe over values of one setting and several seeds"),
    "coldstart": ("coldstart:coldstart", "Rank for users held out of train, from a few of their items"),
    "reproduce": ("results:reproduce", "Run recipes with several seeds, and put the results on file"),
    "results": ("results:results", "Make docs/results.md from the results on file"),
    "export": ("run:export", "Turn a run into a bundle that answers requests"),
    "recommend": ("recommend:recommend", "Recommend items to users, by their own ids"),
    "explain": ("explain:explain", "Say what carried a score, or what a user's items are known by"),
    "weights": ("explain:weights", "Tell how a model weighs the edges of each behaviour"),
    "clusters": ("clusters:clusters", "Show the clusters that a model has found, and who prefers them"),
    "serve": ("serve:serve", "Answer requests over HTTP, and count every event at once"),
    "bench": ("bench:bench", "Measure how fast a bundle answers on this machine"),
    "ingest": ("ingest:ingest", "Add the events of a file to a service, each once"),
    "log": ("ingest:log", "Check or repair the event log of a service"),
    "keys": ("serve:keys", "Make, list, and remove the keys of the server's clients"),
    "models": ("about:models", "List the models and their settings"),
    "recipes": ("about:recipes", "List the recipes: models on data sets, with their settings"),
    "metrics": ("about:metrics", "List the metrics and their definitions"),
    "doctor": ("about:doctor", "Check this installation and machine"),
}
"""Verb -> (module inside this package ":" name of a function or Typer, one line of help)."""

EXTRAS = {
    "optuna": "tune",
    "matplotlib": "report",
    "tensorboard": "track",
    **dict.fromkeys(("fastapi", "uvicorn", "uvloop", "httptools", "msgspec", "prometheus_client", "faiss"), "serve"),
}
"""Optional package -> the extra that installs it."""

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EACCES: "permission denied; choose a place that you may use",
    errno.EPERM: "permission denied; choose a place that you may use",
    errno.EROFS: "the file system is read-only; choose another place",
}


INTERRUPTED = 130


class Verbs(TyperGroup):
    """The group of ``VERBS``: lists them without importing them."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = dict.fromkeys(VERBS, cast(Any, None))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


def load(verb: str) -> Any:
    """The command behind ``verb``; where its module is not there, a command that says so."""
    place, text = VERBS[verb]
    module_name, _, attribute = place.partition(":")
    full_name = f"{__name__}.{module_name}"
    try:
        target = getattr(importlib.import_module(full_name), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        if getattr(error, "name", None) not in (full_name, attribute):
            raise
        target = _absent
    if isinstance(target, typer.Typer):
        app = target
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        settings = {"ignore_unknown_options": True, "allow_extra_args": True} if target is _absent else None
        app.command(name=verb, help=text if target is _absent else None, context_settings=settings)(target)
    command = typer.main.get_command(app)
    command.name = verb
    return command


def _absent(ctx: typer.Context) -> None:
    raise ConfigError(f"'macrorec {ctx.info_name}' is not part of this installation; see 'macrorec --help'")


def _show_version(wanted: bool) -> None:
    if wanted:
        from macrorec import __version__

        typer.echo(f"macrorec {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    help="From a raw behaviour log to recommendations.",
    epilog="Try 'macrorec demo', or 'macrorec COMMAND --help' for a command's options and an example.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb; the text of the help is the app's."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; ``arguments`` default to those of the process."""
    # Threads that wait should sleep: on a machine with other work, spinning makes training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # about .1 ms: small models have 100 operations in 6 ms
    sigterm.listen()
    code = status(sys.argv[1:] if arguments is None else arguments)
    if code == INTERRUPTED and sigterm.received.is_set():
        code = sigterm.EXIT_CODE
    if code in (INTERRUPTED, sigterm.EXIT_CODE):  # threads of polars may still panic aloud over the interruption
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(code)


def status(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code. Mistakes of the user's become one line on standard error."""
    stdout = sys.stdout
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="macrorec", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as error:
        if sys.stdout is not stdout:  # typer replaces it when the pipe is closed
            return _pipe_closed()
        code = error.code
    except typer.TyperException as error:
        return _wrong_usage(error)
    except typer.Abort:
        code = INTERRUPTED
    except UserError as error:
        return _complain(str(error), error.exit_code)
    except MemoryError:
        return _complain("out of memory; use a smaller data set, model or block", ResourceError.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        hint = f"pip install 'macrorec[{EXTRAS[error.name]}]'"
        return _complain(
            f"this needs the package {error.name!r}, which is not installed; {hint}", ConfigError.exit_code
        )
    except BrokenPipeError:
        return _pipe_closed()
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _complain(where + DISK_ERRORS[error.errno], ResourceError.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        return _complain("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _wrong_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return ConfigError.exit_code
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    return _complain(message.rstrip(".") + hint, ConfigError.exit_code)


def _complain(message: str, code: int) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _pipe_closed() -> int:
    """Nobody reads on, as in ``macrorec ... | head``: leave without a word, and keep the exit from flushing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141
