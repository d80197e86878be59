"""Search for good parameters, and say how much of what is found is luck."""

from backtest.tune.luck import Verdict
from backtest.tune.plateau import Robustness
from backtest.tune.search import tune
from backtest.tune.study import Study
from backtest.tune.trial_evaluator import Progress

__all__ = ["Progress", "Robustness", "Study", "Verdict", "tune"]
