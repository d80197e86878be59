"""Keep a stated distance to liquidation with the least margin."""

from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, Policy, Range, margin


class LiquidationDistance(Policy):
    """Hold a leverage, and post as much margin as keeps the liquidation price at a distance.

    The notional is ``target`` times equity, as of Constant. At each close the margin M of the
    isolated position is chosen such that its liquidation price P is ``distance`` from the mark,
    below it for a long and above it for a short: M + q (u(P) - u(entry)) = MM(|q u(P)|), u the
    value of one contract and MM the maintenance margin. The setting at the venue is
    |q u(entry)| / M. Of a losing position the venue keeps the loss and the initial margin: for less
    margin than is posted, the setting is then |q u(mark)| / (M - loss). So margin follows losses,
    and returns after them; what stays in the wallet is out of reach of a liquidation. While nothing
    is held, the setting is that of a position of the target at the close, on the side that needs
    more. The wallet may be too small for the distance.

    Source: own construction, from the liquidation price of the venue (docs/margin-rules.md).
    """

    fails_when: ClassVar[str] = (
        "A trend against the position without a bounce: it adds margin until the balance is empty."
    )

    target: Annotated[float, Range(0.0, 20.0, "x of equity")] = 2.0
    distance: Annotated[float, Range(0.005, 0.9, "of the mark", log=True)] = 0.15

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the target."""
        return self.target

    def venue_leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the leverage to set at the venue, whose margin keeps the distance.

        It is the notional over the margin that is needed, at most the largest of the venue.
        """
        venue = account.venue
        limit: float = venue.leverages[0]
        value = value_contract(venue, bar.mark)

        # Nothing is held: the side of the next order is not known, so the one that needs more.
        if account.position == 0.0:
            quantity = self.target * account.equity / abs(value)
            lower = bar.mark * (1.0 - self.distance)
            upper = bar.mark * (1.0 + self.distance)
            of_long = find_margin(venue, quantity, bar.mark, lower)
            of_short = find_margin(venue, -quantity, bar.mark, upper)
            return limit_setting(quantity * value, max(of_long, of_short), limit)

        # The margin that keeps the distance, and the one that is posted: the liquidation price
        # that the account has says how much it is.
        quantity = account.position
        side = 1.0 if quantity > 0.0 else -1.0
        price = bar.mark * (1.0 - side * self.distance)
        wanted = find_margin(venue, quantity, account.entry, price)
        posted = find_margin(venue, quantity, account.entry, account.liquidation_price)

        # Margin is taken back from a losing position: the venue keeps the loss, and counts the
        # setting at the mark.
        entry_value = value_contract(venue, account.entry)
        profit = quantity * (value - entry_value)
        if posted > wanted and profit < 0.0:
            return limit_setting(quantity * value, wanted + profit, limit)

        return limit_setting(quantity * entry_value, wanted, limit)


def limit_setting(notional: float, wanted: float, limit: float) -> float:
    """Return the leverage of a notional with the wanted margin, at most the limit."""
    size = abs(notional)
    if size < limit * wanted:
        return size / wanted
    return limit


def find_margin(venue: Any, quantity: float, entry: float, price: float) -> float:
    """Return the margin with which a position is liquidated at a price.

    MM(|q u(P)|) - q (u(P) - u(entry)).
    """
    value = value_contract(venue, price)
    needed: float = margin.maintenance(venue, quantity * value)
    profit = quantity * (value - value_contract(venue, entry))
    return needed - profit


def value_contract(venue: Any, price: float) -> float:
    """Return u, the value of one contract."""
    size: float = venue.size
    if venue.is_inverse:
        return -size / price
    return size * price
