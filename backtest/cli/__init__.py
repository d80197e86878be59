"""The command line: it parses, calls, and prints; everything it does can be done from Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``backtest ARGUMENTS``, by default those of the process, and return its exit code."""
    given = sys.argv[1:] if arguments is None else [*arguments]
    show = find_early(given)
    if show is not None:
        try:
            show(given)
            sys.stdout.flush()
        except OSError as error:
            from backtest.cli.printing import report_system_error  # noqa: PLC0415 - as below

            return report_system_error(error)
        return 0

    from backtest.cli.app import main as run_command  # noqa: PLC0415 - imported to run a command

    return run_command(arguments)


def find_early(given: list[str]) -> Callable[[list[str]], None] | None:
    """Return what shows the first screen, the version or a help without importing a command."""
    is_bare = given in ([], ["--version"])
    is_utf = str(getattr(sys.stdout, "encoding", None)).lower().startswith("utf")
    if not is_utf or not (is_bare or given[-1] in ("-h", "--help")):
        return None

    from backtest.cli import first_screen  # noqa: PLC0415 - imported to be shown

    if first_screen.is_drawn_here(given):
        return first_screen.show

    from backtest.cli import terminal_screen  # noqa: PLC0415 - loads the library of commands

    if terminal_screen.is_help(given):
        return terminal_screen.show_help
    return None
