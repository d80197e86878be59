"""Parts of a run by the state of its market: bull and bear markets, calm and stress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base import BoolArray, Choice, FloatArray, IntArray
from backtest.base.units import DAY, TOLERANCE, YEAR_DAYS
from backtest.engine.result_tables import TRADES, value_of
from backtest.features import forecast_volatility
from backtest.features.liquidation_forecast import NO_BARS_SEEN
from backtest.measures import MarketState, RunBars, find_bulls, find_thirds, measure_part
from backtest.measures.market_states import PHASES, THIRDS
from backtest.measures.part_measures import MONEY, PART_METRICS
from backtest.measures.run_measures import COSTS
from backtest.measures.tally import NEAR

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord


def tabulate_parts(result: RunRecord, by: MarketState) -> pd.DataFrame:
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
    is_bull = find_bulls(read_level(result))[result.ends_sample != 0.0]
    return np.where(is_bull, 0, 1)


def find_volatility(result: RunRecord) -> IntArray:
    ends = np.flatnonzero(result.ends_sample)
    before = np.concatenate(([np.nan], read_forecast(result)[ends[:-1]]))
    return find_thirds(before)


def read_level(result: RunRecord) -> FloatArray:
    if result.has_one_instrument:
        return result.mark
    return np.asarray(np.cumprod(1.0 + result.market_returns), dtype=np.float64)


def read_forecast(result: RunRecord) -> FloatArray:
    if result.has_one_instrument:
        return result.volatilities[0][:, 0]
    given = (NO_BARS_SEEN, result.time, read_level(result), result.interval)
    return forecast_volatility(*given, is_session=result.is_session)[0]


def gather_bars(result: RunRecord) -> RunBars:
    series = {name: result.of_account(name) for name in (*MONEY, "unit", "equity", "top_up")}
    unit = np.concatenate(([result.tally.first_unit], series["unit"]))
    closes = np.concatenate(([result.span.start], result.span.closes))
    ends = result.ends_sample != 0.0
    counts = count_events(result)
    is_cut = counts["liquidations"] + counts["stops"] + counts["take_profits"] > 0.0
    drag, carry = measure_decay(result, series, is_cut)
    return RunBars(
        samples=result.samples,
        path=result.read_path(slice(None)),
        growth=np.divide(unit[1:], unit[:-1], out=np.ones(len(closes) - 1), where=unit[:-1] > 0.0),
        years=np.diff(closes) / (YEAR_DAYS * DAY),
        series=series,
        counts=counts,
        margin_ratio=measure_ratios(result),
        gross=result.exposures.abs().sum(axis=1).to_numpy(),
        drag=drag,
        carry=carry,
        sample=np.cumsum(ends) - ends,
    )


def count_events(result: RunRecord) -> dict[str, FloatArray]:
    events, n = result.events, len(result.time)
    kind = events["kind"].astype(str).to_numpy()
    rows = np.searchsorted(result.time, pd.DatetimeIndex(events["time"]).as_unit("ns").asi8)
    amount = np.where(np.isin(kind, TRADES), events["amount"].to_numpy(), 0.0)

    def count(*names: str) -> FloatArray:
        return np.bincount(rows[np.isin(kind, names)], minlength=n).astype(np.float64)

    price, mark = result.liquidation_prices, result.marks
    is_long = result.of_positions("quantity") > 0.0
    near = np.where(is_long, price >= mark / (1.0 + NEAR), price <= mark / (1.0 - NEAR))
    gross: FloatArray = result.exposures.abs().sum(axis=1).to_numpy()
    over = gross > result.account.max_gross_leverage * (1.0 + TOLERANCE)
    return {
        "liquidations": count("liquidation"),
        "stops": count("stop", "trailing_stop", "equity_stop", "time_stop"),
        "take_profits": count("take_profit"),
        "margin_calls": count("margin_call"),
        "calls_met": count("call_met"),
        "calls_failed": count("call_failed"),
        "ruined": count("ruin"),
        "traded": np.bincount(rows, weights=amount, minlength=n).astype(np.float64),
        "near": np.asarray(near.any(axis=1), dtype=np.float64),
        "over_cap": np.asarray(over, dtype=np.float64),
    }


def measure_ratios(result: RunRecord) -> FloatArray:
    ratio = result.bars["margin_ratio"].to_numpy()
    for i, mode in enumerate(result.modes):
        if mode == "isolated":
            ratio = np.maximum(ratio, result.own_margins[i][1])
    return ratio


def measure_decay(
    result: RunRecord, series: dict[str, FloatArray], is_cut: BoolArray
) -> tuple[FloatArray, FloatArray]:
    equity = np.concatenate(([np.nan], series["equity"][:-1]))
    more = result.of_account("collateral_pnl") - result.of_account("conversion")
    more = more + sum(result.list_fx().values())
    gains = series["price_pnl"] + series["bad_debt"] + more
    gains = gains - sum(series[name] for name in (*COSTS, "liquidation_loss"))
    equity[0] = series["equity"][0] - gains[0] - series["flows"][0]
    before = equity + series["flows"]
    scale = np.divide(1.0, before, out=np.zeros_like(before), where=before > 0.0)
    carry = (series["funding"] + series["interest"] + series["fees"]) * scale
    marks = np.vstack((np.broadcast_to(result.before.mark, result.marks[:1].shape), result.marks))
    each = zip(result.names, marks.T, strict=True)
    values = np.stack([value_of(result.venues[name], mark) for name, mark in each], axis=1)
    sizes = np.abs(values[:-1])
    moves = np.diff(values, axis=0) / sizes
    is_known = ~np.isnan(moves) & (moves > -1.0) & ~is_cut[:, None]
    turns = result.of_positions("quantity") * sizes * scale[:, None]
    held, moved = np.where(is_known, turns, 0.0), np.where(is_known, moves, 0.0)
    grown = 1.0 + (held * moved).sum(axis=1)
    gone = (held * np.log1p(moved)).sum(axis=1)
    is_counted = grown > 0.0
    drag = gone - np.log(grown, out=np.zeros_like(grown), where=is_counted)
    return np.where(is_counted, drag, 0.0), carry
