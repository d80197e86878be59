"""Risk only what lies over a fraction of the peak."""

from typing import Annotated

from backtest import AccountView, Bar, Policy, Range


class DrawdownControl(Policy):
    """Never lose more than a given part of the peak.

    L = max(0, k (1 - alpha M / E) / (1 - alpha)): E the equity, M its peak, k the leverage at the
    peak and alpha the floor, so that equity stays over alpha M. Of those that do, it makes wealth
    grow fastest where k / (1 - alpha) is the Kelly leverage mu / sigma^2; growth is then
    (1 - alpha) SR^2 / 2.

    The limit holds while no bar takes more than (1 - alpha) / k off the price, from one open to the
    next, before costs. A bar that takes d breaches it by (d k / (1 - alpha) - 1) times what lay
    over the floor; then the account stays out for good, since its peak does not come down.
    Source: Grossman and Zhou (1993), Optimal Investment Strategies for Controlling Drawdowns,
    Mathematical Finance 3(3).
    """

    at_peak: Annotated[float, Range(0.1, 20.0, "turns of equity", log=True)] = 1.0
    floor: Annotated[float, Range(0.0, 0.95, "of peak equity")] = 0.5

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return k (1 - alpha M / E) / (1 - alpha)."""
        room = 1.0 - self.floor * account.peak_equity / account.equity
        return max(self.at_peak * room / (1.0 - self.floor), 0.0)
