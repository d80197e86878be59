"""Which saved results are meant: the filters that listing and deleting share."""

from __future__ import annotations

import time
from typing import Annotated, Any

from backtest.cli.flags import option

FILTER = "Filter"

Kind = Annotated[
    list[str] | None, option(FILTER, "run, sweep, study or comparison; repeat for more.", "--kind")
]
PolicyPart = Annotated[str, option(FILTER, "Part of the policy's name or settings.", "--policy")]
Where = Annotated[
    list[str] | None,
    option(FILTER, "A bound on a measure: 'sharpe>1'; repeat for more.", "--where"),
]


def read_wanted(text: str, kind: list[str] | None, policy: str, where: list[str] | None) -> Any:
    """Return which results are meant."""
    from backtest.store import Wanted, read_bound, read_kinds  # noqa: PLC0415 - loads much

    bounds = tuple(map(read_bound, where or ()))
    return Wanted(read_kinds(kind or ()), policy, text, bounds)


def read_time(text: str, flag: str) -> int:
    """Return a time that was said as a date, or as so long ago."""
    from backtest.store import read_moment  # noqa: PLC0415 - loads much

    return read_moment(text, time.time_ns(), where=flag)
