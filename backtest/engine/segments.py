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
