"""Pages of risk lead with their verdict, and name the drift of paths and what they assume."""

import math

import pandas as pd

import backtest as bt
from backtest import paths as models
from backtest.base.number_text import format_chance
from backtest.base.result_parts import ShownTable
from backtest.base.table_text import format_table
from backtest.report.declared_page import build_declared, write_table
from backtest.strategies import Constant
from tests.risk.accounts import Hold, free_account, free_venue, still_market

TERMS = {"venue": free_venue(), "account": free_account()}


def make_risk():
    drawn = bt.simulate_paths(still_market(), models.GBM(0.8), paths=300, horizon="2d")
    return bt.liquidation_risk(drawn, Hold(30.0), **TERMS, compile=False, method="plain")


def make_largest():
    return bt.max_leverage(
        still_market(), **TERMS, probability=0.3, horizon="4h", models=[models.GBM(0.8)],
        paths=70, compile=False,
    )  # fmt: skip


def test_the_page_of_a_risk_leads_with_its_verdict_and_has_readable_heads():
    risk = make_risk()
    page = build_declared(risk)
    row = risk.table.iloc[-1]
    assert page.summary == risk.verdict
    assert page.summary.startswith("Beginning at 30.00x, the account is liquidated within 2d ")
    assert format_chance(row["p_liquidation_high"]) in page.summary
    assert {"data", "assumptions"} <= {section.key for section in page.sections}
    tables = [each for section in page.sections for each in section.blocks if hasattr(each, "rows")]
    heads = {column.title for table in tables for column in table.columns}
    assert not any("_" in head or head.startswith("p ") for head in heads)
    assert {"liquidation", "95 % interval of liquidation", "median", "hazard"} <= heads
    (paths,) = (table for table in tables if table.caption == "Paths")
    assert ("funding", "none (the history has no settlements)") in paths.rows
    stated = bt.liquidation_risk(risk.paths, Constant(4.0), **TERMS, compile=False, method="plain")
    assert stated.verdict.startswith("Beginning at 4.00x, the account is liquidated")


def list_tables(page):
    return {
        block.caption: block
        for section in page.sections
        for block in section.blocks
        if hasattr(block, "rows")
    }


def test_pages_of_paths_name_their_drift_and_what_else_they_assume():
    page = build_declared(make_largest())
    assert page.summary.endswith("Their paths have no drift.")
    (name,) = (name for name in list_tables(page) if name.startswith("Paths of "))
    assert ("drift", "no drift") in list_tables(page)[name].rows
    assert ("signal", "long") in list_tables(page)["Account"].rows


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
