"""The account with several positions once more, in exact decimals: the oracle of the portfolio.

Written from the rules alone: docs/accounting.md for a position, whose sections the docstrings name,
and docs/portfolio.md for what changes with several. It shares no code with ``backtest``; of
``tests/reference.py`` it uses the scalar helpers (valuation, brackets, series as of a stamp). One
small method per rule, in the order of the bar.

Everything is valued through ``u``, the value of one contract, because inside a bar prices move
linearly in it. A *point* is one place inside a bar: ``u`` of every instrument by mark price and by
last price, and the prices of the collateral.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from itertools import pairwise
from typing import Any, NamedTuple

from tests.reference import (
    DAY,
    DIGITS,
    INFINITY,
    LOT_TOLERANCE,
    NOTHING_LEFT,
    ONE,
    REMAINDER,
    TIE,
    WORST,
    ZERO,
    AsOf,
    Brackets,
    Contract,
    Settlement,
    bars_of_flows,
    brackets_of,
    decimals,
    dividends_of,
    exact,
    impact_statistics,
    nanoseconds,
)
from tests.reference_margin import (
    Asset,
    Collateral,
    Leg,
    Scenarios,
    Standard,
    bracket_initial,
    bracket_requirement,
    find_fall,
    find_signs,
    largest_of_pieces,
    largest_passing,
)

DUST = Decimal("1e-6")  # of the capital at the start, times the tolerance: no order
EXACT = Decimal("1e-28")  # the identity of §6
COSTS = ("fees", "slippage", "funding", "interest", "liquidation_loss", "conversion")
GAINS = ("price_pnl", "collateral_pnl", "flows", "bad_debt")
PRICES = ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close")
NONE = (None, None)


class Event(NamedTuple):
    """One thing that happened: its bar, kind, instrument ("" for the account) and size."""

    bar: int
    kind: str
    instrument: str
    quantity: Decimal
    amount: Decimal


class Point(NamedTuple):
    """One place inside a bar; None where an instrument has no bar."""

    marks: tuple[Decimal | None, ...]
    lasts: tuple[Decimal | None, ...]
    assets: tuple[Decimal, ...]


class Call:
    """The margin call of the pool, or of one isolated position (§5)."""

    def __init__(self) -> None:
        self.ratio = ZERO
        self.is_called = self.was_forced = False
        self.unmet = 0  # closes since the call, for the grace


@dataclass
class Outcome:
    """What a run produced: a list per column with one entry per bar."""

    names: tuple[str, ...]
    equity: list[Decimal] = field(default_factory=list)
    cash: list[Decimal] = field(default_factory=list)
    quantity: list[tuple[Decimal, ...]] = field(default_factory=list)
    margin: list[tuple[Decimal, ...]] = field(default_factory=list)
    entry: list[tuple[Decimal, ...]] = field(default_factory=list)  # in u
    collateral: list[tuple[Decimal, ...]] = field(default_factory=list)  # amounts
    reserve: list[Decimal] = field(default_factory=list)
    ratio: list[Decimal] = field(default_factory=list)  # of the pool
    backing: list[Decimal] = field(default_factory=list)  # M
    traded: list[Decimal] = field(default_factory=list)
    rows: dict[str, list[Decimal]] = field(default_factory=dict)
    ruined: list[bool] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    capital: Decimal = ZERO
    nearest: Decimal = ONE  # the closest call of a comparison that decides a partial step

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]


def per_name(setting: Any, name: str, default: Any = None) -> Any:
    """A setting of the account that may be given by instrument."""
    return setting.get(name, default) if isinstance(setting, Mapping) else setting


# ---------------------------------------------------------------------------------------------
# One instrument: its market on the account's clock, its venue, what is held of it


class Holding:
    """One instrument of the account."""

    def __init__(self, name: str, market: Any, venue: Any, account: Any) -> None:
        self.name, self.market, self.venue = name, market, venue
        self.read_venue()
        self.read_account(account)
        self.statistics = (
            impact_statistics(market, self.contract, nanoseconds(venue.slippage.impact_window))
            if venue.slippage.impact or getattr(venue.liquidation, "impact", 0.0)
            else [None] * len(market.time)
        )
        self.quantity = self.entry = self.margin = ZERO
        self.valued_at = ZERO
        self.is_halted = False
        self.call = Call()
        self.pending: tuple[float, float] | None = None

    def read_venue(self) -> None:
        """The venue in exact numbers."""
        venue = self.venue
        self.contract = Contract(venue.contract.kind == "linear", exact(venue.contract.size))
        self.lot, self.least = exact(venue.contract.lot), exact(venue.contract.min_notional)
        self.taker = exact(venue.fees.taker)
        share = exact(venue.fees.maker_share)
        self.fee = self.taker * (ONE - share) + exact(venue.fees.maker) * share
        self.slip, self.impact_factor = exact(venue.slippage.rate), exact(venue.slippage.impact)
        part = venue.slippage.max_participation
        self.participation = None if part is None else exact(part)
        forced = venue.liquidation
        self.forced_fee, self.forced_slip = exact(forced.fee), exact(forced.slippage)
        self.forced_impact = exact(getattr(forced, "impact", 0.0))
        self.healthy = exact(getattr(forced, "full_below_health", 0.0))
        self.full_below = exact(forced.full_below)
        self.multiplier = AsOf(venue.margin_multiplier)
        counted = getattr(venue, "profit_counts", "all")
        self.counted = exact({"all": 1.0, "losses": 0.0}.get(counted, counted))

    def read_account(self, account: Any) -> None:
        """What the account says of this instrument."""
        self.is_isolated = per_name(account.margin, self.name, "cross") == "isolated"
        setting = per_name(account.venue_leverage, self.name)
        self.setting = None if setting is None else exact(setting)
        self.floor = per_name(account.min_leverage, self.name, 0.0)
        self.most = AsOf(per_name(account.max_leverage, self.name, math.inf))
        self.band = exact(per_name(account.band, self.name, 0.0))
        self.fills = getattr(account, "fill", "next_open")
        stop = per_name(account.stop_loss, self.name)
        self.stop = None if stop is None else exact(stop)

    def place(self, clock: Sequence[int]) -> None:
        """Put the market on the clock: prices by bar as u, from ``first`` to before ``end``."""
        market = self.market
        self.first = bisect_left(clock, int(market.time[0]))
        self.end = self.first + len(market.time)
        for name in PRICES:
            prices = decimals(getattr(market, name))
            setattr(self, name, prices)
            setattr(self, f"{name}_u", [self.contract.value(price) for price in prices])
        self.volume = decimals(market.volume)

    def begin(self, t: int, stamp: int) -> None:
        """The rules in force at a bar."""
        self.here = t - self.first if self.first <= t < self.end else None
        if self.here is None:
            return
        close_fee = self.taker if self.venue.includes_close_fee else ZERO
        scale = self.multiplier(stamp)
        self.table: Brackets = brackets_of(self.venue, scale, scale, close_fee)

    def price(self, name: str) -> Decimal:
        """A price of this bar; ``fill`` is that at which decisions fill (accounting.md, §2)."""
        if name != "fill":
            return getattr(self, name)[self.here]
        if self.fills == "same_close" and self.here > 0:
            return self.close[self.here - 1]
        return (self.close if self.fills == "next_close" else self.open)[self.here]

    def value(self, name: str) -> Decimal | None:
        """``u`` of a price of this bar; None without a bar."""
        if self.here is None:
            return None
        if name == "fill":
            return self.contract.value(self.price(name))
        return getattr(self, f"{name}_u")[self.here]

    @property
    def effective_setting(self) -> Decimal | None:
        """The leverage set at the venue, as far as the first bracket allows it in this bar."""
        return None if self.setting is None else min(self.setting, self.table.leverages[0])

    def leg(self, value: Decimal, quantity: Decimal | None = None) -> Leg:
        """The position (or another size of it) for the requirement."""
        held = self.quantity if quantity is None else quantity
        return Leg(
            self.name,
            held,
            value,
            self.entry,
            self.contract.is_linear,
            self.table,
            self.effective_setting,
            self.venue.maintenance_at == "entry",
        )

    def limits(self) -> list[tuple[Decimal, Decimal]]:
        """§3: pairs of cap and leverage; one of them must admit the order."""
        pairs = list(zip(self.table.caps, self.table.leverages, strict=True))
        setting = self.effective_setting
        if setting is None:
            return pairs
        return [(max(cap for cap, leverage in pairs if leverage >= setting), setting)]

    def isolated_backing(self, value: Decimal) -> Decimal:
        """M + q·(u - u_entry)."""
        return self.margin + self.quantity * (value - self.entry)

    def isolated_surplus(self, value: Decimal) -> Decimal:
        """What an isolated position has over its requirement."""
        return self.isolated_backing(value) - bracket_requirement(self.leg(value))

    def isolated_fails(self, value: Decimal) -> bool:
        """§3; equality counts."""
        needed = bracket_requirement(self.leg(value))
        return self.isolated_backing(value) <= needed * (ONE + TIE)

    def profit(self, value: Decimal) -> Decimal:
        """Unrealized profit."""
        return self.quantity * (value - self.entry)

    # ----- prices of trades -----

    def impact(self, notional: Decimal, factor: Decimal) -> Decimal:
        """§4.6: over the window that ends at bar t - 1; 0 where it is not known."""
        if factor == 0 or not self.here:
            return ZERO
        statistics = self.statistics[self.here - 1]
        if statistics is None:
            return ZERO
        sigma, volume = statistics
        return factor * sigma * (notional / volume).sqrt()

    def worse(self, price: Decimal, side: int, worsening: Decimal) -> Decimal:
        """``u`` of a price moved against the trader."""
        return self.contract.value(price * (ONE + side * min(worsening, WORST)))

    def forced_value(self, part: Decimal, value: Decimal) -> Decimal:
        """``u`` at which the venue closes a part of the position."""
        size = abs(part * value)
        worsening = self.forced_slip + self.impact(size, self.forced_impact)
        side = -1 if part > 0 else 1
        return self.worse(self.contract.price(value), side, min(worsening, WORST))

    def cost(self, side: int, worsening: Decimal) -> Decimal:
        """κ: worsening and fee per unit of notional at the open."""
        at_open, at_fill = self.value("fill"), self.worse(self.price("fill"), side, worsening)
        return (abs(at_fill - at_open) + self.fee * abs(at_fill)) / abs(at_open)

    def truncated(self, size: Decimal) -> Decimal:
        """A size in whole lots."""
        if self.lot == 0:
            return size
        return (size / self.lot + LOT_TOLERANCE).to_integral_value(ROUND_FLOOR) * self.lot

    def ordered(self, quantity: Decimal) -> Decimal:
        """§4.4 and 4.5: the change, in whole lots, as far as the volume admits."""
        change = quantity - self.quantity
        if self.participation is not None and self.here:
            most = self.participation * self.volume[self.here - 1]
            if abs(change) > most:
                change = self.truncated(most).copy_sign(change)
                is_flat = abs(self.quantity + change) < LOT_TOLERANCE * self.lot
                return -self.quantity if is_flat else change
        whole = self.truncated(abs(quantity)).copy_sign(quantity)
        adds = quantity * self.quantity > 0 and abs(quantity) >= abs(self.quantity)
        if adds and abs(whole) < abs(self.quantity):
            return ZERO
        return whole - self.quantity

    # ----- stops -----

    def stop_value(self) -> Decimal | None:
        """``u`` of the stop-loss; None without one."""
        if self.stop is None or self.quantity == 0:
            return None
        entry = self.contract.price(self.entry)
        price = entry * (ONE - self.stop) if self.quantity > 0 else entry * (ONE + self.stop)
        return self.contract.value(price) if price > 0 else None

    def is_stopped_at(self, value: Decimal) -> bool:
        """Whether a last price is at or beyond the stop, with the tolerance for the event."""
        stop = self.stop_value()
        if stop is None:
            return False
        price, level = self.contract.price(value), self.contract.price(stop)
        if self.quantity > 0:
            return price <= level * (ONE + TIE)
        return price >= level * (ONE - TIE)


class Order(NamedTuple):
    """An increase: what it closes first (a flip), what it adds, and what that costs."""

    holding: Holding
    closing: Decimal  # contracts, signed: -q of a flip, else 0
    adding: Decimal  # contracts, signed
    kappa: Decimal
    fill_value: Decimal  # u at the worsened open

    def quantity(self, factor: Decimal) -> Decimal:
        """The position after a share of the increase."""
        return self.holding.quantity + self.closing + factor * self.adding

    def traded(self, factor: Decimal) -> Decimal:
        """Contracts traded."""
        return abs(self.closing) + factor * abs(self.adding)

    def opens_with(self) -> Decimal:
        """Isolated: margin and fee of what is added."""
        h, value = self.holding, abs(self.fill_value)
        return abs(self.adding) * value * (ONE / h.effective_setting + h.fee)

    def returns(self) -> Decimal:
        """Isolated: what the closing part of a flip returns to B, net of its fee."""
        if self.closing == 0:
            return ZERO
        h = self.holding
        fee = h.fee * abs(self.closing * self.fill_value)
        return h.isolated_backing(self.fill_value) - fee


class Stamp(NamedTuple):
    """A funding event of one instrument."""

    time: int
    rank: int  # of the instrument, in the order given
    event: Settlement


# ---------------------------------------------------------------------------------------------
# The account


class Portfolio:
    """One account on several markets: the state, and one method per rule."""

    def __init__(
        self,
        markets: Mapping[str, Any],
        targets: Mapping[str, Sequence[float]],
        signals: Mapping[str, Sequence[float]],
        venues: Mapping[str, Any],
        account: Any,
        overlay: Sequence[float] | None = None,
    ) -> None:
        self.targets, self.signals, self.overlay = targets, signals, overlay
        self.account = account
        self.holdings = [Holding(name, markets[name], venues[name], account) for name in markets]
        self.clock = sorted({int(stamp) for m in markets.values() for stamp in m.time})
        self.interval = int(next(iter(markets.values())).interval)
        for holding in self.holdings:
            holding.place(self.clock)
        self.venue = venues[next(iter(markets))]  # what belongs to the account agrees in all
        self.read_account()
        self.read_funding()
        self.out = Outcome(tuple(markets), capital=self.wealth_at_start)

    def read_account(self) -> None:
        """The account in exact numbers; its state before the first bar."""
        account = self.account
        rule = getattr(account, "requirement", None)
        self.level = exact(getattr(rule, "level", 1.0)) if rule is not None else ONE
        is_scenario = rule is not None and hasattr(rule, "moves")
        self.rule = Scenarios(rule) if is_scenario else Standard()
        self.assets = [Collateral(each) for each in getattr(account, "collateral", None) or ()]
        self.asset_markets = [each.prices for each in getattr(account, "collateral", None) or ()]
        self.place_assets()
        limit = getattr(account, "negative_limit", None)
        self.negative_limit = ZERO if limit is None else exact(limit)
        self.is_pro_rata = getattr(account, "conversion", "listed") == "pro_rata"
        self.max_gross = getattr(account, "max_gross_leverage", math.inf)
        self.max_overlay = getattr(account, "max_overlay", math.inf)
        self.intrabar = getattr(account, "intrabar", "path")
        self.fills = getattr(account, "fill", "next_open")
        stop = getattr(account, "equity_stop", None)
        self.equity_stop = None if stop is None else exact(stop)
        self.cash = +exact(account.capital)
        self.reserve = exact(account.reserve)
        self.pool = Call()
        self.is_ruined = self.is_halted = self.must_convert = self.posts_in_full = False
        self.factor = math.nan if self.overlay is not None else 1.0
        self.ruin_at = ZERO if getattr(account, "ruin_at", None) is None else exact(account.ruin_at)
        self.mode = self.venue.liquidation.mode
        default = "most_relief" if is_scenario else "largest_loss"
        order = getattr(self.venue.liquidation, "order", None)
        self.order = default if order is None else order
        at_start = sum(
            (a.amount * p[0] for a, p in zip(self.assets, self.asset_open, strict=True)), ZERO
        )
        self.wealth_at_start = self.cash + at_start
        self.paid_in = self.wealth_at_start + self.reserve
        self.highest = self.wealth_at_start  # equity at a close, for the equity stop
        self.borrow_rate = AsOf(self.venue.borrow_rate)
        self.cash_rate, self.short_rate = AsOf(self.venue.cash_rate), AsOf(self.venue.short_rate)
        shape = type("Clock", (), {"time": self.clock})
        self.external = bars_of_flows(shape, account.flows)

    def place_assets(self) -> None:
        """Prices of the collateral on the clock, which its market must cover."""
        self.asset_open: list[list[Decimal]] = []
        self.asset_marks: list[dict[str, list[Decimal]]] = []
        self.asset_rises: list[list[bool]] = []
        for asset, market in zip(self.assets, self.asset_markets, strict=True):
            rows = [bisect_left(list(market.time), stamp) for stamp in self.clock]
            prices = {name: decimals(getattr(market, name)[row] for row in rows) for name in PRICES}
            self.asset_open.append(prices["open"])
            self.asset_marks.append(prices)
            asset.valued_at = prices["open"][0]

    def read_funding(self) -> None:
        """§2.2 for all instruments: events by bar, by stamp, then in the order given."""
        jitter = min(nanoseconds(self.venue.funding_jitter), self.interval // 4)
        self.at_open: list[list[Stamp]] = [[] for _ in self.clock]
        self.inside: list[list[Stamp]] = [[] for _ in self.clock]
        for rank, holding in enumerate(self.holdings):
            for stamp, where, event in events_of(holding.market, jitter, self.interval):
                bar, is_open = where
                rows = self.at_open if is_open else self.inside
                rows[holding.first + bar].append(Stamp(stamp, rank, event))
        for rows in (*self.at_open, *self.inside):
            rows.sort(key=lambda each: each[:2])

    def run(self) -> Outcome:
        """Go through the bars."""
        for t in range(len(self.clock)):
            self.begin(t)
            self.step_0_fill_early()
            self.step_1_flows()
            self.step_2_funding_at_open()
            self.step_3_interest()
            self.step_4_gap_check()
            if self.fills == "next_open":
                self.step_5_fills()
            self.step_6_funding_inside()
            self.step_7_walk()
            self.fill_late()
            self.step_8_close()
        return self.out

    def begin(self, t: int) -> None:
        """Open the books of bar t; what was decided at the close of t - 1 is pending."""
        self.t, self.stamp = t, self.clock[t]
        self.row = dict.fromkeys((*COSTS, *GAINS, "traded"), ZERO)
        self.is_pool_liquidated = False
        self.arrived, self.highest_before = ZERO, self.highest
        for holding in self.holdings:
            holding.begin(t, self.stamp)
            holding.pending = self.decision_of(holding)
        self.present = [h for h in self.holdings if h.here is not None]
        if self.overlay is not None and t > 0:
            self.hear_overlay(self.overlay[t - 1])

    def hear_overlay(self, answer: float) -> None:
        """NaN keeps the last."""
        if not math.isnan(answer):
            self.factor = min(answer, self.max_overlay)

    def decision_of(self, holding: Holding) -> tuple[float, float] | None:
        """What was decided at the last close, if the instrument has that bar and this one."""
        t = self.t
        if holding.here is None or holding.here == 0 or self.is_ruined:
            return None
        if self.is_halted or holding.is_halted:
            return (0.0, 0.0)
        signal = float(self.signals[holding.name][t - 1])
        return float(self.targets[holding.name][t - 1]), 0.0 if math.isnan(signal) else signal

    # ----- points and what the account is worth -----

    def point(self, mark: str, last: str) -> Point:
        """All instruments at one of their prices of this bar."""
        return Point(
            tuple(h.value(mark) for h in self.holdings),
            tuple(h.value(last) for h in self.holdings),
            tuple(marks[mark][self.t] for marks in self.asset_marks),
        )

    def at_marks(self, name: str) -> Point:
        """All at the mark (and last) open or close."""
        return self.point(f"mark_{name}", name)

    def at_fills(self) -> Point:
        """Everything valued at the last prices where targets are computed and orders fill."""
        name = "open" if self.fills == "next_open" else "close"
        t = max(self.t - 1, 0) if self.fills == "same_close" else self.t
        return Point(
            tuple(h.value("fill") for h in self.holdings),
            tuple(h.value("fill") for h in self.holdings),
            tuple(prices[name][t] for prices in self.asset_marks),
        )

    def held(self, *, is_isolated: bool | None = None) -> list[tuple[int, Holding]]:
        """Open positions with their ranks, in the order given."""
        return [
            (i, h)
            for i, h in enumerate(self.holdings)
            if h.quantity != 0 and (is_isolated is None or h.is_isolated == is_isolated)
        ]

    @property
    def cross(self) -> list[tuple[int, Holding]]:
        """Open cross positions."""
        return self.held(is_isolated=False)

    @property
    def isolated(self) -> list[tuple[int, Holding]]:
        """Open isolated positions."""
        return self.held(is_isolated=True)

    @property
    def has_collateral(self) -> bool:
        """Whether any asset is held."""
        return any(asset.amount != 0 for asset in self.assets)

    def is_alone(self) -> bool:
        """One position is open and no collateral is held."""
        return len(self.held()) == 1 and not self.has_collateral

    def balance(self) -> Decimal:
        """B = w + Σ_cross q·u(entry)."""
        return self.cash + sum((h.quantity * h.entry for _, h in self.cross), ZERO)

    def equity(self, point: Point) -> Decimal:
        """E: cash, cross positions, collateral in full, isolated backing."""
        total = self.cash
        for i, h in self.held():
            value = point.marks[i]
            total += h.isolated_backing(value) if h.is_isolated else h.quantity * value
        return total + self.in_full(point)

    def in_full(self, point: Point) -> Decimal:
        """All collateral without haircut."""
        return sum((a.amount * p for a, p in zip(self.assets, point.assets, strict=True)), ZERO)

    def backing(self, point: Point) -> Decimal:
        """M: cash, cross positions, collateral at its rate."""
        total = self.cash + sum((h.quantity * point.marks[i] for i, h in self.cross), ZERO)
        counted = (a.counted(p) for a, p in zip(self.assets, point.assets, strict=True))
        return total + sum(counted, ZERO)

    def legs(self, point: Point, sizes: Mapping[str, Decimal] | None = None) -> list[Leg]:
        """The cross positions, or other sizes of them, for the requirement."""
        sizes = {} if sizes is None else sizes
        found = []
        for i, h in enumerate(self.holdings):
            size = sizes.get(h.name, h.quantity)
            if size != 0 and not h.is_isolated:
                found.append(h.leg(point.marks[i], size))
        return found

    def cancelling(self, point: Point) -> list[Asset]:
        """Collateral for the scenarios."""
        pairs = zip(self.assets, point.assets, strict=True)
        return [Asset(a.group, a.amount * p) for a, p in pairs if a.group is not None]

    def required(self, point: Point, sizes: Mapping[str, Decimal] | None = None) -> Decimal:
        """level·R."""
        return self.level * self.rule.requirement(self.legs(point, sizes), self.cancelling(point))

    def initial(self, point: Point, sizes: Mapping[str, Decimal] | None = None) -> Decimal:
        """initial(cross)."""
        return self.rule.initial(self.legs(point, sizes), self.cancelling(point))

    def surplus(self, point: Point) -> Decimal:
        """D = M - level·R."""
        return self.backing(point) - self.required(point)

    def cross_fails(self, point: Point) -> bool:
        """The cross positions fail where M ≤ level·R."""
        if not self.cross:
            return False
        return self.backing(point) <= self.required(point) * (ONE + TIE)

    def uncounted(self, point: Point, without: Sequence[str] = ()) -> Decimal:
        """Unrealized profits that back no order and no withdrawal."""
        return sum(
            (
                (ONE - h.counted) * max(h.profit(point.marks[i]), ZERO)
                for i, h in self.cross
                if h.name not in without
            ),
            ZERO,
        )

    # ----- booking -----

    def log(
        self, kind: str, name: str = "", quantity: Decimal = ZERO, amount: Decimal = ZERO
    ) -> None:
        """Add an event."""
        self.out.events.append(Event(self.t, kind, name, quantity, amount))

    def note(self, path: str) -> None:
        """Count a rarely taken path."""
        self.out.paths[path] += 1

    def revalue(self, holding: Holding, value: Decimal) -> None:
        """§6: price pnl from where the position was last valued."""
        self.row["price_pnl"] += holding.quantity * (value - holding.valued_at)
        holding.valued_at = value

    def revalue_assets(self, prices: Sequence[Decimal]) -> None:
        """The same for collateral."""
        for asset, price in zip(self.assets, prices, strict=True):
            self.row["collateral_pnl"] += asset.amount * (price - asset.valued_at)
            asset.valued_at = price

    def pay(self, amount: Decimal, holding: Holding) -> None:
        """Funding of an isolated position from the wallet: out of M once B is empty."""
        debt = min(self.balance(), ZERO)
        self.cash -= amount
        self.lift_wallet(holding, debt)

    # ----- step 1 -----

    def step_1_flows(self) -> None:
        """Flows, conversions, top-ups."""
        for amount in self.external[self.t]:
            if amount >= 0:
                self.move(amount)
            else:
                self.withdraw(-amount)
        if self.must_convert and self.balance() < 0:
            self.convert()
        calls = [(self.pool, None), *((h.call, h) for _, h in self.isolated)]
        for call, holding in calls:
            if call.is_called:
                self.top_up(call, holding)
        self.test_grace()

    def test_grace(self) -> None:
        """Whether a call has been unmet for longer than the broker waits."""
        grace = self.venue.call_grace
        for call in [self.pool, *(h.call for h in self.holdings)]:
            call.was_forced = grace is not None and call.unmet > grace

    def move(self, amount: Decimal) -> None:
        """Money from outside, or to it."""
        wealth = self.equity(self.at_marks("open")) + self.reserve
        self.paid_in += amount if amount >= 0 else self.paid_in * amount / wealth
        self.cash += amount
        self.rescale_highest(amount)
        self.row["flows"] += amount
        self.log("flow", amount=amount)

    def rescale_highest(self, amount: Decimal) -> None:
        """§5: money from outside moves the highest equity in proportion, all of a bar at once."""
        self.arrived += amount
        equity = self.out.equity[-1] if self.out.equity else self.wealth_at_start
        if equity > 0:
            self.highest = max(ZERO, self.highest_before * (equity + self.arrived) / equity)

    def withdraw(self, asked: Decimal) -> None:
        """At most what leaves M ≥ initial(cross) and B ≥ -negative_limit; §2.1 for one."""
        point = self.at_marks("open")
        free = self.backing(point) - self.uncounted(point) - self.initial(point)
        is_plain = isinstance(self.rule, Standard) and self.level == 1
        if len(self.holdings) > 1 or self.assets or not is_plain:
            limit = self.negative_limit if self.assets else ZERO
            free = min(free, self.balance() + limit)
        elif self.isolated:
            free = self.free_of_one(self.isolated[0][1], point)
        taken = min(asked, max(ZERO, free))
        if taken > 0:
            self.move(-taken)
        if taken < asked:
            self.log("withdrawal_refused", amount=asked - taken)

    def free_of_one(self, holding: Holding, point: Point) -> Decimal:
        """What the only instrument, isolated, leaves free: of the wallet, and of the equity."""
        value = point.marks[0]
        profit = (ONE - holding.counted) * max(holding.profit(value), ZERO)
        needed = bracket_initial(holding.leg(value)) + profit
        return min(self.cash, self.equity(point) - needed)

    def convert(self) -> None:
        """B is brought to 0 by selling collateral at the open."""
        self.note("converted")
        self.sell(-self.balance(), [prices[self.t] for prices in self.asset_open])

    def sell(self, needed: Decimal, prices: Sequence[Decimal]) -> None:
        """Sell collateral worth some money after slippage, in the order listed or pro rata."""
        self.revalue_assets(prices)
        owned = [(a, p * (ONE - a.slippage)) for a, p in zip(self.assets, prices, strict=True)]
        owned = [(a, p) for a, p in owned if a.amount > 0]
        total = sum((a.amount * p for a, p in owned), ZERO)
        for asset, net in owned:
            share = min(ONE, needed / total) if self.is_pro_rata else None
            worth = asset.amount * net
            sold = asset.amount * (share if share is not None else min(ONE, needed / worth))
            asset.amount -= sold
            self.cash += sold * net
            self.row["conversion"] += sold * net * asset.slippage / (ONE - asset.slippage)
            self.log("conversion", asset.name, -sold, sold * net)
            if not self.is_pro_rata:
                needed -= sold * net
                if needed <= 0:
                    return

    def worth_of_assets(self, prices: Sequence[Decimal]) -> Decimal:
        """What the collateral would bring."""
        pairs = zip(self.assets, prices, strict=True)
        return sum((max(a.amount, ZERO) * p * (ONE - a.slippage) for a, p in pairs), ZERO)

    def top_up(self, call: Call, holding: Holding | None) -> None:
        """§5: from the reserve, what brings the ratio to ``top_up_to``."""
        wanted = self.account.top_up_to
        if wanted is None or (holding is None and not self.cross):
            return
        point = self.at_marks("open")
        missing = self.needed(point, holding) / exact(wanted) - self.behind(point, holding)
        amount = min(missing, self.reserve)
        if amount <= 0:
            return
        self.reserve -= amount
        if holding is None:
            self.cash += amount
        else:
            holding.margin += amount
        self.rescale_highest(amount)
        self.row["flows"] += amount
        self.log("top_up", "" if holding is None else holding.name, amount=amount)
        call.ratio = self.margin_ratio(point, holding)
        if call.ratio < self.call_level():
            call.unmet = 0

    def needed(self, point: Point, holding: Holding | None) -> Decimal:
        """level·R of the pool, or the requirement of an isolated position."""
        if holding is None:
            return self.required(point)
        return bracket_requirement(holding.leg(point.marks[self.holdings.index(holding)]))

    def behind(self, point: Point, holding: Holding | None) -> Decimal:
        """M of the pool, or the backing of an isolated position."""
        if holding is None:
            return self.backing(point)
        return holding.isolated_backing(point.marks[self.holdings.index(holding)])

    def margin_ratio(self, point: Point, holding: Holding | None) -> Decimal:
        """level·R / M: infinite for M ≤ 0, 0 when flat."""
        is_flat = not self.cross if holding is None else holding.quantity == 0
        if is_flat:
            return ZERO
        backing = self.behind(point, holding)
        return self.needed(point, holding) / backing if backing > 0 else INFINITY

    def call_level(self) -> Decimal:
        """The ratio that calls, with the tolerance for the event."""
        return exact(self.account.margin_call) * (ONE - TIE)

    # ----- steps 2 and 6 -----

    def step_2_funding_at_open(self) -> None:
        """Paid by the positions carried in."""
        for each in self.at_open[self.t]:
            self.settle(each)

    def step_6_funding_inside(self) -> None:
        """Paid by the positions now held."""
        for each in self.inside[self.t]:
            self.settle(each)

    def settle(self, stamp: Stamp) -> None:
        """q·|u(p_f)|·r_f; an isolated position is tested after each of its own."""
        holding, event = self.holdings[stamp.rank], stamp.event
        if holding.quantity == 0:
            return
        mark = holding.value("mark_open")
        value = mark if event.price is None else holding.contract.value(event.price)
        payment = holding.quantity * abs(value) * event.rate
        if not holding.is_isolated:
            self.cash -= payment
        elif self.venue_of(holding).isolated_funding == "margin":
            holding.margin -= payment
        else:
            self.pay(payment, holding)
        self.row["funding"] += payment
        self.log("funding", holding.name, holding.quantity, payment)
        if holding.is_isolated and holding.isolated_fails(mark):
            self.note("isolated liquidated after funding")
            self.liquidate_isolated(holding, mark)

    @staticmethod
    def venue_of(holding: Holding) -> Any:
        """The venue of an instrument."""
        return holding.venue

    # ----- step 3 -----

    def step_3_interest(self) -> None:
        """On the sum of the bases of §2.3, since the previous open."""
        if self.t == 0:
            return
        since = self.clock[self.t - 1]
        years = Decimal(self.stamp - since) / DAY / exact(self.venue.day_count)
        if self.venue.interest_on == "balance":
            base = self.balance() + sum((h.margin for _, h in self.isolated), ZERO)
            due = self.on_balance(base, since)
        else:
            base = self.cash
            base += sum((h.margin - h.quantity * h.entry for _, h in self.isolated), ZERO)
            due = self.on_balance(base, since) + self.on_shorts(since)
        self.cash -= due * years
        self.row["interest"] += due * years
        if not self.cross and not self.has_collateral:
            self.margins_pay()

    def on_balance(self, base: Decimal, since: int) -> Decimal:
        """Per year: debt pays the borrow rate, a positive balance earns the cash rate."""
        return -base * (self.borrow_rate(since) if base < 0 else self.cash_rate(since))

    def on_shorts(self, since: int) -> Decimal:
        """Per year: shorts pay ``short_rate·N`` at the mark open."""
        rate = self.short_rate(since)
        shorts = (h for _, h in self.held() if h.quantity < 0)
        return sum((rate * abs(h.quantity * h.value("mark_open")) for h in shorts), ZERO)

    def margins_pay(self) -> None:
        """Interest that an empty wallet cannot pay comes out of isolated margins, in order."""
        for _, h in self.isolated:
            taken = min(max(-self.cash, ZERO), max(h.margin, ZERO))
            if taken > 0:
                self.note("margins pay interest")
                h.margin -= taken
                self.cash += taken

    # ----- step 4 -----

    def step_4_gap_check(self) -> None:
        """All mark opens together, isolated positions each; otherwise stops at their opens."""
        point = self.at_marks("open")
        acted: set[str] = set()
        was_alone = self.is_alone()
        if self.cross_fails(point):
            self.note("cross liquidated in a gap")
            acted |= {h.name for _, h in self.cross}
            self.liquidate_cross(point, is_alone=self.is_alone())
        for i, h in self.isolated:
            if h.isolated_fails(point.marks[i]):
                self.note("isolated liquidated in a gap")
                acted.add(h.name)
                self.liquidate_isolated(h, point.marks[i])
        if not was_alone and self.is_drawn(point):
            self.note("equity stop in a gap")
            self.close_account(point)
        for i, h in self.held():
            if h.name in acted:
                continue
            stop = self.stop_alone(i, h, at="open") if was_alone else None
            if stop is not None or h.is_stopped_at(point.lasts[i]):
                self.note("stopped in a gap")
                self.close_by_stop(h, point.lasts[i], "stop" if stop is None else stop[0])

    # ----- the equity stop -----

    def last_equity(self, point: Point) -> Decimal:
        """E with every position at its last price; collateral at its mark."""
        lasts = point._replace(marks=point.lasts)
        return self.equity(lasts)

    def stop_level(self) -> Decimal:
        """The equity at or under which the stop acts."""
        return (ONE - self.equity_stop) * self.highest

    def is_drawn(self, point: Point) -> bool:
        """Whether the equity stop acts at a point; never on a flat account."""
        if self.equity_stop is None or not self.held():
            return False
        return self.last_equity(point) <= self.stop_level() * (ONE + TIE)

    def next_drawdown(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """Where the equity stop acts on the rest of a segment: the equity is linear on it."""
        now = between(start, end, place)
        if self.is_drawn(now):
            return place
        if not self.is_drawn(end):
            return None
        before, after = self.last_equity(now), self.last_equity(end)
        share = (before - self.stop_level()) / (before - after)
        return min(ONE, place + max(ZERO, share) * (ONE - place))

    def drawn_in_walk(self, point: Point) -> None:
        """The equity stop inside the bar."""
        self.note("equity stop in the bar")
        self.close_account(point)

    def close_account(self, point: Point) -> None:
        """All positions at their last prices; the highest equity starts anew at what is left."""
        for i, h in self.held():
            self.close_by_stop(h, point.lasts[i], "equity_stop")
        self.highest = self.last_equity(point)

    def root_of_stop(self, rank: int, holding: Holding, at: str) -> Decimal | None:
        """``u`` at which the equity of a lone position is at the stop; the price if it is under."""
        if self.equity_stop is None:
            return None
        here = holding.value(at)
        point = self.at_marks("open")
        lasts = list(point.lasts)
        lasts[rank] = here
        equity = self.last_equity(point._replace(lasts=tuple(lasts)))
        root = here + (self.stop_level() - equity) / holding.quantity
        if root > 0 if holding.contract.is_linear else root < 0:
            return root
        return here if equity <= self.stop_level() else None

    def follow_highest(self, equity: Decimal) -> None:
        """The highest at a close; a flat account at or under the stop starts anew."""
        if self.equity_stop is None:
            return
        if not self.held() and equity <= self.stop_level() * (ONE + REMAINDER):
            self.highest = equity
        self.highest = max(self.highest, equity)

    # ----- step 5 -----

    def step_0_fill_early(self) -> None:
        """``same_close``: the decisions of the last close fill there; nothing is pending after."""
        if self.fills == "same_close" and self.t > 0:
            self.test_grace()
            for i, h in self.held():
                self.revalue(h, self.at_fills().marks[i])
            self.step_5_fills()
            for h in self.holdings:
                h.pending = None

    def fill_late(self) -> None:
        """``next_close``: after the walk, but for what is delisted there."""
        if self.fills == "next_close":
            for h in self.holdings:
                if self.is_delisted(h):
                    h.pending = None
            self.step_5_fills()

    def step_5_fills(self) -> None:
        """Targets from the equity at the last opens; reductions; then increases together."""
        point = self.at_fills()
        equity = self.equity(point)
        replaced = self.force_reductions(point)
        if equity <= 0:
            return
        increases: list[tuple[Holding, Decimal, Decimal]] = []
        deciding = [h for h in self.present if h.name not in replaced and h.pending is not None]
        for h, target, held in self.orders(deciding, equity, point):
            if target == 0 or (target * held > 0 and abs(target) <= abs(held)):
                self.fill_to(h, target / abs(h.value("fill")))
            else:
                increases.append((h, target, held))
        if increases:
            self.fill_increases(increases, equity, point)

    def orders(
        self, deciding: Sequence[Holding], equity: Decimal, point: Point
    ) -> list[tuple[Holding, Decimal, Decimal]]:
        """What trades: the holding, its target notional within the cap, the notional held."""
        held = {h.name: h.quantity * abs(h.value("fill")) for h in self.present}
        wanted = {h.name: self.target(h, equity, held[h.name], point) for h in deciding}
        own = [h for h in deciding if wanted[h.name] is not None]
        aimed = [h for h in own if not (self.is_halted or h.is_halted)]  # a halt is no target
        self.scale_to_cap(wanted, held, {h.name for h in aimed}, equity)
        kept = [h for h in own if self.is_in_band(h, wanted[h.name], held[h.name], equity)]
        if not math.isinf(self.max_gross):
            trading = {h.name for h in own} - {h.name for h in kept}
            gross = sum((abs(wanted[n] if n in trading else held[n]) for n in held), ZERO)
            if gross > Decimal("1.1") * exact(self.max_gross) * equity * (ONE + TIE):
                over = [h for h in kept if abs(held[h.name]) > abs(wanted[h.name])]
                if over:
                    self.note("bands narrowed by the cap")
                kept = [h for h in kept if h not in over]
        return [(h, wanted[h.name], held[h.name]) for h in own if h not in kept]

    def scale_to_cap(
        self,
        wanted: dict[str, Decimal | None],
        held: Mapping[str, Decimal],
        aimed: set[str],
        equity: Decimal,
    ) -> None:
        """``max_gross_leverage``: one factor for all targets; what has none counts as held."""
        if math.isinf(self.max_gross):
            return
        most = exact(self.max_gross) * equity
        rest = sum((abs(held[name]) for name in held if name not in aimed), ZERO)
        total = sum((abs(wanted[name]) for name in aimed), ZERO)
        if total > 0 and total + rest > most:
            self.note("scaled to the cap")
            for name in aimed:
                wanted[name] *= max(most - rest, ZERO) / total

    @staticmethod
    def is_in_band(holding: Holding, target: Decimal, held: Decimal, equity: Decimal) -> bool:
        """§4.2, on the target within the cap."""
        return target != 0 and abs(target - held) <= holding.band * equity * (ONE + TIE)

    def target(
        self, holding: Holding, equity: Decimal, held: Decimal, point: Point
    ) -> Decimal | None:
        """s·L·G·E; None leaves the position as it is."""
        answer, signal = holding.pending
        if signal == 0:
            return ZERO
        if math.isnan(answer) or math.isnan(self.factor):
            return None
        if self.factor == 0:
            return ZERO
        limit = float(holding.most(self.stamp))
        leverage = min(max(answer, holding.floor), limit)
        if math.isinf(leverage):
            most = max(self.most_alone(holding, equity, held, signal, point), ZERO)
            is_over = abs(signal) == 1 and held * exact(signal) > most
            return held if is_over else exact(signal) * most
        return exact(signal) * exact(leverage) * exact(self.factor) * equity

    def most_alone(
        self, holding: Holding, equity: Decimal, held: Decimal, signal: float, point: Point
    ) -> Decimal:
        """The largest notional that the limits allow in this instrument alone, before costs."""
        adds = held * (1 if signal > 0 else -1) > 0
        rank = self.holdings.index(holding)
        if holding.is_isolated:
            profit = max(holding.profit(point.marks[rank]), ZERO) if adds else ZERO
            free = equity - (ONE - holding.counted) * profit
            return max(min(cap, most * free) for cap, most in holding.limits())
        free = self.backing(point) - self.uncounted(point, () if adds else (holding.name,))
        caps = [cap for cap, _ in holding.limits()]
        if isinstance(self.rule, Standard):
            return max(min(cap, most * free) for cap, most in holding.limits())
        unit = (ONE if signal > 0 else -ONE) / abs(holding.value("fill"))
        each = self.rule.initial([holding.leg(holding.value("fill"), unit)], [])
        return min(max(caps), free / each) if each > 0 else max(caps)

    # ----- step 5: forced reductions -----

    def force_reductions(self, point: Point) -> set[str]:
        """§5: the broker reduces after the grace; the names whose decision that replaces."""
        replaced: set[str] = set()
        if self.pool.was_forced and self.cross and not self.is_pool_liquidated:
            self.pool.is_called = False  # with same_close, this comes before the top-up
            replaced |= self.force_pool(point)
        for _, h in self.isolated:
            if h.call.was_forced and h.pending:
                h.call.is_called = False
                if self.force_isolated(h):
                    replaced.add(h.name)
        return replaced

    def forced_ratio(self) -> Decimal:
        """The ratio to which the broker reduces."""
        called = exact(self.account.margin_call) * (ONE - 10 * TIE)
        top = self.account.top_up_to
        return called if top is None else exact(top)

    def force_pool(self, point: Point) -> set[str]:
        """All cross positions by one factor."""
        ratio = self.forced_ratio()
        legs = self.cross
        whole = sum(
            (
                abs(h.quantity * h.value("fill")) * h.cost(-1 if h.quantity > 0 else 1, h.slip)
                for _, h in legs
            ),
            ZERO,
        )
        backing = self.backing(point)

        def room(factor: Decimal) -> Decimal:
            sizes = {h.name: factor * h.quantity for _, h in legs}
            return ratio * (backing - (ONE - factor) * whole) - self.required(point, sizes)

        kept = largest_passing(room)
        kept = ZERO if kept is None else kept
        sizes = [(h, kept * h.quantity) for _, h in legs]
        done = [self.fill_forced(h, size) for h, size in sizes]
        if not any(done):
            return set()
        self.note("pool reduced by force")
        return {h.name for h in self.holdings if not h.is_isolated}

    def force_isolated(self, holding: Holding) -> bool:
        """One isolated position; what is freed stays in M."""
        ratio = self.forced_ratio()
        value = holding.value("fill")
        kappa = holding.cost(-1 if holding.quantity > 0 else 1, holding.slip)
        backing, held = holding.isolated_backing(value), holding.quantity

        def room(factor: Decimal) -> Decimal:
            cost = (ONE - factor) * abs(held * value) * kappa
            return ratio * (backing - cost) - bracket_requirement(holding.leg(value, factor * held))

        kept = largest_passing(room)
        before = self.cash
        if not self.fill_forced(holding, (ZERO if kept is None else kept) * held):
            return False
        self.note("isolated reduced by force")
        if holding.quantity != 0:
            holding.margin += self.cash - before
            self.cash = before
        return True

    def fill_forced(self, holding: Holding, quantity: Decimal) -> bool:
        """Fill a forced reduction; False where it is dust or too small to trade."""
        change = holding.ordered(quantity.copy_sign(holding.quantity))
        is_close = change == -holding.quantity
        is_small = abs(change * holding.value("fill")) < holding.least * (ONE - TIE)
        is_dust = abs(change) <= TIE * abs(holding.quantity)
        if is_dust or (is_small and not is_close):
            return False
        self.fill(holding, change)
        return True

    # ----- step 5: increases -----

    def fill_increases(
        self, increases: Sequence[tuple[Holding, Decimal, Decimal]], equity: Decimal, point: Point
    ) -> None:
        """Own limits, the balance, the common factor; then lots and fills in order."""
        orders = [self.cut_alone(h, target, held, equity) for h, target, held in increases]
        orders = self.cut_to_balance(orders)
        factor = self.common_factor(orders, point)
        if factor < 1:
            self.note("increases scaled")
        self.posts_in_full = True
        for order in orders:
            self.fill_to(order.holding, order.quantity(factor))
        self.posts_in_full = False
        self.lift_balance([order.holding for order in orders])

    def cut_alone(self, holding: Holding, target: Decimal, held: Decimal, equity: Decimal) -> Order:
        """The venue's cap; an isolated order as if it were the only one."""
        value = abs(holding.value("fill"))
        direction = 1 if target > 0 else -1
        before = held * direction  # negative for a flip
        worsening = holding.slip + holding.impact(abs(target - held), holding.impact_factor)
        kappa = holding.cost(direction, worsening)
        fill_value = holding.worse(holding.price("fill"), direction, worsening)
        kept = max(before, ZERO)
        size = min(abs(target), max(kept, *(cap for cap, _ in holding.limits())))
        if holding.is_isolated:
            size = self.cut_isolated(holding, size, before, equity, kappa, fill_value)
        closing = -holding.quantity if before < 0 else ZERO
        adding = direction * max(size - kept, ZERO) / value
        if size < abs(target):
            self.note("cut alone")
        return Order(holding, closing, adding, kappa, fill_value)

    def cut_isolated(
        self,
        holding: Holding,
        size: Decimal,
        before: Decimal,
        equity: Decimal,
        kappa: Decimal,
        fill_value: Decimal,
    ) -> Decimal:
        """§3: notional ≤ (E - costs)·X, and new margin + fee ≤ B and what a flip returns."""
        if before > 0:
            profit = max(holding.profit(holding.value("fill")), ZERO)
            equity -= (ONE - holding.counted) * profit
        allowed = max(
            min(cap, most * (equity + kappa * before) / (ONE + kappa * most))
            for cap, most in holding.limits()
        )
        kept = max(before, ZERO)
        size = max(min(size, allowed), kept)
        wallet = max(self.balance(), ZERO)
        if before < 0:
            wallet += holding.isolated_backing(fill_value)
            wallet -= holding.fee * abs(holding.quantity * fill_value)
        per_contract = abs(fill_value) * (ONE / holding.effective_setting + holding.fee)
        most = max(ZERO, wallet / per_contract) * abs(holding.value("fill"))
        return kept + min(size - kept, most)

    def cut_to_balance(self, orders: list[Order]) -> list[Order]:
        """All isolated increases take at most B less the fees of the cross ones, by one factor."""
        isolated = [o for o in orders if o.holding.is_isolated]
        fees = sum(
            (
                o.holding.fee * o.traded(ONE) * abs(o.fill_value)
                for o in orders
                if not o.holding.is_isolated
            ),
            ZERO,
        )
        taken = sum((o.opens_with() for o in isolated), ZERO)
        returned = sum(  # what is cut to 0 binds nobody
            (o.returns() if o.adding != 0 else max(o.returns(), ZERO) for o in isolated), ZERO
        )
        most = max(max(self.balance() - fees, ZERO) + returned, ZERO)
        if taken <= most:
            return orders
        self.note("cut by the balance")
        return [
            o._replace(adding=o.adding * most / taken) if o.holding.is_isolated else o
            for o in orders
        ]

    def common_factor(self, orders: list[Order], point: Point) -> Decimal:
        """The largest share of all increases with M ≥ initial(cross) after costs; else 0."""
        orders = [o for o in orders if o.adding != 0 or o.closing != 0]
        flips = [o.holding.name for o in orders if o.closing != 0]
        free = self.backing(point) - self.uncounted(point, flips)

        def taken(factor: Decimal) -> Decimal:
            isolated = [o for o in orders if o.holding.is_isolated]
            return sum((factor * o.opens_with() - o.returns() for o in isolated), ZERO)

        cross = [o for o in orders if not o.holding.is_isolated]

        def sizes(factor: Decimal) -> dict[str, Decimal]:
            return {o.holding.name: o.quantity(factor) for o in cross}

        def room(factor: Decimal) -> Decimal:
            costs = sum(
                (o.kappa * o.traded(factor) * abs(o.holding.value("fill")) for o in cross), ZERO
            )
            return free - costs - taken(factor) - self.initial(point, sizes(factor))

        if isinstance(self.rule, Standard):
            found = largest_of_pieces(room, self.edges_of(cross))
        else:
            signs = find_signs(lambda factor: self.rule.nets(self.legs(point, sizes(factor))))
            found = largest_passing(room, signs)
        if found is None:
            self.note("no increase passes")
        return ZERO if found is None else found

    @staticmethod
    def edges_of(orders: list[Order]) -> list[Decimal]:
        """Where a notional crosses the cap of a bracket: initial margin jumps there."""
        edges = []
        for order in orders:
            h = order.holding
            if order.adding != 0:
                value = abs(h.value("fill"))
                kept = abs(order.quantity(ZERO)) * value
                added = abs(order.adding) * value
                edges += [(cap - kept) / added for cap in h.table.caps if cap != INFINITY]
        return edges

    def fill_to(self, holding: Holding, quantity: Decimal) -> None:
        """Order a position: lots, least notional, then the fill."""
        change = holding.ordered(quantity)
        is_close = change == -holding.quantity
        size = max(abs(holding.quantity), self.out.capital * DUST / abs(holding.value("fill")))
        if abs(change) <= TIE * size and not is_close:
            return
        is_small = abs(change * holding.value("fill")) < holding.least * (ONE - TIE)
        if change == 0 or (is_small and not is_close):
            return
        self.fill(holding, change)

    def fill(self, holding: Holding, change: Decimal) -> None:
        """§4.6 and 4.7: at the worsened open, with its fee."""
        value, side = holding.value("fill"), 1 if change > 0 else -1
        worsening = holding.slip + holding.impact(abs(change * value), holding.impact_factor)
        self.revalue(holding, value)
        filled = holding.worse(holding.price("fill"), side, worsening)
        self.row["slippage"] += change * (filled - value)
        self.exchange("fill", holding, change, filled, holding.fee)

    def exchange(
        self, kind: str, holding: Holding, change: Decimal, value: Decimal, fee: Decimal
    ) -> None:
        """§1 and 3: what a trade does to cash, margin, quantity and entry."""
        q, debt = holding.quantity, min(self.balance(), ZERO)
        is_against = q * change < 0
        reducing = -q if is_against and abs(change) > abs(q) else change if is_against else ZERO
        opening = change - reducing
        if reducing != 0:
            self.reduce(holding, reducing, value)
        if opening != 0:
            self.extend(holding, opening, value)
        if reducing != 0 and opening != 0:
            self.note("flipped")
        cost = fee * abs(change * value)
        self.row["fees"] += cost
        self.row["traded"] += abs(change * value)
        self.cash -= cost
        if not self.posts_in_full:
            self.lift_wallet(holding, debt)
        self.log(kind, holding.name, change, abs(change * value))

    def lift_wallet(self, holding: Holding, debt: Decimal) -> None:
        """A trade in isolated margin does not push B under 0: what is missing comes out of M."""
        missing = debt - min(self.balance(), ZERO)
        if holding.is_isolated and holding.quantity != 0 and missing > 0:
            self.note("wallet empty: M pays")
            holding.margin -= missing
            self.cash += missing

    def lift_balance(self, increased: list[Holding]) -> None:
        """What impact at the final size costs beyond B, if nothing backs it: new margins pay."""
        if self.cross or any(asset.amount != 0 for asset in self.assets):
            return
        for holding in reversed([h for h in increased if h.is_isolated and h.quantity != 0]):
            moved = min(max(-self.cash, ZERO), max(holding.margin, ZERO))
            if moved > 0:
                self.note("new margins pay for impact")
            holding.margin -= moved
            self.cash += moved

    def reduce(self, holding: Holding, change: Decimal, value: Decimal) -> None:
        """Entry is kept; isolated gets φ·(M + q·(u - u_entry)) back."""
        if holding.is_isolated:
            share = -change / holding.quantity
            self.cash += share * holding.isolated_backing(value)
            holding.margin -= share * holding.margin
        else:
            self.cash -= change * value
        holding.quantity += change

    def extend(self, holding: Holding, change: Decimal, value: Decimal) -> None:
        """Entry is the average u; isolated puts N/X aside."""
        if holding.is_isolated:
            aside = abs(change * value) / holding.effective_setting
            holding.margin += aside
            self.cash -= aside
        else:
            self.cash -= change * value
        after = holding.quantity + change
        holding.entry = (holding.quantity * holding.entry + change * value) / after
        holding.quantity = after

    # ----- step 7 -----

    def step_7_walk(self) -> None:
        """The walk inside the bar; a position that is alone goes by §2.7."""
        if not self.held():
            return
        if self.is_alone():
            self.walk_alone(*self.held()[0])
            return
        self.note(f"walked: {self.intrabar}")
        points = self.worst_points() if self.intrabar == "worst" else self.path_points()
        is_start = True
        for start, end in pairwise(points):
            self.walk_segment(start, end, is_start=is_start)
            is_start = False

    def path_points(self) -> list[Point]:
        """Open, first extreme, second extreme, close."""
        return [
            self.at_marks("open"),
            self.extremes(lambda h: "low" if h.price("close") >= h.price("open") else "high"),
            self.extremes(lambda h: "high" if h.price("close") >= h.price("open") else "low"),
            self.at_marks("close"),
        ]

    def extremes(self, choose: Callable[[Holding], str]) -> Point:
        """Each instrument at its low or its high; collateral by the same rule of its own bar."""
        sides = [None if h.here is None else choose(h) for h in self.holdings]
        pairs = list(zip(self.holdings, sides, strict=True))
        return Point(
            tuple(None if s is None else h.value(f"mark_{s}") for h, s in pairs),
            tuple(None if s is None else h.value(s) for h, s in pairs),
            tuple(
                prices[f"mark_{choose(self.bar_of(prices))}"][self.t] for prices in self.asset_marks
            ),
        )

    def bar_of(self, prices: Mapping[str, list[Decimal]]) -> Any:
        """A bar of collateral that answers like a holding."""
        t = self.t
        return type("AssetBar", (), {"price": staticmethod(lambda name: prices[name][t])})

    def worst_points(self) -> list[Point]:
        """Open, then the adverse extreme of each position; of one group the one that costs more."""
        start = self.at_marks("open")
        sums: dict[Any, list[Decimal]] = {}
        for i, h in self.held():
            both = sums.setdefault(self.key_of(h), [ZERO, ZERO])
            for k, side in enumerate(("mark_low", "mark_high")):
                both[k] += h.quantity * (h.value(side) - start.marks[i])
        for k, (asset, prices) in enumerate(zip(self.assets, self.asset_marks, strict=True)):
            both = sums.setdefault(self.asset_key(k), [ZERO, ZERO])
            for j, side in enumerate(("mark_low", "mark_high")):
                both[j] += asset.amount * (prices[side][self.t] - start.assets[k])
        chosen = {key: "low" if low <= high else "high" for key, (low, high) in sums.items()}
        sides = [chosen.get(self.key_of(h), "low") for h in self.holdings]
        pairs = list(zip(self.holdings, sides, strict=True))
        end = Point(
            tuple(h.value(f"mark_{s}") for h, s in pairs),
            tuple(h.value(s) for h, s in pairs),
            tuple(
                prices[f"mark_{chosen[self.asset_key(k)]}"][self.t]
                for k, prices in enumerate(self.asset_marks)
            ),
        )
        return [start, end]

    def key_of(self, holding: Holding) -> Any:
        """What shares one extreme: a group of the scenarios, else a market."""
        if isinstance(self.rule, Scenarios):
            return self.rule.group(holding.name)
        return id(holding.market)

    def asset_key(self, k: int) -> Any:
        """The same for collateral."""
        group = self.assets[k].group
        if isinstance(self.rule, Scenarios):
            return id(self.asset_markets[k]) if group is None else group
        return id(self.asset_markets[k])

    def walk_segment(self, start: Point, end: Point, *, is_start: bool) -> None:
        """Everything that happens between two waypoints, first things first."""
        place = ZERO
        while True:
            found = list(self.next_events(start, end, place, is_open=is_start and place == 0))
            if not found:
                return
            first = min(where for where, _, _ in found)
            where, _, act = min(
                (each for each in found if each[0] <= first + TIE), key=lambda each: each[1]
            )
            place = max(place, where)
            act(between(start, end, place))

    def next_events(
        self, start: Point, end: Point, place: Decimal, *, is_open: bool
    ) -> Iterator[tuple[Decimal, int, Callable[[Point], None]]]:
        """The next failure of the pool, of each isolated position, and each stop: place, rank."""
        where = self.next_failure(start, end, place)
        if where is not None:
            yield where, 0, self.liquidate_in_walk
        n = len(self.holdings)
        for i, h in self.isolated:
            where = next_isolated_failure(h, start.marks[i], end.marks[i], place)
            if where is not None:
                yield where, 1 + i, self.isolated_in_walk(h, i)
        where = self.next_drawdown(start, end, place)
        if where is not None:
            yield where, 1 + n, self.drawn_in_walk
        for i, h in self.held():
            where = next_stop(h, start.lasts[i], end.lasts[i], place)
            if where is not None:
                yield where, 2 + n + i, self.stop_in_walk(h, i, is_open=is_open and where == 0)

    def next_failure(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """Where the pool fails on the rest of a segment."""
        if not self.cross:
            return None
        if self.cross_fails(between(start, end, place)):
            return place
        signs = find_signs(lambda at: self.rule.nets(self.legs(between(start, end, at))))
        for stage in sorted({ONE, *(sign for sign in signs if place < sign < 1)}):
            if self.cross_fails(between(start, end, stage)):
                if self.surplus(between(start, end, stage)) > 0:
                    return stage
                return find_fall(lambda at: self.surplus(between(start, end, at)), place, stage)
            place = stage
        return None

    def liquidate_in_walk(self, point: Point) -> None:
        """The pool fails inside the bar."""
        self.note("cross liquidated in the bar")
        self.liquidate_cross(point, is_alone=False)

    def isolated_in_walk(self, holding: Holding, rank: int) -> Callable[[Point], None]:
        """An isolated position fails inside the bar."""

        def act(point: Point) -> None:
            self.note("isolated liquidated in the bar")
            self.liquidate_isolated(holding, point.marks[rank])

        return act

    def stop_in_walk(
        self, holding: Holding, rank: int, *, is_open: bool
    ) -> Callable[[Point], None]:
        """A stop inside the bar, at its price; at the walk's start at the open."""

        def act(point: Point) -> None:
            self.note("stopped in the bar")
            value = point.lasts[rank] if is_open else holding.stop_value()
            self.close_by_stop(holding, value)

        return act

    # ----- step 7 of §2: one position -----

    def walk_alone(self, rank: int, holding: Holding) -> None:
        """§2.7: of stop and liquidation the nearer acts first, at the bar's extremes."""
        while holding.quantity != 0:
            failure = self.failure_alone(rank, holding)
            kind, stop = self.stop_alone(rank, holding) or NONE
            if failure is None and stop is None:
                return
            if self.failure_is_nearer(holding, failure, stop):
                self.note("liquidated alone")
                if holding.is_isolated:
                    self.liquidate_isolated(holding, failure)
                else:
                    marks = list(self.at_marks("open").marks)
                    marks[rank] = failure
                    point = self.at_marks("open")._replace(marks=tuple(marks))
                    self.liquidate_cross(point, is_alone=True)
            else:
                self.note(f"{kind} alone")
                self.close_by_stop(holding, stop, kind)

    def failure_alone(self, rank: int, holding: Holding) -> Decimal | None:
        """``u`` at which the adverse extreme liquidates, between it and the mark open."""
        side = "low" if holding.quantity > 0 else "high"
        start, end = holding.value("mark_open"), holding.value(f"mark_{side}")
        opened = self.at_marks("open")

        def surplus(value: Decimal) -> Decimal:
            return self.surplus_alone(rank, holding, value, opened)

        def fails(value: Decimal) -> bool:
            if holding.is_isolated:
                return holding.isolated_fails(value)
            return self.cross_fails(moved(opened, rank, value))

        if fails(start):
            return start
        if not fails(end):
            return None
        if surplus(end) > 0:
            return end
        share = find_fall(lambda at: surplus(start + at * (end - start)), ZERO, ONE)
        return start + share * (end - start)

    def surplus_alone(self, rank: int, holding: Holding, value: Decimal, opened: Point) -> Decimal:
        """What the position has over its requirement at a value."""
        if holding.is_isolated:
            return holding.isolated_surplus(value)
        return self.surplus(moved(opened, rank, value))

    def stop_alone(
        self, rank: int, holding: Holding, at: str | None = None
    ) -> tuple[str, Decimal] | None:
        """The stop that the last extreme, or a price, reaches first; the open if it is beyond."""
        is_long = holding.quantity > 0
        reached = holding.value(at or ("low" if is_long else "high"))
        found = [("stop", holding.stop_value())] if holding.is_stopped_at(reached) else []
        root = self.root_of_stop(rank, holding, "open")
        if root is not None:
            slack = TIE * abs(root)
            if reached <= root + slack if is_long else reached >= root - slack:
                found.append(("equity_stop", root))
        if not found:
            return None
        kind, value = (max if is_long else min)(found, key=lambda each: each[1])
        return kind, (min if is_long else max)(value, holding.value("open"))

    @staticmethod
    def failure_is_nearer(holding: Holding, failure: Decimal | None, stop: Decimal | None) -> bool:
        """Relative distances in price, each from its own open; a tie liquidates."""
        if failure is None or stop is None:
            return stop is None
        mark, last = holding.price("mark_open"), holding.price("open")
        to_failure = abs(mark - holding.contract.price(failure)) / mark
        to_stop = abs(last - holding.contract.price(stop)) / last
        return to_failure <= to_stop * (ONE + TIE) + EXACT  # both may be 0

    # ----- forced closes -----

    def close_by_stop(self, holding: Holding, value: Decimal, kind: str = "stop") -> None:
        """At the trigger worsened by slippage, with the taker fee.

        The equity stop drops the decisions of all instruments, another one its own.
        """
        self.revalue(holding, value)
        change = -holding.quantity
        side = 1 if change > 0 else -1
        filled = holding.worse(holding.contract.price(value), side, holding.slip)
        self.row["slippage"] += change * (filled - value)
        self.exchange(kind, holding, change, filled, holding.taker)
        for each in self.holdings if kind == "equity_stop" else [holding]:
            each.pending = None

    def liquidate_isolated(self, holding: Holding, value: Decimal) -> None:
        """§5 for one position: the wallet is not touched."""
        self.revalue(holding, value)
        holding.pending = None
        if self.account.after_liquidation == "halt":
            holding.is_halted = True
        mode = holding.venue.liquidation.mode
        if mode == "takeover":
            backing = holding.isolated_backing(value)
            self.log_liquidation(holding, -holding.quantity, value)
            holding.quantity = holding.margin = ZERO
            self.row["liquidation_loss"] += max(backing, ZERO)
            self.row["bad_debt"] += max(-backing, ZERO)
        elif mode == "close":
            self.force_isolated_part(holding, holding.quantity, value)
        else:
            self.isolated_steps(holding, value)

    def isolated_steps(self, holding: Holding, value: Decimal) -> None:
        """``partial``: again while the requirement fails at this price."""
        initial = abs(holding.quantity)
        is_empty = holding.isolated_backing(value) <= TIE * abs(holding.quantity * value)
        while holding.quantity != 0:
            needed = bracket_requirement(holding.leg(value))
            size, left = abs(holding.quantity * value), holding.isolated_backing(value)
            debt = max(size - left, ZERO)
            weights = (size - needed, debt, debt)
            if holding.quantity < 0:
                weights = (size + left, size + needed, ZERO)
            repaid = repaid_by(holding, value, *weights)
            if repaid is not None:
                self.note("whole debt repaid")
            part = part_to_close(holding, value, initial, repaid)
            part = holding.quantity if is_empty else part
            is_empty = self.force_isolated_part(holding, part, value)
            if not (is_empty or holding.isolated_fails(value)):
                return

    def force_isolated_part(self, holding: Holding, part: Decimal, value: Decimal) -> bool:
        """Close a part; what a step frees stays in M. True: nothing is left behind it."""
        worsened = holding.forced_value(part, value)
        loss = part * (value - worsened)
        self.log_liquidation(holding, -part, value)
        holding.margin += part * (worsened - holding.entry)
        holding.quantity -= part
        left = holding.margin + (holding.profit(value) if holding.quantity != 0 else ZERO)
        asked = holding.forced_fee * abs(part * worsened)
        takes_all = asked * (ONE + TIE) >= left
        fee = max(left, ZERO) if takes_all else asked
        holding.margin -= fee
        self.row["liquidation_loss"] += loss + fee
        if holding.quantity == 0:
            rest, holding.margin = holding.margin, ZERO
            self.cash += max(rest, ZERO)
            self.row["bad_debt"] += max(-rest, ZERO)
        return takes_all

    def log_liquidation(self, holding: Holding, change: Decimal, value: Decimal) -> None:
        """A forced trade."""
        self.row["traded"] += abs(change * value)
        self.log("liquidation", holding.name, change, abs(change * value))

    def liquidate_cross(self, point: Point, *, is_alone: bool) -> None:
        """The pool is liquidated at the prices of a point."""
        for i, h in self.cross:
            self.revalue(h, point.marks[i])
        self.is_pool_liquidated = True
        for h in self.holdings:
            if not h.is_isolated:
                h.pending = None
        if self.account.after_liquidation == "halt":
            self.is_halted = True
            for h in self.holdings:  # what has not filled yet closes
                h.pending = (0.0, 0.0) if h.pending else None
        self.note(f"pool: {self.mode}" + " alone" * is_alone)
        if self.mode == "takeover":
            self.take_over(point)
        elif self.mode == "close":
            self.close_pool(point)
        else:
            self.pool_steps(point, is_alone=is_alone)

    def take_over(self, point: Point) -> None:
        """Cross positions, B and all collateral are lost; a negative rest is bad debt."""
        self.revalue_assets(point.assets)
        lost = self.cash + sum((h.quantity * point.marks[i] for i, h in self.cross), ZERO)
        lost += self.in_full(point)
        for i, h in self.cross:
            self.log_liquidation(h, -h.quantity, point.marks[i])
            h.quantity = ZERO
        for asset in self.assets:
            asset.amount = ZERO
        self.cash = ZERO
        self.row["liquidation_loss"] += max(lost, ZERO)
        self.row["bad_debt"] += max(-lost, ZERO)

    def close_pool(self, point: Point) -> None:
        """All positions at their worsened prices, then collateral, then the fees."""
        asked = ZERO
        for i, h in self.cross:
            value = point.marks[i]
            worsened = h.forced_value(h.quantity, value)
            self.log_liquidation(h, -h.quantity, value)
            self.cash += h.quantity * worsened
            self.row["liquidation_loss"] += h.quantity * (value - worsened)
            asked += h.forced_fee * abs(h.quantity * worsened)
            h.quantity = ZERO
        if self.cash < 0 and self.has_collateral:
            self.sell(-self.cash, point.assets)
        left = max(self.cash + self.worth_of_assets(point.assets), ZERO)
        fee = left if asked * (ONE + TIE) >= left else asked
        self.cash -= fee
        self.row["liquidation_loss"] += fee
        if self.cash < 0 and self.has_collateral:
            self.sell(-self.cash, point.assets)
        self.settle_pool()

    def settle_pool(self) -> None:
        """Bad debt only when no cross position and no collateral is left."""
        if not self.cross and not self.has_collateral and self.cash < 0:
            self.row["bad_debt"] -= self.cash
            self.cash = ZERO

    def pool_steps(self, point: Point, *, is_alone: bool) -> None:
        """``partial``: one position at a time, found anew, until the requirement holds here."""
        initial = {h.name: abs(h.quantity) for _, h in self.cross}
        while True:
            gross = sum((abs(h.quantity * point.marks[i]) for i, h in self.cross), ZERO)
            if self.backing(point) <= TIE * gross:
                self.close_pool(point)
                return
            chosen = self.next_step(point, initial, is_alone=is_alone)
            if chosen is None:
                self.note("no step raises the surplus")
                self.close_pool(point)
                return
            self.force_pool_part(*chosen, point)
            if not self.cross:
                self.settle_pool()
                return
            if not self.cross_fails(point):
                return

    def next_step(
        self, point: Point, initial: Mapping[str, Decimal], *, is_alone: bool
    ) -> tuple[Holding, Decimal, int] | None:
        """The first step in the venue's order that raises M - level·R."""
        steps, weights = [], self.weigh(point)
        for i, h in self.cross:
            repaid = repaid_by(h, point.marks[i], *weights)
            if repaid is not None:
                self.note("whole debt repaid")
            part = part_to_close(h, point.marks[i], initial[h.name], repaid)
            steps.append((h, part, i))
        if is_alone:
            return steps[0]
        floor = TIE * self.required(point)
        gains = {h.name: self.gain(h, part, i, point) for h, part, i in steps}
        ranked = sorted(steps, key=lambda step: self.rank_of(step, gains, point))
        for step in ranked:
            gain = gains[step[0].name]
            if gain > floor:
                return step
            self.note("a step passed over")
        return None

    def weigh(self, point: Point) -> tuple[Decimal, Decimal, Decimal]:
        """Assets at their thresholds, debts at theirs, and the cash owed: the health of the pool.

        A long is an asset less its requirement, a short a debt plus it; the cash is the rest of M.
        """
        pairs = zip(self.assets, point.assets, strict=True)
        assets = sum((a.counted(p) for a, p in pairs), ZERO)
        cash, debts = self.backing(point) - assets, ZERO
        if not isinstance(self.rule, Standard):
            return assets, debts, ZERO
        for i, h in self.cross:
            size = abs(h.quantity * point.marks[i])
            needed = self.level * bracket_requirement(h.leg(point.marks[i]))
            if h.quantity > 0:
                assets, cash = assets + size - needed, cash - size
            else:
                debts, cash = debts + size + needed, cash + size
        return assets + max(cash, ZERO), debts + max(-cash, ZERO), max(-cash, ZERO)

    def gain(self, holding: Holding, part: Decimal, rank: int, point: Point) -> Decimal:
        """What a step adds to M - level·R, after worsening and fee."""
        value = point.marks[rank]
        worsened = holding.forced_value(part, value)
        loss = part * (value - worsened)
        fee = self.step_fee(holding, part, worsened, self.backing(point) - loss)
        before = self.required(point)
        after = self.required(point, {holding.name: holding.quantity - part})
        return before - after - loss - fee

    @staticmethod
    def step_fee(holding: Holding, part: Decimal, worsened: Decimal, left: Decimal) -> Decimal:
        """At most M after the step."""
        asked = holding.forced_fee * abs(part * worsened)
        return max(left, ZERO) if asked * (ONE + TIE) >= left else asked

    def rank_of(
        self, step: tuple[Holding, Decimal, int], gains: Mapping[str, Decimal], point: Point
    ) -> tuple[Decimal, int]:
        """Where a position stands in the venue's order; ties in the order given."""
        h, part, i = step
        value = point.marks[i]
        if self.order == "most_relief":
            return -gains[h.name] / abs(part * value), i
        if self.order == "largest_loss":
            return h.profit(value), i
        if self.order == "largest_requirement":
            return -self.rule.requirement([h.leg(value)], []), i
        if self.order == "largest_notional":
            return -abs(h.quantity * value), i
        names = list(self.order)
        return Decimal(names.index(h.name) if h.name in names else len(names)), i

    def force_pool_part(self, holding: Holding, part: Decimal, rank: int, point: Point) -> None:
        """One step: worsened, with a fee of at most what backs the pool after it."""
        value = point.marks[rank]
        worsened = holding.forced_value(part, value)
        self.log_liquidation(holding, -part, value)
        self.cash += part * worsened
        holding.quantity -= part
        loss = part * (value - worsened)
        fee = self.step_fee(holding, part, worsened, self.backing(point))
        self.cash -= fee
        self.row["liquidation_loss"] += loss + fee

    # ----- step 8 -----

    def step_8_close(self) -> None:
        """Delistings, mark to market, bad debt, ruin, calls, the record."""
        point = self.at_marks("close")
        for i, h in self.held():
            self.revalue(h, point.marks[i])
        self.revalue_assets(point.assets)
        for i, h in self.held():
            if self.is_delisted(h):
                self.delist(h, point.marks[i])
        self.settle_pool()
        if self.equity(point) < 0:
            self.note("negative equity at a close")
            self.row["bad_debt"] -= self.equity(point)
            self.cash -= self.equity(point)
        self.test_ruin(point)
        self.follow_highest(self.equity(point))
        self.check_identity(point)
        self.must_convert = self.has_collateral and self.balance() < -self.negative_limit
        self.test_calls(point)
        self.record(point)

    def is_delisted(self, holding: Holding) -> bool:
        """Whether this is the last bar of an instrument before the end of the clock."""
        is_last = holding.here == holding.end - holding.first - 1
        return is_last and self.t < len(self.clock) - 1

    def delist(self, holding: Holding, value: Decimal) -> None:
        """Closed in its last bar at the mark close, with the taker fee."""
        self.exchange("delisted", holding, -holding.quantity, value, holding.taker)

    def test_ruin(self, point: Point) -> None:
        """§5, of the whole account."""
        costs = sum(self.row[name] for name in COSTS)
        gains = self.row["price_pnl"] + self.row["collateral_pnl"] + self.row["bad_debt"]
        if self.is_ruined or not gains < costs:
            return
        equity = self.equity(point)
        wealth = equity + self.reserve
        is_gone = equity <= NOTHING_LEFT * self.paid_in * (ONE + TIE)
        is_under = wealth <= self.ruin_at * self.paid_in * (ONE + TIE)
        if not (is_gone or is_under or self.is_poor(wealth)):
            return
        self.note("ruined")
        self.is_ruined = True
        for i, h in self.held():
            value = point.marks[i]
            self.row["traded"] += abs(h.quantity * value)
            self.log("ruin", h.name, -h.quantity, abs(h.quantity * value))
            self.cash += h.isolated_backing(value) if h.is_isolated else h.quantity * value
            h.quantity = h.margin = ZERO
        self.settle_pool()

    def is_poor(self, wealth: Decimal) -> bool:
        """Flat, and unable to afford the least order of any instrument."""
        if self.held() or not self.present:
            return False
        return all(self.is_too_poor_for(h, wealth) for h in self.present)

    def is_too_poor_for(self, holding: Holding, wealth: Decimal) -> bool:
        """Wealth times the largest leverage allowed is under the least order."""
        limit = float(holding.most(self.stamp))
        if limit == 0:
            return False
        allowed = max(leverage for _, leverage in holding.limits())
        most = allowed if math.isinf(limit) else min(allowed, exact(limit))
        lot = holding.lot * abs(holding.value("mark_close"))
        return wealth * most < max(holding.least, lot) * (ONE - TIE)

    def test_calls(self, point: Point) -> None:
        """Calls of the pool and of each isolated position."""
        self.test_call(self.pool, None, point)
        for h in self.holdings:
            if h.is_isolated and h.here is not None:
                self.test_call(h.call, h, point)

    def test_call(self, call: Call, holding: Holding | None, point: Point) -> None:
        """The ratio crosses ``margin_call`` from below."""
        before, call.ratio = call.ratio, self.margin_ratio(point, holding)
        call.is_called = False
        if self.account.margin_call is None:
            return
        if call.ratio < self.call_level():
            call.unmet = 0
            return
        call.is_called = before < self.call_level() or call.was_forced
        call.unmet = 1 if call.is_called else call.unmet + (call.unmet > 0)
        if call.is_called:
            self.log("margin_call", "" if holding is None else holding.name, amount=call.ratio)

    def check_identity(self, point: Point) -> None:
        """§6: the change of equity is the sum of its causes."""
        before = self.out.equity[-1] if self.out.equity else self.wealth_at_start
        equity = self.equity(point)
        causes = sum(self.row[name] for name in GAINS) - sum(self.row[name] for name in COSTS)
        scale = max(abs(before), equity, self.row["traded"], abs(self.row["price_pnl"]), ONE)
        if abs(equity - before - causes) > EXACT * scale:
            raise AssertionError(f"bar {self.t}: {equity} - {before} is not {causes}")
        if equity < -EXACT * scale:
            raise AssertionError(f"bar {self.t}: equity {equity} is negative")

    def record(self, point: Point) -> None:
        """One row of each column."""
        out = self.out
        out.equity.append(self.equity(point))
        out.cash.append(self.cash)
        out.quantity.append(tuple(h.quantity for h in self.holdings))
        out.margin.append(tuple(h.margin for h in self.holdings))
        out.entry.append(tuple(h.entry for h in self.holdings))
        out.collateral.append(tuple(a.amount for a in self.assets))
        out.reserve.append(self.reserve)
        out.ratio.append(self.pool.ratio)
        out.backing.append(self.backing(point))
        out.traded.append(self.row["traded"])
        out.ruined.append(self.is_ruined)
        for name in (*COSTS, *GAINS):
            out.rows.setdefault(name, []).append(self.row[name])


# ---------------------------------------------------------------------------------------------
# Places inside a segment


def between(start: Point, end: Point, place: Decimal) -> Point:
    """The point a share of the way along a segment, linear in u."""
    if place == 0:
        return start
    if place == 1:
        return end
    return Point(*(mix(a, b, place) for a, b in zip(start, end, strict=True)))


def mix(
    start: Sequence[Decimal | None], end: Sequence[Decimal | None], place: Decimal
) -> tuple[Decimal | None, ...]:
    """Values a share of the way from one to another."""
    return tuple(
        None if a is None else a + place * (b - a) for a, b in zip(start, end, strict=True)
    )


def moved(point: Point, rank: int, value: Decimal) -> Point:
    """A point with one instrument's mark at another value."""
    marks = list(point.marks)
    marks[rank] = value
    return point._replace(marks=tuple(marks))


def next_isolated_failure(
    holding: Holding, start: Decimal, end: Decimal, place: Decimal
) -> Decimal | None:
    """Where an isolated position fails on the rest of a segment."""
    if holding.isolated_fails(start + place * (end - start)):
        return place
    if not holding.isolated_fails(end):
        return None
    if holding.isolated_surplus(end) > 0:
        return ONE
    return find_fall(lambda at: holding.isolated_surplus(start + at * (end - start)), place, ONE)


def next_stop(holding: Holding, start: Decimal, end: Decimal, place: Decimal) -> Decimal | None:
    """Where the last price reaches the stop on the rest of a segment."""
    if holding.stop_value() is None:
        return None
    if holding.is_stopped_at(start + place * (end - start)):
        return place
    if not holding.is_stopped_at(end):
        return None
    where = (holding.stop_value() - start) / (end - start)
    return min(ONE, max(place, where))


def repaid_by(
    holding: Holding, value: Decimal, assets: Decimal, debts: Decimal, debt: Decimal
) -> Decimal | None:
    """Contracts whose sale repays the whole debt, where the health factor is low; None elsewhere.

    A short owes its contracts; a long repays no debt where no cash is owed.
    """
    if holding.healthy == 0 or assets > holding.healthy * debts:
        return None
    if holding.quantity < 0:
        return holding.quantity
    kept = (ONE - holding.forced_fee) * (ONE - holding.forced_slip)
    return min(holding.quantity, debt / kept / abs(value)) if debt > 0 else None


def part_to_close(
    holding: Holding, value: Decimal, initial: Decimal, repaid: Decimal | None
) -> Decimal:
    """One step of a partial liquidation, or all of the position when it is small."""
    rules = holding.venue.liquidation
    notional = abs(holding.quantity * value)
    if notional <= holding.full_below:
        return holding.quantity
    if repaid is not None:
        return repaid
    if rules.step == "bracket":
        kept = holding.table.floors[holding.table.index(notional)] / notional
    else:
        kept = ONE - exact(rules.step)
    if kept * abs(holding.quantity) < REMAINDER * initial:
        return holding.quantity
    return holding.quantity * (ONE - kept)


def events_of(
    market: Any, jitter: int, interval: int
) -> Iterator[tuple[int, tuple[int, bool], Settlement]]:
    """§2.2: stamp, (bar of the market, whether at its open), and event."""
    opens = [int(stamp) for stamp in market.time]
    rows = zip(market.funding_time, market.funding_rate, market.funding_mark, strict=True)
    for stamp, rate, mark in rows:
        event = Settlement(exact(rate), None if math.isnan(mark) else exact(mark))
        following = bisect_left(opens, int(stamp) - jitter)
        if following < len(opens) and opens[following] <= int(stamp) + jitter:
            yield int(stamp), (following, True), event
        elif following > 0 and int(stamp) < opens[following - 1] + interval - jitter:
            yield int(stamp), (following - 1, False), event
    for bar, event in dividends_of(market):
        yield opens[bar], (bar, True), event


def simulate(
    markets: Mapping[str, Any],
    targets: Mapping[str, Sequence[float]],
    signals: Mapping[str, Sequence[float]],
    venues: Mapping[str, Any],
    account: Any,
    overlay: Sequence[float] | None = None,
) -> Outcome:
    """Run the rules over several markets.

    Parameters
    ----------
    markets, venues
        By instrument, in the order that counts; arrays and attributes as ``tests/reference.py``
        takes them. A market's times are a contiguous part of the union of all times.
    targets, signals
        By instrument, what was decided at the close of each bar of the clock.
    account
        The attributes of an account; ``requirement`` None is ``Brackets()``.
    overlay
        The overlay's leverage at the close of each bar of the clock; None without one.
    """
    with localcontext(Context(prec=DIGITS)):
        return Portfolio(markets, targets, signals, venues, account, overlay).run()
