"""Drawdown control: risk only the equity above a fraction of its peak."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Policy, Promise, Range


class DrawdownControl(Policy):
    """Limit the loss from the peak to a given fraction.

    L = max(0, k (1 - alpha M / E) / (1 - alpha)): E the equity, M its peak, k the leverage at the
    peak and alpha the floor, so that equity stays above alpha M. Among such policies, wealth grows
    fastest if k / (1 - alpha) is the Kelly leverage mu / sigma^2; the growth rate is then
    (1 - alpha) SR^2 / 2.

    The limit holds while no bar lowers the price by more than (1 - alpha) / k, from one open to the
    next, before costs. A fall of d breaches it by (d k / (1 - alpha) - 1) times the equity above
    the floor. The account then stays out of the market, because its peak does not come down.
    Source: Grossman and Zhou (1993), Optimal Investment Strategies for Controlling Drawdowns,
    Mathematical Finance 3(3).
    """

    fails_when: ClassVar[str] = (
        "A gap through its floor: it stays out of the market while prices recover."
    )

    at_peak: Annotated[float, Range(0.1, 20.0, "x of equity", log=True)] = 1.0
    floor: Annotated[float, Range(0.0, 0.95, "of peak equity")] = 0.5

    def promises(self) -> tuple[Promise, ...]:
        """Return the largest fall from the peak."""
        largest = 1.0 - self.floor
        return (Promise("drawdown above the floor", "max_drawdown", largest, 0.01),)

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return k (1 - alpha M / E) / (1 - alpha)."""
        # 1 - alpha M / E: at the peak it is 1 - alpha, at the floor 0.
        room = 1.0 - self.floor * account.peak_equity / account.equity
        leverage = self.at_peak * room / (1.0 - self.floor)
        return max(leverage, 0.0)
