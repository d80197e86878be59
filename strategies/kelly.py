"""Kelly leverage: the fastest growth of wealth, with an estimated drift."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Columns, Market, Policy, Promise, Range, math
from backtest.indicators import ewma_volatility, floored_kelly, rolling_drift


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

    With ``floor_loss`` the fraction is left out: it is the largest, up to 1, at which the account
    ever stands ``floor_loss`` under its *starting* capital with at most ``probability``, if mu and
    sigma are what is estimated: f = 2 / (1 + ln probability / ln (1 - floor_loss)), for wealth that
    is a geometric Brownian motion, P(inf W <= a) = a^(2 / f - 1). Under its peak any depth comes
    with probability 1. With ``errors`` (and shrinkage 0, which counts the same error) the drift is
    normal about its estimate: see ``backtest.indicators.floored_kelly``.

    Source: Thorp (2006), The Kelly Criterion in Blackjack, Sports Betting and the Stock Market,
    Handbook of Asset and Liability Management 1, section 7; Thompson (1968), Some Shrinkage
    Techniques for Estimating the Mean, J. American Statistical Association 63, for mu.
    """

    instead_of: ClassVar[Mapping[str, str]] = {"fraction": "floor_loss"}

    fails_when: ClassVar[str] = (
        "A good year that ends: the drift of the window is still high when the fall begins."
    )
    charts: ClassVar[Mapping[str, str]] = {
        "limit": "Largest leverage at which the floor is broken with the given probability."
    }

    fraction: Annotated[float, Range(0.05, 2.0, "of full Kelly", when=("floor_loss", 0.0))] = 0.5
    window: Annotated[int, Range(24, 50_000, "bars", log=True)] = 2160
    shrinkage: Annotated[float, Range(0.0, 10.0, "squared standard errors")] = 1.0
    half_life: Annotated[float, Range(2, 2000, "bars", log=True)] = 168.0
    cap: Annotated[float, Range(0.1, 125.0, "x of equity", log=True)] = 5.0
    floor_loss: Annotated[
        float, Range(0.0, 0.99, "of the starting capital, 0 for none", searched=False)
    ] = 0.0
    probability: Annotated[float, Range(1e-6, 0.99, "of ever losing it", searched=False)] = 0.1
    errors: Annotated[bool, Range(0, 1, searched=False)] = False

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what the limit of loss needs, and what does nothing without it."""
        declared = self.parameters()

        if self.floor_loss == 0.0:
            for name in ("probability", "errors"):
                if getattr(self, name) != declared[name].default:
                    yield name, "needs floor_loss, the loss whose probability it limits"
            return

        if self.fraction != declared["fraction"].default:
            yield "fraction", "must be left out where floor_loss is given"
        if self.errors and self.shrinkage != 0.0:
            yield "shrinkage", "must be 0 with errors, which count the same error"

    def promises(self) -> tuple[Promise, ...]:
        """Return the least unit value, which some accounts may fall under."""
        if self.floor_loss == 0.0:
            return ()
        share = 100.0 * self.probability
        name = f"a floor under the start, broken by at most {share:g} % of accounts"
        return (Promise(name, "lowest_unit", 1.0 - self.floor_loss, 0.0, "at least"),)

    def observe(self, market: Market) -> Columns:
        """Return the drift of the window with its standard error, and sigma.

        With errors the largest leverage is the column ``limit``, and ``drift`` is the one of which
        that is the full Kelly leverage.
        """
        drift = rolling_drift(market, self.window)
        sigma = ewma_volatility(market, self.half_life)
        columns = {"drift": drift.mean, "error": drift.error, "sigma": sigma}

        # Sweeps share the columns of sets that differ in what is not read.
        if not self.errors:
            return columns

        limit = floored_kelly(
            drift.mean,
            drift.error,
            sigma,
            loss=self.floor_loss,
            probability=self.probability,
        )
        columns["limit"] = limit
        columns["drift"] = np.where(sigma > 0.0, limit * sigma * sigma, drift.mean)
        return columns

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return min(max(0, fraction mu / sigma^2), cap), mu shrunk by its t-statistic."""
        if bar.drift <= 0.0:
            return 0.0

        # mu = m t^2 / (t^2 + shrinkage) with t = m / error, multiplied out by error^2.
        square = bar.drift * bar.drift
        mu = bar.drift * square / (square + self.shrinkage * bar.error * bar.error)

        # The given fraction, or the one that keeps the floor. With errors ``observe`` has put the
        # floor into the drift: its full Kelly leverage keeps it.
        fraction = self.fraction
        if self.floor_loss > 0.0:
            fraction = 1.0
            if not self.errors:
                fraction = find_floor_fraction(self.floor_loss, self.probability)

        wanted = fraction * mu / (bar.sigma * bar.sigma)
        return self.cap if wanted > self.cap else wanted


def find_floor_fraction(loss: float, probability: float) -> float:
    """Return the largest fraction of full Kelly, up to 1, that keeps a floor under the start.

    f = 2 / (1 + x) with x = ln probability / ln (1 - loss). At that fraction wealth ever falls by
    ``loss`` under its start with ``probability``: P(inf W <= a) = a^(2 / f - 1).
    """
    x = math.log(probability) / math.log(1.0 - loss)

    # Full Kelly falls so far less often than allowed.
    if x <= 1.0:
        return 1.0
    return 2.0 / (1.0 + x)
