"""bt.run, what it makes of the record, and runs that change their policy on given days."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core, results
from backtest import market as m
from backtest.account.cut_counts import ALL, ASKED, CAUSES, COUNT, CUT, DAYS, DISTANCE, HELD
from backtest.account.events import Entries, Event
from backtest.core import Progress
from backtest.core.code_names import pd
from backtest.engine.batch import Compile, Switch, run_account
from backtest.engine.checks import warn_of_band, warn_once
from backtest.engine.conditions import AnyPolicy, Conditions, cut, end_expired, plain
from backtest.engine.inputs import start_account_state
from backtest.engine.policies import ObservedPolicy, observe_overlay, show_terms
from backtest.engine.run_setup import Setup, set_up_run
from backtest.indicators import NOTHING_SEEN, forecast_volatility
from backtest.margin import compute_collateral_value
from backtest.market import Market, find_clock, label_names
from backtest.options.option_schedule import schedule_options
from backtest.policies import Policy, trades_options
from backtest.policies.observing import observe_checked
from backtest.results.manifest import change_policy, write_manifest
from backtest.results.record import OptionFields, Outcome
from backtest.results.result import Result
from backtest.results.run_data import (
    Before,
    ChartedColumn,
    Quotes,
    RunOptions,
    find_stands,
    share_causes,
)
from backtest.results.run_record import BenchmarkLike
from backtest.signals.computed import write_note
from backtest.signals.rules import SignalRule, resolve_signal

LEAST = 2
"""Least bars of an instrument on which columns are computed."""


class Segment(NamedTuple):
    first: int
    stop: int
    policy: Policy | Mapping[str, Policy]
    rule: SignalRule | None = None
    overlay: Policy | None = None


def merge_segments(segments: Sequence[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for each in segments:
        if merged and merged[-1][2:] == each[2:]:
            merged[-1] = merged[-1]._replace(stop=each.stop)
        else:
            merged.append(each)
    return merged


def run_switched(test: Conditions, segments: Sequence[Segment], *, compile: bool = True) -> Result:  # noqa: A002 - as that of bt.run
    """Run an account from the first bar of its first segment; each segment has its own policies."""
    market = end_expired(test.market, test.venue)
    markets, given = m.as_markets(market), resolve_signal(test.signal, market)
    clock, rules = find_clock(markets), [each.rule for each in segments if each.rule is not None]
    weights = [m.read_weights(x.weigh(clock.seen, is_checked=False), clock.seen) for x in rules]
    if rules:
        joined = weights[0].copy()
        for own, segment in zip(weights, segments, strict=True):
            joined[:, clock.count(segment.first) :] = own[:, clock.count(segment.first) :]
        texts = dict.fromkeys(each.text() for each in rules)
        text = next(iter(texts))
        text += f" (and {len(texts) - 1} others)" * (len(texts) > 1)
        given = write_note(m.weights_to_frame(joined, clock.seen), text=text)
    start: core.TimeLike = core.utc_index(markets.time)[segments[0].first]
    setup = set_up_run(test.replace(market=market, signal=given, start=start), segments[0].policy)
    given_weights: Sequence[core.FloatArray | None] = weights or [None] * len(segments)
    parts = [observe_segment(setup, *each) for each in zip(segments, given_weights, strict=True)]
    switches = [Switch(*each) for each in zip([s.first for s in segments], parts, strict=True)]
    begun = setup._replace(observed=parts[0])
    outcome = run_account(begun, is_compiled=compile, progress=None, switches=switches[1:])
    result = finish(setup, outcome)
    if len(segments) == 1:
        return result
    rows = []
    for each in segments:
        policies = each.policy if isinstance(each.policy, Mapping) else {"": each.policy}
        settings: Any = {name: policy.settings() for name, policy in policies.items()}
        rows.append(
            {
                "from": core.format_time(int(markets.time[each.first])),
                "settings": settings.get("", settings),
                **({} if each.overlay is None else {"overlay": repr(each.overlay)}),
                **({} if each.rule is None else {"signal": each.rule.text()}),
            }
        )
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
    n, clock = len(setup.markets), find_clock(setup.markets)
    found = []
    for row, (each, span) in enumerate(zip(setup.observed[:n], clock.seen.spans, strict=True)):
        if weights is not None:
            own = np.clip(weights[row, span[0] : span[1]], -1.0, 1.0)
            each = each._replace(market=each.market.with_signal(own))  # noqa: PLW2901
        stop = min(clock.count(segment.stop) - each.first, each.market.n_bars)
        policy: Policy = core.pick_value(segment.policy, setup.markets.names[row])
        columns: Mapping[str, core.FloatArray] = {}
        if stop >= LEAST:
            columns, _ = observe_checked(policy, each.market.prefix(stop))
        unknown = np.full(each.market.n_bars - stop, np.nan)
        padded = {name: np.concatenate((values, unknown)) for name, values in columns.items()}
        blank = {name: np.full(each.market.n_bars, np.nan) for name in each.columns}
        found.append(each._replace(policy=policy, columns=padded or blank))
    found = show_terms(found, setup.account, setup.venues)
    if segment.overlay is None or segment.overlay == setup.overlay:
        return [*found, *setup.observed[n:]]
    return [*found, *observe_overlay(segment.overlay, clock.seen, clock.pick(setup.signal))]


WORDS = {
    "min_leverage": "the account's min_leverage",
    "max_leverage": "the account's max_leverage",
    "band": "the no-trade band",
    "unfilled": "limit orders that did not fill",
    "margin_share": "the account's margin_share",
    "initial_margin": "initial margin",
    "venue_leverage": "the venue leverage",
    "wallet": "available balance (isolated margin)",
    "participation": "max_participation",
    "lot": "lot rounding",
    "min_notional": "the minimum notional",
    "max_gross_leverage": "the account's max_gross_leverage",
    "cap_over_band": "trades inside bands, forced by max_gross_leverage",
    "band_over_cap": "closes above max_gross_leverage, allowed by the bands",
}
CURES = {
    "band": ": narrow the band",
    "lot": ": the capital is too small for it",
    "min_notional": ": the capital is too small for it",
    "participation": ": the bars have too little volume",
}
"""What a warning of a run without a fill adds."""


def list_cut_rows(names: Sequence[str], cuts: core.FloatArray) -> list[dict[str, Any]]:
    """Return the rows of the table of cuts from the sums of a run, those of all instruments first.

    ``cuts`` of shape (n + 1, causes, sums) have an instrument a row, and all of them in the last.
    """
    heads: list[dict[str, Any]] = [{"instrument": name} for name in ("all", *names)]
    if len(names) == 1:
        heads, cuts = [{}], cuts[:1]
    found = []
    for head, sums in zip(heads, (cuts[-1], *cuts[:-1]), strict=True):
        for cause, own in zip(CAUSES, sums, strict=True):
            n = int(own[COUNT])
            if not n and cause != "all":
                continue
            means = own[[ASKED, HELD, CUT, DISTANCE]] / n if n else np.full(4, math.nan)
            fields = ("mean_asked", "mean_held", "mean_shortfall", "mean_distance")
            found.append(
                {
                    **head,
                    "cause": cause,
                    "decisions": n,
                    "share": n / sums[ALL, COUNT] if n else math.nan,
                    **dict(zip(fields, means.tolist(), strict=True)),
                    "days": int(own[DAYS]),
                }
            )
    return found


def find_columns(setup: Setup) -> dict[str, core.FloatArray]:
    labels = label_names(setup.markets).values()
    return {
        f"{column} of {label}" if label else column: values
        for label, each in zip(labels, setup.observed, strict=False)
        for column, values in each.columns.items()
    }


def find_charted(setup: Setup) -> dict[str, ChartedColumn]:
    """Return the columns that policies ask pages to draw, as known at the closes of the run."""
    closes = setup.markets.time[setup.first :] + setup.markets.interval
    found = {}
    for label, each in zip(label_names(setup.markets).values(), setup.observed, strict=False):
        decided = each.market.time + each.market.interval
        rows = np.searchsorted(decided, closes, side="right") - 1
        for name, text in type(each.policy).charts.items():
            if name not in each.columns:
                continue
            values = np.where(rows >= 0, each.columns[name][np.maximum(rows, 0)], np.nan)
            found[f"{name} of {label}" if label else name] = ChartedColumn(text, values)
    return found


def explain_no_fill(setup: Setup, outcome: Outcome, rows: Sequence[Mapping[str, Any]]) -> str:
    level, total = outcome.record.positions.target, rows[0]
    asked, n = level[:-1], int(total["decisions"])
    if np.isnan(asked).all():
        columns = find_columns(setup).items()
        unknown = [name for name, column in columns if not np.isfinite(column[:-1]).any()]
        if unknown:
            return (
                f"not known at any of {len(level):,} closes: {', '.join(unknown)}; the policy "
                "needs more bars to warm up, or shorter windows"
            )
        return (
            f"the policy returned NaN, which leaves the position as it is, at all {len(level):,} "
            "closes: look for NaN in its formula"
        )
    signal = setup.inputs.feed.signal
    if not signal[min(setup.first, len(signal) - 1) :].any():
        return f"the signal was 0 or NaN at all {len(level):,} closes, which means no position"
    if np.isinf(asked[~np.isnan(asked)]).all():
        return "the limits on its infinite leverage left no room for an order"
    if n == 0:
        return "no decision met an open at which the equity could pay for an order"
    if total["mean_asked"] == 0.0:
        who = "policy or the overlay" if setup.overlay else "policy"
        return f"the {who} returned a leverage of 0, or the signal was 0, at all {n:,} decisions"
    limits = [row for row in rows if row.get("instrument", "all") == "all" and row is not total]
    if not limits:
        return "no limit explains it: look at result.positions"
    worst = max(limits, key=lambda row: float(row["decisions"] * row["mean_distance"]))
    each = " per instrument" * any(label_names(setup.markets).values())
    return (
        f"{WORDS[worst['cause']]} left no room for {worst['decisions']:,} of {n:,} decisions, "
        f"{total['mean_asked']:.3g}x{each} on average"
        f"{CURES.get(worst['cause'], '')}"
    )


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


def explain(
    setup: Setup, outcome: Outcome, closes: core.IntArray, rows: Sequence[Mapping[str, Any]]
) -> str:
    level, names = outcome.record.positions.target, setup.markets.names
    weights = setup.signal.T[setup.first :]
    if len(names) > 1:
        targets = np.multiply(level, weights, out=np.zeros_like(level), where=weights != 0.0)
        warn_of_band(setup.account, setup.markets, targets)
    delisted = np.unique(outcome.entries["owner"][outcome.entries["kind"] == Event.DELISTED])
    if len(delisted):
        core.warn_caller(
            f"the history of {', '.join(names[i] for i in delisted)} ends before the other "
            "histories: the position was closed in its last bar at the mark close (event "
            "'delisted')"
        )
    has_fill = outcome.tally.money.traded > 0.0 or (outcome.entries["kind"] == Event.FILL).any()
    is_idle = not (has_fill or outcome.record.positions.quantity.any())
    no_fill = explain_no_fill(setup, outcome, rows) if is_idle else ""
    infinite = np.isinf(level)
    at = np.flatnonzero(infinite.any(axis=1))
    chosen = [names[i] for i in np.flatnonzero(infinite.any(axis=0))]
    kinds = dict.fromkeys(type(setup.policies[name]).__name__ for name in chosen or names)
    whose = ", ".join(kinds) + (f" of {', '.join(chosen)}" if chosen else "")
    if no_fill and (find_columns(setup) or level.any()):  # else it is meant to hold cash
        core.warn_caller(f"{whose} filled no order: {no_fill}", core.NoFillWarning)
    if len(at):
        core.warn_caller(
            f"{whose} returned an infinite leverage at {len(at):,} of {len(level):,} closes, "
            f"first at {core.format_time(int(closes[at[0]]))} UTC (a division by zero?): the "
            "order was as large as its limits allow; return float('nan') there to leave the "
            "position, or set max_leverage",
            core.InfiniteLeverageWarning,
        )
    return no_fill


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


def read_options(setup: Setup, outcome: Outcome) -> RunOptions | None:
    record: Any = outcome.record.options
    listed = setup.markets.options
    if not listed or record is None:
        return None
    after = len(setup.markets.names) + len(setup.account.collateral)
    entries, first = outcome.entries, setup.first
    events = entries[entries["kind"] != Event.CAUSED]  # causes have numbers too
    kept = np.unique(events["owner"][events["owner"] >= after]) - after
    kept = np.union1d(kept, np.flatnonzero(record.quantity.any(axis=0)))
    if not len(kept):
        return None
    market, names = setup.inputs.feed, tuple(listed)
    feed = market.options
    terms = results.OptionTerms(
        names=tuple(names[k] for k in kept),
        signs=feed.signs[kept],
        strikes=feed.strikes[kept],
        sizes=feed.sizes[kept],
        are_coin=feed.are_coin[kept],
        instruments=feed.instruments[kept],
        expiries=feed.expiry_times[kept],
        rates=feed.rates[kept],
    )
    held = OptionFields(*(each[:, kept] for each in record))
    opens, closes = market.mark_open[first:], market.mark_close[first:]
    expired = np.zeros((2, *held.quantity.shape), dtype=bool)  # at the open, or inside the bar
    bars = feed.expiry_bars[kept] - first
    ended = np.flatnonzero((bars >= 0) & (bars < len(held.quantity)))
    expired[feed.are_inside[kept[ended]].astype(np.int64), bars[ended], ended] = True
    at, legs = (slice(first, None), kept), outcome.legs
    gone, spots = expired[0], feed.expiry_spots[kept]
    index = np.where(gone, spots, opens[:, terms.instruments])
    bases = np.where(gone, 1.0, feed.bases_open[at])
    years = np.where(gone, 0.0, feed.years_open[at])
    marks = np.where(gone, np.nan, feed.marks_open[at])
    volatilities = np.where(gone, 0.0, feed.volatilities_open[at])
    index_close = closes[:, terms.instruments]
    forward = index_close * feed.bases_close[at]
    at_close = (feed.volatilities_close[at], feed.years_close[at], feed.marks_close[at])
    quotes = results.OptionQuotes(
        index,
        index * bases,
        *value_state(terms, index * bases, volatilities, years, marks),
        index_close,
        forward,
        *value_state(terms, forward, *at_close),
    )
    opened = np.where(gone, 0.0, np.pad(held.quantity, ((1, 0), (0, 0)))[:-1])  # after the fills
    fills = entries[(entries["kind"] == Event.FILL) & np.isin(entries["owner"], kept + after)]
    places = np.searchsorted(kept + after, fills["owner"])
    np.add.at(opened, (fills["bar"] - first, places), fills["quantity"])
    return RunOptions(
        contracts=tuple(listed[name] for name in terms.names),
        legs=tuple(legs.get(k, "") for k in kept.tolist()),
        owners=kept + after,
        terms=terms,
        quotes=quotes,
        record=held,
        opened=opened,
        entries=find_entries(entries, held.quantity, kept + after, first),
        settled=np.where(expired[1], spots, np.nan),
        ages=feed.ages[at],
        hedged=tuple(sorted(outcome.hedged)),
    )


def value_state(
    terms: results.OptionTerms,
    forward: core.FloatArray,
    volatility: core.FloatArray,
    years: core.FloatArray,
    marks: core.FloatArray,
) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
    """Return volatilities, years and money values of options by bar; quoted marks come first."""
    bars, options = np.nonzero(years >= 0.0)
    state = np.stack([forward[bars, options], volatility[bars, options], years[bars, options]])
    value, found = np.full(forward.shape, np.nan), volatility.copy()
    value[bars, options] = results.compute_prices(terms, options, state)
    rows = np.flatnonzero(~np.isnan(marks[bars, options]))
    if len(rows):
        own, at = (bars[rows], options[rows]), state[:, rows]
        value[own] = marks[own]
        found[own] = results.compute_volatilities(terms, options[rows], at[0], marks[own], at[2])
    return found, years, value * terms.sizes


def find_entries(
    entries: Entries, held: core.FloatArray, owners: core.IntArray, first: int
) -> core.FloatArray:
    """Return the average prices of what is held at each close, of shape (n_bars, K)."""
    found = np.full(held.shape, np.nan)
    for place, owner in enumerate(owners.tolist()):
        quantity, average = 0.0, np.nan
        own = entries[(entries["owner"] == owner) & (entries["quantity"] != 0.0)]
        for bar, change, value in own[["bar", "quantity", "value"]].tolist():
            after = quantity + change
            if quantity * change > 0.0:
                average = (quantity * average + change * value) / after
            elif quantity * after <= 0.0:
                average = value
            quantity = after
            found[bar - first :, place] = average
    return np.where(held != 0.0, found, np.nan)
