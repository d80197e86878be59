"""One option of the account: what is held of it, and an order that increases it."""

from decimal import Decimal
from typing import Any, NamedTuple

from tests.oracle.numbers import ONE, ZERO, exact


class OptionState:
    """What the account holds of one option."""

    def __init__(self, given: Any, rank: int) -> None:
        self.given, self.rank, self.name = given, rank, given.name
        self.quantity = self.valued_at = ZERO
        self.paid = ZERO  # the average premium of what is held
        self.realized = ZERO  # in this bar
        self.pending: Decimal | None = None
        self.is_gone = False
        self.size = exact(given.size)
        self.tick = exact(given.tick) * self.size
        self.fee_rate, self.fee_cap = exact(given.fee_rate), exact(given.fee_cap)
        self.delivery_rate, self.delivery_cap = (
            exact(given.delivery_rate),
            exact(given.delivery_cap),
        )

    def fee(self, price: Decimal, index: Decimal) -> Decimal:
        """Of one contract: a rate of the index, or of a coin, at most a share of the price."""
        return capped(self, self.fee_rate, self.fee_cap, price, index)

    def delivery_fee(self, payoff: Decimal, index: Decimal) -> Decimal:
        """The same on the payoff."""
        return capped(self, self.delivery_rate, self.delivery_cap, payoff, index)

    def hold(self, quantity: Decimal, price: Decimal, value: Decimal | None = None) -> None:
        """Hold another quantity, traded at a price; the premium is averaged as an entry is.

        What is closed is realized at the price, or at the value that is given.
        """
        held = self.quantity
        is_turned = quantity * held <= 0
        closed = held if is_turned else held - quantity
        if is_turned or abs(quantity) < abs(held):
            self.realized += closed * ((price if value is None else value) - self.paid)
        if is_turned:
            self.paid = price if quantity else ZERO
        elif abs(quantity) > abs(held):
            self.paid += (price - self.paid) * (quantity - held) / quantity
        self.quantity = quantity

    def payoff(self, price: Decimal) -> Decimal:
        """What one contract pays at expiry."""
        units = max(ZERO, self.given.sign * (price - exact(self.given.strike)))
        return self.size * (units / price if self.given.is_coin else units)


def capped(
    option: OptionState, rate: Decimal, cap: Decimal, price: Decimal, index: Decimal
) -> Decimal:
    """A fee at most a share of a price."""
    unit = ONE if option.given.is_coin else index
    return min(rate * unit * option.size, cap * price)


class OptionOrder(NamedTuple):
    """An increase of an option: what it closes first, what it adds, its price and its fee."""

    option: OptionState
    closing: Decimal
    adding: Decimal
    price: Decimal
    fee: Decimal

    def quantity(self, factor: Decimal) -> Decimal:
        """What is held after a share of the increase."""
        return self.option.quantity + self.closing + factor * self.adding

    def paid(self, factor: Decimal) -> Decimal:
        """What it takes out of the cash: premium and fee."""
        change = self.closing + factor * self.adding
        return change * self.price + (abs(self.closing) + factor * abs(self.adding)) * self.fee
