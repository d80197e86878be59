"""Searches for parameters, and their selection bias: tune, walk-forward, compare."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.search.compare import Comparison, LEAST_SAMPLES, compare, walk_differences
    from backtest.search.cross_validate import CrossValidation, cross_validate
    from backtest.search.frontier import Frontier
    from backtest.search.problem import Robustness
    from backtest.search.study import Study
    from backtest.search.timing import TimingTest, timing_test
    from backtest.search.trials import Progress
    from backtest.search.tune import frontier, objective, tune
    from backtest.search.validation import folds
    from backtest.search.walk_forward import WalkForward, walk_forward
    from backtest.search.winner import GrowthTest, deflate_alone

export_lazily(__name__)
