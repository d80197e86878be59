"""A live account beside its policy: each part by hand, and accounts that are their policy's."""

import dataclasses
import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.live import ledger
from backtest.live.shadow import PARTS, Shadow, sum_fills
from backtest.strategies import VolTarget
from tests.kit import Hold, ask, call, check_refused

pytestmark = pytest.mark.filterwarnings("ignore")
HOURS = pd.date_range("2024-01-01", periods=6, freq="1h", tz="UTC")
OPENS = [100.0, 100.0, 110.0, 120.0, 120.0, 125.0]
CLOSES = [100.0, 110.0, 120.0, 120.0, 125.0, 125.0]


def make_test(**more: Any) -> bt.Backtest:
    """Six hours, a policy that holds 1x of 1,000: fee 0.1 %, no slippage, whole lots of one."""
    bars = {
        "open": OPENS,
        "high": np.maximum(OPENS, CLOSES) + 1,
        "low": np.minimum(OPENS, CLOSES) - 1,
        "close": CLOSES,
        "volume": 1e6,
    }
    frame = pd.DataFrame(bars, index=HOURS)
    market = bt.Market.from_frames(frame, instrument="X", now="2030-01-01")
    venue = bt.Venue.simple(
        taker=0.001, slippage=0.0, maintenance_rate=0.01, max_leverage=20.0, liquidation_fee=0.0,
        lot=1.0,
    )  # fmt: skip
    account = bt.Account(capital=1_000.0, band=0.9)  # one order: what is held is never adjusted
    return bt.Backtest(market, venue=venue, account=account, **more)


START = bt.AccountSnapshot(equity=1_000.0, time="2024-01-01T01:00Z")


def end_at(equity: float, quantity: float, entry: float) -> bt.AccountSnapshot:
    held = {"X": {"quantity": quantity, "entry": entry}} if quantity else {}
    return bt.AccountSnapshot(equity=equity, positions=held, time="2024-01-01T06:00Z")


def fill(hour: float, quantity: float, price: float, fee: float) -> dict[str, Any]:
    time = HOURS[0] + pd.Timedelta(hours=hour)
    return {"time": time, "quantity": quantity, "price": price, "fee": fee}


def follow(*fills: dict[str, Any], end: bt.AccountSnapshot, **more: Any) -> Shadow:
    """Return the account of some fills, from 1,000 at 01:00, beside the policy that holds 1x."""
    table = pd.DataFrame([*fills], columns=["time", "quantity", "price", "fee"])
    table["time"] = pd.DatetimeIndex(table["time"]).tz_convert("UTC") if fills else HOURS[:0]
    return make_test().shadow(Hold(1.0), table, [START, end], **more)


POLICY = 1_249.0
"""The policy buys 10 at 100 at 01:00, pays 1, and ends with 1000 - 1 + 10 * (125 - 100)."""


@pytest.mark.parametrize(("fills", "equity", "expected"), [
    # The same fill: nothing.
    ([fill(1, 10, 100, 1.0)], 1249.0, {}),
    # Within the hour at 104 (the range is 99 to 111): 10 * 4 worse.
    ([fill(1.5, 10, 104, 1.0)], 1209.0, {"prices": -40.0}),
    # Two parts of it: fees of .5 and .6 in place of 1.
    ([fill(1, 4, 100, 0.5), fill(1.2, 6, 100, 0.6)], 1248.9, {"fees": -0.1}),
    # Six: 4 less of 25 profit, .4 less of fee.
    ([fill(1, 6, 100, 0.6)], 1149.4, {"sizes": -99.6}),
    # None: the order was missed; without it 1,000.
    ([], 1000.0, {"orders": -249.0}),
    # A second one at 03:00, at 120: 2 * 5 profit less .24 of fee.
    ([fill(1, 10, 100, 1.0), fill(3, 2, 120, 0.24)], 1258.76, {"orders": 9.76}),
    # The snapshot has 7 less than the fills explain.
    ([fill(1, 10, 100, 1.0)], 1242.0, {"unexplained": -7.0}),
    # All at once: 8 in place of 10 (-49.8 as sizes), at 103 (-24), for 1.1 (-.3), 1 missing.
    ([fill(1.5, 8, 103, 1.1)], 1173.9,
     {"sizes": -49.8, "prices": -24.0, "fees": -0.3, "unexplained": -1.0}),
])  # fmt: skip
def test_each_part_by_hand(fills, equity, expected):
    quantity = sum(row["quantity"] for row in fills)
    shadow = follow(*fills, end=end_at(equity, quantity, 100.0))

    assert shadow.policy == pytest.approx(POLICY, abs=1e-9)
    for part in PARTS:
        assert shadow.parts[part] == pytest.approx(expected.get(part, 0.0), abs=1e-9), part
    assert sum(shadow.parts.values()) == pytest.approx(equity - POLICY, abs=1e-9)
    assert not shadow.differing


def test_an_order_has_what_its_fills_come_to(tmp_path):
    """Ten at a modeled 100: 4 at 101 and 4 at 103 are 8 at 102, 8 * 2 worse; none is a miss."""
    shadow = follow(fill(1.2, 4, 101, 0.4), fill(1.5, 4, 103, 0.4), end=end_at(1233.2, 8.0, 100.0))
    assert list(shadow.orders) == [
        *("time", "instrument", "quantity", "price"),
        *("filled", "fill_price", "first_fill", "price_cost"),
    ]
    (order,) = shadow.orders.to_dict("records")
    assert (order["quantity"], order["price"]) == (10.0, 100.0)
    assert (order["filled"], order["fill_price"], order["price_cost"]) == (8.0, 102.0, 16.0)
    assert order["first_fill"] == pd.Timestamp("2024-01-01T01:12Z")
    assert shadow.parts["prices"] == pytest.approx(-16.0)

    missed = follow(end=end_at(1000.0, 0.0, 100.0))
    (order,) = missed.orders.to_dict("records")
    assert (order["filled"], order["price_cost"]) == (0.0, 0.0)
    assert pd.isna(order["fill_price"])
    assert pd.isna(order["first_fill"])
    (saved,) = missed.to_dict()["orders"]
    assert saved["first_fill"] is None
    missed.report(tmp_path / "missed.md")
    assert "| 10 | 100 | 0 | - | - | 0.00 |" in (tmp_path / "missed.md").read_text()


def test_the_mean_price_of_an_inverse_contract_is_that_of_its_value():
    """100 USD a contract: one at 100 is a coin, one at 200 half of one: .75 each, at 133.33."""
    contract = bt.Contract(kind="inverse", size=100.0)
    setup: Any = SimpleNamespace(
        markets=SimpleNamespace(names=["X"]), venues={"X": SimpleNamespace(contract=contract)}
    )
    order = pd.Series({"instrument": "X", "price": 100.0, "quantity": 2.0})
    fills = pd.DataFrame({"time": HOURS[:2], "quantity": [1.0, 1.0], "price": [100.0, 200.0]})

    found = sum_fills(setup, order, fills)
    assert found["fill_price"] == pytest.approx(400.0 / 3.0)
    assert found["price_cost"] == pytest.approx(2.0 * (1.0 - 0.75))


def test_a_fill_in_a_later_bar_of_the_interval_is_timing():
    """With decisions every 2 hours the order at 02:00 has the fill at 03:00, at the open of 120.

    The policy buys 8 at 110 (1000 / 110.11 is 9.08: nine), pays .99 and ends with
    1000 - .99 + 9 * 15 = 1134.01. At 120: fee 9 * .12 = 1.08 and 9 * 5 of profit: 1043.92.
    """
    test = make_test().replace(decision_interval="2h")
    table = pd.DataFrame([fill(3, 9, 120.0, 1.08)])
    begin = bt.AccountSnapshot(equity=1_000.0, time="2024-01-01T02:00Z")
    shadow = test.shadow(Hold(1.0), table, [begin, end_at(1043.92, 9.0, 120.0)])

    assert shadow.policy == pytest.approx(1134.01, abs=1e-9)
    assert shadow.parts["timing"] == pytest.approx(1043.92 - 1134.01, abs=1e-9)
    assert sum(abs(shadow.parts[part]) for part in PARTS if part != "timing") < 1e-9
    assert len(shadow.missed) == len(shadow.extra) == 0


def test_deposits_are_a_part_of_their_own():
    """100 at 04:00 stay in cash: the band keeps the position."""
    bought = fill(1, 10, 100, 1.0)
    flows = pd.Series([100.0], index=[HOURS[4]])
    shadow = follow(bought, end=end_at(1349.0, 10.0, 100.0), flows=flows)
    assert shadow.parts["deposits"] == pytest.approx(100.0, abs=1e-9)
    assert abs(shadow.parts["unexplained"]) < 1e-9

    late = pd.Series([100.0], index=[HOURS[5] + pd.Timedelta(hours=5)])
    shadow = follow(bought, end=end_at(1249.0, 10.0, 100.0), flows=late)
    assert shadow.parts["deposits"] == 0.0


def test_funding_of_a_ledger_replaces_what_was_modeled():
    """The market has none, the ledger says that 3 were paid and 1 received."""
    rows = {"time": [HOURS[2], HOURS[4]], "term": "funding", "amount": [-3.0, 1.0]}
    bought = fill(1, 10, 100, 1.0)
    shadow = follow(bought, end=end_at(1247.0, 10.0, 100.0), flows=pd.DataFrame(rows))
    assert shadow.parts["funding"] == pytest.approx(-2.0, abs=1e-9)
    assert abs(shadow.parts["unexplained"]) < 1e-9

    end = end_at(1.0, 0.0, 1.0)
    misspelt = pd.DataFrame({**rows, "term": "fundng"})
    words = "did you mean 'funding'"
    check_refused(lambda: follow(end=end, flows=misspelt), words, bt.ParameterError)


def test_a_ledger_with_the_funding_of_some_settlements_is_warned_of():
    """The account of a run holds a position at each settlement from the first on that it pays."""
    market = bt.Market.sample(bars=200)
    test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=bt.Account(capital=1e4))
    whole = test.run(VolTarget(), compile=False)
    begin, end = take_snapshot(whole, 110), take_snapshot(whole, 191)
    fills = whole.fills
    fills = fills[(fills["time"] >= begin.time) & (fills["time"] < end.time)]

    events = whole.events
    paid = events[(events["kind"] == "funding") & (events["time"] >= begin.time)]
    paid = paid[paid["time"] < end.time]
    times = paid["time"].to_list()
    assert len(times) > 8

    # Rows of a venue come some seconds late.
    rows = pd.DataFrame({"time": times, "term": "funding", "amount": 0.5})
    rows["time"] += pd.Timedelta("8s")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        test.shadow(VolTarget(), fills, [begin, end], flows=rows)

    words = (
        f"but not of {len(times) - 1} of the {len(times)} settlements at which the account held a "
        f"position, the first at {times[1]:%Y-%m-%d}"
    )
    with pytest.warns(UserWarning, match=words):
        test.shadow(VolTarget(), fills, [begin, end], flows=rows[:1])


def test_a_day_with_one_of_its_three_settlements_is_warned_of():
    market = bt.Market.sample(bars=24 * 12).resample("1d")
    test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=bt.Account(capital=1e4))
    whole = test.run(Hold(1.0), compile=False)
    begin, end = take_snapshot(whole, 4), take_snapshot(whole, 6)
    fills = whole.fills
    fills = fills[(fills["time"] >= begin.time) & (fills["time"] < end.time)]

    times = pd.date_range(begin.time, periods=6, freq="8h")
    rows = pd.DataFrame({"time": times, "term": "funding", "amount": 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        test.shadow(Hold(1.0), fills, [begin, end], flows=rows)
    with pytest.warns(UserWarning, match="but not of 2 of the 6 .*, the first at .* 08:00 UTC"):
        test.shadow(Hold(1.0), fills, [begin, end], flows=rows.drop([1, 5]))


def test_what_is_unexplained_is_named_first():
    shadow = follow(fill(1.5, 10, 104, 1.0), end=end_at(1208.0, 10.0, 104.0))
    assert "from its policy: unexplained -1.00, prices -40.00." in shadow.verdict
    assert not shadow.is_explained

    same = follow(fill(1, 10, 100, 1.0), end=end_at(1249.0, 10.0, 100.0))
    assert same.verdict == "The account is its policy's: 1,249.00."


def test_quantities_that_the_fills_do_not_give_are_a_notice():
    shadow = follow(fill(1, 10, 100, 1.0), end=end_at(1249.0, 8.0, 100.0))

    assert shadow.differing == {"X": (10.0, 8.0)}
    assert "The fills leave 10 contracts of X" in shadow.notices[0]
    assert "The fills leave 10 contracts of X" in " ".join(shadow.summary().split())


@pytest.mark.parametrize(("time", "quantity", "said"), [
    ("03:00", 10.0, ""),
    ("03:30", 12.0, ""),  # the fill of 03:12 is between the close of 03:00 and the snapshot
    ("03:10", 10.0, ""),
    ("03:00", 12.0, "up to 2024-01-01 03:00 UTC leave 10 contracts of X, the snapshot of that "
                    "time has 12"),
    ("03:30", 0.0, "up to 2024-01-01 03:30 UTC leave 12 contracts of X, the snapshot of that "
                   "time has 0"),
])  # fmt: skip
def test_the_quantities_of_each_snapshot_are_those_of_the_fills_up_to_it(time, quantity, said):
    held = {"X": {"quantity": quantity, "entry": 100.0}} if quantity else {}
    middle = bt.AccountSnapshot(equity=1_199.0, positions=held, time=f"2024-01-01T{time}Z")
    table = pd.DataFrame([fill(1, 10, 100, 1.0), fill(3.2, 2, 120, 0.24)])
    end = end_at(1258.76, 12.0, 100.0)
    shadow = make_test().shadow(Hold(1.0), table, [START, middle, end])

    assert not shadow.differing
    assert bool(shadow.first_differing) == bool(said)
    assert said in " ".join(shadow.notices)
    assert len(shadow.notices) == bool(said)
    assert said in " ".join(shadow.summary().split())
    assert shadow.to_dict()["notices"] == [*shadow.notices]


def test_fills_that_add_up_to_nothing_differ_from_no_position_by_nothing():
    """.1 + .2 - .3 is 5.6e-17."""
    parts = [fill(1.1, 0.1, 100, 0.0), fill(1.2, 0.2, 100, 0.0), fill(1.3, -0.3, 100, 0.0)]
    middle = bt.AccountSnapshot(equity=1_000.0, time="2024-01-01T01:30Z")
    table = pd.DataFrame(parts)
    shadow = make_test().shadow(Hold(1.0), table, [START, middle, end_at(1000.0, 0.0, 0.0)])
    assert not shadow.notices


def misstate(snapshot: bt.AccountSnapshot, amount: float) -> bt.AccountSnapshot:
    """Return a snapshot whose equity, and peak with it, is off by an amount."""
    assert snapshot.equity is not None
    assert snapshot.peak_equity is not None
    equity = snapshot.equity + amount
    peak = max(snapshot.peak_equity, equity)
    return dataclasses.replace(snapshot, equity=equity, peak_equity=peak)


@pytest.mark.parametrize(("at_end", "said"), [
    (0.0, "is +100.00, on 2023-01-06, and +0.00 is unexplained at the end"),
    (-5.0, "is -105.00, on 2023-01-08, and -5.00 is unexplained at the end"),
    (100.0, "is +100.00, on 2023-01-06, and +100.00 is unexplained at the end"),
])  # fmt: skip
def test_what_a_snapshot_between_leaves_unexplained_is_named(at_end, said):
    """The close of bar 143 ends 2023-01-06, and that of 191 2023-01-08."""
    market = bt.Market.sample(bars=240)
    test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=bt.Account(capital=1e4))
    policy = VolTarget()
    whole = test.run(policy, compile=False)

    begin, middle, end = (take_snapshot(whole, bar) for bar in (110, 143, 191))
    fills = whole.fills
    fills = fills[(fills["time"] >= begin.time) & (fills["time"] < end.time)]
    right = test.shadow(policy, fills, [begin, middle, end])
    assert not right.notices

    shadow = test.shadow(policy, fills, [begin, misstate(middle, 100.0), misstate(end, at_end)])
    assert said in shadow.notices[0]
    assert len(shadow.notices) == 1


def test_an_account_that_is_assumed_to_begin_long_before_its_fills_is_warned_of(tmp_path, capsys):
    """The cure is tried: with it the policy buys when the account did, and nothing is warned of."""
    market = bt.Market.sample(bars=24 * 45)
    account = bt.Account(capital=1e4)
    test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=account)
    first = 24 * 40 + 3
    begin = pd.Timestamp(int(market.time[first]), tz="UTC")
    price = float(market.open[first])
    table = pd.DataFrame([{
        "time": begin + pd.Timedelta("7s"), "instrument": "SYNTHETIC-PERP", "quantity": 0.1,
        "price": price, "fee": 0.0, "fee_currency": "USDT",
    }])  # fmt: skip
    held = {"SYNTHETIC-PERP": {"quantity": 0.1, "entry": price}}
    end = bt.AccountSnapshot(equity=1e4, positions=held, time=begin + pd.Timedelta("1d"))

    words = "40 days before its first fill, 2023-02-10 03:00:07, in which"
    with pytest.warns(UserWarning, match=words) as heard:
        late = test.shadow(Hold(1.0), table, [end])
    said = next(str(one.message) for one in heard if words in str(one.message))
    assert (
        "; `--start 2023-02-10T03:00`, in Python start='2023-02-10T03:00', begins it with that fill"
        in said
    )
    assert len(late.bars) == first + 24 - 1

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is taken to begin")
        shadow = test.replace(start="2023-02-10T03:00").shadow(Hold(1.0), table, [end])
        begun = bt.AccountSnapshot(equity=1e4, time=begin)
        same = test.shadow(Hold(1.0), table, [begun, end])
    assert len(shadow.bars) == 24
    assert not len(shadow.missed[shadow.missed["time"] == begin])
    assert shadow.parts == same.parts

    # The page names the span that is compared, not that of the data.
    assert "2023-02-10 03:00 to 2023-02-11 03:00 UTC, 24 bars of 1h" in shadow.summary()

    # By the command as well.
    market.save(tmp_path / "x")
    table.to_csv(tmp_path / "fills.csv", index=False)
    (tmp_path / "end.json").write_text(json.dumps(end.to_dict()), encoding="utf-8")
    code, out, _ = call(
        capsys,
        "shadow", "--data", tmp_path / "x", "--venue", "binance-usdm:BTCUSDT", "--policy",
        "constant", "--fills", tmp_path / "fills.csv", "--snapshot", tmp_path / "end.json",
        "--no-save", "--start", "2023-02-10T03:00",
    )  # fmt: skip
    assert code == 0
    assert "24 bars of 1h" in out


def test_the_policy_decides_when_the_account_begins_and_a_run_one_bar_later():
    """A run from 02:00 buys at 03:00, at 120; the account from 02:00 buys 9 at 110, as does a run
    from 01:00: 1000 - .99 + 9 * 15.
    """
    test = make_test()
    shadow = test.replace(start=HOURS[2]).shadow(
        Hold(1.0), pd.DataFrame([fill(2, 9, 110, 0.99)]), [end_at(1134.01, 9.0, 110.0)]
    )
    earlier = test.replace(start=HOURS[1]).run(Hold(1.0), compile=False)
    later = test.replace(start=HOURS[2]).run(Hold(1.0), compile=False)

    assert shadow.policy == pytest.approx(1134.01, abs=1e-9)
    assert earlier.of_account("equity")[-1] == pytest.approx(shadow.policy, abs=1e-9)
    assert later.fills["time"].iloc[0] == HOURS[3]
    assert shadow.details.endswith(
        "The account begins 2024-01-01 02:00 UTC, and its policy may trade in the first bar, a run "
        "from there in the second."
    )


def test_rounding_is_shown_as_nothing():
    """A part of less than 1e-9 of the capital is 0.00, one of .00025 has two digits."""
    shadow = follow(fill(1, 10, 100, 1.0), end=end_at(1249.0, 10.0, 100.0))
    parts = {**dict.fromkeys(PARTS, 0.0), "timing": -1.8e-12, "fees": 0.00025}
    days = shadow.days.assign(timing=-1.8e-12, fees=0.00025)
    bars = shadow.bars.assign(timing=shadow.bars["deposits"] + 1.8e-12)
    shown = dataclasses.replace(shadow, parts=parts, days=days, bars=bars)

    text = " ".join(shown.summary(verbose=True).split())
    assert "timing 0.00 fills" in text
    assert "fees 0.00025 other" in text
    assert "e-12" not in text
    for part in shown.list_parts():
        for block in part.list_blocks():
            table = getattr(block, "table", None)
            if isinstance(table, pd.DataFrame) and "timing" in table:
                assert not table["timing"].any(), part.key


def take_snapshot(result: bt.Result, bar: int) -> bt.AccountSnapshot:
    """Return the account of a run at the close of a bar."""
    held = {}
    for i, name in enumerate(result.names):
        quantity = float(result.of_positions("quantity")[bar, i])
        if quantity:
            entry = float(result.of_positions("entry")[bar, i])
            held[name] = {"quantity": quantity, "entry": entry}
    time = pd.Timestamp(int(result.span.closes[bar]), tz="UTC").isoformat()
    equity = float(result.of_account("equity")[bar])
    return bt.AccountSnapshot(equity=equity, positions=held, time=time, peak_equity=equity)


@pytest.mark.parametrize("seed", range(3))
def test_an_account_that_is_its_policys_has_no_parts(seed):
    """Also with positions, funding and several snapshots: its fills are those of the run."""
    rng = np.random.default_rng(seed)
    market = bt.Market.sample(bars=260, seed=seed)
    capital = float(rng.uniform(5e3, 5e4))
    band = float(rng.uniform(0, 0.1))
    account = bt.Account(capital=capital, band=band)
    test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=account)
    policy = VolTarget(target=float(rng.uniform(0.3, 1.2)))
    whole = test.run(policy, compile=False)

    bars = [int(rng.integers(110, 160)), 200, len(whole.time) - 1]
    snapshots = [take_snapshot(whole, bar) for bar in bars]
    fills = whole.fills[whole.fills["time"] >= snapshots[0].time]
    shadow = test.shadow(policy, fills, snapshots)

    tolerance = 1e-9 * shadow.account
    assert all(abs(part) <= tolerance for part in shadow.parts.values()), shadow.parts
    assert not len(shadow.missed)
    assert not len(shadow.extra)

    known = shadow.bars["account"].dropna()
    assert len(known) == 2
    np.testing.assert_allclose(known, shadow.bars.loc[known.index, "policy"], rtol=1e-9)


@pytest.mark.parametrize(("snapshots", "said"), [
    ([], "snapshots must be a list"),
    (7, "snapshots must be a list"),
    ([START, bt.AccountSnapshot(equity=1.0)], "must have a time each"),
    ([START, bt.AccountSnapshot(equity=1.0, time="2024-01-01T06:00Z",
                                positions={"Y": {"quantity": 1.0, "entry": 1.0}})],
     "has no instrument 'Y'"),
    ([START, START], "must span a bar of the market"),
    ([replace(START, equity=0.0), end_at(1.0, 0, 0)], "an equity over 0"),
    ([replace(START, equity=-5.0), end_at(1.0, 0, 0)], "got -5.00 at 2024-01-01 01:00"),
    ([bt.AccountSnapshot(equity=1.0, time="2023-12-31"), START], "must span a bar"),
    ([START, bt.AccountSnapshot(equity=1.0, time="2025-01-01")], "must be within the data"),
])  # fmt: skip
def test_snapshots_that_span_nothing_are_refused(snapshots, said):
    table = pd.DataFrame([fill(1, 10, 100.0, 1.0)])
    check_refused(lambda: make_test().shadow(Hold(1.0), table, snapshots), said, bt.ParameterError)


def test_fills_outside_the_snapshots_are_left_out_and_said():
    inside = fill(1, 10, 100, 1.0)
    outside = fill(0.5, 1, 100, 0.1)
    with pytest.warns(UserWarning, match="fills lie outside the snapshots"):
        shadow = follow(outside, inside, end=end_at(1249.0, 10.0, 100.0))

    assert abs(sum(shadow.parts.values())) < 1e-9


def test_each_call_writes_its_days_and_other_fills_replace_them(tmp_path):
    live = {"end": end_at(1249.0, 10.0, 100.0), "store": tmp_path, "experiment": "live"}
    follow(fill(1, 10, 100, 1.0), **live)
    rows = ledger.read_ledger(tmp_path)
    assert rows[["experiment", "day"]].to_numpy().tolist() == [["live", "2024-01-01"]]
    assert rows["account"].tolist() == [1249.0]

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the same fills again say nothing
        follow(fill(1, 10, 100, 1.0), **live)
    with pytest.warns(UserWarning, match="other fills replace 1 day of live"):
        follow(fill(1, 10, 101, 1.0), **live)

    follow(fill(1, 10, 100, 1.0), **{**live, "experiment": "other"})
    rows = ledger.read_ledger(tmp_path)
    assert rows["experiment"].tolist() == ["live", "other"]
    assert rows["prices"].tolist() == pytest.approx([-10.0, 0.0])

    ledger.find_ledger(tmp_path).write_bytes(b"no parquet")
    check_refused(lambda: ledger.read_ledger(tmp_path), "must be the ledger of", bt.DataError)


@pytest.mark.parametrize(("drifts", "said"), [
    ([-1e-4] * 19, ""),  # too few days
    ([-1e-4, -2e-4] * 10, "Over 20 days the account drifts from its policy by -1.5"),
    ([1e-3, -1e-3] * 15, ""),  # no drift
    ([1e-4] * 25, "no variation"),
])  # fmt: skip
def test_a_drift_over_two_standard_errors_is_one_sentence(drifts, said):
    """-1 and -2 bp by turns: mean -1.5 bp, standard error .5 / sqrt(19) = .115 bp."""
    zero = dict.fromkeys(("timing", "sizes", "orders", "fees", "funding", "unexplained"), 0.0)
    rows = pd.DataFrame([{**zero, "prices": 1e4 * drift, "policy": 1e4} for drift in drifts])
    text = ledger.describe_drift(rows)

    if said:
        assert said in text
    else:
        assert text == ""
    assert text.count(".") <= 5


def test_a_command_follows_an_account_and_writes_its_page(tmp_path, capsys):
    test = make_test()
    test.market.save(tmp_path / "x")

    (tmp_path / "live.toml").write_text(
        """
[data]
path = "x"
[policy]
name = "constant"
settings = { leverage = 1.0 }
[venue]
contract = { lot = 1.0, tick = 1e-8, min_notional = 0.0 }
brackets = [{ floor = 0, cap = inf, max_leverage = 20, maintenance_rate = 0.01 }]
fees = { taker = 0.001, maker = 0.001 }
slippage = { rate = 0.0 }
liquidation = { fee = 0.0, slippage = 0.0 }
[account]
capital = 1000
band = 0.9
""",
        encoding="utf-8",
    )
    fills = tmp_path / "fills.csv"
    pd.DataFrame([fill(1, 10, 100, 1.0)]).to_csv(fills, index=False)
    account = tmp_path / "account.json"
    rows = [START.to_dict(), end_at(1248.0, 10.0, 100.0).to_dict()]
    account.write_text(json.dumps(rows), encoding="utf-8")
    words = (
        "shadow", tmp_path / "live.toml", "--fills", fills, "--snapshot", account,
        "--results", tmp_path / "results",
    )  # fmt: skip

    shown = ask(capsys, *words)
    assert shown["parts"]["unexplained"] == pytest.approx(-1.0)
    assert Path(shown["ledger"]).exists()

    code, out, _ = call(capsys, *words, "--report", tmp_path / "page.html")
    assert code == 0
    assert "unexplained -1" in " ".join(out.split())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Both accounts" in page
    assert "Parts of the difference" in page

    # Only the ledger is saved: no command opens a shadow again, and its folder is no result.
    assert "backtest report" not in page
    assert "made in Python" not in page
    code, out, _ = call(capsys, "results", "list", "--results", tmp_path / "results")
    assert code == 0
    assert "not readable" not in out

    assert call(capsys, *words[:2])[0] == 2
