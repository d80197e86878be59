"""Reports: what they say, that they are safe to open, small enough to send, and always the same."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import backtest as bt
from backtest.base.errors import DataError, ParameterError
from backtest.base.number_text import format_percent
from backtest.base.result_folders import write_json_file
from backtest.base.units import DAY, MINUTE
from backtest.cli import main
from backtest.measures.history import monthly_returns, rolling_measures, worst_drawdowns
from backtest.measures.run_measures import METRICS
from backtest.measures.run_span import RunSpan
from backtest.report.page import picture
from backtest.report.page.figures import LIGHT, encode_figure, write_script_data
from backtest.report.page.formats import write_page, write_text
from backtest.report.page.html import read_plotly, write_html
from backtest.report.page.page import Chart, Paragraph, Table
from backtest.report.page.thinning import thin_rows
from backtest.report.run.costs_section import draw_waterfall
from backtest.report.run.ledger_table import add_costs, build_ledger, choose_rows
from backtest.report.run.run_page import build_run
from backtest.report.run.story_section import MARKS
from backtest.report.sets.explored import exclude_idle, explore_sweep, find_idle, find_neighbors
from backtest.report.sets.importance import measure_importance
from backtest.report.sets.set_charts import draw_profile
from backtest.report.write import build_page
from backtest.store.find import find_folder, load_saved
from backtest.strategies import Constant, VolTarget
from backtest.sweep.sweep_table import Sweep
from tests.fast_cases import first_only
from tests.markets import market_of
from tests.tuning import seek, stand_in

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
SECTIONS = ["story", "costs", "risk", "time", "leverage", "states", "realization", "events",
            "measures", "quality", "assumptions"]  # fmt: skip
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../x",
    "{{ 7 * 7 }}{% raw %}",
    "a\u202eb\u2066",
    "x" * 10_000,
)
YEAR_OF_MINUTES = 525_600
MOST_BYTES = 5_000_000


def live(policy, days=80, **settings):
    market = bt.Market.sample(bars=24 * days)
    account = bt.Account(**{"capital": 10_000.0, **settings})
    return bt.run(market, policy, venue=VENUE, account=account, compile=False)


@pytest.fixture(scope="module")
def result():
    """Return a run with flows, margin calls, top-ups and liquidations."""
    days = pd.to_datetime(["2023-01-20", "2023-02-10"], utc=True)
    return live(
        Constant(leverage=8.0),
        margin="isolated",
        venue_leverage=20,
        margin_call=0.6,
        reserve=3000.0,
        top_up_to=0.3,
        flows=pd.Series([2000.0, -500.0], index=days),
    )


@pytest.fixture(scope="module")
def page(result):
    return build_page(result)


@pytest.fixture(scope="module")
def html(page):
    return write_html(page)


@pytest.fixture(scope="module")
def sweep():
    market = bt.Market.sample(bars=24 * 8)
    values = {"target": np.linspace(0.1, 1.5, 8), "half_life": [12.0, 24.0, 72.0, 168.0]}
    values["account.band"] = [0.0, 0.1]
    return bt.sweep(market, VolTarget, values, venue=VENUE, account=bt.Account(), compile=False)


def tables_of(page):
    return {
        block.caption: block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Table)
    }


# ---------------------------------------------------------------------------------- what it says


@pytest.mark.slow
def test_a_run_is_told_in_the_order_of_reading(page, html):
    assert [section.key for section in page.sections] == SECTIONS
    places = [html.index(f'<section id="{key}"') for key in SECTIONS]
    assert places == sorted(places)
    for chart in page.charts:
        assert f'data-chart="{chart.key}"' in html


def test_every_measure_stands_in_the_report_as_it_is_in_the_result(page, result):
    table = tables_of(page)["All measures"]
    assert len(table.rows) == len(METRICS)
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["total return"] == format_percent(result.metrics["total_return"])
    assert rows["liquidations"] == f"{result.metrics['liquidations']:.0f}"
    assert result.metrics["liquidations"] > 0


def test_all_measures_stand_by_market_state(page, result):
    tables = tables_of(page)
    for title, by in (("By market phase", "phase"), ("By market volatility", "volatility")):
        expected = result.measures_by(by)
        assert [each.title for each in tables[title].columns] == [
            "measure",
            *expected.index,
            "unit",
        ]
        rows = {row[0]: row[1:-1] for row in tables[title].rows}
        assert len(rows) == len(expected.columns)
        assert rows["days"] == tuple(f"{each:,.0f}" for each in expected["days"])
        assert rows["CAGR"] == tuple(format_percent(each) for each in expected["cagr"])


def test_marks_of_events_lie_on_the_equity_and_lead_to_their_rows(page, result):
    story = page.charts[0].figure["data"]
    ledger = next(section for section in page.sections if section.key == "events").blocks[0]
    marked = [trace for trace in story if trace.get("customdata") is not None]
    assert {trace["name"].partition(" (")[0] for trace in marked} >= {"liquidation", "margin call"}
    for trace in marked:
        for time, value, row in zip(trace["x"], trace["y"], trace["customdata"], strict=True):
            stamp, kind = ledger.table.rows[row][:2]
            assert trace["name"].startswith(MARKS[kind.replace(" ", "_")].words)
            opened = pd.Timestamp(stamp, tz="UTC")
            assert pd.Timestamp(time, tz="UTC") == opened + pd.Timedelta("1h")
            assert result.bars["equity"].loc[opened] == value


def test_the_report_names_the_rules_the_data_and_the_command(html, result):
    for words in (
        "Synthetic data",
        result.manifest["data"]["content_hash"],
        "taker 5 bp",
        "not modeled",
        f"backtest report constant-{result.manifest['id']}",
        "nothing: the data had no gaps",
    ):
        assert words in html


def blocks_of(page, key):
    return next(section for section in page.sections if section.key == key).blocks


@pytest.mark.slow
def test_the_quality_of_the_data_stands_in_the_report_while_they_are_there(result, sweep, tmp_path):
    """The same sample is found again; bars of a frame are not; a changed file is not used."""
    fit = tables_of(build_page(result))["What the data are fit for"]
    assert [row[:2] for row in fit.rows[1:3]] == [
        ("liquidations inside the bar", "yes"),
        ("funding", "yes"),
    ]
    assert tables_of(build_page(sweep))["Quality of the data"].rows[0] == ("rows", "192", "192")
    found = json.loads(write_text(build_page(result), "json"))
    assert found["quality"]["bars"]["rows"] == 1920
    frame = bt.Market.from_frames(bt.Market.sample(bars=48).bars())
    made = bt.run(frame, Constant(), venue=VENUE, account=bt.Account(), compile=False)
    folder = bt.Market.sample(bars=48).save(tmp_path / "btc")
    loaded = bt.run(
        bt.Market.load(folder), Constant(), venue=VENUE, account=bt.Account(), compile=False
    )
    assert "Quality of the data" in tables_of(build_page(loaded))
    (folder / "bars.parquet").unlink()
    for run, words in ((made, "were made in Python"), (loaded, "a folder must hold bars")):
        (said,) = (
            block for block in blocks_of(build_page(run), "quality") if type(block) is Paragraph
        )
        assert said.text.startswith("The quality of the data is not in this report")
        assert words in said.text


@pytest.mark.slow
def test_the_rules_come_with_their_days_and_sources(result):
    rows = tables_of(build_page(result))["Sources of the rules"].rows
    days = {words: (day, source) for words, day, source in rows}
    assert set(days) == {
        "contract", "margin table", "fees", "slippage", "liquidation", "other rules",
    }  # fmt: skip
    assert days["slippage"][1].startswith("assumption, not a published figure")
    assert days["margin table"][0] == "2021-03-18", "the table of 2023, not the newest"
    cheap = VENUE.override({"fees.taker": 1e-4, "day_count": 360.0})
    market = bt.Market.sample(bars=48)
    other = bt.run(market, Constant(), venue=cheap, account=bt.Account(), compile=False)
    rows = tables_of(build_page(other))["Sources of the rules"].rows
    assert ("fees", "this run", "taker 0.0001 instead of 0.0005") in rows
    assert ("other rules", "this run", "day count 360 instead of 365") in rows
    rates = {"taker": 5e-4, "slippage": 0.0, "liquidation_fee": 0.0}
    own = bt.Venue.simple(**rates, maintenance_rate=0.01, max_leverage=20)
    bare = bt.run(market, Constant(), venue=own, account=bt.Account(), compile=False)
    texts = [
        each.text for each in blocks_of(build_page(bare), "assumptions") if type(each) is Paragraph
    ]
    assert any(text.startswith("The rules are not from a preset") for text in texts)


@pytest.mark.slow
def test_the_command_of_the_report_makes_the_same_result_again(result, tmp_path):
    """Of a run that was made in Python, it says so."""
    words = ["run", "--set", "target=0.3", "--no-compile", "--results"]
    assert main([*words, str(tmp_path / "a b")]) == 0
    (folder,) = (tmp_path / "a b").iterdir()
    page = build_page(load_saved(folder))
    command, again = (block.text for block in blocks_of(page, "assumptions")[-3:-1])
    assert again == f"backtest report {folder.name}"
    assert shlex.split(command) == ["backtest", *words, str(tmp_path / "a b")]
    shutil.rmtree(folder)
    assert main(shlex.split(command)[1:]) == 0
    assert folder.is_dir()
    texts = [block.text for block in blocks_of(build_page(result), "assumptions")[:-1]
             if type(block) is Paragraph]  # fmt: skip
    assert any("made in Python, or by an earlier version: bt.run, " in text for text in texts)


def test_what_was_modelled_is_said_with_its_numbers(result):
    rows = dict(tables_of(build_page(result))["What was modeled"].rows)
    assert rows["fills"] == "at the open of the next bar, 1 bp worse, whole"
    assert rows["margin calls"].startswith(
        "from a margin ratio of 60.00 %, met from a reserve of 3"
    )
    assert rows["funding"].startswith("at each of the 240 settlements")
    assert rows["interest"] == "none: all rates are 0"


def test_the_waterfall_adds_up_to_the_growth(result):
    trace = draw_waterfall(result.attribution()).figure["data"][0]
    *steps, total = trace["x"]
    assert np.isclose(sum(steps), result.attribution().growth, rtol=0, atol=1e-9)
    assert total == pytest.approx(sum(steps), abs=1e-12)


def test_a_ruined_account_is_said_to_be_ruined_before_anything_else():
    page = build_run(live(Constant(leverage=60.0), days=20))
    assert any(notice.startswith("Ruined at") for notice in page.notices)
    assert "before ruin" in write_html(page)


FREQUENCIES = {"weekly": "7D", "seven hours": "7h"}


@pytest.mark.parametrize("kind", ["flat", "weekly", "seven hours", "few bars", "no funding"])
def test_odd_runs_have_a_report_too(kind):
    steps = 0.01 * np.random.default_rng(1).standard_normal(90)
    market = market_of(100.0 * np.exp(np.cumsum(steps)), FREQUENCIES.get(kind, "1h"))
    if kind == "few bars":
        market = market_of(np.array([100.0, 101.0, 100.5]))
    policy = Constant(leverage=0.0 if kind == "flat" else 2.0)
    result = bt.run(market, policy, venue=VENUE, account=bt.Account(), compile=False)
    text = write_html(build_run(result))
    assert not re.search(r"(?i)\bnan\b", re.sub(r"<script.*?</script>", "", text, flags=re.S))
    assert write_text(build_run(result), "json")


# ---------------------------------------------------------------------------------- always the same


@pytest.mark.slow
def test_the_same_result_makes_the_same_bytes(result, html, tmp_path):
    assert write_html(build_page(result)) == html
    again = bt.Result.load(result.save(tmp_path))
    assert write_html(build_page(again)) == html
    assert again.report(tmp_path / "deep" / "report.html").read_text("utf-8") == html


# ------------------------------------------------------------------------------------ safe to open


def scripts_of(html):
    return re.findall(r"<script([^>]*)>(.*?)</script>", html, flags=re.S)


def test_nothing_in_the_page_leads_outside(html):
    rest = re.sub(r'<script type="application/octet-stream".*?</script>', "", html, flags=re.S)
    assert not re.search(r"(?i)\b(https?|wss?|ftp|file):", rest)
    assert not re.search(r"(?i)\bsrc=|@import|url\(", rest)
    assert re.findall(r"<link[^>]*>", rest) == ['<link rel="icon" href="data:,">']
    assert all(link.startswith("#") for link in re.findall(r'<a [^>]*href="([^"]*)"', rest))


def test_the_security_policy_lets_run_our_two_scripts_only(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    hashes = re.findall(r"'sha256-([^']*)'", policy)
    (_, own), (_, packed) = (
        next(each for each in scripts_of(html) if each[0] == ""),
        next(each for each in scripts_of(html) if 'id="plotly"' in each[0]),
    )
    library = zlib.decompress(base64.b64decode(packed)).decode()
    assert library == read_plotly()
    expected = [hashlib.sha256(text.encode()).digest() for text in (own, library)]
    assert hashes == [base64.b64encode(each).decode() for each in expected]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe-eval" not in policy


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE, ids=["script", "image", "path", "jinja", "bidi", "long"])
def test_hostile_names_of_a_run_are_text(result, name):
    manifest = json.loads(json.dumps(result.manifest))
    manifest["policy"] |= {"text": name, "name": name}
    manifest["data"] |= {"instrument": name, "source": name, "filled": {name: name}}
    manifest["causality"] = name
    page = build_page(dataclasses.replace(result, manifest=manifest))
    html = write_html(page)
    assert len(re.findall(r"<script", html)) == len(scripts_of(html)) == 3
    assert len(re.findall(r"<img", html)) == 0
    assert not {"\u202e", "\u2066"} & set(html)
    assert "{{ 7 * 7 }}" in html or "7 * 7" not in name
    prose = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", write_text(page, "md"))
    assert "backtest run" not in prose, "commands stand in blocks of code, as they are"
    assert "<script" not in prose
    assert json.loads(write_text(page, "json"))["title"]


@pytest.mark.parametrize(
    "name", first_only(HOSTILE[:2] + HOSTILE[5:]), ids=["script", "image", "long"]
)
def test_hostile_names_of_parameters_are_text(sweep, name):
    facts = {name if key == "target" else key: v for key, v in sweep.manifest["parameters"].items()}
    hostile = Sweep(
        sweep.table.rename(columns={"target": name}), {**sweep.manifest, "parameters": facts}
    )
    page = build_page(hostile)
    html = write_html(page)
    assert len(scripts_of(html)) == html.count("<script") == 3
    figures = json.dumps([encode_figure(chart.figure) for chart in page.charts])
    assert "<img" not in figures
    assert "<script" not in figures
    data = next(text for head, text in scripts_of(html) if 'id="data"' in head)
    assert "<" not in data


def test_data_in_a_script_element_cannot_end_it():
    text = write_script_data({"</script>": "<!--", "&": "\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script>": "<!--", "&": "\u2028"}


@pytest.mark.parametrize("kind", [bt.Result, bt.Sweep, bt.Study, bt.Comparison])
def test_every_kind_of_result_offers_its_report_with_help(kind):
    assert "html" in kind.report.__doc__
    assert list(inspect.signature(kind.report).parameters) == ["self", "path", "format"]


def test_a_notebook_shows_names_as_text(result):
    manifest = json.loads(json.dumps(result.manifest))
    manifest["policy"]["text"] = HOSTILE[0]
    manifest["data"]["instrument"] = HOSTILE[1]
    cell = dataclasses.replace(result, manifest=manifest)._repr_html_()
    assert "<script" not in cell
    assert "<img" not in cell
    assert "<svg" in cell
    for name in HOSTILE[4:]:
        manifest["policy"]["text"] = manifest["data"]["instrument"] = name
        cell = dataclasses.replace(result, manifest=manifest)._repr_html_()
        assert not {"\u202e", "\u2066"} & set(cell)
    assert "…</b>" in cell


# --------------------------------------------------------------------------------- small to send


def stretch(result, n):
    """Return a run of n one-minute bars that repeats what a short one recorded."""
    rows = np.arange(n) % len(result.close)
    closes = result.span.start + MINUTE * np.arange(1, n + 1)
    noise = 1.0 + 0.01 * np.random.default_rng(0).standard_normal(n)
    columns = ("close", "mark", "mark_low", "mark_high", "signal")
    events = pd.concat([result.events] * 20, ignore_index=True)
    stamps = closes[np.linspace(0, n - 1, len(events)).astype(np.int64)] - MINUTE
    events["time"] = pd.DatetimeIndex(stamps.view("datetime64[ns]"), tz="UTC")
    record = result.record[:, rows]
    record[0] *= noise
    record[6] *= noise
    return dataclasses.replace(
        result,
        **{name: np.broadcast_to(getattr(result, name), result.close.shape)[rows] * noise
           for name in columns},
        span=RunSpan(result.span.start, closes, result.span.first, 365.0),
        interval=MINUTE,
        record=record,
        ends_sample=(closes % DAY == 0).astype(np.float64),
        entries=events,
    )  # fmt: skip


@pytest.mark.slow
def test_a_year_of_minutes_is_under_five_megabytes_and_keeps_its_extremes(result):
    long = stretch(result, YEAR_OF_MINUTES)
    assert len(long.events) > 20_000
    page = build_run(long)
    size = len(write_html(page).encode())
    assert size < MOST_BYTES
    story = {trace["name"]: trace for trace in page.charts[0].figure["data"]}
    for name, values in (("equity", long.bars["equity"]), ("mark price", long.mark)):
        drawn = story[name]["y"]
        assert len(drawn) < 20_000
        assert (np.nanmin(drawn), np.nanmax(drawn)) == (np.min(values), np.max(values))


def test_each_pixel_keeps_its_first_last_lowest_and_highest():
    rng = np.random.default_rng(3)
    n, buckets = 50_000, 100
    time = np.cumsum(rng.integers(1, 9, n)).astype(np.int64)
    values = rng.standard_normal(n)
    values[1000:1500] = np.nan
    rows = thin_rows(time, values, keep=np.array([1234, 777]), buckets=buckets)
    assert len(rows) <= 4 * buckets + 2 * 2 + 2
    assert {0, n - 1, 777, 1234, 999, 1000, 1499, 1500} <= set(rows.tolist())
    edges = np.linspace(time[0], time[-1], buckets + 1)
    bucket = np.clip(np.searchsorted(edges[1:-1], time, side="right"), 0, buckets - 1)
    for k in range(buckets):
        mine = np.flatnonzero(bucket == k)
        kept = np.intersect1d(mine, rows)
        if np.isnan(values[mine]).all():
            continue
        assert np.nanmin(values[kept]) == np.nanmin(values[mine])
        assert np.nanmax(values[kept]) == np.nanmax(values[mine])


def test_short_series_are_not_thinned():
    time = np.arange(4000, dtype=np.int64)
    assert np.array_equal(thin_rows(time, np.zeros(4000)), time)


def test_a_ledger_keeps_rare_events_and_says_how_many_it_leaves_out(result):
    events = pd.concat([result.events] * 4, ignore_index=True)
    rows = choose_rows(events, most=300)
    kinds = events["kind"].astype(str)
    assert len(rows) == 300
    rare = np.flatnonzero(kinds.isin(["liquidation", "margin_call", "top_up", "flow"]))
    assert set(rare) <= set(rows.tolist())
    long = dataclasses.replace(result, entries=events)
    total = int((~kinds.isin(["fee", "slippage", "impact", "liquidation_loss"])).sum())
    assert f"300 of {total:,} events" in build_ledger(long, rows).table.note


def test_the_costs_of_the_ledger_add_up_to_those_of_the_run(result):
    metrics = result.metrics
    paid = sum(metrics[name] for name in ("fees", "slippage", "impact", "liquidation_loss"))
    assert np.isclose(np.nansum(add_costs(result.events)), paid, rtol=1e-12)


# ----------------------------------------------------------------------------------- the formats


def test_json_holds_the_numbers_and_null_for_those_that_are_none(page, result):
    found = json.loads(write_text(page, "json"))
    assert found["metrics"]["sharpe"] == result.metrics["sharpe"]
    assert found["metrics"]["ruin_time"] is None
    assert found["drawdowns"][0]["depth"] == result.metrics["max_drawdown"]
    assert len(found["curves"]["equity"]) == len(found["curves"]["close"])


def test_markdown_holds_the_tables_and_names_the_charts(page):
    text = write_text(page, "md")
    assert text.startswith("# Constant(leverage=8.0)")
    assert "| liquidations | 0 |" not in text
    assert "*Chart in the HTML report: The account over time.*" in text
    tables = re.findall(r"(?m)^\|(?:---:?\|)+$", text)
    assert len(tables) >= 10


def test_the_format_is_that_of_the_name_unless_it_is_said(page, tmp_path):
    assert write_page(page, tmp_path / "a.json").read_text().startswith("{")
    assert write_page(page, tmp_path / "a.txt", "md").read_text().startswith("# ")
    with pytest.raises(ParameterError, match="format"):
        write_page(page, tmp_path / "a.txt", "pdf")
    with pytest.raises(DataError, match="cannot write"):
        write_page(page, tmp_path / "a.json" / "b.md")


def test_a_picture_without_a_browser_is_refused_with_a_cure(page, tmp_path, monkeypatch):
    monkeypatch.setattr(picture.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="install one"):
        write_page(page, tmp_path / "a.png")


def test_plot_is_a_figure_of_the_account(result):
    figure = result.plot()
    assert isinstance(figure, go.Figure)
    names = {trace.name for trace in figure.data}
    assert {"equity", "drawdown", "leverage", "mark price", "liquidation price"} <= names


def test_every_figure_is_one_that_plotly_knows(page, sweep):
    for chart in (*page.charts, *build_page(sweep).charts):
        assert go.Figure(chart.figure).data


# ---------------------------------------------------------------------- months, drawdowns, windows


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
    whole = monthly_returns(result.time, result.record[6], result.tally.first_unit)
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
        result.record[6],
        result.span.closes,
        start=result.span.start,
        first_peak=result.first_peak,
        count=10,
    )
    assert found["depth"].iloc[0] == pytest.approx(result.metrics["max_drawdown"], abs=1e-12)
    assert found["days_under_water"].iloc[0] == pytest.approx(result.metrics["drawdown_days"])


def test_a_window_of_the_whole_run_measures_as_the_metrics_do(result):
    returns = result.returns.to_numpy()
    free = np.zeros(len(returns))
    last = rolling_measures(returns, free, result.span.periods, len(returns)).iloc[-1]
    assert last["sharpe"] == pytest.approx(result.metrics["sharpe"], rel=1e-9)
    assert last["volatility"] == pytest.approx(result.metrics["volatility"], rel=1e-9)


# ------------------------------------------------------------------------------ sweeps, studies


def made_up(n=400):
    """Return a sweep in which one parameter decides the Sharpe ratio and the other is noise."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.0, 1.0, n), rng.uniform(1.0, 100.0, n)
    table = pd.DataFrame({"x": x, "y": y, "sharpe": -((x - 0.7) ** 2) + 0.01 * rng.normal(size=n)})
    table["ruined"] = (x < 0.1).astype(float)
    table["ruin_time"] = np.where(x < 0.1, 5.0, np.nan)
    return table


def test_the_parameter_that_decides_is_the_important_one(sweep):
    facts = {"x": {"unit": "", "log": False}, "y": {"unit": "bars", "log": True}}
    manifest = {**sweep.manifest, "parameters": facts}
    explored = explore_sweep(Sweep(made_up(), manifest), "sharpe")
    found = measure_importance(explored)
    assert list(found.table.index) == ["x", "y"]
    assert found.explained > 0.8
    assert found.table.loc["x", "importance"] > 0.8
    assert abs(found.table.loc["y", "importance"]) < 0.1
    near = find_neighbors(explored)
    x = explored.table["x"].to_numpy()
    assert 0 < near.sum() < 80
    assert np.abs(x[near] - x[explored.best]).max() <= 0.1 * np.ptp(x) + 1e-9
    again = measure_importance(explored)
    assert np.array_equal(found.table.to_numpy(), again.table.to_numpy())


def test_sets_in_which_a_parameter_has_no_part_are_left_out_of_its_charts(sweep):
    """A third of the sets have the default of x, for there it has no part: no cliff is drawn."""
    facts = {"x": {"unit": "", "log": False}, "y": {"unit": "bars", "log": True}}
    table = made_up(600)
    idle = np.arange(600) % 3 == 0
    table.loc[idle, "x"] = 0.5
    table.loc[idle, "sharpe"] = -9.0
    explored = explore_sweep(Sweep(table, {**sweep.manifest, "parameters": facts}), "sharpe")
    assert np.array_equal(find_idle(explored, "x"), idle)
    assert not find_idle(explored, "y").any()
    chart = draw_profile(explored, "x")
    assert "200 sets in which x has no part and is 0.5" in chart.caption
    median = next(each for each in chart.figure["data"] if each["name"] == "median")
    assert np.nanmin(median["y"]) > -1.0
    kept, _ = exclude_idle(explored, "x")
    best = explored.table.iloc[explored.best]
    assert kept.table.iloc[kept.best].equals(best)
    assert np.array_equal(kept.table["sharpe"].to_numpy()[kept.order][:5],
                          explored.table["sharpe"].to_numpy()[explored.order][:5])  # fmt: skip


@pytest.mark.slow
def test_a_sweep_is_told_with_maps_importance_plateau_and_its_best(sweep):
    page = build_page(sweep, "calmar")
    keys = [section.key for section in page.sections]
    assert keys == ["best", "map", "parameters", "plateau", "sets", "quality", "assumptions"]
    kinds = {chart.key.partition("-")[0] for chart in page.charts}
    assert kinds >= {"map", "importance", "profile", "parallel"}
    best = sweep.best("calmar")
    assert f"{best['target']:.4g}" in page.summary
    assert "--objective calmar" in write_html(page)
    assert write_html(page) == write_html(build_page(sweep, "calmar"))
    cell = sweep._repr_html_()
    for words in ("64 sets", "Best Sharpe", "sweep.report"):
        assert words in cell
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        build_page(sweep, "sharp")


@pytest.mark.slow
def test_a_study_is_told_with_its_verdict_and_its_search(monkeypatch, tmp_path):
    stand_in(put=monkeypatch.setattr)
    study = seek(store=tmp_path)
    page = build_page(study)
    text = write_text(page, "md")
    for words in ("Deflated Sharpe ratio", "Probability of backtest overfitting", "holdout"):
        assert words in text
    assert "search" in {chart.key for chart in page.charts}
    assert write_html(build_page(load_saved(study.folder))) == write_html(page)
    assert "Sets, the chosen one first, then by their own score" in text
    cell = study._repr_html_()
    for words in ("sets searched for", "Deflated Sharpe", "Overfitting", "On the holdout"):
        assert words in cell
    unfinished = dataclasses.replace(study, outcome=None)
    assert any("Unfinished" in notice for notice in build_page(unfinished).notices)
    assert write_html(build_page(unfinished))
    assert "Unfinished" in unfinished._repr_html_()


@pytest.mark.slow
def test_a_comparison_is_told_with_accounts_over_each_other(tmp_path):
    market = bt.Market.sample(bars=24 * 50)
    policies = {"calm": Constant(leverage=1.0), "<b>bold</b>": Constant(leverage=3.0)}
    compared = bt.compare(
        market, policies, venue=VENUE, account=bt.Account(), compile=False, draws=99
    )
    page = build_page(load_saved(compared.save(tmp_path)))
    accounts = page.charts[0].figure["data"]
    assert [trace["name"] for trace in accounts[::2]] == ["calm", "&lt;b&gt;bold&lt;/b&gt;"]
    total = np.prod(1.0 + compared.returns["calm"])
    assert accounts[0]["y"][-1] == pytest.approx(total)
    assert any(chart.key == "difference-log_growth" for chart in page.charts)
    assert "<b>bold" not in write_html(page)
    assert "&lt;b&gt;bold" in compared._repr_html_()
    assert "<b>bold" not in compared._repr_html_()
    assert all(isinstance(chart, Chart) for chart in page.charts)


def test_a_full_disk_leaves_the_older_report_and_nothing_else(result, tmp_path, monkeypatch):
    """Half a page of 57 kB stood where the report of yesterday had been."""
    path = result.report(tmp_path / "run.md")
    before = path.read_bytes()

    def fill(page, draft, format_):
        draft.write_text("# half a")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("backtest.report.page.formats.write_format", fill)
    with pytest.raises(DataError, match="No space left on device") as caught:
        result.report(path)
    assert caught.value.where == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["run.md"]


@pytest.mark.slow
def test_a_report_goes_through_a_link_and_into_a_pipe(result, tmp_path):
    path = result.report(tmp_path / "run.md")
    link = tmp_path / "link.md"
    link.symlink_to(path)
    path.write_text("older")
    path.chmod(0o640)
    result.report(link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text().startswith("# ")
    pipe = tmp_path / "pipe.md"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(pipe.read_text)
        result.report(pipe)
        assert heard.result(timeout=10) == path.read_text()


# ------------------------------------------------------------------------------- found by its name


@pytest.fixture
def saved(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return result.save("results")


def test_a_saved_run_is_found_by_folder_name_id_and_beginnings(saved, tmp_path):
    results = tmp_path / "results"
    identity = saved.name.partition("-")[2]
    for name in (str(saved), saved.name, identity, identity[:6], "constant"):
        assert find_folder(name, results).resolve() == saved.resolve()
    twin = results / f"constant-{'0' * 16}"
    twin.mkdir()
    write_json_file({"format": 2}, twin / "manifest.json")
    with pytest.raises(ParameterError, match="matches 2"):
        find_folder("constant", results)
    for name in ("constnat", "", ".", "*", "../../x"):
        with pytest.raises(DataError, match="no saved result is called"):
            find_folder(name, results)


@pytest.mark.slow
def test_the_command_writes_one_file_and_says_which(saved, tmp_path, capsys):
    assert main(["report", saved.name]) == 0
    assert capsys.readouterr().out.strip() == f"{saved.name}.html"
    assert (tmp_path / f"{saved.name}.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert main(["report", "constant", str(saved), "--format", "md", "--out", "there"]) == 0
    assert (tmp_path / "there" / f"{saved.name}.md").is_file()
    assert main(["report", "constant", "--out", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["kind"] == "run"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("constant", "--format", "pdf"),
        ("constant", "constant", "--out", "one.html"),
        (),
    ],
)
def test_the_command_refuses_what_it_cannot_do(saved, capsys, arguments):
    assert main(["report", *arguments]) == 2
    assert "error:" in capsys.readouterr().err


def test_colors_are_swapped_whole():
    """A color must not be the beginning of another, or the swap for dark paper would cut it."""
    for one in LIGHT.values():
        assert [other for other in set(LIGHT.values()) if other.startswith(one)] == [one]
