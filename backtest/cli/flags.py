"""Flags that several commands share, and the panels that group them in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import Range, parse_size

DATA, POLICY, VENUE, ACCOUNT, RUN = "Data", "Policy", "Venue", "Account", "Run"
SETS, SEARCH, COMPARISON, RANKING = "Sets", "Search", "Comparison", "Ranking"
FOLDS = "Folds"
WORK, OUTPUT = "Work", "Output"
CROWD = "Crowd"
PATHS, RISK = "Paths", "Risk"
LIVE = "Live account"
FIRST = "Usual flags"


def option(panel: str, text: str, *names: str) -> Any:
    """Make the Typer option of a flag in a panel of the help; the text states its default."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


def flag(text: str, *names: str, **more: Any) -> Any:
    """Make the Typer option of a flag outside the panels; the text states its default."""
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
    """Check the number of threads and the size of memory."""
    if threads is not None:
        Range(1, MOST_THREADS).check("threads", threads, where="--threads", whole=True)
    parse_size(memory, where="--memory")
