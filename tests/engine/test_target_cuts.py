"""What kept an account from its targets is told, limit by limit, and adds up."""

import warnings
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.agreement import Scripted
from tests.cases import make_exit_case
from tests.kit import bars_market

MARKET = bt.Market.sample(bars=600)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


class Wild(bt.Policy):
    """Ask for anything: little, much, nothing known, as much as allowed."""

    top: Annotated[float, bt.Range(0, 200)] = 3.0

    def observe(self, market):
        return {"u": np.random.default_rng(7).uniform(0.0, 2.0, 10_000)[: market.n_bars]}

    def leverage(self, bar, account):
        if bar.u > 1.97:
            return float("inf")
        return float("nan") if bar.u < 0.05 else self.top * bar.u


def test_initial_margin_is_told_by_hand():
    """3x is asked, 2x allowed: at a constant price, without costs, 2x is held, 1x short."""
    price = np.full(6, 100.0)
    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.1, max_leverage=2, liquidation_fee=0.0
    )
    market = bars_market(price, price)
    result = bt.run(market, Constant(3.0), venue=venue, account=bt.Account(), compile=False)
    table = result.target_cuts()
    assert list(table.index) == ["all", "initial_margin"]
    row = table.loc["initial_margin"]
    assert row["decisions"] == 5
    assert row["mean_asked"] == pytest.approx(3.0)
    assert row["mean_held"] == pytest.approx(2.0)
    assert row["mean_shortfall"] == pytest.approx(1.0)


@pytest.mark.parametrize(("account", "leverage", "cause"), [
    ({"max_leverage": 2.0}, 3.0, "max_leverage"),
    ({"min_leverage": 0.5}, 0.1, "min_leverage"),
    ({"band": 0.5}, 0.4, "band"),
    ({"venue_leverage": 2.0}, 3.0, "venue_leverage"),
    ({"capital": 20.0}, 0.6, "lot"),
    ({"capital": 5.0}, 0.5, "min_notional"),
])  # fmt: skip
def test_each_limit_has_its_name(account, leverage, cause):
    price = np.full(6, 100.0)
    venue = bt.Venue(
        contract=bt.Contract(lot=0.05 if cause == "lot" else 0.0, min_notional=3.0),
        brackets=[bt.Bracket(0.0, 1e9, 20.0, 0.01)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(fee=0.0, slippage=0.0),
    )
    result = bt.run(
        bars_market(price, price), Constant(leverage), venue=venue, account=bt.Account(**account),
        compile=False,
    )  # fmt: skip
    assert cause in result.target_cuts().index


def test_an_infinite_leverage_is_not_cut_but_counted_and_warned_of():
    with pytest.warns(bt.InfiniteLeverageWarning, match=r"infinite leverage at \d+ of 600 closes"):
        result = bt.run(
            MARKET, Wild(1.0), venue=VENUE, account=bt.Account(max_leverage=2.0), compile=False
        )
    assert result.target_cuts().loc["all", "mean_shortfall"] < 0.5
    assert "n infinite leverage asked for" in " ".join(result.summary().split())


# -------------------------------------------------------------------------------------- no fill


class Silent(bt.Policy):
    """Never decide."""

    def leverage(self, bar, account):
        return float("nan")


class Cold(bt.Policy):
    """Need more bars than there are."""

    def observe(self, market):
        return {"sigma": np.full(market.n_bars, np.nan)}

    def leverage(self, bar, account):
        return 1.0 / bar.sigma


@pytest.mark.parametrize(("policy", "account", "signal", "why"), [
    (Silent(), {}, None, "the policy returned NaN"),
    (Cold(), {}, None, "sigma was not known at any of 600 closes"),
    (Constant(1.0), {"band": 5.0}, None, "within the band of 5 turns"),
    (Constant(1.0), {"capital": 2.0}, None, "under the least notional of the venue, 100"),
    (Constant(1.0), {}, 0.0, "the signal was 0 or NaN at all 600 closes"),
])  # fmt: skip
def test_a_run_without_a_fill_says_why_first(policy, account, signal, why):
    with pytest.warns(bt.NoFillWarning, match="filled no order") as caught:
        result = bt.run(
            MARKET, policy, venue=VENUE, account=bt.Account(**account), signal=signal,
            compile=False,
        )  # fmt: skip
    assert why in str(caught[0].message)
    assert caught[0].filename == __file__
    assert "! NO FILL: no order was filled" in result.summary()


def test_a_sweep_says_how_many_sets_have_no_fill():
    with pytest.warns(bt.NoFillWarning, match="1 of 2 sets filled no order"):
        bt.sweep(
            MARKET, Constant, {"leverage": [0.0, 1.0]}, venue=VENUE, account=bt.Account(),
            compile=False,
        )  # fmt: skip


# ----------------------------------------------------------------------------------- last prices


def collect(act):
    """Return the warnings about last prices that an act gives, by default filters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [each for each in caught if each.category is bt.LastPriceWarning]


@pytest.mark.slow
def test_last_prices_are_warned_of_once_per_call():
    price = 100.0 + np.sin(np.arange(24 * 31) / 9.0)
    market = bars_market(price, price)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    acts = [
        lambda: bt.run(market, Constant(1.0), **terms),
        lambda: bt.sweep(market, Constant, {"leverage": [0.5, 1.0]}, full=True, **terms),
    ]
    for act in acts:
        told = collect(act)
        assert len(told) == 1
        assert told[0].filename == __file__
    assert not collect(lambda: bt.run(MARKET, Constant(1.0), **terms))


@pytest.mark.slow
def test_cuts_of_random_accounts_explain_every_fill_in_every_mode():
    """What the limits took adds up to asked less held."""
    for seed in range(1000, 1030):
        found = bt.run(policy=Scripted(), compile=False, **make_exit_case(seed).for_engine(bt))
        cuts = found.target_cuts()
        total, parts = cuts.loc["all"], cuts.drop(index="all")
        explained = (parts["mean_shortfall"] * parts["share"]).sum()
        missing = total["mean_asked"] - total["mean_held"]
        if total["decisions"]:
            assert explained == pytest.approx(missing, rel=1e-8, abs=1e-8), seed
