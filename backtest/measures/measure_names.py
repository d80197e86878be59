"""Units, directions, and short meanings of all measures; docs/metrics.md defines them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Metric(NamedTuple):
    unit: str
    better: int
    meaning: str


class MeasureNames(dict[str, Metric]):
    def __missing__(self, name: str) -> Metric:
        if read_aversion(name) is None:
            raise KeyError(name)
        return self["certainty_equivalent"]


def read_aversion(name: str) -> float | None:
    found = re.fullmatch(r"certainty_equivalent_(\d+(?:\.\d+)?)", name)
    return None if found is None else float(found[1])


ABOUT = MeasureNames(
    {
        "total_return": Metric("fraction", 1, "growth from start to end, free of deposits"),
        "cagr": Metric("fraction per year", 1, "growth of the account per year, compounded"),
        "volatility": Metric("per sqrt(year)", -1, "standard deviation of returns, annualized"),
        "sharpe": Metric(
            "per sqrt(year)", 1, "mean return over the risk-free rate per unit of deviation"
        ),
        "sortino": Metric(
            "per sqrt(year)", 1, "return over the risk-free rate per unit of downside"
        ),
        "max_drawdown": Metric("fraction", -1, "deepest fall from a running peak, at bar closes"),
        "drawdown_days": Metric(
            "days", -1, "from the peak of the deepest fall to recovery, or the end"
        ),
        "recovered": Metric(
            "0 or 1", 1, "whether the peak before the deepest fall was reached again"
        ),
        "calmar": Metric("per year", 1, "growth per year for each unit of the deepest fall"),
        "var_95": Metric("fraction", -1, "loss of a sampling period that one in twenty exceeds"),
        "es_95": Metric("fraction", -1, "mean loss of the worst twentieth of sampling periods"),
        "var_99": Metric("fraction", -1, "loss of a sampling period that one in a hundred exceeds"),
        "es_99": Metric("fraction", -1, "mean loss of the worst hundredth of sampling periods"),
        "skewness": Metric(
            "number", 1, "skewness of sampled returns; below 0 the losses are longer"
        ),
        "kurtosis": Metric("number", -1, "full kurtosis of sampled returns, 3 for a normal one"),
        "omega": Metric("number", 1, "gains over losses of returns over the risk-free rate"),
        "tail_ratio": Metric("number", 1, "95th percentile of returns over the size of the 5th"),
        "ulcer_index": Metric("fraction", -1, "root of the mean squared drawdown at bar closes"),
        "time_to_recovery": Metric(
            "days", -1, "from the trough of the deepest fall to its recovery"
        ),
        "sharpe_error": Metric("per sqrt(year)", -1, "standard error of the Sharpe ratio"),
        "probabilistic_sharpe": Metric(
            "fraction", 1, "probability that the true Sharpe is above 0"
        ),
        "alpha": Metric(
            "fraction per year", 1, "return that beta times the market does not explain"
        ),
        "alpha_error": Metric("fraction per year", -1, "HAC standard error of alpha"),
        "beta": Metric("number", 0, "slope of the returns on those of the market at 1x"),
        "beta_error": Metric("number", -1, "HAC standard error of beta"),
        "certainty_equivalent": Metric(
            "fraction per year", 1, "sure growth worth as much at a relative risk aversion of 3"
        ),
        "turnover": Metric("per year", -1, "traded notional over mean equity"),
        "price_pnl": Metric("money", 1, "profit of price moves, before any cost"),
        "fees": Metric("money", -1, "trading fees paid"),
        "slippage": Metric("money", -1, "paid by fills worse than the open"),
        "impact": Metric("money", -1, "paid by fills worsened through their own size"),
        "funding": Metric("money", -1, "funding paid less received"),
        "interest": Metric("money", -1, "interest paid less earned"),
        "liquidations": Metric("count", -1, "times that a price triggered a liquidation"),
        "liquidation_loss": Metric("money", -1, "what liquidations cost beyond the price move"),
        "bad_debt": Metric(
            "money", -1, "losses beyond what backed the position, borne by the venue"
        ),
        "ruined": Metric("0 or 1", -1, "whether a loss ruined the account"),
        "ruin_time": Metric("days", 1, "from the start to ruin; NaN where there was none"),
        "time_to_first_liquidation": Metric("days", 1, "from the start; NaN where there was none"),
        "near_liquidation_share": Metric(
            "fraction", -1, "closes within 10 % of the liquidation price"
        ),
        "stops": Metric("count", -1, "stops of any kind that closed the position at a loss limit"),
        "take_profits": Metric("count", 0, "take-profits that closed the position"),
        "margin_calls": Metric("count", -1, "closes at which the margin ratio rose over the call"),
        "calls_met": Metric(
            "count", 0, "margin calls that ended with the ratio under the call again"
        ),
        "calls_failed": Metric("count", -1, "margin calls that ended otherwise"),
        "liquidated_after_call": Metric("count", -1, "calls that a liquidation followed"),
        "time_to_liquidation_after_call": Metric("days", 1, "mean from a call to that liquidation"),
        "mean_leverage": Metric("turns of equity", 0, "mean of notional over equity at closes"),
        "peak_leverage": Metric("turns of equity", -1, "highest notional over equity at a close"),
        "gross_over_cap": Metric("fraction", -1, "closes above the cap of gross leverage"),
        "peak_gross_leverage": Metric("turns of equity", -1, "highest gross leverage at a close"),
        "peak_margin_ratio": Metric(
            "fraction", -1, "highest maintenance over what backs the position"
        ),
        "mean_margin_used": Metric("fraction", 0, "mean of initial margin over equity at closes"),
        "peak_margin_used": Metric("fraction", -1, "highest initial margin over equity at a close"),
        "leverage_decay": Metric("log growth per year", -1, "growth lost to volatility and carry"),
        "volatility_drag": Metric(
            "log growth per year", -1, "growth lost to volatility, before costs"
        ),
        "carry_decay": Metric(
            "log growth per year", -1, "growth lost to funding, interest and fees"
        ),
        "carry_per_turn": Metric("log growth per year", -1, "the same per turn of mean leverage"),
        "flows": Metric("money", 0, "deposits less withdrawals, and top-ups"),
        "top_ups": Metric("money", 0, "moved from the reserve to the account after margin calls"),
        "final_equity": Metric("money", 1, "equity at the last close, without the reserve"),
    }
)


def name_measure(name: str) -> str:
    short, _, level = name.partition("_")
    if short in ("var", "es"):
        return f"{'VaR' if short == 'var' else 'ES'} {level} %"
    known = {"price_1x": "price at 1x", "cagr": "CAGR", "price_pnl": "price profit and loss"}
    known |= {each: each.capitalize() for each in ("sharpe", "sortino", "calmar")}
    return known.get(name, name.replace("_", " "))


_CHANCE = re.compile(r"p_(liquidation|ruin)_(\d+(?:\.\d+)?[a-z]+)")
_LARGEST = re.compile(r"max_leverage_at_(\d+(?:\.\d+)?)pct")
LARGEST = "max_leverage"


class RiskMeasure(NamedTuple):
    name: str
    kind: str
    horizon: str = ""
    probability: float = math.nan


def read_risk_name(name: str) -> RiskMeasure | None:
    if chance := _CHANCE.fullmatch(name):
        return RiskMeasure(name, chance[1], horizon=chance[2])
    if largest := _LARGEST.fullmatch(name):
        return RiskMeasure(name, LARGEST, probability=float(largest[1]) / 100.0)
    return None
