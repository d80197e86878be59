"""From what a run has accumulated to its measures by name (docs/metrics.md)."""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.measures.performance import (
    compound_growth,
    expected_shortfall,
    ratio,
    value_at_risk,
)
from backtest.measures.tally import Tally
from backtest.units import DAY, YEAR_DAYS, FloatArray, IntArray

COSTS = ("fees", "slippage", "impact", "funding", "interest")


class Span(NamedTuple):
    """The time a run covers: its start and the closes of its bars in ns, and samples per year.

    ``first`` is the number of its first bar, as the tally counts them.
    """

    start: int
    closes: IntArray
    first: int
    periods: float


def summarise(
    tally: Tally, span: Span, unit: float, equity: float, returns: FloatArray
) -> dict[str, float]:
    """Return all measures by name.

    Parameters
    ----------
    tally : Tally
        What has been accumulated.
    span : Span
        The time it covers.
    unit, equity : float
        Unit value and equity at the end.
    returns : array of shape (n_samples,)
        Sampled simple returns, for the tail measures.

    Returns
    -------
    dict of str to float
        Money in the settlement currency, the rest fractions (0.25 is 25 %), times in days;
        ``*_annual`` is a cost per year as a fraction of mean equity.
    """
    years = (int(span.closes[-1]) - span.start) / (YEAR_DAYS * DAY)
    growth = unit / tally.first_unit
    is_ruined = tally.ruin >= 0
    cagr = -1.0 if is_ruined else compound_growth(growth, years)
    n = tally.samples
    volatility = math.sqrt(tally.squares / (n - 1)) if n > 1 else math.nan
    deviation = math.sqrt(tally.excess_squares / (n - 1)) if n > 1 else math.nan
    downside = math.sqrt(tally.downside / n) if n > 0 else math.nan
    mean_equity = tally.equity / tally.bars
    metrics = {
        "total_return": growth - 1.0,
        "cagr": cagr,
        "volatility": volatility * math.sqrt(span.periods),
        "sharpe": ratio(tally.excess_mean, deviation, span.periods),
        "sortino": ratio(tally.excess_mean, downside, span.periods),
        "max_drawdown": tally.drawdown,
        "drawdown_days": drawdown_days(tally, span),
        "recovered": float(tally.drawdown == 0.0 or tally.recovered >= 0),
        "calmar": cagr / tally.drawdown if tally.drawdown > 0.0 else math.nan,
        "var_95": value_at_risk(returns, 0.95),
        "es_95": expected_shortfall(returns, 0.95),
        "var_99": value_at_risk(returns, 0.99),
        "es_99": expected_shortfall(returns, 0.99),
        "turnover": per_year(tally.traded, mean_equity, years),
        "price_pnl": tally.price_pnl,
    }
    metrics |= {name: getattr(tally, name) for name in COSTS}
    metrics |= {
        "liquidations": float(tally.liquidations),
        "liquidation_loss": tally.liquidation_loss,
        "bad_debt": tally.bad_debt,
        "ruined": float(is_ruined),
        "ruin_time": days_since(span, tally.ruin),
        "time_to_first_liquidation": days_since(span, tally.first_liquidation),
        "near_liquidation_share": tally.near / tally.bars,
        "stops": float(tally.stops),
        "margin_calls": float(tally.calls),
        "mean_leverage": tally.leverage / tally.bars,
        "peak_leverage": tally.peak_leverage,
        "peak_margin_ratio": tally.peak_ratio,
        "leverage_decay": math.nan if is_ruined else decay(tally) / years,
        "flows": tally.flows + tally.top_up,
        "top_ups": tally.top_up,
        "final_equity": equity,
    }
    return metrics | {
        f"{name}_annual": per_year(getattr(tally, name), mean_equity, years) for name in COSTS
    }


def per_year(amount: float, mean_equity: float, years: float) -> float:
    """Return an amount per year as a fraction of mean equity; NaN without equity."""
    return amount / mean_equity / years if mean_equity > 0.0 else math.nan


def decay(tally: Tally) -> float:
    """Return the logarithmic growth lost to leverage: sum of l ln(1 + r) - ln(1 + l r)."""
    return tally.decay_held - (tally.decay_log + math.log(tally.decay_product))


def days_since(span: Span, bar: int) -> float:
    """Return the days from the start to the close of a bar; NaN where it never came (-1)."""
    return (int(span.closes[bar - span.first]) - span.start) / DAY if bar >= 0 else math.nan


def drawdown_days(tally: Tally, span: Span) -> float:
    """Return the days from the peak of the deepest drawdown to its recovery, or to the end."""
    if tally.drawdown == 0.0:
        return 0.0
    last = len(span.closes) - 1
    end = tally.recovered - span.first if tally.recovered >= 0 else last
    peak = tally.drawdown_peak - span.first
    began = span.start if peak < 0 else int(span.closes[peak])
    return (int(span.closes[end]) - began) / DAY
