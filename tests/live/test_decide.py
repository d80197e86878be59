"""The next order of a live account: decisions, snapshots, and what is refused."""

import functools
import json
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.events import FORCED, Event
from backtest.engine import finish, run_account, set_up_run
from backtest.live.state import find_account_reads
from backtest.strategies import Capped, Cppi, VolTarget
from tests import kit
from tests.agreement import Swinging, trust_data
from tests.cases import PRICES, make_exit_case, make_full_case
from tests.kit import ask_test, call, check_refused
from tests.scenes import Follow, account_of, bracket, market_of, venue_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKET = market_of(*[100.0 + k % 3 for k in range(30)], targets=2.0)
END = pd.Timestamp(int(MARKET.time[-1]) + MARKET.interval, tz="UTC")
OLD = {"quantity": 1.0, "entry": 100.0}
PAIR = bt.Markets({"AAA": MARKET, "BBB": MARKET}, currency="USDT")
LONG = {"symbol": "A/B:B", "side": "long", "contracts": 1.0, "entryPrice": 100.0}
OPEN = MARKET.times[5]
DAYS = pd.Timedelta(9, unit="D")
FILL = {"time": OPEN, "quantity": 1.0, "price": 102.0}


class Reading(bt.Policy):
    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        scale = 1.0 - 0.5 * account.drawdown
        scale *= 1.0 + 0.01 * min(account.bars_since_stop, account.bars_since_liquidation, 9.0)
        scale *= 1.0 + 0.1 * math.tanh(account.peak_equity / account.equity + 0.01 * account.days)
        scale *= 1.0 + 0.01 * min(account.margin_ratio, 1.0)
        return bar.target * scale


def jolt(case: Any) -> Any:
    """Return a random case whose bars open away from the closes before them."""
    rng = np.random.default_rng([case.seed, 40])

    def move(bars: pd.DataFrame | None, factor: np.ndarray) -> pd.DataFrame | None:
        if bars is None:
            return None
        return bars.assign(**bars[[*PRICES]] * factor)

    tapes = {}
    for name, tape in case.tapes.items():
        factor = np.exp(rng.normal(0.0, 0.002, len(tape.bars)))[:, None]
        tapes[name] = replace(tape, bars=move(tape.bars, factor), mark=move(tape.mark, factor))
    return replace(case, tapes=tapes)


class Whole:
    """A whole run of a random case, whose decisions are taken again one by one."""

    def __init__(self, case: Any) -> None:
        terms = jolt(case).for_engine(bt)
        self.market = terms.pop("market")
        self.signal = terms.pop("signal")
        if case.overlay is not None:
            hours = case.overlay.every / 3_600_000_000_000
            terms["overlay"] = Swinging(level=case.overlay.level, hours=hours)
        self.terms = terms

        test = bt.Backtest(self.market, signal=self.signal, **{"overlay": None, **terms})
        self.setup = set_up_run(test, Reading())
        self.outcome = run_account(self.setup, is_compiled=False, progress=None)
        self.names = self.setup.markets.names

    def order(self, t: int, i: int) -> float:
        """Return what an instrument filled in a bar, in contracts."""
        entries = self.outcome.entries
        is_fill = (entries["bar"] == t) & (entries["owner"] == i) & (entries["kind"] == Event.FILL)
        return float(sum(entries["quantity"][is_fill].tolist()))

    def list_bars(self) -> list[int]:
        """Return bars after which all instruments go on, and nothing is closed by force."""
        entries = self.outcome.entries
        forced = {int(t) for t in entries["bar"][np.isin(entries["kind"], FORCED)]}
        spans = self.setup.markets.spans.tolist()
        equity = self.outcome.record.account.equity

        bars = []
        for t in range(2, self.setup.markets.n_bars - 2):
            goes_on = all(t < first or t + 2 < stop for first, stop in spans)
            if goes_on and t + 1 not in forced and equity[t] > 0.0:
                bars.append(t)
        return bars

    def stated(self, t: int) -> dict[str, Any]:
        """Return what bar t + 1 brings: its prices and settlements."""
        fill = self.terms["account"].fill
        markets = dict(self.setup.markets.items())
        for coin in self.terms["account"].collateral:
            if isinstance(coin.prices, bt.Market):
                markets[coin.name] = coin.prices

        at = {}
        mark = {}
        funding = {}
        time = int(self.setup.markets.time[t + 1])
        for name, market in markets.items():
            row = int(np.searchsorted(market.time, time))
            if row >= market.n_bars or market.time[row] != time or market.time[0] == time:
                continue

            # A fill at the same close has its price already.
            is_instrument = name in self.names
            prices = market.close if fill == "next_close" else market.open
            if fill != "same_close" or not is_instrument:
                at[name] = float(prices[row])
            mark[name] = float(market.mark_open[row])

            if is_instrument:
                end = time + market.interval
                is_inside = (market.funding_time >= time) & (market.funding_time < end)
                columns = {
                    "rate": market.funding_rate[is_inside],
                    "mark": market.funding_mark[is_inside],
                }
                stamps = pd.DatetimeIndex(market.funding_time[is_inside], tz="UTC")
                funding[name] = pd.DataFrame(columns, index=stamps)

        return {"at": at, "mark": mark, "funding": funding}

    def prefix(self, t: int) -> dict[str, Any]:
        """Return the market and the signal up to a bar."""
        market = self.market.prefix(t + 1)
        signal = self.signal[: t + 1]
        if isinstance(market, bt.Markets):
            signal = signal[list(market.names)]
        return {"market": market, "signal": signal}


def compare(whole: Whole, t: int, decision: Any) -> list[str]:
    """Return where a decision differs from what the run decided and filled."""
    faults = []
    targets = whole.outcome.record.positions.target[t]
    for name, leverage in decision.leverage.items():
        i = whole.names.index(name)
        if not np.array_equal(leverage, targets[i], equal_nan=True):
            faults.append(f"bar {t} leverage of {name}: {leverage!r}, run {targets[i]!r}")

        order = decision.order[name]
        filled = whole.order(t + 1, i)
        if order != pytest.approx(filled, rel=1e-12, abs=1e-11):  # in lots
            faults.append(f"bar {t} order of {name}: {order!r}, run {filled!r}")
    return faults


def run_to(whole: Whole, t: int) -> Any:
    terms = {"overlay": None, **whole.terms, **whole.prefix(t)}
    setup = set_up_run(bt.Backtest(terms.pop("market"), **terms), Reading())
    return finish(setup, run_account(setup, is_compiled=False, progress=None))


def decide_like(whole: Whole, t: int) -> Any:
    state = run_to(whole, t)
    terms = {**whole.prefix(t), **whole.terms, **whole.stated(t)}
    return ask_test("decide", terms.pop("market"), Reading(), state=state, **terms)


def is_gap(whole: Whole, t: int, decision: Any) -> bool:
    known = whole.setup.markets.prefix(t + 1)
    return all(price != float(known[name].close[-1]) for name, price in decision.price.items())


class Decided(NamedTuple):
    """What a bar was whose decision was compared."""

    trades: bool
    is_gap: bool
    is_single: bool
    fill: str


def check(case: Any, most: int) -> tuple[list[Decided], list[str]]:
    """Compare decisions at some bars; return what the bars are, and faults."""
    whole = Whole(case)
    rng = np.random.default_rng([case.seed, 41])
    bars = whole.list_bars()
    n = len(whole.names)
    busy = [t for t in bars if any(whole.order(t + 1, i) for i in range(n))]
    drawn = {*rng.permutation(busy)[: most - 1].tolist(), *rng.permutation(bars)[:1].tolist()}

    seen = []
    faults = []
    for t in drawn:
        decision = decide_like(whole, int(t))
        faults += [f"seed {case.seed}, {text}" for text in compare(whole, int(t), decision)]
        seen.append(
            Decided(
                trades=any(decision.order.values()),
                is_gap=is_gap(whole, int(t), decision),
                is_single=n == 1,
                fill=whole.terms["account"].fill,
            )
        )
    return seen, faults


@pytest.mark.parametrize("make", [make_exit_case, make_full_case])
def test_a_decision_is_that_of_the_run(make, monkeypatch):
    trust_data(monkeypatch)
    seen, faults = check(make(0), 2)
    assert seen
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_decisions_at_200_bars_of_50_runs_are_those_of_the_runs(monkeypatch):
    """One position and several, every fill mode; most of the bars trade."""
    trust_data(monkeypatch)
    runs = [check(make_exit_case(seed), 5) for seed in range(37)]
    runs += [check(make_full_case(seed), 4) for seed in range(37)]

    faults = [text for _, texts in runs for text in texts]
    assert not faults, f"{len(faults)}:\n" + "\n".join(faults[:20])

    assert sum(bool(seen) for seen, _ in runs) >= 50
    bars = pd.DataFrame([bar for seen, _ in runs for bar in seen])
    assert len(bars) >= 200
    assert bars[["trades", "is_gap"]].mean().min() >= 0.6
    assert len(bars[["is_single", "fill"]].drop_duplicates()) == 6


def decide(state: Any = None, market: Any = MARKET, policy: Any = None, **terms: Any) -> Any:
    """Decide for an account of 1,000 without costs."""
    markets = market.market if isinstance(market, bt.Backtest) else market
    end = pd.Timestamp(int(markets.time[-1]) + markets.interval, tz="UTC")
    settings = {
        "venue": venue_of(),
        "account": account_of(),
        "state": state or bt.AccountSnapshot(equity=1_000.0),
        **terms,
    }
    settings["now"] = settings.get("now") or end
    return ask_test("decide", market, policy or Follow(), **settings)


def snapshot(**fields: Any) -> bt.AccountSnapshot:
    """Return a snapshot of 1,000 with a position."""
    held = {"market": OLD | fields.pop("held", {})} | fields.pop("more", {})
    return bt.AccountSnapshot(**{"equity": 1_000.0, "positions": held} | fields)


def test_an_order_by_hand():
    """1,000 and a position of 1 that gains 8 on the way from 102: 2x of 1,008 at 110, less 1."""
    decision = decide(snapshot(), at=110.0)

    assert decision.leverage == {"market": 2.0}
    assert decision.order["market"] == pytest.approx(2.0 * (1_000.0 + 8.0) / 110.0 - 1.0)
    assert decision.equity == (1_000.0, 1_008.0)
    assert decision.may_act


@pytest.mark.parametrize("held", [1.0, 18.32, 18.321, 18.9, 20.007])
def test_an_order_has_the_digits_of_its_lots(held):
    venue = venue_of(contract={"lot": 0.001})
    decision = decide(snapshot(held={"quantity": held}), venue=venue, at=110.0)

    order = decision.order["market"]
    assert order == round(order, 3)
    assert order != 0.0


CAUTIONS: dict[str, tuple[dict[str, Any], str]] = {  # name: (what is stated, words of the warning)
    "old data": ({"now": END + pd.Timedelta("3h")}, "3 h ago, more than 2 bars of 1h"),
    "an open bar": ({"now": END - pd.Timedelta("1min")}, "after now"),
    "warm-up": ({"policy": VolTarget(), "market": MARKET.prefix(2)}, "warm-up"),
    "another instrument": ({"state": snapshot(more={"ETHUSDT": OLD})}, "positions in ETHUSDT"),
    "another mode": ({"state": snapshot(held={"mode": "isolated"})}, "held in isolated margin"),
    "an old snapshot": ({"state": snapshot(time=END - pd.Timedelta("2h"))}, "before the last bar"),
    "a later snapshot": ({"state": snapshot(time=END + DAYS)}, "after now"),
    "over the call": (
        {"state": snapshot(held={"quantity": 50.0}), "account": account_of(margin_call=0.2)},
        "over the call at 20.00 %"),
    "liquidated at the price": (
        {"state": snapshot(held={"quantity": 50.0}), "at": 70.0}, "stopped or liquidated"),
}  # fmt: skip


@pytest.mark.parametrize(("state", "words"), [
    ({"equity": 0.0}, f"got 0.00 at {END:%Y-%m-%d %H:%M}"),
    ({"equity": -5.0}, "got -5.00 at"),
    ({"wallet": 0.0}, "got 0.00 at"),
    # One contract that was bought at 100 is at 102: -2 and the profit of 2.
    ({"wallet": -2.0, "positions": {"market": OLD}}, "got 0.00 at"),
    ({"equity": 0.0, "peak_equity": 900.0, "halted": True}, "got 0.00 at"),
])  # fmt: skip
@pytest.mark.parametrize("policy", [Follow(), VolTarget()])
def test_an_account_without_equity_is_refused(state, words, policy):
    said = "a snapshot that a policy decides from must have an equity over 0"

    with pytest.raises(bt.ParameterError, match=f"{said}.*{words}"):
        decide(bt.AccountSnapshot(**state), policy=policy)


def test_an_account_of_its_profit_alone_may_act():
    """A wallet of -1 and the profit of 2: an equity of 1, of which 2x at 102 is .0196."""
    state = bt.AccountSnapshot(wallet=-1.0, positions={"market": OLD})
    decision = decide(state, venue=venue_of(brackets=[bracket(leverage=200.0, rate=0.001)]))

    assert decision.equity[0] == pytest.approx(1.0)
    assert decision.order["market"] == pytest.approx(2.0 / 102.0 - 1.0)
    assert decision.may_act


def test_a_run_that_lost_its_equity_may_not_act():
    """30x bought at 100 is worth less than nothing at 90: the account is at 0."""
    market = market_of(*[100.0] * 10, *[90.0] * 10, targets=30.0)
    venue = venue_of(brackets=[bracket(leverage=50.0, rate=0.01)])
    run = bt.run(market, Follow(), venue=venue, account=account_of(), compile=False)
    assert float(run.bars["equity"].iloc[-1]) == 0.0

    decision = decide(run, market, venue=venue)
    assert not decision.may_act
    assert "the account has an equity of 0.00: it may not act" in str(decision)


def test_what_is_read_after_now_is_not_of_now():
    """Also a second: a clock that is behind, or the snapshot of another day."""
    second = pd.Timedelta("1s")
    assert decide(snapshot(time=END), now=END).may_act
    assert decide(snapshot(time=END + second), now=END + second).may_act

    for state in (snapshot(time=END + second), snapshot(held={"opened": END + second})):
        decision = decide(state, now=END)
        (warning,) = decision.warnings
        assert f"06:00:01, after now, {END:%Y-%m-%d %H:%M}" in str(warning)
        assert not decision.may_act

    # What was closed does not matter.
    closed = {"quantity": 0.0, "opened": END + second}
    assert decide(snapshot(held=closed), now=END).may_act


@pytest.mark.parametrize("label", CAUTIONS)
def test_what_speaks_against_acting_is_said(label):
    stated, words = CAUTIONS[label]
    decision = decide(**stated)

    assert not decision.may_act
    texts = [warning.text for warning in decision.warnings if warning.stops]
    assert any(words in text for text in texts), texts


def test_the_clock_is_read_where_no_time_is_stated():
    """Data of years ago never may act, in Python as at the command line; the time is kept."""
    before = pd.Timestamp.now(tz="UTC")
    terms = {"venue": venue_of(), "account": account_of(), "state": snapshot()}

    decision = ask_test("decide", MARKET, Follow(), **terms)

    assert before <= decision.now <= pd.Timestamp.now(tz="UTC")
    assert not decision.may_act
    assert "more than 2 bars of 1h" in str(decision.warnings[0])

    stated = ask_test("decide", MARKET, Follow(), **terms, now="2024-01-02T06:30")
    assert stated.may_act
    assert stated.to_dict()["now"] == "2024-01-02T06:30:00+00:00"


@pytest.mark.parametrize(("late", "may_act"), [("0h", True), ("2h", True), ("2h1s", False)])
@pytest.mark.parametrize("clock", [None, "2h"])
def test_data_are_old_two_of_their_own_bars_after_their_end(late, may_act, clock):
    """Bars of 1h, also where policies decide every 2h."""
    decision = decide(now=END + pd.Timedelta(late), decision_interval=clock)

    assert decision.may_act == may_act


def make_sessions(days: pd.DatetimeIndex, **more: Any) -> bt.Market:
    bars = pd.DataFrame(100.0, days, ["open", "high", "low", "close"]).assign(volume=1e6)
    market = bt.Market.from_frames(bars, sessions=True, instrument="SPY", **more)
    return market.with_columns(target=np.ones(market.n_bars))


@pytest.mark.parametrize(("last", "two_sessions_later"), [
    ("2023-06-02", "2023-06-07"),  # a Friday: Monday, Tuesday, until whose end
    ("2023-06-05", "2023-06-08"),  # a Monday: Tuesday, Wednesday
    ("2023-12-22", "2023-12-28"),  # a Friday: Christmas on the Monday, Tuesday, Wednesday
    ("2023-05-25", "2023-05-31"),  # a Thursday: Friday, Memorial Day on the Monday, Tuesday
    ("2023-04-06", "2023-04-12"),  # a Thursday: Good Friday, Monday, Tuesday
    ("2023-11-22", "2023-11-28"),  # a Wednesday: Thanksgiving, Friday, Monday
])  # fmt: skip
def test_weekends_and_holidays_do_not_make_the_data_of_sessions_old(last, two_sessions_later):
    closed = [
        *("2019-12-25", "2020-12-25", "2021-12-24", "2022-12-26"),
        *("2020-05-25", "2021-05-31", "2022-05-30", "2023-05-29"),
        *("2020-04-10", "2021-04-02", "2022-04-15", "2023-04-07"),
        *("2020-11-26", "2021-11-25", "2022-11-24", "2023-11-23"),
    ]
    days = pd.bdate_range("2019-06-03", last, tz="UTC")
    market = make_sessions(days[~days.isin(pd.DatetimeIndex(closed, tz="UTC"))])
    limit = pd.Timestamp(two_sessions_later, tz="UTC")

    in_time = decide(market=market, calendar="252", now=limit)
    assert in_time.may_act
    late = decide(market=market, calendar="252", now=limit + pd.Timedelta("1min"))
    assert not late.may_act


def test_the_hours_of_sessions_are_old_as_late_in_the_session_after_next():
    """Six hours from 14:00 of each weekday; the data end at 17:00 of a Friday."""
    opens = []
    for day in pd.bdate_range("2023-05-01", "2023-06-02", tz="UTC"):
        opens += [day + pd.Timedelta(hours=hour) for hour in range(14, 20)]
    market = make_sessions(pd.DatetimeIndex(opens[:-3]), interval="1h")

    in_time = decide(market=market, calendar="252", now="2023-06-06T17:00")
    assert in_time.may_act
    late = decide(market=market, calendar="252", now="2023-06-06T17:01")
    assert not late.may_act


def test_steps_of_orders_that_no_source_gives_are_said_with_the_cure():
    venue = bt.Venue.preset("binance-usdm", "EOSUSDT")
    assert venue.contract.unknown == ("lot", "tick", "min_notional")

    decision = decide(venue=venue)
    (warning,) = decision.warnings
    assert "no source gives lot, tick, min_notional of market" in str(warning)
    assert decision.may_act

    cure = {"contract.lot": 1.0, "contract.tick": 1e-5, "contract.min_notional": 5.0}
    for name in cure:
        assert f'"{name}": ...' in str(warning)
    cured = decide(venue=venue.override(cure))
    assert not cured.warnings
    assert cured.order["market"] == round(cured.order["market"])

    (warning,) = decide(venue=venue.override({"contract.lot": 1.0})).warnings
    assert "no source gives tick" in str(warning)
    assert decide(venue=bt.Venue.preset("binance-usdm", "BTCUSDT")).warnings == ()


def name_market(instrument: str) -> bt.Market:
    return bt.Market.from_frames(MARKET.bars(), mark=MARKET.mark(), instrument=instrument)


def test_no_order_follows_from_the_rules_of_another_symbol():
    """BTC's brackets, lot and minimum are not those of COMP, which the presets do not have."""
    btc = bt.Venue.preset("binance-usdm", "BTCUSDT")
    comp = name_market("COMPUSDT")
    test = bt.Backtest(comp, venue=btc, account=bt.Account())
    state = bt.AccountSnapshot(equity=1_000.0)
    warnings = test.decide(bt.strategies.Constant(1.0), state=state, now=END).warnings
    (warning,) = [warning for warning in warnings if "are for BTCUSDT" in str(warning)]
    assert warning.stops
    assert warning.instrument == comp.instrument
    assert "the prices are for COMPUSDT: give its own, --venue file:LISTING.json" in str(warning)

    # A stock has no listing, but the rules of stocks.
    bars = MARKET.bars().resample("1D").last()
    stock = bt.Market.from_frames(bars, instrument="SPY", sessions=True, interval="1d")
    later = bt.Backtest(stock, venue=btc, account=bt.Account())
    end = stock.times[-1] + pd.Timedelta("1D")
    warnings = later.decide(bt.strategies.Constant(1.0), state=state, now=end).warnings
    assert any("give its own, --venue reg-t:STOCK" in str(warning) for warning in warnings)

    # A result carries it too.
    notices = test.run(bt.strategies.Constant(1.0), compile=False).notices
    assert any("are for BTCUSDT, the prices are for COMPUSDT" in notice for notice in notices)

    # What a preset has is named, and its rules are those of the instrument.
    eth = test.replace(market=name_market("ETHUSDT"))
    notices = eth.run(bt.strategies.Constant(1.0), compile=False).notices
    assert any("give its own, --venue binance-usdm:ETHUSDT" in notice for notice in notices)
    cured = eth.replace(venue="binance-usdm:ETHUSDT").run(
        bt.strategies.Constant(1.0), compile=False
    )
    assert not any("are for" in notice for notice in cured.notices)


def test_a_step_of_orders_is_a_number_or_unknown():
    check_refused(lambda: bt.Contract(lot="none"), "contract.lot: must be a number")
    check_refused(lambda: bt.Contract(tick=None, round_to_tick=True), "must be known with round")


def test_a_limit_of_margin_that_leaves_nothing_stops():
    """At the venue's 16x nothing more fits: the position already is 20x."""
    state = snapshot(held={"quantity": 200.0, "entry": 100.0})
    venue = venue_of(brackets=[bt.Bracket(0.0, np.inf, 16.0, 0.01)])
    decision = decide(state, market_of(*[100.0] * 30, targets=30.0), venue=venue)
    assert decision.order == {"market": 0.0}
    assert any("cut to 0 by" in warning.text for warning in decision.warnings)

    (cut,) = decision.cuts
    assert (cut.instrument, cut.turns) == ("market", 30.0 - 20.0)
    assert cut.cause in decision.warnings[-1].text


def test_a_pause_after_an_equity_stop_is_said():
    """The order is 0 for no limit and no target, so the pause is named: until then, or not yet."""
    account = account_of(equity_stop=0.1, after_stop="30d")
    flat = {"equity": 900.0, "highest_equity": 1_000.0}

    pausing = decide(
        bt.AccountSnapshot(**flat, paused_until=END + pd.Timedelta("48h")), account=account
    )
    (warning,) = pausing.warnings
    assert str(warning).startswith("an equity stop pauses the account until")
    assert pausing.may_act

    over = decide(bt.AccountSnapshot(**flat, paused_until=END), account=account)
    assert not over.warnings
    assert over.may_act


def test_the_policy_says_what_it_reads():
    reads = find_account_reads(Capped(Cppi(), cap=2.0))
    assert reads == {"days", "equity", "leverage", "peak_equity"}
    assert not find_account_reads(Follow())


def test_what_was_held_for_its_longest_time_is_closed_by_the_next_order():
    account = account_of(max_holding="5h")
    run = bt.run(MARKET.prefix(6), Follow(), venue=venue_of(), account=account, compile=False)
    quantity = float(run.bars["position"].iloc[-1])
    fill = run.fills.iloc[0]
    position = {"quantity": quantity, "entry": float(fill["price"]), "opened": fill["time"]}
    equity = float(run.bars["equity"].iloc[-1])
    written = bt.AccountSnapshot(equity=equity, positions={"market": position}).to_dict()
    read = bt.AccountSnapshot.from_dict(json.loads(json.dumps(written)))

    for state in (run, read):
        decision = decide(state, MARKET.prefix(6), account=account)
        assert decision.order == {"market": -quantity}
        assert decision.may_act

    earlier = snapshot(held={"opened": END - pd.Timedelta("4h")})
    assert decide(earlier, account=account).order["market"] > 0.0


def test_what_counts_from_the_entry_needs_its_time():
    opened = snapshot(held={"opened": END - pd.Timedelta("4h")})
    with pytest.raises(bt.ParameterError, match="no opened: max_holding counts from it"):
        decide(snapshot(), account=account_of(max_holding="5h"))

    fixed = account_of(stop_loss=bt.Multiple(0.1, "width", unit="fraction", fixed=True))
    market = MARKET.with_columns(width=np.ones(MARKET.n_bars))
    with pytest.raises(bt.ParameterError, match="no opened: a distance that is fixed at the entry"):
        decide(snapshot(), market, account=fixed)
    assert decide(opened, market, account=fixed).order["market"] > 0.0


def test_a_fixed_stop_needs_a_bar_before_its_entry():
    fixed = account_of(stop_loss=bt.Multiple(0.1, "width", unit="fraction", fixed=True))
    market = MARKET.with_columns(width=np.ones(MARKET.n_bars))

    # The distance is that of the close before the entry: the first bar has none.
    first, second = market.times[:2]
    with pytest.raises(bt.ParameterError, match="give bars from before the entry"):
        decide(snapshot(held={"opened": first}), market, account=fixed)
    assert decide(snapshot(held={"opened": second}), market, account=fixed).may_act

    # A stop that follows its column needs no bar of the entry.
    moving = account_of(stop_loss=bt.Multiple(0.1, "width", unit="fraction"))
    assert decide(snapshot(held={"opened": first}), market, account=moving).may_act


def test_a_limit_of_loss_of_what_was_paid_in_needs_it():
    account = account_of(daily_loss=0.05, daily_basis="initial")
    with pytest.raises(bt.ParameterError, match="no paid_in: daily_basis='initial' is a fraction"):
        decide(snapshot(day_open=1_000.0), account=account)

    flat = {"paid_in": 1_000.0, "day_open": 1_000.0, "positions": {}}
    at_limit = bt.AccountSnapshot(equity=950.0, **flat)
    assert decide(at_limit, account=account).order == {"market": 0.0}
    above = bt.AccountSnapshot(equity=951.0, **flat)
    assert decide(above, account=account).order["market"] > 0.0


@pytest.mark.parametrize("money", [{"equity": 5_000.0}, {"wallet": 5_000.0}])
def test_a_peak_far_under_the_equity_is_refused(money):
    """51 for 5100, a slip of the finger, made a clean order without a drawdown."""
    words = "peak_equity:? must be the highest equity so far, that of now included, got 51 with an"
    with pytest.raises(bt.ParameterError, match=words):
        decide(bt.AccountSnapshot(**money, peak_equity=51.0))


def test_the_timestamp_of_ccxt_is_the_time_of_a_snapshot():
    read = functools.partial(bt.AccountSnapshot.from_content, where="state.json")
    snapshot = read({"equity": 500.0, "timestamp": 1_672_560_000_000})
    assert snapshot.time == "2023-01-01 08:00"
    assert read({"equity": 500.0, "timestamp": None}).time is None

    for stamp in (1_672_560_000, "2023-01-01", True):
        with pytest.raises(bt.ParameterError, match=r"must be ms since 1970.*'time': '2026-01-31"):
            read({"equity": 500.0, "timestamp": stamp})
    with pytest.raises(bt.ParameterError, match="must be left out beside time"):
        read({"equity": 500.0, "timestamp": 1_672_560_000_000, "time": "2023-01-01"})


def test_the_structures_of_ccxt_are_read():
    balance = {"USDT": {"free": 900.0, "used": 100.0, "total": 1_000.0}}
    positions = [
        {"symbol": "BTC/USDT:USDT", "side": "short", "contracts": 0.5, "entryPrice": 30_000.0,
         "marginMode": "isolated", "collateral": 1_600.0, "unrealizedPnl": 100.0},
        {"symbol": "ETH/USDT:USDT", "side": "long", "contracts": 0.0},
    ]  # fmt: skip
    snapshot = bt.AccountSnapshot.from_ccxt(
        balance, positions, exchange="binance", peak_equity=1_100.0
    )
    assert (snapshot.equity, snapshot.peak_equity) == (1_000.0, 1_100.0)

    # What is posted is 1,600 less a profit of 100; what has no contracts is no position.
    (position,) = snapshot.positions.values()
    assert snapshot.positions["BTCUSDT"] == position
    assert (position.quantity, position.entry) == (-0.5, 3e4)
    assert (position.margin, position.mode) == (1_500.0, "isolated")


def test_the_command_answers_and_its_exit_code_says_whether_to_act(capsys, tmp_path):
    account = tmp_path / "account.json"
    positions = {"SYNTHETIC-PERP": {"quantity": 0.1, "entry": 20_000.0}}
    account.write_text(json.dumps({"equity": 10_000, "positions": positions}), encoding="utf-8")
    file = tmp_path / "live.toml"
    file.write_text(f'[decide]\nsnapshot = "{account.name}"\nnow = 2024-01-01T00:10:00\n', "utf-8")

    shown = kit.ask(capsys, "decide", file, "--at", 30_000)
    assert shown["price"] == {"SYNTHETIC-PERP": 30_000.0}

    code, out, _ = call(capsys, "decide", file, "--now", "2024-01-02")
    assert code == 1
    assert "do not act" in out
    assert "no order was sent" in out

    twice = tmp_path / "twice.json"
    twice.write_text('{"equity": 1, "positions": {"A": {}, "A": {}}}', encoding="utf-8")
    for name, words in (("none.json", "cannot be read"), (twice, "given once, got 'A' twice")):
        code, _, err = call(capsys, "decide", file, "--snapshot", name)
        assert code == 2
        assert words in err


class Fearing(bt.Policy):
    def leverage(self, bar, account):
        return 1.0 - account.drawdown


class Seen(NamedTuple):
    peak: float


class Recalling(bt.Policy):
    def start(self):
        return Seen(0.0)

    def leverage(self, bar, account, memory):
        """Return 1, and the highest equity."""
        return 1.0, Seen(max(memory.peak, account.equity))


def held(**fields: Any) -> bt.AccountSnapshot:
    return bt.AccountSnapshot(equity=1_000.0, positions={"market": fields})


def replay(market: Any = MARKET, **changes: Any) -> Any:
    """Replay one fill with some of its fields changed; None leaves a field out."""
    row = {name: value for name, value in {**FILL, **changes}.items() if value is not None}
    test = bt.Backtest(market, venue=venue_of(), account=account_of())
    return test.replay(pd.DataFrame([row]))


def of_ccxt(*positions: Any, **more: Any) -> Any:
    terms = {"total": "equity", **more}
    return bt.AccountSnapshot.from_ccxt({"USDT": {"total": 1.0}}, positions, **terms)


def go_on(**changes: Any) -> Any:
    """Decide after a run, under terms that may be others."""
    run = bt.run(MARKET, Follow(), venue=venue_of(), account=account_of(), compile=False)
    return decide(run, **changes)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: bt.AccountSnapshot(equity=1.0, wallet=1.0), "equity"),
    (lambda: held(quantity=1.0), "positions.market.entry"),
    (lambda: held(quantity=1.0, entry=1.0, mode="hedge"), "positions.market.mode"),
    (lambda: of_ccxt({"symbol": "A/B:B", "contracts": 1.0}), "side"),
    (lambda: of_ccxt(LONG, LONG | {"side": "short"}), "got 'A/B:B' and 'A/B:B' for 'AB'"),
    (lambda: of_ccxt(LONG, LONG | {"symbol": "A/B"}), "got 'A/B:B' and 'A/B' for 'AB'"),
    (lambda: of_ccxt(LONG, LONG | {"symbol": "C/B:B"}, names={"C/B:B": "AB"}), "may be there once"),
    (lambda: of_ccxt(LONG, equity=2.0), "equity must be left out"),
    (lambda: decide(at=0.0), "at must be over 0"),
    (lambda: decide(funding=2.0), "funding"),
    (lambda: decide(policy=Fearing()), "Fearing reads account.drawdown"),
    (lambda: decide(policy=Fearing()), "give AccountSnapshot(peak_equity=...)"),
    (lambda: decide(snapshot(), account=account_of(trailing_stop=0.1)),
     "best_price"),
    (lambda: decide(policy=Recalling()), "has a memory"),
    (lambda: decide(market=PAIR, at=100.0), "for each of several instruments"),
    (lambda: replay(time=OPEN.tz_localize(None)), "a time zone"),
    (lambda: replay(instrument="ETH"), "of the market"),
    (lambda: replay(PAIR, instrument="AAA", fee=1.0, fee_currency="BNB"),
     "settlement currency, USDT"),
    (lambda: replay(price=120.0), "in the range of its bar"),
    (lambda: replay(time=OPEN - DAYS), "within the replay"),
    (lambda: replay(quantity=5_000.0), "must not fall below 0"),
    (lambda: go_on(account=account_of(band=0.1)), "same rules"),
])  # fmt: skip
def test_bad_input_is_refused(call, words):
    check_refused(call, words)


@pytest.mark.parametrize(("stated", "words", "may_act"), [
    ({"at": 120.0}, "the price 120 of market is 17.65 % over the last one, 102", True),
    ({"at": 10.2}, "the price 10.2 of market is 90.00 % under the last one, 102", False),
    ({"mark": 120.0}, "the mark 120 of market is 17.65 % over the last one, 102", True),
    ({"mark": 10.2}, "the mark 10.2 of market is 90.00 % under the last one, 102", False),
    ({"at": 102.0, "funding": 0.06}, "the funding of market is 6.00 % of the notional", False),
])  # fmt: skip
def test_a_likely_slip_in_what_is_stated_is_named(stated, words, may_act):
    marks = MARKET.bars()[["open", "high", "low", "close"]]
    market = bt.Market.from_frames(MARKET.bars(), mark=marks)
    decision = decide(**stated, market=market)

    warning, *others = decision.warnings
    assert words in str(warning)
    assert warning.stops != may_act
    assert decision.may_act == may_act

    # A mark price far under the price leaves no margin: what is bought is liquidated there.
    assert bool(others) == (stated.get("mark") == 10.2)
