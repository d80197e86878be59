"""Load the data of an experiment: the sample, one market, or markets of several instruments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import ParameterError, TimeLike, format_time, to_nanoseconds
from backtest.cli.experiment_draft import Draft, DraftTable, naming
from backtest.cli.experiment_schema import find_single
from backtest.market import Market, Markets, find_in_folders, is_panel, with_clock
from backtest.venue import Venue

SAMPLE = "sample"
SEEDED = re.compile(r"sample(:(?P<seed>\d{1,9}))?", re.ASCII)
WEIGHTS = ("weights", "carry_weights", "allocate", "allocate_settings")
NAMED = ("path", "instrument", "resample", "from", "to")


class DataSpan(NamedTuple):
    low: TimeLike | None
    high: TimeLike | None
    start: TimeLike | None

    @property
    def between(self) -> tuple[TimeLike | None, TimeLike | None] | None:
        return None if self.low is None and self.high is None else (self.low, self.high)


def read_span(draft: Draft, *, warms: bool) -> DataSpan:
    """Return the span of the data to read and the start of the account, after checking them."""
    data, run = draft.tables.get("data", {}), draft.tables.get("run", {})
    low, high, start, end = data.get("from"), data.get("to"), run.get("start"), run.get("end")
    given = {"data.from": low, "data.to": high, "run.start": start, "run.end": end}
    for name, time in given.items():
        if time is not None:
            to_nanoseconds(time, name)
    if is_before(start, low) or is_before(high, end):
        raise ParameterError(
            f"start and end must lie inside the data, got {start or 'none'} to {end or 'none'} of "
            f"{low or 'none'} to {high or 'none'}"
        )
    if start is not None and end is not None and not is_before(start, end):
        raise ParameterError(f"end must lie after start, got {start} to {end}")
    first = low if warms or start is None else start
    return DataSpan(first, high if end is None else end, start)


def is_before(time: TimeLike | None, other: TimeLike | None) -> bool:
    if time is None or other is None:
        return False
    return to_nanoseconds(time) < to_nanoseconds(other)


def check_start(span: DataSpan, market: Market | Markets) -> None:
    if span.start is not None and to_nanoseconds(span.start) < market.start:
        raise ParameterError(
            f"the account must begin inside the data, which begin {format_time(market.start)}, "
            f"got {span.start}"
        )


def load_data(draft: Draft, span: DataSpan | None = None) -> Market | Markets:
    """Return the market that the data name, or the markets of several instruments.

    They are cut to a span, by default that of the draft without warming bars, and resampled.
    Policies decide as ``[run] decide`` says.
    """
    span = read_span(draft, warms=False) if span is None else span
    data = draft.section("data", path="path")
    load: Callable[..., Market | Markets] = load_markets
    if not names_several(data):
        check_named_terms(draft)
        load = load_market
    market = load_samples(data, span) if list_seeds(data) else load(data, span)
    interval = data.entries.get("resample")
    if interval is not None:
        with naming("data.resample"):
            market = market.resample(interval)
    run = draft.section("run", path="detail")
    detail = run.entries.get("detail")
    found: Market | Markets = with_clock(
        market,
        run.entries.get("decide"),
        None if detail is None else run.folder / detail,
    )
    return found


def names_several(data: DraftTable) -> bool:
    """Return whether the data are of several instruments."""
    seeds = list_seeds(data)
    return len(seeds) > 1 if seeds else is_panel(list_paths(data), list_instruments(data))


def check_named_terms(draft: Draft) -> None:
    """Refuse what only several instruments have: weights, a currency, tables of instruments."""
    tables = draft.tables
    found = [("run", key) for key in WEIGHTS if key in tables.get("run", {})]
    found += [("data", "currency")] if "currency" in tables.get("data", {}) else []
    found += [("policy", name) for name in find_single(tables.get("policy", {}))]
    found += [("venue", name) for name in find_venues(tables.get("venue", {}))]
    for table, key in found[:1]:
        raise ParameterError(f"{table}.{key} is for several instruments, the data are of one")


def find_venues(table: Mapping[str, Any]) -> list[str]:
    known = Venue.__dataclass_fields__
    return [
        name for name, entry in table.items() if isinstance(entry, Mapping) and name not in known
    ]


def list_names(data: DraftTable) -> list[str]:
    """Return the paths and samples of the data, as they are given."""
    given = data.entries.get("path", SAMPLE)
    return [given] if isinstance(given, str) else list(given)


def list_paths(data: DraftTable) -> list[Path]:
    """Return the paths of the data."""
    return [data.folder / each for each in list_names(data)]


def list_seeds(data: DraftTable) -> list[int]:
    """Return the seeds of the samples that the data name; none if they name paths."""
    names = list_names(data)
    if not any(name.partition(":")[0] == SAMPLE for name in names):
        return []
    found = [SEEDED.fullmatch(name) for name in names]
    seeds = [int(each["seed"] or 0) for each in found if each]
    if len(set(seeds)) < len(names):
        raise ParameterError(
            "data.path must be paths, or samples of different seeds, sample:1 and sample:2, "
            f"got {', '.join(names)}; a folder of that name is ./sample"
        )
    return seeds


def list_instruments(data: DraftTable) -> list[str]:
    """Return the instruments that are named; empty if none is."""
    given = data.entries.get("instrument", [])
    return [given] if isinstance(given, str) else list(given)


def list_choices(data: DraftTable) -> dict[str, Any]:
    """Return the entries that the loaders take as they are."""
    return {name: choice for name, choice in data.entries.items() if name not in NAMED}


def load_market(data: DraftTable, span: DataSpan) -> Market:
    """Load the data of a path."""
    choices, paths = list_choices(data), list_paths(data)
    if "instrument" in data.entries:
        choices["instrument"] = data.entries["instrument"]
    chosen = find_in_folders(paths, choices.get("instrument"))
    if chosen is not None:  # of a folder with a folder for each market
        paths, choices["instrument"] = [chosen.path], chosen.instrument
    return Market.load(*paths, between=span.between, **choices)


def load_samples(data: DraftTable, span: DataSpan) -> Market | Markets:
    """Return the embedded sample, or several named after their seeds, cut to a span."""
    seeds = list_seeds(data)
    choices = [*data.entries.keys() & {"instrument"}, *list_choices(data)]
    if choices:
        raise ParameterError(f"the sample takes no {', '.join(choices)}: its data are known")
    found = [Market.sample(seed=seed) for seed in seeds]
    names = [f"{SAMPLE}-{seed}" for seed in seeds]
    market = found[0] if len(found) == 1 else Markets(dict(zip(names, found, strict=True)))
    return market if span.between is None else market.between(*span.between)


def load_markets(data: DraftTable, span: DataSpan) -> Markets:
    """Load the markets of several instruments."""
    paths, names = list_paths(data), list_instruments(data) or None
    return Markets.load(*paths, instruments=names, between=span.between, **list_choices(data))
