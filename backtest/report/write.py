"""Build the report of a result by its kind, and write it to a file."""

from __future__ import annotations

from dataclasses import replace

from backtest.compare import Comparison
from backtest.engine.result import Result
from backtest.report.basis.data_and_command import NOTHING, Background, find_background
from backtest.report.page.page import Page
from backtest.store.find import Saved
from backtest.sweep.sweep_table import Sweep


def build_page(source: Saved, objective: str = "sharpe", *, reads_data: bool = True) -> Page:
    """Return the report of a run, sweep, study or comparison.

    Parameters
    ----------
    source : Result, Sweep, Study or Comparison
        What to report.
    objective : str
        The measure by which the sets of a sweep are looked at.
    reads_data : bool
        Whether to report on the quality of the data: they are loaded from where the manifest says
        they are, and used where they still have the content that was lived through.
    """
    background = find_background(source, reads_data=reads_data)
    page = build_kind(source, objective, background)
    collect = page.collect
    return replace(page, collect=lambda: {**collect(), **background.to_dict()})


def build_kind(source: Saved, objective: str = "sharpe", background: Background = NOTHING) -> Page:
    """Return the report by the kind of what is reported."""
    if isinstance(source, Result):
        from backtest.report.run.run_page import build_run  # noqa: PLC0415 - one of them is needed

        return build_run(source, background)
    if isinstance(source, Sweep):
        from backtest.report.sets.sweep_page import build_sweep  # noqa: PLC0415

        return build_sweep(source, objective, background)
    if isinstance(source, Comparison):
        from backtest.report.compare_page import build_comparison  # noqa: PLC0415

        return build_comparison(source, background)
    from backtest.report.sets.study_page import build_study  # noqa: PLC0415

    return build_study(source, background)
