"""Report pages of results of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.base import Reportable, Viewable
    from backtest.engine import Result
    from backtest.options import Surface
    from backtest.report.index import write_all
    from backtest.report.page.formats import choose_format, write_page
    from backtest.report.page.report_numbers import format_measure, name_unit
    from backtest.report.pictures import draw_failure_svg
    from backtest.report.write import build_page

open_door(__name__)


def write_report(source: Reportable, path: Path, format_: str | None = None) -> Path:
    from backtest.report.page.formats import write_page  # noqa: PLC0415 - only when asked for
    from backtest.report.write import build_page  # noqa: PLC0415 - as above

    return write_page(build_page(source), path, format_)


def write_cell(source: Reportable) -> str:
    from backtest.report import notebook  # noqa: PLC0415 - only in notebooks

    return notebook.write_cell(source)


def write_view(source: Viewable) -> str:
    from backtest.report import notebook  # noqa: PLC0415 - only in notebooks

    return notebook.write_view(source)


def draw_spans(folds: Any) -> Any:
    from backtest.report import pictures  # noqa: PLC0415 - only when drawn

    return pictures.draw_spans(folds)


def draw_run(result: Result) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    from backtest.report.page.figures import TEMPLATE  # noqa: PLC0415 - only when drawn
    from backtest.report.run import story_section  # noqa: PLC0415 - as above

    figure = go.Figure(story_section.draw_run(result).figure)
    return figure.update_layout(template={"layout": TEMPLATE})


def draw_surface(surface: Surface) -> Any:
    from backtest.report import surface_page  # noqa: PLC0415 - only when drawn

    return surface_page.draw_surface(surface)
