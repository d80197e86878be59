"""Take an account through its markets, with the loop of one position or of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from backtest.account import Account
from backtest.account.portfolio_records import EQUITY, UNIT, AccountState
from backtest.engine.compile.background_compiler import CompileFirst, answer_first
from backtest.engine.compile.plain_or_compiled import (
    estimate_plain_general,
    is_loop_plain,
    mark_ready,
    order_loop,
)
from backtest.engine.loop_driver import (
    LoopStart,
    Progress,
    go_on,
    run_loop,
)
from backtest.engine.loop_inputs import start_state
from backtest.engine.portfolio_driver import (
    DeskSwitch,
    list_kernel_arguments,
    run_book_loop,
)
from backtest.engine.portfolio_inputs import BookInputs, start_book
from backtest.engine.portfolio_loop import Desk
from backtest.engine.portfolio_policies import Panelist, set_desk
from backtest.engine.portfolio_setup import Setup
from backtest.engine.record import Outcome, join_outcomes
from backtest.engine.run_record import RunRecord
from backtest.measures.tally import Tally, start_tally
from backtest.policy import Policy, start_memory
from backtest.venue.own_requirement import OwnMargin


class Switch(NamedTuple):
    """First bar of other policies, with their columns; last the overlay, if there is one."""

    bar: int
    panelists: list[Panelist]


def run_account(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    """Simulate the account and return its loop outcome; one position takes the fast loop.

    Each of the ``switches`` replaces the policies from its bar on.
    """
    run = live_one if setup.is_of_fast_loop else live
    return run(setup, is_compiled=is_compiled, progress=progress, switches=switches)


def live_one(
    setup: Setup, *, is_compiled: bool, progress: Progress | None, switches: Sequence[Switch]
) -> Outcome:
    """Take an account with one position through its market."""
    stops = [*(each.bar for each in switches), setup.markets.n_bars]
    outcomes: list[Outcome] = []
    for part, stop in zip([Switch(setup.first, setup.panelists), *switches], stops, strict=True):
        ((policy, _, columns, *_),) = part.panelists
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
    """Return the numbers that a policy remembers at first."""
    return tuple(map(float, start_memory(policy) or ()))


def find_loop_start(
    resume: RunRecord | None, account: Account, policy: Policy, first: int
) -> LoopStart:
    """Return where the loop begins: a fresh account, or the end of an earlier result."""
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
    """Simulate the account; plain Python serves a short run while its loop is compiled."""
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return take(setup, is_compiled=False, progress=progress, switches=switches)
    order = order_loop(None, list_kernel_arguments(*begin(setup)))
    policies = list_policies(setup.panelists)
    n_bars = len(setup.inputs.feed.time) - setup.first
    if is_loop_plain(order, policies, estimate_plain_general(len(policies), n_bars)):
        plain = partial(take, setup, is_compiled=False, progress=progress, switches=switches)
        with suppress(CompileFirst):
            return answer_first(plain, order)._replace(plain_because="")
    outcome = take(setup, is_compiled=True, progress=progress, switches=switches)
    mark_ready(order)
    return outcome


def begin(setup: Setup) -> tuple[BookInputs, AccountState, Desk, Tally]:
    """Return the inputs of the loop, and the account, the policies and the tally at its start."""
    inputs, resume = setup.inputs, setup.resume
    if resume is None:
        book = start_book(inputs, setup.account, setup.first, has_overlay=setup.overlay is not None)
    else:
        book = copy_book(resume.state)
    desk = seat_at_desk(setup, setup.panelists)
    if resume is not None:
        desk.memory[:] = resume.memory
    tally = start_tally(float(book.wallet[UNIT]), float(book.wallet[EQUITY]), setup.first)
    return inputs, book, desk, tally


def seat_at_desk(setup: Setup, panelists: list[Panelist]) -> Desk:
    """Return the desk of the policies of a run."""
    width = setup.inputs.terms.rules.brackets.floors.shape[1]
    return set_desk(panelists, setup.markets, started=setup.inputs.started, width=width)


def list_policies(panelists: Sequence[Panelist]) -> list[tuple[Policy, tuple[str, ...]]]:
    """Return the policies of a run, each with the names of its columns."""
    return [(each.policy, tuple(each.columns)) for each in panelists]


def copy_book(book: AccountState) -> AccountState:
    """Return the book of an account at the end of a run, at the first events of what follows."""
    copied = type(book)._make(
        type(each)._make(part.copy() for part in each) if isinstance(each, tuple) else each.copy()
        for each in book
    )
    copied.cursor[:] = 0
    return copied


def take(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    """Run the loop of several positions over all bars; return its arrays and events."""
    account = setup.account
    return run_book_loop(
        *begin(setup),
        setup.first,
        list_policies(setup.panelists),
        is_compiled=is_compiled,
        progress=progress,
        own=account.requirement if isinstance(account.requirement, OwnMargin) else None,
        names=setup.markets.names,
        switches=[
            DeskSwitch(each.bar, seat_at_desk(setup, each.panelists), list_policies(each.panelists))
            for each in switches
        ],
        traded=None if setup.resume is None else setup.resume.traded,
    )
