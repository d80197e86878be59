"""The regression gate: record runs as baselines, and check that later runs give the same.

The command line has ``backtest regress record`` and ``check``; tests have the pytest fixture
``backtest_regression`` and :func:`assert_policy`. docs/regress.md explains their use.
"""

from backtest.regress.baseline import Baseline, rewrite_baseline, take_baseline
from backtest.regress.baseline_files import find_baselines, load_baseline, save_baseline
from backtest.regress.expect import Expectation, MetricValue, assert_policy
from backtest.regress.verdict import (
    RegressVerdict,
    compare_baselines,
    report_failure,
    report_skipped,
)

__all__ = [
    "Baseline",
    "Expectation",
    "MetricValue",
    "RegressVerdict",
    "assert_policy",
    "compare_baselines",
    "find_baselines",
    "load_baseline",
    "report_failure",
    "report_skipped",
    "rewrite_baseline",
    "save_baseline",
    "take_baseline",
]
