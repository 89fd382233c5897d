"""Which options do the verbs share, and how is a verb with sub-commands made?"""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object, and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, or cuda:N.")]


def group(text: str) -> typer.Typer:
    """A verb with sub-commands, described by ``text``; add each with ``@app.command("name")``."""
    return typer.Typer(help=text, add_completion=False, no_args_is_help=True, rich_markup_mode=None)
