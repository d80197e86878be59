"""The report of several positions: what it shows of a liquidation that takes a winner along."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.report.basis import describe_account
from backtest.report.charts import draw_declared
from backtest.report.run_parts import (
    list_exposure,
    list_statement,
    tabulate_contagion,
    tabulate_instruments,
)
from backtest.report.write import build_page
from tests.agreement import flat, run_engine, scene, tape
from tests.kit import Hold, make_market, make_venue


@pytest.fixture(scope="module")
def result():
    """A: 4x long, up 4 %; B: 6x short, up 25 %: the pool fails because of B."""
    tapes = {
        "A": tape([flat(100), flat(100), (100, 104, 100, 104)], (4.0, math.nan)),
        "B": tape([flat(1), flat(1), (1, 1.25, 1, 1.25)], (6.0, math.nan)),
    }
    return run_engine(scene(tapes, {"A": 1.0, "B": -1.0}))


def test_the_page_says_who_pulled_whom_down(result):
    """B is the only cause; A closed with a profit of 160 x 500/1423 = 56.22."""
    table = tabulate_contagion(result)
    assert table.table.iloc[0].tolist() == ["B 100.00 %", "A 56.22"]
    assert "1 position in profit closed too" in build_page(result).summary


def test_exposure_stacks_longs_above_and_shorts_below(result):
    """4 turns of A above 0, 6 turns of B below."""
    traces = draw_declared(list_exposure(result)[0]).figure["data"]
    highest = {(each["name"], each["stackgroup"]): np.abs(each["y"]).max() for each in traces}
    assert highest == pytest.approx(
        {("A", "long"): 4.0, ("A", "short"): 0.0, ("B", "long"): 0.0, ("B", "short"): 6.0}
    )


def test_collateral_is_part_of_what_the_account_began_with():
    """100 of collateral at 10 rises to 12 in the first bar: 1,000 + 1,000 became 2,200."""
    still = {name: make_market([flat(100)] * 3) for name in ("A", "B")}
    coins = make_market([(10, 12, 10, 12), flat(12), flat(12)])
    account = bt.Account(
        capital=1_000.0, negative_limit=0.0, collateral=[bt.Collateral("C", 100.0, coins, rate=0.9)]
    )
    result = bt.run(
        bt.Markets(still), Hold(0.0), venue=make_venue(), account=account, compile=False
    )
    page = build_page(result)
    assert page.summary.startswith("2,000.00 became 2,200.00 in 0 days: a return of ")
    table = tabulate_instruments(result).table
    assert table.iloc[-1].to_dict() == {"collateral_pnl": 200.0, "net": 200.0}
    lines = {name: amount for name, amount, _ in list_statement(result)}
    assert lines["profit of collateral"] == 200.0
    account_table = dict(describe_account(result.manifest["account"]))
    assert account_table["collateral"].startswith("(name C, amount 100, ")
    assert "capital 1,000, margin cross, collateral (name C, amount 100" in " ".join(
        result.summary().split()
    )
