"""Take an account through its markets, with the loop of one position or of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from backtest.account import Account
from backtest.engine.compile.background_compiler import CompileFirst, answer_first
from backtest.engine.compile.plain_or_compiled_book import (
    is_book_plain,
    mark_book_ready,
    order_book_loop,
)
from backtest.engine.loop_driver import LoopOutcome, LoopStart, Progress, run_loop
from backtest.engine.loop_inputs import start_state
from backtest.engine.portfolio.book_desk import set_desk
from backtest.engine.portfolio.book_driver import (
    BookOutcome,
    DeskSwitch,
    list_kernel_arguments,
    run_book_loop,
)
from backtest.engine.portfolio.book_inputs import BookInputs, start_book
from backtest.engine.portfolio.book_loop import Desk
from backtest.engine.portfolio.portfolio_setup import Setup
from backtest.engine.run_record import RunRecord
from backtest.measures.tally import Tally, start_tally
from backtest.policy import Policy, start_memory
from backtest.portfolio.book_records import EQUITY, UNIT, Book
from backtest.venue.own_requirement import OwnMargin


def run_account(
    setup: Setup, *, is_compiled: bool, progress: Progress | None
) -> LoopOutcome | BookOutcome:
    """Take the account through the markets, in the fast loop if it holds one position."""
    if not setup.has_one_position:
        return live(setup, is_compiled=is_compiled, progress=progress)
    (only,), account = setup.panelists, setup.account
    begin = find_loop_start(setup.resume, account, only.policy, setup.first)
    return run_loop(
        only.policy, setup.inputs, only.columns, begin, is_compiled=is_compiled, progress=progress
    )


def find_loop_start(
    resume: RunRecord | None, account: Account, policy: Policy, first: int
) -> LoopStart:
    """Return where the loop begins: a fresh account, or the end of an earlier result."""
    if resume is None:
        memory = tuple(map(float, start_memory(policy) or ()))
        return LoopStart(start_state(account), memory, first)
    state = resume.state._replace(funding_next=0, flow_next=0)
    return LoopStart(state, resume.memory, first, resume.traded)


def live(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[DeskSwitch] = (),
) -> BookOutcome:
    """Take the account through the markets; a first run may be answered in plain Python."""
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return take(setup, is_compiled=False, progress=progress, switches=switches)
    order = order_book_loop(list_kernel_arguments(*begin(setup)))
    policies = [(each.policy, tuple(each.columns)) for each in setup.panelists]
    if is_book_plain(order, policies, len(setup.inputs.feed.time) - setup.first):
        plain = partial(take, setup, is_compiled=False, progress=progress, switches=switches)
        with suppress(CompileFirst):
            return answer_first(plain, order)._replace(plain_because="")
    outcome = take(setup, is_compiled=True, progress=progress, switches=switches)
    mark_book_ready(order)
    return outcome


def begin(setup: Setup) -> tuple[BookInputs, Book, Desk, Tally]:
    """Return the inputs of the loop, and the account, the policies and the tally at its start."""
    inputs, resume = setup.inputs, setup.resume
    if resume is None:
        book = start_book(inputs, setup.account, setup.first, has_overlay=setup.overlay is not None)
    else:
        book = copy_book(resume.state)
    desk = set_desk(
        setup.panelists,
        setup.markets,
        started=inputs.started,
        width=inputs.terms.rules.brackets.floors.shape[1],
    )
    if resume is not None:
        desk.memory[:] = resume.memory
    tally = start_tally(float(book.purse[UNIT]), float(book.purse[EQUITY]), setup.first)
    return inputs, book, desk, tally


def copy_book(book: Book) -> Book:
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
    switches: Sequence[DeskSwitch] = (),
) -> BookOutcome:
    """Take the account through the markets, in compiled code or in plain Python."""
    account = setup.account
    return run_book_loop(
        *begin(setup),
        setup.first,
        [(each.policy, tuple(each.columns)) for each in setup.panelists],
        is_compiled=is_compiled,
        progress=progress,
        own=account.requirement if isinstance(account.requirement, OwnMargin) else None,
        names=setup.markets.names,
        switches=switches,
        traded=None if setup.resume is None else setup.resume.traded,
    )
