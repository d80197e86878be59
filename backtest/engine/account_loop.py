"""Take an account through its markets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from backtest.account import AccountState
from backtest.account.portfolio_records import EQUITY, UNIT
from backtest.base import write_mark
from backtest.engine.compile.plain_or_compiled import (
    estimate_plain,
    find_mark,
    try_plain,
)
from backtest.engine.deciders import Deciders
from backtest.engine.option_arrays import resume_options
from backtest.engine.option_chain import Legs
from backtest.engine.option_trader import OptionTrader, make_trader
from backtest.engine.portfolio_driver import (
    PolicySwitch,
    Progress,
    list_kernel_arguments,
    run_portfolio_loop,
)
from backtest.engine.portfolio_inputs import PortfolioInputs, start_account_state
from backtest.engine.portfolio_policies import ObservedPolicy, make_deciders
from backtest.engine.record import Outcome
from backtest.engine.run_setup import Setup
from backtest.measures import Tally, start_tally
from backtest.policy import Policy
from backtest.venue import Brackets, OwnMargin


class Switch(NamedTuple):
    bar: int
    observed: list[ObservedPolicy]


def run_account(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return take(setup, is_compiled=False, progress=progress, switches=switches)
    mark = find_mark(list_kernel_arguments(*begin(setup)))
    n_bars = len(setup.inputs.feed.time) - setup.first
    seconds = estimate_plain(len(setup.observed), n_bars)
    plain = partial(take, setup, is_compiled=False, progress=progress, switches=switches)
    policies = list_policies(setup.observed)
    if (found := try_plain(plain, mark, seconds, policies)) is not None:
        return found._replace(plain_because="")
    outcome = take(setup, is_compiled=True, progress=progress, switches=switches)
    write_mark(mark)
    return outcome


def begin(setup: Setup) -> tuple[PortfolioInputs, AccountState, Deciders, Tally]:
    inputs, resume = setup.inputs, setup.resume
    if resume is None:
        state = start_account_state(
            inputs, setup.account, setup.first, has_overlay=setup.overlay is not None
        )
    else:
        options = resume_options(inputs, [*setup.markets.options], resume.options)
        state = copy_state(resume.state)._replace(options=options)
    deciders = gather_deciders(setup, setup.observed)
    if resume is not None:
        deciders.memory[:] = resume.memory
    tally = start_tally(float(state.wallet[UNIT]), float(state.wallet[EQUITY]), setup.first)
    return inputs, state, deciders, tally


def gather_deciders(setup: Setup, observed: list[ObservedPolicy]) -> Deciders:
    width = setup.inputs.terms.rules.brackets.floors.shape[1]
    return make_deciders(observed, setup.markets, started=setup.inputs.started, width=width)


def list_policies(observed: Sequence[ObservedPolicy]) -> list[tuple[Policy, tuple[str, ...]]]:
    return [(each.policy, tuple(each.columns)) for each in observed]


def copy_state(state: AccountState) -> AccountState:
    copied: AccountState = copy_arrays(state)
    copied.cursor[:] = 0
    return copied


def copy_arrays(record: Any) -> Any:
    return type(record)._make(
        copy_arrays(each) if isinstance(each, tuple) else each.copy() for each in record
    )


def take(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    account = setup.account
    inputs, state, deciders, tally = begin(setup)
    legs = Legs({}, {}, set())
    first = start_policies(setup, Switch(setup.first, setup.observed), deciders, legs)
    later = [
        start_policies(setup, each, gather_deciders(setup, each.observed), legs)
        for each in switches
    ]
    return run_portfolio_loop(
        inputs,
        state,
        tally,
        [first, *later],
        is_compiled=is_compiled,
        progress=progress,
        own=account.requirement if isinstance(account.requirement, OwnMargin) else None,
        names=setup.markets.names,
        traded=None if setup.resume is None else setup.resume.traded,
    )


def start_policies(setup: Setup, switch: Switch, deciders: Deciders, legs: Legs) -> PolicySwitch:
    trader = find_trader(setup, switch.observed, legs)
    return PolicySwitch(switch.bar, deciders, list_policies(switch.observed), trader)


def find_trader(setup: Setup, observed: list[ObservedPolicy], legs: Legs) -> OptionTrader | None:
    may_sell = not isinstance(setup.account.requirement, Brackets)
    return make_trader(
        setup.markets,
        setup.inputs.feed.options,
        observed,
        may_sell=may_sell,
        legs=legs,
        resume=None if setup.resume is None else setup.resume.options,
    )
