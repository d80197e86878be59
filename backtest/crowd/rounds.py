"""The rounds of a cascade: price impact, who fails, at what price they trade, and who pays.

Arrays have one entry per account. Money is in the settlement currency, values are u. The sum of all
equities, the fund, the fees and what the venue owes never changes: :func:`check_books` verifies it
after every round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from backtest.base import (
    AccountingError,
    BoolArray,
    FloatArray,
    IntArray,
    ParameterError,
    Value,
    check_range,
    declared,
)
from backtest.base.fields import NOT_NEGATIVE, POSITIVE
from backtest.base.units import DAY, TOLERANCE
from backtest.crowd.crowd import Crowd, find_liquidation_prices, to_price, to_value
from backtest.market import Market
from backtest.venue import (
    Contract,
    Liquidation,
    MarginRules,
    Venue,
    compute_value,
    read_newest,
    read_rules,
)

# ----- price impact -----
#
# The square-root law and the linear law are powers of the flow as a share of a daily volume:
# fall = factor (Q / V)^exponent. The flow Q is a notional at the price before the shock, positive
# if it is sold. The fall is a fraction of that price.

WINDOW_DAYS = 30.0
"""The days at the end of a market from which volume and volatility are measured."""


class ImpactCurve(NamedTuple):
    factor: float
    exponent: float
    volume: float

    def fall(self, flow: FloatArray | float) -> FloatArray:
        """Return the fall of a cumulative flow, a fraction; negative if it was bought."""
        share = np.abs(flow) / self.volume
        return np.asarray(np.sign(flow) * self.factor * share**self.exponent)

    def fall_of(self, flow: float) -> float:
        return math.copysign(self.factor * (abs(flow) / self.volume) ** self.exponent, flow)

    def flow_of(self, fall: float) -> float:
        if self.factor == 0.0:
            return 0.0
        share = (abs(fall) / self.factor) ** (1.0 / self.exponent)
        return math.copysign(share * self.volume, fall)

    def mean_fall(self, start: float, flow: float) -> float:
        """Return the mean fall while a flow is added to one that was there."""
        if abs(flow) <= 1e-9 * abs(start):  # else the difference is rounding
            return self.fall_of(start + 0.5 * flow)
        power = self.exponent + 1.0
        before, after = (
            (abs(each) / self.volume) ** power * self.volume / power
            for each in (start, start + flow)
        )
        return self.factor * (after - before) / flow if flow else self.fall_of(start)


@declared
class SquareRoot(Value):
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
        volatility = self.volatility
        if volatility is None:
            volatility = 1.0 if market is None else measure_volatility(market)
        factor = self.coefficient * volatility
        return ImpactCurve(factor, 0.5, find_volume(volume, market, contract))


@declared
class Linear(Value):
    """Impact in proportion to the flow: ``fall = coefficient Q / V``.

    Parameters
    ----------
    coefficient : float
        The fall at a flow of one daily volume; without a volume, per unit of money.
    """

    coefficient: Annotated[float, NOT_NEGATIVE]

    def curve(self, volume: float | None, market: Market | None, contract: Contract) -> ImpactCurve:
        """Return the law as numbers; without a volume and a market with one, the volume is 1."""
        if volume is None and (market is None or not np.any(market.volume > 0.0)):
            return ImpactCurve(self.coefficient, 1.0, 1.0)
        return ImpactCurve(self.coefficient, 1.0, find_volume(volume, market, contract))


Impact = SquareRoot | Linear


def find_volume(volume: float | None, market: Market | None, contract: Contract) -> float:
    """Return the volume per day, by default of a market's last 30 days, in money."""
    if volume is not None:
        return check_range("volume", volume, low=0.0, open_low=True)
    if market is None or not np.any(market.volume > 0.0):
        raise ParameterError(
            "a square-root impact needs a daily volume, the market has none; volume= is the money "
            "traded per day"
        )
    rows, is_inverse = find_window(market), contract.kind == "inverse"
    value = compute_value(contract.size, is_inverse, market.close[rows])  # type: ignore[arg-type] # arrays too
    money = market.volume[rows] * np.abs(value)
    return float(np.sum(money)) / (len(money) * market.interval / DAY)


def measure_volatility(market: Market) -> float:
    steps = np.diff(np.log(market.close[find_window(market)]))
    if len(steps) < 2:
        raise ParameterError(
            f"a volatility needs 3 bars or more, got {len(steps) + 1} in {market!r}; "
            "bt.SquareRoot(1.0, volatility=0.03) has its own"
        )
    return float(np.std(steps, ddof=1)) * math.sqrt(DAY / market.interval)


def find_window(market: Market) -> slice:
    bars = max(int(WINDOW_DAYS * DAY / market.interval), int(WINDOW_DAYS))
    return slice(max(0, market.n_bars - bars), None)


# ----- accounts and money -----

SLACK = 1e-9
"""How far the books may be from balance, as a share of all money and notional in them."""
LEAST_PRICE = 1e-6
"""The lowest price, as a share of that before the shock, to which impact can carry it."""


class Terms(NamedTuple):
    """Rules of a cascade: the venue's, and what moves the price. ``unit`` is |u| at the start."""

    rules: MarginRules
    forced: Liquidation
    fee: float
    slippage: float
    curve: ImpactCurve
    start: float
    shocked: float
    unit: float
    adl: str | None
    is_jump: bool

    @property
    def losing_side(self) -> float:
        return 1.0 if self.shocked <= self.start else -1.0

    def find_price(self, fall: float) -> float:
        """Return the price under a fall by impact, a fraction of the start price."""
        return max(self.shocked - self.start * fall, self.start * LEAST_PRICE)

    def worsen(self, value: FloatArray, side: FloatArray) -> FloatArray:
        price = to_price(self.rules, value) * (1.0 + side * self.slippage)
        return np.asarray(to_value(self.rules, price))


def read_terms(
    venue: Venue, curve: ImpactCurve, start: float, shock: float, adl: str | None, *, jump: bool
) -> Terms:
    forced, rules = venue.liquidation, read_rules(venue)
    if forced.full_below_health > 0.0:
        raise ParameterError(
            "liquidation.full_below_health must be left out for a crowd, "
            f"got {forced.full_below_health:g}"
        )
    fee, slippage = (
        read_newest(getattr(forced, name), f"venue.liquidation.{name}", "in a crowd")
        for name in ("fee", "slippage")
    )
    is_taken = forced.mode == "takeover"
    return Terms(
        rules=rules,
        forced=forced,
        fee=0.0 if is_taken else fee,
        slippage=0.0 if is_taken else slippage,
        curve=curve,
        start=start,
        shocked=start * (1.0 + shock),
        unit=abs(float(to_value(rules, start))),
        adl=adl,
        is_jump=jump,
    )


@dataclass
class Books:
    """Every account, the liquidity account, the insurance fund and the venue."""

    rules: MarginRules
    quantity: FloatArray
    entry: FloatArray
    base: FloatArray
    safe: FloatArray
    insurance: float
    first_quantity: FloatArray
    first_equity: FloatArray
    liquidity_quantity: float
    liquidation: FloatArray
    haircut: FloatArray
    deleveraged: FloatArray
    closed: FloatArray
    closed_money: FloatArray
    first_round: IntArray
    last: FloatArray
    liquidity_base: float = 0.0
    fund_paid: float = 0.0
    fees: float = 0.0
    unpaid: float = 0.0

    @property
    def fund(self) -> float:
        return self.insurance - self.fund_paid

    def equity(self, value: float) -> FloatArray:
        return self.base + self.quantity * value + self.safe

    def recompute(self, rows: IntArray | BoolArray | slice) -> None:
        self.liquidation[rows] = find_liquidation_prices(
            self.rules, self.quantity[rows], self.entry[rows], self.base[rows]
        )

    def close(self, rows: IntArray, size: FloatArray, value: FloatArray | float) -> None:
        """Trade signed contracts out of positions at values."""
        self.base[rows] += size * value
        self.quantity[rows] -= size
        self.closed[rows] += np.abs(size)
        self.closed_money[rows] += np.abs(size) * value

    def sum_money(self, value: float) -> float:
        liquidity = self.liquidity_base + self.liquidity_quantity * value
        accounts = float(np.sum(self.equity(value)))
        return accounts + liquidity - self.fund_paid + self.fees - self.unpaid


def open_books(crowd: Crowd, rules: MarginRules, insurance: float, start: float) -> Books:
    n, entry = len(crowd), np.asarray(to_value(rules, crowd.entry))
    books = Books(
        rules=rules,
        quantity=crowd.quantity.copy(),
        entry=entry,
        base=crowd.collateral - crowd.quantity * entry,
        safe=crowd.equity - crowd.collateral,
        insurance=insurance,
        first_quantity=crowd.quantity.copy(),
        first_equity=crowd.equity.copy(),
        liquidity_quantity=-float(np.sum(crowd.quantity)),
        liquidation=np.full(n, np.nan),
        haircut=np.zeros(n),
        deleveraged=np.zeros(n),
        closed=np.zeros(n),
        closed_money=np.zeros(n),
        first_round=np.zeros(n, dtype=np.int64),
        last=np.full(n, start),
    )
    books.recompute(slice(None))
    return books


def check_books(books: Books, value: float, before: float, number: int) -> float:
    """Return by which share the books are off; raise if that is more than rounding."""
    size = float(np.sum(np.abs(books.first_quantity)))
    gap = abs(float(np.sum(books.quantity)) + books.liquidity_quantity) / max(size, 1.0)
    money = max(float(np.sum(np.abs(books.first_equity))), size * abs(value), 1.0)
    after = books.sum_money(value)
    off = max(abs(after - before) / money, gap)
    if not off <= SLACK:
        raise AccountingError(
            f"the books of the crowd must balance to {SLACK:g}, were off by {off:.3g} in round "
            f"{number}: {before!r} before and {after!r} after"
        )
    return off


# ----- a round -----


class Round(NamedTuple):
    """What a round did; notionals at the price before the shock, the rest in money."""

    flow: float
    level: float
    fresh: float
    long: float
    short: float
    adl: float
    fees: float
    deficit: float
    fund_paid: float
    adl_paid: float
    haircuts: float
    unpaid: float


def find_failing(books: Books, price: float) -> IntArray:
    is_long = (books.quantity > 0.0) & (books.liquidation * (1.0 + TOLERANCE) >= price)
    is_short = (books.quantity < 0.0) & (books.liquidation * (1.0 - TOLERANCE) <= price)
    return np.flatnonzero(is_long | is_short)


def do_round(
    books: Books,
    terms: Terms,
    rows: IntArray,
    mark: float,
    flow: float,
    level: float,
    number: int,
) -> Round:
    """Close the accounts that fail at a mark, after a flow that brought the shock to a level."""
    value = float(to_value(terms.rules, mark))
    is_other = np.sign(books.quantity[rows]) != terms.losing_side
    distance = -terms.losing_side * books.liquidation[rows]
    rows = rows[np.lexsort((np.where(is_other, 0.0, distance), is_other))]
    is_new = books.first_round[rows] == 0
    books.first_round[rows[is_new]] = number
    fresh = float(np.sum(np.abs(books.quantity[rows[is_new]]))) * terms.unit
    triggers = find_triggers(books, terms, rows, mark)
    sizes = choose_sizes(books, terms, rows, np.asarray(to_value(terms.rules, triggers)))
    prices, lacks, reached = sell_in_turn(books, terms, rows, triggers, sizes, flow, level)
    is_sold = lacks == 0.0
    sold, bankrupt, sizes = rows[is_sold], rows[~is_sold], sizes[is_sold]
    books.last[sold] = triggers[is_sold]
    fees, gaps = close_in_market(books, terms, sold, sizes, prices[is_sold], triggers[is_sold])
    adl, adl_lack, missing = deleverage(books, bankrupt, lacks[~is_sold], value, terms.adl)
    paid, haircuts, unpaid = cover_shortfall(books, gaps + missing, value)
    books.recompute(rows)
    return Round(
        flow=float(np.sum(sizes)) * terms.unit,
        level=level if terms.forced.mode == "partial" else reached,
        fresh=fresh,
        long=float(np.sum(sizes[sizes > 0.0])) * terms.unit,
        short=float(np.sum(-sizes[sizes < 0.0])) * terms.unit,
        adl=adl * terms.unit,
        fees=fees,
        deficit=gaps + adl_lack,
        fund_paid=paid,
        adl_paid=adl_lack - missing,
        haircuts=haircuts,
        unpaid=unpaid,
    )


def find_triggers(books: Books, terms: Terms, rows: IntArray, mark: float) -> FloatArray:
    if terms.is_jump:
        return np.full(len(rows), mark)
    found = np.clip(books.liquidation[rows], min(terms.start, mark), max(terms.start, mark))
    is_losing = np.sign(books.quantity[rows]) == terms.losing_side
    found = np.where(is_losing, found, terms.start)
    farther = np.minimum if terms.losing_side > 0.0 else np.maximum
    return np.asarray(farther(found, books.last[rows]))


def choose_sizes(books: Books, terms: Terms, rows: IntArray, value: FloatArray) -> FloatArray:
    """Return the signed contracts that the venue closes, at the values of the triggers."""
    quantity = books.quantity[rows]
    if terms.forced.mode != "partial":
        return quantity
    notional = np.abs(quantity * value)
    is_whole = notional <= terms.forced.full_below * (1.0 + TOLERANCE)
    is_whole |= np.abs(quantity) <= 1e-9 * np.abs(books.first_quantity[rows])
    is_whole |= books.base[rows] + quantity * value <= TOLERANCE * notional
    if not isinstance(terms.forced.step, str):
        return np.where(is_whole, quantity, quantity * terms.forced.step)
    floors = np.asarray(terms.rules.floors)
    row = np.searchsorted(floors, notional * (1.0 - 1e-9), side="left") - 1
    floor = floors[np.maximum(row, 0)]
    is_whole |= floor == 0.0
    return np.where(is_whole, quantity, quantity - np.sign(quantity) * floor / np.abs(value))


def sell_in_turn(
    books: Books,
    terms: Terms,
    rows: IntArray,
    triggers: FloatArray,
    sizes: FloatArray,
    flow: float,
    level: float,
) -> tuple[FloatArray, FloatArray, float]:
    """Return the mean prices at which accounts trade, what they lack, and the level then.

    One after the other along the way of the price: at its trigger, or where the ones before have
    carried the price. Where deleveraging is on, an account whose loss the fund cannot cover does
    not trade: it lacks more than 0.
    """
    least, fund = terms.start * LEAST_PRICE, books.fund
    prices, lacks = np.full(len(rows), np.nan), np.zeros(len(rows))
    columns = (triggers, sizes * terms.unit, books.quantity[rows], books.base[rows])
    for k, (trigger, size, quantity, base) in enumerate(
        zip(*(each.tolist() for each in columns), strict=True)
    ):
        fall = terms.start * terms.curve.fall_of(flow)
        reached = find_level(terms, trigger + fall, level)
        if terms.adl is not None:
            price = max(reached - fall, least) * (1.0 - math.copysign(terms.slippage, quantity))
            left = base + quantity * compute_value(terms.rules.size, terms.rules.is_inverse, price)
            if -left > max(fund, 0.0):
                lacks[k] = -left
                continue
            fund += left if terms.forced.mode == "takeover" else min(left, 0.0)
        prices[k] = max(reached - terms.start * terms.curve.mean_fall(flow, size), least)
        flow, level = flow + size, reached
    return prices, lacks, level


def find_level(terms: Terms, own: float, level: float) -> float:
    """Return how far the shock has gone where an account trades, at the price before impact."""
    if terms.is_jump:
        return terms.shocked
    if terms.losing_side > 0.0:
        return min(max(own, terms.shocked), terms.start, level)
    return max(min(own, terms.shocked), terms.start, level)


def close_in_market(
    books: Books,
    terms: Terms,
    rows: IntArray,
    sizes: FloatArray,
    prices: FloatArray,
    triggers: FloatArray,
) -> tuple[float, float]:
    """Sell positions; return the fees, and what those that are closed lack."""
    filled = terms.worsen(np.asarray(to_value(terms.rules, prices)), -np.sign(sizes))
    books.close(rows, sizes, filled)
    books.liquidity_base -= float(np.sum(sizes * filled))
    books.liquidity_quantity += float(np.sum(sizes))
    value = np.asarray(to_value(terms.rules, triggers))
    left = np.maximum(books.base[rows] + books.quantity[rows] * value, 0.0)
    asked = terms.fee * np.abs(sizes * filled)
    fee = np.where(asked * (1.0 + TOLERANCE) >= left, left, asked)
    books.base[rows] -= fee
    books.fees += float(np.sum(fee))
    flat = rows[books.quantity[rows] == 0.0]
    gaps = float(np.sum(np.maximum(-books.base[flat], 0.0)))
    if terms.forced.mode == "takeover":
        books.fund_paid -= float(np.sum(np.maximum(books.base[flat], 0.0)))
        books.base[flat] = 0.0
    books.base[flat] = np.maximum(books.base[flat], 0.0)
    return float(np.sum(fee)), gaps


def cover_shortfall(books: Books, missing: float, value: float) -> tuple[float, float, float]:
    """Return what the fund pays, what is cut from profits, and what the venue owes."""
    paid = min(missing, max(books.fund, 0.0))
    books.fund_paid += paid
    rest = missing - paid
    if rest <= 0.0:
        return paid, 0.0, 0.0
    profit = np.maximum(books.equity(value) - books.first_equity, 0.0)
    total = float(np.sum(profit))
    share = min(1.0, rest / total) if total > 0.0 else 0.0
    cut = profit * share
    books.base -= cut
    books.haircut += cut
    books.recompute(cut > 0.0)
    haircuts = float(np.sum(cut))
    owed = rest - haircuts if share == 1.0 or total == 0.0 else 0.0
    books.unpaid += owed
    return paid, haircuts, owed


# ----- auto-deleveraging -----


def deleverage(
    books: Books, rows: IntArray, lacks: FloatArray, value: float, adl: str | None
) -> tuple[float, float, float]:
    """Close bankrupt positions against the other side, at their bankruptcy price.

    Returns the contracts, what the accounts lacked, and what of it is still missing.
    """
    contracts, lack, missing = 0.0, 0.0, 0.0
    for side in (1.0, -1.0):
        is_chosen = side * books.quantity[rows] > 0.0
        if is_chosen.any():
            total = float(np.sum(books.quantity[rows[is_chosen]]))
            missing += close_side(books, rows[is_chosen], rows, value, adl)
            contracts += abs(total)
            lack += float(np.sum(lacks[is_chosen]))
    return contracts, lack, missing


def close_side(
    books: Books, bankrupt: IntArray, left_out: IntArray, value: float, adl: str | None
) -> float:
    quantity = books.quantity[bankrupt]
    total = float(np.sum(quantity))
    price = -float(np.sum(books.base[bankrupt])) / total
    books.closed[bankrupt] += np.abs(quantity)
    books.closed_money[bankrupt] -= np.sign(quantity) * books.base[bankrupt]
    books.base[bankrupt] = 0.0
    books.quantity[bankrupt] = 0.0
    others = np.flatnonzero(books.quantity * total < 0.0)
    others = np.setdiff1d(others, left_out, assume_unique=True)
    choose = choose_queue if adl == "queue" else choose_pro_rata
    taken = choose(books, others, abs(total), value)
    books.close(others, taken * -np.sign(total), price)
    books.deleveraged[others] += taken
    is_flat = books.quantity[others] == 0.0
    missing = float(np.sum(np.maximum(-books.base[others[is_flat]], 0.0)))
    books.base[others[is_flat]] = np.maximum(books.base[others[is_flat]], 0.0)
    books.recompute(others[taken > 0.0])
    rest = total - float(np.sum(taken)) * np.sign(total)
    books.liquidity_quantity += rest
    books.liquidity_base -= rest * price
    return missing


def choose_queue(books: Books, rows: IntArray, total: float, value: float) -> FloatArray:
    """Return the contracts taken from each account, the highest return x leverage first."""
    quantity, entry = books.quantity[rows], books.entry[rows]
    notional = np.abs(quantity * entry)
    gain = quantity * (value - entry) / notional
    equity = np.maximum(books.base[rows] + quantity * value, 1e-12 * notional)
    leverage = np.abs(quantity * value) / equity
    order = np.argsort(-np.where(gain > 0.0, gain * leverage, gain / leverage), kind="stable")
    size, taken = np.abs(quantity[order]), np.empty(len(rows))
    taken[order] = np.clip(total - (np.cumsum(size) - size), 0.0, size)
    return taken


def choose_pro_rata(books: Books, rows: IntArray, total: float, value: float) -> FloatArray:  # noqa: ARG001
    size = np.abs(books.quantity[rows])
    side = np.sign(books.quantity[rows[0]]) if len(rows) else 0.0
    everyone = float(np.sum(size)) + max(side * books.liquidity_quantity, 0.0)
    return size * min(1.0, total / everyone) if everyone > 0.0 else size
