"""Every command and flag, from the parser of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from docs.ext.markdown import write_table, write_toc

EXAMPLES = "[bold]Examples[/bold]"


def list_pages() -> dict[str, str]:
    """Return a page for each group of commands, and the page that lists the groups."""
    import typer

    from backtest.cli.app import MODULES, RARE, app

    tree: Any = typer.main.get_command(app)
    top = [tree.get_command(None, name) for name in MODULES]
    groups = {
        "Main": [command for command in top if command.name not in RARE],
        "More": [command for command in top if command.name in RARE],
    }
    pages = {f"commands/{name_page(p)}": write_group(p, found) for p, found in groups.items()}
    rows = [
        [
            panel,
            " ".join(
                f"[`{c.name}`](generated/commands/{name_page(panel)}.md#backtest-{c.name})"
                for c in found
            ),
        ]
        for panel, found in groups.items()
    ]
    pages["parts/commands"] = write_table(["group", "commands"], rows) + "\n" + write_toc(pages)
    return pages


def name_page(panel: str) -> str:
    """Return the name of the page of a group."""
    return panel.lower().replace(" ", "-")


def write_group(panel: str, commands: list[Any]) -> str:
    """Return the page of a group of commands."""
    parts = [part for command in commands for part in write_command(command, "backtest", 2)]
    return f"# {panel} commands\n\n" + "\n".join(parts)


def write_command(command: Any, parent: str, level: int) -> Iterator[str]:
    """Yield the sections of a command and of its own commands."""
    name = f"{parent} {command.name}"
    about, _, examples = (command.help or "").partition(EXAMPLES)
    yield f"{'#' * level} {name}\n\n{clean(about)}\n"
    if examples.strip():
        yield f"```console\n{clean(examples)}\n```\n"
    shown = [each for each in command.params if not each.hidden]
    for panel, flags in groupby(
        shown, key=lambda each: each.rich_help_panel or "Arguments and options"
    ):
        yield f"**{panel}**\n\n" + write_table(["flag", "meaning"], map(list_flag, flags))
    for each in getattr(command, "commands", {}).values():
        yield from write_command(each, name, level + 1)


def list_flag(flag: Any) -> tuple[str, str]:
    """Return a row: the names of a flag, and its help."""
    names = ", ".join(f"`{each}`" for each in [*flag.opts, *flag.secondary_opts])
    return names, clean(flag.help or "")


def clean(text: str) -> str:
    """Return a help text without the marks of its colors."""
    return re.sub(r"\[/?(?:bold|dim)\]", "", text).replace("\b", "").strip()
