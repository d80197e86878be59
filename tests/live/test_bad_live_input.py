"""Bad inputs of the live account: each is refused with one clear error."""

import json
from typing import Any, NamedTuple

import pandas as pd
import pytest

import backtest as bt
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


SNAPSHOTS = {
    "two moneys": (lambda: bt.AccountSnapshot(equity=1.0, wallet=1.0), "equity"),
    "no entry": (lambda: held(quantity=1.0), "average entry price"),
    "an unknown field of a position": (
        lambda: held(quantity=1.0, enty=1.0), "did you mean 'entry'"),
    "another mode": (lambda: held(quantity=1.0, entry=1.0, mode="hedge"), "'cross' or 'isolated'"),
    "halted in words": (lambda: bt.AccountSnapshot(equity=1.0, halted="no"), "true or false"),
    "ccxt without a side": (
        lambda: bt.AccountSnapshot.from_ccxt(
            {"USDT": {"total": 1.0}}, [{"symbol": "A/B:B", "contracts": 1.0}]), "side"),
}  # fmt: skip
DECISIONS = {
    "a price of 0": ({"at": 0.0}, "at must be over 0"),
    "a price of another": ({"at": {"BTC": 1.0}}, "name instruments of the market"),
    "a rate over 1": ({"funding": 2.0}, "funding"),
    "an unknown fact": ({"assume": {"peak": 1.0}}, "did you mean 'peak_equity'"),
    "facts that are missing": ({"policy": Fearing()}, "Fearing reads account.drawdown"),
    "best prices that are missing": (
        {"account": account_of(trailing_stop=0.1), "state": held(quantity=1.0, entry=100.0)},
        "best_price"),
    "memory of the account": ({"policy": Recalling()}, "remembers what it saw"),
    "one price for two": ({"market": PAIR, "at": 100.0}, "for each of several instruments"),
}  # fmt: skip


OPEN, DAYS = MARKET.times[5], pd.Timedelta(9, unit="D")
FILL = {"time": OPEN, "quantity": 1.0, "price": 102.0}


def replay(market: Any = MARKET, **changes: Any) -> Any:
    """Replay one fill with some of its fields changed; None leaves a field out."""
    row = {name: x for name, x in {**FILL, **changes}.items() if x is not None}
    return bt.replay(market, pd.DataFrame([row]), venue=VENUE, account=ACCOUNT)


FILLS = {
    "no price": (lambda: replay(price=None), "got no price"),
    "no time zone": (lambda: replay(time=OPEN.tz_localize(None)), "a time zone"),
    "a quantity of 0": (lambda: replay(quantity=0.0), "finite and not 0"),
    "another instrument": (lambda: replay(instrument="ETH"), "of the market"),
    "a fee in another currency": (
        lambda: replay(PAIR, instrument="AAA", fee=1.0, fee_currency="BNB"),
        "settlement currency, USDT"),
    "outside its bar": (lambda: replay(price=120.0), "in the range of its bar"),
    "before the market": (lambda: replay(time=OPEN - DAYS), "within the replay"),
    "equity under 0": (lambda: replay(quantity=5_000.0), "must not fall below 0"),
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
