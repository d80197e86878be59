"""Options in the account: paid, marked, margined, filled and expired (B1 to B5).

A case gives each option as an object: what it is (``name, underlying, sign, strike, size,
is_coin``), its fees, when and at which price it expires, the contracts to hold (decided at each
close, NaN leaves them), its quotes by bar, and its value at a :class:`Moment` as a function of the
price of the underlying.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.oracle.account import Account
from tests.oracle.numbers import INFINITY, ONE, TIE, ZERO, exact
from tests.oracle.option_margin import Holding, Moment, option_rule
from tests.oracle.option_state import OptionOrder, OptionState
from tests.oracle.orders import Order
from tests.oracle.outcome import Event
from tests.oracle.position import Position
from tests.oracle.roots import find_signs, largest_passing
from tests.oracle.schedule import Settlement
from tests.oracle.state import Point


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
        """The margin rule, with that of options."""
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
        """Before it, what expires at the open."""
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
        """The close is marked anew."""
        self.moment = Moment(self.t, True)
        super().step_8_close()

    def mark_close(self, point: Point) -> None:
        """Options too."""
        for each in self.options:
            if each.quantity != 0:
                self.revalue_option(each, self.mark(each, point))
        super().mark_close(point)

    def end_ruined(self, point: Point) -> None:
        """Options close at their marks."""
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
        """What is held of each option, and its mark."""
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
        """Whether any is held."""
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
        """The options, or other amounts of them, for the margin rule."""
        found = []
        for each in self.options:
            quantity = (amounts or {}).get(each.name, each.quantity)
            if quantity != 0 and not each.is_gone:
                index, mark = self.index_of(each, point), self.mark(each, point)
                found.append(Holding(each.given, quantity, index, mark, self.moment))
        return found

    def worth_of_options(self, point: Point) -> Decimal:
        """All options in full."""
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
        """initial(cross)."""
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
        """One position, and no option that matters."""
        return super().is_alone() and not self.options_matter

    # ----- booking -----

    def revalue_option(self, option: OptionState, value: Decimal) -> None:
        """§6: Q·ΔU is price pnl."""
        self.row["price_pnl"] += option.quantity * (value - option.valued_at)
        option.valued_at = value

    def log_option(
        self, kind: str, option: OptionState, quantity: Decimal, amount: Decimal
    ) -> None:
        """A row of the ledger."""
        self.out.events.append(Event(self.t, kind, option.name, None, quantity, amount))

    def charge_option(self, column: str, option: OptionState, amount: Decimal) -> None:
        """Enter an amount in its column and in the ledger."""
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
        """Options at the mark open of their underlyings."""
        return super().at_fills()._replace(indices=self.at("open").marks)

    def option_orders(self) -> list[tuple[OptionState, Decimal, Decimal]]:
        """Option, change and price of what is ordered and quoted."""
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
        """Reductions of all, then increases of all together."""
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
