"""What the pytest fixture ``backtest_regression`` does; the hooks stand in ``backtest_pytest``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backtest.base.errors import BacktestError, ParameterError
from backtest.cli.regress_command import run_experiment
from backtest.engine.result import Result
from backtest.regress import (
    Baseline,
    Verdict,
    compare,
    fail,
    load_baseline,
    renew,
    save_baseline,
    take_baseline,
)
from backtest.regress.baseline import EXACT
from backtest.regress.baseline_files import find_file, name_baseline
from backtest.regress.tolerances import choose_bands
from backtest.regress.verdict_text import write_text


class Regression:
    """Holds results to their baselines; one for each test.

    Parameters
    ----------
    root : Path
        What a relative path of an experiment begins at.
    folder : Path
        Where the baselines stand.
    test : str
        The test, for messages.
    default_name : str
        The name of a baseline where none is given and the result comes from no file.
    reason : str, or None
        Why baselines are rewritten; None where they are not.
    seen : dict of Path to str
        The baselines that were used so far, and by which test.
    """

    def __init__(
        self,
        *,
        root: Path,
        folder: Path,
        test: str,
        default_name: str,
        reason: str | None,
        seen: dict[Path, str],
    ) -> None:
        self.root = root
        self.folder = folder
        self.test = test
        self.default_name = default_name
        self.reason = reason
        self.seen = seen

    def __call__(
        self,
        experiment_or_result: str | Path | Result,
        name: str | None = None,
        *,
        tolerance: Mapping[str, object] | None = None,
        mode: str | None = None,
        allow_better: Sequence[str] = (),
    ) -> Result:
        """Return the result, or fail saying what moved.

        Parameters
        ----------
        experiment_or_result : path of an experiment, or Result
            A relative path begins at pytest's rootdir.
        name : str, optional
            Of the baseline; by default that of the file, or of the test.
        tolerance : mapping of str to float or str, optional
            How far measures may move: ``{"*": "5%", "sharpe": 0.05}``; goes over what the baseline
            says.
        mode : str, optional
            What decides: ``"exact"``, ``"tolerance"`` or ``"statistical"``; by default what the
            baseline says.
        allow_better : sequence of str
            Measures that may move for the better, or patterns.
        """
        __tracebackhide__ = True
        file = None if isinstance(experiment_or_result, Result) else Path(experiment_or_result)
        own = name or (self.default_name if file is None else file.stem)
        path = self.claim(name_baseline(own))
        try:
            result = self.run(experiment_or_result)
        except BacktestError as error:
            text = write_text([fail(path.stem, error)])
            raise pytest.fail.Exception(text, pytrace=False) from None
        taken = take_baseline(
            result,
            path.stem,
            experiment=None if file is None else self.place(file),
            mode=mode or EXACT,
            tolerance=tolerance,
        )
        verdict = self.judge(path, taken, tolerance, mode, allow_better)
        if verdict is not None and verdict.exit_code != 0:
            pytest.fail(self.tell(verdict), pytrace=False)
        return result

    def claim(self, name: str) -> Path:
        """Return where the baseline of a name stands, which one test may use once."""
        path = find_file(self.folder, name)
        if path in self.seen:
            raise ParameterError(
                f"a baseline belongs to one result, {name!r} is used again",
                where=f"{self.test}, after {self.seen[path]}",
                cure="give each a name of its own: backtest_regression(result, name='...')",
            )
        self.seen[path] = self.test
        return path

    def run(self, given: str | Path | Result) -> Result:
        """Return a result as it is, or what an experiment gives."""
        return given if isinstance(given, Result) else run_experiment(self.root / given)

    def place(self, file: Path) -> str:
        """Return an experiment file as a baseline names it: from its own folder."""
        return Path(os.path.relpath(self.root / file, self.folder)).as_posix()

    def judge(
        self,
        path: Path,
        now: Baseline,
        tolerance: Mapping[str, object] | None,
        mode: str | None,
        allow_better: Sequence[str],
    ) -> Verdict | None:
        """Return the verdict; None where the baseline was recorded just now."""
        if not path.exists():
            return self.record(now)
        try:
            was = load_baseline(path)
        except BacktestError as error:
            return fail(path.stem, error)
        bands = choose_bands(was.metrics, tolerance or {}, was.bands, where="tolerance")
        held = replace(was, bands=bands)
        verdict = compare(held, now, mode=mode, allow_better=allow_better)
        if self.reason is None or not now.is_other_than(was):
            return verdict
        save_baseline(renew(was, now, self.reason), self.folder)
        return verdict.as_rewritten(self.reason)

    def record(self, now: Baseline) -> Verdict | None:
        """Write a first baseline where that is wanted; else return what is missing."""
        if self.reason is not None:
            save_baseline(now, self.folder)
            return None
        missing = ParameterError(
            "a result must have a baseline to be held to, there is none",
            where=str(find_file(self.folder, now.name)),
            cure="pytest --backtest-update --backtest-reason 'first record'",
        )
        return fail(now.name, missing)

    def tell(self, verdict: Verdict) -> str:
        """Return a verdict, and what to do about it where it does not say so itself."""
        text = write_text([verdict])
        if "pytest --backtest-update" in text:
            return text
        advice = "as it should be? pytest --backtest-update --backtest-reason 'why it moved'"
        return f"{text}\n  {advice}"
