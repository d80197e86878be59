"""Build the report of a result by its kind."""

from __future__ import annotations

from dataclasses import replace

from backtest.compare import Comparison
from backtest.crowd import Cascade, Crowding, SimulatedMarket
from backtest.engine import Result
from backtest.engine.portfolio.portfolio_result import PortfolioResult
from backtest.report.basis.data_and_command import NOTHING, Background, find_background
from backtest.report.compare_page import build_comparison
from backtest.report.crowd_pages import (
    build_cascade,
    build_crowding_page,
    build_simulation_page,
)
from backtest.report.page.page import Page
from backtest.report.portfolio.portfolio_page import build_portfolio
from backtest.report.run.run_page import build_run
from backtest.report.sets.study_page import build_study
from backtest.report.sets.sweep_page import build_sweep
from backtest.report.validations.cross_page import build_cross
from backtest.report.validations.schedule_page import build_schedule_page
from backtest.report.validations.walk_page import build_walk
from backtest.store import Saved
from backtest.sweep import Sweep
from backtest.validation.cross_validation import CrossValidation
from backtest.validation.schedules import Schedules
from backtest.validation.walk import WalkForward


def build_page(source: Saved, objective: str = "sharpe", *, reads_data: bool = True) -> Page:
    """Return the report of a result of any kind.

    The sets of a sweep are ranked by ``objective``. With ``reads_data``, the report covers the
    quality of the data: they are loaded again from their source, and used if their content is
    still the same.
    """
    if isinstance(source, PortfolioResult):
        return build_portfolio(source)
    background = find_background(source, reads_data=reads_data)
    page = build_kind(source, objective, background)
    collect = page.collect
    return replace(page, collect=lambda: {**collect(), **background.to_dict()})


def build_kind(  # noqa: C901, PLR0911 - one page for each kind
    source: Saved, objective: str = "sharpe", background: Background = NOTHING
) -> Page:
    """Return the report of a result with a background that is known already."""
    if isinstance(source, PortfolioResult):
        return build_portfolio(source)
    if isinstance(source, Result):
        return build_run(source, background)
    if isinstance(source, Sweep):
        return build_sweep(source, objective, background)
    if isinstance(source, Comparison):
        return build_comparison(source, background)
    if isinstance(source, Cascade):
        return build_cascade(source, background)
    if isinstance(source, SimulatedMarket):
        return build_simulation_page(source, background)
    if isinstance(source, Crowding):
        return build_crowding_page(source, background)
    if isinstance(source, WalkForward | CrossValidation | Schedules):
        return build_validation(source, background)
    return build_study(source, background)


def build_validation(
    source: WalkForward | CrossValidation | Schedules, background: Background
) -> Page:
    """Return the report of a validation."""
    if isinstance(source, WalkForward):
        return build_walk(source, background)
    if isinstance(source, CrossValidation):
        return build_cross(source, background)
    return build_schedule_page(source, background)
