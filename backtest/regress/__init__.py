"""The regression gate: baselines of runs, and whether later runs are the same.

``backtest regress record`` and ``check`` at the command line; the pytest fixture
``backtest_regression`` and :func:`assert_policy` in tests. docs/regress.md tells how.
"""

from backtest.regress.baseline import Baseline, renew, take_baseline
from backtest.regress.baseline_files import find_baselines, load_baseline, save_baseline
from backtest.regress.expect import Expectation, MetricValue, assert_policy
from backtest.regress.verdict import Verdict, compare, fail, skip

__all__ = [
    "Baseline",
    "Expectation",
    "MetricValue",
    "Verdict",
    "assert_policy",
    "compare",
    "fail",
    "find_baselines",
    "load_baseline",
    "renew",
    "save_baseline",
    "skip",
    "take_baseline",
]
