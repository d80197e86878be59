"""Options in runs: inputs, values, rolls, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account import OptionFeed
from backtest.options import schedule_options
from backtest.options.option_inputs import find_nearest, read_option_feed
from backtest.strategies import Collar, Constant, CoveredCall, TailHedge, VolTarget
from tests.kit import Hold, check_refused, market_of
from tests.options.listed_markets import PUT, make_chain, make_markets, make_surfaces, make_venue
from tests.strategies.test_strategies_options import find_fills, run

STAMPS = ["2023-01-01 12:00", "2023-01-02 12:30", "2023-01-03 00:00", "2023-01-05 07:10"]
SIGNALS = {
    "the default": {},
    "a rule": {"signal": "breakout:5"},
    "an overlay": {"overlay": VolTarget(target=0.4, half_life=24.0)},
}
YEAR = 365.0 * 24.0
pytestmark = pytest.mark.filterwarnings("ignore:volatility is flat before")
HEDGE = TailHedge(Constant(3.0), delta=-0.1, tenor=12.0, roll=5.0, budget=0.01)
COIN = bt.Option("BTC-27JAN23-30000-P")


class Buys(Hold):
    """Hold a put from the first close at which it is listed."""

    def option_orders(self, bar, account, chain):
        return {name: (name, 1.0) for name, each in chain.items() if each.quantity == 0.0}


def run_plain(markets, policy, **more):
    settings = {"venue": make_venue(), "account": bt.Account(capital=30_000.0), **more}
    return bt.run(markets, policy, **settings, compile=False)


def make_pair(*, has_options: bool):
    markets = {"BTC": bt.Market.sample(bars=120), "B": bt.Market.sample(bars=120, seed=3)}
    if not has_options:
        return bt.Markets(markets)

    surfaces = {"BTC": make_surfaces(["2023-01-01 06:30"])}
    return bt.Markets({**markets, "PUT": PUT}, surfaces=surfaces)


@pytest.mark.parametrize("name", SIGNALS)
def test_options_that_are_never_held_change_no_byte(name):
    """B9: bars, positions of the instruments, events and measures are those without options."""
    policy = VolTarget(target=0.6, half_life=24.0)
    with_options = run_plain(make_pair(has_options=True), policy, **SIGNALS[name])
    without = run_plain(make_pair(has_options=False), policy, **SIGNALS[name])
    assert without.bars.equals(with_options.bars[[*without.bars]])
    assert without.events.equals(with_options.events)

    positions = with_options.positions
    of_instruments = positions[positions["instrument"] != "PUT"][[*without.positions]]
    expected = without.positions.reset_index(drop=True)
    assert expected.equals(of_instruments.reset_index(drop=True))

    shared = {measure: with_options.metrics[measure] for measure in without.metrics}
    np.testing.assert_equal(shared, dict(without.metrics))

    # The run again, at a constant leverage, lists the options too.
    constants = [bt.equal_risk(result) for result in (without, with_options)]
    assert constants[0].leverage == constants[1].leverage


def make_snapshots(shift: float, changed: int, row: int, bars: int = 240) -> bt.Markets:
    """Return a put with rows of its own, and chains and surfaces, one of them shifted."""
    chain = make_chain(STAMPS, shift, changed)
    rows = chain.table[(chain.table.expiry == "2023-01-08 12:00") & (chain.table.kind == "put")]
    surfaces = {"BTC": make_surfaces(STAMPS, shift=shift, at=changed)}
    put = {"PUT": PUT.override(strike=float(rows["strike"].iloc[row]))}
    return make_markets(bars=bars, options=put, chains={"BTC": chain}, surfaces=surfaces)


def test_orders_of_a_policy_equal_a_schedule():
    markets = make_markets(bars=120)
    ordered = run_plain(markets, Buys(level=1.0))
    assert (ordered.events["kind"] == "fill").any()

    frame = pd.DataFrame({"PUT": 1.0}, index=markets.times[6:7])
    scheduled = run_plain(markets, Hold(level=1.0), option_quantities=frame)
    assert ordered.bars.equals(scheduled.bars)
    assert ordered.manifest["id"] != scheduled.manifest["id"]

    bare = run_plain(markets, Hold(level=1.0))
    assert ordered.bars["equity"].iloc[-1] != bare.bars["equity"].iloc[-1]


class Insists(Hold):
    def option_orders(self, bar, account, chain):
        return {"put": ("PUT", 1.0)}


def test_a_contract_is_not_traded_before_its_first_surface_nor_after_its_expiry():
    result = run_plain(make_markets(), Insists(level=0.0))
    events = result.events[result.events["instrument"] == "put:PUT"]

    counts = events["kind"].value_counts()
    assert counts[["unquoted", "fill", "expiry"]].tolist() == [6, 1, 1]

    # Ordered from the first close on: six opens before the surface of 6:30 have no price, and the
    # order of the close at which it expires is for no open.
    unquoted = pd.date_range("2023-01-01 01:00", periods=6, freq="h", tz="UTC")
    assert events.loc[events["kind"] == "unquoted", "time"].tolist() == unquoted.tolist()

    listed = pd.Timestamp("2023-01-01 07:00", tz="UTC")
    assert events.loc[events["kind"] == "fill", "time"].tolist() == [listed]
    assert result.positions["quantity"].iloc[-1] == 0.0


def test_expiries_and_funding_inside_a_bar_come_by_stamp():
    """Funding at 12:00 and 12:20, an expiry at 12:20, funding at 12:40."""
    stamps = pd.date_range("2023-01-01", periods=720, freq="20min", tz="UTC")
    terms = {"funding": pd.DataFrame({"rate": 1e-5}, index=stamps)}
    funded = market_of(np.full(240, 29_500.0), start="2023-01-01", terms=terms, volume=1e6)
    option = PUT.override(expiry="2023-01-08 12:20", settlement_price=29_000.0)
    surfaces = {"BTC": make_surfaces(["2023-01-01 06:30"])}
    markets = bt.Markets({"BTC": funded, "PUT": option}, surfaces=surfaces)
    frame = pd.DataFrame({"PUT": 1.0}, index=markets.times[6:7])
    events = run_plain(markets, Hold(level=1.0), option_quantities=frame).events

    of_bar = events[events["time"] == "2023-01-08 12:00"]
    kinds = of_bar["kind"][of_bar["kind"].isin(["funding", "expiry"])]
    assert kinds.tolist() == ["funding", "funding", "expiry", "funding"]


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_run_goes_on_with_the_options_that_a_result_holds(is_saved, tmp_path):
    """A put is held over the end of the first part; the second sells it."""
    longer = make_markets(bars=60)
    short = make_markets(bars=30)
    quantities = pd.DataFrame({"PUT": [1.0, 0.0]}, index=longer.times[[6, 40]])

    first = run_plain(short, Hold(level=1.0), option_quantities=quantities[:1])
    if is_saved:
        first = bt.Result.load(first.save(tmp_path))
    listed = first.manifest["data"]["options"]
    assert listed["underlyings"] == {"PUT": "BTC"}
    assert listed["quantities"]

    rest = run_plain(longer, Hold(level=1.0), resume=first, option_quantities=quantities)
    whole = run_plain(longer, Hold(level=1.0), option_quantities=quantities)
    assert rest.bars["equity"].equals(whole.bars["equity"][rest.bars.index])


def read(markets: bt.Markets, venue: bt.Venue | None = None) -> OptionFeed:
    return read_option_feed(markets, {"BTC": venue or make_venue()}, markets.panel())


def test_time_volatility_and_basis_are_those_of_the_last_surface():
    """The basis of the snapshot, 6 % a year, shrinks with the time left; 7 days are quoted."""
    surfaces = make_surfaces(["2023-01-01 12:00"], 0.6, carry=0.06)
    markets = make_markets(surfaces={"BTC": surfaces})
    feed = read(markets)

    assert not feed.are_listed[:12].any()
    assert feed.are_listed[12:180, 0].all()
    assert not feed.are_listed[180:].any()

    assert feed.years_open[12, 0] == pytest.approx(168 / YEAR)
    assert feed.years_close[12, 0] == pytest.approx(167 / YEAR)
    assert feed.ages[12, 0] == pytest.approx(1 / 24)

    assert np.isnan(feed.volatilities_close[10, 0])  # the close at 11:00 knows no surface
    assert np.isnan(feed.volatilities_close[11, 0])  # nor that at 12:00: stamped strictly before
    assert feed.volatilities_open[12:180, 0] == pytest.approx(0.6)

    hours_left = 168 - np.arange(168)
    bases = np.exp(0.06 * hours_left / YEAR)
    assert feed.bases_open[12:180, 0] == pytest.approx(bases, rel=1e-12)

    assert (feed.expiry_bars[0], feed.are_inside[0]) == (180, 0)
    assert feed.expiry_spots[0] == markets["BTC"].mark_open[180]


def test_own_rows_replace_the_model_while_they_are_young():
    expiry = "2023-01-08 12:00"
    chain = make_chain(["2023-01-01 12:20"])
    puts = chain.table[(chain.table.expiry == expiry) & (chain.table.kind == "put")]
    row = puts.iloc[10]
    put = PUT.override(strike=float(row["strike"]), expiry=expiry)
    feed = read(make_markets(options={"PUT": put}, chains={"BTC": chain}, quote_age="2h"))

    # Known at the close of 12:00 to 13:00, and two hours old at the open of 15:00.
    assert np.flatnonzero(feed.has_quotes[:, 0]).tolist() == [13, 14]
    assert np.flatnonzero(np.isfinite(feed.marks_close[:, 0])).tolist() == [12, 13]
    assert feed.marks_open[13, 0] == row["mark"]
    assert (feed.bids[13, 0], feed.asks[13, 0]) == (row["bid"], row["ask"])
    assert feed.volatilities_open[13, 0] == row["iv"]

    assert feed.half_spreads[12, 0] == 0.01  # as the venue says
    assert feed.half_spreads[13:, 0] == pytest.approx(0.01, abs=2e-3)  # of the last two sides
    assert np.isnan(feed.half_prices[12, 0])
    assert feed.half_prices[13:, 0] == pytest.approx(0.5 * (row["ask"] - row["bid"]))


def test_settlement_is_the_price_given_the_mean_of_closes_or_the_mark_open():
    markets = make_markets()
    btc = markets["BTC"]
    assert read(markets).expiry_spots[0] == btc.mark_open[180]

    costs = make_venue().option_costs.override(delivery_window="3h")
    venue = make_venue(option_costs=costs)
    assert read(markets, venue).expiry_spots[0] == np.mean(btc.mark_close[177:180])

    priced = make_markets(options={"PUT": PUT.override(settlement_price=31_000.0)})
    assert read(priced, venue).expiry_spots[0] == 31_000.0

    inside = read(make_markets(options={"PUT": PUT.override(expiry="2023-01-08 12:20")}))
    assert (inside.expiry_bars[0], inside.are_inside[0]) == (180, 1)
    assert inside.expiry_spots[0] == btc.mark_open[180]

    ends_before = read(make_markets(bars=100))
    assert ends_before.expiry_bars[0] == -1


def test_schedules_fill_at_the_next_open_and_end_with_the_contract():
    markets = make_markets()
    frame = pd.DataFrame({"PUT": 2.0}, index=markets.times[[20, 178, 179, 200]])
    scheduled = schedule_options(markets, frame)

    targets = read(scheduled).targets[:, 0]
    assert np.flatnonzero(np.isfinite(targets)).tolist() == [21, 179]
    assert markets.listing.quantities is None
    assert scheduled.content_hash != markets.content_hash


@pytest.mark.parametrize("changed", range(len(STAMPS)))
def test_a_later_snapshot_changes_nothing_before_it(changed):
    """Truth 8: every array of the feed is equal bit for bit up to the snapshot that changed."""
    before = read(make_snapshots(0.0, changed, row=10))
    after = read(make_snapshots(0.05, changed, row=10))
    opens = pd.date_range("2023-01-01", periods=240, freq="1h", tz="UTC")
    closes = opens + pd.Timedelta(hours=1)
    stamp = pd.Timestamp(STAMPS[changed], tz="UTC")

    differs = False
    arrays = OptionFeed._fields[OptionFeed._fields.index("years_open") :]
    for name in arrays:
        is_known = opens < stamp
        if name.endswith("_close") or name == "ages":
            is_known = closes <= stamp
        one = getattr(before, name)
        two = getattr(after, name)
        assert np.array_equal(one[is_known], two[is_known], equal_nan=True), name
        differs |= not np.array_equal(one[~is_known], two[~is_known], equal_nan=True)

    assert differs


@pytest.fixture(scope="module")
def hedged() -> bt.Result:
    """Return nine days with a put that is sold for another."""
    return run(HEDGE, days=9)


def test_a_roll_costs_premium_less_proceeds_and_fees(hedged: bt.Result):
    """Two puts: the first is bought in bar 2 and sold in bar 176, the second is held to the end.
    The fee of a fill is 0.0003 of the price of 30,000, at most 0.125 of the premium; each fill is
    one point of volatility worse than the mark."""
    fills = find_fills(hedged)
    quantity = fills["quantity"].to_numpy()
    price = fills["price"].to_numpy()
    mark = hedged.positions.query("instrument == 'tail:P26-20'")["mark"].iloc[-1]
    rolls = hedged.rolls()
    assert rolls["contract"].tolist() == ["P26-13", "P26-20"]
    assert rolls["leg"].tolist() == ["tail", "tail"]
    assert rolls["ended"].tolist() == ["order", "open"]
    assert rolls["opened"].tolist() == [hedged.bars.index[2], hedged.bars.index[176]]
    assert rolls["closed"].tolist() == [hedged.bars.index[176], hedged.bars.index[-1]]

    # Fills: bought, sold and bought; what is open is worth its mark.
    premiums = [quantity[0] * price[0], quantity[2] * price[2]]
    proceeds = [quantity[0] * price[1], quantity[2] * mark]
    fee = np.minimum(9.0, 0.125 * price)
    fees = [quantity[0] * (fee[0] + fee[1]), quantity[2] * fee[2]]
    assert rolls["premium"].tolist() == pytest.approx(premiums)
    assert rolls["proceeds"].tolist() == pytest.approx(proceeds)
    assert rolls["fees"].tolist() == pytest.approx(fees)

    cost = rolls["premium"] - rolls["proceeds"] + rolls["fees"]
    trades = hedged.trades[hedged.trades["instrument"] != "BTC"]
    assert rolls["cost"].tolist() == pytest.approx(cost.tolist())
    assert (-cost).tolist() == pytest.approx(trades["profit"].tolist())
    assert rolls["spread"].tolist() == trades["slippage"].tolist()
    assert (rolls["spread"] > 0.0).all()


def test_the_cost_of_a_leg_is_a_share_of_the_mean_equity_a_year(hedged: bt.Result):
    rolls = hedged.rolls()
    legs = hedged.rolls("leg")
    equity_years = hedged.bars["equity"].mean() * 9 / 365

    assert legs["rolls"].tolist() == [2, 2]
    for name in ("premium", "proceeds", "fees", "spread", "cost"):
        share = rolls[name].sum() / equity_years
        assert legs[name].tolist() == pytest.approx([share] * 2)
    assert hedged.metrics["options_cost_annual"] == pytest.approx(legs["cost"]["total"])
    assert hedged.metrics["options_spread_annual"] == pytest.approx(legs["spread"]["total"])


def test_what_is_sold_has_negative_premiums_and_pays_at_expiry():
    """A call of 32,000 expires worthless under 3 coins at 30,000: its premium is kept."""
    covered = run(CoveredCall(Constant(1.5), tenor=4.0, roll=0.0), days=6)
    call = covered.rolls().iloc[0]
    assert call[["side", "ended", "proceeds"]].tolist() == ["short", "expiry", 0.0]
    assert call["premium"] < 0.0
    assert call["cost"] == pytest.approx(call["premium"] + call["fees"])


def test_the_cost_of_a_collar_is_that_of_its_legs():
    legs = run(Collar(Constant(1.5), tenor=12.0, put_delta=0.1), days=1).rolls("leg")
    assert legs.index.tolist() == ["call", "put", "total"]
    assert legs["cost"]["total"] == pytest.approx(legs["cost"][["put", "call"]].sum())


def test_a_saved_run_keeps_its_rolls(hedged: bt.Result, tmp_path: Path):
    loaded = bt.Result.load(hedged.save(tmp_path))

    assert loaded.rolls().equals(hedged.rolls())
    assert loaded.rolls("leg").equals(hedged.rolls("leg"))


def test_without_options_there_are_no_rolls_and_no_hedging_errors(hedged: bt.Result):
    bare = run(Constant(1.0), days=1)
    assert bare.rolls().empty
    assert bare.hedging_error().empty
    assert hedged.hedging_error("bar").empty

    legs = bare.rolls("leg")
    assert legs.columns.tolist() == hedged.rolls("leg").columns.tolist()
    assert legs.index.tolist() == ["total"]
    assert legs.loc["total"].tolist() == [0.0] * 6


def test_rolls_are_by_contract_or_by_leg(hedged: bt.Result):
    with pytest.raises(bt.ParameterError, match="by must be"):
        hedged.rolls("day")  # type: ignore[arg-type]


def run_small(markets=None, *, policy=None, venue=None, quantities=None, **account):
    settings = {
        "account": bt.Account(capital=10_000.0, **account),
        "option_quantities": quantities,
    }
    if venue is not None:
        settings["venue"] = venue
    return run_plain(markets or make_markets(), policy or Hold(level=0.0), **settings)


def schedule(value=1.0, columns=("PUT",)):
    index = pd.date_range("2023-01-01 20:00", periods=2, freq="1h", tz="UTC")
    return pd.DataFrame(value, index=index, columns=[*columns])


def trading(orders):
    class Trading(bt.Policy):
        def leverage(self, bar, account):
            return 0.0

        def option_orders(self, bar, account, chain):
            return orders

    return Trading()


@pytest.mark.parametrize(("call", "words"), [
    (lambda: make_markets(options={"P": PUT.override(expiry="2022-12-01")}),
     "must expire after the first bar"),
    (lambda: make_markets(surfaces=None), "surfaces must include 'BTC'"),
    (lambda: make_markets(chains={"BTC": bt.Chain.sample()}), "must settle as its options"),
    (lambda: run_small(venue=make_venue(option_costs=None)), "need venue.option_costs"),
    (lambda: run_small(make_markets(options={"P": COIN})), "must be 'cash' beside the linear"),
    (lambda: run_small(margin="isolated", venue_leverage=5), "must be 'cross', got 'isolated'"),
    (lambda: run_small(fill="next_close"), "fill must be 'next_open'"),
    (lambda: run_small(make_markets(bars=480, max_age="3d")), "must be at most 3 days old"),
    (lambda: run_small(quantities=schedule(-1.0)), "must be at least 0 with brackets"),
    (lambda: run_small(quantities=schedule(columns=["PTU"])), "listed options, PUT, got 'PTU'"),
    (lambda: run_small(quantities=schedule().shift(freq="7min")), "rows by the opens"),
    (lambda: run_small(make_markets(options={"PUT": PUT.override(lot=0.4)}), quantities=schedule()),
     "lots, of 0.4"),
    (lambda: run_small(policy=trading({"leg": ("PUT", np.inf)})), "must be a finite number"),
    (lambda: run_small(policy=trading({"leg": ("CALL", 1.0)})), "must be one of those listed"),
])  # fmt: skip
def test_bad_input_is_refused(call, words):
    check_refused(call, words)


def test_the_nearest_quotes_are_the_first_of_each_time_in_order():
    rng = np.random.default_rng(3)
    n = 400
    n_times = 15
    expiry = pd.Timestamp("2026-01-01").as_unit("ns").value
    columns = {
        "expiry": expiry + rng.integers(-1, 3, n) * 10 - 5,
        "is_call": rng.random(n) < 0.5,
        "strike": rng.choice([50.0, 80.0, 100.0, 125.0, 200.0], n),
        "row": np.arange(n),
        "half_spread": np.where(rng.random(n) < 0.8, 0.01, np.nan),
    }
    rows = pd.DataFrame(columns, index=np.sort(rng.integers(0, 20, n)))
    option = bt.Option(kind="put", strike=100.0, expiry="2026-01-01", underlying="BTC")
    nearest = find_nearest(rows, option, n_times)["row"].tolist()

    def rank(number: int) -> tuple[float, ...]:
        row = rows.iloc[number]
        distance = abs(math.log(100.0 / row["strike"]))
        return abs(row["expiry"] - expiry), distance, row["strike"], not row["is_call"]

    expected = []
    for time in range(n_times):
        quoted = rows[(rows.index == time) & (rows["half_spread"] >= 0.0)]["row"].tolist()
        if quoted:
            expected.append(min(quoted, key=rank))
    assert nearest == expected
