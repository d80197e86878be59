"""Compare policies on one market, and test which differences are more than noise."""

from backtest.compare.compare import compare
from backtest.compare.comparison import Comparison
from backtest.compare.pairs import show_accounts, show_gaps
from backtest.compare.shared_terms import SharedTerms, list_differences

__all__ = [
    "Comparison",
    "SharedTerms",
    "compare",
    "list_differences",
    "show_accounts",
    "show_gaps",
]
