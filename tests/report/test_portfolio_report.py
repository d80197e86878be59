"""The report of several positions: what it shows of a liquidation that takes a winner along."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from backtest.report.portfolio.exposure_charts import correlate_days, draw_exposure, draw_risk
from backtest.report.portfolio.portfolio_page import build_portfolio
from backtest.report.portfolio.pulled_down import count_victims, tabulate_contagion
from tests.portfolio_agreement import run_engine
from tests.portfolio_scenes import flat, scene, tape

DAY = 86_400_000_000_000


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
    assert [row[1:] for row in table.rows] == [("B 100.00 %", "A 56.22")]
    assert count_victims(result) == 1
    assert "1 position in profit closed with the others." in build_portfolio(result).summary


def test_exposure_stacks_longs_above_and_shorts_below(result):
    """4 turns of A above 0, 6 turns of B below."""
    traces = draw_exposure(result).figure["data"]
    highest = {(each["name"], each["stackgroup"]): np.abs(each["y"]).max() for each in traces}
    assert highest == pytest.approx(
        {("A", "long"): 4.0, ("A", "short"): 0.0, ("B", "long"): 0.0, ("B", "short"): 6.0}
    )


def test_the_report_is_written_in_every_format(result, tmp_path):
    """The JSON has metrics, attribution and contagion; the HTML has the sections."""
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    for words in ("Exposure by instrument", "Where the risk came from", "Who pulled whom down"):
        assert words in page
    assert "56.22" in result.report(tmp_path / "page.md").read_text(encoding="utf-8")
    found = json.loads(result.report(tmp_path / "page.json").read_text(encoding="utf-8"))
    assert found["attribution"]["A"]["price_pnl"] == pytest.approx(160 * 500 / 1423)
    assert {row["cause"] for row in found["contagion"]} >= {"A", "B"}


def test_risk_has_a_line_for_each_instrument(result):
    names = [each["name"] for each in draw_risk(result).figure["data"]]
    assert names == ["A", "B", "diversification ratio", "effective bets"]


def test_correlations_are_of_daily_returns():
    """Two markets whose daily log returns are opposite; too few days show nothing."""
    rng = np.random.default_rng(0)
    moves = rng.normal(0.0, 0.02, 40)
    marks = np.exp(np.cumsum(np.stack([moves, -moves], axis=1), axis=0))
    time = DAY * np.arange(40)
    assert correlate_days(time, marks) == pytest.approx(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert correlate_days(time[:10], marks[:10]) is None
