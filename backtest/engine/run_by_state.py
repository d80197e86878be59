"""Parts of a run by the state of its market: bull and bear markets, calm and stress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base.ranges import Choice
from backtest.base.units import DAY, YEAR_DAYS, BoolArray, FloatArray, IntArray
from backtest.engine.bar_loop import RECORDED
from backtest.engine.result_tables import value_of
from backtest.measures.market_states import PHASES, THIRDS, MarketState, find_bulls, find_thirds
from backtest.measures.part_measures import PART_METRICS, RunBars, measure_part
from backtest.measures.tally import NEAR

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord

TRADES = ("fill", "stop", "trailing_stop", "equity_stop", "take_profit", "liquidation")
"""Kinds of events whose amounts are traded notionals."""


def tabulate_parts(result: RunRecord, by: MarketState) -> pd.DataFrame:
    """Return the measures of the parts of a run, as :meth:`Result.measures_by` does."""
    Choice("phase", "volatility").check("by", by, where="Result.measures_by, by")
    names = PHASES if by == "phase" else THIRDS
    group = find_phase(result) if by == "phase" else find_volatility(result)
    run = gather_bars(result)
    years = np.bincount(run.sample, weights=run.years, minlength=len(group))
    rows = {
        name: {
            "days": float(years[group == k].sum()) * YEAR_DAYS,
            **measure_part(run, group == k, result.span.periods),
        }
        for k, name in enumerate(names)
        if np.any(group == k)
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["days", *PART_METRICS])
    return table.rename_axis(by)


def find_phase(result: RunRecord) -> IntArray:
    """Return the phase of the market at the last bar of each sampling period."""
    is_bull = find_bulls(result.mark)[result.ends_sample != 0.0]
    return np.where(is_bull, 0, 1)


def find_volatility(result: RunRecord) -> IntArray:
    """Return the third of the volatility forecast at the close before each sampling period."""
    forecast = result.volatility_forecast
    ends = np.flatnonzero(result.ends_sample)
    before = np.concatenate(([np.nan], forecast[ends[:-1]]))
    return find_thirds(before)


def gather_bars(result: RunRecord) -> RunBars:
    """Return what the measures of parts need of a run."""
    book = {name: result.of_account(name) for name in RECORDED}
    unit = np.concatenate(([result.tally.first_unit], book["unit"]))
    closes = np.concatenate(([result.span.start], result.span.closes))
    ends = result.ends_sample != 0.0
    counts = count_events(result)
    is_cut = counts["liquidations"] + counts["stops"] + counts["take_profits"] > 0.0
    drag, carry = measure_decay(result, book, result.read_path(slice(None)).moves, is_cut)
    return RunBars(
        samples=result.samples,
        path=result.compare_path(slice(None)),
        growth=np.divide(unit[1:], unit[:-1], out=np.ones(len(closes) - 1), where=unit[:-1] > 0.0),
        years=np.diff(closes) / (YEAR_DAYS * DAY),
        book=book,
        counts=counts,
        margin_ratio=result.bars["margin_ratio"].to_numpy(),
        drag=drag,
        carry=carry,
        sample=np.cumsum(ends) - ends,
    )


def count_events(result: RunRecord) -> dict[str, FloatArray]:
    """Return the events of each bar by kind, the traded notional, and closes near liquidation."""
    events, n = result.events, len(result.time)
    kind = events["kind"].astype(str).to_numpy()
    rows = np.searchsorted(result.time, pd.DatetimeIndex(events["time"]).as_unit("ns").asi8)
    amount = np.where(np.isin(kind, TRADES), events["amount"].to_numpy(), 0.0)

    def count(*names: str) -> FloatArray:
        return np.bincount(rows[np.isin(kind, names)], minlength=n).astype(np.float64)

    price, mark = result.bars["liquidation_price"].to_numpy(), result.mark
    is_long = result.of_account("position") > 0.0
    near = np.where(is_long, price >= mark / (1.0 + NEAR), price <= mark / (1.0 - NEAR))
    return {
        "liquidations": count("liquidation"),
        "stops": count("stop", "trailing_stop", "equity_stop"),
        "take_profits": count("take_profit"),
        "margin_calls": count("margin_call"),
        "calls_met": count("call_met"),
        "calls_failed": count("call_failed"),
        "ruined": count("ruin"),
        "traded": np.bincount(rows, weights=amount, minlength=n).astype(np.float64),
        "near": near.astype(np.float64),
    }


def measure_decay(
    result: RunRecord, book: dict[str, FloatArray], moves: FloatArray, is_cut: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return the log growth that each bar lost to volatility and to carry.

    ``is_cut`` marks bars with a stop or liquidation, which have no volatility drag.
    """
    equity = np.concatenate(([np.nan], book["equity"][:-1]))
    gains = book["price_pnl"] + book["bad_debt"] - sum(book[name] for name in RECORDED[8:14])
    equity[0] = book["equity"][0] - gains[0] - book["flows"][0]
    before = equity + book["flows"]
    scale = np.divide(1.0, before, out=np.zeros_like(before), where=before > 0.0)
    carry = (book["funding"] + book["interest"] + book["fees"]) * scale
    value = value_of(result.venue, np.concatenate(([result.first_mark], result.mark[:-1])))
    is_known = ~np.isnan(moves) & (moves > -1.0) & ~is_cut
    held = np.where(is_known, book["position"] * np.abs(value) * scale, 0.0)
    grown = 1.0 + held * np.where(is_known, moves, 0.0)
    is_counted = is_known & (grown > 0.0)
    gone = held * np.log1p(moves, out=np.zeros_like(moves), where=is_counted)
    drag = gone - np.log(grown, out=np.zeros_like(grown), where=is_counted)
    return np.where(is_counted, drag, 0.0), carry
