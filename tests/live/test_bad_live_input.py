"""Bad inputs of the live account: each is refused with one clear error."""

from typing import Any, NamedTuple

import pandas as pd
import pytest

import backtest as bt
from tests.kit import check_refused
from tests.scenes import Follow, account_of, market_of, venue_of

MARKET = market_of(*[100.0 + k % 3 for k in range(30)])
VENUE, ACCOUNT = venue_of(), account_of()
PAIR = bt.Markets({"AAA": MARKET, "BBB": MARKET}, currency="USDT")
SNAPSHOT = bt.AccountSnapshot(equity=1_000.0)


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


def go_on(**changes: Any) -> Any:
    """Decide from the result of a run under changed terms."""
    result = bt.run(MARKET, Follow(), venue=VENUE, account=ACCOUNT, compile=False)
    return decide(state=result, **changes)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("call", "words"), [
    (lambda: bt.AccountSnapshot(equity=1.0, wallet=1.0), "equity"),
    (lambda: held(quantity=1.0), "positions.market.entry"),
    (lambda: held(quantity=1.0, entry=1.0, mode="hedge"), "positions.market.mode"),
    (lambda: bt.AccountSnapshot.from_ccxt(
        {"USDT": {"total": 1.0}}, [{"symbol": "A/B:B", "contracts": 1.0}]), "side"),
    (lambda: decide(at=0.0), "at must be over 0"),
    (lambda: decide(funding=2.0), "funding"),
    (lambda: decide(Fearing()), "Fearing reads account.drawdown"),
    (lambda: decide(account=account_of(trailing_stop=0.1), state=held(quantity=1.0, entry=100.0)),
     "best_price"),
    (lambda: decide(Recalling()), "remembers what it saw"),
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
    ({"at": 102.0, "funding": 0.06}, "the funding of market is 6.00 % of the notional", False),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_likely_slip_in_what_is_stated_is_named(stated, words, may_act):
    decision = decide(**stated)
    assert decision.may_act == may_act
    assert [words in str(each) for each in decision.warnings] == [True]
