"""Dividends per share: read beside the bars, paid at the open of the ex-date, booked as funding."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main
from tests.agreement import assert_agrees, trust_data
from tests.cases import make_case
from tests.scenes import Follow, account_of, happened, venue_of

DAYS = pd.date_range("2024-03-04", periods=5, freq="D", tz="UTC")
NAN = math.nan


def bars_of(*closes: float) -> pd.DataFrame:
    opens = np.array([closes[0], *closes[:-1]])
    prices = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes)}
    return pd.DataFrame({**prices, "close": closes}, index=DAYS[: len(closes)])


def paid(day: int, amount: float, hours: float = 0.0) -> pd.DataFrame:
    index = pd.DatetimeIndex([DAYS[day] + pd.Timedelta(hours=hours)])
    return pd.DataFrame({"amount": [amount]}, index=index)


def follow(market: bt.Market, *targets: float, signal: float = 1.0, **more) -> bt.Result:
    wanted = [*targets, *[NAN] * (len(market) - len(targets))]
    market = market.with_columns(target=wanted)
    return bt.run(
        market, Follow(), venue=venue_of(), account=account_of(), signal=signal, compile=False,
        **more,
    )  # fmt: skip


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_who_holds_the_share_at_the_open_of_the_ex_date_is_paid_and_a_short_pays(side):
    market = bt.Market.from_frames(bars_of(100, 100, 98, 98), dividends=paid(2, 2.0))
    result = follow(market, 1.0, signal=side)
    # 10 shares from day 1 on: 10 x 2 = 20 on day 2, when the price falls by 2
    assert result.bars["funding"].tolist() == pytest.approx([0, 0, -20 * side, 0])
    assert result.bars["equity"].tolist() == pytest.approx([1000.0] * 4)
    event = happened(result, "dividend")
    assert event["time"].item() == DAYS[2]
    assert event["amount"].item() == pytest.approx(-20.0 * side)
    assert event["quantity"].item() == pytest.approx(10.0 * side)
    assert event["price"].item() == pytest.approx(100.0)
    assert result.metrics["funding"] == pytest.approx(-20.0 * side)
    assert result.attribution().funding == pytest.approx(0.02 * side)
    assert "Dividends: 1, booked as funding" in result.summary()


def test_a_share_bought_at_the_open_of_the_ex_date_has_no_dividend():
    market = bt.Market.from_frames(bars_of(100, 98, 98), dividends=paid(1, 2.0))
    assert follow(market, 1.0).bars["funding"].tolist() == [0.0, 0.0, 0.0]


def test_the_engine_equals_the_oracle(monkeypatch):
    """Five random cases, with a dividend instead of funding in every fourth bar."""
    trust_data(monkeypatch)
    for seed in range(400, 430, 6):
        case = make_case(seed)
        if case.contract["kind"] == "inverse":
            continue
        amount = np.full(len(case.bars), NAN)
        amount[4::4] = case.bars["close"].to_numpy()[3:-1:4] * 0.004
        bars = case.bars.assign(dividend_per_share=amount)
        case = dataclasses.replace(case, funding=None, bars=bars)
        assert any(assert_agrees(case.whole(), f"seed {seed}").funding)


def test_a_folder_keeps_them_and_longer_bars_add_them(tmp_path: Path):
    folder = tmp_path / "spy"
    folder.mkdir()
    bars_of(100, 100, 98, 98).to_csv(folder / "bars.csv", index_label="time")
    both = pd.concat([paid(1, 1.5), paid(2, 0.5, hours=-6.0), paid(3, 9.0, hours=30.0)])
    both.to_csv(folder / "dividends.csv", index_label="time")
    market = bt.Market.load(folder)
    np.testing.assert_array_equal(market.columns["dividend_per_share"], [NAN, 1.5, 0.5, NAN])
    assert (
        market.filled["dividends"] == "2 of dividends.csv, per share, 1 outside the bars left out"
    )
    again = bt.Market.load(market.save(tmp_path / "saved"))
    assert again == market
    longer = market.resample("2d")
    np.testing.assert_array_equal(longer.columns["dividend_per_share"], [0.0, 2.0])
    # 1.5 of the second day moves to the third, which is the next open and has 0.5 of its own
    out = tmp_path / "in"
    words = [
        "data",
        "import",
        str(folder / "bars.csv"),
        "--dividends",
        str(folder / "dividends.csv"),
    ]
    assert main([*words, "--out", str(out)]) == 0
    assert bt.Market.load(out) == market


@pytest.mark.parametrize(("table", "funding", "message"), [
    (paid(2, -2.0), None, "a dividend per share must be positive and finite, got -2"),
    (paid(2, 2.0).rename(columns={"amount": "x"}), None, "a column 'amount' is needed"),
    (paid(2, 2.0), pd.Series([1e-4], index=DAYS[1:2]), "has funding or dividends"),
])  # fmt: skip
def test_bad_dividends_are_refused(table, funding, message):
    with pytest.raises(bt.DataError, match=message):
        bt.Market.from_frames(
            bars_of(100, 100, 98, 98), dividends=table, funding=funding, funding_gaps="zero"
        )


def test_a_dividend_of_the_whole_price_and_one_of_a_coin_contract_are_refused():
    market = bt.Market.from_frames(bars_of(100, 100, 98, 98), dividends=paid(2, 150.0))
    with pytest.raises(bt.DataError, match="got 150 after a close of 100"):
        follow(market, 1.0)
    market = bt.Market.from_frames(bars_of(100, 100, 98, 98), dividends=paid(2, 2.0))
    coin = venue_of(contract={"kind": "inverse", "settles": "USD"})
    for held in (market, bt.Markets({"AAA": market, "BBB": market}, currency="USD")):
        with pytest.raises(bt.ParameterError, match="dividends are paid on linear contracts"):
            bt.run(held, bt.strategies.Constant(), venue=coin, account=account_of(), compile=False)


def test_longer_bars_pay_who_holds_on_the_ex_date():
    # bought at the open of day 2, held over the ex-date of day 3, paid at the open of day 4:
    # -10 of the price, +10 of the dividend
    days = pd.date_range("2024-03-04", periods=6, freq="D", tz="UTC")
    prices = np.array([100.0, 100.0, 100.0, 90.0, 90.0, 90.0])
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), prices), index=days)
    daily = bt.Market.from_frames(bars, dividends=paid(3, 10.0))
    result = follow(daily.resample("2d"), 1.0)
    assert result.bars["equity"].tolist() == pytest.approx([1000.0, 900.0, 1000.0])
    cut = daily.prefix(4).resample("2d")
    assert cut.filled["resample"].startswith("dividends inside the last bar dropped")
