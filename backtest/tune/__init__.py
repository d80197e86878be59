"""Search for good parameters, and measure how much of the result is luck."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.tune.holdout import find_damaged_looks, record_look
    from backtest.tune.journal import OUTCOME, STUDY, TRIALS, Batch, Journal, clear_drafts
    from backtest.tune.journal import find_broken, hold_lock, read_json, write_json
    from backtest.tune.journal import write_study_file
    from backtest.tune.single_sets import Bench
    from backtest.tune.luck import Verdict, deflate_alone, find_chance
    from backtest.tune.other_trials import CountTries, OtherTrials, SpanTries, count_independent
    from backtest.tune.other_trials import count_other_trials, find_damaged_tries, pool_deviation
    from backtest.tune.other_trials import read_tries, record_tries
    from backtest.tune.plateau import Robustness, find_extent
    from backtest.tune.score_function import objective
    from backtest.tune.search import search_and_choose, tune
    from backtest.tune.search_arguments import check_choices, choose_metrics, find_names
    from backtest.tune.search_arguments import read_budget, read_left_out, read_robustness
    from backtest.tune.search_outcome import StudyTask
    from backtest.tune.study import Study
    from backtest.tune.study_identity import describe_market, describe_objective, describe_policy
    from backtest.tune.study_text import describe_budget, describe_deflated, describe_overfitting
    from backtest.tune.study_text import find_measures, name_evidence, name_short, write_summary
    from backtest.tune.study_text import write_verdict
    from backtest.tune.trial_evaluator import Examiner, Goal, Progress
    from backtest.tune.trials import find_distinct, gather, is_feasible

open_door(__name__)
