"""One instrument of the account: its market on the clock, its terms, and what is held of it."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

from tests.oracle.decisions import Answers, Decisions
from tests.oracle.numbers import (
    DAY,
    LOT_TOLERANCE,
    NOTHING_LEFT,
    ONE,
    TIE,
    WORST,
    ZERO,
    AsOf,
    Contract,
    decimals,
    exact,
    nanoseconds,
    per_name,
)
from tests.oracle.outcome import impact_statistics
from tests.oracle.requirement import Brackets, Leg, brackets_of

PRICES = ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close")


class Call:
    """The margin call of the pool, or of one isolated position (§5)."""

    def __init__(self) -> None:
        self.ratio = ZERO
        self.is_called = self.is_open = self.was_forced = self.was_liquidated = False
        self.called_at: int | None = None  # that no liquidation or recovery has followed
        self.unmet = 0  # closes since the call, for the grace


class Resting(NamedTuple):
    """A limit order: the contracts that it changes, its price and the price that must trade."""

    change: Decimal
    limit: Decimal
    through: Decimal
    adds: bool

    @property
    def is_buy(self) -> bool:
        return self.change > 0

    def is_reached(self, price: Decimal) -> bool:
        return price <= self.through if self.is_buy else price >= self.through


def read_prices(market: Any) -> dict[str, list[Decimal]]:
    """Prices and volume as exact numbers; a market without marks has its last prices twice."""
    prices: dict[str, list[Decimal]] = {}
    for name in (*PRICES, "volume"):
        values = getattr(market, name)
        last = name.removeprefix("mark_")
        is_last = last != name and values is getattr(market, last)
        prices[name] = prices[last] if is_last else decimals(values)
    return prices


class Position:
    """One instrument of the account."""

    def __init__(
        self,
        name: str,
        rank: int,
        market: Any,
        venue: Any,
        account: Any,
        clock: Sequence[int],
        answers: Answers,
    ) -> None:
        self.name, self.rank, self.market, self.venue = name, rank, market, venue
        self.contract = Contract(venue.contract.kind != "inverse", exact(venue.contract.size))
        self.is_spot = venue.contract.kind == "spot"
        self.haircut = exact(venue.contract.haircut) if self.is_spot else ZERO
        self.coin_rate = AsOf(venue.contract.borrow_rate) if self.is_spot else None

        self.read_venue()
        self.read_account(account)

        self.prices = read_prices(market)
        self.dated: dict[int, AsOf] = {}  # costs by time that were read, by identity
        self.table_of: tuple[Decimal, ...] = ()  # what the last table was made of
        self.first = bisect_left(clock, int(market.time[0]))
        self.last = self.first + len(market.time) - 1
        self.policy = Decisions(market, answers, self.first)

        self.target = math.nan  # what the policy decided at the last close
        self.quantity = self.margin = ZERO  # signed contracts; M of an isolated position
        self.entry = self.valued_at = ZERO  # u: the average, and where price pnl was last taken
        self.best = ZERO  # the best last price since the position was opened
        self.realized = ZERO  # in this bar

        self.is_halted = False
        self.call = Call()
        self.pending: tuple[float, float] | None = None
        self.limit_price: Decimal | None = None  # at which orders are sized, but for the open
        self.resting: Resting | None = None

        self.is_opened = self.is_increased = False  # by a limit order in this bar
        self.has_setting = "setting" in getattr(market, "columns", {})
        self.asked: float | None = None  # the venue leverage that was decided
        self.refused: set[str] = set()  # moves of margin that were not granted in full since
        self.opened_at = 0  # from flat

    def read_venue(self) -> None:
        venue = self.venue
        slip = self.venue.slippage
        forced = self.venue.liquidation
        self.lot, self.least = exact(venue.contract.lot), exact(venue.contract.min_notional)

        rounds = getattr(venue.contract, "round_to_tick", False)
        self.tick = exact(venue.contract.tick) if rounds else None
        self.step = exact(venue.contract.tick)
        self.expense = exact(getattr(venue.contract, "expense", 0.0))
        self.fee_per_order = AsOf(getattr(venue.fees, "per_order", 0.0))

        self.impact_factor = exact(slip.impact)
        part = slip.max_participation
        self.participation = None if part is None else exact(part)
        self.forced_impact = exact(getattr(forced, "impact", 0.0))

        self.full_below = exact(forced.full_below)
        self.healthy = exact(getattr(forced, "full_below_health", 0.0))

        own = (getattr(venue, f"{kind}_multiplier", None) for kind in ("maintenance", "initial"))
        self.multiplier, self.initial_multiplier = (
            AsOf(venue.margin_multiplier if each is None else each) for each in own
        )

        counted = getattr(venue, "profit_counts", "all")
        self.counted = exact({"all": 1.0, "losses": 0.0}.get(counted, counted))

        has_impact = self.impact_factor or self.forced_impact
        self.statistics = None
        if has_impact:
            window = nanoseconds(slip.impact_window)
            self.statistics = impact_statistics(self.market, self.contract, window)

    def read_account(self, account: Any) -> None:
        name = self.name
        self.is_isolated = per_name(account.margin, name, "cross") == "isolated"

        setting = per_name(account.venue_leverage, name)
        self.setting = None if setting is None else exact(setting)

        self.floor = per_name(account.min_leverage, name, 0.0)
        self.most = AsOf(per_name(account.max_leverage, name, math.inf))
        self.band = exact(per_name(account.band, name, 0.0))

        share = per_name(getattr(account, "margin_share", None), name)
        self.share = None if share is None else exact(share)

        self.fills = getattr(account, "fill", "next_open")

        longest = per_name(getattr(account, "max_holding", None), name)
        self.longest = None if longest is None else nanoseconds(longest)

        offset = per_name(getattr(account, "offset", None), name)
        self.offset = None if offset is None else exact(offset)

        self.stops = {
            kind: per_name(getattr(account, kind, None), name)
            for kind in ("stop_loss", "trailing_stop", "take_profit")
        }

    # ----- the bar -----

    def begin(self, t: int, stamp: int, volume_before: Decimal) -> None:
        """The rules in force at a bar; the traded volume of 30 days chooses the fees."""
        self.here = t - self.first if self.first <= t <= self.last else None
        self.realized, self.call.was_liquidated = ZERO, False
        self.resting, self.is_opened, self.is_increased = None, False, False

        if self.here is None:
            return

        self.read_decision(self.here - 1)
        self.choose_costs(stamp)
        self.choose_fees(volume_before, stamp)
        self.order_fee, self.limit = self.fee_per_order(stamp), self.most(stamp)

        close_fee = self.taker if self.venue.includes_close_fee else ZERO
        terms = (self.multiplier(stamp), self.initial_multiplier(stamp), close_fee)
        if terms != self.table_of:
            self.table: Brackets = brackets_of(self.venue, *terms)
            self.table_of = terms

    def read_decision(self, row: int) -> None:
        """What the policy decided at the close before: leverage, and the setting at the venue."""
        self.target, self.asked = math.nan, None
        if row < 0:
            return

        self.target = self.policy.decide(row)

        setting = self.market.columns["setting"][row] if self.has_setting else math.nan

        if self.policy.is_asked(row) and not math.isnan(setting):
            self.asked = float(setting)

    def choose_costs(self, stamp: int) -> None:
        """§4.5: what worsens a fill, and what a liquidation costs, in this bar."""
        slip = self.venue.slippage
        forced = self.venue.liquidation
        self.slip = self.now(slip.rate, stamp) + self.now(getattr(slip, "spread", 0.0), stamp) / 2

        self.forced_fee, self.forced_slip = (
            self.now(each, stamp) for each in (forced.fee, forced.slippage)
        )

    def now(self, cost: Any, stamp: int) -> Decimal:
        """A cost as of the open, or the last known value of a column at the close before."""
        if not isinstance(cost, str):
            if id(cost) not in self.dated:
                self.dated[id(cost)] = AsOf(cost)
            return self.dated[id(cost)](stamp)
        known = self.market.columns[cost][: max(self.here, 1)]
        return exact(next(float(each) for each in known[::-1] if not math.isnan(each)))

    def choose_fees(self, volume: Decimal, stamp: int) -> None:
        """§4.7: the rates of the last tier that is reached, mixed by the maker share."""
        fees = self.venue.fees
        for tier in getattr(fees, "tiers", None) or ():
            if volume * (ONE + NOTHING_LEFT) >= exact(tier.volume):
                fees = tier

        share = exact(self.venue.fees.maker_share)
        self.taker, self.maker = self.now(fees.taker, stamp), self.now(fees.maker, stamp)
        self.fee = self.taker * (ONE - share) + self.maker * share

    def price(self, name: str) -> Decimal:
        """A price of this bar; ``fill`` is that at which decisions fill (§2)."""
        if name == "fill":
            if self.limit_price is not None:
                return self.limit_price
            if self.fills == "same_close" and self.here > 0:
                return self.prices["close"][self.here - 1]
            name = "close" if self.fills == "next_close" else "open"
        return self.prices[name][self.here]

    def value(self, name: str) -> Decimal | None:
        """``u`` of a price of this bar; None without a bar."""
        return None if self.here is None else self.contract.value(self.price(name))

    def is_old(self, stamp: int) -> bool:
        """§5: held from flat for the longest time."""
        return self.longest is not None and stamp - self.opened_at >= self.longest

    # ----- margin (§3) -----

    @property
    def effective_setting(self) -> Decimal | None:
        """The leverage set at the venue, as far as the first bracket allows it in this bar."""
        return None if self.setting is None else min(self.setting, self.table.leverages[0])

    def limits(self) -> list[tuple[Decimal, Decimal]]:
        """Pairs of cap and leverage; one of them must admit an order."""
        pairs = list(zip(self.table.caps, self.table.leverages, strict=True))

        setting = self.effective_setting
        if setting is None:
            return pairs
        return [(max(cap for cap, leverage in pairs if leverage >= setting), setting)]

    def leg(self, value: Decimal, quantity: Decimal | None = None) -> Leg:
        return Leg(
            self.name, self.quantity if quantity is None else quantity, value, self.entry,
            self.contract.is_linear, self.table, self.effective_setting,
            self.venue.maintenance_at == "entry", self.contract.size,
        )  # fmt: skip

    def withheld(self, value: Decimal, quantity: Decimal) -> Decimal:
        """Of a long spot leg: the part of its value that backs nothing."""
        return self.haircut * max(quantity, ZERO) * value if self.haircut else ZERO

    def profit(self, value: Decimal) -> Decimal:
        return self.quantity * (value - self.entry)

    def uncounted(self, value: Decimal) -> Decimal:
        """§4.3: the part of an unrealized profit that backs no order and no withdrawal."""
        return (ONE - self.counted) * max(self.profit(value), ZERO)

    def backing(self, value: Decimal) -> Decimal:
        """Of an isolated position: M + q·(u - u_entry)."""
        return self.margin + self.profit(value)

    def surplus(self, value: Decimal) -> Decimal:
        return self.backing(value) - self.leg(value).maintenance

    def fails(self, value: Decimal) -> bool:
        """Whether an isolated position fails; equality counts."""
        return self.backing(value) <= self.leg(value).maintenance * (ONE + TIE)

    # ----- prices and sizes of trades (§4) -----

    def impact(self, notional: Decimal, factor: Decimal) -> Decimal:
        """§4.6: over the window that ends at bar t - 1; 0 where it is not known."""
        statistics = self.statistics[self.here - 1] if self.statistics and self.here else None
        if statistics is None:
            return ZERO

        sigma, volume = statistics
        return factor * sigma * (notional / volume).sqrt()

    def worsening(self, notional: Decimal) -> Decimal:
        return min(self.slip + self.impact(notional, self.impact_factor), WORST)

    def worse(self, price: Decimal, side: int, worsening: Decimal) -> Decimal:
        """``u`` of a price moved against the trader: up for a buyer, down for a seller."""
        return self.contract.value(price * (ONE + side * worsening))

    def on_tick(self, value: Decimal, side: int) -> Decimal:
        """§4.6: in whole ticks where the contract rounds, against the trader."""
        if self.tick is None:
            return value

        steps = self.contract.price(value) / self.tick - side * LOT_TOLERANCE
        whole = steps.to_integral_value(ROUND_CEILING if side > 0 else ROUND_FLOOR)
        return self.contract.value(max(whole, ONE) * self.tick)

    def forced_value(self, part: Decimal, value: Decimal) -> Decimal:
        worsening = self.forced_slip + self.impact(abs(part * value), self.forced_impact)
        side = -1 if part > 0 else 1
        return self.worse(self.contract.price(value), side, min(worsening, WORST))

    def cost(self, side: int, worsening: Decimal) -> Decimal:
        """κ of §3: worsening and fee per unit of notional at the open."""
        before = self.value("fill")
        after = self.on_tick(self.worse(self.price("fill"), side, worsening), side)
        return (abs(after - before) + self.fee * abs(after)) / abs(before)

    @property
    def reducing_cost(self) -> Decimal:
        """κ of a forced reduction, which has no impact."""
        return self.cost(-1 if self.quantity > 0 else 1, self.slip)

    def truncated(self, size: Decimal) -> Decimal:
        """A size in whole lots, with the tolerance of 1e-6 lots."""
        if self.lot == 0:
            return size
        return (size / self.lot + LOT_TOLERANCE).to_integral_value(ROUND_FLOOR) * self.lot

    def ordered(self, quantity: Decimal) -> Decimal:
        """§4.4 and 4.5: the change, in whole lots, as far as the volume admits."""
        change = quantity - self.quantity
        if self.participation is not None and self.here:
            most = self.participation * self.prices["volume"][self.here - 1]
            if abs(change) > most:  # the rest waits for the next decision
                change = self.truncated(most).copy_sign(change)
                is_flat = abs(self.quantity + change) < LOT_TOLERANCE * self.lot
                return -self.quantity if is_flat else change

        whole = self.truncated(abs(quantity)).copy_sign(quantity)
        adds = quantity * self.quantity > 0 and abs(quantity) >= abs(self.quantity)
        if adds and abs(whole) < abs(self.quantity):  # less than a lot to add to an odd position
            return ZERO
        return whole - self.quantity

    # ----- stops (§5), at prices -----

    def losing_stops(self) -> list[tuple[str, Decimal]]:
        entry = self.contract.price(self.entry)
        found = [
            ("stop", self.stop_price("stop_loss", entry, -1)),
            ("trailing_stop", self.stop_price("trailing_stop", self.best, -1)),
        ]
        return [(kind, price) for kind, price in found if price is not None]

    def goals(self) -> list[tuple[str, Decimal]]:
        price = self.stop_price("take_profit", self.contract.price(self.entry), 1)
        return [] if price is None else [("take_profit", price)]

    def stop_price(self, name: str, start: Decimal, side: int) -> Decimal | None:
        """A distance from a price: a fraction of it, or a multiple of a column."""
        stop = self.stops[name]
        if stop is None or start <= 0:
            return None

        if hasattr(stop, "column"):
            rows = self.market.columns[stop.column]
            before = self.here
            if getattr(stop, "fixed", False):  # the bars that were closed when it was opened
                before = sum(1 for stamp in self.market.time.tolist() if stamp < self.opened_at)

            known = float(rows[before - 1]) if before else math.nan
            if math.isnan(known) or known == 0:
                return None

            distance = exact(stop.multiple) * exact(known)
            distance = distance if stop.unit == "price" else distance * start
        else:
            distance = exact(stop) * start

        price = start + side * (1 if self.quantity > 0 else -1) * distance
        return price if price > 0 else None

    def stop_reached(
        self, low: Decimal, high: Decimal, more: Sequence[tuple[str, Decimal]] = ()
    ) -> tuple[str, Decimal] | None:
        """Kind and price of the stop that prices from low to high reach, losses first."""
        is_long = self.quantity > 0
        adverse, favorable = (low, high) if is_long else (high, low)

        losing = [
            stop for stop in (*self.losing_stops(), *more) if reaches(adverse, stop[1], is_long)
        ]
        if losing:  # the nearest is the first that an adverse move meets
            return (max if is_long else min)(losing, key=lambda stop: stop[1])

        goals = [goal for goal in self.goals() if reaches(favorable, goal[1], not is_long)]
        return goals[0] if goals else None

    def follow_best(self) -> None:
        """What the trailing stop compares with: the bar, or of what an order opened its close."""
        if self.quantity != 0 and self.here is not None:
            is_long = self.quantity > 0
            reached = self.price("close" if self.is_opened else "high" if is_long else "low")
            self.best = (max if is_long else min)(self.best, reached)


def reaches(price: Decimal, stop: Decimal, is_falling: bool) -> bool:
    """§2: a price is at or beyond a stop, with the tolerance in favor of the event."""
    return price <= stop * (ONE + TIE) if is_falling else price >= stop * (ONE - TIE)


def traded_before(day: int, clock: Sequence[int], traded: Sequence[Decimal]) -> Decimal:
    """§4.7: the notional traded on the 30 UTC days before a day."""
    pairs = zip(clock, traded, strict=False)
    return sum((amount for stamp, amount in pairs if day - 30 <= stamp // DAY < day), ZERO)
