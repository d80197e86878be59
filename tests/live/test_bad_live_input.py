"""Bad inputs of the live account: each is refused with one clear error."""

import json
from pathlib import Path
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


OPEN, DAYS = MARKET.times[5], pd.Timedelta(9, unit="D")
FILL = {"time": OPEN, "quantity": 1.0, "price": 102.0}


def replay(market: Any = MARKET, **changes: Any) -> Any:
    """Replay one fill with some of its fields changed; None leaves a field out."""
    row = {name: x for name, x in {**FILL, **changes}.items() if x is not None}
    return bt.replay(market, pd.DataFrame([row]), venue=VENUE, account=ACCOUNT)


def remember(path: Path, text: str) -> Any:
    """Decide with a file of memory that holds a text."""
    path.write_text(text, encoding="utf-8")
    return decide(Recalling(), memory=path)


def go_on(**changes: Any) -> Any:
    """Decide from the result of a run under changed terms."""
    result = bt.run(MARKET, Follow(), venue=VENUE, account=ACCOUNT, compile=False)
    return decide(state=result, **changes)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("call", "words"), [
    (lambda _: bt.AccountSnapshot(equity=1.0, wallet=1.0), "equity"),
    (lambda _: held(quantity=1.0), "positions.market.entry"),
    (lambda _: held(quantity=1.0, entry=1.0, mode="hedge"), "positions.market.mode"),
    (lambda _: bt.AccountSnapshot.from_ccxt(
        {"USDT": {"total": 1.0}}, [{"symbol": "A/B:B", "contracts": 1.0}]), "side"),
    (lambda _: decide(at=0.0), "at must be over 0"),
    (lambda _: decide(funding=2.0), "funding"),
    (lambda _: decide(Fearing()), "Fearing reads account.drawdown"),
    (lambda _: decide(account=account_of(trailing_stop=0.1), state=held(quantity=1.0, entry=100.0)),
     "best_price"),
    (lambda _: decide(Recalling()), "remembers what it saw"),
    (lambda _: decide(market=PAIR, at=100.0), "for each of several instruments"),
    (lambda _: replay(time=OPEN.tz_localize(None)), "a time zone"),
    (lambda _: replay(instrument="ETH"), "of the market"),
    (lambda _: replay(PAIR, instrument="AAA", fee=1.0, fee_currency="BNB"),
     "settlement currency, USDT"),
    (lambda _: replay(price=120.0), "in the range of its bar"),
    (lambda _: replay(time=OPEN - DAYS), "within the replay"),
    (lambda _: replay(quantity=5_000.0), "must not fall below 0"),
    (lambda path: remember(path, "{"), "bt.decide wrote"),
    (lambda path: remember(path, json.dumps({"time": 0, "before": {}, "after": {}})), "last close"),
    (lambda path: remember(path, json.dumps(
        {"time": int(MARKET.time[-1]), "before": {"x": [1.0]}, "after": {}})), "these policies"),
    (lambda _: go_on(assume={"peak_equity": 1.0}), "its own state"),
    (lambda _: go_on(account=account_of(band=0.1)), "same rules"),
])  # fmt: skip
def test_bad_input_is_refused(call, words, tmp_path):
    check_refused(lambda: call(tmp_path / "memory.json"), words)


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
