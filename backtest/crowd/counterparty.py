"""Counterparty: the default of a venue, and what of the money kept there is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd

from backtest.base import FloatArray, ParameterError, Value, check_range, parse_duration
from backtest.base.fields import NOT_NEGATIVE, SHARE
from backtest.base.units import DAY, YEAR_DAYS

HORIZONS = ("30d", "90d", "365d", "1095d")
LEVELS = (0.95, 0.99)
MOST_VENUES = 16


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Counterparty(Value):
    """A venue that may default, with a constant hazard.

    Parameters
    ----------
    hazard : float
        Defaults per year: the venue survives t years with probability ``exp(-hazard t)``.
    recovery : float
        The share of the money there that is paid back after a default, from 0 to 1.

    Examples
    --------
    >>> venue = Counterparty(hazard=0.02, recovery=0.4)
    >>> round(venue.default_probability(1.0), 6)
    0.019801
    >>> venue.losses(10_000.0, horizons=["365d"])["expected_loss"].round(2).tolist()
    [118.81]
    """

    hazard: Annotated[float, NOT_NEGATIVE]
    recovery: Annotated[float, SHARE]

    def default_probability(self, years: float) -> float:
        """Return the probability of a default within some years: ``1 - exp(-hazard years)``."""
        check_range("years", years, where="Counterparty.default_probability", low=0.0)
        return -math.expm1(-self.hazard * years)

    def losses(
        self,
        balance: float,
        *,
        horizons: Sequence[str] = HORIZONS,
        cap: float = math.inf,
    ) -> pd.DataFrame:
        """Return the distribution of the loss by horizon.

        Parameters
        ----------
        balance : float
            The money at the venue, in its settlement currency.
        horizons : sequence of str
            Durations such as ``"365d"``.
        cap : float
            The most that is kept there: money over it is somewhere safe.

        Returns
        -------
        DataFrame
            Indexed by horizon: ``probability`` of a default, ``loss_at_default``,
            ``expected_loss``, ``deviation``, and the quantiles ``loss_95`` and ``loss_99``.
        """
        return combine_losses({"venue": self}, {"venue": balance}, horizons=horizons, cap=cap)

    def largest_balance(self, budget: float, horizon: str = "365d") -> float:
        """Return the balance whose expected loss over a horizon is the budget.

        A cap per venue; infinite if nothing can be lost.
        """
        where = "Counterparty.largest_balance"
        check_range("budget", budget, where=f"{where}, budget", low=0.0)
        rate = self.default_probability(read_years(horizon, where)) * (1.0 - self.recovery)
        return budget / rate if rate > 0.0 else math.inf


def combine_losses(
    venues: Mapping[str, Counterparty],
    balances: Mapping[str, float],
    *,
    horizons: Sequence[str] = HORIZONS,
    cap: float | Mapping[str, float] = math.inf,
) -> pd.DataFrame:
    where = "bt.Counterparty, losses"
    names = list(venues)
    if set(names) != set(balances) or not 0 < len(names) <= MOST_VENUES:
        raise ParameterError(
            f"venues and balances must have the same names, 1 to {MOST_VENUES}, were "
            f"{', '.join(names)} and {', '.join(balances)}",
            where=where,
            cure="give a balance for each venue",
        )
    lost = np.array([read_exposure(venues[name], name, balances, cap) for name in names])
    rows = {str(each): describe_losses(venues, lost, read_years(each, where)) for each in horizons}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("horizon")


def read_exposure(
    venue: Counterparty, name: str, balances: Mapping[str, float],
    cap: float | Mapping[str, float],
) -> float:  # fmt: skip
    where = f"bt.Counterparty, {name}"
    most = cap.get(name, math.inf) if isinstance(cap, Mapping) else cap
    check_range("cap", most, where=where, low=0.0)
    balance = check_range("balance", balances[name], where=where, low=0.0, high=1e300)
    return min(balance, most) * (1.0 - venue.recovery)


def describe_losses(
    venues: Mapping[str, Counterparty], lost: FloatArray, years: float
) -> dict[str, float]:
    n = len(lost)
    chance = np.array([each.default_probability(years) for each in venues.values()])
    fails = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    weight = np.prod(np.where(fails == 1, chance, 1.0 - chance), axis=1)
    loss = fails @ lost
    mean = float(weight @ loss)
    any_default = -math.expm1(float(np.sum(np.log1p(-chance)))) if np.all(chance < 1.0) else 1.0
    order = np.argsort(loss, kind="stable")
    known = np.cumsum(weight[order])
    quantiles = {
        f"loss_{level:.0%}".rstrip("%"): float(
            loss[order][min(np.searchsorted(known, level * (1.0 - 1e-12)), 2**n - 1)]
        )
        for level in LEVELS
    }
    return {
        "probability": any_default,
        "loss_at_default": mean / any_default if any_default > 0.0 else 0.0,
        "expected_loss": mean,
        "deviation": math.sqrt(max(float(weight @ (loss - mean) ** 2), 0.0)),
        **quantiles,
    }


def read_years(horizon: str, where: str) -> float:
    return parse_duration(horizon, where=f"{where}, horizon") / (YEAR_DAYS * DAY)
