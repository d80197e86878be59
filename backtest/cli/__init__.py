"""The command line: it parses, calls, and prints; everything it does can be done from Python."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``backtest ARGUMENTS``, by default those of the process, and return its exit code."""
    from backtest.cli import first_screen  # noqa: PLC0415 - a command is imported to be run

    given = sys.argv[1:] if arguments is None else [*arguments]
    if first_screen.is_simple(given):
        try:
            if first_screen.is_drawn_here(given):
                first_screen.show(given)
            else:
                from backtest.cli.terminal_screen import show_colored  # noqa: PLC0415 - as above

                show_colored()
            sys.stdout.flush()
        except OSError as error:
            from backtest.cli.printing import report_system_error  # noqa: PLC0415 - as above

            return report_system_error(error)
        return 0

    from backtest.cli.app import main as run_command  # noqa: PLC0415 - as above

    return run_command(arguments)
