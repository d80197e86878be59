"""Runs that change their policy on given days: segments, each with policies of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest import market as m
from backtest.engine.batch import Switch, run_account
from backtest.engine.conditions import Conditions, end_expired
from backtest.engine.policies import ObservedPolicy, observe_overlay, show_terms
from backtest.engine.run import finish
from backtest.engine.run_setup import Setup, set_up_run
from backtest.market import find_clock
from backtest.policies import Policy
from backtest.policies.observing import observe_checked
from backtest.results.manifest import change_policy
from backtest.results.result import Result
from backtest.signals.computed import write_note
from backtest.signals.rules import SignalRule, resolve_signal

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
    """Run an account from the first bar of its first segment; each segment has its own policies."""
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
        weights_of_segment = weights[k] if weights else None
        observed = observe_segment(setup, segment, weights_of_segment)
        switches.append(Switch(segment.first, observed))

    begun = setup._replace(observed=switches[0].observed)
    outcome = run_account(begun, is_compiled=compile, progress=None, switches=switches[1:])
    result = finish(setup, outcome)
    if len(segments) == 1:
        return result
    return describe_switches(result, segments)


def weigh_segments(markets: m.Markets, segments: Sequence[Segment]) -> list[core.FloatArray]:
    """Return the weights of the rule of each segment, (n, n_seen); none if the test has them."""
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
    """Return one signal: the weights of each segment from its first bar on, and their rules."""
    clock = find_clock(markets)
    joined = weights[0].copy()
    for of_segment, segment in zip(weights, segments, strict=True):
        first = clock.count(segment.first)
        joined[:, first:] = of_segment[:, first:]

    texts = dict.fromkeys(segment.rule.text() for segment in segments if segment.rule is not None)
    text = next(iter(texts))
    if len(texts) > 1:
        text = f"{text} (and {len(texts) - 1} others)"
    return write_note(m.weights_to_frame(joined, clock.seen), text=text)


def describe_switches(result: Result, segments: Sequence[Segment]) -> Result:
    """Return the result of a run of several segments with what decided in each."""
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
    """Return the policies of a segment with columns of what was known by its last bar."""
    n = len(setup.markets)
    clock = find_clock(setup.markets)
    observed = []
    for i, (own, span) in enumerate(zip(setup.observed[:n], clock.seen.spans, strict=True)):
        market = own.market
        if weights is not None:
            signal = np.clip(weights[i, span[0] : span[1]], -1.0, 1.0)
            market = market.with_signal(signal)

        policy: Policy = core.pick_value(segment.policy, setup.markets.names[i])
        stop = min(clock.count(segment.stop) - own.first, market.n_bars)
        columns = observe_until(policy, market, stop)
        if not columns:
            columns = {name: np.full(market.n_bars, np.nan) for name in own.columns}
        observed.append(own._replace(policy=policy, market=market, columns=columns))

    observed = show_terms(observed, setup.account, setup.venues)
    if segment.overlay is None or segment.overlay == setup.overlay:
        return [*observed, *setup.observed[n:]]
    signal = clock.pick(setup.signal)
    return [*observed, *observe_overlay(segment.overlay, clock.seen, signal)]


def observe_until(policy: Policy, market: m.Market, stop: int) -> dict[str, core.FloatArray]:
    """Return the columns of a policy up to bar ``stop`` of a market, NaN from there on."""
    if stop < LEAST:
        return {}
    columns, _ = observe_checked(policy, market.prefix(stop))
    unknown = np.full(market.n_bars - stop, np.nan)
    return {name: np.concatenate((values, unknown)) for name, values in columns.items()}
