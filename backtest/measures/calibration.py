"""Calibration of probability forecasts: reliability, and the parts of the Brier score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    IntArray,
    ParameterError,
    Range,
    check_lengths,
    check_range,
    checked,
    format_percent,
)

VOLATILITY_PERIODS = ("calm", "normal", "stress")
SCORES = (
    "forecast",
    "frequency",
    "brier",
    "reliability",
    "resolution",
    "uncertainty",
    "within",
    "skill",
)
LEVEL = 0.95
"""Confidence level of the intervals."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Forecasts of liquidation compared with outcomes.

    Attributes
    ----------
    horizon : str
        How far each forecast looks ahead.
    bars : int
        Number of bars in the horizon.
    reliability : DataFrame
        One row per ``period`` (all, calm, normal, stress) and ``bin`` of forecasts: its ends
        ``low`` and ``high``, the mean ``forecast``, the ``frequency`` with which the mark touched
        the liquidation price, the ``count`` of closes, the number of windows that do not overlap
        (``independent``), and a 95 % interval of the frequency, ``lower`` to ``upper``.
    scores : DataFrame
        One row per period: ``count`` and ``independent`` as above, mean ``forecast``,
        ``frequency``, ``brier`` and its parts ``reliability``, ``resolution``, ``uncertainty`` and
        ``within``, ``skill``, and the ``liquidations`` that took place.
    """

    horizon: str
    bars: int
    reliability: pd.DataFrame
    scores: pd.DataFrame

    def __str__(self) -> str:
        total = self.scores.loc["all"]
        is_all = self.reliability.index.get_level_values("period") == "all"
        every = self.reliability[is_all].droplevel("period")
        lines = [
            f"Liquidation within {self.horizon}, forecast at {total['count']:,.0f} closes with a "
            "position that can be liquidated.",
            "It happened where the mark touched the liquidation price of that close.",
            f"Windows of {self.bars} bars overlap: {total['independent']:,.0f} count for the "
            f"intervals. Liquidations that took place: {total['liquidations']:.0f}.",
            "",
            _format_table(
                self.scores, ("forecast", "frequency", "skill"), ("brier", "uncertainty")
            ),
            "",
            _format_table(every, ("forecast", "frequency", "lower", "upper"), ()),
        ]
        return "\n".join(lines)


def _format_table(table: pd.DataFrame, shares: Sequence[str], numbers: Sequence[str]) -> str:
    shown = pd.DataFrame({"closes": [f"{value:,.0f}" for value in table["count"]]}, table.index)
    for name in shares:
        shown[name] = [
            "-" if np.isnan(share) else format_percent(share, 3) for share in table[name]
        ]
    for name in numbers:
        shown[name] = ["-" if np.isnan(value) else f"{value:.3g}" for value in table[name]]
    return shown.to_string()


@checked
def calibrate(
    forecast: FloatArray,
    happened: BoolArray,
    sigma: FloatArray,
    liquidations: IntArray,
    *,
    is_counted: BoolArray,
    horizon: str,
    bars: int,
    bins: int | Sequence[float],
) -> Calibration:
    """Compare forecasts with outcomes, overall and by thirds of volatility.

    Parameters
    ----------
    forecast : array of shape (n_bars,)
        Probabilities.
    happened : array of shape (n_bars,)
        Whether the event took place.
    sigma : array of shape (n_bars,)
        The volatility known at each close, which defines the periods.
    liquidations : array of shape (n_bars,)
        Liquidations in the bar after each close.
    is_counted : array of shape (n_bars,)
        Forecasts to compare.
    horizon : str
        Horizon of the forecasts, for the text.
    bars : int
        Horizon in bars.
    bins : int, or a sequence of float
        Number of bins of equal count, fewer if forecasts are equal; or the edges of the bins,
        rising from 0 to 1. A forecast on an edge belongs to the bin above, on the last edge to the
        last bin.

    Notes
    -----
    Brier score: the mean of (forecast - outcome)^2, which is ``reliability - resolution +
    uncertainty + within``. With n_k forecasts of mean f_k in bin k, of which a share o_k came true,
    and o the share of all: reliability is the mean of (f_k - o_k)^2, resolution that of
    (o_k - o)^2, uncertainty o (1 - o); ``within`` is what remains because forecasts in a bin
    differ. Skill is 1 - Brier / uncertainty: what is gained over always forecasting o. Source:
    Murphy (1973), A New Vector Partition of the Probability Score, J. Applied Meteorology 12;
    Stephenson, Coelho and Jolliffe (2008), Two Extra Components in the Brier Score Decomposition,
    Weather and Forecasting 23(4).

    Windows that overlap contain the same price moves. So n closes count only as ``n / bars`` for
    the intervals, which are those of Clopper and Pearson (1934), continued to fractions. If the
    closes of a bin are scattered, the interval is too wide.
    """
    check_lengths(
        forecast=forecast, happened=happened, sigma=sigma, is_counted=is_counted, where="calibrate"
    )
    known = sigma[is_counted]
    thirds = np.quantile(known, (1 / 3, 2 / 3)) if known.size else np.full(2, np.nan)
    period = np.where(np.isnan(sigma), -1, np.searchsorted(thirds, sigma))
    edges = find_bin_edges(forecast[is_counted], bins)
    place = np.searchsorted(edges[1:-1], forecast, side="right")
    rows, scores = [], {}
    for name, chosen in _select_periods(period):
        mask = is_counted & chosen
        outcome = happened[mask].astype(np.float64)
        table = tabulate_reliability(forecast[mask], outcome, place[mask], edges, bars)
        rows.append(table.assign(period=name))
        found = score_forecasts(forecast[mask], outcome, place[mask])
        counts = {"count": len(outcome), "independent": len(outcome) / bars}
        scores[name] = {**counts, **found, "liquidations": int(liquidations[chosen].sum())}
    reliability = pd.concat(rows).reset_index().set_index(["period", "bin"])
    return Calibration(horizon, bars, reliability, pd.DataFrame(scores).T.rename_axis("period"))


def check_bins(bins: int | Sequence[float], *, where: str) -> int | Sequence[float]:
    if np.ndim(bins) == 0:
        return int(Range(1, 1000).check("bins", bins, where=where, whole=True))
    ends = [check_range("an edge of a bin", end, where=where) for end in bins]  # type: ignore[union-attr] # it has a dimension
    cure = "give for example [0, .01, 1]"
    if len(ends) < 2 or any(after <= before for before, after in pairwise(ends)):
        raise ParameterError(f"edges of bins must increase, got {ends}", where=where, cure=cure)
    if ends[0] > 0.0 or ends[-1] < 1.0:
        raise ParameterError(
            f"edges of bins must reach from 0 to 1, got {ends}", where=where, cure=cure
        )
    return ends


def _select_periods(period: IntArray) -> Iterator[tuple[str, BoolArray]]:
    yield "all", np.ones(len(period), dtype=np.bool_)
    for k, name in enumerate(VOLATILITY_PERIODS):
        yield name, period == k


def find_bin_edges(forecast: FloatArray, bins: int | Sequence[float]) -> FloatArray:
    if not isinstance(bins, int):
        return np.array(bins, dtype=np.float64)
    if not forecast.size:
        return np.array([0.0, 1.0])
    edges = np.unique(np.quantile(forecast, np.linspace(0.0, 1.0, bins + 1)))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def tabulate_reliability(
    forecast: FloatArray, outcome: FloatArray, place: IntArray, edges: FloatArray, bars: int
) -> pd.DataFrame:
    n = len(edges) - 1
    count = np.bincount(place, minlength=n).astype(np.float64)
    kept = count > 0.0
    size = np.where(kept, count, 1.0)
    frequency = np.bincount(place, outcome, minlength=n) / size
    independent = count / bars
    lower, upper = frequency_interval(frequency, np.where(kept, independent, 1.0))
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "forecast": np.bincount(place, forecast, minlength=n) / size,
            "frequency": frequency,
            "count": count.astype(np.int64),
            "independent": independent,
            "lower": lower,
            "upper": upper,
        }
    )
    return table[kept].rename_axis("bin")


def score_forecasts(forecast: FloatArray, outcome: FloatArray, place: IntArray) -> dict[str, float]:
    if not forecast.size:
        return dict.fromkeys(SCORES, np.nan)
    count = np.maximum(np.bincount(place), 1)
    means, shares = np.bincount(place, forecast) / count, np.bincount(place, outcome) / count
    base = outcome.mean()
    brier = np.mean((forecast - outcome) ** 2)
    reliability = np.mean((means[place] - shares[place]) ** 2)
    resolution = np.mean((shares[place] - base) ** 2)
    uncertainty = base * (1.0 - base)
    within = brier - (reliability - resolution + uncertainty)
    skill = 1.0 - brier / uncertainty if uncertainty > 0.0 else np.nan
    parts = (brier, reliability, resolution, uncertainty, within, skill)
    return dict(zip(SCORES, (float(forecast.mean()), base, *parts), strict=True))


def frequency_interval(frequency: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of the Clopper-Pearson interval of a share of n.

    Quantiles of the beta distribution: of (x, n - x + 1) at (1 - level) / 2 and of (x + 1, n - x)
    at (1 + level) / 2, x = n frequency; 0 if x is 0, and 1 if x is n.
    """
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to load, seldom needed

    x = frequency * n
    tail = (1.0 - LEVEL) / 2.0
    some, rest = np.maximum(x, 1e-12), np.maximum(n - x, 1e-12)
    lower = np.where(x > 0.0, betaincinv(some, n - x + 1.0, tail), 0.0)
    upper = np.where(x < n, betaincinv(x + 1.0, rest, 1.0 - tail), 1.0)
    return lower, upper
