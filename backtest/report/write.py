"""Build the report of a result: from what it declares, or with drawings of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from backtest.base.reportable import Reportable
from backtest.base.saved_result import SavedResult
from backtest.compare import Comparison
from backtest.engine import Result
from backtest.options import Surface
from backtest.report.basis.data_and_command import NOTHING, Background, find_background
from backtest.report.compare_page import build_comparison_sections
from backtest.report.declared_page import build_declared
from backtest.report.page.page import Page, Section
from backtest.report.run.run_page import build_run
from backtest.report.sets.study_page import build_study
from backtest.report.sets.sweep_page import build_sweep
from backtest.report.surface_page import build_surface
from backtest.report.validations.cross_page import build_cross_sections
from backtest.report.validations.schedule_page import build_schedule_sections
from backtest.report.validations.walk_page import build_walk_sections
from backtest.sweep import Sweep
from backtest.tune import Study
from backtest.validation.cross_validation import CrossValidation
from backtest.validation.schedules import Schedules
from backtest.validation.walk import WalkForward


def build_saved(found: SavedResult, background: Background) -> Page:
    """Return the report of a saved result, with its own drawings if it has any."""
    draw = DRAWINGS.get(found.kind)
    if draw is None:
        return build_declared(found, background)
    return build_declared(found, background, partial(draw, found, background))


DRAWINGS: dict[str, Callable[[Any, Background], list[Section]]] = {
    Comparison.kind: build_comparison_sections,
    WalkForward.kind: build_walk_sections,
    CrossValidation.kind: build_cross_sections,
    Schedules.kind: build_schedule_sections,
}
"""Sections with drawings that a declaration has no words for, by kind."""
BUILDERS: dict[type, Callable[[Any, Background], Page]] = {
    Result: build_run,
    Study: build_study,
    SavedResult: build_saved,
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
