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
    shown = [each for each in command.params if not each.hidden]
    for panel, flags in groupby(
        shown, key=lambda each: each.rich_help_panel or "Arguments and options"
    ):
        rows = [
            (", ".join(f"`{name}`" for name in [*each.opts, *each.secondary_opts]),
             clean(each.help or ""))
            for each in flags
        ]  # fmt: skip
        yield f"**{panel}**\n\n" + write_table(["flag", "meaning"], rows)
    for each in getattr(command, "commands", {}).values():
        yield from write_command(each, name, level + 1)


def clean(text: str) -> str:
    return re.sub(r"\[/?(?:bold|dim)\]", "", text).replace("\b", "").strip()
