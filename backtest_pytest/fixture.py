"""The implementation of the pytest fixture ``backtest_regression``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from backtest.baselines import (
    Baseline,
    RegressVerdict,
    choose_bands,
    compare_baselines,
    load_baseline,
    name_baseline,
    report_failure,
    rewrite_baseline,
    save_baseline,
    take_baseline,
    write_text,
)
from backtest.baselines.baseline import EXACT
from backtest.cli.regress import run_experiment
from backtest.core import BacktestError, ParameterError
from backtest.results import Result
from backtest.search import WalkForward

MEASURED = (Result, WalkForward)


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Compares results with their baselines; one instance for each test.

    ``root`` is the folder that relative paths of experiments start from, ``folder`` that of the
    baselines; ``seen`` are the baselines used so far in this process, and the test that used each.
    ``shared`` is where the workers of pytest-xdist tell each other which they use.
    """

    root: Path
    folder: Path
    test: str
    default_name: str
    reason: str | None
    seen: dict[Path, str]
    shared: Path | None = None

    def __call__(
        self,
        experiment_or_result: str | Path | Result | WalkForward,
        name: str | None = None,
        *,
        tolerance: Mapping[str, object] | None = None,
        mode: str | None = None,
        allow_better: Sequence[str] = (),
    ) -> Any:
        """Return the result, or fail with the measures that moved.

        Parameters
        ----------
        experiment_or_result : path of an experiment, Result or WalkForward
            A relative path starts from pytest's rootdir.
        name : str, optional
            The name of the baseline; by default that of the file, or of the test.
        tolerance : mapping of str to float or str, optional
            How far measures may move: ``{"*": "5%", "sharpe": 0.05}``; overrides the baseline.
        mode : str, optional
            The comparison: ``"exact"`` or ``"tolerance"``; by default that of the baseline.
        allow_better : sequence of str
            Measures, or patterns of them, that may improve.
        """
        __tracebackhide__ = True
        given = experiment_or_result
        file = None if isinstance(given, MEASURED) else Path(given)
        own = name or (self.default_name if file is None else file.stem)
        path = self.claim_baseline(name_baseline(own))
        result = given if isinstance(given, MEASURED) else self.measure(given, path.stem)
        taken = take_baseline(
            result,
            path.stem,
            experiment=None if file is None else self.find_relative_path(file),
            mode=mode or EXACT,
            tolerance=tolerance,
        )
        verdict = self.compare_with_baseline(path, taken, tolerance, mode, allow_better)
        if verdict is not None and verdict.exit_code != 0:
            pytest.fail(write_advice(verdict), pytrace=False)
        return result

    def measure(self, file: str | Path, name: str) -> Result:
        """Run an experiment, or fail: a policy that skips its test has not been measured."""
        __tracebackhide__ = True
        try:
            return run_experiment(self.root / file)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, BacktestError):
                raise  # pytest shows where
            text = write_text([report_failure(name, error)])
            raise pytest.fail.Exception(text, pytrace=False) from None

    def claim_baseline(self, name: str) -> Path:
        """Return the path of a baseline, which only one test may use, and only once."""
        path = self.folder / f"{name}.json"
        user = self.seen.get(path) or self.find_user_elsewhere(path)
        if user is not None:
            raise ParameterError(
                f"a baseline belongs to one result, {name!r} of {user} is used again in "
                f"{self.test}; name another: backtest_regression(result, name='...')"
            )
        self.seen[path] = self.test
        return path

    def find_user_elsewhere(self, path: Path) -> str | None:
        """Return the test of another worker that uses a baseline; else note that this one does.

        The same test may run in several workers (``--dist each``).
        """
        if self.shared is None:
            return None
        self.shared.mkdir(parents=True, exist_ok=True)
        note = self.shared / hashlib.sha256(os.fsencode(path)).hexdigest()
        with FileLock(f"{note}.lock"):
            if not note.exists():
                note.write_text(self.test, encoding="utf-8")
            user = note.read_text(encoding="utf-8")
        return None if user == self.test else user

    def find_relative_path(self, file: Path) -> str:
        """Return the path of an experiment relative to the folder of the baselines."""
        return Path(os.path.relpath(self.root / file, self.folder)).as_posix()

    def compare_with_baseline(
        self,
        path: Path,
        now: Baseline,
        tolerance: Mapping[str, object] | None,
        mode: str | None,
        allow_better: Sequence[str],
    ) -> RegressVerdict | None:
        """Return the verdict; None if the baseline was just recorded."""
        if not path.exists():
            return self.record_baseline(now)
        try:
            was = load_baseline(path)
        except BacktestError as error:
            return report_failure(path.stem, error)
        bands = choose_bands(was.metrics, tolerance or {}, was.bands)
        held = replace(was, bands=bands)
        verdict = compare_baselines(held, now, mode=mode, allow_better=allow_better)
        if self.reason is None or not now.is_other_than(was):
            return verdict
        save_baseline(rewrite_baseline(was, now, self.reason), self.folder)
        return verdict.as_rewritten(self.reason)

    def record_baseline(self, now: Baseline) -> RegressVerdict | None:
        """Write a first baseline if there is a reason; else return a failed verdict."""
        if self.reason is not None:
            save_baseline(now, self.folder)
            return None
        path = self.folder / f"{now.name}.json"
        missing = ParameterError(
            f"a result must have a baseline, there is no {path}; "
            "pytest --backtest-update --backtest-reason 'first record'"
        )
        return report_failure(now.name, missing)


def write_advice(verdict: RegressVerdict) -> str:
    """Write a verdict with the command that updates the baseline."""
    text = write_text([verdict])
    if "pytest --backtest-update" in text:
        return text
    advice = "as it should be? pytest --backtest-update --backtest-reason 'why it moved'"
    return f"{text}\n  {advice}"
