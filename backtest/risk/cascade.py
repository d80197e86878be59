"""A shock of prices, the liquidations it causes, and those that they cause.

Money is in the settlement currency, values are u. The sum of all equities, the fund, fees and what
the venues owe is verified not to change in a round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import FloatArray, IntArray
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, MINUTE, TOLERANCE
from backtest.margin import compute_maintenance, read_rules
from backtest.market import Market
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.results.tables import price_of, value_of
from backtest.risk.crowd import ARRAYS_OF_CROWD, Crowd, find_liquidation_prices, find_price
from backtest.venue import Contract, Venue, read_newest, read_venue

WINDOW_DAYS = 30.0
"""The days at the end of a market from which volume and volatility are measured."""


class ImpactCurve(NamedTuple):
    """Impact: fall = factor (Q / V)^exponent.

    The flow Q is a notional at the price before the shock, positive if it is sold, V the daily
    volume. The fall is a fraction of that price, negative for what was bought.
    """

    factor: float
    exponent: float
    volume: float

    def fall(self, flow: float) -> float:
        return math.copysign(self.factor * (abs(flow) / self.volume) ** self.exponent, flow)

    def mean_fall(self, start: float, flow: float) -> float:
        """Return the mean fall while a flow is added to one that was there."""
        if abs(flow) <= 1e-9 * abs(start):  # else the difference is rounding
            return self.fall(start + 0.5 * flow)
        power, ends = self.exponent + 1.0, (start, start + flow)
        before, after = ((abs(each) / self.volume) ** power * self.volume / power for each in ends)
        return float(self.factor * (after - before) / flow)


class SquareRoot(core.Value):
    """Impact by the square-root law: ``fall = coefficient volatility sqrt(Q / V)``.

    Parameters
    ----------
    coefficient : float
        Y of the law, about 1 in measurements of large orders.
    volatility : float or None
        The daily volatility, a fraction. None: that of the last 30 days of the market where there
        is one, else 1, so that the coefficient is the fall at one day's volume.

    Notes
    -----
    Source: Toth et al. (2011), Anomalous Price Impact and the Critical Nature of Liquidity in
    Financial Markets, Physical Review X 1.
    """

    coefficient: Annotated[float, NOT_NEGATIVE] = 1.0
    volatility: Annotated[float | None, POSITIVE] = None

    def curve(self, volume: float | None, market: Market | None, contract: Contract) -> ImpactCurve:
        """Return the law as numbers, for a daily volume in money or that of a market."""
        daily, sigma = find_volume(volume, market, contract), self.volatility
        if daily is None:
            raise core.ParameterError(
                "a square-root impact needs a daily volume, the market has none; volume= is the "
                "money traded per day"
            )
        if sigma is None and market is not None:
            steps = np.diff(np.log(market.close[find_window(market)]))
            if len(steps) < 2:
                raise core.ParameterError(
                    f"a volatility needs 3 bars or more, got {len(steps) + 1} in {market!r}; "
                    "bt.SquareRoot(1.0, volatility=0.03) has its own"
                )
            sigma = float(np.std(steps, ddof=1)) * math.sqrt(DAY / market.interval)
        return ImpactCurve(self.coefficient * (1.0 if sigma is None else sigma), 0.5, daily)


class Linear(core.Value):
    """Impact in proportion to the flow: ``fall = coefficient Q / V``.

    Parameters
    ----------
    coefficient : float
        The fall at a flow of one daily volume; without a volume, per unit of money.
    """

    coefficient: Annotated[float, NOT_NEGATIVE]

    def curve(self, volume: float | None, market: Market | None, contract: Contract) -> ImpactCurve:
        """Return the law as numbers; without a volume and a market with one, the volume is 1."""
        return ImpactCurve(self.coefficient, 1.0, find_volume(volume, market, contract) or 1.0)


Impact = SquareRoot | Linear


def find_volume(volume: float | None, market: Market | None, contract: Contract) -> float | None:
    """Return the volume per day, by default of a market's last 30 days, in money."""
    if volume is not None:
        return core.check_range("volume", volume, low=0.0, open_low=True)
    if market is None or not np.any(market.volume > 0.0):
        return None
    rows = find_window(market)
    money = market.volume[rows] * np.abs(value_of(contract, market.close[rows]))
    return float(np.sum(money)) / (len(money) * market.interval / DAY)


def find_window(market: Market) -> slice:
    bars = max(int(WINDOW_DAYS * DAY / market.interval), int(WINDOW_DAYS))
    return slice(-bars, None)


SLACK = 1e-9
"""How far the books may be from balance, as a share of all money and notional in them."""
LEAST_PRICE = 1e-6
"""The lowest price, as a share of that before the shock, to which impact can carry it."""
MOST_ROUNDS = 200_000
HALVINGS = 64
"""Bisections of the way of prices, to the last digit of a fraction."""
BEFORE = 100.0
"""How far before its start a way is followed to order accounts that fail there, in its length."""
PAYERS = {
    "fund_paid": "insurance fund",
    "adl_paid": "auto-deleveraging (ADL)",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}
COLUMNS = (
    "mark", "price", "accounts", "long", "short", "insurance", "adl", "fees", "deficit", *PAYERS,
    "off",
)  # fmt: skip


class MarketTerms(NamedTuple):
    """What one market needs: its rules, costs of liquidation, haircut of coins, and impact."""

    venue: Venue
    rules: Any
    fee: float
    slippage: float
    haircut: float
    curve: ImpactCurve


def read_terms(venue: Venue, curve: ImpactCurve, haircut: float = 0.0) -> MarketTerms:
    forced = venue.liquidation
    fee, slippage = (
        read_newest(getattr(forced, name), f"venue.liquidation.{name}", "in a crowd")
        * (forced.mode != "takeover")
        for name in ("fee", "slippage")
    )
    return MarketTerms(venue, read_rules(venue), fee, slippage, haircut, curve)


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
        self.terms, self.names, self.adl, self.is_jump = terms, names, adl, is_jump
        self.start, self.shocked = start, start * (1.0 + shocks)
        self.unit, self.mode = np.abs(self.to_values(start)), terms[0].venue.liquidation.mode
        self.flow, self.level = np.zeros(len(terms)), start.copy()
        self.rows: list[dict[str, float]] = []
        self.quantity, self.first_quantity = quantity.copy(), quantity
        self.coins, self.entry = coins + np.zeros(quantity.shape), self.to_values(entry)
        self.is_joined = len(terms) > 1 or bool(self.coins.any())
        self.cash, self.safe = money - np.sum(quantity * self.entry, axis=1), safe
        self.first_equity = money + safe
        self.lost, self.haircut, self.deleveraged, self.closed, self.closed_money = np.zeros(
            (5, len(money))
        )
        self.failed, self.last = np.zeros(len(money), np.int64), np.tile(start, (len(money), 1))
        self.liquidity, self.liquidity_cash = -np.sum(quantity + self.coins, axis=0), 0.0
        self.insurance, self.fund_paid, self.fees, self.unpaid = insurance, 0.0, 0.0, 0.0

    def to_values(self, prices: FloatArray) -> FloatArray:
        """Return the values of a contract of each market at prices (..., n_markets)."""
        each = (value_of(own.venue.contract, prices[..., i]) for i, own in enumerate(self.terms))
        return np.stack([*each], axis=-1)

    @property
    def fund(self) -> float:
        return self.insurance - self.fund_paid

    def measure_equity(self, prices: FloatArray) -> FloatArray:
        held = (self.quantity + self.coins) @ self.to_values(prices)
        return np.asarray(self.cash + held + self.safe)

    def find_gaps(self, rows: IntArray, prices: FloatArray) -> FloatArray:
        """Return what backs accounts less their requirement, at prices (n_rows, n_markets)."""
        quantity, values = self.quantity[rows], self.to_values(prices)
        gaps: FloatArray = self.cash[rows] + np.sum(quantity * values, axis=1)
        for i, own in enumerate(self.terms):
            gaps += self.coins[rows, i] * values[:, i] * (1.0 - own.haircut)
            notional: Any = np.abs(quantity[:, i] * values[:, i])
            gaps -= compute_maintenance(own.rules, notional, 1.0) * (1.0 + TOLERANCE)
        return gaps

    def find_failing(self, marks: FloatArray) -> IntArray:
        held = np.flatnonzero(np.any(self.quantity != 0.0, axis=1))
        if self.is_joined:
            gaps = self.find_gaps(held, np.broadcast_to(marks, (len(held), len(marks))))
            return held[gaps <= 0.0]
        side, liquidation = np.sign(self.quantity[held, 0]), self.find_liquidations(held)
        fails = side * (liquidation * (1.0 + side * TOLERANCE) - marks[0]) >= 0.0
        return np.asarray(held[fails])

    def find_liquidations(self, rows: IntArray | slice) -> FloatArray:
        """Return the prices that liquidate the positions in the first market, (n_rows,)."""
        return find_liquidation_prices(
            self.terms[0].venue, self.quantity[rows, 0], self.entry[rows, 0], self.cash[rows]
        )

    def order_one(self, rows: IntArray, marks: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return accounts of one market in the order in which they fail, and where, (n_rows, 1)."""
        start, shocked, mark = (float(each[0]) for each in (self.start, self.shocked, marks))
        side, farther = (1.0, np.minimum) if shocked <= start else (-1.0, np.maximum)
        liquidation = self.find_liquidations(rows)
        loses = np.sign(self.quantity[rows, 0]) == side
        order = np.lexsort((np.where(loses, -side * liquidation, 0.0), ~loses))
        low, high = sorted((start, mark))
        reached = np.where(loses, np.clip(liquidation, low, high), start)
        reached = np.full(len(rows), mark) if self.is_jump else farther(reached, self.last[rows, 0])
        return rows[order], reached[order, None]

    def order(self, rows: IntArray, marks: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return accounts in the order in which they fail, and the prices where, (n_rows, n).

        A fraction of the way to the marks under 0 is where one that fails at the start would have
        failed on a way that had begun before; those that gain on the way come last, at 0.
        """
        low, high = np.full(len(rows), -BEFORE), np.ones(len(rows))
        ends = [np.broadcast_to(each, (len(rows), len(marks))) for each in (self.start, marks)]
        first, last = (self.find_gaps(rows, each) for each in ends)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            prices = self.start + middle[:, None] * (marks - self.start)
            fails = self.find_gaps(rows, prices) <= 0.0
            low, high = np.where(fails, low, middle), np.where(fails, middle, high)
        are_last = (first <= 0.0) & (last > first)

        fractions = np.where(are_last, 0.0, high)

        # Fractions that differ by rounding are the same: accounts then follow in their order.
        order = np.lexsort((np.round(fractions, 12), are_last))
        way = np.maximum(fractions[order, None], 0.0) * (marks - self.start)
        return rows[order], self.start + way

    def find_marks(self, flow: FloatArray) -> FloatArray:
        falls = np.array([own.curve.fall(x) for own, x in zip(self.terms, flow, strict=True)])
        return np.asarray(np.maximum(self.shocked - self.start * falls, self.start * LEAST_PRICE))

    def run(self, decay: float = 1.0) -> FloatArray:
        """Liquidate until no account fails, and return the prices then; ``rows`` are the rounds.

        From round to round, ``decay`` of the fall by impact is left.
        """
        marks = self.shocked
        left = decay ** (1.0 / np.array([own.curve.exponent for own in self.terms]))
        while len(failing := self.find_failing(marks)):
            if len(self.rows) >= MOST_ROUNDS:
                raise core.AccountingError(f"a cascade did not end in {MOST_ROUNDS:,} rounds")
            before = self.sum_money(marks)
            row = self.do_round(failing, marks)
            row |= {"off": self.check(marks, before), **self.name_all("mark", marks)}
            self.rows.append(row | self.name_all("price", self.find_marks(self.flow)))
            self.flow *= left
            marks = self.find_marks(self.flow)
        return marks

    def name_all(self, what: str, values: FloatArray) -> dict[str, float]:
        named = zip(self.names, values.tolist(), strict=True)
        return {f"{what} {name}".rstrip(): value for name, value in named}

    def do_round(self, rows: IntArray, marks: FloatArray) -> dict[str, float]:
        """Close the accounts that fail on the way to the marks, in the order in which they do.

        Where deleveraging is on, an account whose loss the fund cannot cover does not trade.
        """
        rows, reaches = (self.order if self.is_joined else self.order_one)(rows, marks)
        is_new = self.failed[rows] == 0
        self.failed[rows[is_new]] = len(self.rows) + 1
        fresh = float(np.sum(np.abs(self.quantity[rows[is_new]]) @ self.unit))
        sizes, is_sold = self.choose_sizes(rows, reaches), np.ones(len(rows), np.bool_)
        fund, fees, level, lack = self.fund, self.fees, self.level.copy(), 0.0
        coins, lost, values = *np.zeros((2, len(marks))), self.to_values(self.start)
        for k, (row, reach) in enumerate(zip(rows.tolist(), reaches, strict=True)):
            if self.adl is not None:
                quantity = float(self.quantity[row, 0])
                _, value = self.quote(0, float(reach[0]), quantity, 0.0)
                left = float(self.cash[row]) + quantity * value
                if -left > max(fund, 0.0):
                    lack, is_sold[k], sizes[k] = lack - left, False, 0.0
                    continue
                fund += left if self.mode == "takeover" else min(left, 0.0)
            asked = 0.0
            for i in np.flatnonzero(sizes[k]).tolist():
                size = float(sizes[k, i])
                self.quantity[row, i] -= size
                value = self.trade(row, i, size, reach)
                asked += self.terms[i].fee * abs(size * value)
                lost[i] -= size * (value - values[i])
                self.closed[row] += abs(size)
                self.closed_money[row] += abs(size) * value
            coins += self.sell_coins(row, reach)
            coins += self.charge_fees(row, asked, reach)
        self.last[rows[is_sold]] = reaches[is_sold]
        if self.mode == "partial":
            self.level = level
        gaps = self.drop_losses(rows[is_sold])
        if self.mode == "takeover":
            flat = rows[is_sold][self.quantity[rows[is_sold], 0] == 0.0]
            self.fund_paid -= float(np.sum(self.cash[flat]))
            self.cash[flat] = 0.0
        adl, missing, bankrupt = 0.0, 0.0, rows[~is_sold]
        for side in (1.0, -1.0):
            closed = bankrupt[side * self.quantity[bankrupt, 0] > 0.0]
            if len(closed):
                adl += float(np.sum(np.abs(self.quantity[closed, 0])))
                missing += self.deleverage(closed, side, bankrupt, marks)
        long = np.sum(np.maximum(sizes, 0.0), axis=0)
        short = np.sum(np.maximum(-sizes, 0.0), axis=0)
        return {
            "accounts": len(rows),
            "deficit": gaps + lack,
            "fresh": fresh,
            "adl": adl * float(self.unit[0]),
            "adl_paid": lack - missing,
            **self.cover(gaps + missing, marks),
            "fees": self.fees - fees,
            "insurance": self.fund,
            **self.name_all("flow", (long - short) * self.unit),
            **self.name_all("long", (long + coins) * self.unit),
            **self.name_all("short", short * self.unit),
            **self.name_all("loss", lost),
        }

    def choose_sizes(self, rows: IntArray, reaches: FloatArray) -> FloatArray:
        """Return the signed contracts that the venues close, (n_rows, n_markets)."""
        quantity, forced = self.quantity[rows], self.terms[0].venue.liquidation
        if self.mode != "partial":
            return quantity
        value = self.to_values(reaches)
        notional = np.abs(quantity * value)
        is_whole = notional <= forced.full_below * (1.0 + TOLERANCE)
        is_whole |= np.abs(quantity) <= 1e-9 * np.abs(self.first_quantity[rows])
        is_whole |= self.cash[rows, None] + quantity * value <= TOLERANCE * notional
        if not isinstance(forced.step, str):
            return np.where(is_whole, quantity, quantity * forced.step)
        floors = np.array([each.floor for each in self.terms[0].venue.brackets])
        row = np.searchsorted(floors, notional * (1.0 - 1e-9), side="left") - 1
        floor = floors[np.maximum(row, 0)]
        is_whole |= floor == 0.0
        return np.where(is_whole, quantity, quantity - np.sign(quantity) * floor / np.abs(value))

    def quote(self, i: int, reach: float, size: float, flow: float) -> tuple[float, float]:
        """Return how far the shock has gone where an account fails, and the value that it gets.

        ``reach`` is the price at which it fails, ``size`` is positive for what is sold. The value
        is in the mean of a flow that is added.
        """
        own, start, shocked = self.terms[i], float(self.start[i]), float(self.shocked[i])
        before, farther = float(self.flow[i]), min if shocked <= start else max
        low, high = sorted((start, shocked))
        level = min(max(reach + start * own.curve.fall(before), low), high)
        level = shocked if self.is_jump else farther(level, float(self.level[i]))
        price = max(level - start * own.curve.mean_fall(before, flow), start * LEAST_PRICE)
        price *= 1.0 - math.copysign(own.slippage, size)
        return level, float(value_of(own.venue.contract, price))

    def sell_coins(self, row: int, reach: FloatArray) -> FloatArray:
        """Sell coins of an account until its cash is not negative; return those sold, (n_markets,).

        All coins lose the same share, so that the order of the markets decides nothing. Each
        further share covers the debt that is left at the values of the one before.
        """
        coins: FloatArray = self.coins[row]
        sold, least = np.zeros(len(coins)), -TOLERANCE * abs(float(self.cash[row]))
        values = self.value_coins(reach)
        while self.cash[row] < least and np.any(coins > 0.0):
            worth = float(coins @ values)
            share = min(1.0, -float(self.cash[row]) / worth) if worth > 0.0 else 1.0
            for i in np.flatnonzero(coins).tolist():
                piece = float(coins[i]) * share
                coins[i] -= piece
                values[i] = self.trade(row, i, piece, reach)
                sold[i] += piece
        return sold

    def value_coins(self, reach: FloatArray) -> FloatArray:
        """Return what a coin of each market brings before impact, (n_markets,)."""
        slippage = np.array([own.slippage for own in self.terms])
        return np.asarray((1.0 - slippage) * self.to_values(reach))

    def charge_fees(self, row: int, asked: float, reach: FloatArray) -> FloatArray:
        """Take the fees of all closings, at most what is left; return the coins sold for them.

        They come after the last closing and the coins (RULES-MANY 3), and make no shortfall.
        """
        left = float(self.cash[row] + self.quantity[row] @ self.to_values(reach))
        left += float(self.coins[row] @ self.value_coins(reach))
        fee = min(asked, max(left, 0.0))
        if fee <= 0.0:
            return np.zeros(len(reach))

        self.cash[row] -= fee
        self.fees += fee
        if not np.any(self.coins[row] > 0.0):
            return np.zeros(len(reach))

        # Coins that impact makes worth less than they seemed pay a smaller fee.
        sold = self.sell_coins(row, reach)
        if not np.any(self.coins[row] > 0.0):
            waived = min(fee, max(-float(self.cash[row]), 0.0))
            self.cash[row] += waived
            self.fees -= waived
        return sold

    def trade(self, row: int, i: int, size: float, reach: FloatArray) -> float:
        """Sell contracts of one market for an account, with impact; return the value that it gets.

        ``reach`` (n_markets,) are the prices at which the account fails. Fees come later.
        """
        flow = size * float(self.unit[i])
        self.level[i], value = self.quote(i, float(reach[i]), size, flow)
        self.flow[i] += flow
        self.cash[row] += size * value
        self.liquidity_cash -= size * value
        self.liquidity[i] += size
        return value

    def drop_losses(self, rows: IntArray) -> float:
        """Forgive closed accounts what they lack, and return the sum."""
        flat = rows[~np.any((self.quantity[rows] != 0.0) | (self.coins[rows] != 0.0), axis=1)]
        lacks = np.maximum(-self.cash[flat], 0.0)
        self.lost[flat] += lacks
        self.cash[flat] += lacks
        return float(np.sum(lacks))

    def deleverage(
        self, bankrupt: IntArray, side: float, left_out: IntArray, marks: FloatArray
    ) -> float:
        """Close positions of one side against the other, at the price at which they have nothing.

        Returns what the accounts in profit that are closed then lack.
        """
        quantity, value = self.quantity[:, 0], float(self.to_values(marks)[0])
        total = float(np.sum(np.abs(quantity[bankrupt])))
        price = -side * float(np.sum(self.cash[bankrupt])) / total
        self.closed[bankrupt] += np.abs(quantity[bankrupt])
        self.closed_money[bankrupt] -= side * self.cash[bankrupt]
        self.cash[bankrupt], quantity[bankrupt] = 0.0, 0.0
        others = np.setdiff1d(np.flatnonzero(side * quantity < 0.0), left_out, assume_unique=True)
        size = np.abs(quantity[others])
        if self.adl == "queue":  # the highest return x leverage first
            entry = self.entry[others, 0]
            notional = size * np.abs(entry)
            gain = quantity[others] * (value - entry) / notional
            equity = np.maximum(self.cash[others] + quantity[others] * value, 1e-12 * notional)
            leverage = size * abs(value) / equity
            rank = np.where(gain > 0.0, gain * leverage, gain / leverage)
            order, taken = np.argsort(-rank, kind="stable"), np.empty(len(others))
            taken[order] = np.clip(total - (np.cumsum(size[order]) - size[order]), 0.0, size[order])
        else:  # pro rata, with the liquidity account if it is on the other side
            everyone = float(np.sum(size)) + max(-side * float(self.liquidity[0]), 0.0)
            taken = size * min(1.0, total / everyone) if everyone > 0.0 else size
        self.cash[others] -= side * taken * price
        quantity[others] += side * taken
        self.closed[others] += taken
        self.closed_money[others] += taken * price
        self.deleveraged[others] += taken
        rest = side * (total - float(np.sum(taken)))
        self.liquidity[0] += rest
        self.liquidity_cash -= rest * price
        return self.drop_losses(others)

    def cover(self, missing: float, marks: FloatArray) -> dict[str, float]:
        """Let the fund, then profits, pay what bankrupt accounts lack; return who paid."""
        paid = min(missing, max(self.fund, 0.0))
        self.fund_paid += paid
        rest = missing - paid
        profit = np.maximum(self.measure_equity(marks) - self.first_equity, 0.0)
        total = float(np.sum(profit))
        cut = profit * min(1.0, rest / total) if total > 0.0 else profit
        unpaid = rest - float(np.sum(cut)) if rest >= total else 0.0
        self.cash -= cut
        self.haircut += cut
        self.unpaid += unpaid
        return {"fund_paid": paid, "haircuts": float(np.sum(cut)), "unpaid": unpaid}

    def sum_money(self, prices: FloatArray) -> float:
        """Return all money of accounts, liquidity, fund and venues at prices (n_markets,)."""
        liquidity = self.liquidity_cash + float(self.liquidity @ self.to_values(prices))
        accounts = float(np.sum(self.measure_equity(prices)))
        return accounts + liquidity - self.fund_paid + self.fees - self.unpaid

    def check(self, prices: FloatArray, before: float) -> float:
        """Return by which share the books are off; raise if that is more than rounding."""
        sizes = np.sum(np.abs(self.first_quantity) + self.coins, axis=0)
        gaps = np.abs(np.sum(self.quantity + self.coins, axis=0) + self.liquidity)
        notional = float(sizes @ np.abs(self.to_values(prices)))
        money = max(float(np.sum(np.abs(self.first_equity))), notional, 1.0)
        after = self.sum_money(prices)
        off = max(abs(after - before) / money, float(np.max(gaps / np.maximum(sizes, 1.0))))
        if not off <= SLACK:
            raise core.AccountingError(
                f"the books of the crowd must balance to {SLACK:g}, were off by {off:.3g} in round "
                f"{len(self.rows) + 1}: {before!r} before and {after!r} after"
            )
        return off


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(SettingsResult):
    """The outcome of :func:`backtest.cascade`.

    Attributes
    ----------
    rounds : DataFrame
        Row 0 is the shock alone, then a row per round: ``mark`` (the price at which accounts
        failed) and ``price`` (after their flow); ``long`` and ``short``, the notionals liquidated
        in the market, and ``adl``, closed against accounts in profit, all at the price before the
        shock; ``insurance``, the fund afterwards; ``fees``; ``deficit``, what bankrupt accounts
        lacked, and who paid it: ``fund_paid``, ``adl_paid``, ``haircuts``, ``unpaid``; and
        ``off``, the error of the books as a share.
    accounts : DataFrame
        A row per account: ``quantity`` left, the ``round`` in which it failed (0: never),
        ``close_price``, contracts ``deleveraged``, and the ``haircut`` in money.
    ladder : DataFrame
        The notional liquidated by price before the shock; see :meth:`Crowd.ladder`.
    price, shock, final_price : float
        The price before the shock, the move that began it, a fraction, and the price after the last
        round, at which no account fails.
    multiplier : float
        The final move over the shock; 1 if nobody was liquidated.
    reproduction : float
        The forced notional that one unit of forced notional causes at the start.
    deficit : float
        Losses of bankrupt accounts beyond what backed them, in the settlement currency.
    liquidated : int
        The accounts of the crowd that were.
    me : dict or None
        This account: ``liquidated``, in which ``round``, the ``quantity`` left, the mean
        ``close_price``, ``equity_before`` the shock and ``equity`` now, their difference ``loss``,
        contracts ``deleveraged``, the ``haircut``, and the ``liquidation_price`` of what is left.
    """

    rounds: pd.DataFrame
    accounts: pd.DataFrame
    ladder: pd.DataFrame
    price: float
    shock: float
    final_price: float
    multiplier: float
    reproduction: float
    deficit: float
    liquidated: int
    me: dict[str, Any] | None = None

    kind = "cascade"
    call = "bt.cascade"
    numbers = ("price", "shock", "final_price", "multiplier", "reproduction", "deficit",
               "liquidated", "me")  # fmt: skip

    @property
    def haircuts(self) -> FloatArray:
        """What was taken from the profit of each account, in the settlement currency."""
        return self.accounts["haircut"].to_numpy(dtype=np.float64)

    def payers(self) -> dict[str, float]:
        """Return who paid the deficit, in the settlement currency."""
        return {name: float(self.rounds[name].sum()) for name in PAYERS}

    @property
    def title(self) -> str:
        shock = core.format_percent(self.shock, is_signed=True)
        return f"{self.settings['crowd'].get('accounts', 0):,} accounts after {shock}"

    @property
    def note(self) -> str:
        return f"{self.multiplier:.2f} times the shock"

    @property
    def move(self) -> float:
        """The move of the price from before the shock to the end, a fraction."""
        return self.final_price / self.price - 1.0

    @property
    def verdict(self) -> str:
        return (
            f"After a shock of {core.format_percent(self.shock)}, {len(self.rounds) - 1} rounds of "
            f"liquidations moved the price by {core.format_percent(self.move)} in all."
        )

    @property
    def details(self) -> str:
        me = self.me
        if me is None:
            return ""
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        before, after = me["equity_before"], me["equity"]
        return f"This account {fate}: its equity went from {before:,.2f} to {after:,.2f}."

    def list_numbers(self) -> list[Headline]:
        shock, n = core.format_percent(self.shock), f"of {len(self.accounts):,} accounts"
        beyond = "money: losses beyond what backed the accounts"
        return [
            Headline("move", "final move", self.move, "percent", f"shock {shock}"),
            Headline("multiplier", "multiplier", self.multiplier, "turns",
                     "final move over shock"),
            Headline("reproduction", "reproduction", self.reproduction, "decimals",
                     "forced notional by each unit of it; unstable from 1 on"),
            Headline("liquidated", "liquidated", self.liquidated, "count", n),
            Headline("deficit", "deficit", self.deficit, "money", beyond),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        titles = {"long": "longs", "short": "shorts", "adl": "deleveraged",
                  "insurance": "fund", "deficit": "deficit"}  # fmt: skip
        heads = {
            "price": Head("price", "quoted", "price"),
            "accounts": Head("accounts", "liquidated", "count"),
            **{name: Head(title, "money", "money") for name, title in titles.items()},
        }
        note = (
            "Longs, shorts and deleveraged are closed notionals at the price before the shock, "
            "all positive; the fund is what is left of it, the deficit what bankrupt accounts "
            f"lacked. {MONEY}"
        )
        price, fund = self.rounds["price"], self.rounds["insurance"]
        paid = pd.DataFrame({"money": self.payers()}).rename(index=PAYERS)
        paid["share"] = paid["money"] / max(self.deficit, 1e-300)
        return [
            Part("ladder", "The ladder of liquidations", "What is liquidated at each price, "
                 "before the shock.", (
                ShownChart("ladder", "Notional liquidated by price", "",
                           self.ladder[["long", "short"]], "bars", {"long": "loss",
                           "short": "accent"}, "price", "notional",
                           marks=(self.price, self.final_price), has_legend=True,
                           mark_names=("before the shock", "after the cascade"), height=320),
            )),
            Part("rounds", "The rounds", "The price, and what each round liquidated.", (
                ShownChart("rounds", "Price after each round", "Round 0 is only the shock.",
                           price, "points", x="round", y="price", size="half", height=280),
                ShownChart("fund", "Insurance fund after each round", "Empty where the fund "
                           "is infinite.", fund, "steps", x="round", y="money", size="half",
                           height=280),
                ShownTable(self.rounds, "Rounds", "", Head("round", "", "count"), heads,
                           tuple(heads), most=60),
                note,
            ), shows="both"),
            Part("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                 (ShownTable(paid, "Who paid", labels=Head("payer"),
                             heads={"money": Head("paid", "money", "money"),
                                    "share": Head("share", "of the deficit", "percent")}),),
                 shows="both"),
        ]  # fmt: skip


def shock_crowd(
    crowd: Crowd, venue: Any, shock: Any, impact: Any, volume: Any, *, price: float | None,
    recovery: str | None, jump: bool, me: Result | Mapping[str, Any] | None, **terms: Any,
) -> Cascade:  # fmt: skip
    """Follow the cascade of one market; arguments as those of :func:`backtest.cascade`."""
    venue = read_venue(venue)
    if venue.contract.is_spot:
        raise core.ParameterError("venue must have margined positions, got one of kind 'spot'")
    if venue.liquidation.full_below_health > 0.0:
        raise core.ParameterError(
            "liquidation.full_below_health must be left out for a crowd, "
            f"got {venue.liquidation.full_below_health:g}"
        )
    start = find_price(price, crowd.price)
    mine, theirs = crowd.contract, venue.contract
    is_drawn = crowd.origin.get("made_from") == "leverage"
    if is_drawn and (mine.kind, mine.size) != (theirs.kind, theirs.size):
        raise core.ParameterError(
            f"contract must match the venue, {theirs.kind} of {theirs.size:g}, the crowd "
            f"has {mine.kind} of {mine.size:g}"
        )
    known = everyone = replace(crowd, contract=theirs)
    curve = impact.curve(volume, crowd.market, venue.contract)
    core.Real(-1.0, 10.0, open_low=True).check("shock", shock)
    decay = 1.0 if recovery is None else 0.5 ** (MINUTE / core.parse_duration(recovery, "recovery"))
    own = None if me is None else read_own_account(me)
    if own is not None:
        added: dict[str, Any] = {k: np.append(getattr(known, k), own[k]) for k in own}
        everyone = replace(known, **added)
    books = Books(
        [read_terms(venue, curve)], np.array([start]), np.array([float(shock)]),
        quantity=everyone.quantity[:, None], entry=everyone.entry[:, None],
        money=everyone.collateral, safe=everyone.equity - everyone.collateral, is_jump=jump,
        **terms,
    )  # fmt: skip
    before = books.measure_equity(books.start)
    final, rows = books.run(decay), books.rows
    with np.errstate(invalid="ignore", divide="ignore"):
        closed_at = price_of(theirs, books.closed_money / books.closed)
    found = pd.DataFrame({
        "quantity": books.quantity[:, 0],
        "round": books.failed,
        "close_price": np.where(books.closed > 0.0, closed_at, np.nan),
        "deleveraged": books.deleveraged,
        "haircut": books.haircut,
    })  # fmt: skip
    begun = {"mark": start, "price": float(books.shocked[0]), "accounts": 0,
             "insurance": books.insurance}  # fmt: skip
    rounds = pd.DataFrame([dict.fromkeys(COLUMNS, 0.0) | begun, *rows])[list(COLUMNS)]
    mine_after: dict[str, Any] | None = None
    if own is not None:
        row: dict[Any, Any] = found.iloc[-1].to_dict()
        after = float(books.measure_equity(final)[-1])
        mine_after = {
            "liquidated": row["round"] > 0,
            **row,
            "round": int(row["round"]),
            "equity_before": float(before[-1]),
            "equity": after,
            "loss": float(before[-1]) - after,
            "liquidation_price": float(books.find_liquidations(slice(None))[-1]),
        }
    is_followed = len(rows) > 1 and rows[0]["flow"] != 0.0
    return Cascade(
        rounds=rounds.rename_axis("round"),
        accounts=found.head(len(known)),
        ladder=known.ladder(venue, price=start),
        settings={
            "crowd": {**known.origin, "content_hash": known.content_hash},
            "venue": venue.to_dict(),
            "impact": impact.to_dict() | {"law": type(impact).__name__},
            "curve": curve._asdict(),
            **terms,
            "recovery": recovery,
            "jump": bool(jump),
            "me": own,
        },
        price=start,
        shock=float(shock),
        final_price=float(final[0]),
        multiplier=(float(final[0]) / start - 1.0) / shock if shock != 0.0 else math.nan,
        reproduction=rows[1]["fresh"] / abs(rows[0]["flow"]) if is_followed else 0.0,
        deficit=float(rounds["deficit"].sum()),
        liquidated=int(np.sum(books.failed[: len(known)] > 0)),
        me=mine_after,
        market=known.market,
    )


def read_own_account(me: Result | Mapping[str, Any]) -> dict[str, float]:
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return {name: float(getattr(row, name)[0]) for name in ARRAYS_OF_CROWD}
    last = {name: float(values[-1]) for name, values in me.record.of_one().items()}
    quantity, entry = last["quantity"], last["entry"]
    if quantity == 0.0:
        raise core.ParameterError("me must be a run that ends with a position, got a flat end")
    if me.account.margin == "isolated":
        collateral, more = last["margin"], last["cash"] + last["reserve"]
    else:
        collateral, more = last["cash"] + quantity * entry, last["reserve"]
    price = float(price_of(me.venue.contract, np.asarray(entry)))
    values = (quantity, price, collateral, collateral + more)
    return dict(zip(ARRAYS_OF_CROWD, values, strict=True))
