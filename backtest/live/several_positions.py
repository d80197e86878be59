"""Ask the policies of an account with several positions at a close, and take it one bar further."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account import (
    AccountBar,
    AccountState,
    Terms,
    portfolio_bar,
    set_quotes,
    value_at,
    write_settings,
)
from backtest.account.portfolio_records import EQUITY, OVERLAY
from backtest.base import bind_functions
from backtest.engine import (
    Deciders,
    Outcome,
    PortfolioInputs,
    TradedDays,
    ask_plain,
    copy_state,
    find_portfolio_decisions,
    gather_deciders,
    join_records,
    look_at_close,
    new_event_log,
    new_ledger_array,
    new_quotes,
    new_scratch,
    new_tape,
    portfolio_loop,
    read_tables,
    report_bad_decision,
    start_day,
)
from backtest.engine.bar_loop import DAY_NS
from backtest.engine.portfolio_loop import N_SHOWN
from backtest.live.act_or_not import CAPACITY, Filled, pick_cuts
from backtest.live.starting_state import start_several
from backtest.measures import start_tally
from backtest.policy import AccountView, sets_margin
from backtest.venue import OwnMargin, make_own_twins

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.engine import Setup
    from backtest.live.facts import Completed


def find_functions(setup: Setup) -> Any:
    own = setup.account.requirement
    if isinstance(own, OwnMargin):
        from backtest.engine.compile.general_compiler import MODULES  # noqa: PLC0415 - numba

        return make_own_twins(MODULES, own.rule, setup.markets.names, {"ask": ask_plain})
    bound = bind_functions(portfolio_loop, ask=ask_plain)
    return SimpleNamespace(**{**vars(portfolio_bar), **bound, "look_at_close": look_at_close})


def read_terms(inputs: PortfolioInputs, traded: TradedDays | None, t: int) -> Terms:
    terms = read_tables(inputs, t + 1)
    if inputs.fees is None:
        return terms
    return inputs.fees.write(terms, start_day(inputs.fees.day, traded, t)[0])


def new_bar(
    setup: Setup, inputs: PortfolioInputs, state: AccountState, traded: TradedDays | None, t: int
) -> AccountBar:
    terms, n, assets = read_terms(inputs, traded, t), len(state.margin), len(state.priced)
    if any(sets_margin(policy) for policy in setup.policies.values()):
        write_settings(terms, state)
    return AccountBar(
        terms=terms, feed=inputs.feed, state=copy_state(state), quotes=new_quotes(n, assets),
        scratch=new_scratch(n, assets), ledger=new_ledger_array(n), log=new_event_log(CAPACITY),
    )  # fmt: skip


def start(setup: Setup, completed: Completed, traded: TradedDays | None) -> AccountState:
    return start_several(
        setup, completed, read_terms(setup.inputs, traded, setup.markets.n_bars - 1)
    )


def read_settings(state: AccountState) -> list[float]:
    return list(state.asked.tolist())


def read_overlay(state: AccountState) -> float:
    return float(state.wallet[OVERLAY])


def show(
    functions: Any, setup: Setup, bar: AccountBar, deciders: Deciders, t: int
) -> tuple[AccountView, ...]:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    close = functions.look_at_close(bar, True)
    days = (bar.feed.time[t] + setup.markets.interval - deciders.start) / DAY_NS
    functions.show_account_totals(terms, deciders, state, quotes, close, days)
    deciders.wants_price[:] = 1
    views = []
    for i in range(len(setup.markets)):
        functions.show_position(terms, deciders, state, quotes, scratch, i)
        views.append(AccountView._make((*deciders.shown[:N_SHOWN].tolist(), None)))
    return tuple(views)


def set_close(bar: AccountBar, t: int) -> None:
    set_quotes(bar.terms, bar.feed, bar.quotes, t)
    value_at(bar.state, bar.quotes.mark_close, bar.quotes.asset_mark_close)


def view_close(
    setup: Setup, state: AccountState, traded: TradedDays | None
) -> tuple[AccountView, ...]:
    t = setup.markets.n_bars - 1
    bar = new_bar(setup, setup.inputs, state, traded, t)
    deciders = gather_deciders(setup, setup.observed)
    with np.errstate(all="ignore"):
        set_close(bar, t)
        return show(find_functions(setup), setup, bar, deciders, t)


def ask(
    setup: Setup, state: AccountState, memory: list[tuple[float, ...]], traded: TradedDays | None
) -> tuple[AccountState, list[tuple[float, ...]]]:
    t, functions = setup.markets.n_bars - 1, find_functions(setup)
    bar = new_bar(setup, setup.inputs, state, traded, t)
    deciders = gather_deciders(setup, setup.observed)
    deciders.memory[:] = [x for numbers in memory for x in (*numbers, 0.0)]
    functions.begin_peak(deciders, bar.state)
    with np.errstate(all="ignore"):
        set_close(bar, t)
        close = functions.look_at_close(bar, True)
        is_good = functions.decide_all(bar, deciders, close, t)
    if not is_good:
        raise report_bad_decision(setup.inputs, t)
    return bar.state, split(deciders.memory, memory)


def split(slots: FloatArray, numbers: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    found, at = [], 0
    for each in numbers:
        found.append(tuple(slots[at : at + len(each)].tolist()))
        at += len(each) + 1
    return found


def fill(setup: Setup, later: Setup, state: AccountState, traded: TradedDays | None) -> Filled:
    t, functions, n = setup.markets.n_bars, find_functions(setup), len(state.margin)
    bar = new_bar(setup, later.inputs, state, traded, t)
    after, log = bar.state, bar.log
    deciders = gather_deciders(setup, setup.observed)
    tape = [new_tape(n, 1, first, 1) for first in (t - 1, t)]
    with np.errstate(all="ignore"):
        functions.simulate_portfolio_bar(bar, t)
        views = show(functions, setup, bar, deciders, t)
        before = bar._replace(state=state, ledger=new_ledger_array(n))
        functions.record_portfolio(before, tape[0], False, 0)
        functions.record_portfolio(bar, tape[1], False, 0)
    entries = log.entries[: log.written[0]]
    outcome = Outcome(
        state=after, tally=start_tally(1.0, 1.0, t), memory=None, entries=entries,
        record=join_records([each.record for each in tape]), plain_because="", traded=None,
    )  # fmt: skip
    found = find_portfolio_decisions(later, outcome)
    cuts = pick_cuts(found, found.instrument, t, n)
    return Filled(entries, views, float(after.wallet[EQUITY]), cuts)
