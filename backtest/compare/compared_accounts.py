"""The accounts of a comparison: a row of measures each, and their returns.

An account is a Result, or the :class:`backtest.compare.separate_accounts.SeparateAccounts` of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine import Result, as_of, count_periods, earn_cash, mark_samples, measure_years
from backtest.measures import Sampled, max_drawdown

if TYPE_CHECKING:
    from backtest.compare.equal_risk import ScaledAccount
    from backtest.compare.shared_terms import SharedTerms


def tabulate_accounts(
    results: Mapping[str, Any], scaled: Mapping[str, ScaledAccount] | None
) -> pd.DataFrame:
    """Return a row per account: log growth, all measures of a run, and its scale if any."""
    rows = {}
    for name, result in results.items():
        own = measure_account(result) if isinstance(result, Result) else result.metrics
        if scaled is not None:
            own |= {"scale": scaled[name].scale, "unscaled_volatility": scaled[name].volatility}
        rows[name] = own
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def measure_account(result: Result) -> dict[str, float]:
    """Return log growth, all measures of a run, and what liquidations took per year.

    Of an account in coins also its growth and deepest fall in the quote currency.
    """
    years, equity = count_years(result), result.tally.equity / result.tally.bars
    loss = result.tally.money.liquidation_loss
    return {
        "log_growth": find_growth(result, years),
        **result.metrics,
        "liquidation_loss_annual": loss / equity / years if equity > 0.0 else math.nan,
        **measure_in_quote(result),
    }


def measure_in_quote(result: Result) -> dict[str, float]:
    """Return growth and deepest fall at closes in the quote currency, of an account in one coin.

    The price of the coin is the mark of its inverse contract; both begin at its first close. NaN if
    the account is worth nothing there.
    """
    inverse = [i for i, each in enumerate(result.list_venues()) if each.contract.kind == "inverse"]
    if not inverse or result.account.rates is not None:
        return {}
    value = result.of_account("unit") * result.marks[:, inverse[0]]
    value = value[np.isfinite(value)]
    growth = fall = math.nan
    if len(value) and value[0] > 0.0:
        growth, fall = float(value[-1] / value[0]) - 1.0, max_drawdown(value / value[0])
    return {"total_return_quote": growth, "max_drawdown_quote": fall}


def count_years(result: Any) -> float:
    """Return the length of a result in years."""
    years: float = (int(result.span.closes[-1]) - result.span.start) / (YEAR_DAYS * DAY)
    return years


def find_growth(result: Any, years: float) -> float:
    """Return the log growth of the unit value per year; -inf after ruin.

    Of separate accounts it is the mean of theirs.
    """
    if not isinstance(result, Result):
        return float(result.metrics["log_growth"])
    if result.metrics["ruined"]:
        return -math.inf
    return float(np.sum(np.log1p(result.returns.to_numpy()))) / years


def sample_free(setting: SharedTerms) -> FloatArray:
    """Return the simple risk-free return of each sampling period, of shape (n,)."""
    market, venue, first = setting.market, setting.first_venue, setting.first
    rates = as_of(venue.cash_rate, market.time, "Venue.cash_rate")
    years = measure_years(market, venue, first, int(market.time[first]))
    free = earn_cash(rates, years, market.n_bars)[first:]
    ends = np.flatnonzero(mark_samples(market, setting.sampling)[first:])
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.asarray(np.expm1(np.add.reduceat(np.log1p(free), starts)))


def sample_returns(results: Mapping[str, Any], setting: SharedTerms) -> Sampled:
    """Return the sampled returns of all accounts, of shape (k, n)."""
    first = next(iter(results.values()))
    rows = np.array([result.returns.to_numpy() for result in results.values()])
    free = sample_free(setting) if isinstance(first, Result) else first.sample_free(setting)
    periods = count_periods(setting.calendar, setting.sampling, setting.market, setting.first)
    return Sampled(rows, free, rows.shape[1] / count_years(first), periods)


def remove_residual_risk(sampled: Sampled, scaled: Mapping[str, ScaledAccount] | None) -> Sampled:
    """Scale sampled returns so that no difference in volatility remains at equal risk."""
    if scaled is None:
        return sampled
    rest = np.array([each.rest for each in scaled.values()])
    return sampled._replace(returns=sampled.returns * rest[:, None])
