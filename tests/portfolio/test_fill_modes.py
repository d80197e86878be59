"""Fill modes, the equity stop and the health factor of accounts with several positions.

By hand, against the decimal reference on random accounts, and with one instrument against the
engine of one position.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.engine import Result
from tests.agreement import bracket, flat, near, play_case, run_engine, scene, tape, trust_data
from tests.cases import make_mode_case
from tests.kit import Hold, make_venue, simulate_pair
from tests.portfolio.test_fast_path import is_same

NAN = math.nan
SAFE = {"*": {"brackets": [bracket(0.02)]}}


# ------------------------------------------------------------------------------- by hand


def rising(fill: str, **changes: Any) -> Any:
    """A and B, each at 2x: A opens at 100, closes at 110, then 110 to 121; B falls from 1 to .9."""
    return scene(
        {
            "A": tape([(100, 110, 100, 110), (110, 121, 110, 121), flat(121)], (2.0,)),
            "B": tape([(1, 1, 0.9, 0.9), (0.9, 0.9, 0.81, 0.81), flat(0.81)], (2.0,)),
        },
        {"A": 1.0, "B": 1.0},
        venues=SAFE,
        fill=fill,
        **changes,
    )


def test_same_close_trades_at_the_price_that_decided():
    """Bar 1: 2x of 110 and of .9 bought with 1000 earn 10 % and lose 10 %; bar 2 rebalances."""
    out = play_case(rising("same_close"))
    assert near(out.quantity[1][0], Fraction(2000, 110))
    assert near(out.equity[1], 1000 + 200 - 200)
    assert near(out.quantity[2][0], Fraction(2000, 121))
    assert near(out.quantity[2][1], Fraction(200_000, 81))


def test_next_close_trades_a_bar_later_at_the_close():
    """The decision of bar 0 fills at 121 and .81, the close of bar 1, which earns nothing."""
    out = play_case(rising("next_close"))
    assert near(out.equity[1], 1000)
    assert near(out.quantity[1][0], Fraction(2000, 121))
    assert near(out.quantity[1][1], Fraction(200_000, 81))


def test_the_increases_share_what_the_margin_admits_at_the_close():
    """At 50x of 12 + 18 turns and leverage 20, initial margin is 1.5 equities: both get 2/3."""
    tapes = {"A": tape([flat(100)] * 2, (12.0,)), "B": tape([flat(1)] * 2, (18.0,))}
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, venues=SAFE, fill="next_close"))
    assert near(out.quantity[1][0], 80)
    assert near(out.quantity[1][1], 12_000)


def falling(**changes: Any) -> Any:
    """A: 4x long, falls by 10 % on a straight line; B: 2x long, rises by 5 % after it."""
    return scene(
        {
            "A": tape([flat(100), flat(100), (100, 100, 90, 90), flat(90)], (4.0,)),
            "B": tape([flat(1), flat(1), (1, 1.05, 1, 1.05), flat(1.05)], (2.0,)),
        },
        {"A": 1.0, "B": 1.0},
        **changes,
    )


def test_the_equity_stop_closes_all_positions_at_one_place():
    """On the way to the lows, which B does not leave, E = 1000 - 400 x: 800 with A at 95."""
    out = play_case(falling(equity_stop=0.2, venues=SAFE))
    stops = out.of_kind("equity_stop")
    assert [(e.bar, e.instrument) for e in stops] == [(2, "A"), (2, "B")]
    assert near(stops[0].amount, 40 * 95)
    assert near(out.equity[2], 800)
    # at the close of bar 2 it decides again, on what is left
    assert near(out.quantity[3][0], Fraction(4 * 800, 90))


def test_isolated_positions_return_what_is_left_at_the_equity_stop():
    """A posts 400 at 10x, B 200: at the same place as in cross margin 800 are cash."""
    out = play_case(falling(equity_stop=0.2, margin="isolated", venue_leverage=10.0, venues=SAFE))
    assert near(out.cash[2], 800)
    assert out.margin[2] == (0, 0)


def test_the_equity_stop_at_the_open_drops_all_decisions():
    """A opens at 94: 1000 - 240 is under 800; nothing fills at that open, B included."""
    tapes = {
        "A": tape([flat(100), flat(100), flat(94)], (4.0,)),
        "B": tape([flat(1)] * 3, (0.5, 2.0)),
    }
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, equity_stop=0.2, venues=SAFE))
    assert [(e.kind, e.instrument) for e in out.events if e.bar == 2] == [
        ("equity_stop", "A"),
        ("equity_stop", "B"),
    ]
    assert near(out.equity[2], 760)


def test_a_deposit_moves_the_highest_equity():
    """1000 more double the highest to 2000; a fall of 10 % at 4x is 400 of 2000: no stop at .5."""
    flows = pd.Series([1000.0], index=falling().clock[2:3])
    assert not play_case(falling(equity_stop=0.5, flows=flows, venues=SAFE)).of_kind("equity_stop")


def test_a_pool_of_low_health_repays_its_whole_debt():
    """A opens at 80: longs of 3200 + 6000 owe 9000, health 95 % of 9200 / 9000 = .971.

    A step of .1 sells 4 of A; at a health under .98 all 40, as they bring less than is owed.
    """
    tapes = {
        "A": tape([flat(100), flat(100), flat(80)], (4.0, NAN)),
        "B": tape([flat(1), flat(1), flat(1)], (6.0, NAN)),
    }
    terms = {"mode": "partial", "step": 0.1}
    signal = {"A": 1.0, "B": 1.0}
    steps = {
        health: play_case(
            scene(
                tapes, signal, venues={"*": {"liquidation": terms | {"full_below_health": health}}}
            )
        ).of_kind("liquidation")
        for health in (0.97, 0.98)
    }
    assert near(steps[0.97][0].quantity, -4)
    assert near(steps[0.98][0].quantity, -40)


def test_a_pool_of_low_health_buys_a_short_back_whole():
    """B opens at 1.1: assets 95 % of 4000 and 3000 of cash, debts 105 % of 6600: health .981."""
    tapes = {
        "A": tape([flat(100), flat(100), flat(100)], (4.0, NAN)),
        "B": tape([flat(1), flat(1), flat(1.1)], (6.0, NAN)),
    }
    closed = {}
    for health in (0.98, 0.985):
        terms = {"mode": "partial", "step": 0.1, "full_below_health": health}
        out = play_case(scene(tapes, {"A": 1.0, "B": -1.0}, venues={"*": {"liquidation": terms}}))
        closed[health] = out.of_kind("liquidation")[0].quantity
    assert near(closed[0.98], 600)
    assert near(closed[0.985], 6000)


def test_a_health_factor_needs_a_requirement_of_each_position():
    rule = bt.ScenarioMargin(
        moves={"all": [(-0.1, 1.0), (0.1, 1.0)]}, groups={"all": ["AAA", "BBB"]}
    )
    terms = {"liquidation.mode": "partial", "liquidation.step": 0.5}
    venue = make_venue().override({**terms, "liquidation.full_below_health": 0.95})
    with pytest.raises(ParameterError, match="full_below_health of AAA must be 0"):
        bt.run(simulate_pair(20), Hold(), venue=venue, account=bt.Account(requirement=rule))


# --------------------------------------------------------------------------- random accounts


@pytest.mark.slow
@pytest.mark.compiled
def test_compiled_runs_have_the_bits_of_plain_python(monkeypatch):
    trust_data(monkeypatch)
    for seed in range(40):
        case = make_mode_case(seed)
        if len(case.tapes) > 1:
            assert is_same(run_engine(case, is_compiled=False), run_engine(case)), seed


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("words", [{"fill": "next_close"}, {"equity_stop": 0.2}])
def test_compiled_sweeps_run_such_sets_one_by_one(words):
    given = {"venue": make_venue(taker=0.001), "account": bt.Account(**words)}
    sets = {"level": [0.5, 1.0, 2.0, 3.0, 4.0]}
    one, other = (
        bt.sweep(simulate_pair(90), Hold, sets=sets, compile=compiled, **given).table
        for compiled in (False, True)
    )
    pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------ resume, sweeps and the text


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fill", ["next_close", "same_close"])
def test_parts_and_sweeps_are_the_whole_run(fill, tmp_path):
    """A run in two parts, stored between them, and the row of a sweep."""
    markets = simulate_pair(90)
    account = bt.Account(fill=fill, equity_stop=0.2, margin_call=0.5, reserve=500.0, top_up_to=0.3)
    given = {"venue": make_venue(taker=0.001), "account": account, "compile": False}
    whole = bt.run(markets, Hold(4.0), **given)
    assert (whole.events["kind"] == "equity_stop").any()
    begun = bt.run(markets.prefix(45), Hold(4.0), **given)
    begun = Result.load(begun.save(tmp_path))
    rest = bt.run(markets, Hold(4.0), resume=begun, **given)
    parts, all_bars = ([each.record._replace(closes=None).values for each in own]
                       for own in ((begun, rest), (whole,)))  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(parts), *all_bars)
    assert np.array_equal(np.concatenate([begun.entries, rest.entries]), whole.entries)
    text = whole.summary()
    assert ("fill same_close" in " ".join(text.split())) == (fill == "same_close")
    assert whole.target_cuts()["mean_distance"].abs().max() < 20.0
    sets = {"level": [4.0, 4.0], "account.equity_stop": [0.4, 0.2]}
    rows = bt.sweep(markets, Hold, sets=sets, **given).table
    assert rows["final_equity"].iloc[1] == whole.metrics["final_equity"]
    assert rows["stops"].nunique() == 2
