"""Compare policies on one market, and test which differences are more than noise."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.compare.compare import check_rules, compare, compare_results
    from backtest.compare.compared_accounts import count_years, find_growth, sample_free
    from backtest.compare.compared_accounts import sample_returns
    from backtest.compare.comparison import Comparison
    from backtest.compare.pairs import BootstrapRules, estimate_pairs, find_basis, show_accounts
    from backtest.compare.separate_accounts import SeparateAccounts
    from backtest.compare.shared_terms import SharedTerms, check_baseline, describe_result
    from backtest.compare.shared_terms import find_overlay, find_settings, find_title
    from backtest.compare.shared_terms import list_differences, name_uniquely

RESULTS = ("Comparison",)

open_door(__name__)
