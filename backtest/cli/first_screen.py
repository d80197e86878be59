"""The first screen of ``backtest``, and its version, without importing a command.

Where no colors are wanted, it is written here, without the libraries that draw it on a terminal:
they take three times as long to import as all the rest. A test holds both to the same bytes.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """A command on the first screen: the module that has it, its first sentence, its panel."""

    module: str
    sentence: str
    panel: str | None = None


COMMANDS = {
    "run": Row("runs", "Run an account through a market under a policy, and summarize the result."),
    "compare": Row(
        "runs",
        "Compare policies on the same market and terms, and test which differences are beyond "
        "noise.",
    ),
    "tune": Row(
        "searches", "Search for good parameters, and estimate the selection bias of the result."
    ),
    "sweep": Row("searches", "Run many sets of parameters on one market, and rank them."),
    "validate": Row("searches", "Test a way of choosing parameters on the data after each choice."),
    "risk": Row(
        "risks",
        "Estimate the probability that the account is liquidated after the end of the data.",
    ),
    "stress": Row(
        "risks",
        "Run an experiment, and show what shocks after the last close would do to its account.",
    ),
    "bounds": Row(
        "risks", "Run an account under both ways of prices inside a bar, and show where they part."
    ),
    "check": Row("policies", "Run the policy checks: above all, that it does not look ahead."),
    "data": Row(
        "data",
        "Fetch, import and inspect market data, in the layout that commands read with --data.",
    ),
    "venues": Row(
        "venues",
        "List the venue presets, with the days of their margin tables and their sources, or show "
        "one.",
    ),
    "liq": Row(
        "venues", "Calculate the margins, liquidation price and bankruptcy price of a position."
    ),
    "options": Row("data", "Inspect chains of quotes of options, and fit surfaces to them."),
    "decide": Row(
        "runs", "Show what a policy decides at the last close, and the order that it leads to."
    ),
    "report": Row(
        "results",
        "Write a report: one file that works offline, with charts, tables and assumptions.",
    ),
    "results": Row("results", "List, show, verify and prune saved results."),
    "regress": Row(
        "regress", "Record the results of experiments, and check that they have not changed."
    ),
    "capacity": Row(
        "risks",
        "Show growth and Sharpe ratio by capital, and the capital at which each is halved.",
        panel="More",
    ),
    "sensitivity": Row(
        "risks",
        "Show how growth changes with one assumption, or one parameter, at a time.",
        panel="More",
    ),
    "timing": Row(
        "searches",
        "Test whether the timing of the leverage earned the result, by shifts of it in time.",
        panel="More",
    ),
    "cascade": Row(
        "risks",
        "Shock a crowd of leveraged accounts at the end of a market, and follow the liquidations.",
        panel="More",
    ),
    "margin": Row(
        "risks",
        "Compare what margin rules tie up, cover and leave, or find the least parameter of one.",
        panel="More",
    ),
    "paths": Row(
        "risks",
        "Simulate possible continuations of the data, and show how far they spread.",
        panel="More",
    ),
    "replay": Row(
        "runs",
        "Simulate an account on fills that were really made, and summarize the result.",
        panel="More",
    ),
    "policies": Row(
        "policies",
        "List the policies: name, one line, and parameters with default, range and unit.",
        panel="More",
    ),
    "compile": Row(
        "compiling",
        "Compile the core for this processor, so that no run waits for the compiler.",
        panel="More",
    ),
    "schema": Row(
        "schema",
        "Print the JSON schema of an experiment's TOML, by which editors complete and check it.",
        panel="More",
    ),
    "help": Row(
        "app",
        "List the tables of an experiment, or every key of one, for --set TABLE.KEY=VALUE.",
        panel="More",
    ),
}
"""The commands in the order of the first screen."""
TEXT = """Backtest leverage policies: fees, funding, margin and liquidation at every bar.

\b
[bold]Examples[/bold]
backtest run --policy cppi --set multiplier=4 --data btc/
backtest tune examples/btc-vol-target.toml --constraints 'max_drawdown<=0.4'"""
OPTIONS = {
    "--version                     <bool>": "Print the version.",
    "--install-completion          <bool>": "Install completion for the current shell.",
    "--show-completion             <bool>": "Show completion for the current shell, to copy it or "
    "customize the installation.",
    "--help                -h      <bool>": "Show this message and exit.",
}
"""The options of ``backtest`` itself, in the columns of their names, short names and types."""
DRAWN_BY_RICH = (
    *("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TERMINAL_WIDTH"),
    *("JUPYTER_COLUMNS", "JUPYTER_LINES"),
)
"""Variables of the environment by which the library chooses colors or a width."""
USUAL_WIDTH = 80
"""Columns where there is no terminal; on fewer, the library shortens the names of options."""


def is_simple(arguments: list[str]) -> bool:
    """Return whether arguments ask for the first screen or the version, of a stream in UTF-8."""
    encoding = str(getattr(sys.stdout, "encoding", None))
    return encoding.lower().startswith("utf") and arguments in (
        [], ["-h"], ["--help"], ["--version"]
    )  # fmt: skip


def is_drawn_here(arguments: list[str]) -> bool:
    """Return whether the output has no colors, and the columns that the screen needs."""
    return arguments == ["--version"] or (is_plain() and find_width() >= USUAL_WIDTH)


def show(arguments: list[str]) -> None:
    """Print the first screen, or the version; a command is its first sentence."""
    is_version = arguments == ["--version"]
    lines = [format_version()] if is_version else list_lines(find_width())
    sys.stdout.write("\n".join(lines) + "\n")


def format_version() -> str:
    from backtest.core.code_names import find_version  # noqa: PLC0415 - the screen needs none

    return f"backtest {find_version('leverage-backtest')}"


def is_plain() -> bool:
    """Return whether the output is a file or a pipe, and nothing asks for colors in it."""
    is_asked = any(name in os.environ for name in DRAWN_BY_RICH)
    return not (sys.stdout.isatty() or is_asked or sys.platform == "win32")


def find_width() -> int:
    """Return the columns of the terminal of this process, as the library finds them."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)

    # standard input or errors may be a terminal where the output is none
    for descriptor in range(3):
        try:
            return os.get_terminal_size(descriptor).columns or USUAL_WIDTH
        except OSError:
            continue
    return USUAL_WIDTH


def list_lines(width: int) -> list[str]:
    sentence, _, examples = TEXT.partition("\n\n\b\n")
    inside = width - 2
    texts = [
        "",
        "Usage: backtest [OPTIONS] COMMAND [ARGS]...",
        "",
        *textwrap.wrap(sentence, inside, break_on_hyphens=False),
        "",
        "",
        *(
            line
            for example in examples.replace("[bold]", "").replace("[/bold]", "").splitlines()
            for line in textwrap.wrap(example, inside, break_on_hyphens=False)
        ),
        "",
    ]
    lines = [f" {text}".ljust(width) for text in texts]

    # boxes: the options, then the commands of each panel
    lines += draw_box("Options", OPTIONS, width)
    for panel in dict.fromkeys(row.panel for row in COMMANDS.values()):
        named = {
            name.ljust(NAME_WIDTH): row.sentence
            for name, row in COMMANDS.items()
            if row.panel == panel
        }
        lines += draw_box(panel or "Commands", named, width)
    return [*lines, ""]


NAME_WIDTH = max(map(len, COMMANDS))


def draw_box(title: str, rows: Mapping[str, str], width: int) -> Iterator[str]:
    yield f"╭─ {title} ".ljust(width - 1, "─") + "╮"
    for head, sentence in rows.items():
        room = width - len(head) - 6
        for number, text in enumerate(textwrap.wrap(sentence, room, break_on_hyphens=False)):
            shown = head if number == 0 else " " * len(head)
            yield f"│ {shown}  {text.ljust(room)} │"
    yield "╰".ljust(width - 1, "─") + "╯"
