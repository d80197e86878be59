"""The loop of several positions, called for one bar at a time."""

from __future__ import annotations

from backtest.account import AccountState
from backtest.base import FloatArray
from backtest.engine import (
    Counts,
    PortfolioInputs,
    Result,
    Setup,
    begin,
    bind_loop,
    drive,
    estimate_plain_general,
    is_loop_plain,
    list_kernel_arguments,
    new_tape,
    order_loop,
)
from backtest.venue import OwnMargin


def may_compile(result: Result, setup: Setup, n_bars: int) -> bool:
    if result.manifest["compiled"] != "yes":
        return False
    order = order_loop(None, list_kernel_arguments(*begin(setup)))
    policies = [(each.policy, tuple(each.columns)) for each in setup.observed]
    return not is_loop_plain(order, policies, estimate_plain_general(len(policies), n_bars))


class PortfolioBars:
    def __init__(self, setup: Setup, *, is_compiled: bool) -> None:
        self.setup, self.markets, self.first = setup, setup.markets, setup.first
        self.inputs, self.state, self.deciders, self.tally = begin(setup)
        rule = setup.account.requirement
        own = rule if isinstance(rule, OwnMargin) else None
        names, self.n_bars = self.markets.names, len(self.inputs.feed.time)
        n, total = len(names), self.n_bars - self.first
        asked = [(self.deciders, [(p.policy, tuple(p.columns)) for p in setup.observed])]
        loop = bind_loop(asked, is_compiled=is_compiled, own=own, names=names)
        self.simulate, self.pack, (self.bound,), _ = loop
        k = len(self.state.options.targets)
        self.tape = new_tape(n, total, self.first, 8 * (n + k) + 1024, n_options=k)

    def drive(
        self, inputs: PortfolioInputs, state: AccountState, counts: Counts, t: int, stop: int
    ) -> tuple[Counts, FloatArray]:
        return drive(
            self.simulate, self.pack, inputs, state, self.deciders, self.bound, counts, t, stop,
            self.tape, stop - t, None,
        )  # fmt: skip
