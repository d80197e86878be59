"""Options in the account: paid, marked, margined, filled and expired (B1 to B5).

A case gives each option as an object: what it is (``name, underlying, sign, strike, size,
is_coin``), its fees, when and at which price it expires, the contracts to hold (decided at each
close, NaN leaves them), its quotes by bar, and its value at a :class:`Moment` as a function of the
price of the underlying.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.oracle.account import Account
from tests.oracle.numbers import (
    INFINITY,
    ONE,
    REMAINDER,
    TIE,
    ZERO,
    exact,
    find_signs,
    largest_passing,
)
from tests.oracle.option_margin import Holding, Moment, OptionOrder, OptionState, option_rule
from tests.oracle.orders import Order
from tests.oracle.outcome import Event, Settlement
from tests.oracle.position import Position
from tests.oracle.state import Point
from tests.oracle.walk import Exposure, between


class OptionTrades(Account):
    """What an account pays for options, what they are worth, and how they are filled."""

    owner = None
    is_plain = False

    def __init__(self, *given: Any) -> None:
        self.options: list[OptionState] = []
        self.moment = Moment(0, False)
        super().__init__(*given)
        self.options = [OptionState(each, k) for k, each in enumerate(self.account.options)]
        self.places = {each.name: each.rank for each in self.positions}
        self.note("coin" if self.options[0].given.is_coin else "cash")

    def read_rule(self, rule: Any) -> Any:
        return option_rule(rule)

    # ----- the bar -----

    def begin(self, t: int) -> None:
        """Open the books of bar t; the row of orders that was decided at the close before."""
        super().begin(t)
        self.moment = Moment(t, False)
        for each in self.options:
            wanted = math.nan if self.is_ruined else float(each.given.targets[t])
            is_left = math.isnan(wanted) or each.is_gone
            each.realized = ZERO
            each.pending = None if is_left else exact(wanted)

    def step_3_interest(self) -> None:
        for each in self.options:
            if each.given.expiry_bar == self.t and not each.given.is_inside:
                self.expire(each)
        super().step_3_interest()

    def pay_funding(self, events: Sequence[Settlement]) -> None:
        """By stamp, with what expires inside the bar; funding first at equal stamps."""
        inside = [
            each
            for each in self.options
            if events is self.inside[self.t]
            and each.given.expiry_bar == self.t
            and each.given.is_inside
        ]
        for each in sorted(inside, key=lambda option: option.given.expiry_time):
            before = [event for event in events if event.time <= each.given.expiry_time]
            events = [event for event in events if event.time > each.given.expiry_time]
            super().pay_funding(before)
            self.expire(each)
        super().pay_funding(events)

    def expire(self, option: OptionState) -> None:
        """B5: the payoff and its fee; also where it pays nothing."""
        option.is_gone, option.pending = True, None
        if option.quantity == 0:
            return
        price = exact(option.given.expiry_spot)
        payoff = option.payoff(price)
        self.note("expired in the money" if payoff > 0 else "expired out of the money")
        self.note("expired short" if option.quantity < 0 else "expired long")
        self.revalue_option(option, payoff)
        held = option.quantity
        option.hold(ZERO, payoff)
        self.cash += held * payoff
        fee = abs(held) * option.delivery_fee(payoff, price)
        self.cash -= fee
        self.log_option("expiry", option, -held, abs(held * payoff))
        self.charge_option("fees", option, fee)

    def step_8_close(self) -> None:
        self.moment = Moment(self.t, True)
        super().step_8_close()

    def mark_close(self, point: Point) -> None:
        for each in self.options:
            if each.quantity != 0:
                self.revalue_option(each, self.mark(each, point))
        super().mark_close(point)

    def end_ruined(self, point: Point) -> None:
        for each in self.options:
            if each.quantity != 0:
                mark = self.mark(each, point)
                worth = each.quantity * mark
                self.log_option("ruin", each, -each.quantity, abs(worth))
                self.cash += worth
                self.row["traded"] += abs(worth)
                each.hold(ZERO, mark)
        super().end_ruined(point)

    def is_poor(self, wealth: Decimal) -> bool:
        """Not with options: it is not flat."""
        return not self.has_options and super().is_poor(wealth)

    def record(self, point: Point) -> None:
        super().record(point)
        columns = self.out.columns
        for each in self.options:
            profit = each.quantity * (self.mark(each, point) - each.paid) if each.quantity else ZERO
            columns["unrealized_pnl"][-1] += (profit,)
            columns["realized_pnl"][-1] += (each.realized,)
        columns["option_quantity"].append(tuple(each.quantity for each in self.options))
        columns["option_mark"].append(
            tuple(ZERO if each.is_gone else self.mark(each, point) for each in self.options)
        )

    # ----- what options are worth (B1, B2, B4) -----

    @property
    def has_options(self) -> bool:
        return any(each.quantity != 0 for each in self.options)

    def index_of(self, option: OptionState, point: Point) -> Decimal:
        """The price of the underlying at a point; at expiry the price at which it settles."""
        if self.expires_now(option):
            return exact(option.given.expiry_spot)
        rank = self.places[option.given.underlying]
        return self.positions[rank].contract.price((point.indices or point.marks)[rank])

    def expires_now(self, option: OptionState) -> bool:
        """Whether it expires at the open of this bar: until it does it is worth what it pays."""
        given = option.given
        return not (option.is_gone or given.is_inside) and given.expiry_bar == self.t

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

    def holdings(self, point: Point, amounts: Mapping[str, Decimal] | None = None) -> list[Holding]:
        found = []
        for each in self.options:
            quantity = (amounts or {}).get(each.name, each.quantity)
            if quantity != 0 and not each.is_gone:
                index, mark = self.index_of(each, point), self.mark(each, point)
                found.append(Holding(each.given, quantity, index, mark, self.moment))
        return found

    def worth_of_options(self, point: Point) -> Decimal:
        held = [each for each in self.options if each.quantity != 0]
        return sum((each.quantity * self.mark(each, point) for each in held), ZERO)

    @property
    def options_matter(self) -> bool:
        """B6: an option is sold or counts."""
        held = [
            Holding(each.given, each.quantity, ONE, ONE, self.moment)
            for each in self.options
            if each.quantity != 0
        ]
        return self.rule.matters(held)

    def equity(self, point: Point) -> Decimal:
        """B1: with all options at their marks."""
        return super().equity(point) + self.worth_of_options(point)

    def backing(self, point: Point) -> Decimal:
        """B2: with the options that count."""
        return super().backing(point) + self.rule.counted(self.holdings(point))

    def required(
        self,
        point: Point,
        sizes: Mapping[str, Decimal] | None = None,
        amounts: Mapping[str, Decimal] | None = None,
    ) -> Decimal:
        """level·R."""
        legs, held = self.legs(point, sizes or {}), self.holdings(point, amounts)
        return self.level * self.rule.needed(legs, self.cancelling(point), held, False)

    def initial(
        self,
        point: Point,
        sizes: Mapping[str, Decimal] | None = None,
        amounts: Mapping[str, Decimal] | None = None,
    ) -> Decimal:
        legs, held = self.legs(point, sizes or {}), self.holdings(point, amounts)
        whole = self.rule.needed(legs, self.cancelling(point), held, True)
        return whole if self.rule.has_scenarios else whole - self.withheld(point, sizes)

    def cross_fails(self, point: Point) -> bool:
        """The pool fails where M ≤ level·R; where all it has are longs, which are paid: under."""
        if self.cross or any(each.quantity < 0 for each in self.options):
            return self.backing(point) <= self.required(point) * (ONE + TIE)
        least = self.required(point) * (ONE - TIE) - TIE * self.worth_of_options(point)
        return self.has_options and self.backing(point) < least

    def margin_ratio(self, owner: Position | None, point: Point) -> Decimal:
        """level·R / M; 0 when flat, or where nothing is needed."""
        if owner is not None:
            return super().margin_ratio(owner, point)
        needed = self.required(point)
        backing = self.backing(point) if needed > 0 else ONE
        return needed / backing if backing > 0 else INFINITY

    def is_alone(self) -> bool:
        return super().is_alone() and not self.options_matter

    # ----- booking -----

    def revalue_option(self, option: OptionState, value: Decimal) -> None:
        """§6: Q·ΔU is price pnl."""
        self.row["price_pnl"] += option.quantity * (value - option.valued_at)
        option.valued_at = value

    def log_option(
        self, kind: str, option: OptionState, quantity: Decimal, amount: Decimal
    ) -> None:
        self.out.events.append(Event(self.t, kind, option.name, None, quantity, amount))

    def charge_option(self, column: str, option: OptionState, amount: Decimal) -> None:
        self.row[column] += amount
        if amount != 0:
            kind = {"fees": "fee"}.get(column, column)
            self.log_option(kind, option, option.quantity, amount)

    # ----- fills (B5) -----

    def fill_price(self, option: OptionState, side: int, point: Point) -> Decimal | None:
        """Ask or bid of the row, or half of the spread from the mark; None: unquoted."""
        given, t = option.given, self.t
        if given.has_quote[t]:
            quote = float((given.ask if side > 0 else given.bid)[t])
            return None if math.isnan(quote) else exact(quote) * option.size
        return self.price_at_spread(option, side, point, float(given.half_spread[t]))

    def price_at_spread(
        self, option: OptionState, side: int, point: Point, half_spread: float
    ) -> Decimal:
        """The value at another volatility, a tick from the mark at least, and not under 0.

        Where vega is under 1e-4 of the forward, the spread of the price, if that is known.
        """
        given, moment, mark = option.given, self.moment, self.mark(option, point)
        index, half_price = float(self.index_of(option, point)), float(given.half_price[self.t])
        if not math.isnan(half_price) and (
            given.vega(moment, index) < 1e-4 * given.forward(moment, index)
        ):
            value = mark + side * exact(half_price) * option.size
        else:
            volatility = max(0.0, given.volatility(moment) + side * half_spread)
            value = mark + exact(given.value(moment, index, volatility))
            value -= exact(given.value(moment, index, None))
        if side > 0:
            return max(value, mark + option.tick)
        return max(ZERO, min(value, mark - option.tick))

    def trade_option(self, option: OptionState, change: Decimal, price: Decimal) -> None:
        """dQ·p and the fee leave w; the distance to the mark is slippage."""
        point = self.at_fills()
        mark, index = self.mark(option, point), self.index_of(option, point)
        self.revalue_option(option, mark)
        fee = abs(change) * option.fee(price, index)
        self.cash -= change * price + fee
        option.hold(option.quantity + change, price)
        if option.quantity < 0:
            self.note("sold an option")
        option.valued_at = mark
        self.row["traded"] += abs(change * price)
        self.log_option("fill", option, change, abs(change * price))
        self.charge_option("fees", option, fee)
        self.charge_option("slippage", option, change * (price - mark))

    def at_fills(self) -> Point:
        return super().at_fills()._replace(indices=self.at("open").marks)

    def option_orders(self) -> list[tuple[OptionState, Decimal, Decimal]]:
        found, point = [], self.at_fills()
        for each in self.options:
            if each.pending is None or each.pending == each.quantity:
                continue
            change = each.pending - each.quantity
            price = self.fill_price(each, 1 if change > 0 else -1, point)
            if price is None:
                self.note("unquoted")
                self.log_option("unquoted", each, change, ZERO)
                continue
            found.append((each, change, price))
        return found

    def fill_pending(self) -> None:
        point = self.at_fills()
        equity = self.equity(point)
        replaced = self.force_reductions(point)
        if equity <= 0:
            return
        deciding = [
            each for each in self.present if each.name not in replaced and each.pending is not None
        ]
        increases, orders = [], []
        for position, target, held in self.choose_orders(deciding, equity, point):
            if target == 0 or (target * held > 0 and abs(target) <= abs(held)):
                self.fill_to(position, target / abs(position.value("fill")))
            else:
                increases.append((position, target, held))
        for option, change, price in self.option_orders():
            held, after = option.quantity, option.quantity + change
            if after == 0 or (after * held > 0 and abs(after) <= abs(held)):
                self.trade_option(option, change, price)
            else:
                closing = -held if held * after < 0 else ZERO
                fee = option.fee(price, self.index_of(option, point))
                orders.append(OptionOrder(option, closing, change - closing, price, fee))
        if increases or orders:
            self.fill_all(increases, orders, equity, point)

    def fill_all(
        self,
        increases: Sequence[tuple[Position, Decimal, Decimal]],
        bought: list[OptionOrder],
        equity: Decimal,
        point: Point,
    ) -> None:
        """Own limits, the balance, the common factor; then fills in order."""
        orders = [self.cut_alone(*each, equity) for each in increases]
        orders, bought = self.cut_both(orders, bought)
        factor = self.factor_of_all(orders, bought, point)
        if factor < 1:
            self.note("shrunk by initial margin")
        self.posts_in_full = True
        for order in orders:
            self.fill_to(order.position, order.quantity(factor))
        self.posts_in_full = False
        for each in bought:
            change = each.quantity(factor) - each.option.quantity
            if abs(change) > TIE * abs(each.option.quantity):
                self.trade_option(each.option, change, each.price)
        self.lift_balance([order.position for order in orders])

    def cut_both(
        self, orders: list[Order], bought: list[OptionOrder]
    ) -> tuple[list[Order], list[OptionOrder]]:
        """Isolated margins and premiums take at most B less the fees of the cross increases."""
        isolated = [order for order in orders if order.position.is_isolated]
        fees = ZERO
        for order in orders:
            each = order.position
            if not each.is_isolated and order.trades:
                fees += order.rate * order.traded(ONE) * abs(order.filled) + each.order_fee
                if each.is_spot and order.closing + order.adding > 0:
                    fees += order.traded(ONE) * order.filled
        paying = [each for each in bought if each.adding > 0]
        fees += sum((abs(o.closing + o.adding) * o.fee for o in bought if o.adding < 0), ZERO)
        taken = sum((order.opens_with() for order in isolated), ZERO)
        taken += sum((o.adding * (o.price + o.fee) for o in paying), ZERO)
        returned = sum(
            (o.returns() if o.adding != 0 else max(o.returns(), ZERO) for o in isolated), ZERO
        )
        fees += sum((o.closing * o.price + abs(o.closing) * o.fee for o in paying), ZERO)
        most = max(max(self.balance() - fees, ZERO) + returned, ZERO)
        if taken <= most:
            return orders, bought
        self.note("cut by the balance")
        if paying:
            self.note("premiums cut by the balance")
        share = most / taken
        return (
            [o._replace(adding=o.adding * share) if o in isolated else o for o in orders],
            [o._replace(adding=o.adding * share) if o.adding > 0 else o for o in bought],
        )

    def factor_of_all(
        self, orders: list[Order], bought: list[OptionOrder], point: Point
    ) -> Decimal:
        """The largest share of all increases with M ≥ initial(cross) after costs; else 0."""
        orders = [order for order in orders if order.trades]
        isolated = [order for order in orders if order.position.is_isolated]
        cross = [order for order in orders if not order.position.is_isolated]
        flips = [order.position.name for order in orders if order.closing != 0]
        free = super().backing(point) - self.uncounted(point, flips)
        free -= sum((order.position.order_fee for order in cross), ZERO)
        at = point if self.rule.has_scenarios else self.at_limits(point, cross)

        def sizes(factor: Decimal) -> dict[str, Decimal]:
            return {order.position.name: order.quantity(factor) for order in cross}

        def room(factor: Decimal) -> Decimal:
            costs = (o.kappa * o.traded(factor) * abs(o.position.value("fill")) for o in cross)
            taken = (factor * order.opens_with() - order.returns() for order in isolated)
            left = free - sum(costs, ZERO) - sum(taken, ZERO)
            left -= sum((each.paid(factor) for each in bought), ZERO)
            amounts = {each.option.name: each.quantity(factor) for each in bought}
            counted = self.rule.counted(self.holdings(point, amounts))
            withheld = self.withheld(at, sizes(factor)) - self.withheld(point)
            return left + counted - withheld - self.initial(at, sizes(factor), amounts)

        signs = find_signs(lambda factor: self.rule.nets(self.legs(point, sizes(factor))))
        edges = [] if self.rule.has_scenarios else self.edges_of(cross)
        found = largest_passing(room, [*signs, *edges])
        if found is None:
            self.note("no increase passes")
        return found or ZERO


# ------------------------------------------------ walked through a bar, and liquidated (B6 and B7)
PARTS = 16


class OptionAccount(OptionTrades):
    """One account with options."""

    # ----- the walk (B6) -----

    @property
    def is_exposed(self) -> bool:
        return super().is_exposed or self.options_matter

    def next_failure(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """At the ends and 16 parts of a segment, bisected in the first that fails."""
        if not self.options_matter:
            return super().next_failure(start, end, place)
        if self.cross_fails(between(start, end, place)):
            return place
        low = place
        for high in self.stages(start, end, place):
            if self.cross_fails(between(start, end, high)):
                return self.bisect(start, end, low, high)
            low = high
        return None

    def stages(self, start: Point, end: Point, place: Decimal) -> list[Decimal]:
        """The places that are tested: under ``worst`` the strikes too."""
        found = [place + (ONE - place) * k / PARTS for k in range(1, PARTS + 1)]
        for each in self.options if self.intrabar == "worst" else ():
            position = self.positions[self.places[each.given.underlying]]
            opened, ended = start.marks[position.rank], end.marks[position.rank]
            if each.quantity != 0 and opened != ended:
                at = position.contract.value(exact(each.given.strike))
                found.append((at - opened) / (ended - opened))
        return sorted(stage for stage in found if place < stage <= 1)

    def exposures(self, low: Point, high: Point) -> list[Exposure]:
        """Options too, unless the account is walked as if they were not there."""
        found, opened = super().exposures(low, high), self.at("open")
        for each in self.options if self.options_matter else ():
            if each.quantity != 0:
                change = each.quantity * (self.mark(each, low) - self.mark(each, high))
                key = self.key_of(self.positions[self.places[each.given.underlying]])
                found.append(Exposure(key, change, self.notional_of(each, opened)))
        return found

    def adverse_point(self) -> Point:
        point, low, high = super().adverse_point(), self.at("low"), self.at("high")
        marks, changes = list(point.marks), defaultdict(Decimal)
        for each in self.options:
            position = self.positions[self.places[each.given.underlying]]
            if each.quantity != 0 and position not in self.cross:
                worth = self.mark(each, low) - self.mark(each, high)
                changes[position.rank] += each.quantity * worth
        for rank, change in changes.items():
            marks[rank] = (low if change <= 0 else high).marks[rank]
        return point._replace(marks=tuple(marks))

    def bisect(self, start: Point, end: Point, low: Decimal, high: Decimal) -> Decimal:
        """The place of the failure; halves, as values are floats."""
        if self.surplus(between(start, end, high)) > 0:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            if self.surplus(between(start, end, middle)) <= 0:
                high = middle
            else:
                low = middle
        return high

    # ----- liquidation (B7) -----

    def liquidate_cross(self, point: Point) -> None:
        for each in self.options:
            each.pending = None
            if each.quantity != 0:
                self.note("liquidated with options")
                self.revalue_option(each, self.mark(each, point))
        super().liquidate_cross(point)

    def lose_options(self, point: Point) -> Decimal:
        """``takeover``: longs are lost too."""
        total = ZERO
        for each in self.options:
            if each.quantity != 0:
                mark = self.mark(each, point)
                total += each.quantity * mark
                self.force_option(each, -each.quantity, mark, mark)
        return total

    def force_option(
        self, option: OptionState, change: Decimal, price: Decimal, mark: Decimal
    ) -> None:
        """Take contracts out of what is held; the ledger has their worth at the mark."""
        option.hold(option.quantity + change, price, mark)
        self.row["traded"] += abs(change * price)
        self.log_option("liquidation", option, change, abs(change * mark))

    def close_options(self, point: Point) -> tuple[Decimal, Decimal]:
        """Shorts are bought back; longs are sold as far as B < 0."""
        loss = asked = ZERO
        for each in self.options:
            if each.quantity < 0:
                lost, fee = self.close_option(each, -each.quantity, point)
                loss, asked = loss + lost, asked + fee
        for each in self.options:
            if each.quantity > 0 and self.cash < 0:
                price = self.forced_price(each, -1, point)
                part = min(each.quantity, -self.cash / price) if price > 0 else each.quantity
                lost, fee = self.close_option(each, -part, point)
                loss, asked = loss + lost, asked + fee
                self.note("longs sold for the balance")
        return loss, asked

    def close_option(
        self, option: OptionState, change: Decimal, point: Point
    ) -> tuple[Decimal, Decimal]:
        """One option at the price of the venue; what that lost against its mark, and the fee."""
        price, mark = (
            self.forced_price(option, 1 if change > 0 else -1, point),
            self.mark(option, point),
        )
        self.force_option(option, change, price, mark)
        self.cash -= change * price
        fee = abs(change) * option.fee(price, self.index_of(option, point))
        return change * (price - mark), fee

    def forced_price(self, option: OptionState, side: int, point: Point) -> Decimal:
        """Half of the spread from the mark, and the slippage of liquidations too if bought.

        Nobody bids where the row has no bid.
        """
        given, t = option.given, self.t
        if side < 0 and given.has_quote[t] and math.isnan(given.bid[t]):
            return ZERO
        underlying = self.positions[self.places[given.underlying]]
        spread = float(given.half_spread[t])
        spread += float(underlying.forced_slip) if side > 0 else 0.0
        return self.price_at_spread(option, side, point, spread)

    def pool_steps(self, point: Point, *, is_alone: bool) -> None:
        """``partial``: options take part in the order."""
        self.started = {each.name: abs(each.quantity) for each in self.options}
        super().pool_steps(point, is_alone=is_alone and not self.has_options)

    def next_step(
        self, point: Point, initial: Mapping[str, Decimal], *, is_alone: bool
    ) -> tuple[Any, Decimal] | None:
        """The first step in the order that raises M - level·R, of positions and options."""
        if not self.has_options:
            return super().next_step(point, initial, is_alone=is_alone)
        weights = self.weigh(point)
        least = TIE * self.required(point)
        found: list[tuple[tuple[Any, int], Any, Decimal]] = []
        for each in self.cross:
            value = point.marks[each.rank]
            part = self.part_to_close(each, value, initial[each.name], weights)
            gain = self.gain(each, part, point)
            if gain > least:
                found.append((self.rank_of(each, part, {each.name: gain}, point), each, part))
        is_last = self.order == "futures_then_options" and bool(found)
        for option in () if is_last else self.options:
            if self.may_step(option):
                part = self.part_of_option(option, point)
                gain = self.gain_of_option(option, part, point)
                if gain > least:
                    found.append((self.rank_of_option(option, part, gain, point), option, part))
                    self.note("an option may be stepped")
        return min(found, key=lambda step: step[0])[1:] if found else None

    def may_step(self, option: OptionState) -> bool:
        """A short; a long if selling it raises M, or where neither position nor short is left."""
        if option.quantity <= 0:
            return option.quantity < 0
        one = Holding(option.given, option.quantity, ONE, ONE, self.moment)
        others = [
            Holding(each.given, each.quantity, ONE, ONE, self.moment)
            for each in self.options
            if each.quantity != 0 and each is not option
        ]
        counted = self.rule.counted([one, *others]) - self.rule.counted(others)
        if counted < option.quantity * (ONE - TIE):
            return True
        return not (self.cross or any(each.quantity < 0 for each in self.options))

    def notional_of(self, option: OptionState, point: Point) -> Decimal:
        unit = ONE if option.given.is_coin else self.index_of(option, point)
        return abs(option.quantity) * option.size * unit

    def part_of_option(self, option: OptionState, point: Point) -> Decimal:
        """One step of its underlying's venue, or all of it when it is small."""
        forced = self.positions[self.places[option.given.underlying]]
        notional, step = self.notional_of(option, point), forced.venue.liquidation.step
        is_whole = notional <= forced.full_below or step == "bracket"
        if is_whole or abs(option.quantity) <= REMAINDER * self.started[option.name]:
            return option.quantity
        self.note("partial step of an option")
        return option.quantity * exact(step)

    def gain_of_option(self, option: OptionState, part: Decimal, point: Point) -> Decimal:
        """What a step adds to M - level·R, after worsening and fee."""
        before = self.surplus(point)
        price = self.forced_price(option, -1 if part > 0 else 1, point)
        held, cash = option.quantity, self.cash
        option.quantity, self.cash = held - part, cash + part * price
        asked = abs(part) * option.fee(price, self.index_of(option, point))
        after = self.surplus(point) - self.forced_fee(asked, self.backing(point))
        option.quantity, self.cash = held, cash
        return after - before

    def rank_of(
        self, position: Position, part: Decimal, gains: Mapping[str, Decimal], point: Point
    ) -> tuple[Decimal, int]:
        """Futures before options: those with the largest delta first, which is their notional."""
        if self.order == "futures_then_options":
            return -position.leg(point.marks[position.rank]).notional, position.rank
        return super().rank_of(position, part, gains, point)

    def rank_of_option(
        self, option: OptionState, part: Decimal, gain: Decimal, point: Point
    ) -> tuple[Decimal, int]:
        """Where an option stands in the order; after the instruments where they are named."""
        mark, notional = self.mark(option, point), self.notional_of(option, point)
        index = self.index_of(option, point)
        one = Holding(option.given, option.quantity, index, mark, self.moment)
        by_kind = {
            "most_relief": -gain / (notional * abs(part / option.quantity)),
            "largest_loss": option.quantity * (mark - option.paid),
            "largest_requirement": -self.rule.needed([], [], [one], False),
            "largest_notional": -notional,
        }
        place = len(self.positions) + option.rank
        if self.order == "futures_then_options":
            delta = exact(option.given.delta(self.moment, float(index))) * option.size
            return -abs(option.quantity * delta) * index, place
        if isinstance(self.order, str):
            return by_kind[self.order], place
        return Decimal(len(list(self.order))), place

    def force_step(self, position: Any, part: Decimal, point: Point) -> None:
        if isinstance(position, Position):
            super().force_step(position, part, point)
            return
        lost, asked = self.close_option(position, -part, point)
        fee = self.forced_fee(asked, self.backing(point))
        self.cash -= fee
        self.charge_option("liquidation_loss", position, lost + fee)
