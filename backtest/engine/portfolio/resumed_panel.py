"""The markets of a resumed run of several positions."""

from __future__ import annotations

import numpy as np

from backtest.base.errors import DataError, ParameterError
from backtest.base.phrases import Place
from backtest.base.units import format_time
from backtest.engine.run_record import RunRecord
from backtest.market import Market, Markets
from backtest.market.tables.dividends import DIVIDEND

WHERE = Place("resume", of="bt.run")


def join_panel(resume: RunRecord, markets: Markets) -> tuple[Markets, int]:
    """Return the markets of a resumed run, and its first bar.

    An instrument that is held and has no further bar gets one at its last prices, in which its
    position is closed.
    """
    if markets.names != resume.names:
        raise ParameterError(
            f"a resumed run must have the same instruments, {', '.join(resume.names)}, "
            f"was given {', '.join(markets.names)}",
            where=WHERE,
            cure="give them in the same order: markets.select(...)",
        )
    last = int(resume.span.closes[-1]) - resume.interval
    first = int(np.searchsorted(markets.time, last, side="right"))
    is_inside = 0 < first < markets.n_bars and int(markets.time[first - 1]) == last
    is_next = is_inside and int(markets.time[first]) == last + markets.interval
    if not (is_next or (is_inside and markets.sessions)):
        raise DataError(
            f"the markets must hold the bar of {format_time(last)}, the last one of the earlier "
            f"run, and later bars, were from {format_time(markets.start)} to "
            f"{format_time(markets.end)}",
            where=WHERE,
            cure="give the whole history: the bars of the earlier run and those after it",
        )
    for mark, (name, market), (listed, gone) in zip(
        resume.marks[-1], markets.items(), markets.spans, strict=True
    ):
        if listed < first <= gone and float(market.mark_close[first - 1 - listed]) != mark:
            raise DataError(
                f"the mark close of {name} at {format_time(last)} must be the one the earlier run "
                f"ended on, {float(mark)!r}",
                where=WHERE,
                cure="resume on the same data",
            )
    ended = {
        name: append_last_bar(market, int(markets.time[first]))
        for name, market, gone, quantity in zip(
            markets.names,
            markets.values(),
            markets.spans[:, 1],
            resume.state.held.quantities,
            strict=True,
        )
        if gone == first and quantity != 0.0
    }
    if not ended:
        return markets, first
    return Markets({**markets, **ended}, currency=markets.currency or None), first


def append_last_bar(market: Market, time: int) -> Market:
    """Return a market with one more bar at its last prices, without volume and dividend."""
    last, marked = float(market.close[-1]), float(market.mark_close[-1])
    rows = {"time": time, **dict.fromkeys(("open", "high", "low", "close"), last), "volume": 0.0}
    rows |= dict.fromkeys(("mark_open", "mark_high", "mark_low", "mark_close"), marked)
    kept = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")
    return Market(
        **{name: np.append(getattr(market, name), value) for name, value in rows.items()},
        **{name: getattr(market, name) for name in kept},
        columns={
            name: np.append(each, np.nan if name == DIVIDEND else each[-1])
            for name, each in market.columns.items()
        },
        instrument=market.instrument,
        interval=market.interval,
        has_mark=market.has_mark,
        synthetic=market.synthetic,
        sessions=market.sessions,
        filled=market.filled,
        source=f"{market.source} and its last prices",
    )
