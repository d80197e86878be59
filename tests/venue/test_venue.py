"""Venues: derived amounts, equality, what is stored, and the presets."""

import copy
import pickle
import tomllib
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.venue.venue import (
    Bracket,
    Contract,
    Fees,
    Liquidation,
    Slippage,
    Venue,
    derive_amounts,
)

# Binance USD-M BTCUSDT as of 2024-10-24: floor, cap, leverage, rate, cumulative amount.
BTCUSDT = [
    (0.0, 50_000.0, 125.0, 0.004, 0.0),
    (50_000.0, 600_000.0, 100.0, 0.005, 50.0),
    (600_000.0, 3_000_000.0, 75.0, 0.0065, 950.0),
    (3_000_000.0, 12_000_000.0, 50.0, 0.01, 11_450.0),
    (12_000_000.0, 70_000_000.0, 25.0, 0.02, 131_450.0),
    (70_000_000.0, 100_000_000.0, 20.0, 0.025, 481_450.0),
    (100_000_000.0, 230_000_000.0, 10.0, 0.05, 2_981_450.0),
    (230_000_000.0, 480_000_000.0, 5.0, 0.1, 14_481_450.0),
    (480_000_000.0, 600_000_000.0, 4.0, 0.125, 26_481_450.0),
    (600_000_000.0, 800_000_000.0, 3.0, 0.15, 41_481_450.0),
    (800_000_000.0, 1_200_000_000.0, 2.0, 0.25, 121_481_450.0),
    (1_200_000_000.0, 1_800_000_000.0, 1.0, 0.5, 421_481_450.0),
]


def make_brackets(*changes: tuple[int, str, object]) -> list[Bracket]:
    """Return three sound brackets, with fields changed by (row, name, value)."""
    rows = [
        Bracket(0.0, 50_000.0, 100.0, 0.005),
        Bracket(50_000.0, 250_000.0, 50.0, 0.01),
        Bracket(250_000.0, inf, 20.0, 0.025),
    ]
    for row, name, value in changes:
        rows[row] = replace(rows[row], **{name: value})
    return rows


def make_venue(**changes: Any) -> Venue:
    """Return a sound venue with some fields changed."""
    rules: dict[str, Any] = {
        "contract": Contract(),
        "brackets": make_brackets(),
        "fees": Fees(taker=5e-4, maker=2e-4),
        "slippage": Slippage(rate=1e-4),
        "liquidation": Liquidation(fee=0.0125, slippage=0.002),
    }
    return Venue(**{**rules, **changes})


def by_day(*values: object, start: str = "2021-01-01", tz: str | None = "UTC") -> pd.Series:
    """Return values one day apart."""
    return pd.Series(list(values), index=pd.date_range(start, periods=len(values), tz=tz))


def liquidation(**changes: Any) -> Liquidation:
    """Return a liquidation rule with some fields changed."""
    return Liquidation(**{"fee": 0.0125, "slippage": 0.002, **changes})


# Bybit BTCUSDT, the first six of its risk limits and their published deductions.
BYBIT = [
    (0, 2_000_000, 100, 0.005, 0),
    (2_000_000, 2_600_000, 90, 0.0056, 1_200),
    (2_600_000, 3_200_000, 80, 0.0063, 3_020),
    (3_200_000, 3_800_000, 75, 0.0067, 4_300),
    (3_800_000, 4_400_000, 70, 0.0071, 5_820),
    (4_400_000, 5_000_000, 65, 0.0077, 8_460),
]


def test_amounts_that_venues_round_are_accepted_and_stored_exact() -> None:
    rows = make_brackets((1, "amount", 250.02), (2, "amount", 3_999.99))
    assert [row.amount for row in make_venue(brackets=rows).brackets] == [0.0, 250.0, 4_000.0]


def test_published_amounts_are_derived_to_the_last_digit() -> None:
    for table in (BTCUSDT, BYBIT):
        rows = [Bracket(*row[:4]) for row in table]
        assert derive_amounts(rows) == [row[4] for row in table]


def test_whole_numbers_and_numpy_numbers_settle_as_floats() -> None:
    contract = Contract(size=np.float32(2), lot=1, min_notional=np.int64(5))  # type: ignore[arg-type]
    assert [type(each) for each in (contract.size, contract.lot, contract.min_notional)] == [
        float
    ] * 3
    assert contract == Contract(size=2.0, lot=1.0, min_notional=5.0)


def test_a_series_is_copied_held_in_utc_and_read_only() -> None:
    mine = by_day(0.01, 0.02, tz="Asia/Tokyo")
    venue = make_venue(interest_on="balance", cash_rate=mine)
    mine.iloc[0] = 9.0
    held = venue.cash_rate
    assert isinstance(held, pd.Series)
    assert held.tolist() == [0.01, 0.02]
    assert held.index[0] == pd.Timestamp("2020-12-31T15:00", tz="UTC")
    for copied in (venue, copy.deepcopy(venue), pickle.loads(pickle.dumps(venue))):
        assert copied == venue
        with pytest.raises(ValueError, match="read-only"):
            copied.cash_rate.iloc[0] = 9.0


def test_venues_are_equal_and_hash_alike_by_content() -> None:
    assert make_venue() == make_venue()
    assert make_venue() != make_venue(day_count=360)
    assert make_venue() != "venue"
    series = make_venue(interest_on="balance", cash_rate=by_day(0.0, 0.01))
    same = make_venue(interest_on="balance", cash_rate=by_day(-0.0, 0.01).rename("other"))
    later = make_venue(interest_on="balance", cash_rate=by_day(0.0, 0.01, start="2021-01-02"))
    assert series == same
    assert hash(series) == hash(same)
    assert len({make_venue(), make_venue(), series, same, later}) == 3


def test_stored_data_can_be_read_from_toml_with_its_own_times_and_infinity() -> None:
    text = """
    contract = {}
    fees = {taker = 5e-4, maker = 2e-4}
    slippage = {rate = 1e-4}
    liquidation = {fee = 0.0125, slippage = 0.002}
    interest_on = "balance"
    cash_rate = {time = [2021-01-01T00:00:00Z, 2021-01-02T00:00:00Z], value = [0.01, 0.02]}
    brackets = [
      {floor = 0, cap = 50_000, max_leverage = 100, maintenance_rate = 0.005},
      {floor = 50_000, cap = 250_000, max_leverage = 50, maintenance_rate = 0.01},
      {floor = 250_000, cap = inf, max_leverage = 20, maintenance_rate = 0.025},
    ]
    """
    venue = Venue.from_dict(tomllib.loads(text.replace("      {", "{").replace("\n    ", "\n")))
    assert venue == make_venue(interest_on="balance", cash_rate=by_day(0.01, 0.02))


def test_a_simple_venue_has_one_bracket_no_lot_and_the_costs_that_were_said() -> None:
    venue = Venue.simple(
        taker=6e-4, slippage=3e-4, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.01
    )
    assert venue.brackets == (Bracket(0.0, inf, 50.0, 0.01, 0.0),)
    assert venue.fees == Fees(taker=6e-4, maker=6e-4)
    assert venue.slippage == Slippage(rate=3e-4)
    assert venue.liquidation == Liquidation(fee=0.01, slippage=3e-4)
    assert (venue.contract.kind, venue.contract.lot, venue.contract.min_notional) == (
        "linear",
        0,
        0,
    )


def test_the_binance_preset_is_the_published_table() -> None:
    venue = Venue.preset("binance-usdm", "BTCUSDT", at="2024-10-24")
    rows = [
        (row.floor, row.cap, row.max_leverage, row.maintenance_rate, row.amount)
        for row in venue.brackets
    ]
    assert rows == BTCUSDT
    held = next(row for row in venue.brackets if row.floor < 550_000 <= row.cap)
    assert (held.maintenance_rate, held.amount) == (0.005, 50.0)
    assert venue.contract == Contract(lot=0.001, tick=0.1, min_notional=100.0, settles="USDT")
    assert venue.fees == Fees(taker=5e-4, maker=2e-4)
    assert venue.liquidation == Liquidation(mode="close", fee=0.0125, slippage=0.002)


def test_a_bracket_holds_a_notional_up_to_its_cap():
    """100x up to 50,000 and 50x beyond: 50,000 / 100, and 50,100 / 50; .5 % each, less 250 of 1 %.

    Maintenance is continuous at the cap: .005 * 50,000 = .01 * 50,000 - 250.
    """
    venue = make_venue()
    assert [bt.margin.initial(venue, n, 100.0) for n in (500.0, 501.0)] == [500.0, 1002.0]
    assert [bt.margin.requirement(venue, n, 100.0) for n in (500.0, 501.0)] == [250.0, 251.0]
    assert bt.margin.largest_notional(venue, 500.0) == 50_000.0
