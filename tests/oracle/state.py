"""The state of the account, what it is worth at a point, and how amounts are booked."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.oracle import outcome
from tests.oracle.decisions import Answers
from tests.oracle.numbers import DAY, INFINITY, ONE, TIE, ZERO, AsOf, decimals, exact, nanoseconds
from tests.oracle.option_margin import Holding, Moment, OptionState, margin_rule
from tests.oracle.position import PRICES, Call, Position, traded_before
from tests.oracle.requirement import Asset, Collateral, Leg

Sizes = Mapping[str, Decimal]  # contracts by name


class Point(NamedTuple):
    """One place inside a bar; None where an instrument has no bar. ``indices`` are ``u`` of what
    options are valued at, where that is not the marks."""

    marks: tuple[Decimal | None, ...]
    lasts: tuple[Decimal | None, ...]
    assets: tuple[Decimal, ...]
    indices: tuple[Decimal | None, ...] = ()


class State:
    """The account between events."""

    def __init__(
        self,
        markets: Mapping[str, Any],
        targets: Mapping[str, Answers],
        signals: Mapping[str, Sequence[float]],
        venues: Mapping[str, Any],
        account: Any,
        overlay: Sequence[float] | None = None,
        clock: Sequence[int] | None = None,
    ) -> None:
        self.signals, self.overlay = signals, overlay
        self.account, self.venue = account, venues[next(iter(markets))]  # the account's: all agree
        stamps = {int(stamp) for m in markets.values() for stamp in m.time}
        self.clock = sorted(stamps if clock is None else clock)
        self.positions = [
            Position(name, rank, markets[name], venues[name], account, self.clock, targets[name])
            for rank, name in enumerate(markets)
        ]
        self.options = [
            OptionState(each, k) for k, each in enumerate(getattr(account, "options", ()))
        ]
        self.places = {each.name: each.rank for each in self.positions}
        self.moment = Moment(0, is_close=False)
        self.read_account()
        self.read_collateral()
        self.external = outcome.flows_by_bar(self.clock, account.flows)
        self.read_funding()
        self.capital = self.cash + self.in_full([prices["open"][0] for prices in self.asset_prices])
        self.highest = self.capital  # equity at a close, for the equity stop
        self.paid_in = self.capital + self.reserve  # §5
        self.out = outcome.Outcome(tuple(markets), self.capital)
        if self.options:
            self.note("coin" if self.options[0].given.is_coin else "cash")

    def read_account(self) -> None:
        """The account in exact numbers; its state before the first bar."""
        account = self.account
        venue = self.venue
        rule = getattr(account, "requirement", None)
        self.level = exact(getattr(rule, "level", 1.0))
        self.rule = margin_rule(rule)
        limit = getattr(account, "negative_limit", None)
        self.negative_limit = ZERO if limit is None else exact(limit)
        self.max_gross = getattr(account, "max_gross_leverage", math.inf)
        self.intrabar = getattr(account, "intrabar", "path")
        self.fills = getattr(account, "fill", "next_open")
        self.has_auto_margin = getattr(account, "auto_margin", False)
        stop = getattr(account, "equity_stop", None)
        self.equity_stop = None if stop is None else exact(stop)
        limits = {name: getattr(account, f"{name}_loss", None) for name in ("daily", "weekly")}
        self.after_stop = getattr(account, "after_stop", "continue")
        self.out_until: float | None = None  # ns; before it nothing is ordered
        self.loss_limits = {name: exact(each) for name, each in limits.items() if each is not None}
        self.is_of_initial = getattr(account, "daily_basis", "day") == "initial"
        self.zone = ZoneInfo(getattr(account, "day", "UTC"))
        self.dates: dict[str, Any] = {}  # the day and the week of the bar before
        self.openings: dict[str, Decimal] = {}  # equity at their first opens, with flows
        self.idle_for = ""  # whose end ends the pause after a limit of loss
        self.ruin_at = exact(getattr(account, "ruin_at", None) or 0.0)
        order = getattr(venue.liquidation, "order", None)
        default = "most_relief" if self.rule.has_scenarios else "largest_loss"
        self.order = default if order is None else order
        self.borrow_rate, self.cash_rate = AsOf(venue.borrow_rate), AsOf(venue.cash_rate)
        self.short_rate = AsOf(venue.short_rate)
        # w: in isolated margin the wallet. Rounded to the digits in use, so that a withdrawal of
        # everything leaves exactly nothing.
        self.cash, self.reserve = +exact(account.capital), exact(account.reserve)
        self.pool = Call()
        self.is_ruined = self.is_halted = self.must_convert = self.posts_in_full = False
        self.factor = math.nan if self.overlay is not None else 1.0

    def read_collateral(self) -> None:
        """Assets, and their prices on the clock, which their markets must cover."""
        self.assets = [Collateral(each) for each in getattr(self.account, "collateral", None) or ()]
        self.asset_prices: list[dict[str, list[Decimal]]] = []
        for asset in self.assets:
            rows = [bisect_left(list(asset.market.time), stamp) for stamp in self.clock]
            prices = {
                name: decimals(getattr(asset.market, name)[row] for row in rows) for name in PRICES
            }
            self.asset_prices.append(prices)
            asset.valued_at = prices["open"][0]

    def read_funding(self) -> None:
        """§2.2 for all instruments: events by bar, by stamp, then in the order given."""
        jitter = nanoseconds(self.venue.funding_jitter)
        self.at_open: list[list[outcome.Settlement]] = [[] for _ in self.clock]
        self.inside: list[list[outcome.Settlement]] = [[] for _ in self.clock]
        for each in self.positions:
            paid = () if each.is_spot else outcome.settlements_of(each.market, each.rank, jitter)
            for bar, is_open, event in paid:
                (self.at_open if is_open else self.inside)[each.first + bar].append(event)
        for events in (*self.at_open, *self.inside):
            events.sort(key=lambda event: event[:2])

    def turn_pages(self) -> None:
        """A new local day, or a week from Monday, notes its first equity, and ends a pause."""
        if not self.loss_limits:
            return
        local = datetime.fromtimestamp(self.stamp // 1_000_000_000, self.zone).date()
        for name, page in (("daily", local), ("weekly", local.isocalendar()[:2])):
            if self.dates.get(name) != page:
                self.dates[name] = page
                self.openings[name] = self.last_equity(self.at("open"))
                self.idle_for = "" if name in ("weekly", self.idle_for) else self.idle_for
        self.look_at_limits()
        if self.idle_for:
            for each in self.positions:
                each.pending = None

    def leave(self) -> None:
        """§5: a flat account that the equity stop has closed stays out, by its ``after_stop``."""
        is_flat = not any(each.quantity != 0 for each in (*self.positions, *self.options))
        if self.after_stop == "continue" or self.out_until is not None or not is_flat:
            return
        if self.after_stop == "halt":
            self.out_until = math.inf
        elif self.after_stop == "next month":
            today = datetime.fromtimestamp(self.stamp // 1_000_000_000, self.zone)
            year, month = divmod(12 * today.year + today.month, 12)
            first = datetime(year, month + 1, 1, tzinfo=self.zone)
            self.out_until = int(first.timestamp()) * 1_000_000_000
        else:
            self.out_until = self.stamp + nanoseconds(self.after_stop)
        self.log("pause", None, ZERO, ZERO)

    def stay_out(self) -> None:
        """Drop what is decided before that time; then the highest equity starts anew."""
        if self.out_until is None:
            return
        if self.stamp < self.out_until:
            for each in (*self.positions, *self.options):
                each.pending = None
            return
        self.out_until = None
        self.highest = self.highest_before = self.out.equity[-1]

    def look_at_limits(self) -> None:
        """A flat account that has lost as much already pauses too, the longer of both."""
        if any(each.quantity != 0 for each in (*self.positions, *self.options)):
            return
        for name, share in self.loss_limits.items():
            base = self.paid_in if self.is_of_initial else self.openings[name]
            floor = self.openings[name] - share * base
            if (
                self.last_equity(self.at("open")) <= floor * (ONE + TIE)
                and self.idle_for != "weekly"
            ):
                self.idle_for = name

    def begin(self, t: int) -> None:
        """Open the books of bar t; what was decided at the close of t - 1 is pending."""
        self.t, self.stamp = t, self.clock[t]
        self.points: dict[str, Point] = {}
        self.row = dict.fromkeys((*outcome.COSTS, *outcome.GAINS, "top_up", "traded"), ZERO)
        self.pool.was_liquidated = self.is_ambiguous = self.is_both_reached = False
        self.arrived, self.highest_before = ZERO, self.highest
        volume = traded_before(self.stamp // DAY, self.clock, self.out.columns["traded"])
        for each in self.positions:
            each.begin(t, self.stamp, volume)
            each.pending = self.decision_of(each)
        self.moment = Moment(t, is_close=False)
        for option in self.options:
            option.begin(t, is_ruined=self.is_ruined)
        self.present = [each for each in self.positions if each.here is not None]
        if self.overlay is not None and t > 0 and not math.isnan(self.overlay[t - 1]):
            most = getattr(self.account, "max_overlay", math.inf)
            self.factor = min(self.overlay[t - 1], most)

    def decision_of(self, position: Position) -> tuple[float, float] | None:
        """What was decided at the last close, if the instrument has that bar and this one."""
        if not position.here or self.is_ruined:
            return None
        if self.is_halted or position.is_halted:
            return (0.0, 0.0)
        signal = float(self.signals[position.name][self.t - 1])
        return position.target, 0.0 if math.isnan(signal) else signal

    # ----- points -----

    def at(self, name: str) -> Point:
        """Everything at a price of this bar, which stays the same for all of it."""
        if name not in self.points:
            self.points[name] = Point(
                tuple(each.value(f"mark_{name}") for each in self.positions),
                tuple(each.value(name) for each in self.positions),
                tuple(prices[f"mark_{name}"][self.t] for prices in self.asset_prices),
            )
        return self.points[name]

    def at_fills(self) -> Point:
        """Everything valued at the last prices where targets are computed and orders fill."""
        name = "open" if self.fills in ("next_open", "limit") else "close"
        t = max(self.t - 1, 0) if self.fills == "same_close" else self.t
        values = tuple(each.value("fill") for each in self.positions)
        assets = tuple(prices[name][t] for prices in self.asset_prices)
        return Point(values, values, assets, self.at("open").marks)

    # ----- what is held -----

    @property
    def held(self) -> list[Position]:
        return [each for each in self.positions if each.quantity != 0]

    @property
    def cross(self) -> list[Position]:
        return [each for each in self.positions if each.quantity != 0 and not each.is_isolated]

    @property
    def isolated(self) -> list[Position]:
        return [each for each in self.positions if each.quantity != 0 and each.is_isolated]

    @property
    def has_collateral(self) -> bool:
        return any(asset.amount != 0 for asset in self.assets)

    @property
    def held_options(self) -> list[OptionState]:
        return [each for each in self.options if each.quantity != 0]

    @property
    def has_options(self) -> bool:
        return bool(self.held_options)

    def is_alone(self) -> bool:
        is_one = len(self.held) == 1 and not self.held[0].is_spot
        return is_one and not (self.has_collateral or self.options_matter)

    @property
    def is_plain(self) -> bool:
        has_rule = self.rule.has_scenarios or self.level != 1
        has_more = has_rule or self.positions[0].is_spot or self.assets or self.options
        return len(self.positions) == 1 and not has_more

    def balance(self) -> Decimal:
        """B = w + Σ_cross q·u(entry), but for spot legs: what is paid has left it."""
        margined = (each for each in self.cross if not each.is_spot)
        return self.cash + sum((each.quantity * each.entry for each in margined), ZERO)

    def equity(self, point: Point) -> Decimal:
        """E: cash, cross positions, collateral in full, isolated backing, options at marks (B1)."""
        total = self.cash + self.in_full(point.assets) + self.worth_of_options(point)
        for each in self.held:
            value = point.marks[each.rank]
            total += each.backing(value) if each.is_isolated else each.quantity * value
        return total

    def last_equity(self, point: Point) -> Decimal:
        """E with every position at its last price; collateral at its mark."""
        return self.equity(point._replace(marks=point.lasts))

    def in_full(self, prices: Sequence[Decimal]) -> Decimal:
        return sum((a.amount * p for a, p in zip(self.assets, prices, strict=True)), ZERO)

    def backing(self, point: Point, options: Sequence[Holding] | None = None) -> Decimal:
        """M: cash, cross positions, collateral at its rate; long spot legs less their haircut. B2:
        with the options that count, of those that are held or of others."""
        total = self.rule.counted(self.holdings(point) if options is None else options)
        total += sum((each.quantity * point.marks[each.rank] for each in self.cross), self.cash)
        pairs = zip(self.assets, point.assets, strict=True)
        return sum((asset.counted(price) for asset, price in pairs), total) - self.withheld(point)

    def withheld(self, point: Point, sizes: Sizes | None = None) -> Decimal:
        legs = [each for each in self.positions if each.is_spot]
        if not legs:
            return ZERO
        held = [(sizes or {}).get(each.name, each.quantity) for each in legs]
        pairs = [pair for pair in zip(legs, held, strict=True) if pair[1] > 0]
        return sum((each.withheld(point.marks[each.rank], size) for each, size in pairs), ZERO)

    # ----- what options are worth (B1, B2, B4) -----

    def position_of(self, option: OptionState) -> Position:
        return self.positions[self.places[option.given.underlying]]

    def index_of(self, option: OptionState, point: Point) -> Decimal:
        """The price of the underlying at a point; at expiry the price at which it settles."""
        if self.expires_now(option):
            return exact(option.given.expiry_spot)
        position = self.position_of(option)
        return position.contract.price((point.indices or point.marks)[position.rank])

    def expires_now(self, option: OptionState) -> bool:
        """Whether it expires at the open of this bar: until it does it is worth what it pays."""
        return option.expires_in(self.t, is_inside=False) and not option.is_gone

    def mark(self, option: OptionState, point: Point) -> Decimal:
        """B4: the value of the model; a mark that was quoted keeps its distance from it."""
        index = self.index_of(option, point)
        if self.expires_now(option):
            return option.payoff(index)
        value = exact(option.given.value(self.moment, float(index), None))
        quoted = option.given.quoted_mark(self.moment)
        if math.isnan(quoted):
            return value
        here = option.given.index(self.moment)
        at_quote = exact(option.given.value(self.moment, here, None))
        return max(ZERO, value + exact(quoted) * option.size - at_quote)

    def holdings(self, point: Point, amounts: Sizes | None = None) -> list[Holding]:
        found = []
        for each in self.options:
            quantity = (amounts or {}).get(each.name, each.quantity)
            if quantity != 0 and not each.is_gone:
                index = self.index_of(each, point)
                mark = self.mark(each, point)
                found.append(Holding(each.given, quantity, index, mark, self.moment))
        return found

    def worth_of_options(self, point: Point) -> Decimal:
        return sum((each.quantity * self.mark(each, point) for each in self.held_options), ZERO)

    def unpriced(self, options: Sequence[OptionState]) -> list[Holding]:
        return [Holding(each.given, each.quantity, ONE, ONE, self.moment) for each in options]

    @property
    def options_matter(self) -> bool:
        """B6: an option is sold or counts."""
        return self.rule.matters(self.unpriced(self.held_options))

    # ----- what is required -----

    def legs(self, point: Point, sizes: Sizes) -> list[Leg]:
        """The cross positions, or other sizes of them, for the requirement."""
        found = []
        for each in self.positions:
            size = sizes.get(each.name, each.quantity)
            if size != 0 and not each.is_isolated:
                found.append(each.leg(point.marks[each.rank], size))
        return found

    def cancelling(self, point: Point) -> list[Asset]:
        pairs = zip(self.assets, point.assets, strict=True)
        return [Asset(a.group, a.amount * p) for a, p in pairs if a.group is not None]

    def required(
        self, point: Point, sizes: Sizes | None = None, options: Sequence[Holding] | None = None
    ) -> Decimal:
        """level·R, with the options that are held there, which may be known already."""
        legs = self.legs(point, sizes or {})
        held = self.holdings(point) if options is None else options
        return self.level * self.rule.needed(legs, self.cancelling(point), held, False)

    def initial(
        self, point: Point, sizes: Sizes | None = None, amounts: Sizes | None = None
    ) -> Decimal:
        """initial(cross): by brackets that of a long spot leg contains its haircut."""
        legs = self.legs(point, sizes or {})
        held = self.holdings(point, amounts)
        whole = self.rule.needed(legs, self.cancelling(point), held, True)
        return whole if self.rule.has_scenarios else whole - self.withheld(point, sizes)

    def surplus(self, point: Point) -> Decimal:
        """D = M - level·R."""
        held = self.holdings(point)
        return self.backing(point, held) - self.required(point, options=held)

    def cross_fails(self, point: Point) -> bool:
        """The pool fails where M ≤ level·R; where all it has are longs, which are paid: under."""
        held = self.holdings(point)
        needed = self.required(point, options=held)
        if self.cross or any(each.quantity < 0 for each in self.options):
            return self.backing(point, held) <= needed * (ONE + TIE)
        least = needed * (ONE - TIE) - TIE * self.worth_of_options(point)
        return self.has_options and self.backing(point, held) < least

    def uncounted(self, point: Point, without: Sequence[str] = ()) -> Decimal:
        """Unrealized profits of cross positions that back no order and no withdrawal."""
        counting = (each for each in self.cross if each.name not in without)
        return sum((each.uncounted(point.marks[each.rank]) for each in counting), ZERO)

    def needed_by(self, owner: Position | None, point: Point) -> Decimal:
        """level·R of the pool (None), or the requirement of an isolated position."""
        if owner is None:
            return self.required(point)
        return owner.leg(point.marks[owner.rank]).maintenance

    def behind(self, owner: Position | None, point: Point) -> Decimal:
        """M of the pool (None), or the backing of an isolated position."""
        return self.backing(point) if owner is None else owner.backing(point.marks[owner.rank])

    def margin_ratio(self, owner: Position | None, point: Point) -> Decimal:
        """level·R / M: infinite for M ≤ 0, 0 when flat, and of options where nothing is needed."""
        needed = self.needed_by(owner, point)
        if not (self.cross or self.has_options if owner is None else owner.quantity):
            return ZERO
        if owner is None and self.has_options and needed == 0:
            return ZERO
        backing = self.behind(owner, point)
        return needed / backing if backing > 0 else INFINITY

    # ----- booking -----

    def log(
        self,
        kind: str,
        position: Position | None,
        quantity: Decimal,
        amount: Decimal,
        value: Decimal | None = None,
    ) -> None:
        """Add a row to the ledger; the value is u of its price."""
        price = None if value is None else position.contract.price(value)
        name = "" if position is None else position.name
        self.out.events.append(outcome.Event(self.t, kind, name, price, quantity, amount))

    def charge(
        self,
        column: str,
        amount: Decimal,
        position: Position | None = None,
        value: Decimal | None = None,
    ) -> None:
        self.row[column] += amount
        if amount != 0:
            held = ZERO if position is None else position.quantity
            name = outcome.KIND_OF_COLUMN.get(column, column)
            self.log(name, position, held, amount, value)

    def note(self, path: str) -> None:
        """Count a rarely taken path, for the test that random cases reach them all."""
        self.out.paths[path] += 1

    def revalue(self, position: Position, value: Decimal) -> None:
        """§6: price pnl from where the position was last valued to an unworsened price."""
        self.row["price_pnl"] += position.quantity * (value - position.valued_at)
        position.valued_at = value

    def revalue_assets(self, prices: Sequence[Decimal]) -> None:
        for asset, price in zip(self.assets, prices, strict=True):
            self.row["collateral_pnl"] += asset.amount * (price - asset.valued_at)
            asset.valued_at = price

    # ----- trades -----

    def exchange(
        self, kind: str, position: Position, change: Decimal, value: Decimal, fee_rate: Decimal
    ) -> None:
        """§1 and 3: what a trade at u does to cash, margin, quantity and entry."""
        held = position.quantity
        debt = min(self.balance(), ZERO)
        is_against = held * change < 0
        reducing = min(abs(held), abs(change)).copy_sign(change) if is_against else ZERO
        opening = change - reducing
        if reducing != 0:
            self.reduce(position, reducing, value)
        if opening != 0:
            self.extend(position, opening, value)
        if reducing != 0 and opening != 0:
            self.note("flipped")
        notional = abs(change * value)
        fee = fee_rate * notional + position.order_fee
        self.cash -= fee
        if not self.posts_in_full:
            self.lift_wallet(position, debt)
        self.row["traded"] += notional
        self.log(kind, position, change, notional, value)
        self.charge("fees", fee, position, value)

    def reduce(self, position: Position, change: Decimal, value: Decimal) -> None:
        """Entry is kept; isolated gets φ·(M + q·(u - u_entry)) back."""
        position.realized -= change * (value - position.entry)
        if position.is_isolated:
            share = -change / position.quantity
            self.cash += share * position.backing(value)
            position.margin -= share * position.margin
        else:
            self.cash -= change * value
        position.quantity += change

    def extend(self, position: Position, change: Decimal, value: Decimal) -> None:
        """Entry is the average u; isolated puts N/X aside."""
        if position.is_isolated:
            aside = abs(change * value) / position.effective_setting
            position.margin += aside
            self.cash -= aside
        else:
            self.cash -= change * value
        after = position.quantity + change
        if position.quantity == 0:
            position.best = position.contract.price(value)  # nothing better was seen
            t = self.t + (self.fills == "next_close")
            position.opened_at = self.clock[min(t, len(self.clock) - 1)]
        position.entry = (position.quantity * position.entry + change * value) / after
        position.quantity = after

    def lift_wallet(self, position: Position, debt: Decimal) -> None:
        """Isolated: a payment does not push B under 0; what is missing comes out of M."""
        missing = debt - min(self.balance(), ZERO)
        if position.is_isolated and position.quantity != 0 and missing > 0:
            self.note("wallet empty: M pays")
            position.margin -= missing
            self.cash += missing
