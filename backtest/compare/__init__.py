"""Compare results of one market, and test which differences are more than noise."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.compare.compare import LEAST_SAMPLES, Comparison, compare
    from backtest.compare.compare import sample_returns, show_accounts, walk_differences

RESULTS = ("Comparison",)

open_door(__name__)
