"""A volatility target scaled by the estimated Sharpe ratio."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range
from backtest.indicators import ewma_volatility, rolling_sharpe


class SharpeScaling(Policy):
    """Scale a volatility target by a shrunk estimate of the Sharpe ratio.

    L_t = (target / sigma_t) clip(SR_t / reference, 0, cap). SR_t is the mean of two estimates,
    weighted by their precision 1 / error^2: the Sharpe ratio of the last ``window`` bars with its
    standard error, and ``prior`` with ``prior_error``. Three months contain little information (the
    error is 2 per sqrt(year)), so SR_t moves slowly away from the prior.

    The estimate is for the traded signal: the side at each close, at leverage 1 and net of
    funding. sigma, SR, prior and reference are all annual.
    Source: Lo (2002), The Statistics of Sharpe Ratios, Financial Analysts Journal 58(4), for the
    error; Gelman et al., Bayesian Data Analysis, section 2.5, for the weights.
    """

    fails_when: ClassVar[str] = (
        "A trend that turns faster than its window: the leverage is highest at the top."
    )

    target: Annotated[float, Range(0.05, 2.0, "per sqrt(year)", log=True)] = 0.40
    half_life: Annotated[float, Range(2, 2000, "bars", log=True)] = 72.0
    window: Annotated[int, Range(24, 20_000, "bars", log=True)] = 2160
    prior: Annotated[float, Range(-1.0, 3.0, "per sqrt(year)")] = 0.5
    prior_error: Annotated[float, Range(0.05, 5.0, "per sqrt(year)", log=True)] = 1.0
    reference: Annotated[float, Range(0.1, 5.0, "per sqrt(year)", log=True)] = 1.0
    cap: Annotated[float, Range(0.1, 5.0)] = 2.0

    def observe(self, market: Market) -> Columns:
        """Return sigma, and the Sharpe ratio of the window with its standard error."""
        sharpe = rolling_sharpe(market, self.window)
        return {
            "sigma": ewma_volatility(market, self.half_life),
            "sharpe": sharpe.ratio,
            "error": sharpe.error,
        }

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (target / sigma) clip(SR / reference, 0, cap)."""
        # SR, the mean of the estimate and the prior, each by its precision 1 / error^2.
        precision = 1.0 / (bar.error * bar.error)
        prior_precision = 1.0 / (self.prior_error * self.prior_error)

        weight = precision / (precision + prior_precision)
        sharpe = weight * bar.sharpe + (1.0 - weight) * self.prior

        scale = min(max(sharpe / self.reference, 0.0), self.cap)
        return self.target / bar.sigma * scale
