"""Search for good parameters, and measure how much of the result is luck."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.tune.benchmark import GrowthTest
    from backtest.tune.trials import WALKED, Batch, Journal, add_note, find_finished
    from backtest.tune.trials import name_result, open_folder, read_notes
    from backtest.tune.problem import SearchProblem, Robustness, read_search
    from backtest.tune.search import objective, search_and_choose, tune
    from backtest.tune.study import SearchResult, Study, describe_budget, describe_search
    from backtest.tune.study import find_measures
    from backtest.tune.trials import Examiner, Goal, Progress
    from backtest.tune.trials import find_distinct, gather, is_feasible
    from backtest.tune.winner import StudyTask, Verdict, deflate_alone
    from backtest.tune.winner import find_extent

RESULTS = ("Study",)

open_door(__name__)
