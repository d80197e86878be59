"""Bad inputs of the live account: each is refused with one clear error."""

import json
from typing import Any, NamedTuple

import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.refusals import check_refused
from tests.scenes import Follow, account_of, market_of, venue_of

MARKET = market_of(*[100.0 + k % 3 for k in range(30)])
VENUE, ACCOUNT = venue_of(), account_of()
PAIR = bt.Markets({"AAA": MARKET, "BBB": MARKET}, currency="USDT")
SNAPSHOT = bt.AccountSnapshot(equity=1_000.0)
STAMP = pd.DatetimeIndex([MARKET.time[-1] + MARKET.interval], tz="UTC")


class Fearing(bt.Policy):
    """Hold less after losses."""

    def leverage(self, bar, account):
        """Return what the drawdown leaves."""
        return 1.0 - account.drawdown


class Seen(NamedTuple):
    """The highest equity seen."""

    peak: float


class Recalling(bt.Policy):
    """Remember the highest equity."""

    def start(self):
        """Return nothing seen."""
        return Seen(0.0)

    def leverage(self, bar, account, memory):
        """Return 1, and the highest equity."""
        return 1.0, Seen(max(memory.peak, account.equity))


def decide(policy: bt.Policy | None = None, market: Any = MARKET, **changes: Any) -> Any:
    """Decide with some terms changed."""
    terms = {"venue": VENUE, "account": ACCOUNT, "state": SNAPSHOT} | changes
    return bt.decide(policy or Follow(), market, **terms)


def held(**fields: Any) -> bt.AccountSnapshot:
    """Return a snapshot with one position."""
    return bt.AccountSnapshot(equity=1_000.0, positions={"market": fields})


def settled(**columns: Any) -> pd.DataFrame:
    """Return a settlement at the next open."""
    return pd.DataFrame({name: [value] for name, value in columns.items()}, index=STAMP)


SNAPSHOTS = {
    "no money": (bt.AccountSnapshot, "exactly one of cash, wallet and equity"),
    "two moneys": (lambda: bt.AccountSnapshot(equity=1.0, wallet=1.0), "equity"),
    "money is text": (lambda: bt.AccountSnapshot(equity="much"), "equity must be a number"),
    "money is NaN": (lambda: bt.AccountSnapshot(equity=float("nan")), "equity must be"),
    "money is infinite": (lambda: bt.AccountSnapshot(wallet=float("inf")), "finite"),
    "a reserve under 0": (lambda: bt.AccountSnapshot(equity=1.0, reserve=-1.0), "at least 0"),
    "half a unit": (lambda: bt.AccountSnapshot(equity=1.0, unit=1.0), "belong together"),
    "a unit over its peak": (
        lambda: bt.AccountSnapshot(equity=1.0, unit=2.0, unit_peak=1.0), "at most unit_peak"),
    "a time that is none": (lambda: bt.AccountSnapshot(equity=1.0, time="noon"), "a time must"),
    "positions are a list": (lambda: bt.AccountSnapshot(equity=1.0, positions=[1]), "a mapping"),
    "a position is a number": (
        lambda: bt.AccountSnapshot(equity=1.0, positions={"A": 1.0}), "a position must be"),
    "no quantity": (lambda: held(entry=1.0), "needs its quantity"),
    "no entry": (lambda: held(quantity=1.0), "average entry price"),
    "an entry of 0": (lambda: held(quantity=1.0, entry=0.0), "entry must be over 0"),
    "an unknown field of a position": (
        lambda: held(quantity=1.0, enty=1.0), "did you mean 'entry'"),
    "an opening that is no time": (
        lambda: held(quantity=1.0, entry=1.0, opened="noon"), "a time must"),
    "another mode": (lambda: held(quantity=1.0, entry=1.0, mode="hedge"), "'cross' or 'isolated'"),
    "halted is text": (lambda: bt.AccountSnapshot(equity=1.0, halted="maybe"), "true or false"),
    "collateral is a number": (
        lambda: bt.AccountSnapshot(equity=1.0, collateral=3.0), "a mapping of amounts"),
    "an unknown field": (
        lambda: bt.AccountSnapshot.from_dict({"equty": 1.0}), "did you mean 'equity'"),
    "a table without values": (
        lambda: bt.AccountSnapshot.from_table(pd.DataFrame({"field": []})), "instrument, value"),
    "a row twice": (
        lambda: bt.AccountSnapshot.from_table(pd.DataFrame(
            {"field": ["equity"] * 2, "instrument": ["", ""], "value": [1, 2]})), "twice"),
    "a file that is not there": (lambda: bt.AccountSnapshot.load("none.json"), "readable JSON"),
    "ccxt without the currency": (
        lambda: bt.AccountSnapshot.from_ccxt({"BTC": {"total": 1.0}}, []), "USDT"),
    "ccxt without a side": (
        lambda: bt.AccountSnapshot.from_ccxt(
            {"USDT": {"total": 1.0}}, [{"symbol": "A/B:B", "contracts": 1.0}]), "side"),
    "another total of ccxt": (
        lambda: bt.AccountSnapshot.from_ccxt({"USDT": {"total": 1.0}}, [], total="free"),
        "one of equity, wallet"),
}  # fmt: skip
DECISIONS = {
    "a state that is none": ({"state": 1_000.0}, "AccountSnapshot or a Result"),
    "a price of 0": ({"at": 0.0}, "at must be over 0"),
    "a price that is text": ({"at": "high"}, "at must be a number"),
    "a price of another": ({"at": {"BTC": 1.0}}, "name instruments of the market"),
    "a mark without marks": ({"at": 100.0, "mark": 101.0}, "has no mark prices"),
    "a rate over 1": ({"funding": 2.0}, "funding"),
    "settlements without rate": ({"funding": settled(mark=1.0)}, "a column rate"),
    "settlements of another day": (
        {"funding": settled(rate=0.1).tz_convert("UTC").shift(9, freq="D")}, "in the next bar"),
    "an assumption that is none": ({"assume": 1.0}, "mapping of facts"),
    "an unknown fact": ({"assume": {"peak": 1.0}}, "did you mean 'peak_equity'"),
    "an assumed text": ({"assume": {"peak_equity": "high"}}, "number or 'equity'"),
    "a present that is none": ({"now": "noon"}, "a time must be readable"),
    "facts that are missing": ({"policy": Fearing()}, "Fearing reads account.drawdown"),
    "best prices that are missing": (
        {"account": account_of(trailing_stop=0.1), "state": held(quantity=1.0, entry=100.0)},
        "best_price"),
    "the highest equity is missing": ({"account": account_of(equity_stop=0.1)}, "highest_equity"),
    "memory of the account": ({"policy": Recalling()}, "remembers what it saw"),
    "another price at the close": (
        {"account": account_of(fill="same_close"), "at": 50.0}, "fills at the last close"),
    "one price for two": ({"market": PAIR, "at": 100.0}, "for each of several instruments"),
    "an overlay without its leverage": (
        {"market": PAIR, "overlay": Constant(1.0)}, "no overlay"),
}  # fmt: skip


OPEN, DAYS = MARKET.index[5], pd.Timedelta(9, unit="D")
FILL = {"time": OPEN, "quantity": 1.0, "price": 102.0}


def replay(market: Any = MARKET, **changes: Any) -> Any:
    """Replay one fill with some of its fields changed; None leaves a field out."""
    row = {name: x for name, x in {**FILL, **changes}.items() if x is not None}
    return bt.replay(market, pd.DataFrame([row]), venue=VENUE, account=ACCOUNT)


def replay_terms(**terms: Any) -> Any:
    """Replay one fill with some terms changed."""
    given = {"fills": pd.DataFrame([FILL]), "venue": VENUE, "account": ACCOUNT} | terms
    return bt.replay(MARKET, **given)


FILLS = {
    "fills are a list": (lambda: replay_terms(fills=[FILL]), "must be a DataFrame"),
    "no price": (lambda: replay(price=None), "got no price"),
    "no time zone": (lambda: replay(time=OPEN.tz_localize(None)), "a time zone"),
    "a time that is text": (lambda: replay(time="2024-01-01"), "a time zone"),
    "a quantity of 0": (lambda: replay(quantity=0.0), "finite and not 0"),
    "a quantity that is text": (lambda: replay(quantity="much"), "finite and not 0"),
    "a price of 0": (lambda: replay(price=0.0), "price must be over 0"),
    "a reference under 0": (lambda: replay(reference=-1.0), "reference must be over 0"),
    "a fee that is none": (lambda: replay(fee=float("inf")), "fee must be"),
    "an unknown kind": (lambda: replay(kind="ordr"), "did you mean 'order'"),
    "another instrument": (lambda: replay(instrument="ETH"), "of the market"),
    "a fee in another currency": (
        lambda: replay(PAIR, instrument="AAA", fee=1.0, fee_currency="BNB"),
        "settlement currency, USDT"),
    "outside its bar": (lambda: replay(price=120.0), "in the range of its bar"),
    "a reference outside its bar": (
        lambda: replay(price=102.0, reference=102.4), "in the range of its bar"),
    "before the market": (lambda: replay(time=OPEN - DAYS), "within the replay"),
    "after the market": (lambda: replay(time=OPEN + DAYS), "within the replay"),
    "equity under 0": (lambda: replay(quantity=5_000.0), "must not fall below 0"),
    "a tolerance over 1": (lambda: replay_terms(range_tolerance=2.0), "range_tolerance"),
    "a start that is none": (lambda: replay_terms(start=3.0), "an AccountSnapshot or a time"),
    "an open position at the first bar": (
        lambda: replay_terms(start=bt.AccountSnapshot(
            equity=1e3, time=MARKET.index[0],
            positions={"market": {"quantity": 1.0, "entry": 1.0}})), "the bar before it"),
    "columns of no fills": (lambda: bt.read_fills(pd.DataFrame({"a": [1]})), "got a"),
    "a file that is not there": (
        lambda: bt.read_fills("none.csv"), "JSON file, got No such file or directory"),
    "fills that are a number": (lambda: bt.read_fills(3.0), "a file, a table or a list"),
    "a side that is none": (
        lambda: bt.read_fills([{"timestamp": 1, "symbol": "A", "side": "up", "amount": 1.0,
                                "price": 1.0}]), "buy or sell"),
    "a negative size beside a side": (
        lambda: bt.read_fills([{"timestamp": 1, "symbol": "A", "side": "buy", "amount": -1.0,
                                "price": 1.0}]), "must not be negative, got -1"),
    "a ledger that is a number": (lambda: replay().reconcile(3.0), "a DataFrame, or a Series"),
    "a ledger without terms": (
        lambda: replay().reconcile(pd.DataFrame({"time": [OPEN]})), "got no term, amount"),
    "a ledger of another year": (
        lambda: replay().reconcile(pd.Series([1.0], [OPEN - pd.Timedelta("365D")])),
        "rows within the replay"),
    "a ledger after the end": (
        lambda: replay().reconcile(
            pd.DataFrame({"time": [STAMP[0]], "term": ["fees"], "amount": [0.0]})),
        "rows within the replay"),
    "a term that is unknown": (
        lambda: replay().reconcile(
            pd.DataFrame({"time": [OPEN], "term": ["fundng"], "amount": [0.0]})),
        "got 'fundng'; did you mean 'funding'"),
    "an amount that is none": (
        lambda: replay().reconcile(
            pd.DataFrame({"time": [OPEN], "term": ["fees"], "amount": ["1,2"]})),
        "amount must be a finite number, got '1,2'"),
    "a tolerance of a ledger over 1": (
        lambda: replay().reconcile(pd.Series([1.0], [OPEN]), tolerance=2.0), "tolerance"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("label", FILLS)
def test_bad_fills_are_refused(label):
    make, words = FILLS[label]
    check_refused(make, words)


@pytest.mark.parametrize("label", SNAPSHOTS)
def test_a_bad_snapshot_is_refused(label):
    make, words = SNAPSHOTS[label]
    check_refused(make, words)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("label", DECISIONS)
def test_a_bad_decision_is_refused(label):
    changes, words = DECISIONS[label]
    check_refused(lambda: decide(**changes), words)


@pytest.mark.parametrize(("stated", "words", "may_act"), [
    ({"at": 120.0}, "the price 120 of market is 17.65 % over the last one, 102", True),
    ({"at": 10.2}, "the price 10.2 of market is 90.00 % under the last one, 102", False),
    ({"at": 102.0, "funding": 0.06}, "the funding of market is 6.00 % of the notional", False),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_likely_slip_in_what_is_stated_is_named(stated, words, may_act):
    decision = decide(**stated)
    assert decision.may_act == may_act
    assert [words in str(each) for each in decision.warnings] == [True]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_decision_says_how_old_its_data_are_and_who_pays_funding():
    stamps = STAMP[0] - pd.to_timedelta([24, 16, 8], "h")
    funding = pd.DataFrame({"rate": -0.001}, index=stamps)
    market = bt.Market.from_frames(MARKET.bars(), funding=funding)
    text = str(decide(market=market, now=STAMP[0] + pd.Timedelta("30h")))
    assert ", 30 h ago, more than a bar" in text
    assert " before the order, receives 1 after it" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_result_takes_no_memory_and_the_same_rules():
    result = bt.run(MARKET, Follow(), venue=VENUE, account=ACCOUNT, compile=False)
    check_refused(lambda: decide(state=result, assume={"peak_equity": 1.0}), "its own state")
    check_refused(lambda: decide(market=MARKET.prefix(20), state=result), "must end by")
    check_refused(lambda: decide(account=account_of(band=0.1), state=result), "same rules")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_of_memory_is_checked(tmp_path):
    file = tmp_path / "memory.json"
    given = {"policy": Recalling(), "memory": file}
    for text, words in (("{", "bt.decide wrote"), ("{}", "bt.decide wrote"),
                        (json.dumps({"time": 0, "before": {}, "after": {}}), "last close"),
                        (json.dumps({"time": int(MARKET.time[-1]), "before": {"x": [1.0]},
                                     "after": {}}), "these policies")):  # fmt: skip
        file.write_text(text, encoding="utf-8")
        check_refused(lambda: decide(**given), words)
