"""Search for good parameters, and measure how much of the result is luck."""

from backtest.tune.luck import Verdict
from backtest.tune.plateau import Robustness
from backtest.tune.search import tune
from backtest.tune.study import Study
from backtest.tune.study_folder import OUTCOME, STUDY, TRIALS, read_json
from backtest.tune.trial_evaluator import Progress

__all__ = [
    "OUTCOME",
    "STUDY",
    "TRIALS",
    "Progress",
    "Robustness",
    "Study",
    "Verdict",
    "read_json",
    "tune",
]
