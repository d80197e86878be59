"""Every command and flag, from the parser of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from docs.ext.markdown import write_table

EXAMPLES = "[bold]Examples[/bold]"


def list_pages() -> dict[str, str]:
    import typer

    from backtest.cli.app import app
    from backtest.cli.first_screen import COMMANDS

    tree: Any = typer.main.get_command(app)
    found = [tree.get_command(None, name) for name in COMMANDS]
    text = "\n".join(part for command in found for part in write_command(command, "backtest", 2))
    links = " ".join(f"[`{c.name}`](#backtest-{c.name})" for c in found)
    return {"commands": f"# Commands\n\n{links}\n\n{text}"}


def write_command(command: Any, parent: str, level: int) -> Iterator[str]:
    name = f"{parent} {command.name}"
    about, _, examples = (command.help or "").partition(EXAMPLES)

    yield f"{'#' * level} {name}\n\n{clean(about)}\n"
    if examples.strip():
        yield f"```console\n{clean(examples)}\n```\n"

    shown = [flag for flag in command.params if not flag.hidden]
    for panel, flags in groupby(shown, key=name_panel):
        rows = []
        for flag in flags:
            spellings = ", ".join(f"`{word}`" for word in [*flag.opts, *flag.secondary_opts])
            rows.append([spellings, clean(flag.help or "")])
        yield f"**{panel}**\n\n{write_table(['flag', 'meaning'], rows)}"

    for child in getattr(command, "commands", {}).values():
        yield from write_command(child, name, level + 1)


def name_panel(flag: Any) -> str:
    """Return the panel of the help in which a flag or an argument stands."""
    return flag.rich_help_panel or "Arguments and options"


def clean(text: str) -> str:
    return re.sub(r"\[/?(?:bold|dim)\]", "", text).replace("\b", "").strip()
