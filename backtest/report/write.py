"""Build the report of a result: from what it declares, or with drawings of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from backtest.base import Reportable
from backtest.report.basis.data_quality import NOTHING, Background, find_background
from backtest.report.declared_page import build_declared
from backtest.report.page.page import Page
from backtest.report.run.run_page import build_run
from backtest.report.sets.study_page import build_study
from backtest.report.sets.sweep_page import build_sweep
from backtest.report.surface_page import build_surface

DRAWN: Mapping[str, Callable[[Any, Background], Page]] = {
    "run": build_run,
    "study": build_study,
    "sweep": build_sweep,
    "surface": build_surface,
}


def build_page(source: Reportable, objective: str = "sharpe") -> Page:
    background = find_background(source, objective)
    page = build_kind(source, background)
    collect = page.collect
    return replace(page, collect=lambda: {**collect(), **background.to_dict()})


def build_kind(source: Reportable, background: Background = NOTHING) -> Page:
    build: Callable[[Any, Background], Page] = DRAWN.get(source.kind, build_declared)
    return build(source, background)
