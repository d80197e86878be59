"""Options in the account: paid, marked, margined, filled and expired (B1 to B5).

A case gives each option as an object: what it is (``name, underlying, sign, strike, size,
is_coin``), its fees, when and at which price it expires, the contracts to hold (decided at each
close, NaN leaves them), its quotes by bar, and its value at a :class:`Moment` as a function of the
price of the underlying.
"""

import math
from decimal import Decimal

from tests.oracle.numbers import ONE, REMAINDER, TIE, ZERO, exact
from tests.oracle.option_margin import Holding, OptionOrder, OptionState
from tests.oracle.outcome import KIND_OF_COLUMN, Event
from tests.oracle.state import Point, State


class Options(State):
    """What an account pays for options, and how they are filled and closed."""

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
        fee = abs(held) * option.fee(payoff, price, "delivery")
        self.cash -= fee
        self.log_option("expiry", option, -held, abs(held * payoff))
        self.charge_option("fees", option, fee)

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
            self.log_option(KIND_OF_COLUMN.get(column, column), option, option.quantity, amount)

    # ----- fills (B5) -----

    def fill_price(self, option: OptionState, side: int, point: Point) -> Decimal | None:
        """Ask or bid of the row, or half of the spread from the mark; None: unquoted."""
        given = option.given
        t = self.t
        if given.has_quote[t]:
            quote = float((given.ask if side > 0 else given.bid)[t])
            return None if math.isnan(quote) else exact(quote) * option.size
        return self.price_at_spread(option, side, point, float(given.half_spread[t]))

    def price_at_spread(
        self, option: OptionState, side: int, point: Point, half_spread: float
    ) -> Decimal:
        """The value at another volatility, a tick from the mark at least, and not under 0. Where
        vega is under 1e-4 of the forward, the spread of the price, if that is known."""
        given = option.given
        moment = self.moment
        mark = self.mark(option, point)
        index = float(self.index_of(option, point))
        half_price = float(given.half_price[self.t])
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
        mark = self.mark(option, point)
        index = self.index_of(option, point)
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

    def order_options(self, point: Point) -> list[OptionOrder]:
        """Fill what reduces; return the increases."""
        found = []
        for each in self.options:
            if each.pending is None or each.pending == each.quantity:
                continue
            change = each.pending - each.quantity
            price = self.fill_price(each, 1 if change > 0 else -1, point)
            if price is None:
                self.note("unquoted")
                self.log_option("unquoted", each, change, ZERO)
                continue
            held = each.quantity
            after = each.pending
            if after == 0 or (after * held > 0 and abs(after) <= abs(held)):
                self.trade_option(each, change, price)
            else:
                closing = -held if held * after < 0 else ZERO
                fee = each.fee(price, self.index_of(each, point))
                found.append(OptionOrder(each, closing, change - closing, price, fee))
        return found

    # ----- liquidation (B7) -----

    def lose_options(self, point: Point) -> Decimal:
        """``takeover``: longs are lost too."""
        total = ZERO
        for each in self.held_options:
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

    @staticmethod
    def forced_fee(asked: Decimal, left: Decimal) -> Decimal:
        """At most what is left, with the tolerance of §4.7."""
        return max(left, ZERO) if asked * (ONE + TIE) >= left else asked

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
        price = self.forced_price(option, 1 if change > 0 else -1, point)
        mark = self.mark(option, point)
        self.force_option(option, change, price, mark)
        self.cash -= change * price
        fee = abs(change) * option.fee(price, self.index_of(option, point))
        return change * (price - mark), fee

    def forced_price(self, option: OptionState, side: int, point: Point) -> Decimal:
        """Half of the spread from the mark, and the slippage of liquidations too if bought. Nobody
        bids where the row has no bid."""
        given = option.given
        t = self.t
        if side < 0 and given.has_quote[t] and math.isnan(given.bid[t]):
            return ZERO
        spread = float(given.half_spread[t])
        spread += float(self.position_of(option).forced_slip) if side > 0 else 0.0
        return self.price_at_spread(option, side, point, spread)

    def may_step(self, option: OptionState) -> bool:
        """A short; a long if selling it raises M, or where neither position nor short is left."""
        if option.quantity <= 0:
            return option.quantity < 0
        one = self.unpriced([option])
        others = self.unpriced([each for each in self.held_options if each is not option])
        counted = self.rule.counted(one + others) - self.rule.counted(others)
        if counted < option.quantity * (ONE - TIE):
            return True
        return not (self.cross or any(each.quantity < 0 for each in self.options))

    def notional_of(self, option: OptionState, point: Point) -> Decimal:
        unit = ONE if option.given.is_coin else self.index_of(option, point)
        return abs(option.quantity) * option.size * unit

    def part_of_option(self, option: OptionState, point: Point) -> Decimal:
        """One step of its underlying's venue, or all of it when it is small."""
        forced = self.position_of(option)
        notional = self.notional_of(option, point)
        step = forced.venue.liquidation.step
        is_whole = notional <= forced.full_below or step == "bracket"
        if is_whole or abs(option.quantity) <= REMAINDER * self.started[option.name]:
            return option.quantity
        self.note("partial step of an option")
        return option.quantity * exact(step)

    def gain_of_option(self, option: OptionState, part: Decimal, point: Point) -> Decimal:
        """What a step adds to M - level·R, after worsening and fee; leaves the account as it is."""
        side = -1 if part > 0 else 1
        price = self.forced_price(option, side, point)
        quantity_before = option.quantity
        cash_before = self.cash
        surplus_before = self.surplus(point)

        # As if the step were taken.
        option.quantity -= part
        self.cash += part * price
        fee = abs(part) * option.fee(price, self.index_of(option, point))
        surplus = self.surplus(point) - self.forced_fee(fee, self.backing(point))

        option.quantity = quantity_before
        self.cash = cash_before
        return surplus - surplus_before

    def rank_of_option(
        self, option: OptionState, part: Decimal, gain: Decimal, point: Point
    ) -> tuple[Decimal, int]:
        """Where an option stands in the order; after the instruments where they are named."""
        mark = self.mark(option, point)
        notional = self.notional_of(option, point)
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
