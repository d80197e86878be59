"""Time stops and the fees of a fund, by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.run.costs_section import list_money
from backtest.strategies import Constant, LiquidationDistance

START, HOUR = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta("1h")


def make_market(closes, *, every=HOUR, start=START):
    """Bars of these closes, each opening at the close before."""
    close = np.array(closes, dtype=float)
    opens = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(opens, close), np.minimum(opens, close)
    bars = {"open": opens, "high": high, "low": low, "close": close, "volume": 1.0}
    frame = pd.DataFrame(bars, index=start + every * np.arange(len(close)))
    return bt.Market.from_frames(frame, mark=frame[["open", "high", "low", "close"]])


def make_venue(fee=0.0):
    return bt.Venue(
        contract=bt.Contract(kind="linear", size=1.0),
        brackets=[bt.Bracket(0.0, 1e9, 20.0, 0.01)],
        fees=bt.Fees(taker=fee, maker=fee),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
    )


class Asks(bt.Policy):
    """Ask what a column says."""

    def observe(self, market):
        return {"asked": market.columns["asked"]}

    def leverage(self, bar, account):
        return bar.asked


def live(market, policy=None, *, fee=0.0, signal=None, **terms):
    account = bt.Account(**{"capital": 1000.0, **terms})
    chosen = policy or Constant(leverage=1.0)
    return bt.run(
        market, chosen, venue=make_venue(fee), account=account, signal=signal, compile=False
    )


def hours_of(result, kind):
    events = result.events[result.events["kind"] == kind]
    return [int(each) for each in (events["time"] - START) // HOUR]


# ------------------------------------------------------------------------------- the time stop


def test_a_position_is_closed_at_the_first_open_after_its_time():
    """Opened at the open of bar 1, closed at that of bar 4 after 3 hours, opened again in 5."""
    result = live(make_market([100.0] * 10), max_holding="3h", fee=0.001)
    assert hours_of(result, "time_stop") == [4, 8]
    assert hours_of(result, "fill") == [1, 5, 9]
    assert list(result.trades["ended"]) == ["time_stop", "time_stop", "open"]
    assert result.metrics["stops"] == 2.0
    event = result.events[result.events["kind"] == "time_stop"].iloc[0]
    assert (event["price"], event["quantity"]) == (100.0, -10.0)


@pytest.mark.parametrize(("asked", "signal", "stops"), [
    ([1, 1, 2, 2, 2, 2], None, [4]),  # an increase in bar 3 does not restart the time
    ([2, 2, 1, 1, 1, 1], None, [4]),  # nor does a reduction
    ([1, 1, 1, 1, 1, 1, 1], [1, 1, -1, -1, -1, -1, -1], [6]),  # a flip in bar 3 does
    ([1, 0, 1, 1, 1, 1, 1], None, [6]),  # and closing does
])  # fmt: skip
def test_the_time_runs_from_flat_to_flat(asked, signal, stops):
    market = make_market([100.0] * len(asked)).with_columns(asked=np.array(asked, dtype=float))
    given = None if signal is None else np.array(signal, dtype=float)
    result = live(market, Asks(), signal=given, max_holding="3h")
    assert hours_of(result, "time_stop") == stops


@pytest.mark.parametrize(("fill", "stops"), [("next_close", [5, 10]), ("same_close", [4, 8])])
def test_the_time_begins_with_the_fill(fill, stops):
    """At the close of bar 1, which is the open of bar 2; or at that of bar 0, the open of bar 1."""
    result = live(make_market([100.0] * 11), max_holding="3h", fill=fill)
    assert hours_of(result, "time_stop") == stops


def test_each_instrument_has_its_own_time():
    markets = bt.Markets({"A": make_market([100.0] * 6), "B": make_market([50.0] * 6)})
    result = live(markets, max_holding={"A": "2h", "B": None})
    events = result.events[result.events["kind"] == "time_stop"]
    assert set(events["instrument"]) == {"A"}


# ------------------------------------------------------------------------------- fees of a fund


def test_the_management_fee_is_the_wealth_times_the_years_of_each_bar():
    """36.5 % a year is 0.1 % a day: 1 of 1,000 on day 1, 0.1 % of 999 on day 2."""
    flat = make_market([100.0] * 3, every=24 * HOUR)
    result = live(flat, Constant(leverage=0.0), management_fee=0.365)
    assert list(result.bars["management_fee"]) == pytest.approx([0.0, 1.0, 0.999], abs=1e-12)
    assert list(result.bars["equity"]) == pytest.approx([1000.0, 999.0, 998.001], abs=1e-9)


def test_the_performance_fee_is_on_what_is_over_the_highest_mark():
    """Marks: 1,000; then 1,200 less 40; 1,100 is under it; 1,300 pays a fifth of 140 over 1,160."""
    days = [1, 31, 29, 31, 30]
    closes = itertools.chain.from_iterable(
        [price] * n for price, n in zip((100, 120, 114, 134, 134), days, strict=True)
    )
    market = make_market(
        [100.0, *closes], every=24 * HOUR, start=pd.Timestamp("2023-12-30", tz="UTC")
    )
    bought = Asks()
    asked = np.full(market.n_bars, np.nan)
    asked[0] = 1.0
    terms = {"performance_fee": 0.2, "performance_every": "month"}
    result = live(market.with_columns(asked=asked), bought, **terms)
    paid = result.bars["performance_fee"]
    assert dict(paid[paid > 0.0]) == pytest.approx(
        {pd.Timestamp("2024-02-01", tz="UTC"): 40.0, pd.Timestamp("2024-04-01", tz="UTC"): 28.0}
    )
    # 10 contracts from 100 to 134 gain 340
    assert result.bars["equity"].iloc[-1] == pytest.approx(1340.0 - 68.0)
    assert result.metrics["performance_fee"] == pytest.approx(68.0)
    assert result.metrics["fees"] == 0.0


def test_a_deposit_pays_no_performance_fee():
    """1,000 that arrive are no gain: the mark is a unit value."""
    flows = pd.Series([1000.0], index=[START + 5 * HOUR])
    terms = {"performance_fee": 0.5, "performance_every": "day", "flows": flows}
    result = live(make_market([100.0] * 60), **terms)
    assert result.bars["performance_fee"].sum() == 0.0


def test_the_fees_are_terms_of_the_identity_the_summary_and_what_no_trade_has():
    rising = make_market(100.0 * 1.001 ** np.arange(80))
    terms = {"management_fee": 0.5, "performance_fee": 0.2, "performance_every": "day"}
    result = live(rising, fee=0.0005, **terms)
    paid = [result.bars[f"{name}_fee"].sum() for name in ("management", "performance")]
    assert min(paid) > 0.0
    rest = result.trades.unallocated
    assert [-rest["management_fee"], -rest["performance_fee"]] == pytest.approx(paid)
    change = result.bars["equity"].iloc[-1] - 1000.0
    assert result.trades["profit"].sum() + rest.sum() == pytest.approx(change, abs=1e-9)
    growth = np.log(result.bars["equity"].iloc[-1] / 1000.0)
    assert result.attribution().growth == pytest.approx(growth)
    split = result.attribution()
    assert split.fund_fees < -sum(paid) / 1100.0
    assert split.fees > split.fund_fees
    table = result.attribution("instrument")
    assert table.loc["account", "performance_fee"] == pytest.approx(paid[1])
    assert table.loc["total", "net"] == pytest.approx(change, abs=1e-9)
    assert "performance fee" in result.summary()
    assert "management fee" in result.summary()
    assert {"performance fee", "management fee"} <= {name for name, *_ in list_money(result)}


def test_a_resumed_run_keeps_the_mark_and_the_time_of_a_position(tmp_path):
    terms = {"performance_fee": 0.2, "performance_every": "day", "max_holding": "30h"}
    market = make_market(100.0 * 1.001 ** np.arange(80))
    whole, half = live(market, **terms), live(market.prefix(35), **terms)
    half.save(tmp_path)
    (folder,) = tmp_path.iterdir() if not (tmp_path / "manifest.json").exists() else (tmp_path,)
    again = bt.run(
        market, Constant(leverage=1.0), venue=make_venue(), resume=bt.Result.load(folder),
        account=half.account, compile=False,
    )  # fmt: skip
    for name in ("equity", "performance_fee"):
        assert list(again.bars[name]) == list(whole.bars[name].iloc[35:])
    assert (again.events["kind"] == "time_stop").any()


def test_accounts_without_the_words_have_no_columns_of_them():
    result = live(bt.Markets({"A": make_market([100.0] * 5)}))
    assert not {"management_fee", "performance_fee"} & {*result.bars, *result.metrics}
    assert not any("_fee" in name or "holding" in name for name in result.account.to_dict())


@pytest.mark.slow
def test_compiled_is_plain_and_rows_of_a_sweep_are_runs():
    """With all the new words together; sets of one account, and sets that vary its fees."""
    market = bt.Market.sample(bars=900)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account(
        margin="isolated", venue_leverage=10.0, max_holding="2d", management_fee=0.1,
        performance_fee=0.2, performance_every="week",
    )  # fmt: skip
    runs = [
        bt.run(market, LiquidationDistance(), venue=venue, account=account, compile=each)
        for each in (True, False)
    ]
    assert np.array_equal(runs[0].record.values, runs[1].record.values, equal_nan=True)
    assert {"time_stop", "performance_fee", "margin_added"} <= set(runs[0].events["kind"])
    for varied, given in (
        ({"leverage": [0.5, 1.0, 2.0, 3.0]}, account),
        (
            {"leverage": [1.0], "account.management_fee": [0.0, 0.05, 0.1, 0.2]},
            bt.Account(band=0.1),
        ),
    ):
        terms = {"venue": venue, "account": given}
        table = bt.sweep(market, Constant, varied, **terms).table
        for _, row in table.iterrows():
            own = given
            if "account.management_fee" in row:
                own = bt.Account(management_fee=row["account.management_fee"], band=0.1)
            run = bt.run(market, Constant(leverage=row["leverage"]), venue=venue, account=own)
            assert row["total_return"] == run.metrics["total_return"]


# ---------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(("terms", "words"), [
    ({"max_holding": "0d"}, "a duration is a positive whole number"),
    ({"max_holding": 7}, "a duration is a positive whole number.*got .7"),
    ({"max_holding": "a week"}, "a duration is a positive whole number.*got 'a week'"),
    ({"max_holding": {"A": "1d", "B": "x"}}, "Account.max_holding, B"),
    ({"max_holding": {}}, "must name at least one"),
    ({"management_fee": -0.01}, "management_fee must be"),
    ({"management_fee": 1.0}, "management_fee must be.*got 1"),
    ({"management_fee": float("nan")}, "management_fee must be"),
    ({"performance_fee": 1.0}, "performance_fee must be"),
    ({"performance_fee": "20%"}, "performance_fee must be"),
    ({"performance_fee": 0.2, "performance_every": "yearly"}, "performance_every must be"),
    ({"performance_every": "month"}, "only with a performance_fee, got 'month'"),
])  # fmt: skip
def test_a_bad_term_is_refused_with_its_cure(terms, words):
    with pytest.raises(bt.ParameterError, match=words):
        bt.Account(**terms)


def test_a_time_of_an_unknown_instrument_is_refused():
    with pytest.raises(bt.ParameterError, match=r"got an unknown .B."):
        live(make_market([100.0] * 4), max_holding={"B": "1d"})
