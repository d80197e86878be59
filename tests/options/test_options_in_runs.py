"""Options in runs: inputs, values, rolls, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.records import OptionFeed
from backtest.options.option_inputs import find_nearest, read_option_feed
from backtest.options.option_schedule import schedule_options
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
    given = {"venue": make_venue(), "account": bt.Account(capital=30_000.0), **more}
    return bt.run(markets, policy, **given, compile=False)


def make_pair(*, has_options: bool):
    given = {name: bt.Market.sample(bars=120, seed=seed) for name, seed in (("BTC", 0), ("B", 3))}
    surfaces = {"surfaces": {"BTC": make_surfaces(["2023-01-01 06:30"])}}
    listed = {"PUT": PUT} if has_options else {}
    return bt.Markets({**given, **listed}, **(surfaces if has_options else {}))


@pytest.mark.parametrize("name", SIGNALS)
def test_options_that_are_never_held_change_no_byte(name):
    """B9: bars, positions of the instruments, events and measures are those without options."""
    policy = VolTarget(target=0.6, half_life=24.0)
    with_options = run_plain(make_pair(has_options=True), policy, **SIGNALS[name])
    without = run_plain(make_pair(has_options=False), policy, **SIGNALS[name])
    assert without.bars.equals(with_options.bars[[*without.bars]])
    held = with_options.positions
    held = held[held["instrument"] != "PUT"][[*without.positions]].reset_index(drop=True)
    assert without.positions.reset_index(drop=True).equals(held)
    assert without.events.equals(with_options.events)
    shared = {name: with_options.metrics[name] for name in without.metrics}
    np.testing.assert_equal(shared, dict(without.metrics))


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
    frame = pd.DataFrame({"PUT": 1.0}, index=markets.times[6:7])
    scheduled = run_plain(markets, Hold(level=1.0), option_quantities=frame)
    assert ordered.bars.equals(scheduled.bars)
    assert ordered.manifest["id"] != scheduled.manifest["id"]
    assert (ordered.events["kind"] == "fill").any()
    bare = run_plain(markets, Hold(level=1.0))
    assert ordered.bars["equity"].iloc[-1] != bare.bars["equity"].iloc[-1]


class Insists(Hold):
    def option_orders(self, bar, account, chain):
        return {"put": ("PUT", 1.0)}


def test_a_contract_is_not_traded_before_its_first_surface_nor_after_its_expiry():
    result = run_plain(make_markets(), Insists(level=0.0))
    events = result.events[result.events["instrument"] == "put:PUT"]
    counts = events["kind"].value_counts()
    assert (counts["unquoted"], counts["fill"], counts["expiry"]) == (6, 1, 1)
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
    last = events[events["time"] == "2023-01-08 12:00"]
    kinds = [each for each in last["kind"] if each in ("funding", "expiry")]
    assert kinds == ["funding", "funding", "expiry", "funding"]


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_run_goes_on_with_the_options_that_a_result_holds(is_saved, tmp_path):
    """A put is held over the end of the first part; the second sells it."""
    whole, half = make_markets(bars=60), make_markets(bars=30)
    given = {"option_quantities": pd.DataFrame({"PUT": [1.0, 0.0]}, index=whole.times[[6, 40]])}
    first = run_plain(half, Hold(level=1.0), option_quantities=given["option_quantities"][:1])
    if is_saved:
        first = bt.Result.load(first.save(tmp_path))
    listed = first.manifest["data"]["options"]
    assert listed["underlyings"] == {"PUT": "BTC"}
    assert listed["quantities"]
    rest = run_plain(whole, Hold(level=1.0), resume=first, **given)
    known = run_plain(whole, Hold(level=1.0), **given).bars["equity"]
    assert rest.bars["equity"].equals(known[rest.bars.index])


def read(markets: bt.Markets, venue: bt.Venue | None = None) -> OptionFeed:
    return read_option_feed(markets, {"BTC": venue or make_venue()}, markets.panel())


def test_time_volatility_and_basis_are_those_of_the_last_surface():
    """The basis of the snapshot, 6 % a year, shrinks with the time left; 7 days are quoted."""
    markets = make_markets(surfaces={"BTC": make_surfaces(["2023-01-01 12:00"], 0.6, carry=0.06)})
    feed = read(markets)
    assert not feed.are_listed[:12].any()
    assert feed.are_listed[12:180, 0].all()
    assert not feed.are_listed[180:].any()
    assert feed.years_open[12, 0] == pytest.approx(168 / YEAR)
    assert feed.years_close[12, 0] == pytest.approx(167 / YEAR)
    assert np.isnan(feed.volatilities_close[10, 0])  # the close at 11:00 knows no surface
    assert np.isnan(feed.volatilities_close[11, 0])  # nor that at 12:00: stamped strictly before
    assert feed.volatilities_open[12:180, 0] == pytest.approx(0.6)
    hours = 168 - np.arange(168)
    assert feed.bases_open[12:180, 0] == pytest.approx(np.exp(0.06 * hours / YEAR), rel=1e-12)
    assert feed.ages[12, 0] == pytest.approx(1 / 24)
    assert (feed.expiry_bars[0], feed.are_inside[0]) == (180, 0)
    assert feed.expiry_spots[0] == markets["BTC"].mark_open[180]


def test_own_rows_replace_the_model_while_they_are_young():
    chain, expiry = make_chain(["2023-01-01 12:20"]), "2023-01-08 12:00"
    row = chain.table[(chain.table.expiry == expiry) & (chain.table.kind == "put")].iloc[10]
    put = PUT.override(strike=float(row["strike"]), expiry=expiry)
    feed = read(make_markets(options={"PUT": put}, chains={"BTC": chain}, quote_age="2h"))
    assert np.flatnonzero(feed.has_quotes[:, 0]).tolist() == [13, 14]
    assert np.flatnonzero(np.isfinite(feed.marks_close[:, 0])).tolist() == [12, 13]
    assert feed.marks_open[13, 0] == row["mark"]
    assert (feed.bids[13, 0], feed.asks[13, 0]) == (row["bid"], row["ask"])
    assert feed.volatilities_open[13, 0] == row["iv"]
    assert feed.half_spreads[13:, 0] == pytest.approx(0.01, abs=2e-3)  # of the last two sides
    assert feed.half_spreads[12, 0] == 0.01  # as the venue says
    assert feed.half_prices[13:, 0] == pytest.approx(0.5 * (row["ask"] - row["bid"]))
    assert np.isnan(feed.half_prices[12, 0])


def test_settlement_is_the_price_given_the_mean_of_closes_or_the_mark_open():
    markets = make_markets()
    assert read(markets).expiry_spots[0] == markets["BTC"].mark_open[180]
    venue = make_venue(option_costs=make_venue().option_costs.override(delivery_window="3h"))
    assert read(markets, venue).expiry_spots[0] == np.mean(markets["BTC"].mark_close[177:180])
    given = make_markets(options={"PUT": PUT.override(settlement_price=31_000.0)})
    assert read(given, venue).expiry_spots[0] == 31_000.0
    inside = read(make_markets(options={"PUT": PUT.override(expiry="2023-01-08 12:20")}))
    assert (inside.expiry_bars[0], inside.are_inside[0]) == (180, 1)
    assert inside.expiry_spots[0] == markets["BTC"].mark_open[180]
    assert read(make_markets(bars=100)).expiry_bars[0] == -1


def test_schedules_fill_at_the_next_open_and_end_with_the_contract():
    markets = make_markets()
    frame = pd.DataFrame({"PUT": 2.0}, index=markets.times[[20, 178, 179, 200]])
    found = schedule_options(markets, frame)
    targets = read(found).targets[:, 0]
    assert np.flatnonzero(np.isfinite(targets)).tolist() == [21, 179]
    assert markets.listing.quantities is None
    assert found.content_hash != markets.content_hash


@pytest.mark.parametrize("changed", range(len(STAMPS)))
def test_a_later_snapshot_changes_nothing_before_it(changed):
    """Truth 8: every array of the feed is equal bit for bit up to the snapshot that changed."""
    before, after = (read(make_snapshots(shift, changed, row=10)) for shift in (0.0, 0.05))
    opens = pd.date_range("2023-01-01", periods=240, freq="1h", tz="UTC")
    stamp, differs = pd.Timestamp(STAMPS[changed], tz="UTC"), False
    for name in OptionFeed._fields[OptionFeed._fields.index("years_open") :]:
        one, two = getattr(before, name), getattr(after, name)
        is_close = name.endswith("_close") or name == "ages"
        known = opens + pd.Timedelta(hours=1) <= stamp if is_close else opens < stamp
        assert np.array_equal(one[known], two[known], equal_nan=True), name
        differs |= not np.array_equal(one[~known], two[~known], equal_nan=True)
    assert differs


@pytest.fixture(scope="module")
def hedged() -> bt.Result:
    """Return nine days with a put that is sold for another."""
    return run(HEDGE, days=9)


def test_a_roll_costs_premium_less_proceeds_and_fees(hedged: bt.Result):
    """Two puts: the first is bought in bar 2 and sold in bar 176, the second is held to the end.
    The fee of a fill is 0.0003 of the price of 30,000, at most 0.125 of the premium; each fill is
    one point of volatility worse than the mark."""
    fills, rolls = find_fills(hedged), hedged.rolls()
    quantity, price = fills["quantity"].to_numpy(), fills["price"].to_numpy()
    last = hedged.positions.query("instrument == 'tail:P26-20'")["mark"].iloc[-1]
    assert rolls["contract"].tolist() == ["P26-13", "P26-20"]
    assert rolls["leg"].tolist() == ["tail", "tail"]
    assert rolls["ended"].tolist() == ["order", "open"]
    assert rolls["opened"].tolist() == [hedged.bars.index[2], hedged.bars.index[176]]
    assert rolls["closed"].tolist() == [hedged.bars.index[176], hedged.bars.index[-1]]
    assert rolls["premium"].tolist() == pytest.approx([quantity[k] * price[k] for k in (0, 2)])
    assert rolls["proceeds"].tolist() == pytest.approx([quantity[0] * price[1], quantity[2] * last])
    fee = [min(9.0, 0.125 * each) for each in price]
    fees = [quantity[0] * (fee[0] + fee[1]), quantity[2] * fee[2]]
    assert rolls["fees"].tolist() == pytest.approx(fees)
    cost = rolls["premium"] - rolls["proceeds"] + rolls["fees"]
    assert rolls["cost"].tolist() == pytest.approx(cost.tolist())
    own = hedged.trades[hedged.trades["instrument"] != "BTC"]
    assert rolls["spread"].tolist() == own["slippage"].tolist()
    assert (rolls["spread"] > 0.0).all()
    assert (-cost).tolist() == pytest.approx(own["profit"].tolist())


def test_the_cost_of_a_leg_is_a_share_of_the_mean_equity_a_year(hedged: bt.Result):
    rolls, legs = hedged.rolls(), hedged.rolls("leg")
    base = hedged.bars["equity"].mean() * 9 / 365
    for name in ("premium", "proceeds", "fees", "spread", "cost"):
        assert legs[name].tolist() == pytest.approx([rolls[name].sum() / base] * 2)
    assert legs["rolls"].tolist() == [2, 2]
    assert hedged.metrics["options_cost_annual"] == pytest.approx(legs["cost"]["total"])
    assert hedged.metrics["options_spread_annual"] == pytest.approx(legs["spread"]["total"])


def test_what_is_sold_has_negative_premiums_and_pays_at_expiry():
    """A call of 32,000 expires worthless under 3 coins at 30,000: its premium is kept."""
    first = run(CoveredCall(Constant(1.5), tenor=4.0, roll=0.0), days=6).rolls().iloc[0]
    assert (first["side"], first["ended"], first["proceeds"]) == ("short", "expiry", 0.0)
    assert first["premium"] < 0.0
    assert first["cost"] == pytest.approx(first["premium"] + first["fees"])
    legs = run(Collar(Constant(1.5), tenor=12.0, put_delta=0.1), days=1).rolls("leg")
    assert legs.index.tolist() == ["call", "put", "total"]
    assert legs["cost"]["total"] == pytest.approx(legs["cost"][["put", "call"]].sum())


def test_without_options_there_are_no_rolls_and_a_saved_run_keeps_them(
    hedged: bt.Result, tmp_path: Path
):
    loaded = bt.Result.load(hedged.save(tmp_path))
    assert loaded.rolls().equals(hedged.rolls())
    assert loaded.rolls("leg").equals(hedged.rolls("leg"))
    bare = run(Constant(1.0), days=1)
    assert bare.rolls().empty
    legs = bare.rolls("leg")
    assert legs.columns.tolist() == hedged.rolls("leg").columns.tolist()
    assert legs.loc["total"].tolist() == [0.0] * 6
    assert legs.index.tolist() == ["total"]
    assert bare.hedging_error().empty
    assert hedged.hedging_error("bar").empty
    with pytest.raises(bt.ParameterError, match="by must be"):
        hedged.rolls("day")  # type: ignore[arg-type]


def run_small(markets=None, *, policy=None, venue=None, quantities=None, **account):
    given = {"account": bt.Account(capital=10_000.0, **account), "option_quantities": quantities}
    if venue is not None:
        given["venue"] = venue
    return run_plain(markets or make_markets(), policy or Hold(level=0.0), **given)


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
    rng, n, expiry = np.random.default_rng(3), 400, pd.Timestamp("2026-01-01").as_unit("ns").value
    rows = pd.DataFrame({
        "expiry": expiry + rng.integers(-1, 3, n) * 10 - 5, "is_call": rng.random(n) < 0.5,
        "strike": rng.choice([50.0, 80.0, 100.0, 125.0, 200.0], n), "row": np.arange(n),
        "half_spread": np.where(rng.random(n) < 0.8, 0.01, np.nan),
    }, index=np.sort(rng.integers(0, 20, n)))  # fmt: skip
    option = bt.Option(kind="put", strike=100.0, expiry="2026-01-01", underlying="BTC")

    def rank(row: int) -> tuple[float, ...]:
        each = rows.iloc[row]
        away = abs(math.log(100.0 / each["strike"]))
        return abs(each["expiry"] - expiry), away, each["strike"], not each["is_call"]

    quoted = [row for row in range(n) if rows["half_spread"].iloc[row] >= 0.0]
    each = ([row for row in quoted if rows.index[row] == time] for time in range(15))
    found = find_nearest(rows, option, 15)["row"].tolist()
    assert found == [min(x, key=rank) for x in each if x]
