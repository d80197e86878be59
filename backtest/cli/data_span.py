"""Which bars an experiment reads, and which of them its account lives through."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from backtest.base.errors import ParameterError
from backtest.base.units import TimeLike, format_time, to_nanoseconds
from backtest.market.market import Market

if TYPE_CHECKING:
    from backtest.cli.experiment import Draft


def find_span(draft: Draft, *, warms: bool) -> tuple[TimeLike | None, TimeLike | None]:
    """Return the first bar to take and the end of the last; None where nothing is said.

    Raises
    ------
    ParameterError
        If the account would begin before the data, end after them, or end before it begins.
    """
    data, run = draft.tables.get("data", {}), draft.tables.get("run", {})
    low, high = data.get("from"), data.get("to")
    start, end = run.get("start"), run.get("end")
    where = draft.place("run", ("start", "end"))
    if is_before(start, low, where) or is_before(high, end, where):
        raise ParameterError(
            f"start and end must lie inside the data, were {start or 'none'} to {end or 'none'} of "
            f"{low or 'none'} to {high or 'none'}",
            where=where,
            cure="leave --from and --to out, or choose them further apart",
        )
    if start is not None and end is not None and not is_before(start, end, where):
        raise ParameterError(
            f"end must lie after start, were {start} to {end}", where=where, cure="give a later end"
        )
    return (low if warms or start is None else start), (high if end is None else end)


def is_before(time: TimeLike | None, other: TimeLike | None, where: str) -> bool:
    """Tell whether a time comes before another; False where either is not said."""
    if time is None or other is None:
        return False
    return to_nanoseconds(time, where=where) < to_nanoseconds(other, where=where)


def check_start(draft: Draft, market: Market) -> TimeLike | None:
    """Return when the account begins, None for the first bar.

    Raises
    ------
    ParameterError
        If that is before the data.
    """
    start: TimeLike | None = draft.tables.get("run", {}).get("start")
    where = draft.place("run", ("start",))
    if start is not None and to_nanoseconds(start, where=where) < market.start:
        raise ParameterError(
            f"the account must begin inside the data, which begin {format_time(market.start)}, "
            f"was {start}",
            where=where,
            cure="give a later start, or more data",
        )
    return start


def find_cut(draft: Draft) -> tuple[str, ...]:
    """Return the words that cut the data where the accounts of a sweep or a search begin."""
    start = draft.tables.get("run", {}).get("start")
    return () if start is None else ("--from", str(start))


def warn_of_cold_start(draft: Draft) -> None:
    """Say so where the bars before the start warm no columns."""
    start = draft.tables.get("run", {}).get("start")
    if start is not None:
        warnings.warn(
            f"the data are cut at the start, {start}: here the bars before it do not warm the "
            "columns of policies, which trade as soon as those are known; `backtest run` and "
            "`backtest compare` keep them",
            stacklevel=2,
        )
