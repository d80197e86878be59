"""Make the result of a run whose loop has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from backtest.account.portfolio_ledger import DELISTED
from backtest.account.portfolio_records import PEAK
from backtest.base.units import FloatArray, IntArray
from backtest.engine.benchmark import Benchmark, begin_moves, index_traded
from backtest.engine.frame_signals import describe_weights
from backtest.engine.lookahead.checked_signals import join_checks
from backtest.engine.manifest import RunTerms, write_manifest
from backtest.engine.no_fill import explain_no_fill, find_columns, is_cash, is_filled
from backtest.engine.portfolio_checks import warn_of_band, warn_of_delisting
from backtest.engine.portfolio_cuts import measure_book_cuts
from backtest.engine.portfolio_setup import Setup
from backtest.engine.record import Outcome
from backtest.engine.result import Result
from backtest.engine.run_before import find_before
from backtest.engine.run_data import Quotes
from backtest.engine.run_warnings import warn_of_outcome
from backtest.engine.signal_input import describe_signal
from backtest.engine.target_cuts_table import measure_cuts
from backtest.measures.run_span import RunSpan

Rows = Callable[[], Sequence[Mapping[str, Any]]]


def finish(setup: Setup, outcome: Any, *, calendar: str) -> Result:
    """Return the result of a run whose loop has ended, and warn of what came out."""
    markets, first, is_one = setup.markets, setup.first, setup.is_of_fast_loop
    closes = markets.time[first:] + markets.interval
    span = RunSpan(int(markets.time[first]), closes, first, setup.periods)
    benchmark = setup.benchmark
    if not is_one and benchmark is None:
        benchmark = index_traded(markets, setup.venues, setup.signal, first)
    is_resumed = setup.resume is not None
    return Result(
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
        first_peak=find_peak(setup),
        record=outcome.record,
        entries=outcome.entries,
        quotes=read_quotes(setup),
        asset_marks=read_asset_marks(setup),
        ends_sample=setup.inputs.clock.ends_sample[first:],
        before=find_before(setup.resume, markets, first),
        benchmark=None
        if benchmark is None
        else begin_moves(benchmark.moves, first, is_resumed=is_resumed),
        markets=markets,
        inputs=charge_tiers(setup, outcome) if is_one else None,
        weights=None if is_one else setup.signal,
        measure_cuts=None if is_one else find_cuts(setup, outcome),
        no_fill=explain(setup, outcome, closes),
        traded=outcome.traded,
    )


def describe_run(
    setup: Setup, outcome: Any, span: RunSpan, benchmark: Benchmark | None, calendar: str
) -> dict[str, Any]:
    """Return the manifest of a run."""
    describe = describe_signal if setup.is_of_fast_loop else describe_weights
    compared = "" if benchmark is None else benchmark.text
    checks = "; ".join(dict.fromkeys(each.causality for each in setup.panelists))
    terms = RunTerms(
        is_panel=not setup.is_of_fast_loop,
        markets=setup.markets,
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=setup.account,
        signal=describe(setup.given, setup.signal),
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


def find_cuts(setup: Setup, outcome: Outcome) -> Rows:
    """Return what measures the rows of ``target_cuts``, which is slower than the run itself."""
    if not setup.is_of_fast_loop:
        return partial(measure_book_cuts, setup, outcome)
    inputs = charge_tiers(setup, outcome)
    return partial(measure_cuts, inputs, outcome.record, outcome.entries, setup.first)


def charge_tiers(setup: Setup, outcome: Outcome) -> Any:
    """Return the inputs of a run of one position, with the fee tiers that were charged."""
    inputs = setup.inputs
    if inputs.fees is None:
        return inputs
    return inputs._replace(fees=inputs.fees._replace(charged=outcome.charged))


def explain(setup: Setup, outcome: Outcome, closes: IntArray) -> str:
    """Warn of what a run did; return why it filled no order."""
    markets, level = setup.markets, outcome.of_positions("target")
    if not setup.is_of_fast_loop:
        weights = setup.signal.T[setup.first :]
        targets = np.multiply(level, weights, out=np.zeros_like(level), where=weights != 0.0)
        warn_of_band(setup.account, markets, targets)
        warn_of_delisting(markets, outcome.entries, DELISTED)
    no_fill = ""
    if not is_filled(outcome):
        no_fill = explain_no_fill(setup, outcome, find_cuts(setup, outcome)())
    infinite = np.isinf(level)
    highest = np.where(infinite.any(axis=1), np.inf, 0.0) if infinite.any() else np.zeros(1)
    said = "" if is_cash(find_columns(setup), level) else no_fill
    warn_of_outcome(name_boundless(setup, level), said, highest, closes)
    return no_fill


def name_boundless(setup: Setup, level: FloatArray) -> str:
    """Return the policies for a warning; those that asked for an infinite leverage, if any did."""
    is_boundless = np.atleast_1d(np.isinf(level).any(axis=0))
    chosen = [
        (name, type(setup.policies[name]).__name__)
        for name, boundless in zip(setup.markets.names, is_boundless, strict=True)
        if boundless or not is_boundless.any()
    ]
    kinds = ", ".join(dict.fromkeys(kind for _, kind in chosen))
    if setup.is_of_fast_loop or not is_boundless.any():
        return kinds
    return f"{kinds} of {', '.join(name for name, _ in chosen)}"


def find_peak(setup: Setup) -> float:
    """Return the highest unit value before the first bar."""
    account, resume = setup.account, setup.resume
    if resume is not None:
        state = resume.state
        return float(state.peak if setup.is_of_fast_loop else state.wallet[PEAK])
    backing = 0.0
    for each, price in zip(account.collateral, list_asset_prices(setup), strict=True):
        backing += each.amount * price
    return account.capital + account.reserve + backing


def list_asset_prices(setup: Setup) -> Any:
    """Return the prices of collateral at the first open; none of one position."""
    return () if setup.is_of_fast_loop else setup.inputs.feed.asset_open[:, setup.first]


def read_asset_marks(setup: Setup) -> FloatArray:
    """Return the mark closes of the collateral, of shape (n_bars, C)."""
    first = setup.first
    if setup.is_of_fast_loop:
        return np.empty((setup.markets.n_bars - first, 0))
    return np.ascontiguousarray(setup.inputs.feed.asset_mark_close[:, first:].T)


def read_quotes(setup: Setup) -> Quotes:
    """Return prices, signals and multipliers of the bars of a run, of shape (n_bars, n)."""
    first, feed = setup.first, setup.inputs.feed
    names = ("close", "mark_close", "mark_low", "mark_high", "signal", "multiplier", "initial")
    arrays = [getattr(feed, name) for name in (*names, "low", "high")]
    if setup.is_of_fast_loop:
        arrays[4] = setup.panelists[0].market.signal  # as the policy saw it
        arrays = [each[:, None] for each in arrays]
    return Quotes(*(each if len(each) == 1 else each[first:] for each in arrays))
