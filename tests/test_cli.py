"""Whatever is typed: one line for a mistake, the documented exit code, and nothing heavy before a verb is known."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from macrorec import cli
from macrorec.cli.output import answer, plain, table
from macrorec.errors import ConfigError, DataError, ResourceError, UserError


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``macrorec arguments``."""
    code = cli.status(arguments)
    return code, *capsys.readouterr()


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], None]:
    """Put a verb ``fail`` in place of all others, which raises what it is given."""

    def install(error: BaseException | None) -> None:
        def fail() -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(cli, "load", lambda name: typer.main.get_command(_app(fail)))

    return install


def _app(function: Callable[[], None]) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(function)
    return app


# --- help ---


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "--help")
    assert (code, err) == (0, "")
    for verb, (_, text) in cli.VERBS.items():
        assert f"  {verb} " in out and text in out
    assert outcome(capsys, "-h")[1] == out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from macrorec import __version__

    assert outcome(capsys, "--version") == (0, f"macrorec {__version__}\n", "")


def commands() -> list[list[str]]:
    """Every verb and sub-command."""
    found = []
    for verb in cli.VERBS:
        command = cli.load(verb)
        found += [[verb, name] for name in command.commands] if hasattr(command, "commands") else [[verb]]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_an_example_and_json(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(capsys, *command, "--help")
    assert code == 0
    assert f"Example: macrorec {' '.join(command)}" in out
    assert "--json" in out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from macrorec.cli import status; status(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "polars", "numpy", "numba", "scipy", "pydantic", "rich"}


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "error: No such command 'rum'. Did you mean 'run'? (see 'macrorec --help')\n"),
        (["--wat"], "error: No such option: --wat (see 'macrorec --help')\n"),
        (["data", "impotr"], "error: No such command 'impotr'. Did you mean 'import'? (see 'macrorec data --help')\n"),
        (["data", "describe"], "error: Missing argument 'FILE' (see 'macrorec data describe --help')\n"),
        (["data", "describe", "x", "--zzz"], "error: No such option: --zzz (see 'macrorec data describe --help')\n"),
        (["data", "check", "x", "--seed", "-1"], "error: Invalid value for '--seed': "),
    ],
)
def test_wrong_flags_and_verbs(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, *arguments)
    assert (code, out) == (2, "") and err.startswith(message) and err.count("\n") == 1


def test_nothing_typed_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys)
    assert (code, out) == (2, "") and "Commands:" in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a\n b"), 1, "a b"),
        (ConfigError("what, where"), 2, "what, where"),
        (DataError("what, where"), 3, "what, where"),
        (ResourceError("what, where"), 4, "what, where"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (MemoryError(), 4, "out of memory; use a smaller data set, model or block"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 4, "a/b: the disk is full; free some space"),
        (OSError(errno.EACCES, "Permission denied", "a"), 4, "a: permission denied; choose a place that you may use"),
        (OSError(errno.EROFS, "Read-only file system"), 4, "the file system is read-only; choose another place"),
        (
            ModuleNotFoundError("No module named 'optuna'", name="optuna"),
            2,
            "this needs the package 'optuna', which is not installed; pip install 'macrorec[tune]'",
        ),
    ],
)
def test_errors_become_one_line(
    error: BaseException,
    code: int,
    line: str,
    verb: Callable[[BaseException | None], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(error)
    assert outcome(capsys, "run") == (code, "", f"error: {line}\n")


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError(errno.EIO, "odd"), ModuleNotFoundError("x", name="x")])
def test_our_own_faults_keep_their_traceback(error: Exception, verb: Callable[[BaseException | None], None]) -> None:
    verb(error)
    with pytest.raises(type(error)):
        cli.status(["run"])


def test_exit_codes_of_commands(
    verb: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(None)
    assert outcome(capsys, "run") == (0, "", "")
    verb(typer.Exit(1))
    assert outcome(capsys, "run") == (1, "", "")
    with pytest.raises(SystemExit) as caught:
        cli.main(["run"])
    assert caught.value.code == 1


def test_a_verb_whose_module_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(cli.VERBS, "fly", ("wings:fly", "Fly"))
    assert "  fly " in outcome(capsys, "--help")[1]
    line = "error: 'macrorec fly' is not part of this installation; see 'macrorec --help'\n"
    assert outcome(capsys, "fly", "--high", "3") == (2, "", line)


def test_a_reader_that_goes_away() -> None:
    command = f"{sys.executable} -m macrorec metrics --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout in ("0\n", "141\n") and done.stderr == ""
    read, write = os.pipe()
    os.close(read)
    gone = subprocess.run([sys.executable, "-m", "macrorec", "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (gone.returncode, gone.stderr) == (141, "")


# --- answers ---


def test_an_answer_is_one_json_object_or_lines(capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {"a": (1, 2.5), "nan": float("nan"), "é": None, "path": os.sep}
    answer(result, True, ["line"])
    assert json.loads(capsys.readouterr().out) == {"a": [1, 2.5], "nan": None, "é": None, "path": os.sep}
    answer(result, False, ["one", "two"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_plain_values_of_numpy() -> None:
    import numpy as np

    values = {
        "a": np.float32(0.5),
        "b": np.array([1, 2]),
        "c": np.int64(3),
        "d": np.float64("inf"),
        "e": np.bool_(True),
    }
    assert plain(values) == {"a": 0.5, "b": [1, 2], "c": 3, "d": None, "e": True}


def test_a_table_puts_numbers_right() -> None:
    assert table([("name", "rows"), ("view", 12345), ("b", 7)]) == ["name    rows", "view  12,345", "b          7"]
