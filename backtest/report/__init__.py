"""Report pages of results of all kinds."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.report.render import choose_format, write_page
    from backtest.report.page import format_measure
    from backtest.report.write import (
        build_page,
        draw_run,
        draw_surface,
        write_all,
    )
    from backtest.report.write import write_cell, write_report, write_saved_page, write_summary

export_lazily(__name__)
