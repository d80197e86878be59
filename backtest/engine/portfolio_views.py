"""Views of all positions of a result: contagion, risk and exposures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.errors import ParameterError
from backtest.base.ranges import Range
from backtest.base.units import (
    utc_index,
)
from backtest.engine.position_tables import (
    contagion_table,
)
from backtest.engine.run_record import HALF_LIFE, RunRecord
from backtest.measures.portfolio_risk import diversification_ratio, effective_bets, risk_shares


class PortfolioViews(RunRecord):
    """A record with the views of its positions together."""

    def contagion(self) -> pd.DataFrame:
        """Return what brought down the cross pool: a row per cause of each liquidation.

        Returns
        -------
        DataFrame
            ``liquidation`` (its number), ``time``, ``cause`` (an instrument, ``collateral``,
            ``flows`` or ``rules``), ``share`` of the fall of M - level R since the last high of
            the unit value (the shares of a liquidation add up to 1), ``quantity`` held, and
            ``profit``, what a position in profit had gained since its entry, else 0.

        Raises
        ------
        ParameterError
            If the account has one position, which nothing else can bring down.
        """
        if self.has_one_position or isinstance(self.entries, pd.DataFrame):
            raise ParameterError(
                "contagion is between positions, this account has one",
                where="Result.contagion",
                cure="look at result.events, or run several instruments",
            )
        return contagion_table(self.time, self.names, self.entries, self.span.first)

    @checked
    def risk(self, half_life: float | None = None, *, collateral: bool = False) -> pd.DataFrame:
        """Return the risk of the portfolio at each close.

        Parameters
        ----------
        half_life : float, optional
            Half-life of the covariances of mark returns, in bars. Default: 30 days.
        collateral : bool
            Whether the collateral counts as positions too.

        Returns
        -------
        DataFrame
            By bar: ``gross_leverage``, ``net_leverage``, ``diversification_ratio``,
            ``effective_bets``, and the share of each instrument in the variance, by its name. NaN
            without a position.

        Raises
        ------
        ParameterError
            If the half-life is not at least 1.
        """
        bars = max(HALF_LIFE / self.interval, 1.0) if half_life is None else half_life
        Range(1, math.inf).check("half_life", bars, where="Result.risk, half_life")
        names = list(self.names)
        names += [each.name for each in self.account.collateral] * collateral
        weights, covariance = self._compute_weights(bars, slice(None), collateral=collateral)
        shares = risk_shares(weights, covariance)
        table = {
            "gross_leverage": np.abs(weights).sum(axis=1),
            "net_leverage": weights.sum(axis=1),
            "diversification_ratio": diversification_ratio(weights, covariance),
            "effective_bets": effective_bets(weights, covariance),
            **{name: shares[:, i] for i, name in enumerate(names)},
        }
        return pd.DataFrame(table, index=utc_index(self.time))

    @property
    def exposures(self) -> pd.DataFrame:
        """Signed leverage of each instrument at each close, by name."""
        equity = self.of_account("equity")[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(equity > 0.0, self.notionals / equity, 0.0)
        return pd.DataFrame(weights, index=utc_index(self.time), columns=list(self.names))

    @property
    def quantities(self) -> pd.DataFrame:
        """Signed contracts of each instrument at each close, by name."""
        held = self.of_positions("quantity")
        return pd.DataFrame(held, index=utc_index(self.time), columns=list(self.names))
