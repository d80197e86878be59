"""From decisions to fills: targets, reductions, then increases together (§4; step 5)."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from tests.oracle.numbers import DUST, INFINITY, ONE, TIE, ZERO, exact, find_signs, largest_passing
from tests.oracle.option_margin import OptionOrder
from tests.oracle.payments import Margins
from tests.oracle.position import Position, Resting, reaches
from tests.oracle.state import Point

BAND_SLACK = Decimal("1.1")  # how far over the cap of gross leverage bands may carry


class Order(NamedTuple):
    """An increase: what it closes first (a flip), what it adds, and what that costs."""

    position: Position
    closing: Decimal  # contracts, signed: -q of a flip, else 0
    adding: Decimal  # contracts, signed
    kappa: Decimal  # cost per unit of notional
    filled: Decimal  # u at the worsened open
    rate: Decimal  # of its fee
    largest: Decimal  # |u| of the dearest fill of an isolated order of this size or a smaller one

    @property
    def trades(self) -> bool:
        return self.adding != 0 or self.closing != 0

    def quantity(self, factor: Decimal) -> Decimal:
        return self.position.quantity + self.closing + factor * self.adding

    def traded(self, factor: Decimal) -> Decimal:
        return abs(self.closing) + factor * abs(self.adding)

    def opens_with(self) -> Decimal:
        """Isolated: at most the margin and the fee of what is added, however little of it fills."""
        each = ONE / self.position.effective_setting + self.rate
        return abs(self.adding) * self.largest * each

    def returns(self) -> Decimal:
        """Isolated: what the closing part of a flip returns to B, net of the fees of the order."""
        if not self.trades:
            return ZERO
        returned = -self.position.order_fee
        if self.closing != 0:
            fee = self.rate * abs(self.closing * self.filled)
            returned += self.position.backing(self.filled) - fee
        return returned


class Orders(Margins):
    """Step 5, and 0 where decisions fill at the close at which they were taken."""

    def fill_early(self) -> None:
        """§2, same_close: as step 0; nothing is pending after."""
        if self.fills == "same_close" and self.t > 0:
            self.test_grace()
            for each in self.held:
                self.revalue(each, each.value("fill"))
            self.fill_pending()
            for each in self.positions:
                each.pending = None

    def fill_late(self) -> None:
        """§2, next_close: after the walk, but for what is delisted there."""
        for each in self.positions:
            each.follow_best()
            if self.fills == "next_close" and self.is_delisted(each):
                each.pending = None
        if self.fills == "next_close":
            self.fill_pending()

    def is_delisted(self, position: Position) -> bool:
        """Whether this is the last bar of an instrument before the end of the clock."""
        return self.t == position.last < len(self.clock) - 1

    def fill_pending(self) -> None:
        """Targets from the equity before anything fills; reductions; then increases together."""
        point = self.at_fills()
        equity = self.equity(point)
        self.change_settings(point)

        replaced = self.force_reductions(point)
        if equity <= 0:
            return

        deciding = [
            each for each in self.present if each.name not in replaced and each.pending is not None
        ]
        if self.fills == "limit":
            if self.t > 0:
                self.place_orders(deciding, point)
            return

        increases: list[tuple[Position, Decimal, Decimal]] = []
        for position, target, held in self.choose_orders(deciding, equity, point):
            if is_reduction(target, held):
                self.fill_to(position, target / abs(position.value("fill")))
            else:
                increases.append((position, target, held))

        bought = self.order_options(point)
        if increases or bought:
            self.fill_increases(increases, bought, equity, point)

    # ----- targets -----

    def choose_orders(
        self, deciding: Sequence[Position], equity: Decimal, point: Point
    ) -> list[tuple[Position, Decimal, Decimal]]:
        """What trades: the position, its target notional within the cap, the notional held."""
        held = {each.name: each.quantity * abs(each.value("fill")) for each in self.present}
        wanted = {each.name: self.target(each, equity, held[each.name], point) for each in deciding}

        own = [each for each in deciding if wanted[each.name] is not None]
        aimed = {each.name for each in own if not (self.is_halted or each.is_halted)}
        self.scale_to_cap(wanted, held, aimed, equity)

        kept = [each for each in own if self.is_in_band(each, wanted, held, equity)]
        trading = {each.name for each in own} - {each.name for each in kept}

        gross = sum((abs(wanted[n] if n in trading else held[n]) for n in held), ZERO)
        if gross > BAND_SLACK * exact(self.max_gross) * equity * (ONE + TIE):
            over = [each for each in kept if abs(held[each.name]) > abs(wanted[each.name])]
            self.note("bands narrowed by the cap" if over else "over the cap")
            kept = [each for each in kept if each not in over]

        return [(each, wanted[each.name], held[each.name]) for each in own if each not in kept]

    def scale_to_cap(
        self,
        wanted: dict[str, Decimal | None],
        held: Mapping[str, Decimal],
        aimed: set[str],
        equity: Decimal,
    ) -> None:
        """``max_gross_leverage``: one factor for all targets; what has none counts as held."""
        most = exact(self.max_gross) * equity
        rest = sum((abs(held[name]) for name in held if name not in aimed), ZERO)
        total = sum((abs(wanted[name]) for name in aimed), ZERO)

        if total > 0 and total + rest > most:
            self.note("scaled to the cap")
            for name in aimed:
                wanted[name] *= max(most - rest, ZERO) / total

    def is_in_band(
        self,
        position: Position,
        wanted: Mapping[str, Decimal | None],
        held: Mapping[str, Decimal],
        equity: Decimal,
    ) -> bool:
        """§4.2: too near to trade, unless the target is to be flat."""
        target = wanted[position.name]
        now = held[position.name]

        is_in = target != 0 and abs(target - now) <= position.band * equity * (ONE + TIE)
        if is_in:
            self.note("left alone: band")
        return is_in

    def target(
        self, position: Position, equity: Decimal, held: Decimal, point: Point
    ) -> Decimal | None:
        """§4.1: s·L·G·E; None leaves the position as it is."""
        answer, signal = position.pending
        if equity <= position.order_fee and not (self.is_halted or position.is_halted):
            self.note("left alone: no money for the order")
            return None

        if signal == 0:
            return ZERO

        if math.isnan(answer) or math.isnan(self.factor):
            self.note("left alone: NaN")
            return None

        if self.factor == 0:
            return ZERO

        leverage = min(max(answer, position.floor), float(position.limit))
        if not math.isinf(leverage):
            return exact(signal) * exact(leverage) * exact(self.factor) * equity

        most = max(self.most_alone(position, equity, held * exact(signal) > 0, signal, point), ZERO)
        is_over = abs(signal) == 1 and held * exact(signal) > most
        return held if is_over else exact(signal) * most  # §3: never force-reduced

    def most_alone(
        self, position: Position, equity: Decimal, adds: bool, signal: float, point: Point
    ) -> Decimal:
        """The largest notional that the limits allow in this instrument alone, before costs."""
        value = position.value("fill")
        if position.is_isolated:
            free = equity - (position.uncounted(value) if adds else ZERO)
        else:
            free = self.backing(point) - self.uncounted(point, () if adds else (position.name,))
            free += position.withheld(point.marks[position.rank], position.quantity)

        if position.is_isolated or not self.rule.has_scenarios:
            return max(min(cap, most * free) for cap, most in position.limits())

        unit = (ONE if signal > 0 else -ONE) / abs(value)
        each = self.rule.needed([position.leg(value, unit)], [], [], True)
        each += position.withheld(value, unit)

        cap = max(cap for cap, _ in position.limits())
        return min(cap, free / each) if each > 0 else cap

    # ----- forced reductions (§5) -----

    def force_reductions(self, point: Point) -> set[str]:
        """The broker reduces after the grace; the names whose decision that replaces."""
        replaced: set[str] = set()

        is_due = self.pool.was_forced and self.cross and not self.pool.was_liquidated
        if is_due and self.reduce_to_ratio(None, self.cross, point):
            self.note("reduced by force")
            replaced |= {each.name for each in self.positions if not each.is_isolated}
        for each in self.isolated:
            if each.call.was_forced and each.pending and self.reduce_to_ratio(each, [each], point):
                self.note("reduced by force")
                replaced.add(each.name)
        return replaced

    def reduce_to_ratio(
        self, owner: Position | None, positions: Sequence[Position], point: Point
    ) -> bool:
        """To the ratio of the call, after costs, by one factor; False where nothing traded."""
        called = exact(self.account.margin_call)
        top = self.account.top_up_to
        ratio = called * (ONE - 10 * TIE) if top is None else exact(top)

        values = {each.name: each.value("fill") for each in positions}
        whole = sum((abs(e.quantity * values[e.name]) * e.reducing_cost for e in positions), ZERO)
        backing = self.behind(owner, point) - sum((e.order_fee for e in positions), ZERO)
        backing += self.withheld(point) if owner is None else ZERO

        def room(factor: Decimal) -> Decimal:
            if owner is None:
                sizes = {each.name: factor * each.quantity for each in positions}
                needed = self.required(point, sizes) + ratio * self.withheld(point, sizes)
            else:
                needed = owner.leg(values[owner.name], factor * owner.quantity).maintenance
            return ratio * (backing - (ONE - factor) * whole) - needed

        kept = largest_passing(room) or ZERO
        sizes = [(each, kept * each.quantity) for each in positions]
        done = sum(self.fill_forced(each, size) for each, size in sizes) > 0

        call = self.pool if owner is None else owner.call
        is_met = not done and self.margin_ratio(owner, point) < self.call_level()
        self.end_call(owner, call, point, is_met=is_met)
        return done

    def fill_forced(self, position: Position, quantity: Decimal) -> bool:
        """Fill a forced reduction; False where it is dust or too small to trade."""
        change = position.ordered(quantity.copy_sign(position.quantity))
        if self.is_too_small(position, change, abs(position.quantity)):
            return False
        wallet = self.cash
        self.fill(position, change)
        if position.is_isolated and position.quantity != 0:  # what is freed stays in M
            position.margin += self.cash - wallet
            self.cash = wallet
        return True

    # ----- increases -----

    def fill_increases(
        self,
        increases: Sequence[tuple[Position, Decimal, Decimal]],
        bought: list[OptionOrder],
        equity: Decimal,
        point: Point,
    ) -> None:
        """Own limits, the balance, the common factor; then lots and fills in order."""
        orders = [self.cut_alone(*each, equity) for each in increases]
        orders, bought = self.cut_to_balance(orders, bought)
        factor = self.common_factor(orders, bought, point)
        if factor < 1:
            self.note("shrunk by initial margin")
        self.posts_in_full = True
        owed = self.owed()
        for order in orders:
            before = self.owed()
            self.fill_to(order.position, order.quantity(factor))
            if order.position.quantity == 0:  # a flip that was cut to its close
                owed += self.owed() - before
        self.posts_in_full = False
        for each in bought:
            change = each.quantity(factor) - each.option.quantity
            if abs(change) > TIE * abs(each.option.quantity):
                self.trade_option(each.option, change, each.price)
        self.lift_balance([order.position for order in orders], owed)

    def cut_alone(
        self, position: Position, target: Decimal, held: Decimal, equity: Decimal
    ) -> Order:
        """The venue's cap; an isolated order as if it were the only one.

        Its margin and fee are bounded so that the wallet pays them at any smaller size too. With
        less impact a seller gets more for a contract, and posts more: without impact the most.
        (In coins a buyer does.)
        """
        value = abs(position.value("fill"))
        direction = 1 if target > 0 else -1
        before = held * direction  # negative for a flip
        wanted = position.cost(direction, position.worsening(abs(target - held)))
        target = direction * self.within_share(position, abs(target), before, equity, wanted)
        kept = max(before, ZERO)
        worsening = position.worsening(abs(target - held))
        kappa = position.cost(direction, worsening)
        filled, unmoved = (
            position.on_tick(position.worse(position.price("fill"), direction, each), direction)
            for each in (worsening, position.worsening(ZERO))
        )
        largest = max(abs(filled), abs(unmoved))
        size = min(abs(target), max(kept, *(cap for cap, _ in position.limits())))
        if position.is_isolated:
            size = min(size, max(self.largest_isolated(position, before, equity, kappa), kept))
            wallet = self.wallet_for(position, before, filled)
            per_contract = largest * (ONE / position.effective_setting + position.fee)
            most = max(ZERO, wallet / per_contract) * value
            if most < size - kept:
                self.note("shrunk by the wallet")
            size = kept + min(size - kept, most)
        if size < abs(target):
            self.note("cut alone")
        closing = -position.quantity if before < 0 else ZERO
        adding = direction * (size - kept) / value
        return Order(position, closing, adding, kappa, filled, position.fee, largest)

    def within_share(
        self, position: Position, size: Decimal, before: Decimal, equity: Decimal, kappa: Decimal
    ) -> Decimal:
        """``margin_share``: initial(N) <= share·(E - κ·(N - before)), the best bracket's; no less
        than what is held."""
        if position.share is None:
            return size
        free = position.share * (equity - position.order_fee + kappa * before)
        most = max(
            min(cap, free / (ONE / leverage + position.share * kappa))
            for cap, leverage in position.limits()
        )
        if max(most, before, ZERO) < size:
            self.note("cut to its share")
        return min(size, max(most, before, ZERO))

    @staticmethod
    def largest_isolated(
        position: Position, before: Decimal, equity: Decimal, kappa: Decimal
    ) -> Decimal:
        """§3: the largest N with N <= max_k min(C_k, X_k·(E - κ·(N - before)))."""
        free = equity - position.order_fee
        if before > 0:
            free -= position.uncounted(position.value("fill"))
        return max(
            min(cap, most * (free + kappa * before) / (ONE + kappa * most))
            for cap, most in position.limits()
        )

    def wallet_for(self, position: Position, before: Decimal, filled: Decimal) -> Decimal:
        """§3: what may pay new margin and fee: B, and what a reduction has returned."""
        wallet = max(self.balance(), ZERO) - position.order_fee
        if before < 0:
            wallet += position.backing(filled)
            wallet -= position.fee * abs(position.quantity * filled)
        return wallet

    def cut_to_balance(
        self, orders: list[Order], bought: list[OptionOrder]
    ) -> tuple[list[Order], list[OptionOrder]]:
        """Isolated margins and premiums take at most B less the fees of the cross increases."""
        isolated = [order for order in orders if order.position.is_isolated]
        fees = ZERO
        for order in orders:
            each = order.position
            if not each.is_isolated and order.trades:
                fees += order.rate * order.traded(ONE) * abs(order.filled) + each.order_fee
                if each.is_spot and order.closing + order.adding > 0:  # paid out of B
                    fees += order.traded(ONE) * order.filled
        paying = [each for each in bought if each.adding > 0]
        fees += sum((abs(o.closing + o.adding) * o.fee for o in bought if o.adding < 0), ZERO)
        fees += sum((o.closing * o.price + abs(o.closing) * o.fee for o in paying), ZERO)
        taken = sum((order.opens_with() for order in isolated), ZERO)
        taken += sum((o.adding * (o.price + o.fee) for o in paying), ZERO)
        returned = sum(  # what is cut to 0 binds nobody
            (o.returns() if o.adding != 0 else max(o.returns(), ZERO) for o in isolated), ZERO
        )
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

    def common_factor(
        self, orders: list[Order], bought: list[OptionOrder], point: Point
    ) -> Decimal:
        """The largest share of all increases with M ≥ initial(cross) after costs; else 0."""
        orders = [order for order in orders if order.trades]
        isolated = [order for order in orders if order.position.is_isolated]
        cross = [order for order in orders if not order.position.is_isolated]
        flips = [order.position.name for order in orders if order.closing != 0]
        free = self.backing(point, []) - self.uncounted(point, flips)
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

    def at_limits(self, point: Point, orders: list[Order]) -> Point:
        """A point at which what has an order is at the price of the order."""
        marks = list(point.marks)
        for order in orders:
            marks[order.position.rank] = order.position.value("fill")
        return point._replace(marks=tuple(marks))

    @staticmethod
    def edges_of(orders: list[Order]) -> list[Decimal]:
        """Where a notional crosses the cap of a bracket: initial margin jumps there."""
        edges = []
        for order in orders:
            position = order.position
            value = abs(order.position.value("fill"))
            if order.adding != 0:
                kept = abs(order.quantity(ZERO)) * value
                added = abs(order.adding) * value
                edges += [(cap - kept) / added for cap in position.table.caps if cap != INFINITY]
        return edges

    def owed(self) -> Decimal:
        return max(-self.cash, ZERO)

    def lift_balance(self, increased: list[Position], owed: Decimal) -> None:
        """What rounding up to a lot costs beyond B, if nothing backs it: new margins pay. What
        closes left ``owed`` is bad debt."""
        if self.cross or self.has_collateral or self.has_options:
            return
        for each in reversed([each for each in increased if each.is_isolated and each.quantity]):
            moved = min(max(self.owed() - owed, ZERO), max(each.margin, ZERO))
            if moved > 0:
                self.note("new margins pay for rounding")
            each.margin -= moved
            self.cash += moved

    # ----- fills -----

    def fill_to(self, position: Position, quantity: Decimal) -> None:
        """Order a position: lots, least notional, then the fill."""
        change = position.ordered(quantity)
        dust = self.capital * DUST / TIE / abs(position.value("fill"))
        if not self.is_too_small(position, change, max(abs(position.quantity), dust)):
            self.fill(position, change)

    def is_too_small(self, position: Position, change: Decimal, size: Decimal) -> bool:
        """No order: dust (§2: and no fixed fee), or under the least notional; a close is never."""
        if change == -position.quantity:
            return change == 0
        is_small = abs(change * position.value("fill")) < position.least * (ONE - TIE)
        if change != 0 and is_small:
            self.note("left alone: small")
        return is_small or abs(change) <= TIE * size

    def fill(self, position: Position, change: Decimal) -> None:
        """§4.6 and 4.7: at the worsened price, with its fee; rounding to ticks is slippage."""
        value = position.value("fill")
        side = 1 if change > 0 else -1
        impact = position.impact(abs(change * value), position.impact_factor)
        whole = position.slip + impact
        self.revalue(position, value)
        worse = position.worse(
            position.price("fill"), side, position.worsening(abs(change * value))
        )
        filled = position.on_tick(worse, side)
        self.exchange("fill", position, change, filled, position.fee)
        impacted = change * (worse - value) * impact / whole if whole else ZERO
        self.charge("slippage", change * (filled - value) - impacted, position, filled)
        self.charge("impact", impacted, position, filled)


# ----------------------------------------- limit orders: placed at the open, filled inside the bar
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
        return getattr(self.account, "closing", "market") == "limit"

    def rests(self, position: Position) -> bool:
        """Whether closings and reductions are limit orders; what a halt closes is not."""
        return self.rests_closing and not (self.is_halted or position.is_halted)

    def trade_at_market(
        self, position: Position, target: Decimal, held: Decimal, decided: Decimal
    ) -> None:
        if self.rests(position):
            return
        if is_reduction(target, held):
            self.fill_to(position, target / abs(position.contract.value(decided)))
        elif target * held < 0:
            self.fill_to(position, ZERO)

    def rest_reduction(self, position: Position, target: Decimal, decided: Decimal) -> None:
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
        target = side * self.within_share(position, abs(target), before, equity, rate + lost)
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
            position, closing, side * (size - kept) / value, rate + lost, position.value("fill"),
            rate, value,
        )  # fmt: skip

    def place_increases(self, orders: list[Order], point: Point) -> None:
        """All increases have their margin reserved together, or a common part of them."""
        if not orders:
            return
        orders, _ = self.cut_to_balance(orders, [])
        factor = self.common_factor(orders, [], point)
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
                "limit_order", position, change, abs(change * position.value("fill")),
                position.value("fill"),
            )  # fmt: skip
            position.resting = Resting(change, limit, through, adds)

    # ----- inside the bar -----

    def waiting(self) -> list[Position]:
        """Instruments with an order; what drops the decision has cancelled it."""
        return [each for each in self.present if each.resting and each.pending is not None]

    @staticmethod
    def next_fill(position: Position, start: Point, end: Point, place: Decimal) -> Decimal | None:
        opened = start.lasts[position.rank]
        ended = end.lasts[position.rank]
        now = opened + place * (ended - opened)
        if position.resting.is_reached(position.contract.price(now)):
            return place
        if not position.resting.is_reached(position.contract.price(ended)):
            return None
        through = position.contract.value(position.resting.through)
        return min(ONE, max(place, (through - opened) / (ended - opened)))

    def fill_resting(self, position: Position, _: Point) -> None:
        order = position.resting
        held = position.quantity
        value = position.contract.value(order.limit)
        if order.adds and position.is_isolated and not self.covers(position, order, value):
            self.note("limit order cancelled: empty wallet")
            position.resting = None
            return
        self.note("limit order filled")
        self.revalue(position, value)
        self.posts_in_full = order.adds
        owed = self.owed()
        self.exchange("fill", position, order.change, value, position.maker)
        self.posts_in_full = False
        position.pending = position.resting = None
        position.is_opened = held * position.quantity <= 0
        position.is_increased = position.is_opened or abs(position.quantity) > abs(held)
        if order.adds:
            self.lift_balance([position], owed)

    def covers(self, position: Position, order: Resting, value: Decimal) -> bool:
        """Whether the wallet still pays margin and fee of an isolated order."""
        held = position.quantity
        wallet = max(self.balance(), ZERO)
        opening = order.change
        if held * order.change < 0:
            opening += held
            wallet += position.backing(value)
        needed = abs(opening * value) / position.effective_setting
        needed += position.maker * abs(order.change * value) + position.order_fee
        return wallet - needed >= -Decimal("1e-9") * abs((held + order.change) * value)

    def take_late_profits(self) -> bool:
        """What an order has opened or increased takes its profit if the last close is there. An
        extreme may have come before the fill; the close comes after it."""
        before = len(self.held)
        for each in self.held:
            for kind, price in each.goals() if each.is_increased else ():
                if reaches(each.price("close"), price, each.quantity < 0):
                    self.note("take_profit at the close")
                    self.close_by_stop(kind, each, each.contract.value(price))
        return len(self.held) < before


def is_reduction(target: Decimal, held: Decimal) -> bool:
    return target == 0 or (target * held > 0 and abs(target) <= abs(held))
