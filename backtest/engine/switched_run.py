"""One account whose policy changes its parameters at given bars, as one ordinary result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, IntArray, format_time
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.lookahead.checked_signals import name_signal
from backtest.engine.loop_driver import LoopOutcome, LoopStart, run_loop
from backtest.engine.loop_inputs import Inputs, read_inputs, start_state
from backtest.engine.manifest import change_policy
from backtest.engine.signal_input import describe_signal
from backtest.market import Markets
from backtest.policy import start_memory

if TYPE_CHECKING:
    from backtest.engine.result import Result
    from backtest.engine.signal_rule import SignalRule
    from backtest.market import Market
    from backtest.policy import Policy


class Stretch(NamedTuple):
    """Bars ``first`` up to ``stop`` under one policy, and one rule of the signal if it changes."""

    first: int
    stop: int
    policy: Policy
    rule: SignalRule | None = None


def run_switched(
    whole: Result,
    stretches: Sequence[Stretch],
    *,
    compiled: bool = True,
    on_stretch: Callable[[], object] | None = None,
) -> Result:
    """Run one account through consecutive stretches of bars, each under its own policy.

    Parameters
    ----------
    whole : Result
        The run of the first policy over all bars of the stretches, on the same terms.
    stretches : sequence of Stretch
        In order and without holes, from the first bar of ``whole`` to its last. Neighbors with
        equal policies count as one.
    compiled : bool
        As ``compile`` of :func:`backtest.engine.run.run`.
    on_stretch : callable, optional
        Called after each stretch.

    Returns
    -------
    Result
        Of an account that was never closed at a boundary: what it holds there goes on, and the
        next decision trades from it, at its costs. A decision at the last close of a stretch
        fills in the next one. The memory of a policy begins anew where its parameters or those of
        the signal change; its columns are computed on the bars up to the end of its stretch, with
        the signal of its rule. Without a change the result is ``whole``, bit for bit.
    """
    merged = merge_stretches(stretches)
    if len(merged) == 1:
        return whole
    whole = join_signals(whole, merged)
    outcomes: list[LoopOutcome] = []
    for stretch in merged:
        begin = begin_stretch(whole, stretch, outcomes[-1] if outcomes else None)
        outcomes.append(run_stretch(whole, stretch, begin, compiled=compiled))
        if on_stretch is not None:
            on_stretch()
    return join_outcomes(whole, merged, outcomes)


def merge_stretches(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return stretches with neighbors of equal policies and rules joined."""
    merged: list[Stretch] = []
    for each in stretches:
        if merged and merged[-1][2:] == each[2:]:
            merged[-1] = merged[-1]._replace(stop=each.stop)
        else:
            merged.append(each)
    return merged


def join_signals(whole: Result, stretches: Sequence[Stretch]) -> Result:
    """Return a run with the signal that its account gets: in each stretch that of its rule."""
    if stretches[0].rule is None or whole.inputs is None:
        return whole
    market = find_market(whole)
    joined = join_rules([find_signal(market, each) for each in stretches], stretches)
    named = name_signal(pd.Series(joined, index=market.index), describe_rules(stretches))
    feed = whole.inputs.feed._replace(signal=joined)
    return dataclasses.replace(
        whole,
        markets=Markets({whole.names[0]: market.with_signal(joined)}),
        quotes=whole.quotes._replace(signal=joined[stretches[0].first :, None]),
        inputs=whole.inputs._replace(feed=feed),
        manifest={**whole.manifest, "signal": describe_signal(named, joined)},
    )


def find_signal(market: Market, stretch: Stretch) -> FloatArray:
    """Return the signal of a stretch by bar of the market, of shape (n_bars,) or (1,)."""
    return market.signal if stretch.rule is None else stretch.rule.compute(market)


def join_rules(signals: Sequence[FloatArray], stretches: Sequence[Stretch]) -> FloatArray:
    """Return the signals of stretches one after another; before the first one, that of its rule.

    The last axis of a signal is that of the bars.
    """
    joined = signals[0].copy()
    for signal, stretch in zip(signals[1:], stretches[1:], strict=True):
        joined[..., stretch.first :] = signal[..., stretch.first :]
    return joined


def describe_rules(stretches: Sequence[Stretch]) -> str:
    """Return the rules of stretches in words."""
    texts = [each.rule.text() for each in stretches if each.rule is not None]
    different = len(dict.fromkeys(texts))
    return texts[0] if different == 1 else f"{texts[0]} (and {different - 1} others)"


def begin_stretch(whole: Result, stretch: Stretch, before: LoopOutcome | None) -> LoopStart:
    """Return where a stretch begins: a fresh account, or the end of the stretch before."""
    memory = tuple(map(float, start_memory(stretch.policy) or ()))
    if before is None:
        return LoopStart(start_state(whole.account), memory, stretch.first)
    state = before.state._replace(funding_next=0, flow_next=0)
    return LoopStart(state, memory, stretch.first, before.traded, before.tally)


def run_stretch(
    whole: Result, stretch: Stretch, begin: LoopStart, *, compiled: bool
) -> LoopOutcome:
    """Take the account through the bars of one stretch."""
    market = find_market(whole)
    if stretch.rule is not None:
        market = market.with_signal(find_signal(market, stretch))
    columns, _ = observe_checked(stretch.policy, market.prefix(stretch.stop))
    inputs = stop_inputs(read_stretch_inputs(whole, stretch.first), stretch.stop)
    return run_loop(stretch.policy, inputs, columns, begin, is_compiled=compiled, progress=None)


def find_market(whole: Result) -> Market:
    """Return the market of a run, with the signal that it was given."""
    if whole.market is None:
        raise TypeError("a loaded result has no market")
    return whole.market


def read_stretch_inputs(whole: Result, first: int) -> Inputs:
    """Return the inputs of the loop from bar ``first`` on."""
    market = find_market(whole)
    signal = market.signal if whole.inputs is None else whole.inputs.feed.signal
    return read_inputs(
        market,
        whole.venue,
        whole.account,
        signal=signal,
        sampling=str(whole.manifest["sampling"]),
        first=first,
        started=whole.started,
    )


def stop_inputs(inputs: Inputs, stop: int) -> Inputs:
    """Return inputs with which the loop stops before bar ``stop``."""
    seen = inputs.seen
    cut: dict[str, Any] = {
        name: value[:stop]
        for name, value in seen._asdict().items()
        if isinstance(value, np.ndarray)
    }
    return inputs._replace(seen=seen._replace(**cut))


def join_outcomes(
    whole: Result, stretches: Sequence[Stretch], outcomes: Sequence[LoopOutcome]
) -> Result:
    """Return one result of all stretches."""
    last = outcomes[-1]
    inputs = whole.inputs
    if inputs is not None and inputs.fees is not None:
        charged = tuple(pair for each in outcomes for pair in each.charged)
        inputs = inputs._replace(fees=inputs.fees._replace(charged=charged))
    record: FloatArray = np.concatenate([each.book for each in outcomes], axis=1)
    return dataclasses.replace(
        whole,
        policies={whole.names[0]: stretches[-1].policy},
        manifest=describe_switches(whole.manifest, find_market(whole).time, stretches),
        tally=last.tally,
        state=last.state,
        memory=last.memory,
        record=record.T,
        entries=np.concatenate([each.entries for each in outcomes]),
        inputs=inputs,
        no_fill="" if last.tally.money.traded > 0.0 else "no parameters of any stretch traded",
        traded=last.traded,
    )


def describe_switches(
    manifest: Mapping[str, Any], time: IntArray, stretches: Sequence[Stretch]
) -> dict[str, Any]:
    """Return the manifest of a run whose parameters change, with the time of each change."""
    switches = [describe_stretch(each, time) for each in stretches]
    text = f"{manifest['policy']['name']}(re-tuned {len(stretches) - 1} times)"
    return change_policy(manifest, {"text": text, "switches": switches})


def describe_stretch(stretch: Stretch, time: IntArray) -> dict[str, Any]:
    """Return when a stretch begins, and its parameters."""
    rule = {} if stretch.rule is None else {"signal": stretch.rule.text()}
    start = format_time(int(time[stretch.first]))
    return {"from": start, "settings": stretch.policy.settings(), **rule}
