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
from tests.kit import slow
from tests.options.listed_markets import make_chain, make_surfaces, make_venue

pytestmark = pytest.mark.filterwarnings("ignore:volatility is flat before")
LEVEL = 30_000.0
STRIKES = range(22_000, 34_001, 2_000)
RULE = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
N_PATHS = 40


def list_contracts(**more: Any) -> dict[str, bt.Option]:
    """Return calls and puts of three expiries by short names, such as P26-13."""
    contracts = {}
    for day in ("2023-01-05 08:00", "2023-01-13 08:00", "2023-01-20 08:00"):
        for strike in STRIKES:
            for kind in ("call", "put"):
                name = f"{kind[0].upper()}{strike // 1000}-{day[8:10]}"
                contracts[name] = bt.Option(
                    kind=kind, strike=strike, expiry=day, underlying="BTC", **more
                )
    return contracts


def run(policy: Any, days: int = 8, call: Any = bt.run, **more: Any) -> bt.Result:
    """Return a run at a constant price and volatility, without costs of the instrument. ``call`` is
    what runs it."""
    time = pd.date_range("2023-01-01", periods=24 * days, freq="1h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), LEVEL), index=time)
    market = bt.Market.from_frames(bars.assign(volume=0.0))
    listed = more.pop("listed", None) or list_contracts()
    costs = make_venue().option_costs.override(more.pop("costs", {}))
    terms = {"surfaces": {"BTC": make_surfaces(["2022-12-31 12:00"])}, **more}

    markets = bt.Markets({"BTC": market, **listed}, **terms)
    venue = make_venue(**{"fees.taker": 0.0, "slippage.rate": 0.0, "option_costs": costs})
    account = bt.Account(capital=60_000.0, requirement=RULE)
    return call(markets, policy, venue=venue, account=account, compile=False)


def find_fills(result: bt.Result) -> pd.DataFrame:
    """Return the fills of options: bar, instrument, quantity, price."""
    events = result.events
    fills = events[(events["kind"] == "fill") & (events["instrument"] != "BTC")]
    bar = (fills["time"] - result.bars.index[0]) // pd.Timedelta(hours=1)
    columns = ["bar", "instrument", "quantity", "price"]
    return fills.assign(bar=bar)[columns].reset_index(drop=True)


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

    bid = price("put", 26_000, 120, 0.59)
    assert fills["quantity"][1] == -fills["quantity"][0]
    assert fills["price"][1] == pytest.approx(bid, rel=1e-6)

    budget = 0.01 * result.bars["equity"].iloc[175]
    assert fills["quantity"][2] == pytest.approx(budget / fills["price"][2], rel=1e-9)

    hedges = result.positions[result.positions["instrument"].str.startswith("tail:")]
    held = hedges[hedges["quantity"] != 0]
    assert held.groupby("time").size().max() == 1


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
    chosen = []

    class Look(bt.Policy):
        def leverage(self, bar, account):
            return 0.0

        def option_orders(self, bar, account, chain):
            first = chain["P26-13"].days
            second = chain["P26-20"].days
            middle = 0.5 * (first + second)
            quotes = (
                chain.choose("put", -0.1, 1.0, middle, 1.0),
                chain.choose("put", 0.1, 1.0, middle, first),
                chain.choose("call", 0.5, -1.0, 1.0, 0.0),
                chain.choose("put", 0.0, 1.0, 1.0, 0.0),
                chain.choose("put", 0.0, 1.0, 1.0, 400.0),
            )
            chosen.append([quote.name if quote else None for quote in quotes])
            return {}

    run(Look(), days=1)

    assert chosen[0] == ["P26-13", "P26-20", "C30-05", "P22-05", None]


def test_a_straddle_spends_its_budget_on_both_sides():
    fills = find_fills(run(LongVolatility(Constant(0.0), tenor=12.0, budget=0.02), days=1))

    assert fills["instrument"].tolist() == ["call:C30-13", "put:P30-13"]
    assert fills["quantity"][0] == fills["quantity"][1]
    assert (fills["quantity"] * fills["price"]).sum() == pytest.approx(1_200.0, rel=1e-9)


@pytest.mark.slow
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
    call = bt.Option(
        kind="call",
        strike=32_000,
        expiry="2023-01-05 08:00",
        underlying="BTC",
        settlement="coin" if is_coin else "cash",
        lot=0.1,
    )
    surfaces = {"BTC": make_surfaces(["2022-12-31 12:00"])}
    markets = bt.Markets({"BTC": market, "C": call}, surfaces=surfaces)

    if is_coin:
        changes = {"contract.kind": "inverse", "contract.size": 10.0, "contract.lot": 1.0}
        venue = make_venue(**changes)
        account = bt.Account(capital=2.0, requirement=RULE)
    else:
        venue = make_venue()
        coins = bt.Collateral("BTC", 2.0, prices=market, rate=0.9)
        account = bt.Account(
            capital=60_000.0, requirement=RULE, collateral=[coins], negative_limit=0.0
        )
    venue = venue.override(option_costs=venue.option_costs.override(tick=0.0))
    policy = CoveredCall(Constant(0.0), tenor=4.0, roll=0.0)
    result = bt.run(markets, policy, venue=venue, account=account, compile=False)

    fills = find_fills(result)
    assert fills["quantity"].tolist() == pytest.approx([-2.0])

    # In coins, or in dollars: a coin, its last price, and what the account begins with.
    coin = 1.0 if is_coin else LEVEL
    last_coin = 1.0 if is_coin else last
    begun = 2.0 if is_coin else 60_000.0 + 2.0 * last
    premium = fills["price"][0] - min(0.0003 * coin, 0.125 * fills["price"][0])
    paid = (payoff + min(0.00015, 0.125 * payoff)) * last_coin
    assert result.bars["equity"].iloc[-1] == pytest.approx(begun + 2.0 * (premium - paid), rel=1e-9)


@pytest.mark.parametrize(("lot", "sold"), [(None, 3.0), (0.0, 3.07)])
def test_quantities_follow_the_lot_of_the_venue(lot, sold):
    """3.07 coins under a cover of 1: 3 calls in lots of .1, 3.07 without."""
    policy = CoveredCall(Constant(1.535), tenor=4.0)
    result = run(policy, days=1, listed=list_contracts(lot=lot), costs={"lot": 0.1})

    assert find_fills(result)["quantity"].tolist() == pytest.approx([-sold])


def test_a_leg_acts_on_fresh_quotes_alone():
    """The rows of the chain are young at the close of bar 12, and again a day later."""
    chain = make_chain(["2023-01-01 12:20", "2023-01-02 12:20"])
    puts = chain.table[chain.table["kind"] == "put"]
    puts = puts[puts["expiry"] > pd.Timestamp("2023-01-03", tz="UTC")]
    listed = {}
    for row in puts.drop_duplicates(["expiry", "strike"]).itertuples():
        listed[f"p{row.strike:g}-{row.expiry:%d}"] = bt.Option(
            kind="put", strike=row.strike, expiry=str(row.expiry), underlying="BTC"
        )

    policy = TailHedge(Constant(1.0), tenor=12.0, roll=1.0)
    fills = find_fills(run(policy, days=2, listed=listed, chains={"BTC": chain}))
    assert fills["bar"].tolist() == [13]

    option = listed[fills["instrument"][0].removeprefix("tail:")]
    expiry = pd.Timestamp(option.expiry, tz="UTC")
    rows = puts[(puts["strike"] == option.strike) & (puts["expiry"] == expiry)]
    assert fills["price"][0] == rows["ask"].iloc[0]
    assert np.isfinite(fills["quantity"][0])


def test_a_run_goes_on_with_its_legs():
    """The second half knows the put that the first one bought, and rolls it."""
    policy = TailHedge(Constant(3.0), tenor=12.0, roll=5.0)
    whole = run(policy, days=9)

    first = run(policy, days=5)
    rest = run(policy, days=9, call=partial(bt.run, resume=first))
    assert rest.bars["equity"].equals(whole.bars["equity"][rest.bars.index])
    assert len(find_fills(rest)) == 2


@pytest.mark.slow
def test_at_its_true_volatility_it_earns_nothing_and_errs_by_the_root_of_the_steps():
    """Truth 4: zero within two standard errors; the error is that of the theorem, halved by 4 n."""
    errors = []
    for n in (16, 64):
        gains = find_gains(hedge(simulate(n, N_PATHS, finest=64), SIGMA), N_PATHS)
        error = gains.std(ddof=1)
        assert abs(gains.mean()) < 2.0 * error / math.sqrt(N_PATHS)
        assert error == pytest.approx(compute_error(n), rel=3.0 / math.sqrt(2 * N_PATHS))
        errors.append(error)

    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.3)


@pytest.mark.parametrize("implied", [0.45, *slow([0.8])])
def test_at_a_wrong_volatility_it_earns_the_integral_of_gamma(implied: float):
    """Truth 4: bought and hedged at 45 % it earns what gamma gives; at 80 % it loses that."""
    paths = simulate(64, N_PATHS, finest=64)
    gains = find_gains(hedge(paths, implied), N_PATHS)
    expected = integrate_gamma(paths, implied)

    rest = gains - expected
    assert abs(rest.mean()) < 2.0 * rest.std(ddof=1) / math.sqrt(N_PATHS)
    assert abs(expected.mean()) > 5.0 * abs(rest.mean())
    assert np.sign(gains.mean()) == np.sign(SIGMA - implied)


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_the_hedge_is_the_delta_of_the_last_close_in_cash_and_in_coins(kind):
    """In cash -delta F / S coins; in coins (delta - V/F) S / m contracts of m = 1e-6 dollars."""
    path = simulate(16, 1, finest=64)
    result = hedge(path, SIGMA, ALWAYS, kind=kind)

    spot = path[0][1]
    years = YEARS * 15 / 16
    delta = options.greeks("call", spot, SPOT, years, SIGMA).delta
    value = options.price("call", spot, SPOT, years, SIGMA)
    expected = -delta
    if kind == "inverse":
        expected = -(delta - value / spot) * spot
    assert result.bars["position"].iloc[3] * 1e-6 == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("edge", "left"), [("zero", 0.0), ("band", 0.02)])
def test_a_band_waits_and_its_edge_is_as_far_as_a_hedge_goes(edge, left):
    """After a hedge the exposure at the close that ordered it is 0, or at the edge of the band."""
    policy = DeltaHedge(Constant(0.0), band=0.02, edge=edge)
    result = hedge(simulate(16, 1, finest=64), SIGMA, policy, quantity=100.0)
    bars = result.bars
    fills = result.events.query("kind == 'fill' and instrument == 'A0'")
    assert 1 < len(fills) < 16

    filled = bars.index.get_indexer(pd.DatetimeIndex(fills["time"]))
    ordered = filled - 1
    calls = result.positions[result.positions["instrument"] == "CA0"].set_index("time")
    delta = calls["notional"][bars.index[ordered]].to_numpy()
    hedged = 1e-6 * bars["position"].to_numpy()[filled] * fills["price"].to_numpy()
    exposure = (delta + hedged) / bars["equity"].to_numpy()[ordered]
    assert np.abs(exposure) == pytest.approx(left, abs=1e-9)


@pytest.mark.parametrize(("target", "leverage"), [(0.0, -1.0), (1.0, 0.0)])
def test_in_money_the_coins_count(target, leverage):
    """100 coins are sold short in full, one turn; with a target of 1 they are kept."""
    policy = DeltaHedge(Constant(0.0), band=0.0, numeraire="money", target=target)
    path = simulate(16, 1, finest=64)
    bars = hedge(path, SIGMA, policy, kind="inverse", quantity=0.0).bars

    assert bars["leverage"].iloc[3:].to_numpy() == pytest.approx(leverage, rel=1e-9)


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_a_result_tells_the_hedging_error(kind: str, tmp_path: Path):
    """Theory is gamma of each close times the realized variance less the implied; in coins over S.
    The account holds the call from the first of two quiet bars on. The mark has its first return in
    the second one: 65 returns, the last 64 on the path. Both quiet bars earn theta alone."""
    implied = 0.45
    step = YEARS / 64
    paths = simulate(64, 2, finest=64)
    result = hedge(paths, implied, ALWAYS, kind=kind)
    table = result.hedging_error()
    assert table.index.tolist() == ["A0", "A1"]

    for i, path in enumerate(paths):
        row = table.iloc[i]
        moves = np.diff(np.log(np.concatenate(([path[0]], path))))
        variance = (moves**2).sum() / (65 * step)
        assert row["volatility"] == pytest.approx(math.sqrt(variance), rel=1e-9)
        assert row["implied_volatility"] == pytest.approx(implied, rel=1e-9)

        spots = np.concatenate(([path[0]], path[:-1]))
        years_left = YEARS + step - step * np.arange(65)
        gamma = options.greeks("call", spots, SPOT, years_left, implied).gamma
        weights = gamma * spots ** (2 if kind == "linear" else 1) * step
        theory = 0.5 * (variance - implied**2) * weights.sum()
        deviation = variance * math.sqrt(0.5 * (weights**2).sum())
        assert row["theory"] == pytest.approx(theory, rel=1e-6)
        assert row["expected_deviation"] == pytest.approx(deviation, rel=1e-6)
        assert 0.3 < row["deviation"] / deviation < 2.0

        positions = result.positions[result.positions["instrument"].isin([f"A{i}", f"CA{i}"])]
        assert row["profit"] == pytest.approx(positions["price_pnl"].sum())
        assert row["error"] == pytest.approx(row["profit"] - theory)

    by_bar = result.hedging_error("bar")
    assert by_bar.sum().tolist() == pytest.approx(table[[*by_bar]].sum().tolist())
    assert bt.Result.load(result.save(tmp_path)).hedging_error().equals(table)
    assert "Hedging error of each instrument" in result.summary()
    assert "Hedging error of each instrument" in result.report(tmp_path / "run.md").read_text()
