"""The regression gate: record runs as baselines, and check that later runs give the same.

The command line has ``backtest regress record`` and ``check``; tests have the pytest fixture
``backtest_regression`` and :func:`assert_policy`. docs/live.md explains their use.
"""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.regress.baseline import Baseline, check_mode, rewrite_baseline, take_baseline
    from backtest.regress.baseline_files import check_unique_names, find_baseline_file
    from backtest.regress.baseline_files import find_baselines, load_baseline, name_baseline
    from backtest.regress.baseline_files import save_baseline
    from backtest.regress.expect import Expectation, MetricValue, assert_policy
    from backtest.regress.tolerances import choose_bands
    from backtest.regress.verdict import RegressVerdict, compare_baselines, list_allowed
    from backtest.regress.verdict import report_failure, report_skipped
    from backtest.regress.verdict_text import (
        combine_exit_codes,
        print_verdicts,
        write_junit,
        write_markdown,
    )
    from backtest.regress.verdict_text import write_text

open_door(__name__)

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
