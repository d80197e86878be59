"""``quality``: the report on markets, or on files, even if they cannot be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from backtest.base import ParameterError, checked_only, is_path, repr_plain
from backtest.market.inspect.market_report import inspect_files, inspect_market
from backtest.market.inspect.quality_report import Quality
from backtest.market.market import Market
from backtest.market.markets import Markets
from backtest.market.panel_quality import PanelQuality, inspect_markets
from backtest.market.tables.read_options import read_options

__all__ = ["PanelQuality", "Quality", "quality"]


@overload
def quality(
    data: Market | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = ...,
    instrument: str | None = ...,
    interval: str | None = ...,
    funding_interval: str | None = ...,
    timezone: str | None = ...,
    sessions: bool = ...,
    decimal: str = ...,
) -> Quality: ...


@overload
def quality(data: Markets) -> PanelQuality: ...


@checked_only("columns", "instrument", "sessions")
def quality(
    data: Market | Markets | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = None,
    instrument: str | None = None,
    interval: str | None = None,
    funding_interval: str | None = None,
    timezone: str | None = None,
    sessions: bool = False,
    decimal: str = ".",
) -> Quality | PanelQuality:
    """Return a report on the quality of data and their fitness for use; nothing is changed.

    Parameters
    ----------
    data : Market, Markets, path, or sequence of paths
        A folder or files are read even if :meth:`Market.load` refuses them.
    columns, decimal
        As in :func:`backtest.import_market`, for files with other names or decimal commas.
    instrument, interval, funding_interval, timezone, sessions
        As in :meth:`Market.load`; a market has its own.

    Returns
    -------
    Quality, or PanelQuality of several markets
        Gaps, duplicates, odd prices, the mark compared with the last price, the cadence of
        funding, and a verdict per use. Of several markets, the report on each, their common span,
        the holes in one where others trade, and the correlations of their returns.

    Raises
    ------
    DataError
        If there is no such path, or it holds several instruments and none is chosen.
    ParameterError
        If an argument is unknown or unreadable.

    Examples
    --------
    >>> report = quality(Market.sample(bars=240))
    >>> report.fit_for("liquidation"), report.bars.gaps.missing
    ('yes', 0)
    """
    if isinstance(data, Market):
        return inspect_market(data)
    if isinstance(data, Markets):
        return inspect_markets(data)
    paths = [data] if isinstance(data, (str, Path)) or not isinstance(data, Sequence) else data
    if not len(paths) or not all(map(is_path, paths)):
        raise ParameterError(
            f"quality needs a path, got {repr_plain(data)}",
            where="bt.quality",
            cure="give a folder",
        )
    options = read_options(
        instrument=instrument,
        interval=interval,
        timezone=timezone,
        sessions=sessions,
        funding_interval=funding_interval,
        columns=columns,
        decimal=decimal,
    )
    return inspect_files([Path(path) for path in paths], options)[0]
