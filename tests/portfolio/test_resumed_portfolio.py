"""Runs of several positions in parts: the same bits as in one go, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import Result
from backtest.engine.policy_contract import Probe
from tests.kit import (
    Hold,
    Once,
    check_refused,
    flat,
    make_market,
    make_venue,
    simulate_pair,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MARKETS = simulate_pair(90)
FLOWS = pd.Series([50.0, -20.0, 30.0], index=MARKETS.times[[10, 40, 60]])
TIERS = [bt.FeeTier(3_000.0, 0.0002, 0.0)]
TERMS = {
    "venue": make_venue(taker=0.001).override({"fees.tiers": TIERS}),
    "account": bt.Account(
        capital=1_000.0,
        margin={"AAA": "cross", "BBB": "isolated"},
        venue_leverage=5,
        flows=FLOWS,
        collateral=[bt.Collateral("COIN", 1.0, prices=MARKETS["AAA"], rate=0.9)],
        negative_limit=100.0,
        stop_loss=0.1,
    ),
    "overlay": Hold(0.8),
    "signal": pd.DataFrame({"AAA": 0.8, "BBB": -0.5}, index=MARKETS.times),
    "sampling": "4h",
}
POLICY = Probe(most=2.0)


@pytest.mark.parametrize("is_stored", [False, True])
def test_parts_are_the_whole_bit_for_bit(tmp_path, is_stored):
    whole = bt.run(MARKETS, POLICY, **TERMS)
    begun = None
    bars, events = [], []
    for stop in (37, 38, 70, 90):
        begun = bt.run(MARKETS.prefix(stop), POLICY, resume=begun, **TERMS)
        bars.append(begun.record.values)
        events.append(begun.entries)
        if is_stored:
            begun = Result.load(begun.save(tmp_path))
    np.testing.assert_array_equal(np.concatenate(bars), whole.record.values)
    np.testing.assert_array_equal(np.concatenate(events), whole.entries)
    assert begun.manifest["resumed_from"] is not None
    assert begun.bars["drawdown"].iloc[-1] == whole.bars["drawdown"].iloc[-1]
    assert len(begun.time) == 20


@pytest.mark.parametrize("is_stored", [False, True])
def test_the_causes_of_a_liquidation_reach_back_into_earlier_parts(tmp_path, is_stored):
    """The last high lies in the first part, the liquidation in the third."""
    rows = [flat(100), flat(100), *((x + 2, x + 2, x, x) for x in (104, 102, 100, 98, 96, 60))]
    rising = [flat(50), flat(50), *(flat(x) for x in (50, 51, 52, 53, 54, 60))]
    both = {"A": make_market(rows), "B": make_market(rising)}
    markets = bt.Markets(both, currency="USDT")
    coins = [bt.Collateral("COIN", 2.0, prices=markets["A"], rate=0.9)]
    account = bt.Account(capital=1_000.0, collateral=coins, negative_limit=1e6)
    terms = {
        "venue": make_venue(taker=0.001),
        "account": account,
        "signal": {"A": 1.0, "B": -0.6},
        "compile": False,
    }
    whole = bt.run(markets, Once(3.0), **terms)
    table, begun, found = whole.contagion(), None, []
    for stop in (4, 6, 8):
        begun = bt.run(markets.prefix(stop), Once(3.0), resume=begun, **terms)
        found.append(begun.contagion())
        if is_stored:
            begun = Result.load(begun.save(tmp_path))
    assert int(np.argmax(whole.bars["unit"])) == 2
    assert [len(each) for each in found] == [0, 0, len(table)]
    assert {"A", "B", "collateral"} <= {*table["cause"]}
    pd.testing.assert_frame_equal(found[-1], table, rtol=1e-9)


def test_an_instrument_without_a_further_bar_is_closed_in_the_first_one():
    # 5 of A at 100 and 10 of B at 50; B ends at 55, where it is sold at 1 % in the first new bar
    both = {"A": make_market([flat(100)] * 5), "B": make_market([flat(50), flat(50), flat(55)])}
    markets = bt.Markets(both, currency="USDT")
    short = bt.Markets({**both, "A": make_market([flat(100)] * 3)}, currency="USDT")
    terms = {"venue": make_venue(taker=0.01), "account": bt.Account(capital=1_000.0)}
    begun = bt.run(short, Once(1.0), **terms)
    assert begun.quantities.iloc[-1].tolist() == [5.0, 10.0]
    rest = bt.run(markets, Once(1.0), resume=begun, **terms)
    gone = rest.events[rest.events["kind"] == "delisted"]
    assert (gone["instrument"].tolist(), gone["price"].tolist()) == (["B"], [55.0])
    assert rest.quantities.iloc[0].tolist() == [5.0, 0.0]
    # 1,000 + 50 less 1 % of 1,000 bought and of 550 sold
    assert rest.bars["equity"].tolist() == pytest.approx([1_050.0 - 10.0 - 5.5] * 2)


def test_a_dividend_of_the_last_bar_is_paid_once():
    # 10 of B at 50 receive 5 each in its last bar, and nothing in the one in which they are sold
    paid = pd.DataFrame({"amount": [5.0]}, index=pd.DatetimeIndex(["2024-01-01 02:00"], tz="UTC"))
    ended = make_market([flat(50), flat(50), flat(45)], dividends=paid)
    short = bt.Markets({"A": make_market([flat(100)] * 3), "B": ended}, currency="USDT")
    longer = bt.Markets({"A": make_market([flat(100)] * 5), "B": ended}, currency="USDT")
    terms = {"venue": make_venue(), "account": bt.Account(capital=1_000.0)}
    begun = bt.run(short, Once(1.0), **terms)
    assert begun.bars["funding"].iloc[-1] == -50.0
    rest = bt.run(longer, Once(1.0), resume=begun, **terms)
    assert rest.bars["equity"].tolist() == [1_000.0, 1_000.0]
    assert rest.events["kind"].tolist() == ["delisted"]


ACCOUNT = replace(TERMS["account"], collateral=(), negative_limit=None)
EARLY = FLOWS.set_axis(MARKETS.times[[9, 40, 60]])
REFUSED = [
    ({"venue": make_venue(taker=0.002)}, "must keep the same rules, got another venue"),
    ({"policy": Probe(most=1.0), "overlay": Hold(0.7)}, "got another policy, overlay"),
    ({"account": replace(ACCOUNT, flows=EARLY)}, "got another account"),
    ({"market": MARKETS.select("BBB", "AAA")}, "the same instruments in the same order, AAA, BBB"),
    ({"market": MARKETS.prefix(40)}, "must hold the bar of"),
    ({"market": simulate_pair(90, seed=1)}, "the mark close of AAA"),
    ({"start": MARKETS.times[50]}, "start must be left out with resume"),
    ({"resume": "earlier"}, "resume must be the result of a run"),
]


def test_what_does_not_join_is_refused():
    terms = {**TERMS, "account": ACCOUNT, "policy": POLICY}
    begun = bt.run(MARKETS.prefix(40), **terms)
    for changed, words in REFUSED:
        given = {"market": MARKETS, "resume": begun, **terms, **changed}
        check_refused(lambda given=given: bt.run(**given), words)
