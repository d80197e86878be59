"""What kept positions from their targets is told: cuts, no fill, infinite leverage, old prices."""

import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.kit import Hold, bars_market, flat, make_market, make_venue

N = 30
STILL = {name: make_market([flat(100.0)] * N) for name in ("A", "B")}


class Unknown(bt.Policy):
    """Return NaN: its column is never known."""

    def observe(self, market):
        return {"mean": np.full(market.n_bars, np.nan)}

    def leverage(self, bar, account):
        return bar.mean


def run(policy, *, markets=None, venue=None, signal=None, overlay=None, **terms):
    """Run an account of two still markets in plain Python, without warnings of missing marks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bt.LastPriceWarning)
        return bt.run(
            bt.Markets(markets or STILL), policy, venue=venue or make_venue(), signal=signal,
            overlay=overlay, account=bt.Account(**terms),
        )  # fmt: skip


@pytest.mark.parametrize(("terms", "max_leverage", "cause", "held"), [
    ({}, 2.0, "initial_margin", 1.0),
    ({"max_gross_leverage": 3.0}, 20.0, "max_gross_leverage", 1.5),
    ({"max_leverage": 4.0}, 20.0, "max_leverage", 2.0),
    ({"margin": "isolated", "venue_leverage": 3.0}, 20.0, "wallet", 1.5),
])  # fmt: skip
def test_the_cut_of_a_limit_is_told(terms, max_leverage, cause, held):
    """5x asked, 2.5x for each of two; what is held follows from the limit alone: no costs."""
    venue = make_venue(max_leverage=max_leverage, maintenance_rate=0.01)
    result = run(Hold(level=5.0), venue=venue, **terms)
    cuts = result.target_cuts()
    for name in ("all", "A", "B"):
        row = cuts.loc[(name, cause)]
        assert row["mean_asked"] == pytest.approx(2.5)
        assert row["mean_held"] == pytest.approx(held)
        assert row["mean_shortfall"] == pytest.approx(2.5 - held)
        assert list(cuts.loc[name].index) == ["all", cause]
    assert cuts.loc[("all", cause), "decisions"] == 2 * (N - 1)


@pytest.mark.filterwarnings("ignore::backtest.NoFillWarning")
@pytest.mark.parametrize(("rows", "names", "text"), [
    (1, ["A", "B"], "the weights have 1 row, and the 28 bars without one are flat, first at"),
    (30, ["B"], "the weights of A are NaN in all 30 rows, which trades nothing"),
    (30, [], "the weights of A, B are NaN in all 30 rows"),
])  # fmt: skip
def test_weights_that_leave_bars_or_instruments_flat_unsaid_are_told(rows, names, text):
    """A frame of one row was flat from the second bar on, and NaN traded nothing, in silence."""
    weights = pd.DataFrame(math.nan, index=STILL["A"].times[:rows], columns=["A", "B"])
    weights[names] = 0.5
    with pytest.warns(bt.WeightWarning) as caught:
        run(Hold(), signal=weights)
    told = [str(each.message) for each in caught if each.category is bt.WeightWarning]
    assert len(told) == 1
    assert told[0].startswith(text)
    held = bt.signals.from_frame(bt.Markets(STILL), weights.fillna(0.5), carry=True)
    assert run(Hold(), signal=held) is not None  # no warning


@pytest.mark.parametrize(
    ("policy", "given", "reason"),
    [
        (Unknown(), {}, "mean of A, mean of B were not known at any of"),
        (Hold(), {"signal": pd.DataFrame({"A": 0.0, "B": 0.0}, index=STILL["A"].times)},
         "the signal was 0 or NaN at all 30 closes"),
        (Hold(level=0.036),  # 180 of each, which is one lot of 100
         {"venue": make_venue().override({"contract.lot": 1.0, "contract.min_notional": 150.0})},
         r"of 58 of 58 decisions \(0.018x per instrument on average\) were under the least"),
    ],
)  # fmt: skip
def test_a_run_without_a_fill_says_why(policy, given, reason):
    with pytest.warns(bt.NoFillWarning, match=reason):
        result = run(policy, **given)
    assert re.search(reason, result.no_fill)
    assert "! NO FILL: no order was filled" in result.summary()


def test_collateral_that_was_sold_is_gone_from_leverage_and_targets(tmp_path):
    """10 coins at 100 back 5x of 2,000, so 100 of A at 100, with a requirement of 5 %.

    A fails where 1,900 - 100 d = 500 - 5 d, at d = 14.737. The loss of 1,473.68 is paid by 1,000 of
    cash and 4.737 coins; 5.263 are left. The coins double at the next open, and 5x is held again.
    """
    fall = [flat(100), flat(100), (100, 100, 80, 90), flat(90), flat(90)]
    markets = bt.Markets({"A": make_market(fall), "B": make_market([flat(100)] * 5)})
    coins = make_market([flat(100)] * 3 + [flat(200)] * 2)
    signal = pd.DataFrame({"A": 1.0, "B": 0.0}, index=markets.times)
    terms = {
        "venue": make_venue(),
        "account": bt.Account(
            capital=1_000.0, negative_limit=0.0,
            collateral=[bt.Collateral("C", 10.0, prices=coins, rate=0.9)],
        ),
    }  # fmt: skip
    result = bt.run(markets, Hold(5.0), signal=signal, **terms)
    leverage = result.risk(collateral=True)["gross_leverage"]
    assert leverage.tolist() == pytest.approx([0.5, 5.5, 1.0, 6.0, 6.0])
    assert result.target_cuts().loc["A"].index.tolist() == ["all"]
    early = bt.run(markets.prefix(3), Hold(5.0), signal=signal.iloc[:3], **terms)
    later = bt.run(markets, Hold(5.0), signal=signal, resume=early, **terms)
    loaded = bt.Result.load(later.save(tmp_path))
    assert loaded.risk(collateral=True)["gross_leverage"].tolist() == pytest.approx([6.0, 6.0])


def test_a_wide_band_is_warned_of_once_and_not_by_each_set_of_a_sweep():
    """0.3x is half of what is asked of each of two; 0.1x is not."""
    with pytest.warns(bt.BandWarning, match="the band of . is 0.3 turns .* median target of 0.5"):
        run(Hold(), band=0.3)
    sweep = bt.sweep(
        bt.Markets(STILL), Hold, {"account.band": [0.1, 0.3]}, venue=make_venue(),
        account=bt.Account(), overlay=Hold(), compile=False,
    )  # fmt: skip
    assert sweep.table["final_equity"].tolist() == [10_000.0, 10_000.0]


# ------------------------------------------------------------------------------------ one position
MARKET = bt.Market.sample(bars=600)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


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
        lambda: bt.sweep(market, Constant, {"leverage": [0.5, 1.0]}, **terms),
    ]
    for act in acts:
        told = collect(act)
        assert len(told) == 1
        assert told[0].filename == __file__
    assert not collect(lambda: bt.run(MARKET, Constant(1.0), **terms))
