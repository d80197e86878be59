"""The books of a crowd whose accounts are liquidated, round after round.

Money is in the settlement currency, values are u. The sum of all equities, the fund, fees and what
the venues owe is verified not to change in a round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import FloatArray, IntArray
from backtest.core.units import TOLERANCE
from backtest.margin import compute_maintenance, read_rules
from backtest.results.tables import value_of
from backtest.risk.crowd import find_liquidation_prices
from backtest.risk.impact_laws import ImpactCurve
from backtest.venue import Venue, read_newest

SLACK = 1e-9
"""How far the books may be from balance, as a share of all money and notional in them."""
LEAST_PRICE = 1e-6
"""The lowest price, as a share of that before the shock, to which impact can carry it."""
MOST_ROUNDS = 200_000
HALVINGS = 64
"""Bisections of the way of prices, to the last digit of a fraction."""
BEFORE = 100.0
"""How far before its start a way is followed to order accounts that fail there, in its length."""


class MarketTerms(NamedTuple):
    """What one market needs: its rules, costs of liquidation, haircut of coins, and impact."""

    venue: Venue
    rules: Any
    fee: float
    slippage: float
    haircut: float
    curve: ImpactCurve


def read_terms(
    venue: Venue,
    curve: ImpactCurve,
    haircut: float = 0.0,
) -> MarketTerms:
    """Return what a market needs; where the venue takes over, a liquidation costs nothing."""
    forced = venue.liquidation
    fee = read_newest(forced.fee, "venue.liquidation.fee", "in a crowd")
    slippage = read_newest(forced.slippage, "venue.liquidation.slippage", "in a crowd")
    if forced.mode == "takeover":
        fee = 0.0
        slippage = 0.0
    return MarketTerms(
        venue,
        read_rules(venue),
        fee,
        slippage,
        haircut,
        curve,
    )


class Books:
    """Every account, the liquidity account, the insurance fund and the venue, round after round.

    Arrays have the shape (n_accounts, n_markets), (n_accounts,) or (n_markets,). ``cash`` is what
    an account has beside its positions, ``coins``, in contracts, are collateral, and no liquidation
    touches what is ``safe``. ``flow`` was forced so far, a notional at the start, ``level`` is how
    far the shock has gone, a price before impact, ``unit`` the value of a contract at the start.
    Only one market may have a jump, auto-deleveraging, or a mode other than ``"close"``.
    """

    def __init__(
        self,
        terms: Sequence[MarketTerms],
        start: FloatArray,
        shocks: FloatArray,
        *,
        names: Sequence[str] = ("",),
        quantity: FloatArray,
        entry: FloatArray,
        money: FloatArray,
        coins: FloatArray | float = 0.0,
        safe: FloatArray | float = 0.0,
        insurance: float = 0.0,
        adl: str | None = None,
        is_jump: bool = False,
    ) -> None:
        n_accounts = len(money)
        self.terms = terms
        self.names = names
        self.adl = adl
        self.is_jump = is_jump
        self.mode = terms[0].venue.liquidation.mode
        self.rows: list[dict[str, float]] = []

        # The way of the prices.
        self.start = start
        self.shocked = start * (1.0 + shocks)
        self.first_values = self.to_values(start)
        self.unit = np.abs(self.first_values)
        self.flow = np.zeros(len(terms))
        self.level = start.copy()

        # What accounts hold.
        self.quantity = quantity.copy()
        self.first_quantity = quantity
        self.coins = coins + np.zeros(quantity.shape)
        has_coins = bool(self.coins.any())
        self.is_joined = len(terms) > 1 or has_coins
        self.entry = self.to_values(entry)
        entry_value = np.sum(quantity * self.entry, axis=1)
        self.cash = money - entry_value
        self.safe = safe

        # A profit is what is worth more than this: positions since they were opened, and coins,
        # which have no entry price, since the start.
        self.without_profit = money + safe + self.coins @ self.first_values

        # What became of them: the round in which each failed (0: never), and where it last traded.
        self.failed = np.zeros(n_accounts, np.int64)
        self.last = np.tile(start, (n_accounts, 1))
        self.lost = np.zeros(n_accounts)
        self.haircut = np.zeros(n_accounts)
        self.deleveraged = np.zeros(n_accounts)
        self.closed = np.zeros(n_accounts)
        self.closed_money = np.zeros(n_accounts)

        # The liquidity account is the other side of all positions, and the fund pays first.
        held_by_all = np.sum(quantity + self.coins, axis=0)
        self.liquidity = -held_by_all
        self.liquidity_cash = 0.0
        self.insurance = insurance
        self.fund_paid = 0.0
        self.fees = 0.0
        self.unpaid = 0.0

    def to_values(self, prices: FloatArray) -> FloatArray:
        """Return the values of a contract of each market at prices (..., n_markets)."""
        values = []
        for i, market in enumerate(self.terms):
            contract = market.venue.contract
            values.append(value_of(contract, prices[..., i]))
        return np.stack(values, axis=-1)

    @property
    def fund(self) -> float:
        return self.insurance - self.fund_paid

    def measure_equity(self, prices: FloatArray) -> FloatArray:
        quantity = self.quantity + self.coins
        held = quantity @ self.to_values(prices)
        return np.asarray(self.cash + held + self.safe)

    def find_gaps(self, rows: IntArray, prices: FloatArray) -> FloatArray:
        """Return what backs accounts less their requirement, at prices (n_rows, n_markets)."""
        quantity = self.quantity[rows]
        values = self.to_values(prices)
        worth = np.sum(quantity * values, axis=1)
        gaps: FloatArray = self.cash[rows] + worth

        # Coins count less their haircut. What just meets its requirement, to rounding, fails.
        for i, market in enumerate(self.terms):
            coins_worth = self.coins[rows, i] * values[:, i]
            gaps += coins_worth * (1.0 - market.haircut)

            notional: Any = np.abs(quantity[:, i] * values[:, i])
            maintenance = compute_maintenance(market.rules, notional, 1.0)
            gaps -= maintenance * (1.0 + TOLERANCE)
        return gaps

    def find_failing(self, marks: FloatArray) -> IntArray:
        """Return the accounts with a position that marks (n_markets,) liquidate."""
        has_position = np.any(self.quantity != 0.0, axis=1)
        held = np.flatnonzero(has_position)
        if self.is_joined:
            marks_of_all = np.broadcast_to(marks, (len(held), len(marks)))
            gaps = self.find_gaps(held, marks_of_all)
            return held[gaps <= 0.0]

        # A price that just meets the mark, to rounding, liquidates.
        side = np.sign(self.quantity[held, 0])
        liquidation = self.find_liquidations(held)
        reached = liquidation * (1.0 + side * TOLERANCE)
        is_failing = side * (reached - marks[0]) >= 0.0
        return np.asarray(held[is_failing])

    def find_liquidations(self, rows: IntArray | slice) -> FloatArray:
        """Return the prices that liquidate the positions in the first market, (n_rows,)."""
        return find_liquidation_prices(
            self.terms[0].venue,
            self.quantity[rows, 0],
            self.entry[rows, 0],
            self.cash[rows],
        )

    def order_one(
        self,
        rows: IntArray,
        marks: FloatArray,
    ) -> tuple[IntArray, FloatArray]:
        """Return accounts of one market in the order in which they fail, and where, (n_rows, 1)."""
        start = float(self.start[0])
        mark = float(marks[0])
        is_fall = float(self.shocked[0]) <= start
        side = 1.0 if is_fall else -1.0

        # Those that lose by the shock fail at their prices; the others come last.
        liquidation = self.find_liquidations(rows)
        loses = np.sign(self.quantity[rows, 0]) == side
        rank = np.where(loses, -side * liquidation, 0.0)
        order = np.lexsort((rank, ~loses))

        if self.is_jump:
            reached = np.full(len(rows), mark)
        else:
            # No earlier than where an account last traded.
            low, high = sorted((start, mark))
            reached = np.where(loses, np.clip(liquidation, low, high), start)
            farther = np.minimum if is_fall else np.maximum
            reached = farther(reached, self.last[rows, 0])
        return rows[order], reached[order, None]

    def order(
        self,
        rows: IntArray,
        marks: FloatArray,
    ) -> tuple[IntArray, FloatArray]:
        """Return accounts in the order in which they fail, and the prices where, (n_rows, n).

        Each fails at a fraction of the way from the start to the marks, 0 to 1. Of those that fail
        at the start already, the one that is deepest in failure comes first: the way is followed
        backward to where it would not fail yet, a fraction under 0. Those that fail at the start
        and gain on the way come last.
        """
        shape = (len(rows), len(marks))
        starts = np.broadcast_to(self.start, shape)
        ends = np.broadcast_to(marks, shape)
        gaps_at_start = self.find_gaps(rows, starts)
        gaps_at_marks = self.find_gaps(rows, ends)
        fails_at_start = gaps_at_start <= 0.0
        are_last = fails_at_start & (gaps_at_marks > gaps_at_start)

        # The way from failing to not failing is halved; ``high`` is where an account fails.
        way = marks - self.start
        low = np.full(len(rows), -BEFORE)
        high = np.ones(len(rows))
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            prices = self.start + middle[:, None] * way
            fails = self.find_gaps(rows, prices) <= 0.0
            low = np.where(fails, low, middle)
            high = np.where(fails, middle, high)
        fractions = np.where(are_last, 0.0, high)

        # Fractions that differ by rounding are the same: accounts then follow in their order.
        rounded = np.round(fractions, 12)
        order = np.lexsort((rounded, are_last))
        moves = np.maximum(fractions[order, None], 0.0) * way
        return rows[order], self.start + moves

    def find_marks(self, flow: FloatArray) -> FloatArray:
        """Return the prices after a flow, (n_markets,), beyond which impact carries none."""
        falls = []
        for market, sold in zip(self.terms, flow, strict=True):
            falls.append(market.curve.fall(sold))

        marks = self.shocked - self.start * np.array(falls)
        lowest = self.start * LEAST_PRICE
        return np.asarray(np.maximum(marks, lowest))

    def run(self, decay: float = 1.0) -> FloatArray:
        """Liquidate until no account fails, and return the prices then; ``rows`` are the rounds.

        From round to round, ``decay`` of the fall by impact is left.
        """
        # Impact grows with a power of the flow: this share of the flow has ``decay`` of the fall.
        exponents = np.array([market.curve.exponent for market in self.terms])
        share_left = decay ** (1.0 / exponents)

        marks = self.shocked
        failing = self.find_failing(marks)
        while len(failing):
            if len(self.rows) >= MOST_ROUNDS:
                raise core.AccountingError(f"a cascade did not end in {MOST_ROUNDS:,} rounds")

            # A round moves money between accounts, the fund and the venue, and makes none.
            money_before = self.sum_money(marks)
            row = self.do_round(failing, marks)
            row["off"] = self.check(marks, money_before)
            row |= self.name_all("mark", marks)
            prices = self.find_marks(self.flow)
            row |= self.name_all("price", prices)
            self.rows.append(row)

            # The prices of the next round: those after this one, recovered a little.
            self.flow *= share_left
            marks = self.find_marks(self.flow)
            failing = self.find_failing(marks)
        return marks

    def name_all(self, what: str, values: FloatArray) -> dict[str, float]:
        """Return values of all markets (n_markets,) by ``what`` and the name of the market."""
        named = {}
        for name, value in zip(self.names, values.tolist(), strict=True):
            named[f"{what} {name}".rstrip()] = value
        return named

    def do_round(self, rows: IntArray, marks: FloatArray) -> dict[str, float]:
        """Close the accounts that fail on the way to the marks, in the order in which they do.

        ``rows`` are these accounts, and ``marks`` (n_markets,) the prices at the end of the way.
        Where deleveraging is on, an account whose loss the fund cannot cover does not trade: it is
        closed against others. Returns the row of the round in the table of the cascade; writes what
        accounts hold, what became of them, the fund and the flow.
        """
        # The prices at which each fails, (n_rows, n_markets).
        order = self.order if self.is_joined else self.order_one
        rows, reaches = order(rows, marks)

        # What fails for the first time in this round, which is numbered from 1.
        is_new = self.failed[rows] == 0
        new = rows[is_new]
        self.failed[new] = len(self.rows) + 1
        notional_of_new = np.abs(self.quantity[new]) @ self.unit

        # Sales in the market. With partial liquidation the level of the prices stays where it was
        # before them.
        fees_before = self.fees
        level_before = self.level.copy()
        closing = self.close_accounts(rows, reaches)
        sold = rows[closing.is_sold]
        self.last[sold] = reaches[closing.is_sold]
        if self.mode == "partial":
            self.level = level_before

        # The bad debt that the sales left.
        bad_debt = self.drop_losses(sold)
        if self.mode == "takeover":
            self._take_over(sold)

        # Accounts beyond the fund are closed against those in profit, a side at a time.
        deleveraged = 0.0
        missing = 0.0
        bankrupt = rows[~closing.is_sold]
        for side in (1.0, -1.0):
            is_of_side = side * self.quantity[bankrupt, 0] > 0.0
            closed = bankrupt[is_of_side]
            if len(closed):
                contracts = np.sum(np.abs(self.quantity[closed, 0]))
                deleveraged += float(contracts)
                missing += self.deleverage(
                    closed,
                    side=side,
                    left_out=bankrupt,
                    marks=marks,
                )

        # The fund pays first, which changes fees and fund.
        covered = self.cover(bad_debt + missing, marks)
        long = np.sum(np.maximum(closing.sizes, 0.0), axis=0)
        short = np.sum(np.maximum(-closing.sizes, 0.0), axis=0)
        return {
            "accounts": len(rows),
            "deficit": bad_debt + closing.lack,
            "fresh": float(np.sum(notional_of_new)),
            "adl": deleveraged * float(self.unit[0]),
            "adl_paid": closing.lack - missing,
            **covered,
            "fees": self.fees - fees_before,
            "insurance": self.fund,
            **self.name_all("flow", (long - short) * self.unit),
            **self.name_all("long", (long + closing.coins) * self.unit),
            **self.name_all("short", short * self.unit),
            **self.name_all("loss", closing.lost),
        }

    def close_accounts(self, rows: IntArray, reaches: FloatArray) -> Closing:
        """Close failing accounts one after the other, and return what that closed.

        An account sells its positions, and coins for its debt and its fees, at the prices where it
        fails: ``reaches`` (n_rows, n_markets). Under auto-deleveraging (ADL), one that lacks more
        than the fund has left does not trade; its sizes are then 0.

        Writes holdings and cash of these accounts and of the liquidity account, the fees, and the
        flow and level of the prices: each account fails under the impact of those before it. The
        fund itself pays later, once for the round.
        """
        n_markets = reaches.shape[1]
        sizes = self.choose_sizes(rows, reaches)
        is_sold = np.ones(len(rows), np.bool_)
        fund_left = self.fund
        uncovered = 0.0
        coins_sold = np.zeros(n_markets)
        losses = np.zeros(n_markets)

        for k, (row, reach) in enumerate(zip(rows.tolist(), reaches, strict=True)):
            if self.adl is not None:
                worth = self._find_worth_if_closed(row, reach)
                deficit = -worth
                if deficit > max(fund_left, 0.0):
                    uncovered += deficit
                    is_sold[k] = False
                    sizes[k] = 0.0
                    continue
                fund_left += self._find_fund_change(worth)

            closed = self._close_positions(row, sizes[k], reach)
            losses += closed.losses

            # Coins pay the debt first, then the fees, which come after the last closing.
            coins_sold += self.sell_coins(row, reach)
            coins_sold += self.charge_fees(row, closed.fees, reach)

        return Closing(sizes, is_sold, lack=uncovered, coins=coins_sold, lost=losses)

    def _find_worth_if_closed(self, row: int, reach: FloatArray) -> float:
        """Return the money of an account of one market once it is closed; negative is a deficit.

        It is closed without impact of its own, under the impact of those before it.
        """
        quantity = float(self.quantity[row, 0])
        _, value = self.quote(0, float(reach[0]), quantity, flow=0.0)
        return float(self.cash[row]) + quantity * value

    def _find_fund_change(self, worth: float) -> float:
        """Return what the fund receives of a closed account, negative for what it pays."""
        # In takeover the fund has what is left of an account; otherwise the account keeps it.
        if self.mode == "takeover":
            return worth
        return min(worth, 0.0)

    def _close_positions(
        self,
        row: int,
        sizes: FloatArray,
        reach: FloatArray,
    ) -> ClosedPositions:
        """Close signed contracts (n_markets,) of an account; return the fees due, and the losses.

        Positive contracts are of a long position and are sold, negative ones are bought back.
        Writes ``quantity``, ``closed`` and ``closed_money`` of the account, and what
        :meth:`trade` writes. Nobody is charged the fees yet.
        """
        fees = 0.0
        losses = np.zeros(len(sizes))
        closing = np.flatnonzero(sizes).tolist()
        for i in closing:
            size = float(sizes[i])
            self.quantity[row, i] -= size
            value = self.trade(row, i, size, reach)

            notional = abs(size * value)
            fees += self.terms[i].fee * notional
            losses[i] = size * (self.first_values[i] - value)
            self.closed[row] += abs(size)
            self.closed_money[row] += abs(size) * value
        return ClosedPositions(fees, losses)

    def _take_over(self, rows: IntArray) -> None:
        """Give what closed accounts have left to the fund."""
        is_flat = self.quantity[rows, 0] == 0.0
        flat = rows[is_flat]
        left = np.sum(self.cash[flat])
        self.fund_paid -= float(left)
        self.cash[flat] = 0.0

    def choose_sizes(self, rows: IntArray, reaches: FloatArray) -> FloatArray:
        """Return the signed contracts that the venues close, (n_rows, n_markets).

        A venue closes all, or with partial liquidation a step: a share of the position, or what is
        over the floor of its bracket.
        """
        quantity = self.quantity[rows]
        if self.mode != "partial":
            return quantity

        # Closed whole: small positions, what rounding left of one, and those of accounts that have
        # nothing left.
        forced = self.terms[0].venue.liquidation
        value = self.to_values(reaches)
        notional = np.abs(quantity * value)
        is_small = notional <= forced.full_below * (1.0 + TOLERANCE)
        rounding = 1e-9 * np.abs(self.first_quantity[rows])
        is_left_of_rounding = np.abs(quantity) <= rounding
        worth = self.cash[rows, None] + quantity * value
        has_nothing = worth <= TOLERANCE * notional
        is_whole = is_small | is_left_of_rounding | has_nothing
        if not isinstance(forced.step, str):
            step = quantity * forced.step
            return np.where(is_whole, quantity, step)

        # Down to the floor of its bracket; in the lowest one, whole.
        brackets = self.terms[0].venue.brackets
        floors = np.array([bracket.floor for bracket in brackets])
        nearly = notional * (1.0 - 1e-9)  # at a floor, to rounding, is in the bracket below
        row = np.searchsorted(floors, nearly, side="left") - 1
        floor = floors[np.maximum(row, 0)]
        is_whole |= floor == 0.0
        left = np.sign(quantity) * floor / np.abs(value)
        return np.where(is_whole, quantity, quantity - left)

    def quote(
        self,
        i: int,
        reach: float,
        size: float,
        flow: float,
    ) -> tuple[float, float]:
        """Return how far the shock has gone where an account fails, and the value that it gets.

        ``reach`` is the price at which it fails, after the impact of the flow so far; ``size`` is
        positive for what is sold. The value is what a ``flow`` gets on average, under its impact.
        """
        market = self.terms[i]
        start = float(self.start[i])
        shocked = float(self.shocked[i])
        flow_before = float(self.flow[i])

        # The price before impact, which never goes back: impact is added to the price after it.
        level = shocked
        if not self.is_jump:
            before_impact = reach + start * market.curve.fall(flow_before)
            low, high = sorted((start, shocked))
            level = min(max(before_impact, low), high)
            farther = min if shocked <= start else max
            level = farther(level, float(self.level[i]))

        fall = market.curve.mean_fall(flow_before, flow)
        price = level - start * fall
        price = max(price, start * LEAST_PRICE)
        price *= 1.0 - math.copysign(market.slippage, size)
        return level, float(value_of(market.venue.contract, price))

    def sell_coins(self, row: int, reach: FloatArray) -> FloatArray:
        """Sell coins of an account until its cash is not negative; return those sold, (n_markets,).

        All coins lose the same share, so that the order of the markets decides nothing. Each
        further share covers the debt that is left at the values of the one before.
        """
        coins: FloatArray = self.coins[row]
        sold = np.zeros(len(coins))
        cash = self.cash
        least = -TOLERANCE * abs(float(cash[row]))

        values = self.value_coins(reach)
        while cash[row] < least and np.any(coins > 0.0):
            worth = float(coins @ values)
            debt = -float(cash[row])

            share = 1.0
            if worth > 0.0:
                share = min(1.0, debt / worth)

            for i in np.flatnonzero(coins).tolist():
                piece = float(coins[i]) * share
                coins[i] -= piece
                values[i] = self.trade(row, i, piece, reach)
                sold[i] += piece

        return sold

    def value_coins(self, reach: FloatArray) -> FloatArray:
        """Return what a coin of each market brings before impact, (n_markets,)."""
        slippage = np.array([market.slippage for market in self.terms])
        values = self.to_values(reach)
        return np.asarray((1.0 - slippage) * values)

    def charge_fees(
        self,
        row: int,
        asked: float,
        reach: FloatArray,
    ) -> FloatArray:
        """Take the fees of all closings, at most what is left; return the coins sold for them.

        They come after the last closing and the sale of coins, and leave no debt: what coins bring
        too little of is waived. Coins are sold where the account fails, at ``reach``.
        """
        positions = self.quantity[row] @ self.to_values(reach)
        coins = self.coins[row] @ self.value_coins(reach)
        left = float(self.cash[row] + positions)
        left += float(coins)
        fee = min(asked, max(left, 0.0))
        if fee <= 0.0:
            return np.zeros(len(reach))

        self.cash[row] -= fee
        self.fees += fee
        has_coins = bool(np.any(self.coins[row] > 0.0))
        if not has_coins:
            return np.zeros(len(reach))

        # Coins that impact makes worth less than they seemed pay a smaller fee.
        sold = self.sell_coins(row, reach)
        has_coins = bool(np.any(self.coins[row] > 0.0))
        if not has_coins:
            debt = max(-float(self.cash[row]), 0.0)
            waived = min(fee, debt)
            self.cash[row] += waived
            self.fees -= waived
        return sold

    def trade(
        self,
        row: int,
        i: int,
        size: float,
        reach: FloatArray,
    ) -> float:
        """Sell contracts of one market for an account to the liquidity account, with impact.

        Returns the value of a contract that the account gets. A ``size`` over 0 is sold, under 0 it
        is bought; ``reach`` (n_markets,) are the prices at which the account fails. Writes the
        level and the flow of the market, both cashes, and the contracts of the liquidity account:
        those of the account, and fees, are the caller's.
        """
        # The price goes on to where the account fails, and then by the impact of this trade.
        notional_at_start = size * float(self.unit[i])
        level, value = self.quote(i, float(reach[i]), size, notional_at_start)
        self.level[i] = level
        self.flow[i] += notional_at_start

        money = size * value
        self.cash[row] += money
        self.liquidity_cash -= money
        self.liquidity[i] += size
        return value

    def drop_losses(self, rows: IntArray) -> float:
        """Write off the bad debt of those of some accounts that hold nothing; return its sum.

        Their cash goes up to 0, and ``lost`` by as much.
        """
        has_positions = self.quantity[rows] != 0.0
        has_coins = self.coins[rows] != 0.0
        holds_any = np.any(has_positions | has_coins, axis=1)
        closed = rows[~holds_any]

        bad_debts = np.maximum(-self.cash[closed], 0.0)
        self.lost[closed] += bad_debts
        self.cash[closed] += bad_debts
        return float(np.sum(bad_debts))

    def deleverage(
        self,
        bankrupt: IntArray,
        side: float,
        left_out: IntArray,
        marks: FloatArray,
    ) -> float:
        """Close bankrupt accounts of one side against accounts of the other (ADL).

        The price is that at which the bankrupt together are worth 0. Returns the debt of accounts
        of the other side that it leaves with less than nothing. Writes positions and cash of both,
        and of the liquidity account, which takes what no account can.
        """
        quantity = self.quantity[:, 0]
        sizes = np.abs(quantity[bankrupt])
        cash = self.cash[bankrupt]
        total = float(np.sum(sizes))

        # Together the bankrupt have cash + side * total * value = 0.
        value = -side * float(np.sum(cash)) / total
        self.closed[bankrupt] += sizes
        self.closed_money[bankrupt] -= side * cash
        self.cash[bankrupt] = 0.0
        quantity[bankrupt] = 0.0

        opposite = np.flatnonzero(side * quantity < 0.0)
        opposite = np.setdiff1d(opposite, left_out, assume_unique=True)
        if self.adl == "queue":
            value_at_mark = float(self.to_values(marks)[0])
            taken = self._take_by_rank(opposite, total, value_at_mark)
        else:
            taken = self._take_pro_rata(opposite, total, side)

        self.cash[opposite] -= side * taken * value
        quantity[opposite] += side * taken
        self.closed[opposite] += taken
        self.closed_money[opposite] += taken * value
        self.deleveraged[opposite] += taken

        # What no account could take, the liquidity account takes at the same price.
        left = total - float(np.sum(taken))
        rest = side * left
        self.liquidity[0] += rest
        self.liquidity_cash -= rest * value
        return self.drop_losses(opposite)

    def _take_by_rank(
        self,
        others: IntArray,
        total: float,
        value: float,
    ) -> FloatArray:
        """Return the contracts taken from each account, the highest ADL rank first.

        The rank is return * leverage for an account in profit, return / leverage for one in loss.
        ``total`` contracts are taken, at a contract value of ``value``.
        """
        quantity = self.quantity[others, 0]
        size = np.abs(quantity)
        entry = self.entry[others, 0]
        notional = size * np.abs(entry)
        gain = quantity * (value - entry) / notional

        # Without equity the leverage is huge, but not infinite.
        worth = self.cash[others] + quantity * value
        equity = np.maximum(worth, 1e-12 * notional)
        leverage = size * abs(value) / equity
        rank = np.where(gain > 0.0, gain * leverage, gain / leverage)

        # The queue is served in its order until the total is taken: of each account what is left of
        # the total after those before it, at most all it has.
        order = np.argsort(-rank, kind="stable")
        sizes = size[order]
        taken_before = np.cumsum(sizes) - sizes
        taken = np.empty(len(others))
        taken[order] = np.clip(total - taken_before, 0.0, sizes)
        return taken

    def _take_pro_rata(
        self,
        others: IntArray,
        total: float,
        side: float,
    ) -> FloatArray:
        """Return the same share of all, with the liquidity account if it is on the other side."""
        size = np.abs(self.quantity[others, 0])
        of_liquidity = max(-side * float(self.liquidity[0]), 0.0)
        everyone = float(np.sum(size)) + of_liquidity
        if not everyone > 0.0:
            return np.asarray(size)
        share = min(1.0, total / everyone)
        return np.asarray(size * share)

    def cover(self, missing: float, marks: FloatArray) -> dict[str, float]:
        """Let the fund, then profits, pay what bankrupt accounts lack; return who paid.

        Writes what the fund paid, the cash and the haircut of accounts, and what is unpaid.
        """
        # First the fund, as far as it goes.
        fund_paid = min(missing, max(self.fund, 0.0))
        self.fund_paid += fund_paid
        not_covered = missing - fund_paid

        # Then all that have a profit, each the same share of it.
        gain = self.measure_equity(marks) - self.without_profit
        profit = np.maximum(gain, 0.0)
        total_profit = float(np.sum(profit))
        haircuts = profit
        if total_profit > 0.0:
            haircuts = profit * min(1.0, not_covered / total_profit)
        self.cash -= haircuts
        self.haircut += haircuts

        # What is left where all profits are not enough.
        unpaid = 0.0
        if not_covered >= total_profit:
            unpaid = not_covered - float(np.sum(haircuts))
        self.unpaid += unpaid
        return {
            "fund_paid": fund_paid,
            "haircuts": float(np.sum(haircuts)),
            "unpaid": unpaid,
        }

    def sum_money(self, prices: FloatArray) -> float:
        """Return all money of accounts, liquidity, fund and venues at prices (n_markets,)."""
        held_by_liquidity = self.liquidity @ self.to_values(prices)
        liquidity = self.liquidity_cash + float(held_by_liquidity)
        accounts = float(np.sum(self.measure_equity(prices)))
        return accounts + liquidity - self.fund_paid + self.fees - self.unpaid

    def check(self, prices: FloatArray, before: float) -> float:
        """Return by which share the books are off; raise if that is more than rounding.

        ``before`` is all money at these prices before a round: a round moves money, and makes none.
        """
        # Contracts of accounts and of the liquidity account add up to 0.
        first = np.abs(self.first_quantity) + self.coins
        sizes = np.sum(first, axis=0)
        held = np.sum(self.quantity + self.coins, axis=0)
        gaps = np.abs(held + self.liquidity)
        error_of_contracts = float(np.max(gaps / np.maximum(sizes, 1.0)))

        # Errors of money are measured by what accounts began with and the notional at the start.
        notional = float(sizes @ np.abs(self.to_values(prices)))
        equity = float(np.sum(np.abs(self.without_profit)))
        scale = max(equity, notional, 1.0)
        after = self.sum_money(prices)
        error = max(abs(after - before) / scale, error_of_contracts)
        if not error <= SLACK:
            raise core.AccountingError(
                f"the books of the crowd must balance to {SLACK:g}, were off by {error:.3g} in "
                f"round {len(self.rows) + 1}: {before!r} before and {after!r} after"
            )
        return error


class Closing(NamedTuple):
    """What a round closed: signed contracts (n_rows, n_markets), and which accounts traded.

    ``lack`` is what those that did not trade lack, which the fund cannot cover; ``coins`` were
    sold, and ``lost`` is what positions lost by market from the start of the shock on, positive for
    a loss, (n_markets,).
    """

    sizes: FloatArray
    is_sold: core.BoolArray
    lack: float
    coins: FloatArray
    lost: FloatArray


class ClosedPositions(NamedTuple):
    """Fees due for the closed positions of an account, and their losses by market, (n_markets,).

    Losses are from the start of the shock on, positive for a loss.
    """

    fees: float
    losses: FloatArray
