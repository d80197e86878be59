"""Tables of the pages of risk: titles, units, and how values are written."""

import math

import pandas as pd

from backtest.base.result_parts import ShownTable
from backtest.base.table_text import format_table
from backtest.report.page import write_table


def test_columns_have_the_title_unit_and_style_of_their_name():
    """Columns without a style have four digits; NaN is a dash; heads say what is per year."""
    frame = pd.DataFrame(
        {"volatility": [0.5204, math.nan], "growth": [0.1, 0.2], "ok": [True, False]},
        index=["a", "b"],
    )
    table = write_table(ShownTable(frame), frame)
    assert table.rows == (("a", "52.04 %", "10.00 %", "yes"), ("b", "-", "20.00 %", "no"))
    heads = [(head.title, head.unit) for head in table.columns]
    assert heads[1:] == [("volatility", ""), ("growth", "per year"), ("ok", "")]
    assert "volatility growth a year" in format_table(frame).splitlines()[0]
