"""Take an account through its markets, with the loop of one position or of several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from backtest.account import Account, AccountState
from backtest.account.portfolio_records import EQUITY, UNIT
from backtest.base import write_mark
from backtest.engine.compile.plain_or_compiled import (
    estimate_plain_general,
    find_mark,
    try_plain,
)
from backtest.engine.deciders import Deciders
from backtest.engine.loop_driver import (
    LoopStart,
    Progress,
    go_on,
    run_loop,
)
from backtest.engine.loop_inputs import start_state
from backtest.engine.option_arrays import resume_options
from backtest.engine.option_chain import Legs
from backtest.engine.option_trader import OptionTrader, make_trader
from backtest.engine.portfolio_driver import (
    PolicySwitch,
    list_kernel_arguments,
    run_portfolio_loop,
)
from backtest.engine.portfolio_inputs import PortfolioInputs, start_account_state
from backtest.engine.portfolio_policies import ObservedPolicy, make_deciders
from backtest.engine.portfolio_setup import Setup
from backtest.engine.record import Outcome, join_outcomes
from backtest.engine.run_record import RunRecord
from backtest.measures import Tally, start_tally
from backtest.policy import Policy, start_memory
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
    run = live_one if setup.is_of_fast_loop else live
    return run(setup, is_compiled=is_compiled, progress=progress, switches=switches)


def live_one(
    setup: Setup, *, is_compiled: bool, progress: Progress | None, switches: Sequence[Switch]
) -> Outcome:
    stops = [*(each.bar for each in switches), setup.markets.n_bars]
    outcomes: list[Outcome] = []
    for part, stop in zip([Switch(setup.first, setup.observed), *switches], stops, strict=True):
        ((policy, _, columns, *_),) = part.observed
        if outcomes:
            begin = go_on(outcomes[-1], start_numbers(policy), part.bar)
        else:
            begin = find_loop_start(setup.resume, setup.account, policy, setup.first)
        outcomes.append(
            run_loop(
                policy,
                setup.inputs.at(part.bar),
                columns,
                begin,
                stop=stop,
                is_compiled=is_compiled,
                progress=progress,
            )
        )
    return join_outcomes(outcomes)


def start_numbers(policy: Policy) -> tuple[float, ...]:
    return tuple(map(float, start_memory(policy) or ()))


def find_loop_start(
    resume: RunRecord | None, account: Account, policy: Policy, first: int
) -> LoopStart:
    if resume is None:
        return LoopStart(start_state(account), start_numbers(policy), first)
    state = resume.state._replace(funding_next=0, flow_next=0)
    return LoopStart(state, resume.memory, first, resume.traded)


def live(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return take(setup, is_compiled=False, progress=progress, switches=switches)
    mark = find_mark(None, list_kernel_arguments(*begin(setup)))
    n_bars = len(setup.inputs.feed.time) - setup.first
    seconds = estimate_plain_general(len(setup.observed), n_bars)
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
