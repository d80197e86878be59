"""The suite prints and decides the same wherever it runs, on a build server as in a terminal."""

import os
import signal

import pytest
from hypothesis import settings

for name in (
    *("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"),  # what build servers say
    *("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "COLUMNS", "TERMINAL_WIDTH"),
):
    os.environ.pop(name, None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell started with &
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("BACKTEST_COMPILE", "no")
"""Short runs are answered in plain Python, to the same bits; slow tests compile."""


settings.load_profile("ci")
"""Examples are the same in every run, take what time they need, and are kept nowhere."""


@pytest.fixture(autouse=True)
def _compile_where_it_is_tested(request, monkeypatch):
    """Compile before running in slow tests, and in others that are marked ``compiled``."""
    if any(map(request.node.get_closest_marker, ("slow", "compiled"))):
        monkeypatch.setenv("BACKTEST_COMPILE", "now")
