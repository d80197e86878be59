"""Every number that is printed has one way to be written."""

import math

import pytest

from backtest.base import number_text as text
from backtest.base.units import HOUR

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(("written", "expected"), [
    (text.format_number(1234.567), "1,234.57"),
    (text.format_signed(0.5), "+0.50"),
    (text.format_percent(-0.1234), "-12.34 %"),
    (text.format_percent(-0.0), "0.00 %"),
    (text.format_percent(0.00012, 3), "0.012 %"),
    (text.format_percent(0.0001, 4, is_signed=True), "+0.0100 %"),
    (text.format_probability(0.9499), "0.94"),
    (text.format_probability(0.95), "0.95"),
    (text.format_chance(0.036217), "3.62 %"),
    (text.format_bps(0.0005), "5 bp"),
    (text.format_leverage(2.207), "2.21x"),
    (text.format_leverage(0.0034), "0.0034x"),
    (text.format_price(24103.456), "24,103.46"),
    (text.format_price(0.00123456), "0.00123456"),
    (text.format_price_at_tick(27108.4337, 0.1), "27,108.4"),
    (text.format_price_at_tick(1e-6, 1e-8), "0.00000100"),
    (text.format_price_at_tick(NAN, 0.1), "none"),
    (text.format_money(12345.678), "12,345.68"),
    (text.format_money(0.0123456), "0.0123456"),
    (text.format_value(0.123456), "0.1235"),
    (text.format_value(24), "24"),
    (text.format_value(None), "none"),
    (text.format_setting(1_800_000_000), "1,800,000,000"),
    (text.format_setting({"time": ["2021-05-19"], "value": [0.1]}), "a series of 1 values"),
    (text.format_magnitude(20_000.0), "20k"),
    (text.format_days(3.25), "3.2"),
    (text.format_days(1200.0), "1,200"),
    (text.format_days(INF), "never"),
    (text.format_hours(72 * HOUR / 60), "1.2 h"),
    (text.format_hours(72 * 24 * HOUR), "72 d"),
    (text.format_rate(1893.4), "1,893"),
    (text.format_rate(0.344), "0.34"),
    (text.format_clock(3725.0), "1:02:05"),
    (text.format_clock(5.0), "0:05"),
    (text.format_pair(0.5, 0.25), ("0.5", "0.25")),
    (text.format_pair(1.0, 1.0000001), ("1", "1.0000001")),
    (text.format_change(2.0, 1.9), "-5 %"),
    (text.format_change(0.0, 0.5), "+0.5"),
    (text.format_change(NAN, 1.0), ""),
])  # fmt: skip
def test_a_number_is_written_in_one_way(written, expected):
    assert written == expected


@pytest.mark.parametrize("write", [
    text.format_number,
    text.format_signed,
    text.format_percent,
    text.format_probability,
    text.format_money,
    text.format_days,
])  # fmt: skip
def test_what_is_not_known_is_not_available(write):
    assert write(NAN) == "n/a"
