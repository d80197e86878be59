"""Searches for parameters, and their selection bias: tune, walk-forward, compare."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.search.compare import LEAST_SAMPLES, walk_differences
    from backtest.search.comparison import Comparison
    from backtest.search.cross_validate import CrossValidation
    from backtest.search.frontier import Frontier
    from backtest.search.growth_test import GrowthTest
    from backtest.search.problem import Robustness
    from backtest.search.selection_luck import deflate_alone
    from backtest.search.study import Study
    from backtest.search.timing import TimingTest, timing_test
    from backtest.search.trials import Progress
    from backtest.search.tune import objective
    from backtest.search.validation import folds
    from backtest.search.walk_forward import WalkForward
else:
    __getattr__ = find_lazily(__name__, {
        "search.compare": "LEAST_SAMPLES walk_differences",
        "search.comparison": "Comparison",
        "search.cross_validate": "CrossValidation",
        "search.frontier": "Frontier",
        "search.growth_test": "GrowthTest",
        "search.problem": "Robustness",
        "search.selection_luck": "deflate_alone",
        "search.study": "Study",
        "search.timing": "TimingTest timing_test",
        "search.trials": "Progress",
        "search.tune": "objective",
        "search.validation": "folds",
        "search.walk_forward": "WalkForward",
    })  # fmt: skip
