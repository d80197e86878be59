"""Report pages of results of all kinds."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.report.render import choose_format, write_page
    from backtest.report.page import format_measure
    from backtest.report.side_by_side import write_pair
    from backtest.report.store_pages import write_all
    from backtest.report.write import build_page
    from backtest.report.write import write_cell, write_report, write_saved_page, write_summary
else:
    __getattr__ = find_lazily(__name__, {
        "report.page": "format_measure",
        "report.render": "choose_format write_page",
        "report.side_by_side": "write_pair",
        "report.store_pages": "write_all",
        "report.write": "build_page write_cell write_report write_saved_page write_summary",
    })  # fmt: skip
