"""Flags that several commands share, and the panels that group them in the help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import Range, SavedResult, from_plain, parse_size
from backtest.cli.printing import save_and_print

DATA, POLICY, VENUE, ACCOUNT, RUN = "Data", "Policy", "Venue", "Account", "Run"
SETS, SEARCH, COMPARISON, RANKING = "Sets", "Search", "Comparison", "Ranking"
FOLDS = "Folds"
WORK, OUTPUT = "Work", "Output"
CROWD = "Crowd"
PATHS, RISK = "Paths", "Risk"
LIVE = "Live account"
FIRST = "Usual flags"


def option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


def flag(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, show_default=False, **more)


AsJson = Annotated[bool, option(OUTPUT, "Print one JSON object only.", "--json")]
Save = Annotated[bool, option(OUTPUT, "Save the result (default).", "--save/--no-save")]
Results = Annotated[Path, option(OUTPUT, "The folder of saved results.", "--results")]
RESULTS = Path("results")

Threads = Annotated[int | None, option(WORK, "Number of threads (all cores).", "--threads")]
Memory = Annotated[str, option(WORK, "Memory for the columns of policies (1GiB).", "--memory")]
Cluster = Annotated[
    str | None, option(WORK, "Dask workers: tcp:// or tls://HOST:PORT, or local:N.", "--cluster")
]
MEMORY = "1GiB"
MOST_THREADS = 4_096


def check_work(threads: int | None, memory: str) -> None:
    if threads is not None:
        Range(1, MOST_THREADS).check("threads", threads, whole=True)
    parse_size(memory, "memory")


ReportFile = Annotated[
    Path | None, option(OUTPUT, "Write a report: .html, .md or .json.", "--report")
]


@dataclass(frozen=True, kw_only=True)
class Output:
    report: ReportFile = None
    as_json: AsJson = False
    save: Save = True
    results: Results = RESULTS

    def give_out(self, found: SavedResult) -> None:
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


ACCOUNT_FLAGS = {
    "capital": "Money at the start (10000).",
    "margin": "'cross' (default) or 'isolated'.",
    "venue_leverage": "Leverage set at the venue (cross margin: as needed).",
    "min_leverage": "Lowest leverage that the policy may ask for.",
    "max_leverage": "Highest leverage that the policy may ask for.",
    "band": "Do not trade within this many turns of leverage of the target.",
    "stop_loss": "Close at a loss of this fraction of the entry price, or 2*atr (a column).",
    "margin_call": "Margin ratio that triggers a margin call.",
    "reserve": "Money outside the account, for top-ups.",
    "top_up_to": "Margin ratio after a top-up.",
    "after_liquidation": "'continue' (default) or 'halt'.",
    "ruin_at": "The account is ruined at or below this share of the capital paid in.",
    "auto_margin": "Add margin from the wallet before a liquidation (isolated margin).",
    "fill": "When decisions fill: 'next_open' (default), 'next_close', 'same_close' or 'limit'.",
    "offset": "With --fill limit: how far limits are from the close, a fraction of the price.",
    "closing": "With --fill limit: closings and reductions at the 'market' (default) or 'limit'.",
    "take_profit": "Close at a profit of this fraction of the entry price, or 2*atr.",
    "trailing_stop": "Close at this fraction below the best price, or 2*atr.",
    "equity_stop": "Close at this fraction below the highest equity.",
    "max_holding": "Close a position held this long at the next open, as 7d.",
    "intrabar": "Several positions: prices inside a bar, 'path' (default) or 'worst'.",
    "max_gross_leverage": "Several positions: cap on gross leverage at fills.",
    "max_overlay": "Highest leverage that an overlay may return.",
    "negative_limit": "Debt at which collateral is sold.",
}
