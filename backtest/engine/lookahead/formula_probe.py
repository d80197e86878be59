"""The decisions of a policy in a plain account, for comparison with those of another process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from backtest.account import Account
from backtest.base.units import FloatArray
from backtest.market import Market
from backtest.policy import Policy, start_memory
from backtest.venue import Venue

BARS = 256
"""Bars after the end of the part that was observed, at which a policy decides."""


def decide(policy: Policy, market: Market, columns: Mapping[str, FloatArray]) -> FloatArray:
    """Return the leverage that a policy decides at each bar, in plain Python, of shape (n_bars,).

    The account is the first that ``backtest check`` tries.
    """
    from backtest.engine.loop_driver import LoopStart, run_loop  # noqa: PLC0415 - they import the check
    from backtest.engine.loop_inputs import read_inputs, start_state  # noqa: PLC0415

    venue, account = Venue.preset("binance-usdm", "BTCUSDT"), Account()
    inputs = read_inputs(
        market,
        venue,
        account,
        signal=np.ones(1),
        sampling="1d",
        first=0,
        started=market.start,
    )
    begin = LoopStart(start_state(account), tuple(map(float, start_memory(policy) or ())), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = (policy, inputs, columns, begin)
        outcome = run_loop(*given, stop=market.n_bars, is_compiled=False, progress=None)
    return outcome.of_positions("target")[:, 0].copy()
