"""bt.run, and the result that it makes of the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

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
from backtest.results.record import Outcome
from backtest.results.result import Result
from backtest.results.run_data import Before, ChartedColumn, Quotes, find_stands, share_causes
from backtest.results.run_record import Benchmark, BenchmarkLike


def count_unfilled(metrics: Mapping[str, core.FloatArray]) -> int:
    return int((np.asarray(metrics["turnover"]) == 0.0).sum())


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
        scheduled = cut(conditions, option_quantities)
        conditions = plain(conditions)
        conditions = conditions.replace(market=schedule_options(conditions.market, scheduled))
    setup = set_up_run(conditions, policy, resume=resume, benchmark=benchmark)
    return finish(setup, run_account(setup, is_compiled=compile, progress=progress))


def run_again(result: Result, setup: Setup, progress: Progress | None = None) -> Result:
    """Return the run of a changed setup of a result, without the warnings that it gave."""
    is_compiled = result.manifest["compiled"] == "yes"
    with warn_once(is_first=False):
        return finish(setup, run_account(setup, is_compiled=is_compiled, progress=progress))


# The result of a record.


def finish(setup: Setup, outcome: Outcome) -> Result:
    """Return the result of an account that has ended: its record, measures and manifest."""
    markets = setup.markets
    first = setup.first
    feed = setup.inputs.feed
    closes = markets.time[first:] + markets.interval
    span = results.RunSpan(int(markets.time[first]), closes, first, setup.periods)
    benchmark = setup.find_benchmark()

    options = read_options(setup, outcome)
    if options is None:
        warn_of_traders(setup)
    rows = list_cut_rows(markets.names, outcome.cuts)
    again = setup._replace(resume=None, is_compiled=outcome.is_compiled)
    first_unit, first_peak = find_first_unit(setup)
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
        first_peak=first_peak,
        first_unit=first_unit,
        record=outcome.record,
        entries=outcome.entries,
        quotes=read_quotes(setup),
        asset_marks=np.ascontiguousarray(feed.asset_mark_close[:, first:].T),
        ends_sample=setup.inputs.clock.ends_sample[first:],
        before=find_before(setup),
        benchmark=read_moves(setup, benchmark),
        markets=markets,
        setup=again,
        target_cut_rows=rows,
        no_fill=explain(again, outcome, closes, rows),
        traded=outcome.traded,
        options=options,
        charted=find_charted(setup),
    )
    if result.has_one_position or not np.any(outcome.entries["kind"] == Event.CAUSED):
        return result
    return dataclasses.replace(result, entries=share_causes(result))


def warn_of_traders(setup: Setup) -> None:
    """Warn of policies that trade options in a run that held none."""
    policies = (*setup.policies.values(), setup.overlay)
    for name in dict.fromkeys(type(x).__name__ for x in policies if trades_options(x)):
        core.warn_caller(
            f"{name} held no option: it ordered none, less than a lot, or none with a quote at the "
            "next open; what has an ask in the chain of a close can be bought",
            core.NoFillWarning,
        )


def find_first_unit(setup: Setup) -> tuple[float, float]:
    """Return the value of a unit before the first bar of the account, and its peak so far."""
    begun = float(start_account_state(setup).wallet.unit)
    before = setup.resume
    if before is None:
        return begun, begun
    peak = max(before.first_peak, float(before.of_account("unit").max()))
    return before.first_unit, peak


QUOTES = (
    "close",
    "mark_close",
    "mark_low",
    "mark_high",
    "signal",
    "multiplier",
    "initial",
    "low",
    "high",
)
"""Fields of the feed that a result holds, in the order of ``Quotes``."""


def read_quotes(setup: Setup) -> Quotes:
    """Return the quotes of the run, by bar or as one row."""
    feed = setup.inputs.feed
    if setup.markets.decision_interval:  # the loop has no signal between decisions
        feed = feed._replace(signal=setup.signal.T)

    fields = []
    for name in QUOTES:
        values = getattr(feed, name)
        fields.append(values if len(values) == 1 else values[setup.first :])
    return Quotes(*fields)


def read_moves(setup: Setup, benchmark: Benchmark | None) -> core.FloatArray | None:
    """Return the moves of the benchmark in the bars of a run: none in the first of an account."""
    if benchmark is None:
        return None
    moves = benchmark.moves[setup.first :].copy()
    if setup.resume is None:
        moves[0] = 0.0
    return moves


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


# What a run knew before its first bar.

TRAIL = "trail"


def find_trail(market: Market, seen: int) -> core.FloatArray:
    """Return what the forecast of volatility remembers of the first bars of a market.

    It is kept, as a search begins many runs at the same bar.
    """
    facts = vars(market)["facts"]
    last = facts.get(TRAIL)
    if last is not None and last[0] == seen:
        return np.array(last[1])
    _, trail = forecast_volatility(
        NOTHING_SEEN,
        market.time[:seen],
        market.close[:seen],
        market.interval,
        is_session=market.sessions,
    )
    facts[TRAIL] = (seen, trail)
    return np.array(trail)


def find_before(setup: Setup) -> Before:
    """Return what the run knew at the close before its first bar."""
    markets = setup.markets
    n = len(markets)
    resume = setup.resume
    if resume is not None:
        stands = np.zeros(n + 3)
        if not resume.has_one_position:
            stands = find_stands(resume, resume.record.n_bars)
        return Before(
            mark=resume.marks[-1],
            signal=np.array(resume.state.positions.column("signal")),
            unrealized=np.asarray(resume.unrealized[-1]),
            stands=stands,
            trails=resume.volatilities[1],
        )

    trails = []
    for market, (listed, gone) in zip(markets.values(), markets.spans.tolist(), strict=True):
        seen = max(min(setup.first, gone) - listed, 0)
        trails.append(find_trail(market, seen))
    held = start_account_state(setup).held
    backing = compute_collateral_value(setup.inputs.terms.rules.collateral, held)
    return Before(
        mark=np.full(n, np.nan),
        signal=np.zeros(n),
        unrealized=np.zeros(n),
        stands=np.append(np.zeros(n + 2), setup.account.capital + backing),
        trails=np.array(trails),
    )
