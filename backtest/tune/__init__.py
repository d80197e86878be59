"""Search for good parameters, and say how much of what is found is luck."""

from backtest.tune.examiner import Progress
from backtest.tune.robust import Robustness
from backtest.tune.search import tune
from backtest.tune.study import Study
from backtest.tune.verdict import Verdict

__all__ = ["Progress", "Robustness", "Study", "Verdict", "tune"]
