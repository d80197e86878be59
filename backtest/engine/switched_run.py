"""One account whose policies change their parameters at given bars, as one ordinary result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, TimeLike, format_time, pick_value, utc_index
from backtest.engine.account_loop import Switch, run_account
from backtest.engine.indicator_rules import resolve_signal
from backtest.engine.lookahead import observe_checked
from backtest.engine.manifest import change_policy
from backtest.engine.portfolio_policies import ObservedPolicy, observe_overlay
from backtest.engine.run_result import finish
from backtest.engine.run_setup import end_expired, set_up_run
from backtest.engine.signal_checks import name_signal
from backtest.market import Markets, as_markets, find_clock, read_weights, weights_to_frame

if TYPE_CHECKING:
    from backtest.engine.result import Result
    from backtest.engine.run_setup import Setup
    from backtest.engine.signal_rule import SignalRule
    from backtest.market import Market
    from backtest.policy import Policy

LEAST = 2
"""Least bars of an instrument on which columns are computed."""


class Segment(NamedTuple):
    first: int
    stop: int
    policy: Policy | Mapping[str, Policy]
    rule: SignalRule | None = None
    overlay: Policy | None = None

    def find_policy(self, name: str) -> Policy:
        policy: Policy = pick_value(self.policy, name)
        return policy


def run_switched(
    market: Market | Markets,
    segments: Sequence[Segment],
    *,
    venue: Any,
    account: Any,
    signal: Any = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - as that of bt.run
) -> Result:
    given = resolve_signal(signal, market)
    return run_segments(
        end_expired(as_markets(market), venue),
        merge_segments(segments),
        venue=venue,
        account=account,
        signal=given,
        overlay=overlay,
        sampling=sampling,
        calendar=calendar,
        compile=compile,
    )


def merge_segments(segments: Sequence[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for each in segments:
        if merged and merged[-1][2:] == each[2:]:
            merged[-1] = merged[-1]._replace(stop=each.stop)
        else:
            merged.append(each)
    return merged


def run_segments(
    markets: Markets,
    segments: Sequence[Segment],
    *,
    signal: Any,
    calendar: str,
    compile: bool,  # noqa: A002 - as that of bt.run
    **terms: Any,
) -> Result:
    weights = [find_weights(markets, each) for each in segments]
    start: TimeLike = utc_index(markets.time)[segments[0].first]
    setup = set_up_run(
        markets,
        segments[0].policy,
        signal=signal if segments[0].rule is None else join_rules(weights, segments, markets),
        calendar=calendar,
        start=start,
        resume=None,
        benchmark=None,
        **terms,
    )
    parts = [observe_segment(setup, *each) for each in zip(segments, weights, strict=True)]
    switches = [Switch(*each) for each in zip([s.first for s in segments], parts, strict=True)]
    begun = setup._replace(observed=parts[0])
    outcome = run_account(begun, is_compiled=compile, progress=None, switches=switches[1:])
    whole = finish(setup, outcome, calendar=calendar)
    if len(segments) == 1:
        return whole
    has_traded = whole.tally.money.traded > 0.0
    return dataclasses.replace(
        whole,
        policies={name: segments[-1].find_policy(name) for name in whole.names},
        overlay=segments[-1].overlay or whole.overlay,
        manifest=describe_switches(whole.manifest, markets.time, segments),
        no_fill="" if has_traded else "no parameters of any segment traded",
    )


def find_weights(markets: Markets, segment: Segment) -> FloatArray:
    """Return the weights of the rule of a segment, (n_instruments, n_seen); empty if none."""
    if segment.rule is None:
        return np.empty((len(markets), 0))
    seen = find_clock(markets).seen
    return read_weights(segment.rule.weigh(seen, is_checked=False), seen)


def join_rules(weights: Sequence[FloatArray], segments: Sequence[Segment], markets: Markets) -> Any:
    joined, clock = weights[0].copy(), find_clock(markets)
    for each, segment in zip(weights[1:], segments[1:], strict=True):
        first = clock.count(segment.first)
        joined[:, first:] = each[:, first:]
    return name_signal(weights_to_frame(joined, clock.seen), describe_rules(segments))


def describe_rules(segments: Sequence[Segment]) -> str:
    texts = [each.rule.text() for each in segments if each.rule is not None]
    different = len(dict.fromkeys(texts))
    return texts[0] if different == 1 else f"{texts[0]} (and {different - 1} others)"


def observe_segment(setup: Setup, segment: Segment, weights: FloatArray) -> list[ObservedPolicy]:
    n, clock = len(setup.markets), find_clock(setup.markets)
    found = []
    for row, (each, span) in enumerate(zip(setup.observed[:n], clock.seen.spans, strict=True)):
        if segment.rule is not None:
            own = np.clip(weights[row, span[0] : span[1]], -1.0, 1.0)
            each = each._replace(market=each.market.with_signal(own))  # noqa: PLW2901
        stop = min(clock.count(segment.stop) - each.first, each.market.n_bars)
        policy = segment.find_policy(setup.markets.names[row])
        columns: Mapping[str, FloatArray] = {}
        if stop >= LEAST:
            columns, _ = observe_checked(policy, each.market.prefix(stop))
        padded = {
            name: np.concatenate((values, np.full(each.market.n_bars - stop, np.nan)))
            for name, values in columns.items()
        }
        blank = {name: np.full(each.market.n_bars, np.nan) for name in each.columns}
        found.append(each._replace(policy=policy, columns=padded or blank))
    if segment.overlay is None or segment.overlay == setup.overlay:
        return [*found, *setup.observed[n:]]
    return [*found, *observe_overlay(segment.overlay, clock.seen, clock.pick(setup.signal))]


def describe_switches(
    manifest: Mapping[str, Any], time: IntArray, segments: Sequence[Segment]
) -> dict[str, Any]:
    switches = [describe_segment(each, time) for each in segments]
    text = f"{manifest['policy']['name']}(re-tuned {len(segments) - 1} times)"
    return change_policy(manifest, {"text": text, "switches": switches})


def describe_segment(segment: Segment, time: IntArray) -> dict[str, Any]:
    rule = {} if segment.rule is None else {"signal": segment.rule.text()}
    start = format_time(int(time[segment.first]))
    policy = segment.policy
    if isinstance(policy, Mapping):
        settings: Any = {name: each.settings() for name, each in policy.items()}
    else:
        settings = policy.settings()
    above = {} if segment.overlay is None else {"overlay": repr(segment.overlay)}
    return {"from": start, "settings": settings, **above, **rule}
