"""Capacity, comparisons and factors at the command line: the answers to mistakes."""

import math

import pandas as pd
import pytest

from backtest.base.result_parts import ShownTable
from backtest.base.table_text import format_table
from backtest.cli import main
from backtest.report.declared_page import write_table

SPAN = ("--to", "2023-01-10", "--no-compile", "--no-save")
IMPACT = ("capacity", "--set", "venue.slippage.impact=1.0")


@pytest.mark.parametrize(("words", "problem", "where"), [
    ((*IMPACT, "--capitals", "1e6,1e4"), "got 1,000,000.00, 10,000.00", "--capitals\n"),
    (("run", "--margin", "isloated"), "'isolated'?", "--margin\n"),
    (("risk", "--find-leverage", "2"), "below 1, got 2", "--find-leverage\n"),
    (("sensitivity", "--factors", "signal"), "the parameters of a signal rule", "--factors\n"),
])  # fmt: skip
def test_wrong_words_name_their_own_flag(words, problem, where, capsys):
    """An error names the flag that is wrong, and none of those beside it."""
    assert main([*words, *SPAN]) == 2
    text = capsys.readouterr().err
    assert problem in text
    assert f"where: {where}" in text


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
