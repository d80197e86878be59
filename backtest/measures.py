"""Measures of accounts and forecasts: performance, tails, attribution, calibration, luck.

Functions of arrays, which can be used on their own, without a run.
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.results import STATISTICS, AccountHistory, Attribution, Calibration, Differences
    from backtest.results import MarketFit, Overfitting, Sampled, SharpeMoments, attribute
    from backtest.results import attribute_by, calibration, certainty_equivalent
    from backtest.results import compare_pairs, compound_growth, deflated_sharpe
    from backtest.results import deflated_sharpe_of_returns, effective_observations
    from backtest.results import effective_trials, estimate_moments
    from backtest.results import expected_max_sharpe, expected_shortfall, fit_market
    from backtest.results import holm, max_drawdown, monthly_returns, probabilistic_sharpe
    from backtest.results import probability_of_backtest_overfitting, sharpe_error
    from backtest.results import turning_points, value_at_risk, worst_drawdowns
else:
    __getattr__ = find_lazily(__name__, {
        "results": (
            "AccountHistory Attribution Calibration Differences MarketFit Overfitting STATISTICS "
            "Sampled SharpeMoments attribute attribute_by calibration certainty_equivalent "
            "compare_pairs compound_growth deflated_sharpe deflated_sharpe_of_returns "
            "effective_observations effective_trials estimate_moments expected_max_sharpe "
            "expected_shortfall fit_market holm max_drawdown monthly_returns probabilistic_sharpe "
            "probability_of_backtest_overfitting sharpe_error turning_points "
            "value_at_risk worst_drawdowns"
        ),
    })  # fmt: skip

__all__ = [
    "STATISTICS", "AccountHistory", "Attribution", "Calibration", "Differences", "MarketFit",
    "Overfitting", "Sampled", "SharpeMoments", "attribute", "attribute_by", "calibration",
    "certainty_equivalent", "compare_pairs", "compound_growth", "deflated_sharpe",
    "deflated_sharpe_of_returns", "effective_observations", "effective_trials", "estimate_moments",
    "expected_max_sharpe", "expected_shortfall", "fit_market", "holm", "max_drawdown",
    "monthly_returns", "probabilistic_sharpe", "probability_of_backtest_overfitting",
    "sharpe_error", "turning_points", "value_at_risk", "worst_drawdowns",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
