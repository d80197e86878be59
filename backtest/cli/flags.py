"""Flags: how one sets entries of an experiment, and those that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer

from backtest.base.ranges import Range
from backtest.base.units import parse_size
from backtest.cli.draft import GivenFlag
from backtest.cli.typed_values import parse_typed, read_constraints, read_objective, split_pair
from backtest.cli.unit_hints import warn_of_fraction

DATA, POLICY, VENUE = "Data", "Policy", "Venue"
ACCOUNT, RUN, OUTPUT = "Account", "Run", "Output"
WORK, RANKING = "Work", "Ranking"
BPS = 1e-4

Read: TypeAlias = Callable[[str, Any], Iterator[GivenFlag]]


class Option(NamedTuple):
    """A flag that describes an experiment: its type, its help, and the entries that it sets."""

    name: str
    kind: Any
    read: Read
    panel: str
    text: str

    @property
    def parameter(self) -> str:
        """The name of the argument: that of the flag, and no word of Python's."""
        return self.name.strip("-").replace("-", "_") + "_"


def option(panel: str, text: str, *names: str) -> Any:
    """Return the Typer option of one flag in a help panel."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


# ----------------------------------------------------------------------------- from flag to entry


def entry(table: str, key: str, change: Callable[[Any], Any] = lambda value: value) -> Read:
    """Return the reader of a flag that sets one entry."""

    def read(name: str, value: Any) -> Iterator[GivenFlag]:
        yield GivenFlag(name, table, key, change(value))

    return read


def read_settings(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the entries of ``NAME=VALUE`` texts: of the policy, or of the account or venue.

    Raises
    ------
    ParameterError
        If one has no name or no equals sign.
    """
    for text in texts:
        key, value = split_pair(name, text, "target=0.4")
        table, dot, field = key.partition(".")
        if dot and table in ("account", "venue"):
            yield GivenFlag(name, table, field, parse_typed(value))
        else:
            yield GivenFlag(name, "policy", f"settings.{key}", value)


def pairs(table: str, key: str) -> Read:
    """Return the reader of a flag of ``NAME=VALUE`` texts that fills a table of the table."""

    def read(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
        for text in texts:
            entry_name, value = split_pair(name, text, "target=0.4")
            yield GivenFlag(name, table, f"{key}.{entry_name}", value)

    return read


def bounds(table: str) -> Read:
    """Return the reader of a flag of constraints such as ``max_drawdown<=0.4``."""

    def read(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
        for measure, bound in read_constraints(texts):
            yield GivenFlag(name, table, f"constraints.{measure}", bound)

    return read


def objectives(table: str) -> Read:
    """Return the reader of a flag of objectives; their list replaces that of the file."""

    def read(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
        wanted = [read_objective(text, where=f"{name} {text}") for text in texts]
        yield GivenFlag(name, table, "objective", wanted)

    return read


def basis_points(table: str, key: str) -> Read:
    """Return the reader of a flag in basis points that sets a fraction."""

    def read(name: str, bps: float) -> Iterator[GivenFlag]:
        warn_of_fraction(name, bps)
        yield GivenFlag(name, table, key, bps * BPS)

    return read


def negate(value: bool) -> bool:
    """Return the opposite."""
    return not value


# --------------------------------------------------------------------- flags of several commands

Text, Texts, Number, Whole = str | None, list[str] | None, float | None, int | None

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
    """Check the number of threads and the size of memory.

    Raises
    ------
    ParameterError
        Naming the flag.
    """
    if threads is not None:
        Range(1, MOST_THREADS).check("threads", threads, where="--threads", whole=True)
    parse_size(memory, where="--memory")
