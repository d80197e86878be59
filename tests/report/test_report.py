"""What the report of a run says, in which order, and that it adds up."""

import dataclasses
import itertools
import json
import math
import re
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import backtest as bt
from backtest import core
from backtest.account.events import MARKS
from backtest.account.money import MONEY_TERMS
from backtest.cli import main
from backtest.core.number_text import HARD_SPACE, STYLES, format_percent
from backtest.core.result_parts import Panel, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.report import run_charts, run_figures, run_parts, run_sentences, window
from backtest.report.charts import draw_declared, join_equal
from backtest.report.explored_sets import explore_sweep, find_neighbors
from backtest.report.figures import drop_dust, thin_rows
from backtest.report.page import (
    Cell,
    Column,
    Paragraph,
    Section,
    Table,
    has_numerals,
    write_measure,
    write_table,
)
from backtest.report.policy_phrase import describe_call, phrase_heading, write_phrase
from backtest.report.render import (
    GAP,
    choose_columns,
    find_width,
    lay_out_column,
    tag_prose,
    write_html,
    write_page,
    write_sentences,
    write_terminal,
    write_text,
)
from backtest.report.write import build_page, find_currency
from backtest.results import load_saved
from backtest.results.manifest import phrase_source
from backtest.results.measure_table import METRICS
from backtest.results.performance import monthly_returns, worst_drawdowns
from backtest.results.run_record import EXTRAPOLATED
from backtest.search.equal_risk import name_better
from backtest.strategies import Constant, VolTarget
from backtest.sweep.sweep_table import Sweep
from tests.agreement import run_engine, scene, tape
from tests.kit import Hold, call, check_refused, flat, make_market, make_venue, market_of
from tests.report.conftest import AT_BINANCE, live
from tests.tuning import seek, stand_in

FREQUENCIES = {"weekly": "7D", "seven hours": "7h"}
MOST_BYTES = 3_000_000
"""The most that a page may take; two thirds of it are the library of charts."""


def list_tables(page):
    """Return the tables of all sections."""
    blocks = [block for section in page.sections for block in section.blocks]
    return [block for block in blocks if isinstance(block, Table)]


def test_every_measure_stands_in_the_report_as_it_is_in_the_result(page, result):
    tables = list_tables(page)
    (table,) = (each for each in tables if each.caption == "All measures")
    assert len(table.rows) == len(METRICS) - len({*EXTRAPOLATED, *run_figures.YEARLY})  # of 80 days

    rows = {row[0]: row[1] for row in table.rows}
    assert rows["total return"] == format_percent(result.metrics["total_return"])
    assert rows["liquidations"] == f"{result.metrics['liquidations']:.0f}"
    assert result.metrics["liquidations"] > 0


def test_marks_of_events_lie_on_the_equity_and_lead_to_their_rows(page, result):
    story = page.charts[0].figure["data"]
    ledger = next(section for section in page.sections if section.key == "events").blocks[0]

    with_rows = [trace for trace in story if trace.get("customdata") is not None]
    marked = [trace for trace in with_rows if "yaxis" not in trace]
    assert {trace["name"].partition(" (")[0] for trace in marked} >= {"liquidation", "margin call"}
    for trace in marked:
        for time, value, row in zip(trace["x"], trace["y"], trace["customdata"], strict=True):
            stamp, kind = ledger.rows[row][:2]
            assert trace["name"].startswith(MARKS[kind.replace(" ", "_")].words)

            opened = pd.Timestamp(stamp, tz="UTC")
            assert pd.Timestamp(time, tz="UTC") == opened + pd.Timedelta("1h")
            assert result.bars["equity"].loc[opened] == value


@pytest.mark.parametrize("kind", ["run", "calm"])
def test_every_measure_on_a_page_is_the_result_own(kind, result, html):
    """Each element with data-measure says how the measure was written; the text follows from it."""
    if kind == "calm":
        result = live(VolTarget(target=0.5), days=40)
        html = write_html(build_page(result))

    found = re.findall(r'data-measure="(\w+)" data-format="([^"]+)">([^<]*)<', html)
    few_days = {*EXTRAPOLATED, *run_figures.YEARLY}  # no yearly figures under 90 days
    assert {name for name, _, _ in found} == {*METRICS} - few_days
    assert len(found) >= len(METRICS) - 2 + 10 + 3  # all measures, the headlines, the verdict

    for name, style, text in found:
        write = partial(write_measure, name) if style == "measure" else STYLES[style]
        assert text.replace(HARD_SPACE, " ") == write(result.metrics[name]), name


def test_code_and_dates_of_a_sentence_have_elements_and_the_rest_is_escaped():
    text = "On 2021-05-19 <b> fell by 30 %: `backtest risk --set 'a<b'` shows it"
    assert tag_prose(text) == (
        'On <span class="date">2021-05-19</span> &lt;b&gt; fell by 30\u00a0%: '
        "<code>backtest risk --set &#39;a&lt;b&#39;</code> shows it"
    )


def test_the_line_of_equal_risk_is_saved_with_the_result(tmp_path):
    result = live(VolTarget(target=0.5), days=40)
    constant = bt.equal_risk(result)

    sampled = np.append(1.0, constant.unit[result.ends_sample != 0.0])
    volatility = np.std(sampled[1:] / sampled[:-1] - 1.0, ddof=1) * math.sqrt(365)
    assert volatility == pytest.approx(result.metrics["volatility"], rel=0.01)

    loaded = load_saved(result.save(tmp_path))
    again = bt.equal_risk(loaded)
    assert again.leverage == constant.leverage
    assert again.unit.tolist() == constant.unit.tolist()
    assert write_html(build_page(loaded)) == write_html(build_page(result))

    names = [trace["name"] for trace in build_page(loaded).charts[0].figure["data"]]
    assert names[:3] == ["account", "buy and hold", f"constant {constant.leverage:.2f}x"]

    idle = live(Constant(leverage=0.0), days=2)
    check_refused(
        lambda: bt.equal_risk(idle), "this account: the account held nothing", bt.ParameterError
    )


def test_a_run_shades_its_three_deepest_falls_and_names_its_rolling_window(page, result):
    story, *_ = page.charts
    shades = [each for each in story.figure["layout"]["shapes"] if each["type"] == "rect"]

    falls = run_charts.find_drawdowns(result)
    assert len(shades) == min(3, len(falls))
    assert shades[0]["x0"] == f"{falls['peak'].iloc[0]:%Y-%m-%dT%H:%M:%S}"
    assert shades[0]["x1"] == f"{falls['trough'].iloc[0]:%Y-%m-%dT%H:%M:%S}"

    rolling = next(each for each in page.charts if each.key == "rolling")
    assert rolling.title == "Rolling windows of 20 days"  # a quarter of 80

    drawn = {trace["name"]: np.asarray(trace["y"]) for trace in rolling.figure["data"]}
    last = result.returns.to_numpy()[-20:]
    assert drawn["volatility"][-1] == pytest.approx(last.std(ddof=1) * math.sqrt(365))
    assert "Sharpe" not in drawn  # a yearly figure of under 90 days


def test_the_statement_adds_up_to_the_change_of_equity(result):
    change = sum(amount for _, amount, _ in run_parts.list_statement(result))
    assert 10_000.0 + change == pytest.approx(result.metrics["final_equity"])


def test_a_run_without_marks_says_so_once(tmp_path, capsys):
    market_of(np.linspace(100.0, 110.0, 60)).save(tmp_path / "data")
    own = ("--instrument", "BTCUSDT", "--no-save")

    found = call(capsys, "run", "--data", tmp_path / "data", *own)
    text = " ".join(found[1:]).replace("\n", " ")
    assert text.lower().count("no mark prices") == 1
    assert re.search(r" USDT in 2 days: .* Yearly figures are extrapolated from 2.5 days\.", text)


@pytest.mark.parametrize(("days", "is_shown"), [(89, False), (90, True), (120, True)])
def test_growth_per_year_is_shown_from_90_days_on(days, is_shown):
    """0.1 % a day is 44 % a year: of few days no number for people, of data it always is one."""
    close = 100.0 * 1.001 ** np.arange(1, days + 1)
    result = bt.run(market_of(close, "1D"), Constant(leverage=0.5), compile=False, **AT_BINANCE)
    page = build_page(result)

    shown = {fact.label for fact in page.facts}
    tables = list_tables(page)
    (table,) = (each for each in tables if each.caption == "All measures")

    assert ({"CAGR", "Sharpe", "Calmar"} <= shown) is is_shown
    assert ("CAGR" in {row[0] for row in table.rows}) is is_shown
    assert ("CAGR and Calmar are not shown under 90 days." in page.summary) is not is_shown

    assert result.metrics["cagr"] > 0.1
    assert page.collect()["metrics"]["cagr"] == result.metrics["cagr"]


def test_a_benchmark_that_grew_more_is_told_by_the_whole_time_of_few_days():
    """2 % in 20 days against 1 %: per year they would be 43.5 % and 19.9 %."""
    own = {"total_return": 0.01, "cagr": 1.01 ** (365.25 / 20) - 1.0, "volatility": 0.1}
    market = {"total_return": 0.02, "cagr": 1.02 ** (365.25 / 20) - 1.0, "volatility": 0.2}
    few = name_better({"buy and hold": market}, own, days=20.0)
    assert "grew by 2.00 % in 20 days" in few.replace(HARD_SPACE, " ")
    assert "a year" not in few
    assert "43.5" in name_better({"buy and hold": market}, own, days=90.0)


def test_a_replay_and_a_stress_test_name_what_they_show(result):
    """A replay has no policy; 0.5x has no break-even; a ladder has its axis."""
    calm = live(Constant(leverage=0.5), days=8)
    again = bt.Backtest(calm.markets, venue=calm.venue, account=calm.account).replay(calm.fills)

    assert build_page(again).title == "Replay of fills"

    fall = [bt.Scenario("fall", price=-0.1, over="2h")]
    shocked = bt.stress(calm, fall, ladder={"price": (-0.3, 0.3, 3)})

    charts = {each.key: each.figure["data"] for each in build_page(shocked).charts}
    assert charts["ladder"][0]["x"] == pytest.approx([-0.3, 0.0, 0.3])  # was: labels

    (bars,) = charts["outcomes"]  # a fall of 10 % at 0.5x takes about 5 % of the account
    assert bars["x"] == pytest.approx([-5.0], abs=0.1)
    assert charts["moves"][0]["y"][-1] == pytest.approx(-10.0)

    # The points of two bars are marked, those of three days would make a thick line.
    assert charts["moves"][0]["mode"] == "lines+markers"
    slow = bt.stress(calm, [bt.Scenario("slow", price=-0.1, over="72h")])
    (drawn,) = [each for each in build_page(slow).charts if each.key == "moves"]
    assert drawn.figure["data"][0]["mode"] == "lines"

    text = shocked.summary()
    assert "Without a break-even (-), no price move" in " ".join(text.split())
    assert re.search(r"^price +USDT", text, flags=re.M)

    data = result.manifest["data"] | {"filled": {"mark_gaps": "last: 2 of 4 bars"}}
    told = dataclasses.replace(result, manifest={**result.manifest, "data": data}).notices
    assert "Missing values were filled in: mark gaps, last: 2 of 4 bars." in told

    bold = live(Constant(leverage=5.0), days=8)
    assert "Without a break-even" not in " ".join(bt.stress(bold, fall).summary().split())


def test_a_withdrawal_of_more_than_there_is_says_what_was_refused():
    """Without a position all of 10,000 can go; 5,000 of 15,000 are refused."""
    market = bt.Market.sample(bars=48)
    account = bt.Account(flows=pd.Series([-15_000.0], index=market.times[[10]]))
    terms = {"venue": "binance-usdm:BTCUSDT", "account": account, "compile": False}
    result = bt.run(market, bt.strategies.Constant(0.0), **terms)

    assert result.transfers.tolist() == [-10_000.0]
    words = "Withdrawals of 5,000.00 were refused: an account keeps its initial margin"
    assert any(notice.startswith(words) for notice in result.notices)


def test_a_ruined_account_has_a_day_of_ruin_and_no_sharpe_ratio():
    """Its axis of time ends a tenth after the ruin, which is a line over all panels."""
    result = live(Constant(leverage=60.0), days=100)
    page = build_page(result)
    assert any(notice.startswith("RUINED at") for notice in page.notices)

    facts = {fact.label: fact.value for fact in page.facts}
    days = result.metrics["ruin_time"]
    assert facts["Days until ruin"] == STYLES["days"](days)
    assert not {"Sharpe", "Calmar"} & {*facts}
    assert f"in {days:,.0f} days" in page.summary

    layout = page.charts[0].figure["layout"]
    start = pd.Timestamp(layout["xaxis"]["range"][0])
    end = pd.Timestamp(layout["xaxis"]["range"][1])
    ruin = pd.Timestamp(result.span.time_of(result.tally.ruin))
    assert end - ruin == max(0.1 * (ruin - pd.Timestamp(result.span.start)), pd.Timedelta("2h"))

    (line,) = (each for each in layout["shapes"] if each["type"] == "line")
    assert pd.Timestamp(line["x0"]) == ruin
    names = [each["text"] for each in layout["annotations"] if each.get("name") == "line"]
    assert names == [f"liquidated and ruined {ruin:%Y-%m-%d}"]

    assert start < ruin


def test_the_title_is_a_phrase_and_what_was_changed_are_chips():
    changed = live(VolTarget(target=0.8, half_life=24.0), margin="isolated", venue_leverage=10)
    page = build_page(changed)
    assert page.title == "Volatility target 80 %"
    assert page.chips == ("half life 24 bars", "margin isolated", "venue leverage 10")
    assert "half life 24 bars</li>" in write_html(page)

    plain = build_page(live(Constant(leverage=8.0), days=2))
    assert plain.title == "Constant leverage 8x"
    assert plain.chips == ()

    known = phrase_heading("Stress test: Constant(leverage=5.0)")
    assert known == "Stress test: Constant leverage 5x"
    assert phrase_heading("Stress test: Mine(leverage=5.0)") == "Stress test: Mine(leverage=5.0)"


def test_the_title_of_a_policy_over_another_says_the_setting_of_the_inner_one():
    """The text of the call, of which alone an index knows, has the same phrase and chips."""
    text = (
        "TailHedge(Constant(leverage=2.0), delta=-0.1, tenor=14.0, roll=7.0, budget=0.005, "
        "cover=1.0)"
    )
    settings = {"delta": -0.1, "tenor": 14.0, "roll": 7.0, "budget": 0.005, "cover": 1.0}
    manifest = {
        "policy": {
            "name": "TailHedge[Constant]",
            "settings": settings | {"constant_leverage": 2.0},
            "text": text,
        },
        "policy_module": "backtest.strategies.tail_hedge",
    }
    phrase = "Tail hedge over constant leverage 2x"

    assert write_phrase(manifest) == phrase
    assert describe_call(text) == (phrase, ("tenor 14 days",))
    assert phrase_heading(f"Stress test: {text} on BTC") == f"Stress test: {phrase} on BTC"

    nested = "TailHedge(TailHedge(Constant(leverage=2.0), delta=-0.2), delta=-0.1)"
    changed = ("tail hedge delta -0.2", "tail hedge constant leverage 2")
    assert describe_call(nested) == ("Tail hedge over tail hedge over constant", changed)


@pytest.mark.parametrize(
    "text",
    [
        "Constant(leverage=",  # no end
        "Constant(leverage=__import__('os').getpid())",  # not a value
        "Mine(leverage=5.0)",
        "TailHedge(2.0, delta=-0.1)",  # over no policy
        f"Constant({'(' * 5_000}1.0{')' * 5_000})",  # too deep
    ],
)
def test_the_text_of_no_call_of_a_shipped_policy_stays_as_it_is(text):
    assert phrase_heading(text) == text
    assert describe_call(text) == (text, ())


def test_a_page_names_the_currency_of_its_money_where_it_knows_it(page):
    tables = [table for table in list_tables(page) if not table.is_pairs]
    units = {column.unit for table in tables for column in table.columns}

    assert "USDT" in units
    assert not {"money", "settlement currency"} & units


def test_three_figures_are_large_and_the_third_is_how_near_liquidation_was():
    """Long at 100 with 5x and capital 1,000: 50 contracts; equity 0 at 80; brackets say the rest.

    Lows are 96 and 90 inside the bars: the nearest is of the second, 1 - price / 90.

    """
    rows = [flat(100), (100, 101, 96, 100), (100, 101, 90, 100)]
    venue = make_venue()
    account = bt.Account(capital=1_000.0)
    result = bt.run(make_market(rows), Hold(5.0), venue=venue, account=account, compile=False)

    price = result.bars["liquidation_price"].iloc[-1]

    page = build_page(result)
    large = {fact.label: fact.value for fact, style in page.shown_facts if style.is_large}
    assert [*large] == ["Return", "Worst drawdown", "Nearest liquidation"]
    assert large["Nearest liquidation"] == format_percent(1.0 - price / 90.0)

    liquidated = build_page(live(Constant(leverage=60.0), days=20))
    large = {fact.label: fact.value for fact, style in liquidated.shown_facts if style.is_large}
    assert [*large] == ["Return", "Worst drawdown", "Liquidations"]


def test_the_figures_of_a_window_are_sums_of_blocks(result):
    """Return, volatility and worst drawdown of the middle of the run, from its unit values."""
    blocks = window.collect_window(result)
    ends = window.find_block_ends(result.ends_sample)
    unit = result.of_account("unit") / result.tally.first_unit
    first, last = 20, 49  # 30 days
    inside = unit[ends[first - 1] : ends[last] + 1]

    returns = result.returns.to_numpy()[first : last + 1]

    peak = blocks["unit"][first - 1]
    fall = 0.0
    for k in range(first, last + 1):
        fall = max(fall, 1.0 - blocks["low"][k] / peak, blocks["fall"][k])
        peak = max(peak, blocks["high"][k])

    assert blocks["unit"][last] / blocks["unit"][first - 1] == inside[-1] / inside[0]
    assert fall == pytest.approx(np.max(1.0 - inside / np.maximum.accumulate(inside)), abs=1e-12)
    assert sum(blocks["returns"][first : last + 1]) == pytest.approx(returns.sum())
    assert sum(blocks["squares"][first : last + 1]) == pytest.approx((returns**2).sum())

    assert sum(blocks["fills"]) == result.metrics["fills"]
    assert sum(blocks["count"]) == len(result.returns)


@pytest.mark.parametrize("kind", ["flat", "weekly", "seven hours", "few bars", "no funding"])
def test_odd_runs_have_a_report_too(kind):
    steps = 0.01 * np.random.default_rng(1).standard_normal(90)
    market = market_of(100.0 * np.exp(np.cumsum(steps)), FREQUENCIES.get(kind, "1h"))
    if kind == "few bars":
        market = market_of(np.array([100.0, 101.0, 100.5]))
    result = bt.run(market, Constant(leverage=0.0 if kind == "flat" else 2.0), **AT_BINANCE)

    text = write_html(build_page(result))
    assert not re.search(r"(?i)\bnan\b", re.sub(r"<script.*?</script>", "", text, flags=re.S))
    assert write_text(build_page(result), "json")


def test_partial_months_and_days_are_flagged_with_the_measures_that_count_them():
    """From 13:00 on January 1 to the end of February 9: both months and one day."""
    market = bt.Market.sample(bars=24 * 40).slice("2023-01-01 13:00", None)
    page = build_page(bt.run(market, Constant(leverage=1.0), **AT_BINANCE))
    (returns,) = (each for each in page.sections if each.key == "returns")

    notes = {each.caption: each.note for each in returns.blocks if isinstance(each, Table)}
    assert notes["Measures of returns"] == "Partial: Jan 2023, Feb 2023, 2023-01-01."
    assert notes["Monthly returns"].endswith("in per cent. Partial: Jan 2023, Feb 2023.")


def test_the_month_of_the_last_session_is_no_part_of_the_next():
    """Sessions of September to November in New York: the last one ends on December 1, 05:00 UTC."""
    days = pd.bdate_range("2021-09-01", "2021-11-30", tz="America/New_York")
    steps = 0.01 * np.random.default_rng(1).standard_normal(len(days))
    market = market_of(100.0 * np.exp(np.cumsum(steps)), "1D")
    bars = market.bars().set_axis(days)
    sessions = bt.Market.from_frames(bars, sessions=True)
    result = bt.run(sessions, Constant(leverage=1.0), venue="reg-t:STOCK", account=bt.Account())
    assert run_charts.list_partial(result, "M", "%b %Y") == []


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

    unit = np.array([1.0, 2.0, 1.5, 2.0, 1.8, 1.0])
    falls = worst_drawdowns(unit, DAY * np.arange(1, 7), start=0, first_peak=1.0, count=10)
    rows = falls[["depth", "days_under_water", "days_down"]].to_numpy().tolist()
    assert rows == [[0.5, 2.0, 2.0], [0.25, 2.0, 1.0]]
    assert falls["recovery"].isna().tolist() == [True, False]

    terms = {"start": result.span.start, "first_peak": result.first_peak, "count": 10}
    found = worst_drawdowns(result.of_account("unit"), result.span.closes, **terms)
    assert found["depth"].iloc[0] == pytest.approx(result.metrics["max_drawdown"], abs=1e-12)
    assert found["days_under_water"].iloc[0] == pytest.approx(result.metrics["drawdown_days"])


def test_neighbors_are_within_a_tenth_of_each_range(sweep):
    values = np.arange(0.0, 101.0, 2.0)
    facts = {"target": {"unit": "", "log": False}}
    table = pd.DataFrame({"target": values, "sharpe": -((values - 70.0) ** 2), "ruined": 0.0})
    table["ruin_time"] = np.nan
    explored = explore_sweep(Sweep(table, {**sweep.manifest, "parameters": facts}))

    near = values[find_neighbors(explored)]
    assert near.tolist() == [60.0, 62.0, 64.0, 66.0, 68.0, 72.0, 74.0, 76.0, 78.0, 80.0]


@pytest.mark.slow
def test_a_loaded_study_has_the_same_page_and_an_unfinished_one_says_so(monkeypatch, tmp_path):
    stand_in(put=monkeypatch.setattr)
    study = seek(store=tmp_path)
    assert study.plot().layout.title.text

    assert " of the search are extrapolated from " in study.details
    assert write_html(build_page(load_saved(study.folder))) == write_html(build_page(study))

    unfinished = dataclasses.replace(study, outcome=None)
    assert any("UNFINISHED" in notice for notice in build_page(unfinished).notices)
    assert write_html(build_page(unfinished))


def test_the_format_is_that_of_the_name_unless_it_is_said(page, tmp_path):
    assert write_page(page, tmp_path / "a.json").read_text().startswith("{")
    assert write_page(page, tmp_path / "a.txt", "md").read_text().startswith("# ")
    for name, format_, words in (
        ("a.txt", "pdf", "the format of a report must be one of html, md, json, got 'pdf'"),
        ("a.json/b.md", None, "cannot write"),
        ("a.png", None, "got 'png'"),
    ):
        check_refused(lambda: write_page(page, tmp_path / name, format_), words)  # noqa: B023


def test_every_figure_is_one_that_plotly_knows(page, sweep, result):
    for chart in (*page.charts, *build_page(sweep).charts):
        assert go.Figure(chart.figure).data
    assert {"account", "held", "mark price"} <= {trace.name for trace in result.plot().data}


@pytest.fixture
def saved(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return result.save("results")


@pytest.mark.slow
def test_the_command_writes_one_file_and_says_which(saved, tmp_path, capsys):
    assert main(["report", saved.name]) == 0
    assert capsys.readouterr().out.strip() == f"{saved.name}.html"
    assert (tmp_path / f"{saved.name}.html").read_text("utf-8").startswith("<!DOCTYPE html>")

    (tmp_path / "there").mkdir()
    assert main(["report", "constant", "--format", "md", "--out", "there"]) == 0
    assert (tmp_path / "there" / f"{saved.name}.md").is_file()

    assert main(["report", "constant", str(saved), "--out", "there"]) == 0
    assert (tmp_path / "there" / f"{saved.name}-against-{saved.name}.html").is_file()

    assert main(["report", "constant", str(saved), "constant"]) == 2
    assert main(["report", "constant", "--out", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["kind"] == "run"


@pytest.mark.slow
def test_a_year_of_hours_is_small_and_keeps_its_extremes():
    long = live(Constant(leverage=3.0), days=365)
    page = build_page(long)
    assert len(write_html(page).encode()) < MOST_BYTES

    # The first chart comes last: its lines win over others of the same name.
    story = {line["name"]: line for chart in page.charts[4::-1] for line in chart.figure["data"]}
    for name, values in (("account", long.bars["equity"]), ("mark price", long.mark)):
        drawn = story[name]["y"]
        assert len(drawn) < 5_000
        assert np.nanmin(drawn) == np.min(values)
        assert np.nanmax(drawn) == np.max(values)


def test_each_pixel_keeps_its_first_last_lowest_and_highest():
    rng = np.random.default_rng(3)
    n = 50_000
    buckets = 100
    time = np.cumsum(rng.integers(1, 9, n)).astype(np.int64)
    values = rng.standard_normal(n)
    values[1000:1500] = np.nan

    rows = thin_rows(time, values, buckets=buckets)
    assert len(rows) <= 4 * buckets + 2 * 2
    assert {0, n - 1, 999, 1000, 1499, 1500} <= set(rows.tolist())

    edges = np.linspace(time[0], time[-1], buckets + 1)
    bucket = np.clip(np.searchsorted(edges[1:-1], time, side="right"), 0, buckets - 1)
    whole = pd.Series(values).groupby(bucket).agg(["min", "max"])
    kept = pd.Series(values[rows]).groupby(bucket[rows]).agg(["min", "max"])
    pd.testing.assert_frame_equal(kept, whole.loc[kept.index])

    assert whole.drop(kept.index).isna().all(axis=None)


def test_a_ledger_keeps_rare_events_and_says_how_many_it_leaves_out(result):
    events = pd.concat([result.events] * 4, ignore_index=True)
    rows = run_charts.choose_rows(events, most=300)

    kinds = events["kind"].astype(str)
    assert len(rows) == 300

    rare = np.flatnonzero(kinds.isin(["liquidation", "margin_call", "top_up", "flow"]))
    assert set(rare) <= set(rows.tolist())

    several = pd.concat([result.events] * 40, ignore_index=True)
    long = dataclasses.replace(result)
    vars(long)["events"] = several
    total = 10 * int((~kinds.isin(["fee", "slippage", "impact", "liquidation_loss"])).sum())
    assert f"2,000 of {total:,} events" in run_parts.tabulate_ledger(long).note


def test_dust_is_dropped_at_the_end_only():
    assert drop_dust(np.array([1.0, 1e-7, 0.5, 1e-8, 0.0])).tolist() == [1.0, 1e-7, 0.5, 0.0, 0.0]


@pytest.fixture(scope="module")
def pulled():
    """A: 4x long, up 4 %; B: 6x short, up 25 %: the pool fails because of B."""
    tapes = {
        "A": tape([flat(100), flat(100), (100, 104, 100, 104)], (4.0, math.nan)),
        "B": tape([flat(1), flat(1), (1, 1.25, 1, 1.25)], (6.0, math.nan)),
    }
    return run_engine(scene(tapes, {"A": 1.0, "B": -1.0}))


def test_the_page_says_who_pulled_whom_down(pulled):
    """B is the only cause; A closed with a profit of 160 x 500/1423 = 56.22."""
    (row,) = run_parts.list_liquidations(pulled)[1].table.values()
    assert [*row.values()] == ["B 100.00 %", "A 56.22"]
    assert "1 position in profit closed too" in build_page(pulled).summary


def test_exposure_stacks_longs_above_and_shorts_below(pulled):
    """4 turns of A above 0, 6 turns of B below."""
    traces = draw_declared(next(run_charts.list_exposure(pulled))).figure["data"]

    highest = {(each["name"], each["stackgroup"]): np.abs(each["y"]).max() for each in traces}
    wanted = {("A", "long"): 4.0, ("A", "short"): 0.0, ("B", "long"): 0.0, ("B", "short"): 6.0}
    assert highest == pytest.approx(wanted)


def test_collateral_is_part_of_what_the_account_began_with():
    """100 of collateral at 10 rises to 12 in the first bar: 1,000 + 1,000 became 2,200."""

    still = {name: make_market([flat(100)] * 3) for name in ("A", "B")}
    coins = make_market([(10, 12, 10, 12), flat(12), flat(12)])
    held = [bt.Collateral("C", 100.0, coins, rate=0.9)]
    account = bt.Account(capital=1_000.0, negative_limit=0.0, collateral=held)
    terms = {"venue": make_venue(), "account": account}

    result = bt.run(bt.Markets(still), Hold(0.0), **terms)
    assert build_page(result).summary.startswith("2,000.00 became 2,200.00 in 0 days: a return of ")
    table = run_parts.tabulate_instruments(result).table
    assert table.iloc[-1].to_dict() == {"collateral_pnl": 200.0, "net": 200.0}

    lines = {name: amount for name, amount, _ in run_parts.list_statement(result)}
    assert lines["profit of collateral"] == 200.0

    said = " ".join(result.summary().split())
    assert "capital 1,000, margin cross, collateral (name C, amount 100" in said


def test_columns_with_what_can_ruin_are_never_hidden():
    """The labels and the last column take 6 and 9 of 83; four of 17 fit into the other 68."""
    names = [f"column {k}" for k in range(7)]
    frame = pd.DataFrame({**dict.fromkeys(names, 1.0), "ruined": True}, ["row"])
    table = write_table(ShownTable(frame))
    widths = [3 + GAP, *[14 + GAP] * 7, 6 + GAP]
    assert choose_columns(table.columns, widths) == [0, 1, 2, 3, 4, 8]
    assert choose_columns(table.columns, [40, *[80] * 7, 60]) == [0, 8]


def test_a_verdict_is_never_hidden():
    frame = pd.DataFrame({"low": 0.0, "high": 1.0, "verdict": "too early"}, ["row"])
    table = write_table(ShownTable(frame))
    assert choose_columns(table.columns, [20, 40, 40, 30]) == [0, 3]


def test_what_speaks_against_a_set_is_never_hidden():
    """A notice above the table of a sweep says: see their notes."""
    frame = pd.DataFrame({"sharpe": 0.5, "turnover": 2.0, "note": "ruined, day 12"}, ["1"])
    table = write_table(ShownTable(frame))
    assert choose_columns(table.columns, [20, 40, 40, 30]) == [0, 3]


def test_a_number_stays_with_its_unit_where_the_words_of_a_table_are_broken(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    frame = pd.DataFrame({"came": "43.65 % (39.58 % to 47.71 %) of 12.25 %"}, ["volatility"])
    section = Section("x", "", "", [write_table(ShownTable(frame, "Table"))])
    shown = write_terminal(build_page(live(Constant(0.5), days=2)), [section])
    lines = [line.strip() for line in shown[shown.index("Table") :].splitlines()]
    assert lines[-2:] == ["volatility   43.65 % (39.58 % to", "47.71 %) of 12.25 %"]


@pytest.mark.parametrize(
    ("columns", "width"), [("60", 60), ("110", 110), ("300", 120), (None, 100)]
)
def test_a_table_takes_the_width_of_the_terminal_up_to_120(monkeypatch, columns, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert find_width() == width

    names = [f"column {k}" for k in range(12)]
    frame = pd.DataFrame({**dict.fromkeys(names, 1.0), "liquidations": 2.0}, ["row"])
    section = Section("x", "", "", [write_table(ShownTable(frame, "Table"))])
    lines = write_terminal(build_page(live(Constant(0.5), days=2)), [section]).splitlines()

    table = lines[lines.index("Table") :]
    assert max(map(len, table)) <= width
    assert any("liquidations" in line for line in table)


def test_ruin_is_bold_red_and_notes_are_dim_where_there_are_colors(result):
    page = build_page(result)
    head = write_terminal(page, [], is_colored=True)
    assert "\x1b[" not in write_terminal(page, [])
    count = f"{result.metrics['liquidations']:.0f}"
    (line,) = (each for each in head.splitlines() if "Liquidations" in each)
    assert re.search(rf"\x1b\[1;31m *{count}\x1b", line)
    assert "\x1b[2m" in head

    calm = write_terminal(build_page(live(Constant(0.5), days=2)), [], is_colored=True)
    assert "\x1b[1;31m" not in calm


def test_the_expense_of_a_fund_has_its_own_line_on_the_page_and_in_the_terminal():
    """2,000 at 1x of a price that stands: 3.65 % a year for 24 of 25 hours, .20 a day."""
    fund = make_venue(taker=0.0).override({"contract": {"expense": 0.0365}})
    market = market_of(np.full(26, 100.0))
    account = bt.Account(capital=2_000, band=0.1)
    result = bt.run(market, Constant(1.0), venue=fund, account=account, compile=False)

    rows = run_parts.list_statement(result)
    assert [words for words, _, _ in rows] == ["price profit and loss", "expenses of funds"]
    assert rows[1][1] == pytest.approx(-0.2)

    assert result.metrics["interest"] == 0.0
    assert result.attribution().amounts["expense"] == pytest.approx(-0.2 / 2_000, rel=1e-3)

    trade = result.trades.iloc[0]
    assert trade["expense"] == pytest.approx(0.2)
    assert trade["funding"] == 0.0

    for text in (result.summary(), write_html(build_page(result))):
        assert "expenses of funds" in text


def test_the_sentence_of_costs_names_each_cost_that_was_paid(monkeypatch):
    costs = [term.words for term in MONEY_TERMS if term.is_cost]
    paid = {term.name: 1.0 for term in MONEY_TERMS}
    assert run_sentences.name_costs(paid) == f"{', '.join(costs[:-1])} and {costs[-1]}"

    tax = MONEY_TERMS[0]._replace(name="tax", words="taxes", is_cost=True)
    price = MONEY_TERMS[0]._replace(words="price", is_cost=False)
    monkeypatch.setattr(run_sentences, "MONEY_TERMS", (*MONEY_TERMS, tax, price))
    assert run_sentences.name_costs({**paid, "tax": -1.0}) == f"{', '.join(costs)} and taxes"

    none = {**dict.fromkeys(paid, 0.0), "tax": 0.0}
    assert run_sentences.name_costs({**none, "fees": 2.0, "funding": -1.0}) == "fees and funding"
    assert run_sentences.name_costs({**none, "expense": 2.0}) == "expenses of funds"
    assert run_sentences.name_costs(none) == "costs"


def test_a_heading_says_the_phrase_of_a_policy_in_its_middle():
    heading = phrase_heading("Constant(leverage=5.0) judged on BTC")
    assert heading == "Constant leverage 5x judged on BTC"


def test_a_stress_test_names_the_currency_and_its_ladder_shares():
    """A fall of 30 % at 0.5x takes 15 % of the account, and a rise gives it."""
    calm = live(Constant(leverage=0.5), days=8)
    ladder = {"price": (-0.3, 0.3, 3), "margin": (1.0, 2.0)}
    page = build_page(bt.stress(calm, [bt.Scenario("fall", price=-0.1, over="2h")], ladder=ladder))

    blocks = [block for section in page.sections for block in section.blocks]
    units = {
        column.unit for block in blocks if isinstance(block, Table) for column in block.columns
    }
    texts = " ".join(block.text for block in blocks if isinstance(block, Paragraph))
    assert "USDT" in units
    assert "money" not in units
    assert "Money is in USDT." in texts

    (drawn,) = [chart for chart in page.charts if chart.key == "ladder"]
    heat = drawn.figure["data"][0]
    assert heat["z"][0] == pytest.approx([15.0, 0.0, -15.0], abs=0.2)
    assert heat["zmin"] == -heat["zmax"]


def test_the_target_of_a_short_signal_is_short():
    short = bt.run(bt.Market.sample(bars=96), Constant(1.0), signal=-1.0, **AT_BINANCE)
    (story,) = [chart for chart in build_page(short).charts if chart.key == "story"]
    lines = {trace["name"]: trace["y"] for trace in story.figure["data"]}
    assert np.nanmin(lines["target"]) == np.nanmax(lines["target"]) == -1.0
    assert np.nanmin(lines["held"]) == pytest.approx(-1.0, abs=0.05)


def test_lines_that_share_a_color_have_no_name_in_the_legend():
    """Of eight gray lines with gray names, nobody can say which is which."""
    units = pd.DataFrame({name: [1.0, k] for k, name in enumerate("abcd", start=1)})
    units.index = pd.date_range("2023-01-01", periods=2, tz="UTC")
    colors = {"a": "loss", "b": "neutral", "c": "neutral", "d": "accent"}
    shown = ShownChart("fan", "", "", units, kind="accounts", colors=colors, has_legend=True)
    traces = draw_declared(shown).figure["data"]
    named = {trace["name"] for trace in traces if trace["showlegend"]}
    assert named == {"a", "d"}


@pytest.mark.parametrize(
    ("mark", "place"), [(0.02, "top right"), (0.5, "top center"), (0.97, "top left")]
)
def test_the_name_of_a_mark_at_the_edge_stays_inside_the_chart(mark, place):
    """A name of seven letters takes 42 pixels, 7 % of a narrow chart on each side."""
    counts = pd.DataFrame({"returns": [1.0, 2.0, 1.0]}, index=[0.0, 0.5, 1.0])
    shown = ShownChart("x", "", "", counts, kind="bars", marks=(mark,), mark_names=("ES 99 %",))
    *_, line = draw_declared(shown).figure["data"]
    assert line["textposition"] == place


def test_accounts_that_are_equal_are_one_line():
    """Two of three columns are the same: the later one is named with the first."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 3.0], "c": [1.0, 2.0]})
    joined = join_equal(frame)
    assert [name for name, _ in joined] == ["a = c", "b"]
    assert joined[0][1] == pytest.approx([1.0, 2.0])


def test_a_page_written_with_its_result_names_the_command_that_runs():
    """Before: `backtest stress --report` said that the result was made in Python."""
    result = live(Constant(1.0), days=2)
    with core.recording_command(["backtest", "stress", "own.toml"]):
        text = write_text(build_page(bt.stress(result, bt.crashes()[:1])), "md")
    assert "backtest stress own.toml" in text
    assert "made in Python" not in text


def test_sentences_of_markdown_keep_code_and_nothing_else_of_its_marks():
    """A line that ends inside of code would end its paragraph, and what follows would be HTML."""
    text = "see *this*\n`a_b(<c>)\n\n<i>`, one ` alone"
    assert write_sentences(text) == r"see \*this\* `a_b(<c>) <i>`, one \` alone"
    assert "\u202e" not in write_sentences("a \u202e `b \u202e`")


def test_a_page_names_what_gives_all_columns_of_phases_and_the_round_trips():
    """An account that rebalances all the time shows lots; both names are of the result."""
    result = live(Constant(2.0), days=120)
    text = write_text(build_page(result), "md")
    assert "`result.measures_by()` has all columns." in text
    assert "`result.trades` has the round trips." in text
    assert len(result.trades) == 1
    assert not result.measures_by("volatility").empty


def test_the_source_of_several_markets_is_that_of_each():
    rows = {name: {"source": f"Market.load({name!r})"} for name in "ABCDE"}
    data = {"source": "<Markets: A, B; 1h, 48 bars from 2023-01-01>"}
    assert phrase_source(data) == "A, B; 1h, 48 bars from 2023-01-01"
    some = {**data, "instruments": {name: rows[name] for name in "AB"}}
    assert phrase_source(some) == "Market.load('A'), Market.load('B')"
    many = {**data, "instruments": rows}
    assert phrase_source(many).endswith("Market.load('C'), and 2 more")
    assert phrase_source({"source": "Market.sample()"}) == "Market.sample()"


def test_a_spot_leg_without_a_currency_settles_as_the_other_leg():
    venues = {"spot": {"contract": {}}, "perpetual": {"contract": {"settles": "USDT"}}}
    assert find_currency({"settings": {}, "venue": venues}) == "USDT"
    venues["coin"] = {"contract": {"settles": "BTC"}}
    assert find_currency({"settings": {}, "venue": venues}) == ""


@pytest.mark.parametrize("height", [340, 760])
def test_the_title_of_a_lower_panel_has_room_above_it(height):
    """Four panels in 340 pixels: before, 11 pixels lay between two of them."""
    times = pd.date_range("2023-01-01", periods=48, freq="h", tz="UTC")
    frame = pd.DataFrame({name: np.arange(48.0) for name in "abcd"}, times)
    panels = tuple(Panel(name, (name,)) for name in "abcd")
    shown = ShownChart("x", "Title", "", frame, panels=panels, height=height)
    layout = draw_declared(shown).figure["layout"]

    domains = [layout[name]["domain"] for name in ("yaxis", "yaxis2", "yaxis3", "yaxis4")]
    for upper, lower in itertools.pairwise(domains):
        assert (upper[0] - lower[1]) * (height - 64) >= 19.9


def test_covariances_of_a_few_returns_are_not_drawn():
    """Of three coins the first hours had shares from -100 to 250 %, and stretched the axis."""
    sides = {}
    for seed, name in enumerate(("A", "B")):
        sample = bt.Market.sample(bars=96, seed=seed)
        sides[name] = dataclasses.replace(sample, instrument=name)
    account = bt.Account(capital=10_000)
    result = bt.run(bt.Markets(sides), Constant(0.5), venue="binance-usdm:BTCUSDT", account=account)

    drawn = run_charts.draw_risk_shares(result).table
    first = run_charts.FEW_RETURNS
    assert drawn.iloc[:first].isna().all(axis=None)
    shares = result.risk()[["A", "B"]].to_numpy()
    assert drawn[["A", "B"]].to_numpy()[first:] == pytest.approx(shares[first:])


@pytest.mark.parametrize(("cells", "expected"), [
    (["-3.68 %", "5.08", "-"], True),
    (["1,234.50", "2.00x", "n/a", Cell("3 bp", 1)], True),
    (["-", ""], False),
    (["2021-05-19", "4.00"], False),
    (["4.00", "never"], False),
])  # fmt: skip
def test_numbers_that_were_written_before_are_aligned_as_numbers(cells, expected):
    """The bands of paths have returns and days in one column, which stood on the left as words."""
    assert has_numerals(cells) is expected


def test_numbers_without_notes_are_printed():
    """A column of notes that has no head and no text is as wide as nothing, not an error."""
    table = Table("", (Column(""), Column("")), (("Equity", ""),))
    assert lay_out_column(table, 1).width >= 0
