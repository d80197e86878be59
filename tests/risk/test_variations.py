"""sensitivity(), capacity() and bounds(): by hand, against runs, and their refusals."""

import dataclasses
import math
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.risk.capital_capacity import find_half
from backtest.risk.factor_sensitivity import scale_moves
from backtest.strategies import Constant
from tests import kit
from tests.kit import ask_test, check_refused
from tests.risk.accounts import Hold, free_account, free_venue

TERMS = {"account": free_account()}
FREE = {"venue": free_venue(), **TERMS}
N = 24 * 12
RISING = kit.market_of(
    100.0 * np.exp(0.00004 * np.arange(N) + 0.004 * np.cos(np.arange(N))), volume=np.full(N, 1e4)
)
OF_1000 = {"account": bt.Account(capital=1000.0)}
FLAT = kit.flat(100.0)
HEDGED = bt.Markets({
    "A": kit.make_market([FLAT, FLAT, (100, 106, 94, 100), FLAT], start="2023-01-01"),
    "B": kit.make_market([FLAT, FLAT, (100, 107, 93, 100), FLAT], start="2023-01-01"),
})  # fmt: skip


def rising(rate: float = 0.001) -> bt.Market:
    """Return 30 days of a price that rises by 0.1 % a day, with one settlement a day."""
    index = pd.date_range("2023-01-01", periods=31, freq="1D", tz="UTC")
    terms = {"funding": pd.DataFrame({"rate": rate}, index=index)}
    return kit.market_of(100 * 1.001 ** np.arange(31), "1D", start="2023-01-01", terms=terms)


def test_twice_the_funding_eats_the_rise():
    # a long earns 0.1 % a day of its entry and pays rate * price: with half the rise paid as
    # funding, doubling the rate eats about all of it
    found = bt.Backtest(rising(0.0005), **FREE).sensitivity(Hold(2.0), factors=["funding"])
    table = found.table.loc["funding"]
    assert found.base > 0.0
    assert table.loc[0.5, "change_of_growth"] > 0.0 > table.loc[2.0, "change_of_growth"]
    assert table.loc[2.0, "growth"] == pytest.approx(0.0, abs=0.1 * found.base)


def test_the_funding_of_stocks_is_shown_as_dividends(tmp_path):
    """The row stays that of the factor; what is read, a saved result's too, names dividends."""
    index = pd.date_range("2024-01-01", periods=9, freq="1D", tz="UTC")
    close = 100.0 * 1.001 ** np.arange(9)
    bars = {"open": close, "high": close, "low": close, "close": close, "volume": 1e6}
    paid = pd.DataFrame({"rate": [-0.01], "mark": [100.0]}, index=index[3:4])
    market = bt.Market.from_frames(
        pd.DataFrame(bars, index=index), sessions=True, funding=paid, funding_gaps="zero"
    )

    found = bt.Backtest(market, **FREE).sensitivity(Hold(2.0), factors=["funding", "fees"])
    loaded = type(found).load(found.save(tmp_path))
    for one in (found, loaded):
        assert [*one.table.index.unique("factor")] == ["funding", "fees"]
        assert "depends most on dividends" in one.verdict
        assert "dividends" in one.summary()
        assert "funding" not in one.summary()


def test_a_number_is_a_signal_as_in_a_run():
    """It was refused: a market alone was run as several instruments."""
    given = {"venue": costly(), "signal": 0.5, **TERMS}
    growth = bt.run(RISING, Constant(2.0), **given).metrics["cagr"]
    assert bt.Backtest(RISING, **given).sensitivity(Constant(2.0), factors=["fees"]).base == growth
    table = bt.Backtest(RISING, **given).capacity(Constant(2.0), capitals=[1e3, 1e4]).table
    assert table.loc[1e3, "growth"] == growth


@pytest.mark.slow
def test_only_what_applies_is_changed_by_default():
    found = bt.Backtest(rising(), venue=free_venue(), **TERMS).sensitivity(Hold(2.0))
    assert "rates" not in found.table.index.get_level_values("factor")

    charged = free_venue(interest_on="balance", cash_rate=0.02)
    one = bt.Backtest(rising(), venue=charged, **TERMS).sensitivity(Hold(0.0), factors=["rates"])

    # nothing held: the account earns 2 % a year, and 3 % with 100 bp more
    assert one.table.loc[("rates", 0.01), "growth"] == pytest.approx(0.0304, abs=1e-3)


def test_margin_is_not_scaled_for_a_spot_leg():
    own = costly()
    spot = bt.Venue.spot(taker=0.0, slippage=0.0, haircut=0.1, borrow_rate=0.0, like=own)
    pair = bt.Markets({"COIN": RISING, "PERP": RISING}, currency="USDT")
    venues = {"COIN": spot, "PERP": own}

    signal = {"COIN": 0.5, "PERP": -0.5}
    given = {**TERMS, "signal": signal, "factors": ["margin"]}
    found = ask_test("sensitivity", pair, Constant(1.0), venue=venues, **given)

    assert len(found.table) == 2
    assert "Margin stays that of COIN: a spot leg has none." in " ".join(found.summary().split())

    with pytest.raises(bt.ParameterError, match="a factor must be"):
        bt.Backtest(RISING, venue=spot, **TERMS).sensitivity(Constant(1.0), factors=["margin"])


def test_growth_of_under_90_days_is_shown_of_the_whole_time_and_kept_per_year_in_tables():
    """12 days: (1 + growth a year) ** (12 / 365) - 1 is the return of the run."""
    given = {"venue": costly(), "signal": 0.5, **TERMS}
    test = bt.Backtest(RISING, **given)
    policy = Constant(2.0)

    total = test.run(policy).metrics["total_return"]
    found = test.sensitivity(policy, factors=["fees"])
    capacity = test.capacity(policy, capitals=[1e3, 1e4])
    steps = test.sensitivity(policy, parameters=True)

    assert found.verdict.startswith(f"Growth is {100.0 * total:.2f} % in 12 days as run")
    (own,) = found.list_numbers()
    of_capital = capacity.list_numbers()[2]

    assert own.value == pytest.approx(total)
    assert of_capital.value == pytest.approx(total, rel=1e-2)
    assert of_capital.note == "in 12 days, at 1,000"

    assert steps.list_numbers()[0].value == pytest.approx(math.log1p(total))
    for each in (found, capacity, steps):
        assert "per year" not in each.summary().replace("costs, per year", "")

    assert found.to_dict()["base"] == pytest.approx((1.0 + total) ** (365.0 / 12.0) - 1.0)


def test_volatility_scales_moves_and_keeps_their_mean():
    market = bt.Market.sample(bars=500)
    wild = scale_moves(market, 1.5)
    before, after = (np.diff(np.log(each.close)) for each in (market, wild))

    assert after.std() == pytest.approx(1.5 * before.std())
    assert after.mean() == pytest.approx(before.mean(), abs=1e-12)

    assert np.all(wild.low <= np.minimum(wild.open, wild.close) * (1 + 1e-12))
    assert np.all(wild.high >= np.maximum(wild.open, wild.close) * (1 - 1e-12))


def test_volatility_moves_the_prices_of_settlements_with_their_bars():
    """A settlement .1 % over the open of its bar is 1.5 times as far from it after the change."""
    plain = bt.Market.sample(bars=500)
    bar = np.searchsorted(plain.time, plain.funding_time, side="right") - 1
    bar = np.minimum(bar, plain.n_bars - 1)
    fields = plain.fields() | {"funding_mark": 1.001 * plain.mark_open[bar]}
    market = bt.Market(**fields, source="made")

    wild = scale_moves(market, 1.5)
    ratio = wild.funding_mark / wild.mark_open[bar]
    assert ratio[bar > 0] == pytest.approx(1.001**1.5, rel=1e-12)


def costly(impact: float = 1.0, most: float | None = None) -> bt.Venue:
    terms = {"slippage.impact": impact, "slippage.max_participation": most}
    return kit.free_venue().override(terms)


def test_the_cost_of_impact_grows_with_the_root_of_the_capital():
    """Four times the capital: twice the cost of each trade, as a share of the equity."""
    grid = [1.0, 1e4, 4e4, 16e4]
    found = bt.Backtest(RISING, venue=costly(0.1), **OF_1000).capacity(Constant(2.0), capitals=grid)

    one, four, sixteen = found.table["impact"].iloc[1:]
    assert four / one == pytest.approx(2.0, rel=0.02)
    assert sixteen / four == pytest.approx(2.0, rel=0.02)


def test_the_capital_at_which_growth_is_half_is_a_root():
    grid = [1e3, 1e8, 1e10]
    found = bt.Backtest(RISING, venue=costly(), **OF_1000).capacity(Constant(2.0), capitals=grid)

    growths = []
    for capital in (grid[0], found.half_growth):
        account = bt.Account(capital=capital)
        run = bt.run(RISING, Constant(2.0), venue=costly(), account=account)
        growths.append(run.metrics["cagr"])

    assert growths[1] == pytest.approx(0.5 * growths[0], rel=0.05)
    assert grid[0] < found.half_growth < grid[-1]
    assert found.table.loc[grid[0], "growth"] == growths[0]

    assert found.list_parts()[0].lead.startswith("A dotted line")
    unmarked = dataclasses.replace(found, half_growth=math.nan, half_sharpe=math.nan)
    assert unmarked.list_parts()[0].lead == ""


def test_the_first_crossing_is_found_to_one_per_cent_and_none_is_unknown():
    def falling(capital: float) -> dict[str, float]:
        return {"growth": 1.0 - math.log10(capital) / 8.0}

    grid = [1.0, 10.0, 1e3, 1e5, 1e6]
    assert find_half("growth", grid, falling) == pytest.approx(1e4, rel=1e-2)
    assert math.isnan(find_half("growth", grid[:3], falling))
    assert math.isnan(find_half("growth", grid, lambda _: {"growth": -0.1}))


def test_participation_alone_holds_a_large_account_back():
    small, large = (
        bt.Backtest(RISING, venue=costly(0.0, 0.01), **OF_1000)
        .capacity(Constant(2.0), capitals=[1e3, 1e7])
        .table["mean_leverage"]
    )

    assert small == pytest.approx(2.0, rel=0.05)
    assert large < 0.5 * small


def test_a_ruined_account_has_no_half_of_its_sharpe_ratio():
    """Its ratio is that of the time before; a line said that it is not halved at any capital."""
    grid = [1e3, 1e4, 1e5]
    assert math.isnan(find_half("sharpe", grid, lambda _: {"sharpe": 2.0, "ruined": 1.0}))

    def dying(capital):
        return {"sharpe": 2.0, "ruined": float(capital > 3e4)}

    assert find_half("sharpe", grid, dying) == pytest.approx(3e4, rel=1e-2)


def live(markets, lever, signal=None, **terms):
    given = {**FREE, "account": free_account(**terms), "signal": signal}
    return bt.run(markets, Hold(lever), **given)


@pytest.mark.parametrize("way", ["path", "worst"])
def test_a_hedge_holds_along_the_path_and_not_at_both_extremes(way):
    # 30x of 1000 in two legs: 150 contracts of A, -150 of B at 100. Along the path both are at
    # their lows together (-900 + 1050), then at their highs (900 - 1050): 850 is over the margin.
    # At the low of A and the high of B at once, a share s of the way leaves 1000 - 1950 s, and
    # needs 0.005 x 150 (200 + s): s = 850 / 1950.75, where 150 + 0.75 s are left.
    left = 150.0 + 0.75 * 850.0 / 1950.75
    found = bt.bounds(live(HEDGED, 30.0, {"A": 0.5, "B": -0.5}, intrabar=way))
    assert found.table.loc["final_equity"].tolist() == pytest.approx([1000.0, left])
    assert found.table.loc["liquidations"].tolist() == [0.0, 1.0]
    assert found.table.loc["max_drawdown"].tolist() == pytest.approx([0.0, 1.0 - left / 1000.0])
    assert found.bars.index.tolist() == [pd.Timestamp("2023-01-01 02:00", tz="UTC")]
    assert found.bars["instruments"].tolist() == ["A, B"]
    assert found.bars[["path", "worst"]].iloc[0].tolist() == pytest.approx([1000.0, left])
    assert found.verdict == (
        "The runs part in 1 of 4 bars, first at 2023-01-01 02:00 UTC: final equity is "
        "1,000.00 under path and 150.33 under worst."
    )


def test_a_position_alone_takes_its_adverse_extreme_first_under_both():
    # 2x of 1000 at 100: 20 contracts; the stop at 95 loses 100 though 105 would have paid 100
    found = bt.bounds(live(HEDGED["A"], 2.0, stop_loss=0.05, take_profit=0.05))
    assert found.table.loc["final_equity"].tolist() == pytest.approx([900.0, 900.0])
    assert len(found.bars) == 0
    assert found.verdict == "The runs agree in all 4 bars: final equity 900.00."
    assert "adverse extreme first under both" in found.summary()


def test_both_runs_of_the_bounds_keep_the_terms_of_the_run():
    """Signals of each bar, start and sampling; the account alone has another way."""
    signal = pd.DataFrame({"A": [1.0, 0.5, 0.5, 0.5], "B": [0.0, -0.5, -0.5, -0.5]},
                          index=pd.to_datetime(HEDGED["A"].time, utc=True))  # fmt: skip
    terms = {"signal": signal, "start": "2023-01-01 01:00", "sampling": "1h"}
    result = bt.run(HEDGED, Hold(4.0), **FREE, **terms)
    other = bt.bounds(result).runs["worst"]
    for name in ("sampling", "calendar", "signal", "venue", "policy", "data"):
        assert other.manifest[name] == result.manifest[name]
    assert other.manifest["account"] == {**result.manifest["account"], "intrabar": "worst"}

    # 4x is far from its liquidation: nothing depends on the way inside a bar.
    pd.testing.assert_frame_equal(other.bars, result.bars)


def sensitivity_to(factors):
    return lambda: bt.Backtest(rising(), **FREE).sensitivity(Hold(2.0), factors=factors)


def capacity_of(**terms):
    return lambda: ask_test(
        "capacity", RISING, Constant(2.0), **{"venue": costly(), **OF_1000, **terms}
    )


@pytest.mark.parametrize(("call", "words"), [
    (sensitivity_to(["feees"]), "did you mean 'fees'"),
    (sensitivity_to([]), "factors must be"),
    (sensitivity_to("fees"), "factors must be"),
    (sensitivity_to(["rates"]), "got 'rates'"),
    (sensitivity_to(["correlation"]), "got 'correlation'"),
    (capacity_of(venue=kit.free_venue()), "the size of an account costs nothing here"),
    (capacity_of(capitals=[1e4, 1e3]), "two or more increasing numbers"),
    (capacity_of(capitals="1e4"), "capitals must be a sequence"),
])  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(call, words):
    check_refused(call, words, bt.ParameterError)


def test_what_has_no_two_ways_is_refused(tmp_path):
    limit = live(HEDGED, 2.0, fill="limit", offset=0.01)
    check_refused(lambda: bt.bounds(limit), "an account with limit orders: pass detail=")
    loaded = bt.Result.load(live(HEDGED, 2.0).save(tmp_path))
    check_refused(lambda: bt.bounds(loaded), "a loaded result", bt.ParameterError)


class Stepped(bt.Policy):
    """Hold ``size``; ``idle`` does nothing, ``deep`` over 5 is a leverage that ruins."""

    size: Annotated[float, bt.Range(0.0, 2.1, "turns")] = 2.0
    idle: Annotated[int, bt.Range(0, 10)] = 3
    deep: Annotated[float, bt.Range(-10.0, 10.0)] = 4.8
    mode: Annotated[str, bt.Choice("long", "half", "none")] = "long"
    zero: Annotated[float, bt.Range(-1.0, 1.0)] = 0.0

    def leverage(self, bar, account):
        size = 60.0 if self.deep > 5.0 else self.size
        return size * (0.5 if self.mode == "half" else 0.0 if self.mode == "none" else 1.0)


def test_a_step_of_each_parameter_is_a_run_and_is_judged():
    """It rises by 1 % a day with one fall of 10 %, which ruins an account at 60x."""
    closes = 100.0 * np.cumprod(np.where(np.arange(60) == 2, 0.9, 1.01))
    market = kit.market_of(closes, "1D", start="2023-01-01")
    test = bt.Backtest(market, venue=free_venue(), account=free_account(ruin_at=0.7))
    found = test.sensitivity(Stepped(), parameters=True, compile=False)
    table = found.table.reset_index().set_index(["parameter", "step"])
    for name, change in ((("size", -0.1), {"size": 1.8}), (("zero", 0.1), {"zero": 0.2})):
        own = test.run(Stepped(**change), compile=False).metrics
        growth = math.log1p(own["total_return"]) / (60 / 365)
        assert table.loc[name, "growth"].item() == pytest.approx(growth)
        assert table.loc[name, "max_drawdown"].item() == pytest.approx(own["max_drawdown"])
    assert [float(x) for x in found.table.loc["size"].index] == pytest.approx([1.5, 1.8, 2.1])
    assert found.table.loc["size", "is_clipped"].tolist() == [False, False, True]
    assert [int(x) for x in found.table.loc["idle"].index] == [2, 4]  # 0.75 and 0.3 are one whole
    assert [*found.table.loc["mode"].index] == ["half", "none"]
    assert found.verdicts["verdict"].to_dict() == {
        "size": "sloped", "idle": "flat", "deep": "cliff", "mode": "sloped", "zero": "flat",
    }  # fmt: skip
    assert bool(found.table.loc[("deep", "5.28"), "ruined"])
    assert "Cliff: deep" in found.verdict


class Fragile(bt.Policy):
    """Fails from ``cap`` 4 on."""

    size: Annotated[float, bt.Range(0.0, 2.1, "turns")] = 2.0
    cap: Annotated[int, bt.Range(0, 10)] = 3

    def leverage(self, bar, account):
        if self.cap > 3:
            raise ValueError("cap too large")
        return self.size


def test_a_step_that_fails_has_its_error_and_one_at_a_bound_is_marked():
    market = bt.Market.sample(bars=40)
    calls = []
    found = bt.Backtest(market, venue=free_venue(), account=free_account()).sensitivity(
        Fragile(),
        compile=False,
        parameters=True,
        progress=lambda done, total: calls.append((done, total)),
    )
    faults = found.table["fault"]
    assert "ValueError: cap too large" in faults["cap", "4"]
    assert (faults.drop(("cap", "4")) == "").all()
    assert found.verdicts.loc["cap", "verdict"] == "failed"
    assert "1 failed" in found.note
    bound, failed = found.notices
    assert bound == "Steps that end at a bound, before their size: size 2.1."
    assert failed.startswith("cap 4 failed: ")
    assert calls[-1] == (6, 6)  # as it is, three sizes and two caps


def test_parameters_of_the_signals_rule_are_stepped_too():
    market = bt.Market.sample(bars=300)
    terms = {**FREE, "signal": "breakout:24", "parameters": True}
    found = ask_test("sensitivity", market, Constant(1.0), **terms)
    assert [int(x) for x in found.table.loc["signal.window"].index] == [18, 22, 26, 30]
    both = {**terms, "factors": ["fees"]}
    check_refused(
        lambda: ask_test("sensitivity", market, Constant(1.0), **both), "allows no factors"
    )
