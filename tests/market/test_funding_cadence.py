"""Funding of any cadence settles each event once; predictions are known from their stamp on."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.units import HOUR
from backtest.features import published_funding
from backtest.strategies import Constant
from tests.markets import free_venue

START = pd.Timestamp("2024-01-01", tz="UTC")
ACCOUNT = bt.Account(capital=10_000.0, band=0.9)
"""A band so wide that what is bought at first is kept."""


def flat_bars(freq: str, days: int = 4, **columns: object) -> pd.DataFrame:
    """Return bars at a price of 100."""
    index = pd.date_range(START, START + pd.Timedelta(days=days), freq=freq, inclusive="left")
    prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    return pd.DataFrame({**prices, **columns}, index=index)


def settled(hours: list[float], rates: list[float] | float, **columns: object) -> pd.DataFrame:
    """Return settlements so many hours after the start."""
    index = pd.DatetimeIndex([START + pd.Timedelta(hours=hour) for hour in hours])
    return pd.DataFrame({"rate": rates, **columns}, index=index)


def live(market: bt.Market, policy: bt.Policy | None = None, **settings: object) -> bt.Result:
    policy = policy or Constant(leverage=1.0)
    settings = {"venue": free_venue(), "account": ACCOUNT, "compile": False, **settings}
    return bt.run(market, policy, **settings)


def payments(result: bt.Result) -> pd.DataFrame:
    return result.events[result.events.kind == "funding"]


CHANGING = [*range(0, 33, 8), *range(36, 61, 4), *range(61, 96)]
"""Every 8 hours, from 32:00 every 4, from 60:00 every hour."""


def test_a_cadence_that_changes_settles_every_event_once_at_its_own_rate():
    """100 contracts at 100 from 01:00 on: each pays 10,000 times its rate."""
    rates = [1e-4 * (1 + k % 3) for k in range(len(CHANGING))]
    market = bt.Market.from_frames(flat_bars("1h"), funding=settled(CHANGING, rates))
    result = live(market)
    paid = payments(result)
    assert len(paid) == len(CHANGING) - 1  # nothing is held at 00:00
    assert paid["amount"].to_numpy() == pytest.approx(1e4 * np.array(rates[1:]), rel=1e-12)
    hours = (pd.DatetimeIndex(paid["time"]) - START) / pd.Timedelta(hours=1)
    assert hours.tolist() == CHANGING[1:]
    assert result.metrics["funding"] == pytest.approx(1e4 * sum(rates[1:]), rel=1e-12)


@pytest.mark.parametrize("freq", ["30min", "1h", "8h", "1D"])
def test_hours_are_settled_in_bars_of_any_length(freq: str):
    """What is bought at the open of bar 1 pays every hour from there on."""
    rates = (1e-5 * np.arange(96)).tolist()
    market = bt.Market.from_frames(flat_bars(freq), funding=settled([*range(96)], rates))
    result = live(market)
    bought = round(market.interval / HOUR) if market.interval >= HOUR else 0
    first = bought + 1  # a settlement at the open is for whoever carried the position in
    expected = 1e4 * sum(rates[first:])
    assert len(payments(result)) == 96 - first
    assert result.metrics["funding"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("milliseconds", [-900, -13, 29, 900])
@pytest.mark.parametrize("freq", ["5min", "1h", "1D"])
def test_stamps_around_an_open_belong_to_it_and_count_once(freq: str, milliseconds: int):
    hours = [hour + milliseconds / 3_600_000 for hour in range(1, 48)]
    funding = settled(hours, 1e-5)
    market = bt.Market.from_frames(flat_bars(freq, days=2), funding=funding)
    found = live(market)
    exact = live(bt.Market.from_frames(flat_bars(freq, days=2), funding=settled(
        [*range(1, 48)], 1e-5)))  # fmt: skip
    assert len(payments(found)) == len(payments(exact))
    assert found.metrics["funding"] == exact.metrics["funding"]


def test_a_settlement_at_an_odd_minute_falls_into_its_bar():
    funding = settled([0, 8, 13 + 37 / 60, 16, 24], [9.0e-4, 1e-4, 3e-4, 1e-4, 1e-4])
    market = bt.Market.from_frames(flat_bars("1h", days=1), funding=funding)
    bars = live(market).bars["funding"]
    assert bars.iloc[[8, 13, 16]].to_numpy() == pytest.approx([1.0, 3.0, 1.0], rel=1e-12)
    assert bars.sum() == pytest.approx(5.0, rel=1e-12)


def test_the_price_of_settlement_is_the_events_own_where_it_is_known():
    funding = settled([8, 16], 1e-4, mark=[110.0, np.nan])
    market = bt.Market.from_frames(flat_bars("1h", days=1), funding=funding)
    assert payments(live(market))["amount"].to_numpy() == pytest.approx([1.1, 1.0], rel=1e-12)


def test_an_extra_settlement_between_two_is_no_defect_and_is_paid():
    market = bt.Market.from_frames(
        flat_bars("1h", days=2), funding=settled([0, 8, 12, 16, 24, 32, 40], 1e-4)
    )
    assert len(payments(live(market))) == 6
    assert dict(market.filled) == {}


def test_what_is_missing_among_hours_is_counted_in_hours():
    """Nine days every 8 hours, then hours of which three are missing."""
    hours = [*range(0, 216, 8), *range(216, 222), *range(225, 240)]
    with pytest.raises(bt.DataError, match="each other every 1h, 3 missing in 1 gap"):
        bt.Market.from_frames(flat_bars("1h", days=10), funding=settled(hours, 1e-5))
    accepted = bt.Market.from_frames(
        flat_bars("1h", days=10), funding=settled(hours, 1e-5), funding_gaps="zero"
    )
    assert accepted.filled["funding_gaps"].startswith("zero: 3 settlements missing")


@pytest.mark.parametrize(("rate", "is_taken"), [(0.04, True), (-0.1, True), (0.11, False)])
def test_a_venues_cap_is_believed_and_more_than_a_tenth_is_not(rate: float, is_taken: bool):
    """4 % an hour is Hyperliquid's cap, the largest known."""
    funding = settled([0, 8, 16], [1e-4, rate, 1e-4])
    if is_taken:
        market = bt.Market.from_frames(flat_bars("1h", days=1), funding=funding)
        assert market.funding_rate[1] == rate
    else:
        with pytest.raises(bt.DataError, match=r"funding rates must lie within \+10% and -10%"):
            bt.Market.from_frames(flat_bars("1h", days=1), funding=funding)


class Careful(bt.Policy):
    """Hold one, or nothing where the venue says that holding it costs."""

    def observe(self, market: bt.Market) -> bt.Columns:
        return {"next": published_funding(market)}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return 0.0 if bar.next > 1e-4 else 1.0


def predicted_market(hours: int = 96) -> bt.Market:
    """Return a market whose venue says at each settlement what the next will be, and is right."""
    stamps = [*range(0, hours, 8)]
    rates = np.where(np.arange(len(stamps) + 1) % 3 == 2, 5e-4, 1e-5)
    funding = settled(stamps, rates[:-1].tolist(), predicted=rates[1:])
    return bt.Market.from_frames(flat_bars("1h", days=hours // 24), funding=funding)


def test_a_policy_that_reads_the_prediction_is_out_of_the_market_when_it_is_dear():
    """At 08:00 the venue says 0.05 % for 16:00: closed at the open of 09:00, opened after 16:00."""
    market = predicted_market()
    result = live(market, Careful(), account=bt.Account(capital=10_000.0))
    position = result.bars["position"]
    assert position.iloc[8] > 0.0
    assert not position.iloc[9:17].any()
    assert position.iloc[17] > 0.0
    assert (payments(result)["amount"] < 0.2).all()
    assert live(market).metrics["funding"] > 10 * result.metrics["funding"]


def test_predictions_are_known_from_their_stamp_on_and_no_earlier():
    market = predicted_market()
    whole = published_funding(market)
    for n in range(1, len(market) + 1):
        assert published_funding(market.prefix(n)).tobytes() == whole[:n].tobytes()
    assert whole[7] == market.funding_predicted[0]  # the close at 08:00 does not know 08:00 yet
    assert whole[8] == market.funding_predicted[1]
    assert math.isnan(published_funding(market.between("2024-01-01 01:00", None))[0])


def test_predictions_travel_with_the_market(tmp_path: Path):
    market = predicted_market()
    assert market.funding()["predicted"].tolist() == market.funding_predicted.tolist()
    again = bt.Market.load(market.save(tmp_path / "market"))
    assert again == market
    assert again.funding_predicted.tolist() == market.funding_predicted.tolist()
    frames = {"bars": market.bars(), "funding": market.funding()}
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index_label="time")
    loaded = bt.Market.load(tmp_path / "bars.csv", tmp_path / "funding.csv")
    assert loaded.content_hash == market.content_hash


@pytest.mark.parametrize("value", [np.inf, 0.5])
def test_a_prediction_that_is_no_rate_is_refused(value: float):
    funding = settled([0, 8, 16], 1e-4, predicted=[1e-4, value, np.nan])
    with pytest.raises(bt.DataError, match=r"predicted rates must lie within.* 2024-01-01 08:00"):
        bt.Market.from_frames(flat_bars("1h", days=1), funding=funding)


def test_a_run_that_goes_on_later_sees_the_same_predictions():
    market = predicted_market()
    account = bt.Account(capital=10_000.0)
    whole = live(market, Careful(), account=account)
    first = live(market.between(None, "2024-01-03"), Careful(), account=account)
    second = live(market.between("2024-01-03", None), Careful(), account=account, resume=first)
    joined = pd.concat([first.bars["equity"], second.bars["equity"]])
    assert joined[~joined.index.duplicated(keep="last")].tolist() == whole.bars["equity"].tolist()


def test_funding_of_a_simulated_premium_is_the_venues_formula_within_its_cap():
    """Minutes of a premium to the settlements of a venue that caps an hour at 4 %."""
    rng = np.random.default_rng(4)
    path = np.cumsum(rng.normal(0.0, 4e-3, 60 * 96))
    terms = bt.funding.terms("hyperliquid", "BTC")
    average = path.reshape(-1, 60).mean(axis=1)
    rates = bt.funding.rate_of(terms, average)
    assert rates.shape == (96,)
    assert np.abs(rates).max() <= terms.cap
    inner = average + np.clip(1e-4 - average, -5e-4, 5e-4)
    np.testing.assert_allclose(rates, np.clip(inner / 8, -0.04, 0.04), rtol=1e-12)
    market = bt.Market.from_frames(flat_bars("1h"), funding=settled([*range(96)], rates.tolist()))
    rich = bt.Account(capital=100_000.0, band=0.09)
    paid = payments(live(market, Constant(leverage=0.1), account=rich))["amount"].to_numpy()
    np.testing.assert_allclose(paid, 1e4 * rates[2:], rtol=1e-9)
