"""The venue tables that come with the package: dated facts, each group with its source.

One TOML file per venue in ``backtest/venues``. A table describes one day: it is not what the
venue demanded in other years, and it does not renew itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest.errors import VenueError, did_you_mean

FOLDER = Path(__file__).with_name("venues")


class Preset(NamedTuple):
    """One symbol of one venue; ``date`` and ``source`` are those of its margin table."""

    venue: str
    symbol: str
    title: str
    date: str
    source: str


class Origin(NamedTuple):
    """Where one group of a preset's figures comes from, and the day they held (or were read)."""

    group: str
    date: str
    source: str


def available() -> list[Preset]:
    """Return every preset, by venue and symbol.

    Examples
    --------
    >>> [(preset.venue, preset.symbol) for preset in available()]
    [('binance-usdm', 'BTCUSDT')]
    """
    return [
        Preset(
            venue, symbol, table["title"], table["brackets"]["date"], table["brackets"]["source"]
        )
        for venue in _venues()
        for symbol, table in _load(venue).items()
    ]


def origins(venue: str, symbol: str) -> list[Origin]:
    """Return the date and source of each group of a preset's figures.

    Raises
    ------
    VenueError
        If there is no such venue or symbol.
    """
    table = _find(venue, symbol)
    return [
        Origin(group, figures["date"], figures["source"])
        for group, figures in table.items()
        if isinstance(figures, Mapping)
    ]


def read(venue: str, symbol: str) -> dict[str, Any]:
    """Return the plain data of one preset, as ``Venue.from_dict`` reads them.

    Raises
    ------
    VenueError
        If there is no such venue or symbol.
    """
    table = _find(venue, symbol)
    data = {
        group: {name: value for name, value in figures.items() if name not in ("date", "source")}
        for group, figures in table.items()
        if isinstance(figures, Mapping)
    }
    rules = data.pop("rules")
    columns, rows = data["brackets"]["columns"], data["brackets"]["rows"]
    return {**data, **rules, "brackets": [dict(zip(columns, row, strict=True)) for row in rows]}


def _venues() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _load(venue: str) -> dict[str, Any]:
    with (FOLDER / f"{venue}.toml").open("rb") as file:
        return tomllib.load(file)


def _find(venue: str, symbol: str) -> dict[str, Any]:
    venues = _venues()
    if venue not in venues:
        raise VenueError(
            f"venue must be a known preset, was {venue!r}"
            + did_you_mean(str(venue).lower(), venues),
            where="Venue.preset",
            cure=f"choose one of {', '.join(venues)}, or build a Venue from its parts",
        )
    symbols = _load(venue)
    if symbol not in symbols:
        raise VenueError(
            f"symbol must be one that {venue} has a table for, was {symbol!r}"
            + did_you_mean(str(symbol).upper(), symbols),
            where=f"Venue.preset({venue!r}, ...)",
            cure=f"choose one of {', '.join(symbols)}, or build a Venue from its parts",
        )
    found: dict[str, Any] = symbols[symbol]
    return found
