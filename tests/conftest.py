"""The suite prints and decides the same wherever it runs, on a build server as in a terminal."""

import functools
import gc
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from hypothesis import settings

KEPT = 7 * 24 * 3600.0
"""Seconds after which compiled code of older sources is deleted."""
ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "build" / "compiled"
LONGEST = (
    "oracle/test_engine.py",
    "accounts/test_conservation.py",
    "report/test_report_browser.py",
    "engine/test_contract.py",
    "project/test_pages.py",
    "account/test_every_way.py",
    "store/test_every_kind.py",
    "judgement/test_judgement.py",
    "account/test_resumed.py",
    "risk/test_liquidation_risk.py",
    "store/test_kills.py",
    "tune/test_winner.py",
)
"""Files of 600 to 40 seconds, which start first, so that no worker is left with one at the end.

The first compiles the loop of options, for two minutes in which the second needs none."""
COMPILING = "test_the_engine_equals_the_oracle[1-make_option_case]"
"""What compiles that loop, and begins the first file: other tests then find it compiled."""

for name in (
    *("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"),  # what build servers say
    *("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "COLUMNS", "TERMINAL_WIDTH"),
):
    os.environ.pop(name, None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell started with &
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("BACKTEST_CACHE_DIR", str(COMPILED))
os.environ.setdefault("BACKTEST_COMPILE", "auto")
"""Runs use the core that `make test` compiles, else plain Python, if they are short, to
the same bits; slow tests compile what the core lacks into this folder, which all workers share."""


def pytest_collection_finish():
    """Let garbage collection pass over what was imported, which stays for the whole run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Put the longest files first; all others, and the tests of a file, stay in their order."""
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONGEST)}
    last = len(LONGEST)
    items.sort(key=lambda item: (ranks.get(item.path, last), item.name != COMPILING))


def pytest_configure(config):
    if not hasattr(config, "workerinput") and COMPILED.is_dir():
        for each in COMPILED.iterdir():
            if each.is_dir() and time.time() - each.stat().st_mtime > KEPT:
                shutil.rmtree(each, ignore_errors=True)


settings.load_profile("ci")
"""Examples are the same in every run, take what time they need, and are kept nowhere."""


@pytest.fixture(autouse=True)
def _compile_where_it_is_tested(request, monkeypatch):
    if any(map(request.node.get_closest_marker, ("slow", "compiled"))):
        monkeypatch.setenv("BACKTEST_COMPILE", "now")


@pytest.fixture(scope="session")
def commits():
    """Return what finds the commit of a file, and remembers those of this tree, by the path that
    commands are looked for on."""
    from backtest.core.provenance import find_commit  # noqa: PLC0415 - after the environment is set

    @functools.cache
    def find_known(source, _path):
        return find_commit(source)

    def find(source):
        if source.is_relative_to(ROOT):
            return find_known(source, os.environ.get("PATH"))
        return find_commit(source)

    return find


@pytest.fixture(autouse=True)
def _ask_git_once_of_each_file_of_this_tree(commits, monkeypatch):
    """Each save asks git about the package and its policies, which stay as they are in a run."""
    monkeypatch.setattr("backtest.core.provenance.find_commit", commits)


@pytest.fixture(autouse=True)
def _look_for_peeks_where_they_are_planted(request, monkeypatch):
    """Check columns of policies at a third of the usual cuts, where a test plants no peek."""
    if not request.node.get_closest_marker("peeks"):
        monkeypatch.setattr("backtest.policies.lookahead.CHAINS", 2)
