"""The margin tables of Binance's USD-M perpetuals: figures of their source, and what they must be.

The figures are those of ``binance_leverage_tiers.json`` in three releases of freqtrade.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import backtest as bt
from backtest.venue import preset_files

VENUE = "binance-usdm"
LISTED = preset_files.read_tables(VENUE)
COLUMNS = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")


@pytest.mark.parametrize(("symbol", "day", "rows"), [
    ("ADAUSDT", "2026-09-29", [
        (10_000, 75, 0.005, 0), (50_000, 50, 0.01, 50), (200_000, 40, 0.015, 300),
        (1_000_000, 25, 0.02, 1_300), (2_000_000, 20, 0.025, 6_300),
        (10_000_000, 10, 0.05, 56_300), (20_000_000, 5, 0.1, 556_300),
        (25_000_000, 4, 0.125, 1_056_300), (50_000_000, 2, 0.25, 4_181_300),
        (100_000_000, 1, 0.5, 16_681_300)]),
    ("SOLUSDT", "2024-10-31", [
        (20_000, 100, 0.005, 0), (100_000, 75, 0.0065, 30), (800_000, 50, 0.01, 380),
        (4_000_000, 25, 0.02, 8_380), (8_000_000, 20, 0.025, 28_380),
        (40_000_000, 10, 0.05, 228_380), (80_000_000, 5, 0.1, 2_228_380),
        (100_000_000, 4, 0.125, 4_228_380), (200_000_000, 2, 0.25, 16_728_380),
        (400_000_000, 1, 0.5, 66_728_380)]),
    ("MATICUSDT", "2022-12-29", [
        (50_000, 25, 0.01, 0), (150_000, 20, 0.025, 750), (250_000, 10, 0.05, 4_500),
        (500_000, 5, 0.1, 17_000), (750_000, 4, 0.125, 29_500), (1_000_000, 2, 0.25, 123_250),
        (8_000_000, 1, 0.5, 373_250)]),
])  # fmt: skip
def test_a_table_has_the_figures_of_its_source(symbol, day, rows):
    found = bt.Venue.preset(VENUE, f"{symbol}@{day}").brackets
    assert [(r.cap, r.max_leverage, r.maintenance_rate, r.amount) for r in found] == rows


@pytest.mark.parametrize("symbol", LISTED)
def test_the_requirement_of_each_table_has_no_jump_and_rises(symbol):
    """At every cap r_k N - c_k = r_{k+1} N - c_{k+1}, with the amounts as published, exactly."""
    for table in LISTED[symbol].brackets:
        rows = [[Fraction(repr(row[name])) for name in COLUMNS] for row in table["brackets"]]
        assert rows[0][0] == rows[0][4] == 0
        for (_, cap, most, rate, amount), (floor, _, least, higher, more) in itertools.pairwise(
            rows
        ):
            assert floor == cap
            assert higher > rate
            assert least <= most
            assert rate * cap - amount == higher * cap - more
        assert bt.Venue.preset(VENUE, symbol, at=table["date"]).in_force.since == table["date"]


def test_a_position_in_ada_is_liquidated_where_the_table_says():
    # 500,000 coins at 0.60 are 300,000: 2 % of it less 1,300. On 30,000 the long falls to
    # (300,000 - 30,000 - 1,300) / (500,000 x 0.98)
    venue = bt.Venue.preset(VENUE, "ADAUSDT@2026-09-29")
    assert bt.margin.maintenance(venue, 300_000.0) == pytest.approx(4_700.0, rel=1e-12)
    price = bt.margin.liquidation_price(venue, 500_000.0, 0.60, 30_000.0)
    assert price == pytest.approx((270_000.0 - 1_300.0) / (500_000.0 * 0.98), rel=1e-12)
    assert math.isclose(bt.margin.largest_notional(venue, 12_000.0), 300_000.0)


def test_a_run_takes_the_table_of_each_day():
    time = np.array(["2022-12-28", "2024-10-30", "2024-10-31", "2026-09-29"], dtype="M8[ns]")
    used = bt.Venue.preset(VENUE, "XRPUSDT").in_use(time.view("i8"))
    assert [(each.since, each.first, each.stop) for each in used] == [
        ("2022-12-29", 0, 2), ("2024-10-31", 2, 3), ("2026-09-29", 3, 4)
    ]  # fmt: skip
