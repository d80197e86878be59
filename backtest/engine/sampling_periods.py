"""The sampling period and the calendar of a run: whether they fit the market, samples per year."""

from __future__ import annotations

from backtest.base.errors import ParameterError
from backtest.base.json_values import repr_plain
from backtest.base.phrases import Argument, Phrase, Place
from backtest.base.units import DAY, YEAR_DAYS, parse_duration
from backtest.features.returns import count_by_calendar
from backtest.market import Market, Markets


def check_periods(market: Market | Markets, sampling: str, calendar: str) -> None:
    """Require a calendar and a sampling period that fit the market."""
    if not isinstance(calendar, str) or calendar not in ("365", "252"):
        raise ParameterError(
            f"calendar must be '365' or '252', got {repr_plain(calendar)}",
            where=Place("calendar", of="bt.run"),
            cure="choose '365' for a market that never closes, '252' for sessions",
        )
    if market.sessions and calendar != "252":
        raise ParameterError(
            "a market with sessions needs calendar='252', got '365'",
            where=Place("calendar", of="bt.run"),
            cure=Phrase("pass {}", Argument("calendar", "252")),
        )
    period = parse_duration(sampling, where=Place("sampling", of="bt.run"))
    if calendar == "252" and period != DAY:
        raise ParameterError(
            f"sampling must be '1d' with calendar='252', which counts sessions, got {sampling!r}",
            where=Place("sampling", of="bt.run"),
            cure=Phrase(
                "leave {} out, or pass {}", Argument("sampling"), Argument("calendar", "365")
            ),
        )


def count_periods(calendar: str, sampling: str, market: Market | Markets, first: int = 0) -> float:
    """Return the number of sampling periods in a year.

    Bars longer than a day are sampled per bar. In a market with sessions they count by calendar
    time, not in sessions: by the mean distance of those from ``first`` on.
    """
    period = max(parse_duration(sampling, where=Place("sampling", of="bt.run")), market.interval)
    if market.sessions and market.interval > DAY:
        return float(count_by_calendar(market.time[first:], market.interval)[-1])
    days = YEAR_DAYS if period > DAY else float(calendar)
    return days * DAY / period
