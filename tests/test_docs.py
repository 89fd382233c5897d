"""What the documents show works: commands parse, configurations are legal, the Python lines run."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from macrorec import configs
from macrorec.cli import VERBS, load
from macrorec.run import RunConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, over all pages."""
    found = [re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL) for page in PAGES]
    return [block for page in found for block in page]


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("macrorec ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_one_that_the_program_takes(line: str) -> None:
    verb, *words = shlex.split(line, comments=True)[1:]
    command = load(verb)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    with command.make_context(verb, words):
        pass


def test_the_readme_names_every_verb() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("##")[0]
    named = {word for line in table.splitlines() for word in re.findall(r"`(?:macrorec )?([a-z]+)[ `]", line)}
    assert set(VERBS) <= named


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_configuration_is_legal(block: str) -> None:
    config = configs.parse(RunConfig, tomllib.loads(block))
    assert configs.parse(RunConfig, configs.plain(config)) == config


@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_lines_run(block: str, tmp_path: Path) -> None:
    rows = [f"{user},item{number}" for user in ("ann", "bob", "cat", "dan") for number in range(5)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user_id,item_id", *rows, "ann,item5", "cat,item6"]) + "\n")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
