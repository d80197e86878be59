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
from backtest.engine.no_fill import explain_no_fill, is_cash
from backtest.engine.portfolio_checks import warn_of_band, warn_of_delisting
from backtest.engine.portfolio_cuts import measure_book_cuts
from backtest.engine.portfolio_no_fill import (
    explain_no_book_fill,
    find_unknown,
    name_boundless,
)
from backtest.engine.portfolio_setup import Setup
from backtest.engine.record import Outcome
from backtest.engine.result import Result
from backtest.engine.run_before import find_before
from backtest.engine.run_data import Quotes
from backtest.engine.run_warnings import warn_of_outcome
from backtest.engine.signal_input import describe_signal
from backtest.measures.run_span import RunSpan

Rows = Callable[[], Sequence[Mapping[str, Any]]]


def finish(setup: Setup, outcome: Any, *, calendar: str) -> Result:
    """Return the result of a run whose loop has ended, and warn of what came out."""
    markets, first, is_one = setup.markets, setup.first, setup.has_one_position
    closes = markets.time[first:] + markets.interval
    span = RunSpan(int(markets.time[first]), closes, first, setup.periods)
    explain = explain_one if is_one else explain_several
    no_fill, measure_cuts = explain(setup, outcome, closes)
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
        measure_cuts=measure_cuts,
        no_fill=no_fill,
        traded=outcome.traded,
    )


def describe_run(
    setup: Setup, outcome: Any, span: RunSpan, benchmark: Benchmark | None, calendar: str
) -> dict[str, Any]:
    """Return the manifest of a run."""
    describe = describe_signal if setup.has_one_position else describe_weights
    compared = "" if benchmark is None else benchmark.text
    checks = "; ".join(dict.fromkeys(each.causality for each in setup.panelists))
    terms = RunTerms(
        is_panel=not setup.has_one_position,
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


def explain_one(setup: Setup, outcome: Outcome, closes: IntArray) -> tuple[str, Rows | None]:
    """Warn of what a run of one position did; return why it filled no order."""
    (only,), (name,) = setup.panelists, setup.markets.names
    given = (charge_tiers(setup, outcome), only.columns, setup.venues[name], setup.account)
    no_fill = explain_no_fill(outcome, *given, setup.first)
    target = outcome.of_positions("target")[:, 0]
    said = "" if is_cash(only.columns, target) else no_fill
    warn_of_outcome(type(only.policy).__name__, said, target, closes)
    return no_fill, None


def charge_tiers(setup: Setup, outcome: Outcome) -> Any:
    """Return the inputs of a run of one position, with the fee tiers that were charged."""
    inputs = setup.inputs
    if inputs.fees is None:
        return inputs
    return inputs._replace(fees=inputs.fees._replace(charged=outcome.charged))


def explain_several(setup: Setup, outcome: Outcome, closes: IntArray) -> tuple[str, Rows | None]:
    """Warn of what a run of several positions did; return why it filled no order, and its cuts."""
    markets, first = setup.markets, setup.first
    level, weights = outcome.of_positions("target"), setup.signal.T[first:]
    targets = np.multiply(level, weights, out=np.zeros_like(level), where=weights != 0.0)
    warn_of_band(setup.account, markets, targets)
    warn_of_delisting(markets, outcome.entries, DELISTED)
    measure_cuts = partial(measure_book_cuts, setup, outcome)  # slower than the run itself
    no_fill = explain_no_book_fill(setup, outcome, measure_cuts)
    highest = np.where(np.isinf(level).any(axis=1), np.inf, 0.0)
    said = "" if is_cash(find_unknown(setup), level) else no_fill
    warn_of_outcome(name_boundless(setup, level), said, highest, closes)
    return no_fill, measure_cuts


def find_peak(setup: Setup) -> float:
    """Return the highest unit value before the first bar."""
    account, resume = setup.account, setup.resume
    if resume is not None:
        state = resume.state
        return float(state.peak if setup.has_one_position else state.wallet[PEAK])
    backing = 0.0
    for each, price in zip(account.collateral, list_asset_prices(setup), strict=True):
        backing += each.amount * price
    return account.capital + account.reserve + backing


def list_asset_prices(setup: Setup) -> Any:
    """Return the prices of collateral at the first open; none of one position."""
    return () if setup.has_one_position else setup.inputs.feed.asset_open[:, setup.first]


def read_asset_marks(setup: Setup) -> FloatArray:
    """Return the mark closes of the collateral, of shape (n_bars, C)."""
    first = setup.first
    if setup.has_one_position:
        return np.empty((setup.markets.n_bars - first, 0))
    return np.ascontiguousarray(setup.inputs.feed.asset_mark_close[:, first:].T)


def read_quotes(setup: Setup) -> Quotes:
    """Return prices, signals and multipliers of the bars of a run, of shape (n_bars, n)."""
    first, feed = setup.first, setup.inputs.feed
    names = ("close", "mark_close", "mark_low", "mark_high", "signal", "multiplier", "initial")
    arrays = [getattr(feed, name) for name in (*names, "low", "high")]
    if setup.has_one_position:
        arrays[4] = setup.panelists[0].market.signal  # as the policy saw it
        arrays = [each[:, None] for each in arrays]
    return Quotes(*(each if len(each) == 1 else each[first:] for each in arrays))
