"""Load several markets, each with the same options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backtest.base import ParameterError, Place, format_time
from backtest.base.units import DAY
from backtest.market.market import Market
from backtest.market.panel_data import PanelData
from backtest.market.read.folder import load_data
from backtest.market.read.instrument_folders import MarketSource, find_sources
from backtest.market.tables.read_options import ReadOptions, time_text

LONGEST_CLOSURE = 14 * DAY
"""How far from the first or last session a span may begin or end and still be inside."""


def load_markets(
    paths: Sequence[Path], instruments: Sequence[str] | None, options: ReadOptions
) -> tuple[dict[str, Market], dict[str, str]]:
    """Return the markets of the paths by name, and the settlement currencies in the files.

    The errors are those of ``Markets.load``.
    """
    if not paths:
        raise ParameterError(
            "load needs a path, got none", where="Markets.load", cure="give a folder"
        )
    sources = find_sources(paths, instruments)
    markets = {
        name: _load(name, source, options._replace(clips=True)) for name, source in sources.items()
    }
    return markets, {name: source.currency for name, source in sources.items()}


def _load(name: str, source: MarketSource, options: ReadOptions) -> Market:
    options = options._replace(instrument=source.instrument or "")
    try:
        data = load_data([source.path], options)
    except ParameterError as error:
        if isinstance(error.where, Place):  # an argument that does not fit this market
            error.where = Place(error.where.arguments, name, *error.where.details)
        raise
    return Market(**data.fields(), source=options.expression([source.path]))


def check_between(markets: PanelData, between: tuple[int | None, int | None]) -> None:
    """Refuse a span of time that no instrument reaches to."""
    slack = LONGEST_CLOSURE if markets.sessions else markets.interval - 1
    low, high = between
    is_early = low is not None and markets.start - low > slack
    is_late = high is not None and high - markets.end > slack
    if is_early or is_late:
        wrong = low if is_early else high
        raise ParameterError(
            f"a span must lie inside the panel, got one that {'begins' if is_early else 'ends'} at "
            f"{time_text(int(wrong or 0))}",
            where=Place("between", of="Markets.load"),
            cure=f"choose times from {format_time(markets.start)} to {format_time(markets.end)}",
        )
