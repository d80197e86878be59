"""One account of several positions whose parameters change between spans of bars."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest.base.units import FloatArray, utc_index
from backtest.engine.account_loop import live
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.lookahead.checked_signals import name_signal
from backtest.engine.portfolio.book_desk import Panelist, set_desk
from backtest.engine.portfolio.book_driver import DeskSwitch
from backtest.engine.portfolio.portfolio_setup import Setup, set_up
from backtest.engine.result import Result
from backtest.engine.run_result import finish
from backtest.engine.sampling_periods import count_periods
from backtest.engine.switched_run import (
    Stretch,
    describe_rules,
    describe_switches,
    join_rules,
    merge_stretches,
)
from backtest.market.markets import Markets
from backtest.market.weight_frame import read_weights, weights_to_frame
from backtest.policy import Policy

LEAST = 2
"""Least bars of an instrument on which columns are computed."""


def run_switched_book(
    markets: Markets,
    stretches: Sequence[Stretch],
    *,
    venue: Any,
    account: Any,
    signal: Any,
    overlay: Policy | None,
    sampling: str,
    calendar: str,
    is_compiled: bool,
) -> Result:
    """Run an account whose policies change parameters at given bars.

    As :func:`backtest.engine.switched_run.run_switched`, for several positions: all instruments
    have the policy of the stretch. The overlay stays, with its memory. The arguments are those of
    :func:`backtest.run`.
    """
    merged = merge_stretches(stretches)
    weights = [find_weights(markets, each) for each in merged]
    if merged[0].rule is not None:
        joined = weights_to_frame(join_rules(weights, merged), markets)
        signal = name_signal(joined, describe_rules(merged))
    setup = set_up(
        markets,
        merged[0].policy,
        venue=venue,
        account=account,
        signal=signal,
        overlay=overlay,
        sampling=sampling,
        periods=count_periods(calendar, sampling, markets),
        start=utc_index(markets.time)[merged[0].first],
    )
    seated = [seat_stretch(setup, *each) for each in zip(merged, weights, strict=True)]
    width = setup.inputs.terms.rules.brackets.floors.shape[1]
    switches = [
        DeskSwitch(
            stretch.first,
            set_desk(panelists, markets, started=setup.inputs.started, width=width),
            [(each.policy, tuple(each.columns)) for each in panelists],
        )
        for stretch, panelists in zip(merged[1:], seated[1:], strict=True)
    ]
    setup = setup._replace(panelists=seated[0])
    outcome = live(setup, is_compiled=is_compiled, progress=None, switches=switches)
    whole = finish(setup, outcome, calendar=calendar)
    if len(merged) == 1:
        return whole
    return dataclasses.replace(
        whole, manifest=describe_switches(whole.manifest, markets.time, merged)
    )


def find_weights(markets: Markets, stretch: Stretch) -> FloatArray:
    """Return the weights of the rule of a stretch by bar, (n_instruments, n_bars); empty if none.

    The rule was checked for lookahead when its parameters were searched.
    """
    if stretch.rule is None:
        return np.empty((len(markets), 0))
    return read_weights(stretch.rule.weigh(markets, is_checked=False), markets, where="bt.run")


def seat_stretch(setup: Setup, stretch: Stretch, weights: FloatArray) -> list[Panelist]:
    """Return the policies of a stretch, with columns of the bars up to its end; then the overlay.

    Columns of bars after the end are NaN: they are never read.
    """
    n = len(setup.markets)
    found = []
    for row, (each, span) in enumerate(zip(setup.panelists[:n], setup.markets.spans, strict=True)):
        if stretch.rule is not None:
            own = np.clip(weights[row, span[0] : span[1]], -1.0, 1.0)
            each = each._replace(market=each.market.with_signal(own))  # noqa: PLW2901
        stop = min(stretch.stop - each.first, each.market.n_bars)
        columns: Mapping[str, FloatArray] = {}
        if stop >= LEAST:
            columns, _ = observe_checked(stretch.policy, each.market.prefix(stop))
        padded = {
            name: np.concatenate((values, np.full(each.market.n_bars - stop, np.nan)))
            for name, values in columns.items()
        }
        blank = {name: np.full(each.market.n_bars, np.nan) for name in each.columns}
        found.append(each._replace(policy=stretch.policy, columns=padded or blank))
    return [*found, *setup.panelists[n:]]
