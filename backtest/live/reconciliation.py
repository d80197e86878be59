"""Compare a replay with a venue's ledger, its balances or its equity: the first difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    IntArray,
    Number,
    ParameterError,
    did_you_mean,
    format_time,
    repr_plain,
)

if TYPE_CHECKING:
    from backtest.engine import Result

TERMS = {"fees": -1.0, "funding": -1.0, "interest": -1.0, "flows": 1.0, "liquidation_loss": -1.0}
LEVELS = ("equity", "balance")


class Reconciliation(NamedTuple):
    time: pd.Timestamp | None
    term: str
    ours: float
    theirs: float
    bars: int

    @property
    def difference(self) -> float:
        return self.theirs - self.ours

    def __str__(self) -> str:
        if self.time is None:
            return f"no difference of {self.term} in {self.bars:,} bars"
        return (
            f"first difference in the bar of {self.time:%Y-%m-%d %H:%M} UTC: {self.term} "
            f"{self.ours:.10g} here, {self.theirs:.10g} there ({self.difference:+.10g})"
        )


def reconcile_replay(replay: Result, given: Any, tolerance: float) -> Reconciliation:
    Number(0.0, 1.0).check("tolerance", tolerance)
    if isinstance(given, pd.Series):
        given = given.rename("equity").rename_axis("time").reset_index()
    if not isinstance(given, pd.DataFrame):
        raise ParameterError(
            f"a ledger must be a DataFrame, or a Series of the equity, got {repr_plain(given)}"
        )
    named = "time" not in given and given.index.name == "time"
    table = given.reset_index() if named else given
    level = next((name for name in LEVELS if name in table), None)
    if level is not None:
        return compare_level(replay, table, level, tolerance)
    missing = [name for name in ("time", "term", "amount") if name not in table]
    if missing:
        raise ParameterError(
            f"a ledger must have time, term and amount, or time and equity, got no "
            f"{', '.join(missing)} in {', '.join(map(str, table.columns))}"
        )
    return compare_terms(replay, table, tolerance)


def find_bars(replay: Result, table: pd.DataFrame, *, at_close: bool) -> IntArray:
    try:
        stamps = pd.DatetimeIndex(pd.to_datetime(table["time"], utc=True)).as_unit("ns").asi8
    except (ValueError, TypeError) as error:
        raise ParameterError(f"the times of a ledger must be dates, got {error}") from error
    edges = replay.span.closes if at_close else replay.time
    found: IntArray = np.searchsorted(edges, stamps, side="right") - 1
    found[stamps >= edges[-1] + replay.interval] = -1
    if not (found >= 0).any():
        raise ParameterError(
            f"a ledger must have rows within the replay, from {format_time(int(edges[0]))} to "
            f"{format_time(int(edges[-1]) + replay.interval)}, got {len(stamps)} outside"
        )
    return found


def read_amounts(table: pd.DataFrame, column: str) -> FloatArray:
    amounts = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(amounts).all():
        k = int(np.argmin(np.isfinite(amounts)))
        raise ParameterError(
            f"{column} must be a finite number, got {table[column].iloc[k]!r} (row {k} of the "
            "ledger)"
        )
    return amounts


def compare_level(
    replay: Result, table: pd.DataFrame, level: str, tolerance: float
) -> Reconciliation:
    bars = find_bars(replay, table, at_close=True)
    ours = replay.of_account("equity") if level == "equity" else replay.closes.balance
    bars, theirs = bars[bars >= 0], read_amounts(table, level)[bars >= 0]
    scale = np.maximum(np.abs(ours[bars]), np.abs(theirs)) + 1e-300
    off = np.flatnonzero(np.abs(theirs - ours[bars]) > tolerance * scale)
    if not len(off):
        return Reconciliation(None, level, 0.0, 0.0, len(bars))
    k = int(off[0])
    t = int(bars[k])
    return Reconciliation(stamp(replay, t), level, float(ours[t]), float(theirs[k]), len(bars))


def compare_terms(replay: Result, table: pd.DataFrame, tolerance: float) -> Reconciliation:
    bars = find_bars(replay, table, at_close=False)
    amounts = read_amounts(table, "amount")
    n, equity = replay.record.n_bars, np.abs(replay.of_account("equity")) + 1e-300
    first: tuple[int, str, float, float] | None = None
    terms = check_terms(table["term"].astype(str))
    compared = [term for term in TERMS if ((terms == term) & (bars >= 0)).any()]
    for term in compared:
        rows, sign = (terms == term).to_numpy() & (bars >= 0), TERMS[term]
        theirs = np.bincount(bars[rows], weights=amounts[rows], minlength=n)
        ours = sign * replay.of_account(term)
        off = np.flatnonzero(np.abs(theirs - ours) > tolerance * equity)
        if len(off) and (first is None or off[0] < first[0]):
            t = int(off[0])
            first = (t, term, float(ours[t]), float(theirs[t]))
    if first is None:
        return Reconciliation(None, ", ".join(compared) or "any term", 0.0, 0.0, n)
    t, term, mine, other = first
    return Reconciliation(stamp(replay, t), term, mine, other, n)


def check_terms(terms: pd.Series) -> pd.Series:
    unknown = terms[~terms.isin([*TERMS, "other"])]
    for name in unknown[:1]:
        raise ParameterError(
            f"term must be one of {', '.join(TERMS)}, or other, which is not compared, got {name!r}"
            f"{did_you_mean(name, TERMS)}"
        )
    return terms


def stamp(replay: Result, t: int) -> pd.Timestamp:
    return pd.Timestamp(int(replay.time[t]), tz="UTC")
