"""Long runs make small pages that keep their extremes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from backtest.report.charts import drop_dust, thin_rows
from backtest.report.render import write_html
from backtest.report.run_parts import choose_rows, tabulate_ledger
from backtest.report.write import build_page
from backtest.strategies import Constant
from tests.report.reported import live

MOST_BYTES = 3_000_000
"""Of a page, of which the library of charts is two thirds."""


@pytest.mark.slow
def test_a_year_of_hours_is_small_and_keeps_its_extremes():
    long = live(Constant(leverage=3.0), days=365)
    page = build_page(long)
    assert len(write_html(page).encode()) < MOST_BYTES
    story = {trace["name"]: trace for trace in page.charts[0].figure["data"]}
    for name, values in (("account", long.bars["equity"]), ("mark price", long.mark)):
        drawn = story[name]["y"]
        assert len(drawn) < 5_000
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


def test_a_ledger_keeps_rare_events_and_says_how_many_it_leaves_out(result):
    events = pd.concat([result.events] * 4, ignore_index=True)
    rows = choose_rows(events, most=300)
    kinds = events["kind"].astype(str)
    assert len(rows) == 300
    rare = np.flatnonzero(kinds.isin(["liquidation", "margin_call", "top_up", "flow"]))
    assert set(rare) <= set(rows.tolist())
    several = pd.concat([result.events] * 40, ignore_index=True)
    long = dataclasses.replace(result)
    vars(long)["events"] = several
    total = 10 * int((~kinds.isin(["fee", "slippage", "impact", "liquidation_loss"])).sum())
    assert f"2,000 of {total:,} events" in tabulate_ledger(long).note


def test_dust_is_dropped_at_the_end_only():
    values = np.array([1.0, 1e-7, 0.5, 1e-8, 0.0])
    assert drop_dust(values).tolist() == [1.0, 1e-7, 0.5, 0.0, 0.0]
