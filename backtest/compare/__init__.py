"""Compare results of one market, and test which differences are more than noise."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.compare.compare import compare, find_growth, sample_returns, search_scale
    from backtest.compare.comparison import Comparison
    from backtest.compare.comparison import LEAST_SAMPLES, show_accounts

RESULTS = ("Comparison",)

open_door(__name__)
