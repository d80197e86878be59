"""Make the result of a run whose loop has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account.contagion import CAUSED
from backtest.base import FloatArray, IntArray
from backtest.engine.benchmark import Benchmark, begin_moves
from backtest.engine.feed_arrays import read_assets
from backtest.engine.manifest import RunTerms, write_manifest
from backtest.engine.portfolio_inputs import start_account_state
from backtest.engine.record import Outcome
from backtest.engine.result import Result
from backtest.engine.run_closes import find_stands, share_causes
from backtest.engine.run_data import Before, Quotes
from backtest.engine.run_options import read_options
from backtest.engine.run_setup import Setup
from backtest.engine.run_warnings import warn_of_no_option, warn_of_outcome
from backtest.engine.signal_checks import join_checks
from backtest.engine.target_cuts import (
    explain_no_fill,
    find_columns,
    is_cash,
    is_filled,
    list_cut_rows,
)
from backtest.features import forecast_volatility
from backtest.features.liquidation_forecast import NO_BARS_SEEN
from backtest.measures import RunSpan
from backtest.venue import compute_collateral_value

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.engine.run_record import RunRecord
    from backtest.features import VolatilityState
    from backtest.market import Markets


QUOTES = (
    "close", "mark_close", "mark_low", "mark_high", "signal", "multiplier", "initial", "low",
    "high",
)  # fmt: skip


def finish(setup: Setup, outcome: Any, *, calendar: str) -> Result:
    markets, first = setup.markets, setup.first
    closes = markets.time[first:] + markets.interval
    span = RunSpan(int(markets.time[first]), closes, first, setup.periods)
    benchmark, assets = setup.find_benchmark(), read_assets(markets, setup.account)
    is_resumed = setup.resume is not None
    kept = setup._replace(resume=None, is_compiled=outcome.is_compiled)
    options = read_options(setup, outcome, outcome.legs, outcome.hedged)
    if options is None:
        warn_of_no_option([*setup.policies.values(), setup.overlay])
    rows = list_cut_rows(markets.names, outcome.cuts)
    result = Result(
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=setup.account,
        manifest=describe_run(setup, outcome, span, benchmark, calendar),
        names=markets.names,
        span=span,
        spans=np.clip(markets.spans - first, 0, None),
        interval=markets.interval,
        is_session=markets.sessions,
        tally=outcome.tally,
        state=outcome.state,
        memory=outcome.memory,
        started=setup.started,
        first_peak=find_peak(setup, assets["asset_open"][:, first]),
        record=outcome.record,
        entries=outcome.entries,
        quotes=read_quotes(setup),
        asset_marks=np.ascontiguousarray(assets["asset_mark_close"][:, first:].T),
        ends_sample=setup.inputs.clock.ends_sample[first:],
        before=find_before(setup),
        benchmark=None
        if benchmark is None
        else begin_moves(benchmark.moves, first, is_resumed=is_resumed),
        markets=markets,
        setup=kept,
        target_cut_rows=rows,
        no_fill=explain(kept, outcome, closes, rows),
        traded=outcome.traded,
        options=options,
    )
    if result.has_one_position or not np.any(outcome.entries[:, 1] == CAUSED):
        return result
    return dataclasses.replace(result, entries=share_causes(result))


def describe_run(
    setup: Setup, outcome: Any, span: RunSpan, benchmark: Benchmark | None, calendar: str
) -> dict[str, Any]:
    compared = "" if benchmark is None else benchmark.text
    checks = "; ".join(dict.fromkeys(each.causality for each in setup.observed))
    terms = RunTerms(
        markets=setup.markets,
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=setup.account,
        signal=setup.describe_signal(),
        sampling=setup.sampling,
        calendar=calendar,
    )
    return write_manifest(
        terms,
        span,
        plain_because=outcome.plain_because,
        causality=join_checks(checks, setup.given),
        resumed=None if setup.resume is None else setup.resume.manifest["id"],
        benchmark=None if setup.benchmark is None else compared,
        compared_with=compared,
    )


def explain(
    setup: Setup, outcome: Outcome, closes: IntArray, rows: Sequence[Mapping[str, Any]]
) -> str:
    level, no_fill = outcome.of_positions("target"), ""
    setup.warn(outcome)
    if not is_filled(outcome):
        no_fill = explain_no_fill(setup, outcome, rows)
    infinite = np.isinf(level)
    highest = np.where(infinite.any(axis=1), np.inf, 0.0) if infinite.any() else np.zeros(1)
    said = "" if is_cash(find_columns(setup), level) else no_fill
    warn_of_outcome(name_boundless(setup, level), said, highest, closes)
    return no_fill


def name_boundless(setup: Setup, level: FloatArray) -> str:
    is_boundless = np.atleast_1d(np.isinf(level).any(axis=0))
    chosen = [
        (name, type(setup.policies[name]).__name__)
        for name, boundless in zip(setup.markets.names, is_boundless, strict=True)
        if boundless or not is_boundless.any()
    ]
    kinds = ", ".join(dict.fromkeys(kind for _, kind in chosen))
    whose = ", ".join(name for name, _ in chosen)
    return f"{kinds} of {whose}" if is_boundless.any() else kinds


def find_peak(setup: Setup, prices: FloatArray) -> float:
    account, resume = setup.account, setup.resume
    if resume is not None:
        return max(resume.first_peak, float(resume.of_account("unit").max()))
    backing = 0.0
    for each, price in zip(account.collateral, prices, strict=True):
        backing += each.amount * price
    return account.capital + account.reserve + backing


def read_quotes(setup: Setup) -> Quotes:
    """Return prices, signals and multipliers of the bars of a run, of shape (n_bars, n)."""
    arrays = map(setup.quote, QUOTES)
    return Quotes(*(each if len(each) == 1 else each[setup.first :] for each in arrays))


def find_before(setup: Setup) -> Before:
    resume, markets, n = setup.resume, setup.markets, len(setup.markets)
    if resume is None:
        trails = tuple(start_trail(markets, i, setup.first) for i in range(n))
        return Before(np.full(n, np.nan), np.zeros(n), np.zeros(n), start_stands(setup), trails)
    return Before(
        mark=resume.marks[-1],
        signal=find_signals(resume),
        unrealized=resume.last_unrealized,
        stands=np.zeros(n + 3)
        if resume.has_one_position
        else find_stands(resume, resume.record.n_bars),
        trails=resume.last_trails,
    )


def start_stands(setup: Setup) -> FloatArray:
    stands = np.zeros(len(setup.markets) + 3)
    given = (setup.inputs, setup.account, setup.first)
    held = start_account_state(*given, has_overlay=False).held
    collateral = setup.inputs.terms.rules.collateral
    stands[-1] = setup.account.capital + compute_collateral_value(collateral, held)
    return stands


def find_signals(result: RunRecord) -> FloatArray:
    """Return the signals at the last close of a run, of shape (n,)."""
    return np.atleast_1d(np.array(result.state.signal, dtype=np.float64))


def start_trail(markets: Markets, i: int, first: int) -> VolatilityState:
    market = markets[markets.names[i]]
    seen = max(min(first, int(markets.spans[i, 1])) - int(markets.spans[i, 0]), 0)
    return forecast_volatility(
        NO_BARS_SEEN,
        market.time[:seen],
        market.close[:seen],
        market.interval,
        is_session=market.sessions,
    )[1]
