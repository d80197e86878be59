"""cascade(): a shock, the liquidations it causes, and those that they cause.

Arrays have one entry per account. Money is in the settlement currency, values are u. The sum of all
equities, the fund, the fees and what the venue owes never changes: :func:`check_books` verifies it
after every round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import base
from backtest.base.fields import NOT_NEGATIVE, POSITIVE
from backtest.base.number_text import Head
from backtest.base.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.base.units import DAY, MINUTE, TOLERANCE
from backtest.crowd.crowd import (
    ARRAYS_OF_CROWD,
    Crowd,
    find_liquidation_prices,
    find_price,
    to_price,
    to_value,
)
from backtest.engine import Result, describe_history
from backtest.market import Market
from backtest.venue import Contract, Venue, read_newest

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

    def fall(self, flow: float) -> float:
        """Return the fall of a cumulative flow, a fraction; negative if it was bought."""
        return math.copysign(self.factor * (abs(flow) / self.volume) ** self.exponent, flow)

    def flow_of(self, fall: float) -> float:
        if self.factor == 0.0:
            return 0.0
        share = (abs(fall) / self.factor) ** (1.0 / self.exponent)
        return math.copysign(share * self.volume, fall)

    def mean_fall(self, start: float, flow: float) -> float:
        """Return the mean fall while a flow is added to one that was there."""
        if abs(flow) <= 1e-9 * abs(start):  # else the difference is rounding
            return self.fall(start + 0.5 * flow)
        power = self.exponent + 1.0
        before, after = (
            (abs(each) / self.volume) ** power * self.volume / power
            for each in (start, start + flow)
        )
        return self.factor * (after - before) / flow if flow else self.fall(start)


@base.declared
class SquareRoot(base.Value):
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


@base.declared
class Linear(base.Value):
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
        return base.check_range("volume", volume, low=0.0, open_low=True)
    if market is None or not np.any(market.volume > 0.0):
        raise base.ParameterError(
            "a square-root impact needs a daily volume, the market has none; volume= is the money "
            "traded per day"
        )
    rows = find_window(market)
    money = market.volume[rows] * np.abs(to_value(contract, market.close[rows]))
    return float(np.sum(money)) / (len(money) * market.interval / DAY)


def measure_volatility(market: Market) -> float:
    steps = np.diff(np.log(market.close[find_window(market)]))
    if len(steps) < 2:
        raise base.ParameterError(
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

    venue: Venue
    fee: float
    slippage: float
    curve: ImpactCurve
    start: float
    shocked: float
    unit: float
    adl: str | None
    is_jump: bool

    @property
    def mode(self) -> str:
        return self.venue.liquidation.mode

    @property
    def losing_side(self) -> float:
        return 1.0 if self.shocked <= self.start else -1.0

    def to_value(self, price: Any) -> Any:
        return to_value(self.venue.contract, price)

    def find_price(self, fall: float) -> float:
        """Return the price under a fall by impact, a fraction of the start price."""
        return max(self.shocked - self.start * fall, self.start * LEAST_PRICE)


def read_terms(
    venue: Venue, curve: ImpactCurve, start: float, shock: float, adl: str | None, *, jump: bool
) -> Terms:
    forced = venue.liquidation
    if forced.full_below_health > 0.0:
        raise base.ParameterError(
            "liquidation.full_below_health must be left out for a crowd, "
            f"got {forced.full_below_health:g}"
        )
    fee, slippage = (
        0.0
        if forced.mode == "takeover"
        else read_newest(getattr(forced, name), f"venue.liquidation.{name}", "in a crowd")
        for name in ("fee", "slippage")
    )
    unit = abs(float(to_value(venue.contract, start)))
    return Terms(venue, fee, slippage, curve, start, start * (1.0 + shock), unit, adl, jump)


class Books:
    """Every account, the liquidity account, the insurance fund and the venue.

    ``base`` is what an account has beside its position, ``safe`` what no liquidation touches.
    """

    def __init__(self, crowd: Crowd, venue: Venue, insurance: float, start: float) -> None:
        self.venue, self.insurance = venue, insurance
        self.quantity, self.first_quantity = crowd.quantity.copy(), crowd.quantity
        self.entry = np.asarray(to_value(venue.contract, crowd.entry))
        self.base = crowd.collateral - crowd.quantity * self.entry
        self.safe, self.first_equity = crowd.equity - crowd.collateral, crowd.equity
        self.haircut, self.deleveraged, self.closed, self.closed_money = np.zeros((4, len(crowd)))
        self.first_round = np.zeros(len(crowd), dtype=np.int64)
        self.last = np.full(len(crowd), start)
        self.liquidity_quantity, self.liquidity_base = -float(np.sum(crowd.quantity)), 0.0
        self.fund_paid, self.fees, self.unpaid = 0.0, 0.0, 0.0
        self.liquidation = np.full(len(crowd), np.nan)
        self.recompute(slice(None))

    @property
    def fund(self) -> float:
        return self.insurance - self.fund_paid

    def equity(self, value: float) -> base.FloatArray:
        return np.asarray(self.base + self.quantity * value + self.safe)

    def recompute(self, rows: base.IntArray | base.BoolArray | slice) -> None:
        self.liquidation[rows] = find_liquidation_prices(
            self.venue, self.quantity[rows], self.entry[rows], self.base[rows]
        )

    def close(
        self, rows: base.IntArray, size: base.FloatArray, value: base.FloatArray | float
    ) -> None:
        """Trade signed contracts out of positions at values."""
        self.base[rows] += size * value
        self.quantity[rows] -= size
        self.closed[rows] += np.abs(size)
        self.closed_money[rows] += np.abs(size) * value

    def sum_money(self, value: float) -> float:
        liquidity = self.liquidity_base + self.liquidity_quantity * value
        accounts = float(np.sum(self.equity(value)))
        return accounts + liquidity - self.fund_paid + self.fees - self.unpaid


def check_books(books: Books, value: float, before: float, number: int) -> float:
    """Return by which share the books are off; raise if that is more than rounding."""
    size = float(np.sum(np.abs(books.first_quantity)))
    gap = abs(float(np.sum(books.quantity)) + books.liquidity_quantity) / max(size, 1.0)
    money = max(float(np.sum(np.abs(books.first_equity))), size * abs(value), 1.0)
    after = books.sum_money(value)
    off = max(abs(after - before) / money, gap)
    if not off <= SLACK:
        raise base.AccountingError(
            f"the books of the crowd must balance to {SLACK:g}, were off by {off:.3g} in round "
            f"{number}: {before!r} before and {after!r} after"
        )
    return off


# ----- a round -----


class Round(NamedTuple):
    """Forced flow, the level that the shock reached, what failed first, and a row of the table.

    Notionals are at the price before the shock, the rest is money.
    """

    flow: float
    level: float
    fresh: float
    row: dict[str, float]


def find_failing(books: Books, price: float) -> base.IntArray:
    is_long = (books.quantity > 0.0) & (books.liquidation * (1.0 + TOLERANCE) >= price)
    is_short = (books.quantity < 0.0) & (books.liquidation * (1.0 - TOLERANCE) <= price)
    return np.flatnonzero(is_long | is_short)


def do_round(
    books: Books,
    terms: Terms,
    rows: base.IntArray,
    mark: float,
    flow: float,
    level: float,
    number: int,
) -> Round:
    """Close the accounts that fail at a mark, after a flow that brought the shock to a level."""
    value = float(terms.to_value(mark))
    is_other = np.sign(books.quantity[rows]) != terms.losing_side
    distance = -terms.losing_side * books.liquidation[rows]
    rows = rows[np.lexsort((np.where(is_other, 0.0, distance), is_other))]
    is_new = books.first_round[rows] == 0
    books.first_round[rows[is_new]] = number
    fresh = float(np.sum(np.abs(books.quantity[rows[is_new]]))) * terms.unit
    triggers = find_triggers(books, terms, rows, mark)
    sizes = choose_sizes(books, terms, rows, np.asarray(terms.to_value(triggers)))
    prices, lacks, reached = sell_in_turn(books, terms, rows, triggers, sizes, flow, level)
    is_sold = lacks == 0.0
    sold, bankrupt, sizes = rows[is_sold], rows[~is_sold], sizes[is_sold]
    books.last[sold] = triggers[is_sold]
    fees, gaps = close_in_market(books, terms, sold, sizes, prices[is_sold], triggers[is_sold])
    adl, adl_lack, missing = deleverage(books, bankrupt, lacks[~is_sold], value, terms.adl)
    paid, haircuts, unpaid = cover_shortfall(books, gaps + missing, value)
    books.recompute(rows)
    row = {
        "long": float(np.sum(sizes[sizes > 0.0])) * terms.unit,
        "short": float(np.sum(-sizes[sizes < 0.0])) * terms.unit,
        "adl": adl * terms.unit,
        "fees": fees,
        "deficit": gaps + adl_lack,
        "fund_paid": paid,
        "adl_paid": adl_lack - missing,
        "haircuts": haircuts,
        "unpaid": unpaid,
    }
    level = level if terms.mode == "partial" else reached
    return Round(float(np.sum(sizes)) * terms.unit, level, fresh, row)


def find_triggers(books: Books, terms: Terms, rows: base.IntArray, mark: float) -> base.FloatArray:
    if terms.is_jump:
        return np.full(len(rows), mark)
    found = np.clip(books.liquidation[rows], min(terms.start, mark), max(terms.start, mark))
    is_losing = np.sign(books.quantity[rows]) == terms.losing_side
    found = np.where(is_losing, found, terms.start)
    farther = np.minimum if terms.losing_side > 0.0 else np.maximum
    return np.asarray(farther(found, books.last[rows]))


def choose_sizes(
    books: Books, terms: Terms, rows: base.IntArray, value: base.FloatArray
) -> base.FloatArray:
    """Return the signed contracts that the venue closes, at the values of the triggers."""
    quantity, forced = books.quantity[rows], terms.venue.liquidation
    if terms.mode != "partial":
        return quantity
    notional = np.abs(quantity * value)
    is_whole = notional <= forced.full_below * (1.0 + TOLERANCE)
    is_whole |= np.abs(quantity) <= 1e-9 * np.abs(books.first_quantity[rows])
    is_whole |= books.base[rows] + quantity * value <= TOLERANCE * notional
    if not isinstance(forced.step, str):
        return np.where(is_whole, quantity, quantity * forced.step)
    floors = np.array([each.floor for each in terms.venue.brackets])
    row = np.searchsorted(floors, notional * (1.0 - 1e-9), side="left") - 1
    floor = floors[np.maximum(row, 0)]
    is_whole |= floor == 0.0
    return np.where(is_whole, quantity, quantity - np.sign(quantity) * floor / np.abs(value))


def sell_in_turn(
    books: Books,
    terms: Terms,
    rows: base.IntArray,
    triggers: base.FloatArray,
    sizes: base.FloatArray,
    flow: float,
    level: float,
) -> tuple[base.FloatArray, base.FloatArray, float]:
    """Return the mean prices at which accounts trade, what they lack, and the level then.

    One after the other along the way of the price: at its trigger, or where the ones before have
    carried the price. Where deleveraging is on, an account whose loss the fund cannot cover does
    not trade: it lacks more than 0.
    """
    least, fund = terms.start * LEAST_PRICE, books.fund
    prices, lacks = np.full(len(rows), np.nan), np.zeros(len(rows))
    columns = (triggers, sizes * terms.unit, books.quantity[rows], books.base[rows])
    for k, (trigger, size, quantity, beside) in enumerate(
        zip(*(each.tolist() for each in columns), strict=True)
    ):
        fall = terms.start * terms.curve.fall(flow)
        reached = find_level(terms, trigger + fall, level)
        if terms.adl is not None:
            price = max(reached - fall, least) * (1.0 - math.copysign(terms.slippage, quantity))
            left = beside + quantity * terms.to_value(price)
            if -left > max(fund, 0.0):
                lacks[k] = -left
                continue
            fund += left if terms.mode == "takeover" else min(left, 0.0)
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
    rows: base.IntArray,
    sizes: base.FloatArray,
    prices: base.FloatArray,
    triggers: base.FloatArray,
) -> tuple[float, float]:
    """Sell positions; return the fees, and what those that are closed lack."""
    filled = np.asarray(terms.to_value(prices * (1.0 - np.sign(sizes) * terms.slippage)))
    books.close(rows, sizes, filled)
    books.liquidity_base -= float(np.sum(sizes * filled))
    books.liquidity_quantity += float(np.sum(sizes))
    value = np.asarray(terms.to_value(triggers))
    left = np.maximum(books.base[rows] + books.quantity[rows] * value, 0.0)
    asked = terms.fee * np.abs(sizes * filled)
    fee = np.where(asked * (1.0 + TOLERANCE) >= left, left, asked)
    books.base[rows] -= fee
    books.fees += float(np.sum(fee))
    flat = rows[books.quantity[rows] == 0.0]
    gaps = float(np.sum(np.maximum(-books.base[flat], 0.0)))
    if terms.mode == "takeover":
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
    books: Books, rows: base.IntArray, lacks: base.FloatArray, value: float, adl: str | None
) -> tuple[float, float, float]:
    """Close bankrupt positions against the other side, at their bankruptcy price.

    Returns the contracts, what the accounts lacked, and what of it is still missing.
    """
    contracts, missing = 0.0, 0.0
    for side in (1.0, -1.0):
        bankrupt = rows[side * books.quantity[rows] > 0.0]
        if len(bankrupt):
            contracts += abs(float(np.sum(books.quantity[bankrupt])))
            missing += close_side(books, bankrupt, rows, value, adl)
    return contracts, float(np.sum(lacks)), missing


def close_side(
    books: Books, bankrupt: base.IntArray, left_out: base.IntArray, value: float, adl: str | None
) -> float:
    quantity = books.quantity[bankrupt]
    total, side = abs(float(np.sum(quantity))), float(np.sign(quantity[0]))
    price = -side * float(np.sum(books.base[bankrupt])) / total
    books.closed[bankrupt] += np.abs(quantity)
    books.closed_money[bankrupt] -= side * books.base[bankrupt]
    books.base[bankrupt], books.quantity[bankrupt] = 0.0, 0.0
    others = np.setdiff1d(np.flatnonzero(side * books.quantity < 0.0), left_out, assume_unique=True)
    size = np.abs(books.quantity[others])
    if adl == "queue":
        order = rank_winners(books, others, value)
        taken = np.empty(len(others))
        taken[order] = np.clip(total - (np.cumsum(size[order]) - size[order]), 0.0, size[order])
    else:  # pro rata, with the liquidity account if it is on the other side
        everyone = float(np.sum(size)) + max(-side * books.liquidity_quantity, 0.0)
        taken = size * min(1.0, total / everyone) if everyone > 0.0 else size
    books.close(others, taken * -side, price)
    books.deleveraged[others] += taken
    flat = others[books.quantity[others] == 0.0]
    missing = float(np.sum(np.maximum(-books.base[flat], 0.0)))
    books.base[flat] = np.maximum(books.base[flat], 0.0)
    books.recompute(others[taken > 0.0])
    rest = side * (total - float(np.sum(taken)))
    books.liquidity_quantity += rest
    books.liquidity_base -= rest * price
    return missing


def rank_winners(books: Books, rows: base.IntArray, value: float) -> base.IntArray:
    """Return the order of the queue: the highest return x leverage first."""
    quantity, entry = books.quantity[rows], books.entry[rows]
    notional = np.abs(quantity * entry)
    gain = quantity * (value - entry) / notional
    equity = np.maximum(books.base[rows] + quantity * value, 1e-12 * notional)
    leverage = np.abs(quantity * value) / equity
    return np.argsort(-np.where(gain > 0.0, gain * leverage, gain / leverage), kind="stable")


# ----- the result -----

MOST_ROUNDS = 200_000
MOST_ROWS = 60
"""The rounds that a page shows."""
PAYERS = {
    "fund_paid": "insurance fund",
    "adl_paid": "deleveraged winners",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}
COLUMNS = (
    "mark", "price", "accounts", "long", "short", "insurance", "adl", "fees", "deficit", *PAYERS,
    "off",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(base.SettingsResult):
    """The outcome of :func:`backtest.cascade`.

    Attributes
    ----------
    rounds : DataFrame
        Row 0 is the shock alone, then a row per round: ``mark`` (the price at which accounts
        failed) and ``price`` (after their flow); ``long`` and ``short``, the notionals liquidated
        in the market, and ``adl``, closed against winners, all at the price before the shock;
        ``insurance``, the fund afterwards; ``fees``; ``deficit``, what bankrupt accounts lacked,
        and who paid it: ``fund_paid``, ``adl_paid``, ``haircuts``, ``unpaid``; and
        ``off``, the error of the books as a share.
    accounts : DataFrame
        A row per account: ``quantity`` left, the ``round`` in which it failed (0: never),
        ``close_price``, contracts ``deleveraged``, and the ``haircut`` in money.
    ladder : DataFrame
        The notional liquidated by price before the shock; see :meth:`Crowd.ladder`.
    settings : dict
        Crowd, venue and arguments.
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
        The accounts of the crowd that were liquidated.
    me : dict or None
        The own account: ``liquidated``, in which ``round``, the ``quantity`` left, the mean
        ``close_price``, ``equity_before`` the shock and ``equity`` now, their difference ``loss``,
        contracts ``deleveraged``, the ``haircut``, and the ``liquidation_price`` of what is left.
    crowd : Crowd or None
        The crowd; None for a loaded one.
    """

    rounds: pd.DataFrame
    accounts: pd.DataFrame
    ladder: pd.DataFrame
    settings: dict[str, Any]
    price: float
    shock: float
    final_price: float
    multiplier: float
    reproduction: float
    deficit: float
    liquidated: int
    me: dict[str, Any] | None = None
    crowd: Crowd | None = None

    kind = "cascade"
    table_names = ("rounds", "accounts", "ladder")
    numbers = ("price", "shock", "final_price", "multiplier", "reproduction", "deficit",
               "liquidated", "me")  # fmt: skip

    def describe_data(self) -> Mapping[str, Any]:
        crowd = self.crowd
        market = None if crowd is None else crowd.market
        found = dict(describe_history(market))
        if crowd is not None and market is None:
            found |= {"source": repr(crowd), "content_hash": crowd.content_hash}
        return found

    @property
    def haircuts(self) -> base.FloatArray:
        """What was taken from the profit of each account, in the settlement currency."""
        return self.accounts["haircut"].to_numpy(dtype=np.float64)

    def payers(self) -> dict[str, float]:
        """Return who paid the deficit, in the settlement currency."""
        return {name: float(self.rounds[name].sum()) for name in PAYERS}

    @property
    def title(self) -> str:
        shock = base.format_percent(self.shock, is_signed=True)
        return f"Cascade of {self.settings['crowd'].get('accounts', 0):,} accounts after {shock}"

    @property
    def heading(self) -> str:
        return self.title

    @property
    def about(self) -> str:
        return "" if self.manifest["data"]["bars"] else "Positions given, without a market"

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
            f"After a shock of {base.format_percent(self.shock)}, {len(self.rounds) - 1} rounds of "
            f"liquidations moved the price by {base.format_percent(self.move)} in all."
        )

    @property
    def details(self) -> str:
        me = self.me
        if me is None:
            return ""
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        return f"The own account {fate}: {me['equity_before']:,.2f} became {me['equity']:,.2f}."

    def list_numbers(self) -> list[Headline]:
        shock, n = base.format_percent(self.shock), f"of {len(self.accounts):,} accounts"
        beyond = "losses beyond what backed the accounts"
        return [
            Headline("move", "final move", self.move, "percent", f"shock {shock}"),
            Headline("multiplier", "multiplier", self.multiplier, "decimals",
                     "final move over shock", "less"),
            Headline("reproduction", "reproduction", self.reproduction, "decimals",
                     "unstable from 1 on", "less"),
            Headline("liquidated", "liquidated", self.liquidated, "count", n, "less"),
            Headline("deficit", "deficit", self.deficit, "count", beyond, "less"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        ends = "Solid and dashed: before the shock, and where the cascade ended."
        price, fund = self.rounds["price"], self.rounds["insurance"]
        paid = pd.DataFrame({"money": self.payers()}).rename(index=PAYERS)
        paid["share"] = paid["money"] / max(self.deficit, 1e-300)
        return [
            Part("ladder", "The ladder of liquidations", "What is liquidated at each price, "
                 "before the shock.", (
                ShownChart("ladder", "Notional liquidated by price", ends,
                           self.ladder[["long", "short"]], "bars", {"long": "loss",
                           "short": "accent"}, "price", "notional",
                           marks=(self.price, self.final_price), has_legend=True,
                           height=320),
            )),
            Part("rounds", "The rounds", "The price, and what each round liquidated.", (
                ShownChart("rounds", "Price after each round", "Round 0 is the shock alone.",
                           price, "points", x="round", y="price", size="half", height=280),
                ShownChart("fund", "Insurance fund after each round", "Empty where the fund "
                           "is infinite.", fund, "steps", x="round", y="money", size="half",
                           height=280),
                self._tabulate_rounds(),
            ), shows="both"),
            Part("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                 (ShownTable(paid, "Who paid", labels=Head("payer"),
                             heads={"money": Head("money", "", "count")}),), shows="both"),
        ]  # fmt: skip

    def _tabulate_rounds(self) -> ShownTable:
        rounds, half = self.rounds, MOST_ROWS // 2
        titles = {"accounts": "accounts", "long": "longs", "short": "shorts",
                  "adl": "deleveraged", "insurance": "fund", "deficit": "deficit"}  # fmt: skip
        heads = {name: Head(title, "", "count") for name, title in titles.items()}
        note = "Notionals at the price before the shock."
        if len(rounds) > MOST_ROWS:
            note += f" The first and last {half} of {len(rounds) - 1} rounds."
            rounds = pd.concat([rounds.head(half), rounds.tail(half)])
        return ShownTable(rounds, "Rounds", note, Head("round", "", "count"), heads,
                          ("price", *titles))  # fmt: skip


@base.record_making
@base.checked_only("crowd", "venue", "impact")
def cascade(
    crowd: Crowd,
    venue: Venue,
    *,
    shock: float,
    impact: Impact,
    price: float | None = None,
    volume: float | None = None,
    insurance: float = 0.0,
    adl: str | None = "queue",
    recovery: str | None = None,
    jump: bool = False,
    me: Result | Mapping[str, Any] | None = None,
) -> Cascade:
    """Shock a crowd of accounts, and follow its liquidations until no account fails.

    Parameters
    ----------
    crowd : Crowd
        The accounts.
    venue : Venue
        Margin rules, mode and costs of liquidation. Its own ``liquidation.impact`` is not used:
        ``impact`` replaces it.
    shock : float
        The move that starts the cascade: -0.03 is a fall of 3 %.
    impact : SquareRoot or Linear
        How forced flow moves the price.
    price : float, optional
        The price before the shock; that of the crowd by default.
    volume : float, optional
        The money traded per day; that of the last 30 days of the crowd's market by default.
    insurance : float
        The insurance fund, in the settlement currency; may be infinite.
    adl : str or None
        How bankrupt positions that the fund cannot cover are closed: ``"queue"`` (against winners,
        highest return x leverage first), ``"pro-rata"`` (against all of the other side), or None
        (in the market; the shortfall is taken from profits).
    recovery : str, optional
        The half-life of the impact, in rounds of a minute; None: it stays.
    jump : bool
        Whether the shock is a jump, on whose way nobody trades: all that fail in it trade at its
        end, and many are bankrupt. Otherwise the price moves through it, and each account trades
        at its liquidation price, or behind those that fail before it.
    me : Result or mapping, optional
        One's own account in the crowd: the state of a run at its end, or side, quantity, entry and
        collateral.

    Notes
    -----
    The price is ``price (1 + shock - fall(Q))`` with Q the net flow that was forced so far, in
    notional at the price before the shock. Each round closes all accounts that fail at its price.
    So the last price is the clearing price nearest to that before the shock.
    """
    if venue.contract.is_spot:
        raise base.ParameterError("venue must have margined positions, got one of kind 'spot'")
    start = find_price(price, None, crowd.price)
    known = use_contract(crowd, venue)
    curve = impact.curve(volume, crowd.market, venue.contract)
    base.Number(-1.0, 10.0, open_low=True).check("shock", shock)
    base.check_range("insurance", insurance, low=0.0)
    if adl is not None:
        base.Choice("queue", "pro-rata").check("adl", adl)
    decay = 1.0 if recovery is None else 0.5 ** (MINUTE / base.parse_duration(recovery, "recovery"))
    own = read_own_account(me)
    terms = read_terms(venue, curve, start, float(shock), adl, jump=jump)
    everyone = known if own is None else join(known, own)
    books = Books(everyone, venue, insurance, start)
    begun = {"mark": start, "price": terms.shocked, "accounts": 0, "insurance": insurance}
    rows, outcomes, final = run_rounds(books, terms, decay)
    rounds = pd.DataFrame([dict.fromkeys(COLUMNS, 0.0) | begun, *rows])[list(COLUMNS)]
    rounds.index.name = "round"
    first = outcomes[0].flow if outcomes else 0.0
    settings = {
        "crowd": {**known.origin, "content_hash": known.content_hash},
        "venue": venue.to_dict(),
        "impact": impact.to_dict() | {"law": type(impact).__name__},
        "curve": curve._asdict(),
        "insurance": insurance,
        "adl": adl,
        "recovery": recovery,
        "jump": bool(jump),
        "me": own,
    }
    return Cascade(
        rounds=rounds,
        accounts=tabulate_outcomes(books, len(known)),
        ladder=known.ladder(venue, price=start),
        settings=settings,
        price=start,
        shock=float(shock),
        final_price=final,
        multiplier=(final / start - 1.0) / shock if shock != 0.0 else math.nan,
        reproduction=outcomes[1].fresh / abs(first) if len(outcomes) > 1 and first else 0.0,
        deficit=float(rounds["deficit"].sum()),
        liquidated=int(np.sum(books.first_round[: len(known)] > 0)),
        me=None if own is None else describe_own_account(books, start, final),
        crowd=known,
    )


def use_contract(crowd: Crowd, venue: Venue) -> Crowd:
    """Return a crowd whose quantities are contracts of a venue."""
    mine, theirs = crowd.contract, venue.contract
    is_drawn = crowd.origin.get("made_from") == "leverage"
    if is_drawn and (mine.kind, mine.size) != (theirs.kind, theirs.size):
        raise base.ParameterError(
            f"contract must be that of the venue, {theirs.kind} of {theirs.size:g}, the crowd "
            f"has {mine.kind} of {mine.size:g}"
        )
    return replace(crowd, contract=theirs)


def run_rounds(
    books: Books, terms: Terms, decay: float
) -> tuple[list[dict[str, float]], list[Round], float]:
    mark, flow, level, rows = terms.shocked, 0.0, terms.start, list[dict[str, float]]()
    outcomes: list[Round] = []
    while len(failing := find_failing(books, mark)):
        if len(rows) >= MOST_ROUNDS:
            raise base.AccountingError(
                f"a cascade did not end in {MOST_ROUNDS:,} rounds, {len(failing)} still fail"
            )
        value = float(terms.to_value(mark))
        before = books.sum_money(value)
        done = do_round(books, terms, failing, mark, flow, level, len(rows) + 1)
        off = check_books(books, value, before, len(rows) + 1)
        flow, level = flow + done.flow, done.level
        fall = terms.curve.fall(flow)
        found = {"mark": mark, "price": terms.find_price(fall), "accounts": len(failing)}
        rows.append({**found, **done.row, "insurance": books.fund, "off": off})
        outcomes.append(done)
        if decay < 1.0:
            fall *= decay
            flow = terms.curve.flow_of(fall)
        mark = terms.find_price(fall)
    return rows, outcomes, mark


def tabulate_outcomes(books: Books, n: int) -> pd.DataFrame:
    closed = books.closed[:n]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = books.closed_money[:n] / closed
    return pd.DataFrame(
        {
            "quantity": books.quantity[:n],
            "round": books.first_round[:n],
            "close_price": np.where(closed > 0.0, to_price(books.venue.contract, value), np.nan),
            "deleveraged": books.deleveraged[:n],
            "haircut": books.haircut[:n],
        }
    )


# ----- one's own account -----


def join(crowd: Crowd, own: Mapping[str, float]) -> Crowd:
    added: dict[str, Any] = {
        name: np.append(getattr(crowd, name), own[name]) for name in ARRAYS_OF_CROWD
    }
    return replace(crowd, **added)


def read_own_account(me: Result | Mapping[str, Any] | None) -> dict[str, float] | None:
    if me is None or isinstance(me, Result):
        return None if me is None else read_result(me)
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return {name: float(getattr(row, name)[0]) for name in ARRAYS_OF_CROWD}
    raise base.ParameterError(
        "me must be a Result, or a mapping of side, quantity, entry and collateral, got "
        f"{base.repr_plain(me)}"
    )


def read_result(result: Result) -> dict[str, float]:
    last = {name: float(values[-1]) for name, values in result.record.of_one().items()}
    quantity, entry = last["quantity"], last["entry"]
    if quantity == 0.0:
        raise base.ParameterError("me must be a run that ends with a position, got a flat end")
    if result.account.margin == "isolated":
        collateral, more = last["margin"], last["cash"] + last["reserve"]
    else:
        collateral, more = last["cash"] + quantity * entry, last["reserve"]
    price = float(to_price(result.venue.contract, np.asarray(entry)))
    return dict(zip(ARRAYS_OF_CROWD, (quantity, price, collateral, collateral + more), strict=True))


def describe_own_account(books: Books, start: float, final: float) -> dict[str, Any]:
    moved = float(to_value(books.venue.contract, start)) - books.entry[-1]
    before = float(books.first_equity[-1] + books.first_quantity[-1] * moved)
    after = float(books.equity(float(to_value(books.venue.contract, final)))[-1])
    row: dict[Any, Any] = tabulate_outcomes(books, len(books.quantity)).iloc[-1].to_dict()
    return {
        "liquidated": bool(row["round"] > 0),
        **row,
        "round": int(row["round"]),
        "equity_before": before,
        "equity": after,
        "loss": before - after,
        "liquidation_price": float(books.liquidation[-1]),
    }
