"""Build the report of a result: from what it declares, or with drawings of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backtest.base.reportable import Reportable
from backtest.base.saved_result import SavedResult
from backtest.engine import Result
from backtest.options import Surface
from backtest.report.basis.data_and_command import NOTHING, Background, find_background
from backtest.report.declared_page import build_declared
from backtest.report.page.page import Page
from backtest.report.run.run_page import build_run
from backtest.report.sets.study_page import build_study
from backtest.report.sets.sweep_page import build_sweep
from backtest.report.surface_page import build_surface
from backtest.sweep import Sweep
from backtest.tune import Study

BUILDERS: dict[type, Callable[[Any, Background], Page]] = {
    Result: build_run,
    Study: build_study,
    SavedResult: build_declared,
}
"""The functions that build the report of a result with its background, the most special first."""


def build_page(source: Reportable, objective: str = "sharpe", *, reads_data: bool = True) -> Page:
    """Return the report of a result of any kind.

    The sets of a sweep are ranked by ``objective``. With ``reads_data``, the report covers the
    quality of the data: they are loaded again from their source, and used if their content is
    still the same.
    """
    if isinstance(source, Surface):
        return build_surface(source)
    background = find_background(source, reads_data=reads_data)
    page = build_kind(source, objective, background)
    collect = page.collect
    return replace(page, collect=lambda: {**collect(), **background.to_dict()})


def build_kind(
    source: Reportable, objective: str = "sharpe", background: Background = NOTHING
) -> Page:
    """Return the report of a result with a background that is known already."""
    if isinstance(source, Surface):
        return build_surface(source)
    if isinstance(source, Sweep):
        return build_sweep(source, objective, background)
    build = next(made for kind, made in BUILDERS.items() if isinstance(source, kind))
    return build(source, background)
