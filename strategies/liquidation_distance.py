"""Keep a stated distance to liquidation with the least margin."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Policy, Range, margin


class LiquidationDistance(Policy):
    """Hold a leverage, and post as much margin as keeps the liquidation price at a distance.

    The notional is ``target`` times equity, as of Constant. At each close the margin M of the
    isolated position is set such that its liquidation price P is ``distance`` from the mark, below
    it for a long and above it for a short: M + q (u(P) - u(entry)) = MM(|q u(P)|), u the value of
    one contract and MM the maintenance margin. The setting at the venue is |q u(entry)| / M, at
    most what its first bracket allows. So margin follows losses, and returns after them; what stays
    in the wallet is out of reach of a liquidation. While nothing is held, the setting is that of a
    position of the target at the close, on the side that needs more.

    The venue returns margin only down to the initial margin and the unrealized loss, and the wallet
    may be too small for the distance.
    Source: own construction, from the liquidation price of the venue (docs/accounting.md).
    """

    fails_when: ClassVar[str] = (
        "A trend against the position without a bounce: it pays margin until the wallet is empty."
    )
    target: Annotated[float, Range(0.0, 20.0, "turns of equity")] = 2.0
    distance: Annotated[float, Range(0.005, 0.9, "of the mark", log=True)] = 0.15

    def leverage(self, bar: Bar, account: AccountView) -> float:  # noqa: ARG002 - the signature of a formula
        """Return the target."""
        return self.target

    def venue_leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the setting whose margin keeps the distance."""
        quantity, entry = account.position, account.entry
        if quantity == 0.0:
            unit = abs(value_contract(account.venue, bar.mark))
            quantity, entry = self.target * account.equity / unit, bar.mark
            most = max(
                find_margin(account.venue, quantity, entry, bar.mark * (1.0 - self.distance)),
                find_margin(account.venue, -quantity, entry, bar.mark * (1.0 + self.distance)),
            )
        else:
            move = -self.distance if quantity > 0.0 else self.distance
            most = find_margin(account.venue, quantity, entry, bar.mark * (1.0 + move))
        posted = abs(quantity * value_contract(account.venue, entry))
        limit: float = account.venue.leverages[0]
        return posted / most if posted < limit * most else limit


def find_margin(venue: margin.MarginRules, quantity: float, entry: float, price: float) -> float:
    """Return the margin with which a position is liquidated at a price."""
    value = value_contract(venue, price)
    needed: float = margin.maintenance(venue, quantity * value)
    return needed - quantity * (value - value_contract(venue, entry))


def value_contract(venue: margin.MarginRules, price: float) -> float:
    """Return u, the value of one contract."""
    return -venue.size / price if venue.is_inverse else venue.size * price
