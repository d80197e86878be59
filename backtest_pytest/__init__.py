"""The pytest plugin: a fixture that compares results with their baselines, and its options.

Every pytest run of the environment loads this file. It is therefore outside ``backtest``, whose
import takes half a second, and imports it only when the fixture is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backtest_pytest.fixture import Regression

_SEEN = pytest.StashKey[dict[Path, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options."""
    group = parser.getgroup("backtest", "backtest: results held to their baselines")
    group.addoption(
        "--backtest-update",
        action="store_true",
        help="record missing baselines and rewrite those that moved; needs --backtest-reason",
    )
    group.addoption(
        "--backtest-reason",
        metavar="TEXT",
        help="why the numbers moved; kept in the baselines that are rewritten",
    )
    group.addoption(
        "--backtest-baselines",
        metavar="FOLDER",
        default="baselines",
        help="folder of baselines, from the rootdir (default: baselines, as of `backtest regress`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check that an update has a reason, and that a reason comes with an update."""
    reason, is_update = config.getoption("--backtest-reason"), config.getoption("--backtest-update")
    if is_update and not (reason or "").strip():
        raise pytest.UsageError(
            "--backtest-update rewrites baselines, and needs a reason that is stored: "
            "--backtest-reason 'funding was charged twice'"
        )
    if reason is not None and not is_update:
        raise pytest.UsageError("--backtest-reason is stored by --backtest-update: add it")
    config.stash[_SEEN] = {}


@pytest.fixture
def backtest_regression(request: pytest.FixtureRequest) -> Regression:
    """Compare a result, or that of an experiment file, with its baseline.

    ``backtest_regression(experiment_or_result, name=..., tolerance=..., mode=...,
    allow_better=...)`` returns the result, or fails with the measures that moved.
    """
    from backtest_pytest.fixture import Regression  # noqa: PLC0415 - imported only where used

    config = request.config
    folder = config.getoption("--backtest-baselines")
    return Regression(
        root=config.rootpath,
        folder=config.rootpath / folder,
        test=request.node.nodeid,
        default_name=request.node.name,
        reason=config.getoption("--backtest-reason"),
        seen=config.stash[_SEEN],
        shared=find_shared_folder(request),
    )


def find_shared_folder(request: pytest.FixtureRequest) -> Path | None:
    """Return a folder of this run that all workers of pytest-xdist share; None without them."""
    worker = getattr(request.config, "workerinput", None)
    if worker is None:
        return None
    paths: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return paths.getbasetemp().parent / f"backtest-baselines-{worker['testrunuid']}"
