"""What the caller says about data as it comes in, read and checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from backtest.base.errors import DataError, ParameterError, did_you_mean
from backtest.base.units import (
    SECOND,
    TimeLike,
    format_duration,
    format_time,
    parse_duration,
    to_nanoseconds,
)
from backtest.market.tables.frames import FUNDING, MARK
from backtest.market.tables.repairs import Repair
from backtest.market.tables.times import check_timezone

_GAPS = {"mark_gaps": ("last",), "funding_gaps": ("zero",)}


class ReadOptions(NamedTuple):
    """What is said of data where they come in, durations and times in ns.

    The first are the arguments of ``Market.from_frames`` and ``Market.load``; ``columns`` (our
    names and the file's), ``repairs``, ``bar_length`` (of bars made of trades) and ``decimal``
    (what stands before the decimals in a text) are those of an import.
    """

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

    @property
    def funding_text(self) -> str | None:
        """The interval of files of funding, as text."""
        return format_duration(self.funding_interval) if self.funding_interval else None

    def expression(self, paths: Sequence[object]) -> str:
        """Return the call of ``Market.load`` that says all this, without what is left out."""
        start, end = self.between
        span = tuple(None if time is None else time_text(time) for time in (start, end))
        named: dict[str, object] = {
            "instrument": self.instrument or None,
            "interval": format_duration(self.interval) if self.interval else None,
            "funding_interval": self.funding_text,
            "timezone": self.timezone,
            "mark_gaps": self.mark_gaps,
            "funding_gaps": self.funding_gaps,
            "sessions": self.sessions or None,
            "between": span if span != (None, None) else None,
        }
        parts = [repr(str(path)) for path in paths]
        parts += [f"{name}={value!r}" for name, value in named.items() if value is not None]
        return f"Market.load({', '.join(parts)})"


def time_text(time: int) -> str:
    """Return UTC ns as text that is read back to the same ns."""
    return format_time(time) if time % SECOND == 0 else pd.Timestamp(time).isoformat()


def read_options(
    *,
    instrument: str | None,
    interval: str | None,
    timezone: str | None,
    mark_gaps: str | None,
    funding_gaps: str | None,
    sessions: bool,
    between: tuple[TimeLike | None, TimeLike | None] | None,
    funding_interval: str | None = None,
) -> ReadOptions:
    """Return the arguments as numbers.

    Raises
    ------
    ParameterError
        If one is unknown or unreadable.
    """
    for name, value in (("mark_gaps", mark_gaps), ("funding_gaps", funding_gaps)):
        if value is not None and value not in _GAPS[name]:
            raise ParameterError(
                f"{name} must be {_GAPS[name][0]!r} or None, was {value!r}"
                + did_you_mean(str(value), _GAPS[name]),
                where=name,
                cure=f"give {name}={_GAPS[name][0]!r} to fill gaps, or leave it out to refuse them",
            )
    check_timezone(timezone)
    return ReadOptions(
        instrument=instrument or "",
        interval=None if interval is None else parse_duration(interval, where="interval"),
        timezone=timezone,
        mark_gaps=mark_gaps,
        funding_gaps=funding_gaps,
        sessions=sessions,
        between=_read_between(between),
        funding_interval=None
        if funding_interval is None
        else parse_duration(funding_interval, where="funding_interval"),
    )


def read_decimal(decimal: str) -> str:
    """Return what stands before the decimals in a text.

    Raises
    ------
    ParameterError
        If it is neither a point nor a comma.
    """
    if decimal not in (".", ","):
        raise ParameterError(
            f"decimal must be '.' or ',', was {decimal!r}",
            where="decimal",
            cure="give decimal=',' where a comma stands before the decimals",
        )
    return decimal


def read_names(columns: Mapping[str, str | int] | None) -> dict[str, str]:
    """Return which column of a file is what, as text.

    Parameters
    ----------
    columns : mapping of str to str or int, or None
        Our names and theirs, or the positions of theirs from 0; names of mark and funding begin
        with ``mark.`` and ``funding.``.

    Raises
    ------
    ParameterError
        If a name of mark or funding means nothing.
    """
    names = [f"mark.{name}" for name in ("time", *MARK.known)]
    names += [f"funding.{name}" for name in ("time", *FUNDING.known)]
    for ours in columns or {}:
        if "." in ours and ours not in names:
            raise ParameterError(
                f"a column of mark or funding must be a known one, was {ours!r}"
                + did_you_mean(ours, names),
                where="columns",
                cure=f"choose among {', '.join(names)}",
            )
    return {ours: str(theirs) for ours, theirs in (columns or {}).items()}


def check_frame(name: str, frame: object) -> None:
    """Refuse what is not a frame.

    Raises
    ------
    DataError
        If it is of another type.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"{name} must be a pandas DataFrame, was {type(frame).__name__}",
            where=f"Market.from_frames, {name}",
            cure="convert it with pd.DataFrame(...), indexed by UTC time",
        )


def _read_between(
    between: tuple[TimeLike | None, TimeLike | None] | None,
) -> tuple[int | None, int | None]:
    if between is None:
        return None, None
    if not isinstance(between, (tuple, list)) or len(between) != 2:
        raise ParameterError(
            f"between must be a pair of times, was {between!r}",
            where="between",
            cure="give between=('2021-01-01', '2022-01-01'); None leaves an end as it is",
        )
    start, end = between
    return (
        None if start is None else to_nanoseconds(start, where="between, start"),
        None if end is None else to_nanoseconds(end, where="between, end"),
    )
