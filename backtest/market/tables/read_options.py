"""The arguments of the loader, read and checked once: :class:`ReadOptions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from backtest.base import (
    ParameterError,
    TimeLike,
    did_you_mean,
    format_duration,
    format_time,
    parse_duration,
    repr_plain,
    to_nanoseconds,
)
from backtest.base.units import SECOND
from backtest.market.tables.repairs import Repair, parse_repairs
from backtest.market.tables.timed_table import DIVIDENDS, FUNDING, MARK
from backtest.market.tables.times import check_timezone


class ReadOptions(NamedTuple):
    """How data are read: the arguments of ``Market.load`` and ``import_market``, times in ns."""

    instrument: str = ""
    interval: int | None = None
    timezone: str | None = None
    mark_gaps: str | None = None
    funding_gaps: str | None = None
    sessions: bool = False
    between: tuple[int | None, int | None] = (None, None)
    synthetic: bool = False
    columns: Mapping[str, str] = MappingProxyType({})
    repairs: tuple[Repair, ...] = ()
    bar_length: int | None = None
    decimal: str = "."
    funding_interval: int | None = None
    clips: bool = False

    def expression(
        self, paths: Sequence[object], *, loader: str = "Market.load", **more: object
    ) -> str:
        start, end = self.between
        span = tuple(None if time is None else time_text(time) for time in (start, end))
        named: dict[str, object] = {
            "instrument": self.instrument or None,
            "interval": format_duration(self.interval) if self.interval else None,
            "funding_interval": format_duration(self.funding_interval)
            if self.funding_interval
            else None,
            "timezone": self.timezone,
            "mark_gaps": self.mark_gaps,
            "funding_gaps": self.funding_gaps,
            "sessions": self.sessions or None,
            "between": span if span != (None, None) else None,
            **more,
        }
        arguments = [repr(str(path)) for path in paths]
        arguments += [
            f"{name}={repr_plain(value)}" for name, value in named.items() if value is not None
        ]
        return f"{loader}({', '.join(arguments)})"


def time_text(time: int) -> str:
    """Return UTC ns as text that is read back to the same ns."""
    return format_time(time) if time % SECOND == 0 else pd.Timestamp(time).isoformat()


def read_options(
    *,
    instrument: str | None = None,
    interval: str | None = None,
    timezone: str | None = None,
    mark_gaps: str | None = None,
    funding_gaps: str | None = None,
    sessions: bool = False,
    between: tuple[TimeLike | None, TimeLike | None] | None = None,
    funding_interval: str | None = None,
    columns: Mapping[str, str | int] | None = None,
    resample: str | None = None,
    repair: str | Sequence[str] = (),
    decimal: str = ".",
) -> ReadOptions:
    repairs = parse_repairs([repair] if isinstance(repair, str) else repair)
    ways = {each.name: each.way for each in repairs}
    check_timezone(timezone)
    if decimal not in (".", ","):
        raise ParameterError(f"decimal must be '.' or ',', got {repr_plain(decimal)}")
    return ReadOptions(
        instrument=instrument or "",
        interval=_read_duration(interval, "interval"),
        timezone=timezone,
        mark_gaps=mark_gaps or ways.get("mark-gaps"),
        funding_gaps=funding_gaps or ways.get("funding-gaps"),
        sessions=sessions,
        between=_read_between(between),
        columns=_read_names(columns),
        repairs=repairs,
        bar_length=_read_duration(resample, "resample"),
        decimal=decimal,
        funding_interval=_read_duration(funding_interval, "funding_interval"),
    )


def _read_duration(text: str | None, name: str) -> int | None:
    return None if text is None else parse_duration(text, name)


def _read_names(columns: Mapping[str, str | int] | None) -> dict[str, str]:
    names = [f"mark.{name}" for name in ("time", *MARK.known)]
    names += [f"funding.{name}" for name in ("time", *FUNDING.known)]
    names += [f"dividends.{name}" for name in ("time", *DIVIDENDS.known)]
    for ours in columns or {}:
        if "." in ours and ours not in names:
            raise ParameterError(
                f"columns: one of another table must be among {', '.join(names)}, got "
                f"{repr_plain(ours)}" + did_you_mean(ours, names)
            )
    return {ours: str(theirs) for ours, theirs in (columns or {}).items()}


def _read_between(
    between: tuple[TimeLike | None, TimeLike | None] | None,
) -> tuple[int | None, int | None]:
    if between is None:
        return None, None
    start, end = between
    return (
        None if start is None else to_nanoseconds(start, "between, start"),
        None if end is None else to_nanoseconds(end, "between, end"),
    )
