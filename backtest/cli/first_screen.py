"""The first screen of ``backtest``, and its version, without importing a command.

What a desk uses every day comes first, then the other commands by subject: 40 lines of 80 columns.
It is drawn here alone; the libraries that draw the help of commands take five times as long to
import as all the rest.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

DAILY = "Every day"


class Row(NamedTuple):
    """A command on the first screen: the module that has it, what it does, and its subject."""

    module: str
    text: str
    subject: str = DAILY


SEARCH = "Searches and tests"
RISK = "Risk and size"
MARGIN = "Venues and margin"
LIVE = "Live accounts"
PROGRAM = "Program"
COMMANDS = {
    "judge": Row("judgements", "one verdict: better than constant leverage, timed, safe?"),
    "run": Row("runs", "an account through a market under a policy"),
    "tune": Row("searches", "search for good parameters, and measure the selection bias"),
    "compare": Row("runs", "policies on the same market, and which differences are noise"),
    "risk": Row("risks", "the probability that the account is lost, the largest leverage"),
    "decide": Row("runs", "what a policy decides now, and the order that it leads to"),
    "data": Row("data", "fetch, import and inspect market data"),
    "report": Row("results", "a page of a saved result that works offline"),
    "regress": Row("regress", "record results, and check that they have not changed"),
    "sweep": Row("searches", "many parameter sets", SEARCH),
    "validate": Row("searches", "walk-forward, cross-validation", SEARCH),
    "timing": Row("searches", "was the timing skill", SEARCH),
    "sensitivity": Row("risks", "one assumption at a time", SEARCH),
    "policies": Row("policies", "a list", SEARCH),
    "check": Row("policies", "does a policy look ahead", SEARCH),
    "stress": Row("risks", "shocks and crashes", RISK),
    "bands": Row("risks", "resampled markets", RISK),
    "bounds": Row("risks", "prices inside a bar", RISK),
    "capacity": Row("risks", "growth by capital", RISK),
    "cascade": Row("risks", "a crowd of liquidations", RISK),
    "paths": Row("risks", "possible continuations", RISK),
    "venues": Row("venues", "presets and sources", MARGIN),
    "liq": Row("venues", "liquidation price of a position", MARGIN),
    "margin": Row("risks", "margin rules compared", MARGIN),
    "options": Row("data", "chains and surfaces", MARGIN),
    "shadow": Row("shadows", "an account beside its policy", LIVE),
    "replay": Row("runs", "an account on its real fills", LIVE),
    "results": Row("results", "what is saved, outcomes of forecasts", PROGRAM),
    "compile": Row("compiling", "the engine, once", PROGRAM),
    "schema": Row("schema", "of experiments", PROGRAM),
    "help": Row("app", "keys of experiments", PROGRAM),
}
"""The commands in the order of the first screen."""
TEXT = """Backtest leverage policies: fees, funding, margin and liquidation at every bar.

\b
[bold]Examples[/bold]
backtest run --policy cppi --set multiplier=4 --data btc/
backtest judge vol-target --data btc/ --data eth/"""
END = "COMMAND --help has its flags. --version, --install-completion, --show-completion"
USUAL_WIDTH = 80
"""Columns where there is no terminal, and the most that are used."""
LEAST_WIDTH = 20
BOLD = "1"
CYAN = "1;36"
"""Styles of terminals, by their numbers."""

Painter = Callable[[str, str], str]
"""Takes a style and a text, and returns what is written to show it."""


def is_drawn_here(arguments: list[str]) -> bool:
    """Return whether arguments ask for the version, or the first screen."""
    return arguments in ([], ["-h"], ["--help"], ["--version"])


def show(arguments: list[str]) -> None:
    """Print the first screen, or the version."""
    text = format_version() if arguments == ["--version"] else write_screen()
    sys.stdout.write(f"{text}\n")


def write_screen() -> str:
    """Return the first screen as this process shows it."""
    draw = paint if is_output_colored() else leave_plain
    return "\n".join(list_lines(find_width(), draw))


def is_output_colored() -> bool:
    """Return whether the output is a terminal with colors; NO_COLOR and FORCE_COLOR overrule."""
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("NO_COLOR"):
        return False
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def format_version() -> str:
    from backtest.core.code_versions import find_version  # noqa: PLC0415 - the screen needs none

    return f"backtest {find_version('leverage-backtest')}"


def find_width() -> int:
    """Return the columns that are used: of the terminal, of 20 to 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return min(max(int(columns), LEAST_WIDTH), USUAL_WIDTH)

    # Standard input or errors may be a terminal where the output is none.
    for descriptor in range(3):
        try:
            width = os.get_terminal_size(descriptor).columns or USUAL_WIDTH
            return min(max(width, LEAST_WIDTH), USUAL_WIDTH)
        except OSError:
            continue
    return USUAL_WIDTH


def paint(style: str, text: str) -> str:
    """Return text in a style of terminals, by its numbers."""
    return f"\x1b[{style}m{text}\x1b[0m"


def leave_plain(style: str, text: str) -> str:  # noqa: ARG001 - as paint
    return text


def list_lines(width: int, draw: Painter) -> Iterator[str]:
    """Yield the lines of the first screen."""
    sentence, _, examples = TEXT.partition("\n\n\b\n")
    yield f"{draw(BOLD, 'Usage:')} backtest COMMAND [OPTIONS]"
    yield ""
    yield from wrap(sentence, width)
    for example in examples.splitlines()[1:]:
        yield from wrap(f"  {example}", width)

    yield ""
    yield draw(BOLD, DAILY)
    yield from list_daily(width, draw)

    for subject in dict.fromkeys(row.subject for row in COMMANDS.values()):
        if subject == DAILY:
            continue
        texts = {name: row.text for name, row in COMMANDS.items() if row.subject == subject}
        yield ""
        yield draw(BOLD, subject)
        yield from list_subject(texts, width, draw)

    yield ""
    yield from wrap(END, width)


def list_daily(width: int, draw: Painter) -> Iterator[str]:
    """Yield the lines of what is used every day, a command each, with its text beside it."""
    daily = {name: row.text for name, row in COMMANDS.items() if row.subject == DAILY}
    name_width = max(map(len, daily))
    for name, text in daily.items():
        first, *more = wrap(text, width - name_width - 4)
        yield f"  {draw(CYAN, name.ljust(name_width))}  {first}"
        for line in more:
            yield f"{' ' * (name_width + 4)}{line}"


def list_subject(texts: dict[str, str], width: int, draw: Painter) -> Iterator[str]:
    """Yield the lines of the commands of a subject, each with what it does in parentheses."""
    last = next(reversed(texts))
    line = " "
    length = 1  # without the marks of colors
    for name, text in texts.items():
        about = f"({text}),"
        if name == last:
            about = f"({text})"
        added = 2 + len(name) + len(about)
        if length > 1 and length + added > width:
            yield line
            line = " "
            length = 1

        line = f"{line} {draw(CYAN, name)} {about}"
        length += added
    yield line


def wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, subsequent_indent="  ")
