"""Build the report of a result by its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backtest.base.reportable import Reportable
from backtest.compare import Comparison
from backtest.crowd import Cascade, Crowding, SimulatedMarket
from backtest.engine import Result
from backtest.options import Surface
from backtest.report.basis.data_and_command import NOTHING, Background, find_background
from backtest.report.capacity_page import build_capacity
from backtest.report.compare_page import build_comparison
from backtest.report.crowd_pages import (
    build_cascade,
    build_crowding_page,
    build_simulation_page,
)
from backtest.report.page.page import Page
from backtest.report.pocket_pages import POCKETS, build_pocket_page
from backtest.report.risk_pages import RISKS, build_risk_page
from backtest.report.run.portfolio_page import build_portfolio
from backtest.report.run.run_page import build_run
from backtest.report.sets.study_page import build_study
from backtest.report.sets.sweep_page import build_sweep
from backtest.report.surface_page import build_surface
from backtest.report.validations.cross_page import build_cross
from backtest.report.validations.schedule_page import build_schedule_page
from backtest.report.validations.walk_page import build_walk
from backtest.scenarios import Capacity
from backtest.sweep import Sweep
from backtest.tune import Study
from backtest.validation.cross_validation import CrossValidation
from backtest.validation.schedules import Schedules
from backtest.validation.walk import WalkForward


def build_result(result: Result, background: Background) -> Page:
    """Return the report of a run, of one position or of several."""
    build = build_run if result.has_one_position else build_portfolio
    return build(result, background)


BUILDERS: dict[type, Callable[[Any, Background], Page]] = {
    Result: build_result,
    Comparison: build_comparison,
    Study: build_study,
    WalkForward: build_walk,
    CrossValidation: build_cross,
    Schedules: build_schedule_page,
    Cascade: build_cascade,
    SimulatedMarket: build_simulation_page,
    Crowding: build_crowding_page,
}
"""The functions that build the report of a result with its background."""


def build_page(source: Reportable, objective: str = "sharpe", *, reads_data: bool = True) -> Page:
    """Return the report of a result of any kind.

    The sets of a sweep are ranked by ``objective``. With ``reads_data``, the report covers the
    quality of the data: they are loaded again from their source, and used if their content is
    still the same.
    """
    if isinstance(source, (*RISKS, *POCKETS, Capacity, Surface)):
        return build_kind(source)
    background = find_background(source, reads_data=reads_data)
    page = build_kind(source, objective, background)
    collect = page.collect
    return replace(page, collect=lambda: {**collect(), **background.to_dict()})


def build_kind(
    source: Reportable, objective: str = "sharpe", background: Background = NOTHING
) -> Page:
    """Return the report of a result with a background that is known already."""
    if isinstance(source, Capacity):
        return build_capacity(source)
    if isinstance(source, Surface):
        return build_surface(source)
    if isinstance(source, POCKETS):
        return build_pocket_page(source)
    if isinstance(source, RISKS):
        return build_risk_page(source)
    if isinstance(source, Sweep):
        return build_sweep(source, objective, background)
    build = next(made for kind, made in BUILDERS.items() if isinstance(source, kind))
    return build(source, background)
