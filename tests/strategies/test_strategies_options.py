"""Rules that trade options: selection, budgets and rolls by hand."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import options
from backtest.strategies import Collar, Constant, CoveredCall, DeltaHedge, LongVolatility, TailHedge
from benchmarks.hedging_error import (
    ALWAYS,
    SIGMA,
    SPOT,
    YEARS,
    compute_error,
    find_gains,
    hedge,
    integrate_gamma,
    simulate,
)
from tests.options.listed_markets import make_chain, make_surfaces, make_venue

pytestmark = pytest.mark.filterwarnings("ignore:volatility is flat before")
LEVEL = 30_000.0
STRIKES = range(22_000, 34_001, 2_000)
RULE = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
N_PATHS = 40


def list_contracts(**more: Any) -> dict[str, bt.Option]:
    """Return calls and puts of three expiries by short names, such as P26-13."""
    return {
        f"{kind[0].upper()}{strike // 1000}-{day[8:10]}": bt.Option(
            kind=kind, strike=strike, expiry=day, underlying="BTC", **more
        )
        for day in ("2023-01-05 08:00", "2023-01-13 08:00", "2023-01-20 08:00")
        for strike in STRIKES
        for kind in ("call", "put")
    }


def run(policy: Any, days: int = 8, call: Any = bt.run, **more: Any) -> bt.Result:
    """Return a run at a constant price and volatility, without costs of the instrument. ``call`` is
    what runs it."""
    time = pd.date_range("2023-01-01", periods=24 * days, freq="1h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), LEVEL), index=time)
    market = bt.Market.from_frames(bars.assign(volume=0.0))
    given = {"surfaces": {"BTC": make_surfaces(["2022-12-31 12:00"])}, **more}
    costs = make_venue().option_costs.override(given.pop("costs", {}))
    listed = given.pop("listed", None) or list_contracts()
    markets = bt.Markets({"BTC": market, **listed}, **given)
    venue = make_venue(**{"fees.taker": 0.0, "slippage.rate": 0.0, "option_costs": costs})
    account = bt.Account(capital=60_000.0, requirement=RULE)
    return call(markets, policy, venue=venue, account=account, compile=False)


def find_fills(result: bt.Result) -> pd.DataFrame:
    """Return the fills of options: bar, instrument, quantity, price."""
    fills = result.events[result.events["kind"] == "fill"]
    fills = fills[fills["instrument"] != "BTC"].assign(
        bar=lambda rows: (rows["time"] - result.bars.index[0]) // pd.Timedelta(hours=1)
    )
    return fills[["bar", "instrument", "quantity", "price"]].reset_index(drop=True)


def price(kind: str, strike: float, hours: float, volatility: float) -> float:
    return float(options.price(kind, LEVEL, strike, hours / 8760.0, volatility))


def test_a_tail_hedge_buys_for_its_budget_and_rolls_the_sale_first():
    """Three turns are opened at bar 1; its close is the first with a notional to hedge. 13 January
    is 12.25 days from there, nearest to 12; of its puts that of 26,000 has a delta of -0.086, that
    of 28,000 one of -0.24. The budget of 600 buys 600 / ask of it, less than the 6 coins of the
    position. With 5 days left, at the close of bar 175, it is sold for one of 20 January, whose
    puts of 26,000 have a delta of -0.09."""
    result = run(TailHedge(Constant(3.0), delta=-0.1, tenor=12.0, roll=5.0, budget=0.01), days=9)
    fills = find_fills(result)
    assert fills["instrument"].tolist() == ["tail:P26-13", "tail:P26-13", "tail:P26-20"]
    assert fills["bar"].tolist() == [2, 176, 176]
    ask = price("put", 26_000, 12 * 24 + 8 - 2, 0.61)
    assert fills["price"][0] == pytest.approx(ask, rel=1e-9)
    assert fills["quantity"][0] == pytest.approx(600.0 / ask, rel=1e-9)
    assert fills["quantity"][1] == -fills["quantity"][0]
    assert fills["price"][1] == pytest.approx(price("put", 26_000, 120, 0.59), rel=1e-6)
    equity = result.bars["equity"].iloc[175]
    assert fills["quantity"][2] == pytest.approx(0.01 * equity / fills["price"][2], rel=1e-9)
    held = result.positions[result.positions["instrument"].str.startswith("tail:")]
    assert held.groupby("time")["quantity"].apply(lambda each: (each != 0).sum()).max() == 1


def test_the_cover_and_the_side_limit_a_tail_hedge():
    """Half a turn on 60,000 is one coin: a cover of 0.7 holds 0.7 puts, in lots of 0.2 0.6."""
    policy = TailHedge(Constant(0.5), cover=0.7, budget=1.0, tenor=12.0)
    assert find_fills(run(policy, days=1))["quantity"].tolist() == pytest.approx([0.7])
    lots = run(policy, days=1, listed=list_contracts(lot=0.2))
    assert find_fills(lots)["quantity"].tolist() == pytest.approx([0.6])
    calls = TailHedge(Constant(0.5), delta=0.1, budget=1.0, tenor=12.0)  # over a long position
    with pytest.warns(bt.NoFillWarning, match="held no option"):
        assert find_fills(run(calls, days=1)).empty


def test_the_nearest_delta_and_the_earlier_expiry_are_chosen():
    """A tenor in the middle of 13 and 20 January takes the first; 400 days off none is left."""
    seen = []

    class Look(bt.Policy):
        def leverage(self, bar, account):
            return 0.0

        def option_orders(self, bar, account, chain):
            days = [each.days for each in (chain["P26-13"], chain["P26-20"])]
            near = 0.5 * sum(days)
            found = (
                chain.choose("put", -0.1, 1.0, near, 1.0),
                chain.choose("put", 0.1, 1.0, near, days[0]),
                chain.choose("call", 0.5, -1.0, 1.0, 0.0),
                chain.choose("put", 0.0, 1.0, 1.0, 0.0),
                chain.choose("put", 0.0, 1.0, 1.0, 400.0),
            )
            seen.append([each.name if each else None for each in found])
            return {}

    run(Look(), days=1)
    assert seen[0] == ["P26-13", "P26-20", "C30-05", "P22-05", None]


def test_a_straddle_spends_its_budget_on_both_sides():
    fills = find_fills(run(LongVolatility(Constant(0.0), tenor=12.0, budget=0.02), days=1))
    assert fills["instrument"].tolist() == ["call:C30-13", "put:P30-13"]
    assert fills["quantity"][0] == fills["quantity"][1]
    assert (fills["quantity"] * fills["price"]).sum() == pytest.approx(1_200.0, rel=1e-9)


def test_a_covered_call_and_a_collar_follow_the_position():
    """1.5 turns on 60,000 are 3 coins. A covered call that is held to its last day settles."""
    sold = find_fills(run(CoveredCall(Constant(1.5), tenor=4.0, roll=0.0), days=6))
    assert sold["quantity"].tolist()[:1] == pytest.approx([-3.0])
    assert sold["instrument"].tolist() == ["call:C32-05", "call:C32-13"]
    both = find_fills(run(Collar(Constant(1.5), tenor=12.0, put_delta=0.1), days=1))
    assert both["instrument"].tolist() == ["put:P26-13", "call:C32-13"]
    assert both["quantity"].tolist() == pytest.approx([3.0, -3.0])


@pytest.mark.parametrize(("last", "payoff"), [(33_000.0, 1.0 / 33.0), (LEVEL, 0.0)])
@pytest.mark.parametrize("kind", ["inverse", "linear"])
def test_calls_are_sold_on_the_coins_that_an_account_holds(kind, last, payoff):
    """2 coins, as the balance of an inverse account or beside 60,000, and no position: 2 calls of
    32,000. Delivery costs .00015 of a coin, at most 12.5 % of the payoff."""
    is_coin = kind == "inverse"
    time = pd.date_range("2023-01-01", periods=24 * 5, freq="1h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), LEVEL), index=time)
    bars.iloc[24 * 4 + 8 :] = last
    market = bt.Market.from_frames(bars.assign(volume=0.0))
    call = bt.Option(kind="call", strike=32_000, expiry="2023-01-05 08:00", underlying="BTC",
                     settlement="coin" if is_coin else "cash", lot=0.1)  # fmt: skip
    surfaces = {"BTC": make_surfaces(["2022-12-31 12:00"])}
    changes = {"contract.kind": "inverse", "contract.size": 10.0, "contract.lot": 1.0}
    venue = make_venue(**(changes if is_coin else {}))
    costs = venue.option_costs.override(tick=0.0)
    coins = () if is_coin else [bt.Collateral("BTC", 2.0, prices=market, rate=0.9)]
    account = bt.Account(capital=2.0 if is_coin else 60_000.0, requirement=RULE,
                         collateral=coins, negative_limit=None if is_coin else 0.0)  # fmt: skip
    markets = bt.Markets({"BTC": market, "C": call}, surfaces=surfaces)
    terms = {"venue": venue.override(option_costs=costs), "account": account, "compile": False}
    result = bt.run(markets, CoveredCall(Constant(0.0), tenor=4.0, roll=0.0), **terms)
    fills = find_fills(result)
    assert fills["quantity"].tolist() == pytest.approx([-2.0])
    unit, worth = (1.0, 1.0) if is_coin else (LEVEL, last)
    premium = fills["price"][0] - min(0.0003 * unit, 0.125 * fills["price"][0])
    paid = (payoff + min(0.00015, 0.125 * payoff)) * worth
    begun = 2.0 if is_coin else 60_000.0 + 2.0 * last
    assert result.bars["equity"].iloc[-1] == pytest.approx(begun + 2.0 * (premium - paid), rel=1e-9)


def test_quantities_follow_the_lot_of_the_venue():
    """3.07 coins under a cover of 1: 3 calls in lots of .1, 3.07 without."""
    for lot, sold in ((None, 3.0), (0.0, 3.07)):
        listed = list_contracts(lot=lot)
        held = find_fills(run(CoveredCall(Constant(1.535), tenor=4.0), days=1, listed=listed,
                              costs={"lot": 0.1}))  # fmt: skip
        assert held["quantity"].tolist() == pytest.approx([-sold])


def test_a_leg_acts_on_fresh_quotes_alone():
    """The rows of the chain are young at the close of bar 12, and again a day later."""
    chain = make_chain(["2023-01-01 12:20", "2023-01-02 12:20"])
    listed = {
        f"{each.kind[0]}{each.strike:g}-{each.expiry:%d}": bt.Option(
            kind=each.kind, strike=each.strike, expiry=str(each.expiry), underlying="BTC"
        )
        for each in chain.table.drop_duplicates(["expiry", "strike", "kind"]).itertuples()
        if each.expiry > pd.Timestamp("2023-01-03", tz="UTC") and each.kind == "put"
    }
    given = {"listed": listed, "chains": {"BTC": chain}}
    fills = find_fills(run(TailHedge(Constant(1.0), tenor=12.0, roll=1.0), days=2, **given))
    assert fills["bar"].tolist() == [13]
    name = fills["instrument"][0].removeprefix("tail:")
    place = (chain.table["strike"] == listed[name].strike) & (chain.table["kind"] == "put")
    place &= chain.table["expiry"] == pd.Timestamp(listed[name].expiry, tz="UTC")
    own = chain.table[place]
    assert fills["price"][0] == own["ask"].iloc[0]
    assert np.isfinite(fills["quantity"][0])


def test_a_run_goes_on_with_its_legs():
    """The second half knows the put that the first one bought, and rolls it."""
    policy = TailHedge(Constant(3.0), tenor=12.0, roll=5.0)
    whole, first = run(policy, days=9), run(policy, days=5)
    rest = run(policy, days=9, call=partial(bt.run, resume=first))
    assert rest.bars["equity"].equals(whole.bars["equity"][rest.bars.index])
    assert len(find_fills(rest)) == 2


def test_at_its_true_volatility_it_earns_nothing_and_errs_by_the_root_of_the_steps():
    """Truth 4: zero within two standard errors; the error is that of the theorem, halved by 4 n."""
    spreads = []
    for n in (16, 64):
        gains = find_gains(hedge(simulate(n, N_PATHS, finest=64), SIGMA), N_PATHS)
        error = gains.std(ddof=1)
        assert abs(gains.mean()) < 2.0 * error / math.sqrt(N_PATHS)
        assert error == pytest.approx(compute_error(n), rel=3.0 / math.sqrt(2 * N_PATHS))
        spreads.append(error)
    assert spreads[0] / spreads[1] == pytest.approx(2.0, rel=0.3)


@pytest.mark.parametrize("implied", [0.45, 0.8])
def test_at_a_wrong_volatility_it_earns_the_integral_of_gamma(implied: float):
    """Truth 4: bought and hedged at 45 % it earns what gamma gives; at 80 % it loses that."""
    paths = simulate(64, N_PATHS, finest=64)
    gains = find_gains(hedge(paths, implied), N_PATHS)
    expected = integrate_gamma(paths, implied)
    rest = gains - expected
    assert abs(rest.mean()) < 2.0 * rest.std(ddof=1) / math.sqrt(N_PATHS)
    assert abs(expected.mean()) > 5.0 * abs(rest.mean())
    assert np.sign(gains.mean()) == np.sign(SIGMA - implied)


def test_the_hedge_is_the_delta_of_the_last_close_in_cash_and_in_coins():
    """In cash -delta F / S coins; in coins (delta - V/F) S / m contracts of m = 1e-6 dollars."""
    path = simulate(16, 1, finest=64)
    for kind in ("linear", "inverse"):
        result = hedge(path, SIGMA, ALWAYS, kind=kind)
        spot, years = path[0][1], YEARS * 15 / 16
        place = ("call", spot, SPOT, years, SIGMA)
        delta, value = options.greeks(*place).delta, options.price(*place)
        known = -delta if kind == "linear" else -(delta - value / spot) * spot
        assert result.bars["position"].iloc[3] * 1e-6 == pytest.approx(known, rel=1e-9)


def test_a_band_waits_and_its_edge_is_as_far_as_a_hedge_goes():
    """After a hedge the exposure at the close that ordered it is 0, or at the edge of the band."""
    for edge, kept in (("zero", 0.0), ("band", 0.02)):
        policy = DeltaHedge(Constant(0.0), band=0.02, edge=edge)
        result = hedge(simulate(16, 1, finest=64), SIGMA, policy, quantity=100.0)
        bars, events = result.bars, result.events
        fills = events[(events["kind"] == "fill") & (events["instrument"] == "A0")]
        assert 1 < len(fills) < 16
        after = bars.index.get_indexer(pd.DatetimeIndex(fills["time"]))
        calls = result.positions[result.positions["instrument"] == "CA0"].set_index("time")
        delta = calls["notional"][bars.index[after - 1]].to_numpy()
        held = 1e-6 * bars["position"].to_numpy()[after] * fills["price"].to_numpy()
        exposure = (delta + held) / bars["equity"].to_numpy()[after - 1]
        assert np.abs(exposure) == pytest.approx(kept, abs=1e-9)


def test_in_money_the_coins_count():
    """100 coins are sold short in full, one turn; with a target of 1 they are kept."""
    given = {"kind": "inverse", "quantity": 0.0}
    for target, leverage in ((0.0, -1.0), (1.0, 0.0)):
        policy = DeltaHedge(Constant(0.0), band=0.0, numeraire="money", target=target)
        found = hedge(simulate(16, 1, finest=64), SIGMA, policy, **given).bars["leverage"]
        assert found.iloc[3:].to_numpy() == pytest.approx(leverage, rel=1e-9)


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_a_result_tells_the_hedging_error(kind: str, tmp_path: Path):
    """Theory is gamma of each close times the realized variance less the implied; in coins over S.
    The account holds the call from the first of two quiet bars on. The mark has its first return in
    the second one: 65 returns, the last 64 on the path. Both quiet bars earn theta alone."""
    paths, implied = simulate(64, 2, finest=64), 0.45
    result = hedge(paths, implied, ALWAYS, kind=kind)
    table = result.hedging_error()
    assert table.index.tolist() == ["A0", "A1"]
    for i, path in enumerate(paths):
        row, step = table.iloc[i], YEARS / 64
        variance = (np.diff(np.log(np.concatenate(([path[0]], path)))) ** 2).sum() / (65 * step)
        spots = np.concatenate(([path[0]], path[:-1]))
        left = YEARS + step - step * np.arange(65)
        gamma = options.greeks("call", spots, SPOT, left, implied).gamma
        weights = gamma * spots ** (2 if kind == "linear" else 1) * step
        assert row["volatility"] == pytest.approx(math.sqrt(variance), rel=1e-9)
        assert row["implied_volatility"] == pytest.approx(implied, rel=1e-9)
        theory = 0.5 * (variance - implied**2) * weights.sum()
        assert row["theory"] == pytest.approx(theory, rel=1e-6)
        spread = variance * math.sqrt(0.5 * (weights**2).sum())
        assert row["expected_deviation"] == pytest.approx(spread, rel=1e-6)
        own = result.positions[result.positions["instrument"].isin([f"A{i}", f"CA{i}"])]
        assert row["profit"] == pytest.approx(own["price_pnl"].sum())
        assert row["error"] == pytest.approx(row["profit"] - theory)
        assert 0.3 < row["deviation"] / spread < 2.0
    by_bar = result.hedging_error("bar")
    assert by_bar.sum().tolist() == pytest.approx(table[[*by_bar]].sum().tolist())
    assert bt.Result.load(result.save(tmp_path)).hedging_error().equals(table)
    assert "Hedging error of each instrument" in result.summary()
    assert "Hedging error of each instrument" in result.report(tmp_path / "run.md").read_text()
