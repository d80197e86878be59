"""Searches for parameters, and how much of a result is luck: tune, walk-forward, compare."""

from typing import TYPE_CHECKING

from backtest.core import open_door

if TYPE_CHECKING:
    from backtest.search.benchmark import GrowthTest
    from backtest.search.compare import Comparison, LEAST_SAMPLES, compare, sample_returns
    from backtest.search.compare import show_accounts, walk_differences
    from backtest.search.cross_validate import CrossValidation, cross_validate
    from backtest.search.problem import Robustness, SearchProblem, read_search
    from backtest.search.study import SearchResult, Study, describe_budget
    from backtest.search.study import find_measures
    from backtest.search.trials import Batch, Examiner, Goal, Journal, Progress, WALKED
    from backtest.search.trials import add_note, find_distinct, find_finished, gather, is_feasible
    from backtest.search.trials import open_folder, read_notes
    from backtest.search.tune import objective, search_and_choose, tune
    from backtest.search.validation import ACCOUNTS, folds, read_figures
    from backtest.search.walk_forward import WalkForward, walk_forward
    from backtest.search.winner import StudyTask, Verdict, deflate_alone, find_extent

RESULTS = ("Comparison", "Study", "CrossValidation", "WalkForward")

open_door(__name__)
