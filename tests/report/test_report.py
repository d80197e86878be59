"""What the report of a run says, in which order, and that it adds up."""

import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.number_text import format_percent
from backtest.base.units import DAY
from backtest.cli import main
from backtest.measures.history import monthly_returns, worst_drawdowns
from backtest.measures.measure_table import METRICS
from backtest.report.page import Paragraph, Table
from backtest.report.render import write_html, write_text
from backtest.report.run_parts import MARKS, list_statement
from backtest.report.write import build_page
from backtest.store import load_saved
from backtest.strategies import Constant
from tests.kit import market_of
from tests.report.reported import VENUE, live


def tables_of(page):
    return {
        block.caption: block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def test_every_measure_stands_in_the_report_as_it_is_in_the_result(page, result):
    table = tables_of(page)["All measures"]
    assert len(table.rows) == len(METRICS)
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["total return"] == format_percent(result.metrics["total_return"])
    assert rows["liquidations"] == f"{result.metrics['liquidations']:.0f}"
    assert result.metrics["liquidations"] > 0


def test_marks_of_events_lie_on_the_equity_and_lead_to_their_rows(page, result):
    story = page.charts[0].figure["data"]
    ledger = next(section for section in page.sections if section.key == "events").blocks[0]
    marked = [trace for trace in story if trace.get("customdata") is not None]
    assert {trace["name"].partition(" (")[0] for trace in marked} >= {"liquidation", "margin call"}
    for trace in marked:
        for time, value, row in zip(trace["x"], trace["y"], trace["customdata"], strict=True):
            stamp, kind = ledger.rows[row][:2]
            assert trace["name"].startswith(MARKS[kind.replace(" ", "_")].words)
            opened = pd.Timestamp(stamp, tz="UTC")
            assert pd.Timestamp(time, tz="UTC") == opened + pd.Timedelta("1h")
            assert result.bars["equity"].loc[opened] == value


def blocks_of(page, key):
    return next(section for section in page.sections if section.key == key).blocks


@pytest.mark.slow
def test_the_command_of_the_report_makes_the_same_result_again(result, tmp_path):
    """Of a run that was made in Python, it says so."""
    words = ["run", "--set", "target=0.3", "--no-compile", "--results"]
    assert main([*words, str(tmp_path / "a b")]) == 0
    (folder,) = (tmp_path / "a b").iterdir()
    page = build_page(load_saved(folder))
    command, again = (block.text for block in blocks_of(page, "assumptions")[-2:])
    assert again == f"backtest report {folder.name}"
    assert shlex.split(command) == ["backtest", *words, str(tmp_path / "a b")]
    shutil.rmtree(folder)
    assert main(shlex.split(command)[1:]) == 0
    assert folder.is_dir()
    texts = [block.text for block in blocks_of(build_page(result), "assumptions")
             if type(block) is Paragraph]  # fmt: skip
    assert any("made in Python: bt.run, " in text for text in texts)


def test_the_statement_adds_up_to_the_change_of_equity(result):
    change = sum(amount for _, amount, _ in list_statement(result))
    assert 10_000.0 + change == pytest.approx(result.metrics["final_equity"])


def test_a_ruined_account_is_said_to_be_ruined():
    page = build_page(live(Constant(leverage=60.0), days=20))
    assert any(notice.startswith("RUINED at") for notice in page.notices)


FREQUENCIES = {"weekly": "7D", "seven hours": "7h"}


@pytest.mark.parametrize("kind", ["flat", "weekly", "seven hours", "few bars", "no funding"])
def test_odd_runs_have_a_report_too(kind):
    steps = 0.01 * np.random.default_rng(1).standard_normal(90)
    market = market_of(100.0 * np.exp(np.cumsum(steps)), FREQUENCIES.get(kind, "1h"))
    if kind == "few bars":
        market = market_of(np.array([100.0, 101.0, 100.5]))
    policy = Constant(leverage=0.0 if kind == "flat" else 2.0)
    result = bt.run(market, policy, venue=VENUE, account=bt.Account(), compile=False)
    text = write_html(build_page(result))
    assert not re.search(r"(?i)\bnan\b", re.sub(r"<script.*?</script>", "", text, flags=re.S))
    assert write_text(build_page(result), "json")


def test_months_and_years_compound_to_the_run(result):
    """Worked by hand: 1 to 1.1 in December, to 1.32 in January, to 0.66 in March (none between)."""
    stamps = pd.to_datetime(["2020-12-30", "2020-12-31", "2021-01-05", "2021-03-01"], utc=True)
    time = pd.DatetimeIndex(stamps).as_unit("ns").asi8
    table = monthly_returns(time, np.array([1.05, 1.1, 1.32, 0.66]), 1.0)
    assert table.loc[2020, 12] == pytest.approx(0.1)
    assert table.loc[2021, 1] == pytest.approx(0.2)
    assert np.isnan(table.loc[2021, 2])
    assert table.loc[2021, 3] == pytest.approx(-0.5)
    assert table["year"].tolist() == pytest.approx([0.1, -0.4])
    whole = monthly_returns(result.time, result.of_account("unit"), result.tally.first_unit)
    assert np.prod(1.0 + whole["year"]) - 1.0 == pytest.approx(result.metrics["total_return"])


def test_the_worst_drawdown_is_that_of_the_metrics(result):
    """Of 1, 2, 1.5, 2, 1.8, 1.0: one of a quarter that recovers in two days, one of a half."""
    closes = DAY * np.arange(1, 7)
    unit = np.array([1.0, 2.0, 1.5, 2.0, 1.8, 1.0])
    falls = worst_drawdowns(unit, closes, start=0, first_peak=1.0, count=10)
    assert falls["depth"].tolist() == [0.5, 0.25]
    assert falls["days_under_water"].tolist() == [2.0, 2.0]
    assert falls["days_down"].tolist() == [2.0, 1.0]
    assert falls["recovery"].isna().tolist() == [True, False]
    found = worst_drawdowns(
        result.of_account("unit"),
        result.span.closes,
        start=result.span.start,
        first_peak=result.first_peak,
        count=10,
    )
    assert found["depth"].iloc[0] == pytest.approx(result.metrics["max_drawdown"], abs=1e-12)
    assert found["days_under_water"].iloc[0] == pytest.approx(result.metrics["drawdown_days"])
