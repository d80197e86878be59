"""The accounting rules once more, in exact decimals: the oracle that the engine is held to.

Written to be checked against docs/accounting.md with a finger on the page: one small method per
rule, the section in its docstring. It shares no code with ``backtest``. Where there is a choice it
takes another way than a fast engine would:

- maintenance is the integral of the marginal rates, never a maximum of lines;
- a liquidation price is found by walking the brackets in *notional*, then put back into
  "equity = requirement";
- the position is revalued from price to price as things happen, so that price pnl telescopes.

Floats enter as the exact number they are (``Decimal(0.1)`` is not ``Decimal("0.1")``), and every
operation carries 40 digits: the identity of §6 is checked at each bar to 1e-30.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from typing import Any, NamedTuple

import pandas as pd

DIGITS = 40
ZERO, ONE = Decimal(0), Decimal(1)
INFINITY = Decimal("Infinity")
TIE = Decimal("1e-12")  # §2: in favor of the event
LOT_TOLERANCE = Decimal("1e-6")  # §4.5, in lots
NOTHING_LEFT = Decimal("1e-9")  # §5: of the capital paid in
REMAINDER = Decimal("1e-9")  # a partial liquidation that leaves less closes whole
WORST = Decimal("0.99")  # §5: slippage and impact of a liquidation together
EXACT = Decimal("1e-30")  # the identity of §6
SUBSTITUTION = Decimal("1e-25")  # a liquidation price put back into its equation
DAY = 86_400_000_000_000

COSTS = ("fees", "slippage", "impact", "funding", "interest", "liquidation_loss")
GAINS = ("price_pnl", "flows", "bad_debt")
KIND_OF_COLUMN = {"fees": "fee"}  # the other ledger kinds are called like their column


class Event(NamedTuple):
    """One row of the ledger; price is None where a price means nothing."""

    bar: int
    kind: str
    price: Decimal | None
    quantity: Decimal
    amount: Decimal


@dataclass
class Outcome:
    """What a run produced: one list per column, one entry per bar; None where a float is NaN."""

    equity: list[Decimal] = field(default_factory=list)
    quantity: list[Decimal] = field(default_factory=list)
    cash: list[Decimal] = field(default_factory=list)
    margin: list[Decimal] = field(default_factory=list)
    entry: list[Decimal | None] = field(default_factory=list)
    reserve: list[Decimal] = field(default_factory=list)
    price_pnl: list[Decimal] = field(default_factory=list)
    fees: list[Decimal] = field(default_factory=list)
    slippage: list[Decimal] = field(default_factory=list)
    impact: list[Decimal] = field(default_factory=list)
    funding: list[Decimal] = field(default_factory=list)
    interest: list[Decimal] = field(default_factory=list)
    liquidation_loss: list[Decimal] = field(default_factory=list)
    flows: list[Decimal] = field(default_factory=list)
    top_up: list[Decimal] = field(default_factory=list)
    bad_debt: list[Decimal] = field(default_factory=list)
    initial_margin: list[Decimal] = field(default_factory=list)
    available: list[Decimal] = field(default_factory=list)
    realized_pnl: list[Decimal] = field(default_factory=list)
    unrealized_pnl: list[Decimal] = field(default_factory=list)
    leverage: list[Decimal] = field(default_factory=list)
    margin_ratio: list[Decimal] = field(default_factory=list)
    liquidation_price: list[Decimal | None] = field(default_factory=list)
    traded: list[Decimal] = field(default_factory=list)
    backing: list[Decimal] = field(default_factory=list)
    requirement: list[Decimal] = field(default_factory=list)
    ruined: list[bool] = field(default_factory=list)
    halted: list[bool] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    tables: list[Brackets] = field(default_factory=list)
    waits: list[Decimal] = field(default_factory=list)  # days from calls to liquidations
    capital: Decimal = ZERO

    def total(self, kind: str) -> Decimal:
        """Return the sum of the amounts of one kind of event."""
        with localcontext(Context(prec=DIGITS)):
            return sum((event.amount for event in self.events if event.kind == kind), ZERO)

    def count(self, kind: str) -> int:
        """Return how many events of one kind there were."""
        return sum(event.kind == kind for event in self.events)

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]


# ---------------------------------------------------------------------------------------------
# Plain inputs to exact ones


def exact(number: float) -> Decimal:
    """Return the number that a float is, to its last bit."""
    return Decimal(float(number))


def nanoseconds(duration: str | int) -> int:
    """Return "60s" or "1d" in nanoseconds."""
    if isinstance(duration, str):
        return int(pd.Timedelta(duration).as_unit("ns").value)
    return int(duration)


def stamps_of(series: pd.Series) -> list[int]:
    """Return the UTC index of a series in nanoseconds."""
    return [int(stamp) for stamp in pd.DatetimeIndex(series.index).as_unit("ns").asi8]


class AsOf:
    """A scalar or a series by UTC time, read as of a stamp: the last value at or before it."""

    def __init__(self, value: float | pd.Series) -> None:
        is_series = isinstance(value, pd.Series)
        self.stamps = stamps_of(value) if is_series else []
        self.values = [exact(x) for x in value.to_numpy()] if is_series else [exact(value)]

    def __call__(self, stamp: int) -> Decimal:
        """Return the value that holds at a stamp."""
        if not self.stamps:
            return self.values[0]
        position = bisect_right(self.stamps, stamp) - 1
        if position < 0:
            raise AssertionError(f"no value at or before {stamp}")
        return self.values[position]


# ---------------------------------------------------------------------------------------------
# §1: one valuation


@dataclass(frozen=True)
class Contract:
    """§1: what one contract is worth, and the way back."""

    is_linear: bool
    size: Decimal

    def value(self, price: Decimal) -> Decimal:
        """u(P): m·P, or -m/P."""
        return self.size * price if self.is_linear else -self.size / price

    def price(self, value: Decimal) -> Decimal:
        """P of u."""
        return value / self.size if self.is_linear else -self.size / value

    def notional(self, quantity: Decimal, price: Decimal) -> Decimal:
        """N = |q|·|u(P)|."""
        return abs(quantity * self.value(price))

    def side(self, quantity: Decimal) -> int:
        """Sign of q·u: +1 where the position is worth its notional, -1 where it owes it."""
        return (1 if quantity > 0 else -1) * (1 if self.is_linear else -1)


# ---------------------------------------------------------------------------------------------
# §3: margin


@dataclass(frozen=True)
class Brackets:
    """§3: the bracket table that holds for one bar (multiplier and close fee inside).

    Bracket k reaches from its floor to the floor of the next; the last one has no end for the
    maintenance of a position, while its cap still limits new orders.
    """

    floors: tuple[Decimal, ...]
    caps: tuple[Decimal, ...]
    rates: tuple[Decimal, ...]
    leverages: tuple[Decimal, ...]

    def segments(self) -> Iterator[tuple[Decimal, Decimal, Decimal]]:
        """Floor, top and marginal rate of each bracket."""
        return zip(self.floors, (*self.floors[1:], INFINITY), self.rates, strict=True)

    def requirement(self, notional: Decimal) -> Decimal:
        """MM(N): each slice of the notional at the rate of its bracket (= r_k·N - c_k)."""
        return sum(
            (
                rate * (min(notional, top) - floor)
                for floor, top, rate in self.segments()
                if notional > floor
            ),
            ZERO,
        )

    def index(self, notional: Decimal) -> int:
        """The bracket that contains N; within 1e-9 of a floor it is in the bracket below.

        Reduced to a floor, a position fails again a little further on, and again: steps shrink
        without end. One that would close less than 1e-9 counts as done.
        """
        inside = [k for k, floor in enumerate(self.floors) if notional * (ONE - REMAINDER) > floor]
        return inside[-1] if inside else 0

    def boundary(self, cash: Decimal, side: int) -> Decimal | None:
        """The notional n ≥ 0 at which cash + side·n = MM(n), or None.

        With side +1 the requirement fails at or below it, with side -1 at or above it.
        """
        surplus = cash  # cash + side·n - MM(n) at the floor of the bracket
        for floor, top, rate in self.segments():
            slope = side - rate
            if slope != 0:
                root = floor - surplus / slope
                if floor <= root <= top:
                    self.verify(cash, side, root)
                    return root
            if top != INFINITY:
                surplus += slope * (top - floor)
        return None

    def verify(self, cash: Decimal, side: int, notional: Decimal) -> None:
        """Put a root back into its equation."""
        difference = cash + side * notional - self.requirement(notional)
        if abs(difference) > SUBSTITUTION * max(abs(cash), notional):
            raise AssertionError(f"{notional} does not solve equity = requirement: {difference}")


def brackets_of(venue: Any, multiplier: Decimal, initial: Decimal, close_fee: Decimal) -> Brackets:
    """§3: rates min(1, x·r_k), plus the fee of closing where the venue includes it.

    The multiplier of initial margin divides the leverages.
    """
    table = venue.brackets
    rates = [min(ONE, multiplier * exact(row.maintenance_rate)) for row in table]
    return Brackets(
        floors=tuple(exact(row.floor) for row in table),
        caps=tuple(exact(row.cap) for row in table),
        rates=tuple(min(ONE, rate + close_fee) for rate in rates),
        leverages=tuple(exact(row.max_leverage) / initial for row in table),
    )


# ---------------------------------------------------------------------------------------------
# §2: where flows and funding events fall


class Settlement(NamedTuple):
    """One funding event; price is None when the data has none of its own."""

    rate: Decimal
    price: Decimal | None
    is_dividend: bool = False


def dividends_of(market: Any) -> Iterator[tuple[int, Settlement]]:
    """§2.2: the bar of each dividend, and the event: longs receive D on each share."""
    column = getattr(market, "columns", {}).get("dividend_per_share", ())
    for bar, amount in enumerate(column):
        if not math.isnan(amount) and amount != 0.0:
            price = exact(market.close[bar - 1] if bar else market.open[0])
            yield bar, Settlement(-exact(amount) / price, price, is_dividend=True)


def bars_of_funding(
    market: Any, jitter: int
) -> tuple[list[list[Settlement]], list[list[Settlement]]]:
    """§2.2: each event belongs to one open (within the jitter) or to the inside of one bar."""
    opens = [int(stamp) for stamp in market.time]
    window = min(jitter, int(market.interval) // 4)
    at_open: list[list[Settlement]] = [[] for _ in opens]
    inside: list[list[Settlement]] = [[] for _ in opens]
    rows = sorted(
        zip(market.funding_time, market.funding_rate, market.funding_mark, strict=True),
        key=lambda row: int(row[0]),
    )
    for stamp, rate, mark in rows:
        event = Settlement(exact(rate), None if math.isnan(mark) else exact(mark))
        following = bisect_left(opens, int(stamp) - window)  # first open at or after stamp - w
        if following < len(opens) and opens[following] <= int(stamp) + window:
            at_open[following].append(event)
        elif following > 0 and int(stamp) < opens[following - 1] + int(market.interval) - window:
            inside[following - 1].append(event)
    for bar, event in dividends_of(market):
        at_open[bar].append(event)
    return at_open, inside


def bars_of_flows(market: Any, flows: pd.Series | None) -> list[list[Decimal]]:
    """§2.1: a flow happens at the first open at or after its stamp."""
    opens = [int(stamp) for stamp in market.time]
    result: list[list[Decimal]] = [[] for _ in opens]
    if flows is None:
        return result
    for stamp, amount in sorted(
        zip(stamps_of(flows), flows.to_numpy(), strict=True), key=lambda row: row[0]
    ):
        bar = bisect_left(opens, stamp)
        if bar < len(opens) and stamp >= opens[0]:
            result[bar].append(+exact(amount))
    return result


def decimals(values: Iterable[float]) -> list[Decimal]:
    """Return an array as exact numbers."""
    return [exact(value) for value in values]


def impact_statistics(market: Any, contract: Contract, window: int) -> list[tuple | None]:
    """§4.6: daily sigma and daily notional volume of the window that ends at each bar.

    A window of n bars holds the n returns and the n volumes of these bars, so that the close
    before it is needed too. None until that is known, for one return alone, and where nothing
    traded.
    """
    length = window // int(market.interval)
    bars_per_day = Decimal(DAY) / int(market.interval)
    closes = decimals(market.close)
    logs = [close.ln() for close in closes]
    turnover = [
        exact(volume) * abs(contract.value(close))
        for volume, close in zip(market.volume, closes, strict=True)
    ]
    result: list[tuple | None] = []
    for last in range(len(closes)):
        first = last - length + 1
        if first < 1 or length < 2 or sum(turnover[first : last + 1]) <= 0:
            result.append(None)
            continue
        moves = [logs[i] - logs[i - 1] for i in range(first, last + 1)]
        mean = sum(moves) / len(moves)
        variance = sum((move - mean) ** 2 for move in moves) / (len(moves) - 1)
        volume = sum(turnover[first : last + 1]) / length
        result.append((variance.sqrt() * bars_per_day.sqrt(), volume * bars_per_day))
    return result


# ---------------------------------------------------------------------------------------------
# The run


class Reference:
    """One account on one market: the state, and one method per rule."""

    def __init__(
        self,
        market: Any,
        targets: Sequence[float],
        signals: Sequence[float],
        venue: Any,
        account: Any,
    ) -> None:
        self.market, self.venue, self.account = market, venue, account
        self.targets, self.signals = targets, signals
        self.read_market()
        self.read_venue()
        self.read_account()
        self.out = Outcome(capital=self.cash)

    def read_market(self) -> None:
        """Take the market in as exact numbers."""
        market = self.market
        contract = self.venue.contract
        self.contract = Contract(contract.kind == "linear", exact(contract.size))
        self.time = [int(stamp) for stamp in market.time]
        self.open, self.high, self.low = map(decimals, (market.open, market.high, market.low))
        self.close = decimals(market.close)
        self.mark_open, self.mark_high = map(decimals, (market.mark_open, market.mark_high))
        self.mark_low, self.mark_close = map(decimals, (market.mark_low, market.mark_close))
        self.volume = decimals(market.volume)
        jitter = nanoseconds(self.venue.funding_jitter)
        self.at_open, self.inside = bars_of_funding(market, jitter)
        self.external = bars_of_flows(market, self.account.flows)

    def read_venue(self) -> None:
        """Take the venue in as exact numbers."""
        venue = self.venue
        slip, fees, liquidation = venue.slippage, venue.fees, venue.liquidation
        self.lot, self.min_notional = exact(venue.contract.lot), exact(venue.contract.min_notional)
        self.taker = exact(fees.taker)
        share = exact(fees.maker_share)
        self.fee_rate = self.taker * (ONE - share) + exact(fees.maker) * share  # §4.7
        self.slip_rate, self.impact_factor = exact(slip.rate), exact(slip.impact)
        self.participation = (
            None if slip.max_participation is None else exact(slip.max_participation)
        )
        self.statistics = (
            impact_statistics(self.market, self.contract, nanoseconds(slip.impact_window))
            if slip.impact or getattr(liquidation, "impact", 0.0)
            else [None] * len(self.time)
        )
        self.per_order = AsOf(getattr(fees, "per_order", 0.0))
        self.liquidation_impact = exact(getattr(liquidation, "impact", 0.0))
        counted = getattr(venue, "profit_counts", "all")
        self.profit_share = exact({"all": 1.0, "losses": 0.0}.get(counted, counted))
        self.liquidation_fee = exact(liquidation.fee)
        self.liquidation_slip = exact(liquidation.slippage)
        self.full_below = exact(liquidation.full_below)
        self.full_below_health = exact(getattr(liquidation, "full_below_health", 0.0))
        self.borrow_rate, self.cash_rate = AsOf(venue.borrow_rate), AsOf(venue.cash_rate)
        self.short_rate = AsOf(venue.short_rate)
        self.multiplier, self.initial_multiplier = (
            AsOf(venue.margin_multiplier if own is None else own)
            for own in (
                getattr(venue, "maintenance_multiplier", None),
                getattr(venue, "initial_multiplier", None),
            )
        )

    def read_account(self) -> None:
        """Take the account in as exact numbers; the state before the first bar."""
        account = self.account
        self.is_isolated = account.margin == "isolated"
        self.band = exact(account.band)
        self.most = AsOf(account.max_leverage)
        self.fill_mode = getattr(account, "fill", "next_open")
        self.stops = {
            name: getattr(account, name, None)
            for name in ("stop_loss", "trailing_stop", "take_profit", "equity_stop")
        }
        self.best = ZERO  # the best last price since the position was opened
        self.highest = +exact(account.capital)  # equity at a close, for the equity stop
        self.setting = None if account.venue_leverage is None else exact(account.venue_leverage)
        # cross: the whole cash w; isolated: the wallet. Rounded to the digits in use, so that
        # a withdrawal of everything leaves exactly nothing.
        self.cash = +exact(account.capital)
        self.margin = ZERO  # isolated: M
        self.quantity = ZERO  # q, signed contracts
        self.entry = ZERO  # the average u of what is held; no meaning when flat
        self.reserve = exact(account.reserve)
        self.valued_at = ZERO  # the u at which price pnl was last taken
        self.ratio = ZERO  # margin ratio at the last close
        self.is_called = self.is_ruined = self.is_halted = False
        self.auto_margin = getattr(account, "auto_margin", False)
        self.call_is_open = False
        self.called_at: int | None = None  # of a call that no liquidation or recovery has followed
        self.unmet = 0  # closes since the call, for the grace
        self.paid_in = self.cash + self.reserve  # §5: the capital paid in
        ruin_at = getattr(account, "ruin_at", None)
        self.ruin_at = ZERO if ruin_at is None else exact(ruin_at)

    def run(self) -> Outcome:
        """Go through the bars."""
        for t in range(len(self.time)):
            self.begin(t)
            self.step_0_fill_early()
            self.step_1_flows()
            self.step_2_funding_at_open()
            self.step_3_interest()
            self.step_4_gap_check()
            self.step_5_fill()
            self.step_6_funding_inside()
            self.step_7_adverse_extreme()
            self.fill_late()
            self.step_8_close()
        return self.out

    def begin(self, t: int) -> None:
        """Open the books of bar t; what bar t - 1 decided is pending."""
        self.t = t
        stamp = self.time[t]
        self.order_fee = self.per_order(stamp)
        self.was_liquidated = self.was_forced = False
        self.scale_by = self.multiplier(stamp)
        self.choose_fees(stamp // DAY)
        close_fee = self.taker if self.venue.includes_close_fee else ZERO
        initial = self.initial_scale(stamp)
        self.table = brackets_of(self.venue, self.scale_by, initial, close_fee)
        self.row = dict.fromkeys((*COSTS, *GAINS, "top_up", "traded"), ZERO)
        self.arrived, self.highest_before = ZERO, self.highest
        self.realized = ZERO  # §3, use of capital: what this bar's reductions earned
        self.pending: tuple[float, float] | None = None
        if t > 0 and not self.is_ruined:
            decided = (float(self.targets[t - 1]), float(self.signals[t - 1]))
            self.pending = (0.0, 0.0) if self.is_halted else decided
        fills_at = {"next_open": (self.open, t), "next_close": (self.close, t)}
        prices, bar = fills_at.get(self.fill_mode, (self.close, max(t - 1, 0)))
        self.fill_price = prices[bar]

    def choose_fees(self, day: int) -> None:
        """§4.7: the tier of the notional traded on the 30 UTC days before this one."""
        tiers = getattr(self.venue.fees, "tiers", ())
        if not tiers:
            return
        days = [stamp // DAY for stamp in self.time[: self.t]]
        pairs = zip(days, self.out.traded, strict=True)
        volume = sum((traded for each, traded in pairs if day - 30 <= each < day), ZERO)
        reached = [tier for tier in tiers if volume * (ONE + Decimal("1e-9")) >= exact(tier.volume)]
        rates = reached[-1] if reached else self.venue.fees
        if reached:
            self.note("a fee tier")
        self.taker = exact(rates.taker)
        share = exact(self.venue.fees.maker_share)
        self.fee_rate = self.taker * (ONE - share) + exact(rates.maker) * share

    def initial_scale(self, stamp: int) -> Decimal:
        """§3: the multiplier of initial margin, or that of the open interest a bar before.

        dYdX: IMF = min(b + max((OI - lower) / (upper - lower)·(1 - b), 0), 1), over b.
        """
        rising = getattr(self.venue, "open_interest_margin", None)
        if rising is None:
            return self.initial_multiplier(stamp)
        if self.t == 0:
            return ONE
        interest = exact(self.market.columns[rising.column][self.t - 1])
        lower, upper = exact(rising.lower), exact(rising.upper)
        base = ONE / exact(self.venue.brackets[0].max_leverage)
        part = (interest - lower) / (upper - lower) * (ONE - base)
        return min(base + max(part, ZERO), ONE) / base

    # ----- what the account is worth (§1 and 3) -----

    def equity(self, price: Decimal) -> Decimal:
        """E(P): w + q·u(P); isolated: wallet + M + q·(u(P) - u(entry))."""
        return self.cash + self.backing(price) if self.is_isolated else self.backing(price)

    def backing(self, price: Decimal) -> Decimal:
        """What backs the position: all equity in cross; M and its profit in isolated."""
        return self.backing_cash() + self.quantity * self.contract.value(price)

    def backing_cash(self) -> Decimal:
        """The part of the backing that does not move with the price."""
        return self.margin - self.quantity * self.entry if self.is_isolated else self.cash

    def requirement(self, price: Decimal) -> Decimal:
        """MM at the price tested, or at the entry price where the venue says so."""
        if self.venue.maintenance_at == "entry":
            return self.table.requirement(abs(self.quantity * self.entry))
        return self.table.requirement(self.contract.notional(self.quantity, price))

    def fails(self, price: Decimal) -> bool:
        """§3 and 4.7: the backing is at or under the requirement."""
        return self.backing(price) <= self.requirement(price) * (ONE + TIE)

    def liquidation_price(self, current: Decimal) -> Decimal | None:
        """§3: where the requirement starts to fail; None where no price liquidates."""
        if self.quantity == 0:
            return None
        if self.fails(current):
            return current
        side = self.contract.side(self.quantity)
        cash = self.backing_cash()
        if self.venue.maintenance_at == "entry":
            notional = side * (self.requirement(current) - cash)
        else:
            notional = self.table.boundary(cash, side)
        if notional is None or notional <= 0:
            return None
        value = notional / abs(self.quantity)
        return self.contract.price(value if self.contract.is_linear else -value)

    def revalue(self, price: Decimal) -> None:
        """§6: price pnl from where the position was last valued to an unworsened price."""
        value = self.contract.value(price)
        self.row["price_pnl"] += self.quantity * (value - self.valued_at)
        self.valued_at = value

    # ----- booking -----

    def charge(
        self,
        column: str,
        amount: Decimal,
        price: Decimal | None = None,
        kind: str | None = None,
    ) -> None:
        """Enter an amount in its column and in the ledger."""
        self.row[column] += amount
        if amount != 0:
            self.log(kind or KIND_OF_COLUMN.get(column, column), price, self.quantity, amount)

    def log(self, kind: str, price: Decimal | None, quantity: Decimal, amount: Decimal) -> None:
        """Add a row to the ledger."""
        self.out.events.append(Event(self.t, kind, price, quantity, amount))

    def note(self, path: str) -> None:
        """Count a rarely taken path, for the test that random cases reach them all."""
        self.out.paths[path] += 1

    def pay(self, amount: Decimal) -> None:
        """Take money out of the cash; an empty wallet of an isolated account pays from M."""
        self.cash -= amount
        if self.is_isolated and self.quantity != 0 and self.cash < 0:
            self.note("wallet empty: M pays")
            self.margin += self.cash
            self.cash = ZERO

    def settle_if_flat(self) -> None:
        """§5: a flat account that owes has a shortfall: bad debt, and nothing is left."""
        if self.quantity == 0 and self.cash < 0:
            shortfall = -self.cash
            self.cash = ZERO
            self.charge("bad_debt", shortfall)

    # ----- step 1: flows and top-ups -----

    def step_1_flows(self) -> None:
        """Deposits and withdrawals, then the top-up that a margin call asked for."""
        for amount in self.external[self.t]:
            if amount >= 0:
                self.move(amount)
            else:
                self.withdraw(-amount)
        if self.is_called and self.call_is_open:
            self.top_up()
        self.test_grace()

    def test_grace(self) -> None:
        """§5: whether a call has been unmet for longer than the broker waits."""
        grace = self.venue.call_grace
        self.was_forced = grace is not None and self.unmet > grace

    def move(self, amount: Decimal) -> None:
        """§2.1: money from outside, or (negative) to it.

        §5: a withdrawal takes the same share of the capital paid in as of the wealth.
        """
        wealth = self.equity(self.mark_open[self.t]) + self.reserve
        self.paid_in += amount if amount >= 0 else self.paid_in * amount / wealth
        self.cash += amount
        self.rescale_highest(amount)
        self.row["flows"] += amount
        self.log("flow", None, ZERO, amount)

    def rescale_highest(self, amount: Decimal) -> None:
        """§5: money from outside moves the highest equity in proportion, all of a bar at once."""
        self.arrived += amount
        equity = self.out.equity[-1] if self.out.equity else self.out.capital
        if equity > 0:
            self.highest = max(ZERO, self.highest_before * (equity + self.arrived) / equity)

    def withdraw(self, asked: Decimal) -> None:
        """§2.1: at most what leaves the equity at or over the initial margin."""
        equity = self.equity(self.mark_open[self.t])
        free = equity - self.initial_margin(self.mark_open[self.t])
        free -= self.uncounted_profit(self.mark_open[self.t])
        if self.is_isolated:
            free = min(self.cash, free)
        taken = min(asked, max(ZERO, free))
        if taken > 0:
            self.move(-taken)
        if taken < asked:
            self.log("withdrawal_refused", None, ZERO, asked - taken)

    def uncounted_profit(self, price: Decimal) -> Decimal:
        """§4.3: the part of an unrealized profit that backs no order and no withdrawal."""
        if self.quantity == 0:
            return ZERO
        profit = self.quantity * (self.contract.value(price) - self.entry)
        return (ONE - self.profit_share) * max(profit, ZERO)

    def initial_margin(self, price: Decimal) -> Decimal:
        """§3: the least equity at which the notional held would still be allowed."""
        notional = self.contract.notional(self.quantity, price)
        if self.setting is not None:
            return notional / self.effective_setting()
        holding = [
            notional / leverage
            for cap, leverage in zip(self.table.caps, self.table.leverages, strict=True)
            if cap >= notional
        ]
        return min(holding) if holding else notional / self.table.leverages[-1]

    def top_up(self) -> None:
        """§5: from the reserve, what brings the margin ratio to ``top_up_to``."""
        wanted_ratio = self.account.top_up_to
        if wanted_ratio is None or self.quantity == 0:
            return
        price = self.mark_open[self.t]
        missing = self.requirement(price) / exact(wanted_ratio) - self.backing(price)
        if missing <= 0:
            return
        amount = min(missing, self.reserve)
        if amount > 0:
            self.draw_reserve(amount, price)
        is_met = self.margin_ratio(price) < self.call_level()
        if amount > 0 and not is_met:
            self.note("call partly met")
            self.log("call_partly_met", price, self.quantity, self.margin_ratio(price))
        self.end_call("met" if is_met else "failed", price)

    def draw_reserve(self, amount: Decimal, price: Decimal) -> None:
        """§5: the reserve goes to the cash, or to M."""
        self.reserve -= amount
        if self.is_isolated:
            self.margin += amount
        else:
            self.cash += amount
        self.rescale_highest(amount)
        self.row["flows"] += amount
        self.row["top_up"] += amount
        self.log("top_up", None, self.quantity, amount)
        self.ratio = self.margin_ratio(price)  # a breach after this is a new crossing
        if self.ratio < self.call_level():
            self.unmet = 0

    # ----- margin calls (§5) -----

    def call_level(self) -> Decimal:
        """The ratio that calls, with the tolerance of §2."""
        return exact(self.account.margin_call) * (ONE - TIE)

    def end_call(self, how: str, price: Decimal) -> None:
        """An open call is met, and forgotten; or it fails, and is followed up."""
        if not self.call_is_open:
            return
        self.call_is_open = False
        self.log(f"call_{how}", price, self.quantity, self.margin_ratio(price))
        if how == "met":
            self.called_at = None

    def note_liquidation(self) -> None:
        """The first liquidation after a call, before the ratio has recovered."""
        self.was_liquidated = True
        if self.called_at is not None:
            self.out.waits.append(Decimal(self.time[self.t] - self.called_at) / DAY)
            self.called_at = None

    # ----- steps 2 and 6: funding -----

    def step_2_funding_at_open(self) -> None:
        """Events at the open: paid by the position carried in."""
        for event in self.at_open[self.t]:
            if self.settle(event):
                self.pending = None  # liquidated before the trader could act

    def step_6_funding_inside(self) -> None:
        """Events inside the bar: paid by the position now held."""
        for event in self.inside[self.t]:
            if self.settle(event):
                self.pending = None

    def settle(self, event: Settlement) -> bool:
        """§2.2 and 3: payment = q·|u(p_f)|·r_f; True when it liquidated (isolated)."""
        if self.quantity == 0:
            return False
        price = self.mark_open[self.t] if event.price is None else event.price
        payment = self.quantity * abs(self.contract.value(price)) * event.rate
        if self.is_isolated and self.venue.isolated_funding == "margin":
            self.margin -= payment
        else:
            self.pay(payment)
        self.charge("funding", payment, price, kind="dividend" if event.is_dividend else None)
        if self.is_isolated and self.fails_unaided(self.mark_open[self.t]):
            self.note("liquidated after funding")
            self.liquidate(self.mark_open[self.t])
            return True
        return False

    # ----- step 3: interest -----

    def step_3_interest(self) -> None:
        """Simple interest since the previous open, at the rates known there."""
        if self.t == 0:
            return
        elapsed = self.time[self.t] - self.time[self.t - 1]
        years = Decimal(elapsed) / DAY / exact(self.venue.day_count)
        since = self.time[self.t - 1]
        if self.venue.interest_on == "balance":
            due = self.on_balance(self.balance(), since)
        else:
            due = self.on_balance(self.raw_cash(), since) + self.on_short(since)
        self.pay(due * years)
        self.charge("interest", due * years)
        self.settle_if_flat()

    def balance(self) -> Decimal:
        """B = w + q·u(entry); isolated: wallet + M."""
        return self.cash + (self.margin if self.is_isolated else self.quantity * self.entry)

    def raw_cash(self) -> Decimal:
        """The cash after paying for the position in full."""
        return self.cash + (self.backing_cash() if self.is_isolated else ZERO)

    def on_balance(self, balance: Decimal, since: int) -> Decimal:
        """Per year: debt pays the borrow rate, a positive balance earns the cash rate."""
        rate = self.borrow_rate(since) if balance < 0 else self.cash_rate(since)
        return -balance * rate

    def on_short(self, since: int) -> Decimal:
        """Per year: a short pays ``short_rate·N`` at the mark open."""
        if self.quantity >= 0:
            return ZERO
        notional = self.contract.notional(self.quantity, self.mark_open[self.t])
        return self.short_rate(since) * notional

    # ----- step 4: gaps -----

    def step_4_gap_check(self) -> None:
        """(a) the requirement fails at the mark open; (b) else the last open is at the stop."""
        if self.quantity == 0:
            return
        if self.fails_unaided(self.mark_open[self.t]):
            self.note("liquidated in a gap")
            self.liquidate(self.mark_open[self.t])
            self.pending = None
        elif stop := self.stop_between(self.open[self.t], self.open[self.t]):
            self.note("stopped in a gap")
            self.close_by_stop(stop[0], self.open[self.t])
            self.pending = None

    def fails_unaided(self, price: Decimal) -> bool:
        """§3: the requirement fails, and the wallet has nothing more to add.

        One initial margin of the position at a time, as long as the requirement fails.
        """
        added = ZERO
        while self.auto_margin and self.cash > 0 and self.fails(price):
            each = abs(self.quantity * self.entry) / self.effective_setting()
            amount = min(each, self.cash)
            self.cash -= amount
            self.margin += amount
            added += amount
        if added > 0:
            self.note("margin added" if self.cash > 0 else "wallet emptied for margin")
            self.log("margin_added", price, ZERO, added)
        return self.fails(price)

    # ----- step 5: from a decision to a fill -----

    def step_0_fill_early(self) -> None:
        """§2, same_close: the decision of the last close fills at that close."""
        if self.fill_mode == "same_close" and self.t > 0:
            self.test_grace()
            self.revalue(self.fill_price)
            self.fill_pending()

    def step_5_fill(self) -> None:
        """§2, next_open: the decision of the last close fills at the open."""
        if self.fill_mode == "next_open":
            self.fill_pending()

    def fill_late(self) -> None:
        """§2, next_close: after the bar it fills at its close, unless a forced close dropped it.

        What the stops compare with: the position carried in has lived through the whole bar.
        """
        if self.quantity != 0:
            reached = self.high if self.quantity > 0 else self.low
            choose = max if self.quantity > 0 else min
            self.best = choose(self.best, reached[self.t])
        if self.fill_mode == "next_close":
            self.fill_pending()

    def fill_pending(self) -> None:
        """§4: target, band, cap, participation, lot, price, fee."""
        if self.pending is None:
            return
        if self.was_forced and self.quantity != 0 and self.reduce_by_force():
            return
        equity = self.equity(self.fill_price)
        if equity <= 0:
            return
        if equity <= self.order_fee and not self.is_halted:
            self.note("left alone: no money for the order")
            return
        self.fill_decision(equity, *self.pending)

    def fill_decision(self, equity: Decimal, target: float, signal: float) -> None:
        """§4: the decision of the last close."""
        price = self.fill_price
        value = abs(self.contract.value(price))
        held = self.quantity * value
        wanted = self.target_notional(target, signal, equity, held)
        if wanted is None or self.is_in_band(wanted, held, equity):
            self.note("left alone: NaN" if wanted is None else "left alone: band")
            return
        change = self.ordered(self.capped(wanted, held, equity))
        is_close = change == -self.quantity
        is_small = abs(change) * value < self.min_notional * (ONE - TIE)
        is_dust = abs(change) <= TIE * abs(self.quantity)  # §2: no order, and no fixed fee
        if is_dust and not is_close:
            return
        if change != 0 and is_small and not is_close:
            self.note("left alone: small")
        elif change != 0:
            self.fill(change)

    def reduce_by_force(self) -> bool:
        """§5: the broker reduces to the ratio, after costs; True where that traded."""
        price = self.fill_price
        called = exact(self.account.margin_call) * (ONE - 10 * TIE)
        top = self.account.top_up_to
        kept = self.kept_by_force(called if top is None else exact(top))
        change = self.ordered(kept.copy_sign(self.quantity))
        value = abs(self.contract.value(price))
        is_small = abs(change) * value < self.min_notional * (ONE - TIE)
        is_dust = abs(change) <= TIE * abs(self.quantity)
        if is_dust or (is_small and change != -self.quantity):
            is_under = self.margin_ratio(price) < self.call_level()
            self.end_call("met" if is_under else "failed", price)
            return False
        self.note("reduced by force")
        wallet = self.cash
        self.fill(change)
        if self.is_isolated and self.quantity != 0:  # what is freed stays in M
            self.margin += self.cash - wallet
            self.cash = wallet
        self.end_call("failed", price)
        return True

    def kept_by_force(self, ratio: Decimal) -> Decimal:
        """The size whose requirement is ``ratio`` of the backing after costs, by bisection."""
        unit, held = abs(self.contract.value(self.fill_price)), abs(self.quantity)
        cost = self.cost(-1 if self.quantity > 0 else 1, self.slip_rate) * unit
        valued = abs(self.entry) if self.venue.maintenance_at == "entry" else unit
        backing = self.backing(self.fill_price) - self.order_fee

        def passes(size: Decimal) -> bool:
            left = backing - cost * (held - size)
            return self.table.requirement(size * valued) <= ratio * left

        if passes(held):
            return held
        low, high = ZERO, held
        for _ in range(130):
            middle = (low + high) / 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return low

    def target_notional(
        self, target: float, signal: float, equity: Decimal, held: Decimal
    ) -> Decimal | None:
        """§4.1: |s|·L·E with the sign of s; None leaves the position as it is."""
        if signal == 0:
            return ZERO
        if math.isnan(target):
            return None
        leverage = min(max(target, self.account.min_leverage), self.most_leverage())
        if math.isinf(leverage):  # as much as the limits allow, before costs
            free = self.counted(equity, held, 1 if signal > 0 else -1)
            most = max(min(cap, most * free) for cap, most in self.limits())
            is_over = abs(signal) == 1 and held * exact(signal) > most
            return None if is_over else exact(signal) * most  # §3: never force-reduced
        return exact(signal) * exact(leverage) * equity

    def most_leverage(self) -> float:
        """§4.1: the account's largest leverage, the value in force at the open of the bar."""
        return float(self.most(self.time[self.t]))

    def is_in_band(self, wanted: Decimal, held: Decimal, equity: Decimal) -> bool:
        """§4.2: too near to trade, unless the target is to be flat."""
        return wanted != 0 and abs(wanted - held) <= self.band * equity * (ONE + TIE)

    def effective_setting(self) -> Decimal:
        """The leverage set at the venue, as far as the first bracket allows it in this bar."""
        return min(self.setting, self.table.leverages[0])

    def limits(self) -> list[tuple[Decimal, Decimal]]:
        """§3, initial margin: pairs (cap, X); one of them must admit the order."""
        pairs = list(zip(self.table.caps, self.table.leverages, strict=True))
        if self.setting is None:
            return pairs
        setting = self.effective_setting()
        return [(max(cap for cap, leverage in pairs if leverage >= setting), setting)]

    def capped(self, wanted: Decimal, held: Decimal, equity: Decimal) -> Decimal:
        """§4.3: the position, in contracts, that margin admits."""
        value = abs(self.contract.value(self.fill_price))
        direction = 1 if wanted > 0 else -1
        only_reduces = wanted == 0 or (wanted * held > 0 and abs(wanted) <= abs(held))
        if only_reduces:
            return wanted / value
        worsening = self.worsening(abs(wanted - held))
        before = held * direction
        free = self.counted(equity, held, direction) - self.order_fee
        allowed = self.largest_notional(before, free, self.cost(direction, worsening))
        notional = min(abs(wanted), max(allowed, before, ZERO))
        if notional < abs(wanted):
            self.note("shrunk by initial margin")
        if notional <= before:  # no room: what is held stays, to the last digit
            return self.quantity
        quantity = direction * notional / value
        if self.is_isolated:
            quantity = self.as_wallet_allows(quantity, direction, worsening)
        return quantity

    def counted(self, equity: Decimal, held: Decimal, direction: int) -> Decimal:
        """§4.3: the equity that backs an order; a flip realizes its profit first."""
        if held * direction <= 0:
            return equity
        return equity - self.uncounted_profit(self.fill_price)

    def largest_notional(self, before: Decimal, equity: Decimal, cost: Decimal) -> Decimal:
        """§3: the largest N with N <= max_k min(C_k, X_k·(E - κ·(N - before)))."""
        return max(
            min(cap, leverage * (equity + cost * before) / (ONE + cost * leverage))
            for cap, leverage in self.limits()
        )

    def as_wallet_allows(self, quantity: Decimal, direction: int, worsening: Decimal) -> Decimal:
        """§3, isolated: new margin + fee <= the wallet after what a reduction returned."""
        worse = self.worse(self.fill_price, direction, worsening)
        value = self.contract.value(self.on_tick(worse, direction))
        is_flip = self.quantity * direction < 0
        kept = ZERO if is_flip else self.quantity
        wallet = self.cash
        if is_flip:
            wallet += self.margin + self.quantity * (value - self.entry)
            wallet -= self.fee_rate * abs(self.quantity * value)
        wallet -= self.order_fee
        per_contract = abs(value) * (ONE / self.effective_setting() + self.fee_rate)
        most = max(ZERO, wallet / per_contract)
        if most < abs(quantity - kept):
            self.note("shrunk by the wallet")
        return kept + direction * min(abs(quantity - kept), most)

    def ordered(self, quantity: Decimal) -> Decimal:
        """§4.4 and 4.5: the change asked for, in whole lots, as far as the volume admits."""
        change = quantity - self.quantity
        if self.participation is not None:
            most = self.participation * self.volume[self.t - 1]
            if abs(change) > most:  # the rest waits for the next decision
                self.note("cut by volume")
                change = self.truncated(most).copy_sign(change)
                is_flat = abs(self.quantity + change) < LOT_TOLERANCE * self.lot
                return -self.quantity if is_flat else change
        whole = self.truncated(abs(quantity)).copy_sign(quantity)
        adds = quantity * self.quantity > 0 and abs(quantity) >= abs(self.quantity)
        if adds and abs(whole) < abs(self.quantity):  # less than a lot to add to an odd position
            return ZERO
        return whole - self.quantity

    def truncated(self, size: Decimal) -> Decimal:
        """A size in whole lots, with the tolerance of 1e-6 lots."""
        if self.lot == 0:
            return size
        return (size / self.lot + LOT_TOLERANCE).to_integral_value(ROUND_FLOOR) * self.lot

    def worsening(self, notional: Decimal) -> Decimal:
        """§4.6: slippage rate plus Y·sigma·sqrt(|dN|/ADV)."""
        return self.slip_rate + self.impact(notional)

    def impact(self, notional: Decimal, factor: Decimal | None = None) -> Decimal:
        """§4.6: over the window that ends at bar t - 1; 0 where it is not known."""
        statistics = self.statistics[self.t - 1]
        if statistics is None:
            return ZERO
        sigma, volume = statistics
        factor = self.impact_factor if factor is None else factor
        return factor * sigma * (notional / volume).sqrt()

    @staticmethod
    def worse(price: Decimal, side: int, worsening: Decimal) -> Decimal:
        """A price moved against the trader: up for a buyer, down for a seller."""
        if worsening >= 1:
            raise AssertionError(f"worsening {worsening} leaves no price")
        return price * (ONE + side * worsening)

    def on_tick(self, price: Decimal, side: int) -> Decimal:
        """§4.6: a fill's price in whole ticks where the contract rounds: against the trader."""
        if not getattr(self.venue.contract, "round_to_tick", False):
            return price
        tick = exact(self.venue.contract.tick)
        steps = price / tick - side * LOT_TOLERANCE
        whole = steps.to_integral_value(ROUND_CEILING if side > 0 else ROUND_FLOOR)
        self.note("rounded to the tick")
        return max(whole, ONE) * tick

    def cost(self, side: int, worsening: Decimal) -> Decimal:
        """κ of §3: worsening and fee per unit of notional at the open."""
        at_open = self.contract.value(self.fill_price)
        worse = self.worse(self.fill_price, side, worsening)
        at_fill = self.contract.value(self.on_tick(worse, side))
        return (abs(at_fill - at_open) + self.fee_rate * abs(at_fill)) / abs(at_open)

    def fill(self, change: Decimal) -> None:
        """§4.6 and 4.7: trade at the worsened price and pay the fee."""
        price = self.fill_price
        side = 1 if change > 0 else -1
        impact = self.impact(abs(change) * abs(self.contract.value(price)))
        worsening = self.slip_rate + impact
        self.revalue(price)
        worse = self.worse(price, side, worsening)
        filled = self.on_tick(worse, side)
        self.exchange("fill", change, filled, self.fee_rate)
        cost = change * (self.contract.value(worse) - self.contract.value(price))
        rounding = change * (self.contract.value(filled) - self.contract.value(worse))
        slipped = cost * self.slip_rate / worsening if worsening else ZERO
        self.charge("slippage", slipped + rounding, filled)
        if worsening != 0:
            self.charge("impact", cost * impact / worsening, filled)
        self.settle_if_flat()

    def exchange(self, kind: str, change: Decimal, price: Decimal, fee_rate: Decimal) -> None:
        """§1 and 3: what a trade at a price does to cash, margin, quantity and entry."""
        value = self.contract.value(price)
        reducing, opening = self.split(change)
        if reducing != 0:
            self.reduce(reducing, value)
        if opening != 0:
            self.extend(opening, value)
        notional = abs(change * value)
        fee = fee_rate * notional + self.order_fee
        self.pay(fee)
        self.row["traded"] += notional
        self.log(kind, price, change, notional)
        self.charge("fees", fee, price)

    def split(self, change: Decimal) -> tuple[Decimal, Decimal]:
        """A flip closes, then opens."""
        if self.quantity * change >= 0:
            return ZERO, change
        if abs(change) <= abs(self.quantity):
            return change, ZERO
        self.note("flipped")
        return -self.quantity, change + self.quantity

    def reduce(self, change: Decimal, value: Decimal) -> None:
        """§1 and 3: entry is kept; isolated gets φ·(M + q·(u(p) - u(entry))) back."""
        self.realized -= change * (value - self.entry)
        if self.is_isolated:
            share = -change / self.quantity
            self.cash += share * (self.margin + self.quantity * (value - self.entry))
            self.margin -= share * self.margin
        else:
            self.cash -= change * value
        self.quantity += change

    def extend(self, change: Decimal, value: Decimal) -> None:
        """§1 and 3: entry is the average u; isolated puts N/X aside."""
        if self.is_isolated:
            aside = abs(change * value) / self.effective_setting()
            self.margin += aside
            self.cash -= aside
        else:
            self.cash -= change * value
        after = self.quantity + change
        if self.quantity == 0:
            self.best = self.contract.price(value)  # a new position: nothing better was seen
        self.entry = (self.quantity * self.entry + change * value) / after
        self.quantity = after

    # ----- step 7: the adverse extreme -----

    def step_7_adverse_extreme(self) -> None:
        """Of stop and liquidation the nearer acts first; a partial liquidation may come again."""
        while self.quantity != 0:
            liquidation, (kind, stop) = self.liquidation_in_bar(), self.stop_in_bar()
            if liquidation is None and stop is None:
                return
            if liquidation is not None and kind == "take_profit":
                self.note("take-profit and liquidation in one bar")
                kind, stop = "", None  # losses first: the order of prices is unknown
            if liquidation is not None and stop is not None:
                self.note("stop and liquidation in one bar")
            if self.liquidation_is_nearer(liquidation, stop):
                if not self.fails_unaided(liquidation):
                    continue  # the wallet has added margin: the next price is further away
                self.pending = None  # what would fill at the close is dropped
                self.note("liquidated in the bar")
                self.liquidate(liquidation)
            else:
                self.note("stopped in the bar")
                self.pending = None
                self.close_by_stop(kind, stop)

    def liquidation_in_bar(self) -> Decimal | None:
        """§2.7: the price at which the mark extreme liquidates; never beyond it."""
        is_long = self.quantity > 0
        start = self.mark_open[self.t]
        extreme = self.mark_low[self.t] if is_long else self.mark_high[self.t]
        if not self.fails(extreme):
            return None
        price = self.liquidation_price(start)
        if price is None:
            return extreme
        return min(start, max(extreme, price)) if is_long else max(start, min(extreme, price))

    def stop_in_bar(self) -> tuple[str, Decimal | None]:
        """§5: the stop that the bar reaches; its price, or the open where that is beyond it."""
        found = self.stop_between(self.low[self.t], self.high[self.t])
        if found is None:
            return "", None
        kind, price = found
        is_falling = (self.quantity > 0) != (kind == "take_profit")
        choose = min if is_falling else max
        return kind, choose(price, self.open[self.t])

    def stop_between(self, low: Decimal, high: Decimal) -> tuple[str, Decimal] | None:
        """§5: kind and price of the stop that prices from low to high reach, losses first."""
        if self.quantity == 0:
            return None
        is_long = self.quantity > 0
        losing = [
            (kind, price)
            for kind, price in (
                ("stop", self.stop_price("stop_loss", self.contract.price(self.entry), -1)),
                ("trailing_stop", self.stop_price("trailing_stop", self.best, -1)),
                ("equity_stop", self.equity_stop_price()),
            )
            if price is not None and self.reaches(low if is_long else high, price, is_long)
        ]
        if losing:  # the nearest is the first that an adverse move meets
            return (max if is_long else min)(losing, key=lambda stop: stop[1])
        aim = self.stop_price("take_profit", self.contract.price(self.entry), 1)
        if aim is not None and self.reaches(high if is_long else low, aim, not is_long):
            return "take_profit", aim
        return None

    @staticmethod
    def reaches(price: Decimal, stop: Decimal, is_falling: bool) -> bool:
        """§2: a price is at or beyond a stop, with the tolerance in favor of the event."""
        return price <= stop * (ONE + TIE) if is_falling else price >= stop * (ONE - TIE)

    def stop_price(self, name: str, start: Decimal, side: int) -> Decimal | None:
        """§5: a distance from a price: a fraction of it, or a multiple of a column."""
        stop = self.stops[name]
        if stop is None or start <= 0:
            return None
        if hasattr(stop, "column"):
            known = float(self.market.columns[stop.column][self.t - 1]) if self.t > 0 else math.nan
            if math.isnan(known) or known == 0:
                return None
            distance = exact(stop.multiple) * exact(known)
            distance = distance if stop.unit == "price" else distance * start
        else:
            distance = exact(stop) * start
        price = start + side * (1 if self.quantity > 0 else -1) * distance
        return price if price > 0 else None

    def equity_stop_price(self) -> Decimal | None:
        """§5: where the equity is (1 - x) of its highest; the open if it is less everywhere."""
        stop = self.stops["equity_stop"]
        if stop is None:
            return None
        level = (ONE - exact(stop)) * self.highest
        fixed = self.equity(self.open[self.t]) - self.quantity * self.contract.value(
            self.open[self.t]
        )
        value = (level - fixed) / self.quantity
        if value > 0 if self.contract.is_linear else value < 0:
            return self.contract.price(value)
        return self.open[self.t] if self.equity(self.open[self.t]) <= level else None

    def liquidation_is_nearer(self, liquidation: Decimal | None, stop: Decimal | None) -> bool:
        """§2.7: relative distances, the stop's from the last open; a tie liquidates."""
        if liquidation is None or stop is None:
            return stop is None
        mark, last = self.mark_open[self.t], self.open[self.t]
        return abs(mark - liquidation) / mark <= abs(last - stop) / last * (ONE + TIE)

    def close_by_stop(self, kind: str, trigger: Decimal) -> None:
        """§5: at the trigger worsened by slippage, with the whole taker fee."""
        self.revalue(trigger)
        change = -self.quantity
        side = 1 if change > 0 else -1
        price = self.on_tick(self.worse(trigger, side, self.slip_rate), side)
        self.exchange(kind, change, price, self.taker)
        cost = change * (self.contract.value(price) - self.contract.value(trigger))
        self.charge("slippage", cost, price)
        self.settle_if_flat()

    # ----- liquidation (§5) -----

    def liquidate(self, price: Decimal) -> None:
        """What happens at the liquidation price, in the venue's mode."""
        self.revalue(price)
        self.note_liquidation()
        if self.account.after_liquidation == "halt":
            self.is_halted = True
        if self.venue.liquidation.mode == "takeover":
            self.take_over(price)
        elif self.venue.liquidation.mode == "close":
            self.force(self.quantity, price)
        else:
            self.liquidate_by_steps(price)

    def take_over(self, price: Decimal) -> None:
        """The position and all margin that backs it are lost."""
        backing = self.backing(price)
        self.realized += self.quantity * (self.contract.value(price) - self.entry)
        self.log_liquidation(-self.quantity, price)
        if self.is_isolated:
            self.margin = ZERO
        else:
            self.cash = ZERO
        self.quantity = ZERO
        self.charge("liquidation_loss", max(backing, ZERO), price)
        self.charge("bad_debt", max(-backing, ZERO), price)

    def liquidate_by_steps(self, price: Decimal) -> None:
        """``partial``: again while the requirement fails at this price."""
        initial = abs(self.quantity)
        is_empty = self.backing(price) <= TIE * self.contract.notional(self.quantity, price)
        while True:
            part = self.quantity if is_empty else self.part_to_close(price, initial)
            is_empty = self.force(part, price)
            if self.quantity == 0 or not (is_empty or self.fails(price)):
                return

    def health(self, price: Decimal) -> Decimal:
        """Collateral at its threshold over debt; a short owes its contracts."""
        notional = self.contract.notional(self.quantity, price)
        if self.quantity < 0:
            return (notional + self.backing(price)) / (notional + self.requirement(price))
        owed = notional - self.backing(price)
        return (notional - self.requirement(price)) / owed if owed > 0 else Decimal("Infinity")

    def part_to_close(self, price: Decimal, initial: Decimal) -> Decimal:
        """One step of a partial liquidation, or all of it when it is small."""
        venue = self.venue.liquidation
        notional = self.contract.notional(self.quantity, price)
        if notional <= self.full_below:
            return self.quantity
        if self.full_below_health and self.health(price) <= self.full_below_health:
            self.note("whole debt repaid")
            if self.quantity < 0:
                return self.quantity
            owed = notional - self.backing(price)
            kept = (ONE - self.liquidation_fee) * (ONE - self.liquidation_slip)
            return min(self.quantity, owed / kept / abs(self.contract.value(price)))
        if venue.step == "bracket":
            floor = self.table.floors[self.table.index(notional)]
            kept = floor / notional
        else:
            kept = ONE - exact(venue.step)
        if kept * abs(self.quantity) < REMAINDER * initial:
            return self.quantity
        self.note("partial step")
        return self.quantity * (ONE - kept)

    def force(self, part: Decimal, price: Decimal) -> bool:
        """Close a part at the worsened price, fee limited to what is left; True: nothing left."""
        side = -1 if part > 0 else 1
        size = self.contract.notional(part, price)
        worsening = self.liquidation_slip + self.impact(size, self.liquidation_impact)
        worsened = self.worse(price, side, min(worsening, WORST))
        value = self.contract.value(worsened)
        worsening = -part * (value - self.contract.value(price))
        self.log_liquidation(-part, price)
        self.realized += part * (self.contract.value(price) - self.entry)
        if self.is_isolated:
            self.margin += part * (value - self.entry)  # what a step frees stays in M
        else:
            self.cash += part * value
        self.quantity -= part
        left = self.backing(price)
        asked = self.liquidation_fee * abs(part * value)
        takes_all = asked * (ONE + TIE) >= left  # §5: with the tolerance of §4.7
        fee = max(left, ZERO) if takes_all else asked
        if self.is_isolated:
            self.margin -= fee
        else:
            self.cash -= fee
        self.charge("liquidation_loss", worsening + fee, worsened)
        self.release_if_flat()
        return takes_all

    def log_liquidation(self, change: Decimal, price: Decimal) -> None:
        """The ledger row of a forced trade: trigger price, and notional there."""
        notional = self.contract.notional(change, price)
        self.row["traded"] += notional
        self.log("liquidation", price, change, notional)

    def release_if_flat(self) -> None:
        """What is left of M goes to the wallet; a shortfall is bad debt, the wallet stays."""
        if self.quantity != 0:
            return
        if self.is_isolated:
            left, self.margin = self.margin, ZERO
            self.cash += max(left, ZERO)
            self.charge("bad_debt", max(-left, ZERO))
        else:
            self.settle_if_flat()

    # ----- step 8: the close -----

    def step_8_close(self) -> None:
        """Mark to market, test the margin call, record."""
        price = self.mark_close[self.t]
        self.revalue(price)
        self.test_ruin(price)
        self.follow_equity(self.equity(price))
        self.check_identity(price)
        self.test_margin_call(price)
        self.record(price)

    def follow_equity(self, equity: Decimal) -> None:
        """§5: the highest equity at a close; a flat account under the equity stop starts anew."""
        stop = self.stops["equity_stop"]
        level = None if stop is None else (ONE - exact(stop)) * self.highest
        if level is not None and self.quantity == 0 and equity <= level * (ONE + REMAINDER):
            self.note("a new peak for the equity stop")
            self.highest = equity
        self.highest = max(self.highest, equity)

    def test_ruin(self, price: Decimal) -> None:
        """§5: after a loss, wealth at the line, or flat under the least order; then the end."""
        costs = sum(self.row[name] for name in COSTS)
        has_loss = self.row["price_pnl"] + self.row["bad_debt"] < costs
        if self.is_ruined or not has_loss:  # not: withdrawn by its owner
            return
        wealth = self.equity(price) + self.reserve
        is_gone = self.equity(price) <= NOTHING_LEFT * self.paid_in * (ONE + TIE)
        is_under = wealth <= self.ruin_at * self.paid_in * (ONE + TIE)
        is_poor = self.quantity == 0 and self.is_under_least_order(wealth, price)
        if not (is_gone or is_under or is_poor):
            return
        for path in ("gone", "under the line", "poor"):
            is_it = {"gone": is_gone, "under the line": is_under, "poor": is_poor}[path]
            if is_it:
                self.note(f"ruined: {path}")
        if self.quantity != 0:
            self.note("ruined with a position")
        self.is_ruined = True  # it never trades again
        notional = self.contract.notional(self.quantity, price)
        self.row["traded"] += notional
        self.log("ruin", price, -self.quantity, notional)
        self.realized += self.quantity * (self.contract.value(price) - self.entry)
        self.cash, self.margin, self.quantity = self.equity(price), ZERO, ZERO
        self.settle_if_flat()

    def is_under_least_order(self, wealth: Decimal, price: Decimal) -> bool:
        """§5: wealth times the largest leverage allowed is under the least order."""
        allowed = max(leverage for _, leverage in self.limits())
        limit = self.most_leverage()
        if limit == 0:  # a ban passes
            return False
        most = allowed if math.isinf(limit) else exact(limit)
        lot = self.lot * abs(self.contract.value(price))
        return wealth * min(allowed, most) < max(self.min_notional, lot) * (ONE - TIE)

    def test_margin_call(self, price: Decimal) -> None:
        """§5: the ratio crosses ``margin_call`` from below."""
        before, self.ratio = self.ratio, self.margin_ratio(price)
        self.is_called = False
        if self.account.margin_call is None:
            return
        if self.was_liquidated or self.is_ruined:
            self.end_call("failed", price)
        if self.ratio < self.call_level():
            self.end_call("met", price)
            self.called_at, self.unmet = None, 0
            return
        self.is_called = before < self.call_level() or self.was_forced
        self.unmet = 1 if self.is_called else self.unmet + (self.unmet > 0)
        if self.is_called:
            self.log("margin_call", price, self.quantity, self.ratio)
            self.call_is_open, self.called_at = True, self.time[self.t]

    def margin_ratio(self, price: Decimal) -> Decimal:
        """MM over the backing; 0 when flat."""
        if self.quantity == 0:
            return ZERO
        backing = self.backing(price)
        return self.requirement(price) / backing if backing > 0 else INFINITY

    def check_identity(self, price: Decimal) -> None:
        """§6: the change of equity is the sum of its causes."""
        row, equity = self.row, self.equity(price)
        before = self.out.equity[-1] if self.out.equity else self.out.capital
        causes = sum(row[name] for name in GAINS) - sum(row[name] for name in COSTS)
        held = self.contract.notional(self.quantity, price)
        scale = max(before, equity, held, row["traded"], abs(row["price_pnl"]))
        if abs(equity - before - causes) > EXACT * scale:
            raise AssertionError(f"bar {self.t}: {equity} - {before} is not {causes}")
        if equity < -EXACT * scale:
            raise AssertionError(f"bar {self.t}: equity {equity} is negative")

    def record(self, price: Decimal) -> None:
        """One row of the equity table."""
        out, equity = self.out, self.equity(price)
        for name, amount in self.row.items():
            getattr(out, name).append(amount)
        signed = self.contract.notional(self.quantity, price).copy_sign(self.quantity)
        is_flat = self.quantity == 0
        out.equity.append(equity)
        out.quantity.append(self.quantity)
        out.cash.append(self.cash)
        out.margin.append(self.margin)
        out.entry.append(None if is_flat else self.contract.price(self.entry))
        out.reserve.append(self.reserve)
        needed = self.margin if self.is_isolated else self.initial_margin(price)
        out.initial_margin.append(ZERO if is_flat else needed)
        free = equity - self.uncounted_profit(price) - out.initial_margin[-1]
        free = self.cash if self.is_isolated else max(free, ZERO)
        out.available.append(free)
        out.realized_pnl.append(self.realized)
        profit = self.quantity * (self.contract.value(price) - self.entry)
        out.unrealized_pnl.append(ZERO if is_flat else profit)
        out.leverage.append(ZERO if is_flat else signed / equity)
        out.margin_ratio.append(self.ratio)
        out.liquidation_price.append(self.liquidation_price(price))
        out.backing.append(self.backing(price))
        out.requirement.append(self.requirement(price))
        out.ruined.append(self.is_ruined or equity <= 0)
        out.halted.append(self.is_halted)
        out.tables.append(self.table)


def simulate(
    market: Any, targets: Sequence[float], signals: Sequence[float], venue: Any, account: Any
) -> Outcome:
    """Run the rules over a market.

    Parameters
    ----------
    market
        Arrays ``time`` (int ns), ``open``, ``high``, ``low``, ``close``, ``volume``, ``mark_open``,
        ``mark_high``, ``mark_low``, ``mark_close``, ``funding_time`` (int ns), ``funding_rate``,
        ``funding_mark`` (NaN without a price of its own), and ``interval`` (int ns).
    targets, signals
        What was decided at the close of each bar: leverage (NaN leaves, inf is all) and direction.
    venue, account
        Anything with the attributes of bt.Market, bt.Venue and bt.Account.
    """
    with localcontext(Context(prec=DIGITS)):
        return Reference(market, targets, signals, venue, account).run()
