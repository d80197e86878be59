"""The regression gate: record runs as baselines, and check that later runs give the same.

The command line has ``backtest regress record`` and ``check``; tests have the pytest fixture
``backtest_regression``. docs/regression.md explains their use.
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.baselines.bands import choose_bands
    from backtest.baselines.baseline import Baseline, check_mode, rewrite_baseline, take_baseline
    from backtest.baselines.baseline_files import check_unique_names, find_baselines
    from backtest.baselines.baseline_files import load_baseline, name_baseline, save_baseline
    from backtest.baselines.verdict import RegressVerdict, combine_exit_codes, compare_baselines
    from backtest.baselines.verdict import list_allowed, report_failure, SKIPPED
    from backtest.baselines.verdict_text import write_markdown, write_text
else:
    __getattr__ = find_lazily(__name__, {
        "baselines.bands": "choose_bands",
        "baselines.baseline": "Baseline check_mode rewrite_baseline take_baseline",
        "baselines.baseline_files": (
            "check_unique_names find_baselines load_baseline name_baseline save_baseline"
        ),
        "baselines.verdict": (
            "RegressVerdict SKIPPED combine_exit_codes compare_baselines list_allowed "
            "report_failure"
        ),
        "baselines.verdict_text": "write_markdown write_text",
    })  # fmt: skip

__all__ = ["Baseline", "RegressVerdict", "compare_baselines"]


def __dir__() -> list[str]:
    return __all__
