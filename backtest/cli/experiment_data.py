"""Load the data of an experiment: the sample, one market, or markets of several instruments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.errors import ParameterError
from backtest.base.units import TimeLike, format_time, to_nanoseconds
from backtest.cli.draft import Draft, DraftTable, located
from backtest.cli.experiment_schema import find_single
from backtest.market import Market, Markets
from backtest.market.read.instrument_folders import find_in_folders, is_panel
from backtest.venue import Venue

SAMPLE = "sample"
WEIGHTS = ("weights", "carry_weights", "allocate", "allocate_settings")
"""The keys of ``[run]`` that weigh instruments."""
NAMED = ("path", "instrument", "resample", "from", "to")
"""The keys of ``[data]`` that are not passed to the loaders unchanged."""


class DataSpan(NamedTuple):
    """The span of the data to read, ``low`` to ``high``, and the start of the account.

    None means no bound. ``where`` names the flags or the table that gave the account's span.
    """

    low: TimeLike | None
    high: TimeLike | None
    start: TimeLike | None
    where: str

    @property
    def between(self) -> tuple[TimeLike | None, TimeLike | None] | None:
        """The bounds of the data; None without any."""
        return None if self.low is None and self.high is None else (self.low, self.high)


def read_span(draft: Draft, *, warms: bool) -> DataSpan:
    """Return the span of the data to read and the start of the account, after checking them."""
    data, run = draft.tables.get("data", {}), draft.tables.get("run", {})
    low, high, start, end = data.get("from"), data.get("to"), run.get("start"), run.get("end")
    where = draft.locate("run", ("start", "end"))
    if is_before(start, low, where) or is_before(high, end, where):
        raise ParameterError(
            f"start and end must lie inside the data, got {start or 'none'} to {end or 'none'} of "
            f"{low or 'none'} to {high or 'none'}",
            where=where,
            cure="leave --from and --to out, or choose them further apart",
        )
    if start is not None and end is not None and not is_before(start, end, where):
        raise ParameterError(
            f"end must lie after start, got {start} to {end}", where=where, cure="give a later end"
        )
    first = low if warms or start is None else start
    return DataSpan(first, high if end is None else end, start, where)


def is_before(time: TimeLike | None, other: TimeLike | None, where: str) -> bool:
    """Return whether a time comes before another; False if either is None."""
    if time is None or other is None:
        return False
    return to_nanoseconds(time, where=where) < to_nanoseconds(other, where=where)


def check_start(span: DataSpan, market: Market | Markets) -> None:
    """Check that the account begins inside the data."""
    if span.start is not None and to_nanoseconds(span.start, where=span.where) < market.start:
        raise ParameterError(
            f"the account must begin inside the data, which begin {format_time(market.start)}, "
            f"got {span.start}",
            where=span.where,
            cure="give a later start, or more data",
        )


def load_data(draft: Draft, span: DataSpan | None = None) -> Market | Markets:
    """Return the market that the data name, or the markets of several instruments.

    They are cut to a span, by default that of the draft without warming bars, and resampled.
    """
    span = read_span(draft, warms=False) if span is None else span
    data = draft.section("data", path="path")
    load: Callable[..., Market | Markets] = load_markets
    if not names_several(data):
        check_named_terms(draft)
        load = load_market
    market = load(data, span)
    interval = data.entries.get("resample")
    if interval is None:
        return market
    with located(data.where):
        return market.resample(interval)


def names_several(data: DraftTable) -> bool:
    """Return whether the data are of several instruments."""
    return is_panel(list_paths(data), list_instruments(data))


def check_named_terms(draft: Draft) -> None:
    """Refuse what only several instruments have: weights, a currency, tables of instruments."""
    tables = draft.tables
    found = [("run", key) for key in WEIGHTS if key in tables.get("run", {})]
    found += [("data", "currency")] if "currency" in tables.get("data", {}) else []
    found += [("policy", name) for name in find_single(tables.get("policy", {}))]
    found += [("venue", name) for name in find_venues(tables.get("venue", {}))]
    for table, key in found[:1]:
        raise ParameterError(
            f"{f'[{table}] {key}'.strip()} is for several instruments, the data are of one",
            where=draft.locate(table, (key,)),
            cure="give --data for each of several folders, or --instrument for each of several "
            "instruments of one",
        )


def find_venues(table: Mapping[str, Any]) -> list[str]:
    """Return the names of instruments whose venues are tables of that of the venue."""
    known = Venue.__dataclass_fields__
    return [
        name for name, entry in table.items() if isinstance(entry, Mapping) and name not in known
    ]


def list_paths(data: DraftTable) -> list[Path]:
    """Return the paths of the data; none for the sample."""
    given = data.entries.get("path", SAMPLE)
    paths = [given] if isinstance(given, str) else list(given)
    return [] if paths == [SAMPLE] else [data.folder / each for each in paths]


def list_instruments(data: DraftTable) -> list[str]:
    """Return the instruments that are named; empty if none is."""
    given = data.entries.get("instrument", [])
    return [given] if isinstance(given, str) else list(given)


def list_choices(data: DraftTable) -> dict[str, Any]:
    """Return the entries that the loaders take as they are."""
    return {name: choice for name, choice in data.entries.items() if name not in NAMED}


def load_market(data: DraftTable, span: DataSpan) -> Market:
    """Load the sample, or the data of a path."""
    choices, paths = list_choices(data), list_paths(data)
    if "instrument" in data.entries:
        choices["instrument"] = data.entries["instrument"]
    if not paths:
        return load_sample(choices, span, where=data.where)
    chosen = find_in_folders(paths, choices.get("instrument"))
    if chosen is not None:  # of a folder with a folder for each market
        paths, choices["instrument"] = [chosen.path], chosen.instrument
    return Market.load(*paths, between=span.between, **choices)


def load_sample(choices: Mapping[str, Any], span: DataSpan, *, where: str) -> Market:
    """Return the embedded sample, cut to a span."""
    if choices:
        raise ParameterError(
            f"the sample takes no {', '.join(choices)}: its data are known",
            where=where,
            cure="leave that out, or choose the data: --data PATH",
        )
    market = Market.sample()
    if span.between is None:
        return market
    with located(where):
        return market.between(*span.between)


def load_markets(data: DraftTable, span: DataSpan) -> Markets:
    """Load the markets of several instruments."""
    paths, names = list_paths(data), list_instruments(data) or None
    if not paths:
        raise ParameterError(
            "the sample is one instrument, got several",
            where=data.where,
            cure="choose the data: --data PATH",
        )
    with located(data.where):
        return Markets.load(*paths, instruments=names, between=span.between, **list_choices(data))
