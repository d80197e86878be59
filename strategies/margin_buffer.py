"""Keep the margin ratio in a band."""

import math
from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Promise, Range, margin


class MarginBuffer(Policy):
    """Trade only when the margin ratio leaves a band, and then back to a target.

    L such that MM(L E) = target E, by the venue's own brackets, if the ratio MM / E at a close is
    above high times the target, below low times it, or nothing is held; otherwise the position
    stays unchanged. MM is the maintenance margin and E the equity: at a ratio of 1 the position is
    liquidated. A signal of one half has half the target and half the band. A change of side is
    followed at once.

    The trade is made at the next open. So one bar may close with the ratio outside the band, but
    not a second one: by then the ratio is back at the target, except for that bar's own move. In
    isolated margin the backing is posted with the position, and its size does not change its own
    ratio. The policy then compares the maintenance margin with the equity of the whole account, and
    does not protect the position from liquidation.
    Source: a rule of practice; for what follows where many keep to it, Brunnermeier and Pedersen
    (2009), Market Liquidity and Funding Liquidity, Review of Financial Studies 22(6).
    """

    fails_when: ClassVar[str] = (
        "A market that swings: it buys after rises and sells after falls, at a high leverage."
    )

    target: Annotated[float, Range(0.001, 0.9, "of equity", log=True)] = 0.004
    low: Annotated[float, Range(0.0, 1.0, "of the target")] = 0.5
    high: Annotated[float, Range(1.0, 20.0, "of the target", log=True)] = 2.0

    def promises(self) -> tuple[Promise, ...]:
        """Return the upper edge of the band, which two closes in a row do not exceed."""
        edge = min(self.high * self.target, 1.0)
        return (Promise("margin ratio back in the band", "margin_ratio_twice", edge, 0.1),)

    def observe(self, market: Market) -> Columns:
        """Return the signal decided at each close."""
        return {"signal": market.signal}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the leverage at which the maintenance margin is the target share of the equity.

        NaN, which keeps the position, while that share over the target is inside the band.
        """
        # A signal of one half has half the target, and half the band.
        scale = abs(bar.signal)
        if scale == 0.0:
            return 0.0
        scaled_equity = scale * account.equity

        # Inside the band a position on the side of the signal stays as it is.
        ratio_to_target = account.maintenance / (scaled_equity * self.target)
        is_held = bar.signal * account.position > 0.0
        if is_held and self.low <= ratio_to_target <= self.high:
            return math.nan

        # Leverage is per unit of signal: the account takes it times the signal.
        notional = find_notional(account.venue, self.target * scaled_equity)
        return notional / scaled_equity


def find_notional(venue: Any, requirement: float) -> float:
    """Return the notional whose maintenance margin is ``requirement``, which is over 0.

    ``venue.floors`` are the notionals at which the brackets of the venue begin, the first at 0. The
    margin is a straight line from each floor to the next, and beyond the last. So the notional is
    interpolated between the two floors whose margins enclose the requirement.
    """
    floor = 0.0
    margin_at_floor = 0.0
    for k in range(1, len(venue.floors)):
        next_floor: float = venue.floors[k]
        margin_at_next: float = margin.maintenance(venue, next_floor)
        if margin_at_next >= requirement:
            width = next_floor - floor
            rise = margin_at_next - margin_at_floor
            return floor + (requirement - margin_at_floor) * width / rise

        floor = next_floor
        margin_at_floor = margin_at_next

    # Beyond the last floor any width shows the slope. The requirement is one at hand, in the same
    # currency.
    width = requirement
    margin_beyond: float = margin.maintenance(venue, floor + width)
    rise = margin_beyond - margin_at_floor
    return floor + (requirement - margin_at_floor) * width / rise
