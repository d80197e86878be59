"""The cost of options by roll and by leg, by hand."""

from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import Collar, Constant, CoveredCall, TailHedge
from tests.kit import compare_policies
from tests.options.listed_markets import make_markets, make_surfaces, make_venue
from tests.strategies.test_strategies_options import find_fills, run

pytestmark = pytest.mark.filterwarnings("ignore:volatility is flat before")
HEDGE = TailHedge(Constant(3.0), delta=-0.1, tenor=12.0, roll=5.0, budget=0.01)


@pytest.fixture(scope="module")
def hedged() -> bt.Result:
    """Return nine days with a put that is sold for another."""
    return run(HEDGE, days=9)


def test_a_roll_costs_premium_less_proceeds_and_fees(hedged: bt.Result):
    """Two puts: the first is bought in bar 2 and sold in bar 176, the second is held to the end.

    The fee of a fill is 0.0003 of the price of 30,000, at most 0.125 of the premium; each fill is
    one point of volatility worse than the mark.
    """
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
    rolls = run(CoveredCall(Constant(1.5), tenor=4.0, roll=0.0), days=6).rolls()
    first = rolls.iloc[0]
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


def test_a_comparison_has_the_cost_of_protection():
    market = bt.Market.sample(bars=72)
    put = bt.Option(
        kind="put", strike=26_000, expiry="2023-01-20 08:00", underlying="BTC", settlement="coin"
    )
    markets = bt.Markets(
        {"BTC": market, "PUT": put},
        surfaces={"BTC": make_surfaces(["2022-12-31 12:00"])}, currency="BTC",
    )  # fmt: skip
    inverse = bt.Contract(kind="inverse", size=1.0, lot=1.0)
    terms = {
        "venue": make_venue(contract=inverse), "compile": False, "sampling": "1h",
        "account": bt.Account(capital=10.0, requirement="deribit-standard"),
    }  # fmt: skip
    hedged = bt.run(markets, TailHedge(Constant(1.0), tenor=18.0, budget=0.01), **terms)
    arms = {"bare": Constant(1.0), "hedged": hedged}
    done = compare_policies(markets, arms, **terms, draws=99, confidence=0.9)
    row = done.table.loc["hedged"]
    assert row["options_cost_annual"] == hedged.metrics["options_cost_annual"]
    assert np.isnan(done.table["options_cost_annual"]["bare"])


class EachClose(TailHedge):
    """The same rule, asked at each close."""

    only_rolls = False


@pytest.mark.filterwarnings("ignore:volatility is flat")
def test_a_rule_that_only_rolls_is_asked_only_where_a_roll_may_be_due():
    """Also where the account is liquidated in between, and its put is sold."""
    terms = {"delta": -0.3, "tenor": 5.0, "roll": 2.0, "budget": 0.05}
    strikes = [27_000.0, 28_000.0, 29_000.0, 30_000.0]
    options = bt.Option.grid(
        "BTC", strikes=strikes, start="2023-01-03", end="2023-02-01", kinds=["put"]
    )
    account = bt.Account(capital=100_000.0, requirement="deribit-standard", band=0.05)
    for leverage in (1.0, 30.0):
        runs = [
            bt.run(
                make_markets(bars=240, options=options),
                rule(Constant(leverage), **terms),
                venue=make_venue(),
                account=account,
                compile=False,
            )
            for rule in (TailHedge, EachClose)
        ]
        first, second = (each.bars["equity"].to_numpy() for each in runs)
        assert np.array_equal(first, second)
        assert runs[0].events.equals(runs[1].events)
