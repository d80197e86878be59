"""bt.run, and runs that change their policy on given days."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import base
from backtest.account import Account
from backtest.engine.batch import Switch, run_account
from backtest.engine.driver import Progress
from backtest.engine.lookahead import observe_checked
from backtest.engine.manifest import change_policy
from backtest.engine.option_inputs import schedule_options
from backtest.engine.policies import ObservedPolicy, observe_overlay
from backtest.engine.result import Result
from backtest.engine.run_record import BenchmarkLike
from backtest.engine.run_result import finish
from backtest.engine.run_setup import end_expired, set_up_run, widen_signal
from backtest.engine.signals import SignalRule, resolve_signal, write_note
from backtest.market import (
    Market,
    Markets,
    Weights,
    as_markets,
    find_clock,
    read_weights,
    weights_to_frame,
    with_clock,
)
from backtest.policy import Policy
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.engine.run_setup import Setup


LEAST = 2
"""Least bars of an instrument on which columns are computed."""


class Segment(NamedTuple):
    first: int
    stop: int
    policy: Policy | Mapping[str, Policy]
    rule: SignalRule | None = None
    overlay: Policy | None = None

    def find_policy(self, name: str) -> Policy:
        policy: Policy = base.pick_value(self.policy, name)
        return policy


def merge_segments(segments: Sequence[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for each in segments:
        if merged and merged[-1][2:] == each[2:]:
            merged[-1] = merged[-1]._replace(stop=each.stop)
        else:
            merged.append(each)
    return merged


def run_switched(
    market: Market | Markets,
    segments: Sequence[Segment],
    *,
    venue: Any,
    account: Any,
    signal: Any = None,
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - as that of bt.run
    **terms: Any,
) -> Result:
    markets, given = as_markets(end_expired(market, venue)), resolve_signal(signal, market)
    if isinstance(market, Market):
        given = widen_signal(given, markets)
    weights = [find_weights(markets, each) for each in segments]
    start: base.TimeLike = base.utc_index(markets.time)[segments[0].first]
    setup = set_up_run(
        markets,
        segments[0].policy,
        venue=venue,
        account=account,
        signal=given if segments[0].rule is None else join_rules(weights, segments, markets),
        calendar=calendar,
        start=start,
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


def find_weights(markets: Markets, segment: Segment) -> base.FloatArray:
    """Return the weights of the rule of a segment, (n_instruments, n_seen); empty if none."""
    if segment.rule is None:
        return np.empty((len(markets), 0))
    seen = find_clock(markets).seen
    return read_weights(segment.rule.weigh(seen, is_checked=False), seen)


def join_rules(
    weights: Sequence[base.FloatArray], segments: Sequence[Segment], markets: Markets
) -> Any:
    joined, clock = weights[0].copy(), find_clock(markets)
    for each, segment in zip(weights[1:], segments[1:], strict=True):
        first = clock.count(segment.first)
        joined[:, first:] = each[:, first:]
    return write_note(weights_to_frame(joined, clock.seen), text=describe_rules(segments))


def describe_rules(segments: Sequence[Segment]) -> str:
    texts = [each.rule.text() for each in segments if each.rule is not None]
    different = len(dict.fromkeys(texts))
    return texts[0] if different == 1 else f"{texts[0]} (and {different - 1} others)"


def observe_segment(
    setup: Setup, segment: Segment, weights: base.FloatArray
) -> list[ObservedPolicy]:
    n, clock = len(setup.markets), find_clock(setup.markets)
    found = []
    for row, (each, span) in enumerate(zip(setup.observed[:n], clock.seen.spans, strict=True)):
        if segment.rule is not None:
            own = np.clip(weights[row, span[0] : span[1]], -1.0, 1.0)
            each = each._replace(market=each.market.with_signal(own))  # noqa: PLW2901
        stop = min(clock.count(segment.stop) - each.first, each.market.n_bars)
        policy = segment.find_policy(setup.markets.names[row])
        columns: Mapping[str, base.FloatArray] = {}
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
    manifest: Mapping[str, Any], time: base.IntArray, segments: Sequence[Segment]
) -> dict[str, Any]:
    switches = [describe_segment(each, time) for each in segments]
    text = f"{manifest['policy']['name']}(re-tuned {len(segments) - 1} times)"
    return change_policy(manifest, {"text": text, "switches": switches})


def describe_segment(segment: Segment, time: base.IntArray) -> dict[str, Any]:
    rule = {} if segment.rule is None else {"signal": segment.rule.text()}
    start = base.format_time(int(time[segment.first]))
    policy = segment.policy
    if isinstance(policy, Mapping):
        settings: Any = {name: each.settings() for name, each in policy.items()}
    else:
        settings = policy.settings()
    above = {} if segment.overlay is None else {"overlay": repr(segment.overlay)}
    return {"from": start, "settings": settings, **above, **rule}


# ------------------------------------------------------------------------------------------ bt.run


@base.record_making
@base.checked_only("calendar", "compile", "progress")
def run(  # noqa: PLR0913 - the terms of a run, by name
    market: Market | Markets,
    policy: Policy | Mapping[str, Policy],
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    signal: Weights | pd.Series | float | str | SignalRule = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - the word users know
    resume: Result | None = None,
    start: base.TimeLike | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
    decide: str | None = None,
    detail: Any = None,
    option_quantities: pd.DataFrame | None = None,
) -> Result:
    """Run an account through a market, or through several, under a policy.

    Parameters
    ----------
    market : Market or Markets
        Bars, mark prices and funding; of several instruments for an account with several positions.
    policy : Policy, or a mapping of names to policies
        Decides the leverage at each close; filled at the next open. With several instruments, one
        for all or one for each.
    venue, account : Venue (or a mapping of names to venues), Account
        The rules and the costs.
    signal : float, array of shape (n_bars,), Series by UTC time, str or SignalRule, optional
        Direction and scale in [-1, 1]; default 1. The signal of a bar belongs to the decision at
        its close. A text is a column of the bars, or a rule of
        :mod:`backtest.engine.signals` with its parameters in order, ``"rsi:14:30:70"``.
        With several instruments, a frame by time and instrument of direction times weight, or a
        rule for the direction in each times 1/n; default 1/n.
    overlay : Policy, optional
        Scales all targets of several instruments; its market is ``markets.index(signal)``.
    sampling, calendar : str
        The period over which returns are sampled, ``"1d"`` by default; ``"365"`` days a year, or
        ``"252"`` sessions.
    compile : bool
        False runs the policy in plain Python, for a debugger; the numbers are the same bits.
    resume : Result, optional
        Go on from the last close of an earlier result, whose bar ``market`` holds with the history
        that the policy's columns need. The new result has the bars after it.
    start : str or Timestamp, optional
        When the account begins, in UTC: at the first bar from then on. The bars before it only
        warm the policy's columns.
    progress : callable, optional
        Called with bars done and bars in all.
    benchmark : str, DataFrame, mapping or Series, optional
        What ``alpha`` and ``beta`` compare with: an instrument, weights by time and instrument
        (:meth:`Markets.index`), or prices at the closes of the bars that open at the times of a
        Series. Default: the market; of several instruments the index of what is traded, with the
        weights abs(s_i) / sum abs(s) of the signal.
    decide : str, optional
        The length of the bars at whose closes policies decide, such as ``"1h"``: a multiple of the
        market's interval. Policies, columns and signal see these bars alone, and the account lives
        the bars of the market; see docs/accounting.md. Default: policies decide at each close.
    detail : Market, Markets, mapping of str to Market, str or Path, optional
        Shorter bars of the same instruments, or their folder. The account lives them where they
        are known, and the bars of ``market`` elsewhere.
    option_quantities : DataFrame, optional
        Signed contracts to hold of listed options, by time and contract: the row of a bar is
        decided at its close and fills at the next open; NaN leaves a contract as it is.

    Raises
    ------
    ParameterError
        If an argument is not allowed, or the resumed market does not join.
    PolicyError
        If the policy raises, looks ahead, or returns a negative number or the wrong type.
    AccountingError
        If the books do not balance at some bar.
    """
    market = with_clock(market, decide, detail)
    market = schedule_options(market, option_quantities)
    base.set_single(True)
    terms: Any = {"signal": signal, "overlay": overlay, "sampling": sampling, "calendar": calendar}
    terms |= {"resume": resume, "start": start, "benchmark": benchmark}
    setup = set_up_run(market, policy, venue=venue, account=account, **terms)
    outcome = run_account(setup, is_compiled=compile, progress=progress)
    return finish(setup, outcome, calendar=calendar)
