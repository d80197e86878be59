"""The suite prints and decides the same wherever it runs, on a build server as in a terminal."""

import os

for name in (
    *("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"),  # what build servers say
    *("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "COLUMNS", "TERMINAL_WIDTH"),
):
    os.environ.pop(name, None)

os.environ["BACKTEST_COMPILE"] = "now"
"""Tests of compiled code are to meet it the first time too, and nothing compiles behind them."""
