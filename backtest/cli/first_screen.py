"""The first screen of ``backtest``, and its version, without importing a command.

It is written here, with the colors of a terminal, without the libraries that draw the help of
commands: they take five times as long to import as all the rest. A test holds both to the same
bytes. What these libraries do otherwise, on few columns or by variables, is left to them.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """A command on the first screen: the module that has it, its first sentence, its panel."""

    module: str
    sentence: str
    panel: str | None = None


COMMANDS = {
    "judge": Row(
        "judgements",
        "Answer whether a policy is better than constant leverage, timed, safe, and what eats it.",
    ),
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
    "bands": Row(
        "risks",
        "Run an experiment, and show what its account could have done on resampled markets.",
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
    "shadow": Row(
        "shadows", "Compare a live account with what its policy would have done, and say why."
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
    *("JUPYTER_COLUMNS", "JUPYTER_LINES", "NO_COLOR"),
)
"""Variables of the environment by which the library chooses colors or a width."""
USUAL_WIDTH = 80
"""Columns where there is no terminal; on fewer, the library shortens the names of options."""


def is_drawn_here(arguments: list[str]) -> bool:
    """Return whether arguments ask for the version, or the screen as it is usually shown.

    It needs its columns, and no variable that chooses colors.
    """
    if arguments == ["--version"]:
        return True
    if arguments not in ([], ["-h"], ["--help"]):
        return False
    is_asked = any(name in os.environ for name in DRAWN_BY_RICH)
    is_odd = sys.stdout.isatty() and os.environ.get("TERM") in ("dumb", "unknown")
    return not (is_asked or is_odd or sys.platform == "win32") and find_width() >= USUAL_WIDTH


def show(arguments: list[str]) -> None:
    """Print the first screen, or the version; a command is its first sentence."""
    if arguments == ["--version"]:
        lines = [format_version()]
    else:
        lines = list_lines(find_width(), paint if sys.stdout.isatty() else leave_plain)
    sys.stdout.write("\n".join(lines) + "\n")


def format_version() -> str:
    from backtest.core.code_names import find_version  # noqa: PLC0415 - the screen needs none

    return f"backtest {find_version('leverage-backtest')}"


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


Painter = Callable[[str, str], str]
"""Takes a style and a text, and returns what is written to show it."""
BOLD, DIM, HEADING, CYAN, DIM_CYAN = "1", "2", "1;2", "1;36", "1;2;36"
GREEN, YELLOW, DIM_YELLOW = "1;32", "1;33", "1;2;33"
FLAG = re.compile(r"(?<!\w)(?:-(?P<first>-\w+)(?P<more>(?:-\w+)*)|(?P<short>-\w+)|<(?P<type>\w+)>)")
"""An option, ``--from-run``, a short one, or a type, ``<bool>``; each is painted in parts."""


def paint(style: str, text: str) -> str:
    """Return text in a style of terminals, by its numbers."""
    return f"\x1b[{style}m{text}\x1b[0m"


def leave_plain(style: str, text: str) -> str:  # noqa: ARG001 - as paint
    return text


def paint_flags(text: str, draw: Painter, *, around: str = "", option: str = CYAN) -> str:
    """Return text whose options and types are painted; ``around`` is the style of the rest."""
    painted, end = "", 0
    for flag in FLAG.finditer(text):
        before = text[end : flag.start()]
        painted += draw(around, before) if around else before
        painted += paint_flag(flag, draw, option)
        end = flag.end()
    after = text[end:]
    return painted + (draw(around, after) if around and after else after)


def paint_flag(flag: re.Match[str], draw: Painter, option: str) -> str:
    if flag["type"]:
        return draw(DIM_YELLOW, "<") + draw(YELLOW, flag["type"]) + draw(DIM_YELLOW, ">")
    if flag["short"]:
        return draw(GREEN, flag["short"])
    more = draw(option, flag["more"]) if flag["more"] else ""
    return draw(option, "-") + draw(option, flag["first"]) + more


def list_lines(width: int, draw: Painter) -> list[str]:
    sentence, _, examples = TEXT.partition("\n\n\b\n")
    inside = width - 2
    usage = "backtest [OPTIONS] COMMAND [ARGS]..."
    lines = [
        draw(BOLD, " " * width),
        draw(BOLD, " ")
        + draw(YELLOW, "Usage: ")
        + draw(BOLD, usage)
        + draw(BOLD, " " * (inside - len("Usage: ") - len(usage)))
        + draw(BOLD, " "),
        draw(BOLD, " " * width),
    ]
    texts = [*textwrap.wrap(sentence, inside, break_on_hyphens=False), "", ""]
    lines += [f" {text}".ljust(width) for text in texts]

    heading, *commands = examples.splitlines()
    title = heading.removeprefix("[bold]").removesuffix("[/bold]")
    lines.append(f" {draw(HEADING, title)}" + " " * (width - 1 - len(title)))
    for command in commands:
        for text in textwrap.wrap(command, inside, break_on_hyphens=False):
            painted = paint_flags(text, draw, around=DIM, option=DIM_CYAN)
            lines.append(f" {painted}" + " " * (width - 1 - len(text)))
    lines.append(" " * width)

    # boxes: the options, then the commands of each panel
    rows = [(paint_flags(head, draw) + " ", len(head), text) for head, text in OPTIONS.items()]
    lines += draw_box("Options", rows, width, draw)
    for panel in dict.fromkeys(row.panel for row in COMMANDS.values()):
        rows = [
            (draw(CYAN, name.ljust(NAME_WIDTH)) + draw(CYAN, " "), NAME_WIDTH, row.sentence)
            for name, row in COMMANDS.items()
            if row.panel == panel
        ]
        lines += draw_box(panel or "Commands", rows, width, draw, later=CYAN)
    return [*lines, ""]


NAME_WIDTH = max(map(len, COMMANDS))


def draw_box(
    title: str, rows: list[tuple[str, int, str]], width: int, draw: Painter, *, later: str = ""
) -> Iterator[str]:
    """Yield the lines of a panel; a row is its head, painted, the columns of it, and a sentence.

    ``later`` is the style of what stands under a head.
    """
    line = "─" * (width - len(title) - 6)
    yield draw(DIM, "╭─") + draw(DIM, f" {title} ") + draw(DIM, line) + draw(DIM, "─╮")
    side = draw(DIM, "│")
    for head, head_width, sentence in rows:
        room = width - head_width - 6
        under = " " * (head_width + 1)
        start = head
        for text in textwrap.wrap(sentence, room, break_on_hyphens=False):
            yield f"{side} {start} {paint_flags(text, draw)}{' ' * (room - len(text))} {side}"
            start = draw(later, under) if later else under
    yield draw(DIM, "╰" + "─" * (width - 2) + "╯")
