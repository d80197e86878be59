"""A run in parts is the whole run, bit for bit, saved between them or not, also after a switch."""

import itertools
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.events import Event
from backtest.baselines import take_baseline
from backtest.baselines.policy_contract import Probe
from backtest.engine import Segment, merge_segments, run_switched
from backtest.strategies import Cppi, VolTarget
from tests.agreement import place_of, run_engine, trust_data
from tests.cases import PortfolioCase, make_full_case
from tests.kit import Hold, Once, check_refused, flat, make_market, make_venue, simulate_pair
from tests.oracle.test_engine import KINDS
from tests.scenes import account_of, venue_of
from tests.validation.worlds import Lever

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MONTH = bt.Market.sample(bars=24 * 30)
KEPT = {
    "venue": bt.Venue.preset("binance-usdm", "BTCUSDT"),
    "account": bt.Account(capital=10_000.0, stop_loss=0.05),
    "compile": False,
}
PAIR = simulate_pair(200)
OF_PAIR = {
    "venue": make_venue(taker=0.001), "account": bt.Account(capital=1_000.0), "signal": None,
    "overlay": None, "sampling": "1h", "calendar": "365", "compile": False,
}  # fmt: skip


def run_segments(market, segments, *, compile=True, **fields):  # noqa: A002 - as that of bt.run
    return run_switched(bt.Backtest(market, **fields), segments, compile=compile)


def find_stop(case: PortfolioCase) -> int:
    """Return a bar of the second half, before which all are listed, and at which none ends."""
    spans = [place_of(case, name) for name in case.tapes]
    first = max(span.start for span in spans) + 1
    bars = range(first, len(case.clock))
    ends = {span.stop for span in spans}
    for bar in [*bars[len(bars) // 2 :], *bars]:
        if bar not in ends:
            return bar
    raise ValueError("an instrument ends at each bar")


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 9))]
)
@pytest.mark.parametrize("make", KINDS[:-1], ids=lambda make: make.__name__)
def test_parts_of_random_accounts_are_the_whole_bit_for_bit(make, seed, monkeypatch, tmp_path):
    """On the rest of the market after the first part, which was saved and loaded between them."""
    trust_data(monkeypatch)
    case = make(seed)
    whole = run_engine(case, is_compiled=False)
    head = run_engine(case, is_compiled=False, stop=find_stop(case))

    loaded = bt.Result.load(head.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.bars, head.bars)
    pd.testing.assert_frame_equal(loaded.events, head.events)
    assert repr(dict(loaded.metrics)) == repr(dict(head.metrics))

    for begun in (head, loaded):
        tail = run_engine(case, is_compiled=False, resume=begun)
        values = np.concatenate([head.record.values, tail.record.values])
        entries = np.concatenate([head.entries, tail.entries])
        assert values.tobytes() == whole.record.values.tobytes()
        assert entries.tobytes() == whole.entries.tobytes()
        assert tail.memory.tobytes() == whole.memory.tobytes()


def test_the_causes_of_a_liquidation_are_those_of_the_whole_run(monkeypatch):
    """What each cause gained before the first part ended is added in the order of bars."""
    trust_data(monkeypatch)
    case = make_full_case(14)
    whole = run_engine(case, is_compiled=False)
    causes = whole.entries[whole.entries["kind"] == Event.CAUSED]
    assert len(causes) > 0

    head = run_engine(case, is_compiled=False, stop=find_stop(case))
    tail = run_engine(case, is_compiled=False, resume=head)
    entries = np.concatenate([head.entries, tail.entries])
    assert entries.tobytes() == whole.entries.tobytes()


MARKETS = simulate_pair(90)
FLOWS = pd.Series([50.0, -20.0, 30.0], index=MARKETS.times[[10, 40, 60]])
TERMS = {
    "venue": make_venue(taker=0.001).override({"fees.tiers": [bt.FeeTier(3_000.0, 0.0002, 0.0)]}),
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


def test_the_causes_of_a_liquidation_reach_back_into_earlier_parts(tmp_path):
    """The last high lies in the first part, the liquidation in the third."""
    falling = [(x + 2, x + 2, x, x) for x in (104, 102, 100, 98, 96, 60)]
    rising = [flat(x) for x in (50, 51, 52, 53, 54, 60)]
    first = make_market([flat(100), flat(100), *falling])
    second = make_market([flat(50), flat(50), *rising])
    markets = bt.Markets({"A": first, "B": second}, currency="USDT")

    coins = [bt.Collateral("COIN", 2.0, prices=markets["A"], rate=0.9)]
    account = bt.Account(capital=1_000.0, collateral=coins, negative_limit=1e6)
    terms = {"venue": make_venue(taker=0.001), "account": account, "signal": {"A": 1.0, "B": -0.6}}
    whole = bt.run(markets, Once(3.0), **terms)
    expected = whole.contagion()
    assert int(np.argmax(whole.bars["unit"])) == 2
    assert {"A", "B", "collateral"} <= {*expected["cause"]}

    # Three parts; the second is saved and loaded.
    begun = bt.run(markets.prefix(4), Once(3.0), **terms)
    assert len(begun.contagion()) == 0

    begun = bt.run(markets.prefix(6), Once(3.0), resume=begun, **terms)
    assert len(begun.contagion()) == 0

    loaded = bt.Result.load(begun.save(tmp_path))
    last = bt.run(markets, Once(3.0), resume=loaded, **terms)
    assert len(last.contagion()) == len(expected)
    pd.testing.assert_frame_equal(last.contagion(), expected, rtol=1e-9)


def test_an_instrument_without_a_further_bar_is_closed_in_the_first_one():
    # 5 of A at 100 and 10 of B at 50; B ends at 55, where it is sold at 1 % in the first new bar
    ended = make_market([flat(50), flat(50), flat(55)])
    short = bt.Markets({"A": make_market([flat(100)] * 3), "B": ended}, currency="USDT")
    longer = bt.Markets({"A": make_market([flat(100)] * 5), "B": ended}, currency="USDT")
    terms = {"venue": make_venue(taker=0.01), "account": bt.Account(capital=1_000.0)}

    begun = bt.run(short, Once(1.0), **terms)
    assert begun.quantities.iloc[-1].tolist() == [5.0, 10.0]

    rest = bt.run(longer, Once(1.0), resume=begun, **terms)
    gone = rest.events[rest.events["kind"] == "delisted"]
    assert gone["instrument"].tolist() == ["B"]
    assert gone["price"].tolist() == [55.0]
    assert rest.quantities.iloc[0].tolist() == [5.0, 0.0]

    # 1,000 + 50 less 1 % of 1,000 bought and of 550 sold
    assert rest.bars["equity"].tolist() == pytest.approx([1_050.0 - 10.0 - 5.5] * 2)


def test_funding_of_the_last_bar_is_paid_once():
    # 10 of B at 50 receive 5 each in its last bar, and nothing in the one in which they are sold
    stamp = pd.DatetimeIndex(["2024-01-01 02:00"], tz="UTC")
    paid = pd.DataFrame({"rate": [-0.1], "mark": [50.0]}, index=stamp)
    ended = make_market([flat(50), flat(50), flat(45)], funding=paid, funding_gaps="zero")
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
REFUSED = [  # what is changed in the second part, and words of its refusal
    ({"venue": make_venue(taker=0.002)}, "must keep the same rules, got another venue"),
    ({"policy": Probe(most=1.0), "overlay": Hold(0.7)}, "got another policy, overlay"),
    ({"venue": TERMS["venue"].override({"contract.size": 0.01})}, "venue.contract"),
    ({"account": replace(ACCOUNT, band=0.5)}, "account.band"),
    ({"account": replace(ACCOUNT, flows=EARLY)}, "account.flows"),
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


@pytest.mark.parametrize("edges", [(100, 240, 720), (0, 5, 720)])
def test_segments_of_one_policy_are_the_run_bit_for_bit(edges):
    policy = VolTarget(target=0.8, half_life=48.0)
    whole = bt.run(MONTH, policy, **KEPT, start=MONTH.times[edges[0]])
    segments = [Segment(first, stop, policy) for first, stop in itertools.pairwise(edges)]

    parts = run_segments(MONTH, segments, **KEPT)
    assert dict(parts.metrics) == pytest.approx(dict(whole.metrics), abs=0.0, nan_ok=True)
    pd.testing.assert_frame_equal(parts.bars, whole.bars, check_exact=True)
    pd.testing.assert_frame_equal(parts.events, whole.events, check_exact=True)
    assert repr(parts.state) == repr(whole.state)

    merged = run_segments(MONTH, merge_segments(segments), **KEPT)
    assert merged.manifest["id"] == whole.manifest["id"]


def test_the_memory_of_a_policy_goes_on_within_a_segment_and_begins_anew_after_a_change():
    double = Cppi(multiplier=2.0)
    triple = Cppi(multiplier=3.0)
    whole = bt.run(MONTH, double, **KEPT)
    segments = [Segment(0, 300, double), Segment(300, 500, double), Segment(500, 720, triple)]
    switched = run_segments(MONTH, merge_segments(segments), **KEPT)

    # the order of the change fills in bar 500, so the record differs from the bar after it on
    before = switched.record.values[:500]
    after = switched.record.values[501:, 0]
    assert np.array_equal(before, whole.record.values[:500], equal_nan=True)
    assert not np.array_equal(after, whole.record.values[501:, 0])

    switches = switched.manifest["policy"]["switches"]
    assert [switch["settings"]["multiplier"] for switch in switches] == [2.0, 3.0]
    assert switched.manifest["id"] != whole.manifest["id"]
    assert switched.policy == triple

    assert "switches" not in take_baseline(whole, "walk").facts["policy"]
    assert "switches" in take_baseline(switched, "walk").facts["policy"]


def test_a_switch_pays_for_the_difference_alone():
    """By hand: 1x of 1,000 at 100 is 10 contracts, fee 0.1 % of 1,000 = 1; equity 999. The decision
    at the close of bar 1 still has size 1: target 999, held 1,000, so 1 is traded at the open of
    bar 2, fee 0.001; equity 998.999. The size 3 decides at the close of bar 2, and fills at the
    open of bar 3: target 3 x 998.999 = 2,996.997, held 999, so 1,997.997 are traded, fee 1.997997;
    equity 997.001003."""
    venue = venue_of(fees={"taker": 1e-3, "maker": 1e-3})
    segments = [Segment(0, 2, Hold(level=1.0)), Segment(2, 5, Hold(level=3.0))]
    market = make_market([flat(100.0)] * 5)
    result = run_segments(market, segments, venue=venue, account=account_of(), compile=False)

    fees = result.of_account("fees")
    assert fees.tolist() == pytest.approx([0.0, 1.0, 0.001, 1.997997, fees[4]])
    assert result.of_account("equity")[3] == pytest.approx(997.001003, rel=1e-12)
    assert result.metrics["fees"] == pytest.approx(float(fees.sum()))


class Planned(bt.Policy):
    """What :class:`Lever` does with one size and window before a time, and others from it on."""

    turn: Annotated[int, bt.Range(0, 2**40, "s")] = 0

    def observe(self, market):
        early = Lever(1.0, 3).observe(market)["rise"]
        late = Lever(2.0, 9).observe(market)["rise"]
        is_late = market.time >= self.turn * 10**9

        rise = np.where(is_late, late, early)
        size = np.where(is_late, 2.0, 1.0)
        return {"level": np.where(rise > 0.0, size, 0.5 * size)}

    def leverage(self, bar, account):
        return bar.level


def test_switching_equals_one_policy_that_knows_the_plan_under_a_table_that_changes():
    """The margin table that begins in the first stretch holds in the second."""
    change = 80
    turn = 110
    until = bt.Earlier(until=str(PAIR.times[change]), brackets=[bt.Bracket(0.0, 1e9, 20.0, 0.01)])
    terms = {**OF_PAIR, "venue": replace(OF_PAIR["venue"], earlier=[until])}
    plan = [Segment(50, turn, Lever(1.0, 3)), Segment(turn, 200, Lever(2.0, 9))]
    switched = run_segments(PAIR, plan, **terms)
    switches = switched.manifest["policy"]["switches"]
    assert [switch["settings"]["size"] for switch in switches] == [1.0, 2.0]

    planned = Planned(int(PAIR.time[turn]) // 10**9)
    whole = bt.run(PAIR, planned, **terms, start=PAIR.times[50])
    assert np.array_equal(switched.record.values, whole.record.values, equal_nan=True)

    # Without the earlier table the requirement differs before the change alone.
    always = bt.run(PAIR, planned, **OF_PAIR, start=PAIR.times[50])
    needed = switched.closes.requirement
    late = turn - 50
    assert np.array_equal(needed[late:], always.closes.requirement[late:])
    assert not np.array_equal(needed[:20], always.closes.requirement[:20])


def test_an_instrument_listed_after_a_stretch_is_never_asked_in_it():
    """BBB is listed at bar 20."""
    plan = [Segment(2, 15, Lever(1.0, 3)), Segment(15, 200, Lever(2.0, 9))]
    assert run_segments(PAIR, plan, **OF_PAIR).metrics["final_equity"] > 0.0


class Shown(bt.Policy):
    """Notes the most bars that the policy of a stretch was shown of what begins at a time."""

    stretch: Annotated[int, bt.Range(0, 9)] = 0
    most: ClassVar[dict[tuple[int, int], int]] = {}

    def observe(self, market):
        place = (self.stretch, int(market.time[0]))
        self.most[place] = max(self.most.get(place, 0), market.n_bars)
        return {}

    def leverage(self, bar, account):
        return 0.5


def test_the_policy_of_a_stretch_is_shown_no_bar_after_it(monkeypatch):
    """Up to bar 60 of the clock AAA has 60 bars, and BBB, which is listed at bar 20, has 40. The
    first stretch is left out: its policy is set up on the whole market."""
    monkeypatch.setattr(Shown, "most", {})
    plan = [Segment(2, 30, Shown(0)), Segment(30, 60, Shown(1)), Segment(60, 200, Shown(2))]
    run_segments(PAIR, plan, **OF_PAIR)

    listed = int(PAIR.time[0]), int(PAIR.time[20])
    assert [Shown.most[1, begin] for begin in listed] == [60, 40]
    assert [Shown.most[2, begin] for begin in listed] == [200, PAIR["BBB"].n_bars]


def test_the_unit_of_an_account_with_collateral_begins_at_its_start():
    """Not at the highest unit of the first part, a coin worth 60 and then 30."""
    coins = make_market([*[flat(60.0)] * 3, *[flat(30.0)] * 3])
    collateral = [bt.Collateral("C", 1.0, prices=coins, rate=1.0)]
    account = bt.Account(capital=40.0, negative_limit=0.0, collateral=collateral)
    terms = {"venue": make_venue(), "account": account}
    market = make_market([flat(100.0), flat(100.0), flat(110.0), *[flat(100.0)] * 3])

    whole = bt.run(market, Hold(0.5), **terms)
    head = bt.run(market.prefix(4), Hold(0.5), **terms)
    tail = bt.run(market, Hold(0.5), resume=head, **terms)
    for name in ("unit", "drawdown"):
        assert tail.bars[name].tolist() == whole.bars[name].iloc[4:].tolist()
