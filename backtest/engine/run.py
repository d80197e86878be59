"""bt.run, and the result that it makes of the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest import core, results
from backtest.account.events import Event
from backtest.core import Progress
from backtest.core.code_names import pd
from backtest.engine.batch import Compile, run_account
from backtest.engine.checks import warn_once
from backtest.engine.conditions import AnyPolicy, Conditions, cut, plain
from backtest.engine.held_options import read_options
from backtest.engine.inputs import start_account_state
from backtest.engine.run_setup import Setup, set_up_run
from backtest.engine.target_cuts import explain, list_cut_rows
from backtest.indicators import NOTHING_SEEN, forecast_volatility
from backtest.margin import compute_collateral_value
from backtest.market import Market, label_names
from backtest.options.option_schedule import schedule_options
from backtest.policies import trades_options
from backtest.results.manifest import write_manifest
from backtest.results.result import Result
from backtest.results.run_data import Before, ChartedColumn, Quotes, find_stands, share_causes
from backtest.results.run_record import BenchmarkLike


def count_unfilled(metrics: Mapping[str, core.FloatArray]) -> int:
    return int((np.asarray(metrics["turnover"]) == 0.0).sum())


QUOTES = (
    "close", "mark_close", "mark_low", "mark_high", "signal", "multiplier", "initial", "low",
    "high",
)  # fmt: skip


def finish(setup: Setup, outcome: Any) -> Result:
    """Return the result of an account that has ended: its record, measures and manifest."""
    markets, first = setup.markets, setup.first
    closes = markets.time[first:] + markets.interval
    span = results.RunSpan(int(markets.time[first]), closes, first, setup.periods)
    benchmark, feed = setup.find_benchmark(), setup.inputs.feed
    if markets.decision_interval:  # the loop has no signal between decisions
        feed = feed._replace(signal=setup.signal.T)
    quotes = [getattr(feed, name) for name in QUOTES]
    moves = None if benchmark is None else benchmark.moves[first:].copy()
    if moves is not None and setup.resume is None:
        moves[0] = 0.0
    kept = setup._replace(resume=None, is_compiled=outcome.is_compiled)
    options = read_options(setup, outcome)
    traders = [x for x in (*setup.policies.values(), setup.overlay) if trades_options(x)]
    for name in dict.fromkeys(type(x).__name__ for x in traders if options is None):
        core.warn_caller(
            f"{name} held no option: it ordered none, less than a lot, or none with a quote at the "
            "next open; what has an ask in the chain of a close can be bought",
            core.NoFillWarning,
        )
    rows = list_cut_rows(markets.names, outcome.cuts)
    before, peak = setup.resume, float(start_account_state(setup).wallet.unit)
    start = peak
    if before is not None:
        peak = max(before.first_peak, float(before.of_account("unit").max()))
    result = Result(
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=setup.account,
        manifest=write_manifest(
            setup,
            span,
            plain_because=outcome.plain_because,
            compared_with="" if benchmark is None else benchmark.text,
        ),
        names=markets.names,
        span=span,
        spans=np.clip(markets.spans - first, 0, None),
        interval=markets.interval,
        is_session=markets.sessions,
        tally=outcome.tally,
        state=outcome.state,
        memory=outcome.memory,
        started=setup.started,
        first_peak=peak,
        first_unit=start if before is None else before.first_unit,
        record=outcome.record,
        entries=outcome.entries,
        quotes=Quotes(*(x if len(x) == 1 else x[first:] for x in quotes)),
        asset_marks=np.ascontiguousarray(feed.asset_mark_close[:, first:].T),
        ends_sample=setup.inputs.clock.ends_sample[first:],
        before=find_before(setup),
        benchmark=moves,
        markets=markets,
        setup=kept,
        target_cut_rows=rows,
        no_fill=explain(kept, outcome, closes, rows),
        traded=outcome.traded,
        options=options,
        charted=find_charted(setup),
    )
    if result.has_one_position or not np.any(outcome.entries["kind"] == Event.CAUSED):
        return result
    return dataclasses.replace(result, entries=share_causes(result))


def find_charted(setup: Setup) -> dict[str, ChartedColumn]:
    """Return the columns that policies ask pages to draw, as known at the closes of the run."""
    closes = setup.markets.time[setup.first :] + setup.markets.interval
    labels = label_names(setup.markets).values()
    charted = {}
    for label, own in zip(labels, setup.observed, strict=False):
        decided = own.market.time + own.market.interval
        rows = np.searchsorted(decided, closes, side="right") - 1
        for name, text in type(own.policy).charts.items():
            if name not in own.columns:
                continue
            values = np.where(rows >= 0, own.columns[name][np.maximum(rows, 0)], np.nan)
            charted[f"{name} of {label}" if label else name] = ChartedColumn(text, values)
    return charted


TRAIL = "trail"


def find_trail(market: Market, seen: int) -> core.FloatArray:
    """Return what the forecast of volatility remembers of the first bars of a market.

    It is kept, as a search begins many runs at the same bar.
    """
    kept = vars(market)["facts"]
    last = kept.get(TRAIL)
    if last is not None and last[0] == seen:
        return np.array(last[1])
    history = market.time[:seen], market.close[:seen], market.interval
    trail = forecast_volatility(NOTHING_SEEN, *history, is_session=market.sessions)[1]
    kept[TRAIL] = seen, trail
    return np.array(trail)


def find_before(setup: Setup) -> Before:
    resume, markets, n = setup.resume, setup.markets, len(setup.markets)
    if resume is None:
        trails = []
        for market, (listed, gone) in zip(markets.values(), markets.spans.tolist(), strict=True):
            seen = max(min(setup.first, gone) - listed, 0)
            trails.append(find_trail(market, seen))
        held = start_account_state(setup).held
        backing = compute_collateral_value(setup.inputs.terms.rules.collateral, held)
        stands = np.append(np.zeros(n + 2), setup.account.capital + backing)
        return Before(np.full(n, np.nan), np.zeros(n), np.zeros(n), stands, np.array(trails))
    return Before(
        mark=resume.marks[-1],
        signal=np.array(resume.state.positions.column("signal")),
        unrealized=np.asarray(resume.unrealized[-1]),
        stands=np.zeros(n + 3)
        if resume.has_one_position
        else find_stands(resume, resume.record.n_bars),
        trails=resume.volatilities[1],
    )


@core.record_making
@core.checked_only("compile", "progress")
def run(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    compile: Compile = True,  # noqa: A002 - the word users know
    resume: Result | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
    option_quantities: pd.DataFrame | None = None,
) -> Result:
    """Answer :meth:`backtest.Backtest.run`, which documents it."""
    if option_quantities is not None:
        held = cut(conditions, option_quantities)
        conditions = plain(conditions)
        conditions = conditions.replace(market=schedule_options(conditions.market, held))
    setup = set_up_run(conditions, policy, resume=resume, benchmark=benchmark)
    return finish(setup, run_account(setup, is_compiled=compile, progress=progress))


def run_again(result: Result, setup: Setup, progress: Progress | None = None) -> Result:
    """Return the run of a changed setup of a result, without the warnings that it gave."""
    with warn_once(is_first=False):
        is_compiled = result.manifest["compiled"] == "yes"
        return finish(setup, run_account(setup, is_compiled=is_compiled, progress=progress))
