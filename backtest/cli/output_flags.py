"""The flags of a command that makes one result: its report, and whether and where it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import SavedResult, from_plain
from backtest.cli.flags import OUTPUT, RESULTS, AsJson, Results, Save, option
from backtest.cli.printing import save_and_print

ReportFile = Annotated[
    Path | None, option(OUTPUT, "Write a report: .html, .md, .json or .png.", "--report")
]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Values of the output flags; each field is a flag of the commands that take them."""

    report: ReportFile = None
    as_json: AsJson = False
    save: Save = True
    results: Results = RESULTS

    def give_out(self, found: SavedResult) -> None:
        """Write the report of a result, save the result, and print it or its data."""
        if self.report is not None:
            found.report(self.report)
        save_and_print(
            found,
            self.results if self.save else None,
            lambda: self._print_summary(found),
            (lambda path: from_plain({"folder": path, **found.to_dict()}))
            if self.as_json
            else None,
        )

    def _print_summary(self, found: Any) -> None:
        typer.echo(found.summary())
        if self.report is not None:
            typer.echo(f"\nreport: {self.report}")
