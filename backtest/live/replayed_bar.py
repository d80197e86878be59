"""One bar of a replay: flows, funding and interest as in a run, and fills that are facts."""

from __future__ import annotations

import math
from itertools import groupby
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import (
    AccountBar,
    Position,
    Terms,
    add_from_wallet,
    as_log,
    can_add,
    charge,
    charge_portfolio_interest,
    clear_ledger,
    compute_account_equity,
    compute_entry,
    compute_excess,
    compute_pool_backing,
    compute_pool_needed,
    count_cross,
    is_held,
    is_isolated,
    is_pool_short,
    make_balances,
    mark_to_ledger,
    move_margin,
    note,
    pick_balances,
    pick_instrument,
    pick_quote,
    portfolio_bar,
    portfolio_payments,
    put_balances,
    stamp,
    value_at,
    write_event,
)
from backtest.account import ledger as kinds
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    COLLATERAL_PNL,
    CONVERSION,
    CONVERTED,
    DELISTED,
    FEES,
    LIQUIDATIONS,
    LOSS,
    PRICE_PNL,
    SLIPPAGE,
    TOP_UP,
    TRADED,
)
from backtest.account.portfolio_ledger import STOPS as STOPS_ROW
from backtest.account.portfolio_records import CASH, EARLY, EQUITY, FUNDING_NEXT, RESERVE
from backtest.base import DataError, IntArray, bind_functions, format_time
from backtest.base.units import TOLERANCE
from backtest.live.fill_rows import Fact
from backtest.venue import compute_price

if TYPE_CHECKING:
    from backtest.base import FloatArray

ENTRIES = {
    "order": kinds.FILL, "stop": kinds.STOPPED, "liquidation": kinds.LIQUIDATED,
    "takeover": kinds.LIQUIDATED, "expiry": DELISTED, "delisting": DELISTED, "ruin": kinds.FILL,
    "conversion": CONVERTED,
}  # fmt: skip
BY_VENUE = ("liquidation", "takeover")
ENDING = ("stop", *BY_VENUE)
DUST = 1e-9
"""A position is closed if less than this share of it or of the fill would be left."""


class Would(NamedTuple):
    time: int
    instrument: str
    price: float
    shortfall: float


class Replayer:
    """The bars of a replay, with the fills of each.

    Parameters
    ----------
    names : tuple of str
        The instruments, then the collateral.
    n : int
        The number of instruments.
    facts : mapping of int to list of Fact
        The fills by bar, in order.
    time, due : IntArray
        Opens of the bars, and stamps of the settlements of the feed, ns.
    interval : int
        Length of a bar, ns.
    drawn : mapping of int to float
        The money that came from the reserve by bar.
    """

    def __init__(
        self, names: tuple[str, ...], n: int, facts: dict[int, list[Fact]],
        time: IntArray, due: IntArray, interval: int, drawn: dict[int, float],
    ) -> None:  # fmt: skip
        self.drawn = drawn
        self.names, self.n, self.facts = names, n, facts
        self.time, self.due, self.interval = time, due, interval
        self.would: list[Would] = []
        self._allowed, self._t = 0, 0
        pay = bind_functions(
            portfolio_payments,
            liquidate_isolated=lambda *_: False,
            is_portfolio_funding_due=self._is_next_due,
            compute_withdrawable=lambda *_: math.inf,
        )
        close = bind_functions(
            portfolio_bar,
            settle_debt=self._check_debt,
            delist=_do_nothing,
            end_portfolio=_do_nothing,
        )
        self.kernel = SimpleNamespace(
            pay=pay["pay_portfolio_funding"],
            flow=pay["take_portfolio_flows"],
            close=close["close_portfolio_bar"],
        )

    def live(self, bar: AccountBar, t: int) -> None:
        terms, feed, state, quotes, ledger = bar.terms, bar.feed, bar.state, bar.quotes, bar.ledger
        self._t = t
        portfolio_bar.set_quotes(terms, feed, quotes, t)
        clear_ledger(ledger)
        before = state.wallet[EQUITY]
        wealth = before + state.wallet[RESERVE]
        left = list(self.facts.get(t, ()))
        if terms.fill == EARLY and t > 0:
            for i in range(self.n):
                if is_held(state, i):
                    mark_to_ledger(state, i, quotes.fill[i], ledger)
        left = self._apply(bar, left, lambda fact: fact.step == 0)
        self._top_up(bar)
        self.kernel.flow(bar, t)
        left = self._apply(bar, left, lambda fact: fact.step == 1)
        portfolio_bar.rescale_unit(state, ledger, before)
        left = self._pay(bar, left, 1)
        if terms.has_interest and t > 0:
            charge_portfolio_interest(bar, t)
        opened = int(self.time[t])
        closed = opened + self.interval - 1
        self._test(bar, quotes.mark_open, quotes.asset_mark_open, opened)
        left = self._apply(bar, left, lambda fact: fact.time == opened)
        if left and left[0].time < closed:
            self._test_extremes(bar, left[0].time, left)
        left = self._pay(bar, left, 0)
        left = self._apply(bar, left, lambda fact: fact.time < closed)
        self._test_extremes(bar, closed, left)
        self._apply(bar, left, lambda _: True)
        portfolio_bar.follow_bests(bar)
        self.kernel.close(bar, t, wealth)

    def _top_up(self, bar: AccountBar) -> None:
        moved = min(self.drawn.get(self._t, 0.0), float(bar.state.wallet[RESERVE]))
        if moved > 0.0:
            bar.state.wallet[RESERVE] -= moved
            bar.state.wallet[CASH] += moved
            bar.ledger[TOP_UP, -1] += moved
            note(bar.log, self._t, -1, kinds.TOP_UP, 1.0, 0.0, moved)

    def _is_next_due(self, *given: Any) -> bool:
        self._allowed -= 1
        return self._allowed >= 0 and portfolio_payments.is_portfolio_funding_due(*given)

    def _pay(self, bar: AccountBar, left: list[Fact], is_open: int) -> list[Fact]:
        feed, state, t = bar.feed, bar.state, self._t
        while portfolio_payments.is_portfolio_funding_due(feed, state, t, is_open):
            event = int(state.cursor[FUNDING_NEXT])
            name, due = self.names[feed.funding_instrument[event]], int(self.due[event])
            if not is_open:
                left = self._apply(bar, left, lambda fact, due=due: fact.time < due)
            self._allowed = 1
            self.kernel.pay(bar, t, is_open)
            by = 2 if is_open else 6
            left = self._apply(
                bar,
                left,
                lambda fact, due=due, name=name, by=by: fact.is_by(name, by, due),
                is_first=True,
            )
        return left

    def _apply(
        self, bar: AccountBar, left: list[Fact], chosen: Any, *, is_first: bool = False
    ) -> Any:
        taken, kept = [], []
        for k, fact in enumerate(left):
            if chosen(fact):
                taken.append(fact)
            elif is_first:
                kept += left[k:]
                break
            else:
                kept.append(fact)
        for time, group in groupby(taken, key=lambda fact: fact.time):
            facts = list(group)
            for fact in facts:
                self._enter(bar, fact)
            if any(fact.kind in ("order", "stop") and fact.place < self.n for fact in facts):
                self._test_at(bar, facts, time)
        return kept

    def _enter(self, bar: AccountBar, fact: Fact) -> None:
        if fact.kind == "bad_debt":
            bar.state.wallet[CASH] -= fact.fee
            bar.ledger[BAD_DEBT, self.n] -= fact.fee
            note(bar.log, self._t, -1, kinds.BAD_DEBT, 1.0, 0.0, -fact.fee)
        elif fact.place >= self.n:
            sell_asset(bar, self._t, fact, self.n)
        else:
            enter_fill(bar, self._t, fact)

    # ------------------------------------------------------------------------------ tests

    def _test_at(self, bar: AccountBar, facts: list[Fact], time: int) -> None:
        quotes = bar.quotes
        is_close = time >= int(self.time[self._t]) + self.interval - 1
        values = (quotes.mark_close if is_close else quotes.mark_open).copy()
        prices = quotes.asset_mark_close if is_close else quotes.asset_mark_open
        for fact in facts:
            if fact.place < self.n:
                values[fact.place] = fact.value
        self._test(bar, values, prices, time)

    def _test(self, bar: AccountBar, values: FloatArray, prices: FloatArray, time: int) -> None:
        terms, state = bar.terms, bar.state
        value_at(state, values, prices)
        if count_cross(terms, state) > 0 and is_pool_short(terms, state):
            self._note(time, "", float("nan"), -compute_excess(terms, state))
        for i in range(self.n):
            if is_held(state, i) and is_isolated(terms, i):
                missing = self._find_missing(bar, i)
                if missing is not None and add_margin(bar, self._t, i, values[i]):
                    missing = self._find_missing(bar, i)
                if missing is not None:
                    price = self._price(terms, i, values[i])
                    self._note(time, self.names[i], price, missing)

    def _find_missing(self, bar: AccountBar, i: int) -> float | None:
        needed = compute_pool_needed(bar.terms, bar.state, bar.quotes, i)
        missing = needed - compute_pool_backing(bar.terms, bar.state, i)
        return missing if missing >= -TOLERANCE * needed else None

    def _price(self, terms: Terms, i: int, value: float) -> float:
        brackets = terms.rules.brackets
        return float(compute_price(brackets.sizes[i], bool(brackets.are_inverse[i]), value))

    def _note(self, time: int, name: str, price: float, shortfall: float) -> None:
        if not self.would or self.would[-1][:2] != (time, name):
            self.would.append(Would(time, name, price, float(shortfall)))

    def _test_extremes(self, bar: AccountBar, time: int, ahead: list[Fact]) -> None:
        quotes = bar.quotes
        is_up = quotes.close >= quotes.open
        low, high = quotes.mark_low.copy(), quotes.mark_high.copy()
        for fact in ahead:
            i = fact.place
            if fact.kind in ENDING and fact.quantity < 0.0 and fact.value < quotes.open[i]:
                low[i] = max(low[i], fact.value)
            elif fact.kind in ENDING and fact.quantity > 0.0 and fact.value > quotes.open[i]:
                high[i] = min(high[i], fact.value)
        for first in (True, False):
            values = low.copy()
            chosen = is_up != first
            values[chosen] = high[chosen]
            is_high = (quotes.asset_close >= quotes.asset_open) != first
            prices = np.where(is_high, quotes.asset_mark_high, quotes.asset_mark_low)
            self._test(bar, values, prices, time)

    def _check_debt(self, bar: AccountBar, t: int) -> None:
        state, equity = bar.state, compute_account_equity(bar.terms, bar.state)
        scale = max(abs(state.wallet[CASH]), float(abs(state.wallet[EQUITY])), 1e-300)
        if equity < -DUST * scale:
            raise DataError(
                f"the equity of a replay must not fall below 0, got {equity:.10g} in bar {t}, "
                f"{format_time(int(self.time[t]))}; add a row of the kind bad_debt with the fee "
                "-amount after the fill that left the debt"
            )
        if equity < 0.0:
            state.wallet[CASH] -= equity


def _do_nothing(*_: Any) -> None:
    """Trade nothing: what is delisted or ruined is closed by its fill."""


def add_margin(bar: AccountBar, t: int, i: int, value: float) -> bool:
    rules, before = pick_instrument(bar.terms, i), pick_balances(bar.terms, bar.state, i)
    if not can_add(rules, before):
        return False
    row, quote = bar.log.written[0], pick_quote(bar.quotes, i)
    after = add_from_wallet(rules, before, value, quote, as_log(bar.log), t)
    stamp(bar.log, row, i)
    put_balances(bar.terms, bar.state, i, before, after)
    return True


def sell_asset(bar: AccountBar, t: int, fact: Fact, n: int) -> None:
    state, ledger, c = bar.state, bar.ledger, fact.place - n
    sold = -fact.quantity
    ledger[COLLATERAL_PNL, n] += sold * (fact.reference - state.priced[c])
    ledger[CONVERSION, n] += sold * (fact.reference - fact.price)
    ledger[FEES, n] += fact.fee
    left = state.held.amounts[c] - sold
    state.held.amounts[c] = 0.0 if abs(left) <= DUST * abs(sold) else left
    state.wallet[CASH] += sold * fact.price - fact.fee
    note(bar.log, t, fact.place, CONVERTED, fact.price, -sold, sold * fact.price)


def enter_fill(bar: AccountBar, t: int, fact: Fact) -> None:
    terms, state, ledger, i = bar.terms, bar.state, bar.ledger, fact.place
    rules, before = pick_instrument(terms, i), pick_balances(terms, state, i)
    (position,) = before.positions
    quantity = position.quantity + fact.quantity
    if abs(quantity) <= DUST * max(abs(position.quantity), abs(fact.quantity)):
        quantity = 0.0
    change = quantity - position.quantity
    entry = compute_entry(rules, position, quantity, fact.filled)
    initial = pick_quote(bar.quotes, i).initial
    if is_isolated(terms, i):
        cash, margin = move_margin(rules, before, quantity, fact.filled, initial)
    else:
        cash, margin = before.cash - change * fact.filled, 0.0
    after = charge(
        rules, make_balances(cash, Position(quantity, entry, margin, fact.value)), fact.fee
    )
    cost = change * (fact.filled - fact.value)
    is_forced = fact.kind in BY_VENUE
    ledger[PRICE_PNL, i] += position.quantity * (fact.value - position.value)
    ledger[LOSS if is_forced else FEES, i] += fact.fee
    ledger[LOSS if is_forced else SLIPPAGE, i] += cost
    ledger[TRADED, i] += abs(change) * abs(fact.filled)
    ledger[LIQUIDATIONS, i] += 1.0 if is_forced else 0.0
    ledger[STOPS_ROW, i] += 1.0 if fact.kind == "stop" else 0.0
    put_balances(terms, state, i, before, after)
    row = bar.log.written[0]
    costs = (fact.fee + cost, 0.0) if is_forced else (fact.fee, cost)
    shown = fact.value if is_forced else fact.filled
    write_event(
        as_log(bar.log), t, ENTRIES[fact.kind], shown, change,
        abs(change) * abs(shown), *costs,
    )  # fmt: skip
    stamp(bar.log, row, i)
