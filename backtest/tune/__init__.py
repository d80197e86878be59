"""Search for good parameters, and measure how much of the result is luck."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.tune.journal import TRIALS, UNFINISHED, Batch, Journal, open_folder
    from backtest.tune.journal import write_study_file
    from backtest.tune.luck import Verdict, deflate_alone
    from backtest.tune.winner import Robustness, find_extent
    from backtest.tune.search import check_choices, choose_metrics, describe_objective
    from backtest.tune.search import describe_policy, objective, read_budget, read_robustness
    from backtest.tune.search import search_and_choose, tune
    from backtest.tune.winner import StudyTask
    from backtest.tune.looks import Bench
    from backtest.tune.study import Study, describe_budget, find_measures, name_short
    from backtest.tune.trials import Examiner, Goal, Progress
    from backtest.tune.trials import find_distinct, gather, is_feasible

RESULTS = ("Study",)

open_door(__name__)
