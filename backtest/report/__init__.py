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
    from backtest.report.render import choose_format, write_page
    from backtest.report.report_numbers import format_measure, name_unit
    from backtest.report.write import build_page

open_door(__name__)


def write_report(source: Reportable, path: Path, format_: str | None = None) -> Path:
    from backtest.report import write  # noqa: PLC0415 - only when asked for

    return write.write_report(source, path, format_)


def write_summary(source: Reportable) -> str:
    from backtest.report import write  # noqa: PLC0415 - only when asked for

    return write.write_summary(source)


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
    from backtest.report import pictures, run_parts  # noqa: PLC0415 - only when drawn

    return pictures.draw_chart(run_parts.draw_story(result))


def draw_surface(surface: Surface) -> Any:
    from backtest.report import pictures, surface_parts  # noqa: PLC0415 - only when drawn

    return pictures.draw_chart(surface_parts.draw_map(surface))
