"""Kelly leverage: the fastest growth of wealth, with an estimated drift."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range
from backtest.indicators import ewma_volatility, rolling_drift


class Kelly(Policy):
    """Hold a fraction of the leverage at which wealth grows fastest.

    L_t = min(max(0, fraction mu_t / sigma_t^2), cap), sigma_t the exponentially weighted volatility
    and mu_t = m t^2 / (t^2 + shrinkage): m the mean return of the traded signal, net of funding,
    over the last ``window`` bars, both annual, and t = m / its standard error. A drift that is
    small compared with its error is shrunk: by half at t = 1 and shrinkage 1; shrinkage 0 uses it
    unchanged. Bars without a position earn 0, so a signal that is rarely in the market gets less.

    With mu and sigma known, full Kelly grows by SR^2 / 2 a year, half Kelly by three quarters of
    that at half the volatility, and twice Kelly not at all. An estimate that is too high costs as
    much growth as one that is too low, at more risk: use less than full Kelly.

    Log growth a year by shrinkage, all else by default, on hourly perpetuals of 2020 to 2023, and
    the median of 20 drawn markets without drift (``benchmarks/luck.py kelly FOLDER --count 20``):

    - 0: BTC 0.274, ETH 0.099, LTC -0.117; without drift -0.542, 2 of 20 ruined
    - 1: BTC 0.342, ETH 0.068, LTC -0.011; without drift -0.308, 2 of 20 ruined
    - 4: BTC 0.272, ETH 0.058, LTC 0.013; without drift -0.140, none ruined

    Each is best on one of three markets, so the default stays 1. Without drift all lose.
    Source: Thorp (2006), The Kelly Criterion in Blackjack, Sports Betting and the Stock Market,
    Handbook of Asset and Liability Management 1, section 7; Thompson (1968), Some Shrinkage
    Techniques for Estimating the Mean, J. American Statistical Association 63, for mu.
    """

    fails_when: ClassVar[str] = (
        "A good year that ends: the drift of the window is still high when the fall begins."
    )
    fraction: Annotated[float, Range(0.05, 2.0, "of full Kelly")] = 0.5
    window: Annotated[int, Range(24, 50_000, "bars", log=True)] = 2160
    shrinkage: Annotated[float, Range(0.0, 10.0, "squared standard errors")] = 1.0
    half_life: Annotated[float, Range(2, 2000, "bars", log=True)] = 168.0
    cap: Annotated[float, Range(0.1, 125.0, "x of equity", log=True)] = 5.0

    def observe(self, market: Market) -> Columns:
        """Return the drift of the window with its standard error, and sigma."""
        drift = rolling_drift(market, self.window)
        return {
            "drift": drift.mean,
            "error": drift.error,
            "sigma": ewma_volatility(market, self.half_life),
        }

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return min(max(0, fraction mu / sigma^2), cap), mu shrunk by its t-statistic."""
        if bar.drift <= 0.0:
            return 0.0
        square = bar.drift * bar.drift
        mu = bar.drift * square / (square + self.shrinkage * bar.error * bar.error)
        wanted = self.fraction * mu / (bar.sigma * bar.sigma)
        return self.cap if wanted > self.cap else wanted
