"""Pockets, capacity, comparisons and factors at the command line: the answers to mistakes."""

import math

import pandas as pd
import pytest

from backtest.base.table_text import COLUMN_FORMATS, format_table
from backtest.cli import main
from backtest.report.risk_blocks import write_table

POCKETS = ("allocation", "--pocket", "a=0.6*Cppi()", "--pocket")
SPAN = ("--to", "2023-01-10", "--no-compile", "--no-save")
IMPACT = ("capacity", "--set", "venue.slippage.impact=1.0")


@pytest.mark.parametrize(
    ("words", "problem", "where"),
    [
        ((*POCKETS, "a=0.4*VolTarget()"), "'a' was given twice", "--pocket\n"),
        ((*POCKETS, "b=0.4*VolTarget()", "--rebalance", "30"), "a duration", "--rebalance\n"),
        ((*POCKETS, "b=0.4*VolTarget()", "--transfer", "losses"), "transfer", "--transfer\n"),
        ((*IMPACT, "--capitals", "1e6,1e4"), "got 1,000,000.00, 10,000.00", "--capitals\n"),
        (("compare", "--policy", "cppi", "--margin", "cross,isloated"), "'isolated'?", "--margin:"),
        (("compare", "--policy", "cppi"), "--margin cross,isolated", "backtest compare\n"),
        (("allocation", "--pocket", "abc"), "--pocket takes NAME=SHARE*POLICY", "--pocket abc\n"),
        (("runway", "--spend", "0.01", "--of", "start", "--most", "-1"), "most must be", "--most:"),
        (("runway", "--spend", "abc"), "--spend must be a number, got 'abc'", "backtest runway\n"),
        (("risk", "--find-leverage", "2"), "below 1, got 2", "--find-leverage\n"),
        (("sensitivity", "--factors", "signal"), "the parameters of a signal rule", "--factors\n"),
    ],
)
def test_wrong_words_name_their_own_flag(words, problem, where, capsys):
    """An error names the flag that is wrong, and none of those beside it."""
    assert main([*words, *SPAN]) == 2
    text = capsys.readouterr().err
    assert problem in text
    assert f"where: {where}" in text


def test_tables_keep_a_unit_for_each_column():
    """Columns with a format have their unit, others four digits; NaN is a dash."""
    frame = pd.DataFrame({"volatility": [0.5204, math.nan], "ok": [True, False]}, index=["a", "b"])
    rows = write_table("", frame, formats=COLUMN_FORMATS).rows
    assert rows == (("a", "52.04 %", "yes"), ("b", "-", "no"))
    ruined = pd.DataFrame({"ruined": [1.0, 0.0]}, index=["a", "b"])
    assert write_table("", ruined, formats=COLUMN_FORMATS).rows == (("a", "yes"), ("b", "no"))
    assert write_table("", frame).rows[0] == ("a", "0.5204", "yes")


def test_heads_of_yearly_columns_say_so():
    frame = pd.DataFrame({"growth": [0.1], "volume_share": [0.2]}, index=["a"])
    heads = [(head.title, head.unit) for head in write_table("", frame).columns]
    assert heads[1:] == [("growth", "per year"), ("volume share", "")]
    assert "  growth a year volume_share" in f"  {format_table(frame).splitlines()[0].strip()}"
