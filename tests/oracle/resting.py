"""Limit orders: placed at the open, filled inside the bar (docs/accounting.md)."""

from collections.abc import Sequence
from decimal import Decimal

from tests.oracle.numbers import ONE, ZERO
from tests.oracle.orders import Order, Orders
from tests.oracle.position import Position, Resting, reaches
from tests.oracle.state import Point

SLACK = ONE - Decimal("1e-6")  # of a tick


class RestingOrders(Orders):
    """Step 5 where decisions are limit orders, and their fills."""

    def place_orders(self, deciding: Sequence[Position], point: Point) -> None:
        """Sized at the close of the decision; what goes to market fills at the open."""
        equity = self.out.equity[-1]
        if equity <= 0:
            return
        for each in self.present:
            each.limit_price = each.prices["close"][each.here - 1] if each.here else None
        chosen = self.choose_orders(deciding, equity, point)
        decided = {each.name: each.limit_price for each in self.present}
        for each in self.present:
            each.limit_price = None
        for position, target, held in chosen:
            self.trade_at_market(position, target, held, decided[position.name])
        added = [
            self.order_at_limit(position, target, decided[position.name], equity)
            for position, target, held in chosen
            if not is_reduction(target, held)
        ]
        self.place_increases([order for order in added if order is not None], point)
        for position, target, held in chosen:
            if is_reduction(target, held) and position.quantity != 0 and self.rests(position):
                self.rest_reduction(position, target, decided[position.name])
        for each in self.present:
            each.limit_price = None

    @property
    def rests_closing(self) -> bool:
        """Whether closings and reductions are limit orders too."""
        return getattr(self.account, "closing", "market") == "limit"

    def rests(self, position: Position) -> bool:
        """Whether closings and reductions are limit orders; what a halt closes is not."""
        return self.rests_closing and not (self.is_halted or position.is_halted)

    def trade_at_market(
        self, position: Position, target: Decimal, held: Decimal, decided: Decimal
    ) -> None:
        """A reduction, or the closing part of a flip, at the open."""
        if self.rests(position):
            return
        if is_reduction(target, held):
            self.fill_to(position, target / abs(position.contract.value(decided)))
        elif target * held < 0:
            self.fill_to(position, ZERO)

    def rest_reduction(self, position: Position, target: Decimal, decided: Decimal) -> None:
        """A reduction on the other side of the price."""
        self.set_limit(position, decided, -1 if position.quantity > 0 else 1)
        wanted = target / abs(position.value("fill"))
        if abs(wanted) < abs(position.quantity):
            self.rest(position, wanted, adds=False)

    @staticmethod
    def set_limit(position: Position, decided: Decimal, side: int) -> None:
        """The close less the offset for a buyer, and the other way round."""
        value = position.contract.value(decided * (ONE - side * position.offset))
        position.limit_price = position.contract.price(position.on_tick(value, side))

    def order_at_limit(
        self, position: Position, target: Decimal, decided: Decimal, equity: Decimal
    ) -> Order | None:
        """What an increase adds at its limit, by its own limits; None if that is nothing."""
        side = 1 if target > 0 else -1
        self.set_limit(position, decided, side)
        value = abs(position.value("fill"))
        before = position.quantity * value * side
        kept = max(before, ZERO)
        is_left = before < 0 and not self.rests_closing
        if is_left or abs(target) <= kept:
            position.limit_price = None
            return None
        rate = max(position.maker, ZERO)
        at_open = position.contract.value(position.prices["open"][position.here])
        lost = max(side * (position.value("fill") - at_open), ZERO) / value
        size = min(abs(target), max(kept, *(cap for cap, _ in position.limits())))
        if position.is_isolated:
            size = min(size, max(self.largest_isolated(position, before, equity, rate), kept))
            wallet = max(self.balance(), ZERO) - position.order_fee
            if before < 0:
                wallet += position.backing(position.value("fill")) + rate * before
            size = kept + min(
                size - kept, max(ZERO, wallet / (ONE / position.effective_setting + rate))
            )
        closing = -position.quantity if before < 0 else ZERO
        return Order(
            position,
            closing,
            side * (size - kept) / value,
            rate + lost,
            position.value("fill"),
            rate,
        )

    def place_increases(self, orders: list[Order], point: Point) -> None:
        """All increases have their margin reserved together, or a common part of them."""
        if not orders:
            return
        orders = self.cut_to_balance(orders)
        factor = self.common_factor(orders, point)
        if factor < 1:
            self.note("resting orders shrunk together")
        for order in orders:
            self.rest(order.position, order.quantity(factor), adds=True)

    def rest(self, position: Position, quantity: Decimal, *, adds: bool) -> None:
        """Lots, least notional, and the price that must trade: a tick beyond the limit."""
        change = position.ordered(quantity)
        size = abs(position.quantity)
        if self.is_too_small(position, change, size) or change == 0:
            return
        limit = position.price("fill")
        through = limit - (1 if change > 0 else -1) * position.step * SLACK
        if through > 0:
            self.log(
                "limit_order",
                position,
                change,
                abs(change * position.value("fill")),
                position.value("fill"),
            )
            position.resting = Resting(change, limit, through, adds)

    # ----- inside the bar -----

    def waiting(self) -> list[Position]:
        """Instruments with an order; what drops the decision has cancelled it."""
        return [each for each in self.present if each.resting and each.pending is not None]

    @staticmethod
    def next_fill(position: Position, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """Where an order fills on the rest of a segment."""
        opened, ended = start.lasts[position.rank], end.lasts[position.rank]
        now = opened + place * (ended - opened)
        if position.resting.is_reached(position.contract.price(now)):
            return place
        if not position.resting.is_reached(position.contract.price(ended)):
            return None
        through = position.contract.value(position.resting.through)
        return min(ONE, max(place, (through - opened) / (ended - opened)))

    def fill_resting(self, position: Position, _: Point) -> None:
        """At the limit, never better, with the maker fee."""
        order, held = position.resting, position.quantity
        value = position.contract.value(order.limit)
        if order.adds and position.is_isolated and not self.covers(position, order, value):
            self.note("limit order cancelled: empty wallet")
            position.resting = None
            return
        self.note("limit order filled")
        self.revalue(position, value)
        self.posts_in_full = order.adds
        self.exchange("fill", position, order.change, value, position.maker)
        self.posts_in_full = False
        position.pending = position.resting = None
        position.is_opened = held * position.quantity <= 0
        position.is_increased = position.is_opened or abs(position.quantity) > abs(held)
        if order.adds:
            self.lift_balance([position])

    def covers(self, position: Position, order: Resting, value: Decimal) -> bool:
        """Whether the wallet still pays margin and fee of an isolated order."""
        held, wallet = position.quantity, max(self.balance(), ZERO)
        opening = order.change
        if held * order.change < 0:
            opening += held
            wallet += position.backing(value)
        needed = abs(opening * value) / position.effective_setting
        needed += position.maker * abs(order.change * value) + position.order_fee
        return wallet - needed >= -Decimal("1e-9") * abs((held + order.change) * value)

    def take_late_profits(self) -> bool:
        """What an order has opened or increased takes its profit if the last close is there.

        An extreme may have come before the fill; the close comes after it.
        """
        before = len(self.held)
        for each in self.held:
            for kind, price in each.goals() if each.is_increased else ():
                if reaches(each.price("close"), price, each.quantity < 0):
                    self.note("take_profit at the close")
                    self.close_by_stop(kind, each, each.contract.value(price))
        return len(self.held) < before


def is_reduction(target: Decimal, held: Decimal) -> bool:
    """Whether a target only takes from what is held."""
    return target == 0 or (target * held > 0 and abs(target) <= abs(held))
