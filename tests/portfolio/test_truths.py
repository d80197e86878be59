"""What must be true of an account with several positions, whoever computes it."""

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.agreement import Scripted, flat, run_engine, scene, tape
from tests.cases import make_portfolio_case

NAN = math.nan
PNL = ("price_pnl", "fees", "slippage", "impact", "funding", "liquidation_loss")


def quiet_run(*given: Any, **terms: Any) -> Any:
    """Run in plain Python without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.run(*given, **terms)


def volatile(bars: int = 120, seed: int = 0) -> bt.Market:
    """Return bars that a leverage of 20 does not survive for long."""
    rng = np.random.default_rng(seed)
    moves = rng.standard_t(3, bars) * 0.012
    close = 100.0 * np.exp(np.cumsum(moves))
    start = np.concatenate([[100.0], close[:-1]])
    wick = np.exp(np.abs(rng.normal(0.0, 0.006, (2, bars))))
    frame = {"open": start, "close": close, "volume": np.full(bars, 1e9)}
    frame |= {"high": np.maximum(start, close) * wick[0], "low": np.minimum(start, close) / wick[1]}
    index = pd.date_range("2024-01-01", periods=bars, freq="h", tz="UTC", name="time")
    funding = pd.DataFrame({"rate": 1e-4}, index=index[::8])
    table = pd.DataFrame(frame, index=index)
    return bt.Market.from_frames(table, mark=table, funding=funding, instrument="BTCUSDT")


def simple(mode: str = "close") -> bt.Venue:
    """Return one flat bracket, a taker fee, no lots and no impact."""
    venue = bt.Venue.simple(
        taker=5e-4, slippage=2e-4, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.002
    )
    return venue.override({"liquidation.mode": mode})


# ----- 2: the same market under two names


@pytest.mark.parametrize("mode", ["close", "takeover"])
def test_two_halves_of_a_market_are_the_whole(mode):
    """Half the weight under each of two names: the single account to 1e-9."""
    market, venue, account = volatile(), simple(mode), bt.Account(capital=10_000)
    one = quiet_run(market, Constant(leverage=20.0), venue=venue, account=account)
    both = quiet_run(
        bt.Markets({"A": market, "B": market}, currency="USDT"),
        Constant(leverage=20.0),
        venue=venue,
        account=account,
        signal={"A": 0.5, "B": 0.5},
    )
    assert one.metrics["liquidations"] >= 1
    scale = 1e-9 * np.maximum(one.bars["equity"], 10_000)
    assert (np.abs(one.bars["equity"] - both.bars["equity"]) <= scale).all()
    held = both.positions.pivot_table(index="time", columns="instrument", values="quantity")
    assert np.allclose(held.sum(axis=1), one.bars["position"], rtol=1e-9, atol=1e-9)
    assert np.allclose(held["A"], held["B"], rtol=1e-12)


def hedge(requirement: dict[str, Any] | None, **account: Any) -> Any:
    """Long 4x and short 4x of one market that falls by 20 % and rises by 30 % inside a bar."""
    bars = [flat(100), flat(100), (100, 130, 80, 110)]
    tapes = {"A": tape(bars, (4.0, NAN)), "B": tape(bars, (4.0, NAN))}
    return run_engine(scene(tapes, {"A": 1.0, "B": -1.0}, requirement=requirement, **account))


def scenario(**terms: Any) -> dict[str, Any]:
    """Return scenarios of 15 % on one group of A and B."""
    plain = {
        "moves": {"g": [(-0.15, 1.0), (0.15, 1.0)]}, "groups": {"g": ["A", "B"]},
        "products": None, "across": "independent", "offset": 0.0, "factor": 1.0, "minimum": 0.0,
        "contingency": 0.0, "pair_contingency": 0.0, "initial": None, "level": 1.0,
    }  # fmt: skip
    return plain | terms


def test_a_hedge_needs_twice_the_margin_under_brackets_and_little_under_scenarios():
    """8000 gross: 5 % is 400; one group nets to nothing but 1 % contingency or 2 % minimum."""
    assert hedge(None).bars["requirement"].iloc[1] == pytest.approx(400.0, rel=1e-12)
    small = hedge(scenario(contingency=0.01)).bars["requirement"].iloc[1]
    assert small == pytest.approx(80.0, rel=1e-12)
    least = hedge(scenario(minimum=0.02)).bars["requirement"].iloc[1]
    assert least == pytest.approx(160.0, rel=1e-12)


@pytest.mark.parametrize("requirement", [None, scenario(contingency=0.01)])
@pytest.mark.parametrize("intrabar", ["path", "worst"])
def test_a_hedge_is_not_liquidated_while_the_margin_holds_at_every_price(requirement, intrabar):
    """M stays 1000; the requirement is at most 5 % of 8 x 130 x 10. The market is one."""
    bars = [flat(100), flat(100), (100, 130, 80, 110)]
    market = tape(bars, (4.0, NAN)).for_engine(bt, "A")
    account = bt.Account(
        capital=1000.0,
        intrabar=intrabar,
        requirement=bt.Brackets() if requirement is None else bt.ScenarioMargin(**requirement),
    )
    venue = scene({"A": tape(bars)}, {"A": 1.0}).for_engine(bt)["venue"]["A"]
    result = quiet_run(
        bt.Markets({"A": market, "B": market}, currency="TEST"),
        Scripted(),
        venue=venue,
        account=account,
        signal={"A": 1.0, "B": -1.0},
    )
    assert result.metrics["liquidations"] == 0
    assert result.bars["equity"].iloc[-1] == pytest.approx(1000.0, rel=1e-12)


# ----- 3: order and idle instruments


def three(order: tuple[str, ...]) -> Any:
    """Run three volatile markets in an order."""
    markets = {name: volatile(seed=k) for k, name in enumerate("ABC")}
    signal = {"A": 0.4, "B": -0.35, "C": 0.25}
    return quiet_run(
        bt.Markets({name: markets[name] for name in order}, currency="USDT"),
        Constant(leverage=40.0),
        venue=simple(),
        account=bt.Account(capital=10_000, band=0.3),
        signal={name: signal[name] for name in order},
    )


def test_permuting_instruments_changes_nothing():
    """To 1e-12 of the equity."""
    first, other = three(("A", "B", "C")), three(("C", "A", "B"))
    assert first.metrics["liquidations"] > 0
    gap = np.abs(first.bars["equity"] - other.bars["equity"])
    assert (gap <= 1e-12 * first.bars["equity"].cummax()).all()


def test_an_instrument_that_is_never_held_changes_nothing():
    """Bit for bit: the account's bars, and the positions of the others."""
    two = {name: volatile(seed=k) for k, name in enumerate("AB")}
    terms = {"venue": simple(), "account": bt.Account(capital=10_000)}
    policy = Constant(leverage=15.0)
    plain = quiet_run(
        bt.Markets(two, currency="USDT"), policy, signal={"A": 0.5, "B": -0.5}, **terms
    )
    idle = quiet_run(
        bt.Markets({**two, "C": volatile(seed=9)}, currency="USDT"),
        policy,
        signal={"A": 0.5, "B": -0.5, "C": 0.0},
        **terms,
    )
    pd.testing.assert_frame_equal(plain.bars, idle.bars, check_exact=True)
    kept = idle.positions[idle.positions["instrument"] != "C"].reset_index(drop=True)
    for name in ("quantity", "entry", "profit", "fees", "funding"):
        assert np.array_equal(kept[name], plain.positions[name], equal_nan=True)


# ----- 4: ledgers


@pytest.mark.parametrize("seed", [3, 21, 36, 55, 81])
def test_ledgers_of_instruments_add_up_and_the_account_balances(seed):
    """Random accounts, collateral and conversions among them."""
    case = make_portfolio_case(seed)
    result = run_engine(case)
    bars, positions = result.bars, result.positions
    scale = 1e-9 * max(bars["equity"].max(), case.account["capital"])
    for name in PNL:
        own = positions.groupby("time")[name].sum().reindex(bars.index).fillna(0.0)
        assert np.allclose(own, bars[name], rtol=1e-9, atol=scale), name
    gains = bars[["price_pnl", "collateral_pnl", "flows", "bad_debt"]].sum(axis=1)
    costs = bars[
        ["fees", "slippage", "impact", "funding", "interest", "liquidation_loss", "conversion"]
    ].sum(axis=1)
    change = np.diff(bars["equity"])
    assert np.allclose(change, (gains - costs).to_numpy()[1:], rtol=0, atol=10 * scale)


# ----- 5: contagion by hand


def contagion(venues: Any = None, **account: Any) -> Any:
    """BTC: 4x long at 100, up 4 %; XRP: 6x short at 1, up 25 %, along one bar."""
    tapes = {
        "BTC": tape([flat(100), flat(100), (100, 104, 100, 104)], (4.0, NAN)),
        "XRP": tape([flat(1), flat(1), (1, 1.25, 1, 1.25)], (6.0, NAN)),
    }
    return run_engine(scene(tapes, {"BTC": 1.0, "XRP": -1.0}, venues=venues, **account))


def test_contagion_a_winner_closes_because_a_short_ran():
    """M = 1000 + 160 x - 1500 x meets R = 500 + 83 x at x = 500/1423.

    There BTC has gained 160 x and its share of R has grown by 8 x; XRP has lost 1500 x and its
    share has grown by 75 x. So M - R, 500 at the last close, fell by XRP alone.
    """
    result = contagion()
    x = 500 / 1423
    assert result.bars["equity"].iloc[-1] == pytest.approx(1000 - 1340 * x, rel=1e-12)
    dead = result.events[result.events["kind"] == "liquidation"]
    assert list(dead["instrument"]) == ["BTC", "XRP"]
    assert dead["price"].iloc[0] == pytest.approx(100 + 4 * x, rel=1e-12)
    table = result.contagion().set_index("cause")
    assert table["share"].sum() == pytest.approx(1.0, rel=1e-12)
    assert table.loc["XRP", "share"] == pytest.approx(1.0, rel=1e-12)
    assert table.loc["BTC", "profit"] == pytest.approx(160 * x, rel=1e-12)
    assert table["profit"].drop("BTC").eq(0.0).all()


def test_contagion_in_steps_names_no_winner_that_stays():
    """The position with the largest loss is reduced: XRP. BTC stays, and is not pulled down."""
    steps = {"*": {"liquidation": {"mode": "partial", "step": 0.5, "order": "largest_loss"}}}
    result = contagion(steps)
    dead = result.events[result.events["kind"] == "liquidation"]
    assert set(dead["instrument"]) == {"XRP"}
    table = result.contagion()
    assert list(table["cause"].unique()) == ["XRP"]
    assert table["profit"].eq(0.0).all()


def test_contagion_isolated_the_winner_survives():
    """XRP fails alone at x = 300/1575 and leaves 600 - 1500 x; BTC has 400 + 160 at the close."""
    result = contagion(margin="isolated", venue_leverage={"BTC": 10.0, "XRP": 10.0})
    left = 600 - 1500 * Fraction(300, 1575)
    assert result.bars["equity"].iloc[-1] == pytest.approx(float(left) + 560, rel=1e-12)
    dead = result.events[result.events["kind"] == "liquidation"]
    assert list(dead["instrument"]) == ["XRP"]
    assert len(result.contagion()) == 0


@pytest.mark.parametrize(
    ("move", "first", "left"), [(0.05, 0.475, 500.0), (0.08, 0.16, 600 - 80 / 0.95)]
)
def test_two_causes_share_a_fall(move, first, left):
    """A long 5x falls and B short 5x rises: at the lows A has fallen alone, at the highs B risen.

    Then A falls by x and the account fails: 1000 - 5000 m - 5000 x = 250 (1 + m) + 250 (1 - x). Of
    a fall of D by 500, A's loss less the fall of its requirement is 4750 x = 500 - 5250 m.
    """
    tapes = {
        "A": tape([flat(100), flat(100), (100, 100, 100 * (1 - move), 100 * (1 - move))], (5, NAN)),
        "B": tape([flat(100), flat(100), (100, 100 * (1 + move), 100, 100 * (1 + move))], (5, NAN)),
    }
    result = run_engine(scene(tapes, {"A": 1.0, "B": -1.0}))
    table = result.contagion().set_index("cause")
    assert table.loc["A", "share"] == pytest.approx(first, rel=1e-9)
    assert table.loc["B", "share"] == pytest.approx(1 - first, rel=1e-9)
    assert result.bars["equity"].iloc[-1] == pytest.approx(left, rel=1e-9)


# ----- 6: worst is a bound of path


def one_bar(seed: int) -> dict[str, Any]:
    """Return a state at an open, without stops, and one random bar."""
    rng = np.random.default_rng(seed)
    tapes, signal = {}, {}
    for name in ("A", "B", "C")[: rng.integers(2, 4)]:
        low, high = np.exp(-rng.exponential(0.06)), np.exp(rng.exponential(0.06))
        close = rng.uniform(low, high)
        bar = (100.0, 100 * high, 100 * low, 100 * close)
        tapes[name] = tape([flat(100), flat(100), bar], (float(rng.uniform(1, 6)), NAN))
        signal[name] = float(rng.choice([-1.0, 1.0]))
    return {"tapes": tapes, "signal": signal}


@pytest.mark.slow
def test_where_the_path_fails_the_worst_fails_too():
    """From one state at the open of a bar, without stops, with slopes under 1."""
    failed = {"path": 0, "worst": 0}
    for seed in range(30):
        given = one_bar(seed)
        hits = {
            mode: run_engine(scene(given["tapes"], given["signal"], intrabar=mode)).metrics[
                "liquidations"
            ]
            for mode in failed
        }
        assert not (hits["path"] and not hits["worst"]), f"seed {seed}"
        failed = {mode: failed[mode] + bool(hits[mode]) for mode in failed}
    assert 2 < failed["path"] < failed["worst"]
