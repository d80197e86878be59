"""bt.run, what it makes of the record, and runs that change their policy on given days."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core, results
from backtest import market as m
from backtest.account import AccountState
from backtest.account.events import Event
from backtest.core import Progress
from backtest.core.code_names import pd
from backtest.engine.batch import Compile, Switch, run_account
from backtest.engine.checks import warn_once
from backtest.engine.conditions import AnyPolicy, Conditions, cut, end_expired, plain
from backtest.engine.held_options import read_options
from backtest.engine.inputs import start_account_state
from backtest.engine.policies import ObservedPolicy, observe_overlay, show_terms
from backtest.engine.run_setup import Setup, set_up_run
from backtest.engine.target_cuts import explain, list_cut_rows
from backtest.indicators import NOTHING_SEEN, forecast_volatility
from backtest.margin import compute_collateral_value
from backtest.market import Market, find_clock, find_facts, label_names
from backtest.options.option_schedule import schedule_options
from backtest.policies import Policy, trades_options
from backtest.policies.observing import observe_checked
from backtest.results.benchmark import Benchmark, BenchmarkLike
from backtest.results.manifest import change_policy, write_manifest
from backtest.results.record import Outcome
from backtest.results.result import Result
from backtest.results.run_data import Before, ChartedColumn, Quotes, find_stands, share_causes
from backtest.results.run_record import RunRecord
from backtest.signals.computed import write_note
from backtest.signals.rules import SignalRule, resolve_signal


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


# Runs that change their policy on given days.

LEAST = 2
"""Least bars of an instrument on which columns are computed."""


class Segment(NamedTuple):
    """Bars ``first`` to ``stop``, in which some policies, rule and overlay decide.

    ``rule`` and ``overlay`` are None where they are those of the test.
    """

    first: int
    stop: int
    policy: Policy | Mapping[str, Policy]
    rule: SignalRule | None = None
    overlay: Policy | None = None


def merge_segments(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments of which no two that adjoin decide alike."""
    merged: list[Segment] = []
    for segment in segments:
        if merged and merged[-1][2:] == segment[2:]:
            merged[-1] = merged[-1]._replace(stop=segment.stop)
        else:
            merged.append(segment)
    return merged


def run_switched(test: Conditions, segments: Sequence[Segment], *, compile: bool = True) -> Result:  # noqa: A002 - as that of bt.run
    """Run an account from the first bar of its first segment; each segment has its own policies.

    ``segments`` adjoin, in the order of time. Where they have rules for the signal, the signal of
    the test is that of each rule in its segment.
    """
    market = end_expired(test.market, test.venue)
    markets = m.as_markets(market)
    signal = resolve_signal(test.signal, market)
    weights = weigh_segments(markets, segments)
    if weights:
        signal = join_weights(markets, segments, weights)

    start: core.TimeLike = core.utc_index(markets.time)[segments[0].first]
    switched = test.replace(market=market, signal=signal, start=start)
    setup = set_up_run(switched, segments[0].policy)
    switches = []
    for k, segment in enumerate(segments):
        weights_of_segment = None
        if weights:
            weights_of_segment = weights[k]
        observed = observe_segment(setup, segment, weights_of_segment)
        switches.append(Switch(segment.first, observed))

    begun = setup._replace(observed=switches[0].observed)
    outcome = run_account(begun, is_compiled=compile, progress=None, switches=switches[1:])
    result = finish(setup, outcome)
    if len(segments) == 1:
        return result
    return describe_switches(result, segments)


def weigh_segments(markets: m.Markets, segments: Sequence[Segment]) -> list[core.FloatArray]:
    """Return the weights of the rule of each segment, each of shape (n, n_seen).

    A segment is bars in which the same policies decide. The list is empty if the signal is that of
    the test.
    """
    seen = find_clock(markets).seen
    weights = []
    for segment in segments:
        if segment.rule is not None:
            weighed = segment.rule.weigh(seen, is_checked=False)
            weights.append(m.read_weights(weighed, seen))
    return weights


def join_weights(
    markets: m.Markets, segments: Sequence[Segment], weights: Sequence[core.FloatArray]
) -> Any:
    """Join the weights of segments to one signal for the whole run, as a frame.

    ``weights`` has an array of shape (n, n_seen) for each segment, which counts from the first bar
    of the segment on. The frame is named by the rule of the first segment that has one, and by how
    many other rules there are.
    """
    clock = find_clock(markets)
    joined = weights[0].copy()
    for of_segment, segment in zip(weights, segments, strict=True):
        first = clock.count(segment.first)
        joined[:, first:] = of_segment[:, first:]

    rules = [segment.rule for segment in segments if segment.rule is not None]
    texts = list(dict.fromkeys(rule.text() for rule in rules))
    text = texts[0]
    n_others = len(texts) - 1
    if n_others > 0:
        text = f"{text} (and {n_others} others)"
    return write_note(m.weights_to_frame(joined, clock.seen), text=text)


def describe_switches(result: Result, segments: Sequence[Segment]) -> Result:
    """Write what decided in each segment of a run into the manifest of its result.

    A segment is bars in which the same policies decide. Policies and overlay of the result are
    those of the last segment.
    """
    markets: Any = result.markets
    rows = []
    for segment in segments:
        policies = segment.policy
        if not isinstance(policies, Mapping):
            policies = {"": policies}
        settings: Any = {name: policy.settings() for name, policy in policies.items()}

        row = {
            "from": core.format_time(int(markets.time[segment.first])),
            "settings": settings.get("", settings),
        }
        if segment.overlay is not None:
            row["overlay"] = repr(segment.overlay)
        if segment.rule is not None:
            row["signal"] = segment.rule.text()
        rows.append(row)

    text = f"{result.manifest['policy']['name']}(re-optimized {len(segments) - 1} times)"
    has_traded = result.tally.money.traded > 0.0
    return dataclasses.replace(
        result,
        policies={name: core.pick_value(segments[-1].policy, name) for name in result.names},
        charted={},
        overlay=segments[-1].overlay or result.overlay,
        manifest=change_policy(result.manifest, {"text": text, "switches": rows}),
        no_fill="" if has_traded else "no parameters of any segment traded",
    )


def observe_segment(
    setup: Setup, segment: Segment, weights: core.FloatArray | None
) -> list[ObservedPolicy]:
    """Return the policies of a segment with their columns, as known at its last bar.

    A segment is bars in which the same policies decide. ``setup`` has the policies of the whole run
    and the bars that each sees. ``weights`` are the signals of the segment's rule for all bars
    seen, (n, n_bars), None for those of the setup. The overlay is observed again if it is new.
    """
    n = len(setup.markets)
    clock = find_clock(setup.markets)
    n_seen = clock.count(segment.stop)

    observed = []
    for i, before in enumerate(setup.observed[:n]):
        policy: Policy = core.pick_value(segment.policy, setup.markets.names[i])
        signal = None
        if weights is not None:
            first, stop = clock.seen.spans[i]
            signal = np.clip(weights[i, first:stop], -1.0, 1.0)
        observed.append(observe_known(before, policy, n_seen, signal))

    # An overlay comes after the policies of instruments.
    observed = show_terms(observed, setup.account, setup.venues)
    if segment.overlay is None or segment.overlay == setup.overlay:
        return [*observed, *setup.observed[n:]]
    signals = clock.pick(setup.signal)
    return [*observed, *observe_overlay(segment.overlay, clock.seen, signals)]


def observe_known(
    before: ObservedPolicy, policy: Policy, n_seen: int, signal: core.FloatArray | None
) -> ObservedPolicy:
    """Return a policy in place of the one before, with the columns that it knows after some bars.

    ``n_seen`` counts the bars that the run has seen; the market of a policy may begin later. Where
    its bars are too few, columns are NaN. ``signal``, one for each bar of its market, replaces
    that of the market; None keeps it.
    """
    market = before.market
    if signal is not None:
        market = market.with_signal(signal)

    n_known = min(n_seen - before.first, market.n_bars)
    columns = observe_until(policy, market, n_known)
    if not columns:
        columns = {name: np.full(market.n_bars, np.nan) for name in before.columns}
    return before._replace(policy=policy, market=market, columns=columns)


def observe_until(policy: Policy, market: m.Market, stop: int) -> dict[str, core.FloatArray]:
    """Return the columns of a policy up to bar ``stop`` of a market, NaN from there on.

    Empty if the bars up to there are too few to observe.
    """
    if stop < LEAST:
        return {}
    columns, _ = observe_checked(policy, market.prefix(stop))
    unknown = np.full(market.n_bars - stop, np.nan)
    return {name: np.concatenate((values, unknown)) for name, values in columns.items()}


# The result of a record.


def finish(setup: Setup, outcome: Outcome, no_fills: str | None = None) -> Result:
    """Return the result of an account that has ended: its record, measures and manifest.

    ``no_fills`` says why nothing was filled where no policy decided.
    """
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
    begun = start_account_state(setup)
    first_unit, first_peak = find_first_unit(setup.resume, float(begun.wallet.unit))
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
        before=find_before(setup, begun),
        benchmark=read_moves(setup, benchmark),
        markets=markets,
        setup=again,
        target_cut_rows=rows,
        no_fill=explain(again, outcome, closes, rows, no_fills),
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


def find_first_unit(resume: RunRecord | None, begun: float) -> tuple[float, float]:
    """Return the value of a unit before the first bar of the account, and its peak so far.

    ``begun`` is that of a new account: money. A resumed run has the first value of the earlier run.
    """
    if resume is None:
        return begun, begun
    peak = max(resume.first_peak, float(resume.of_account("unit").max()))
    return resume.first_unit, peak


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
    """Return the columns that policies want drawn, by title, with their values at each close.

    A policy may decide on longer bars: then a close has the value of its last bar that has closed,
    NaN before the first.
    """
    closes = setup.markets.time[setup.first :] + setup.markets.interval
    labels = label_names(setup.markets).values()
    charted = {}
    for label, observed in zip(labels, setup.observed, strict=False):
        # At each close the last bar of the policy that has closed; -1 before the first.
        closes_of_policy = observed.market.time + observed.market.interval
        last_rows = np.searchsorted(closes_of_policy, closes, side="right") - 1
        for name, text in type(observed.policy).charts.items():
            if name not in observed.columns:
                continue

            last_values = observed.columns[name][np.maximum(last_rows, 0)]
            known = np.where(last_rows >= 0, last_values, np.nan)
            title = name
            if label:
                title = f"{name} of {label}"
            charted[title] = ChartedColumn(text, known)
    return charted


# What a run knew before its first bar.

TRAIL = "trail"


def find_trail(market: Market, seen: int) -> core.FloatArray:
    """Return the state of the volatility forecast after the first ``seen`` bars of a market.

    A later forecast goes on from it. The market keeps the last answer, as a search begins many runs
    at the same bar.
    """
    facts = find_facts(market)
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


def find_end(earlier: RunRecord, n: int) -> Before:
    """Return what a run of n instruments knew at its last close, for the run that resumes it."""
    # With one position there are no causes to tell apart.
    stands = np.zeros(n + 3)
    if not earlier.has_one_position:
        stands = find_stands(earlier, earlier.record.n_bars)

    _forecasts, trails_at_end = earlier.volatilities
    return Before(
        mark=earlier.marks[-1],
        signal=np.array(earlier.state.positions.column("signal")),
        unrealized=np.asarray(earlier.unrealized[-1]),
        stands=stands,
        trails=trails_at_end,
    )


def find_before(setup: Setup, begun: AccountState) -> Before:
    """Return what was known at the close before the first bar of a run, for its results.

    Of a new account, whose state is ``begun``, that is only the capital, and the prices that its
    markets have before the run. Of a resumed run it is what the earlier run knew at its end.

    ``stands`` are n + 3 numbers, money, as in :func:`.find_stands`: where the causes of a
    liquidation stood at the last high, of n instruments, of collateral and of flows; and last the
    excess of the pool then. ``trails`` are what the forecast of each volatility remembers.
    """
    markets = setup.markets
    n = len(markets)
    if setup.resume is not None:
        return find_end(setup.resume, n)

    # A market is listed in a span of bars; its forecast has seen those before the run.
    trails = []
    for market, (first_listed, after_last) in zip(
        markets.values(), markets.spans.tolist(), strict=True
    ):
        n_seen = max(min(setup.first, after_last) - first_listed, 0)
        trails.append(find_trail(market, n_seen))

    # No cause has moved anything yet. The excess of the pool is all that the account has.
    backing = compute_collateral_value(setup.inputs.terms.rules.collateral, begun.held)
    stands = np.append(np.zeros(n + 2), setup.account.capital + backing)
    return Before(
        mark=np.full(n, np.nan),
        signal=np.zeros(n),
        unrealized=np.zeros(n),
        stands=stands,
        trails=np.array(trails),
    )
