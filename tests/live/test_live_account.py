"""What speaks against acting, memories, snapshots of exchanges, and the command."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.live.state import find_account_reads
from backtest.strategies import Capped, Cppi, VolTarget
from tests.kit import call
from tests.scenes import Follow, account_of, market_of, venue_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MARKET = market_of(*[100.0 + k % 3 for k in range(30)], targets=2.0)
END = pd.Timestamp(int(MARKET.time[-1]) + MARKET.interval, tz="UTC")
OLD = {"quantity": 1.0, "entry": 100.0}


def decide(state: Any = None, market: Any = MARKET, policy: Any = None, **terms: Any) -> Any:
    """Decide for an account of 1,000 without costs."""
    state = state or bt.AccountSnapshot(equity=1_000.0)
    given = {"venue": venue_of(), "account": account_of(), "state": state} | terms
    return bt.decide(policy or Follow(), market, **given)


def snapshot(**fields: Any) -> bt.AccountSnapshot:
    """Return a snapshot of 1,000 with a position."""
    held = {"market": OLD | fields.pop("held", {})} | fields.pop("more", {})
    return bt.AccountSnapshot(**{"equity": 1_000.0, "positions": held} | fields)


def test_an_order_by_hand():
    """2x of 1,000 at 110 is 18.18 coins; the position of 1 gained 9 on the way from 101."""
    decision = decide(snapshot(), at=110.0)
    assert decision.leverage == {"market": 2.0}
    assert decision.order["market"] == pytest.approx(2.0 * (1_000.0 + 8.0) / 110.0 - 1.0)
    assert decision.equity == (1_000.0, 1_008.0)
    assert decision.may_act


def test_an_order_has_the_digits_of_its_lots():
    venue = venue_of(contract={"lot": 0.001})
    orders = [
        decide(snapshot(held={"quantity": held}), venue=venue, at=110.0).order["market"]
        for held in (1.0, 18.32, 18.321, 18.9, 20.007)
    ]
    assert orders == [round(each, 3) for each in orders]
    assert 0.0 not in orders


CAUTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "old data": ({"now": END + pd.Timedelta("3h")}, "more than a bar"),
    "an open bar": ({"now": END - pd.Timedelta("1min")}, "after now"),
    "warm-up": ({"policy": VolTarget(), "market": MARKET.prefix(2)}, "warm-up"),
    "another instrument": ({"state": snapshot(more={"ETHUSDT": OLD})}, "positions in ETHUSDT"),
    "another mode": ({"state": snapshot(held={"mode": "isolated"})}, "held in isolated margin"),
    "an old snapshot": ({"state": snapshot(time=END - pd.Timedelta("2h"))}, "before the last bar"),
    "over the call": (
        {"state": snapshot(held={"quantity": 50.0}), "account": account_of(margin_call=0.2)},
        "over the call at 20.00 %"),
    "liquidated at the price": (
        {"state": snapshot(held={"quantity": 50.0}), "at": 70.0}, "stopped or liquidated"),
}  # fmt: skip


@pytest.mark.parametrize("label", CAUTIONS)
def test_what_speaks_against_acting_is_said(label):
    given, words = CAUTIONS[label]
    decision = decide(**given)
    assert not decision.may_act
    texts = [each.text for each in decision.warnings if each.stops]
    assert any(word in text for word in words.split("|") for text in texts), texts


def test_a_limit_of_margin_that_leaves_nothing_stops():
    """At the venue's 16x nothing more fits: the position already is 20x."""
    state = snapshot(held={"quantity": 200.0, "entry": 100.0})
    decision = decide(state, market_of(*[100.0] * 30, targets=30.0), venue=venue_of(
        brackets=[bt.Bracket(0.0, np.inf, 16.0, 0.01)]))  # fmt: skip
    assert decision.order == {"market": 0.0}
    assert any("cut to 0 by" in each.text for each in decision.warnings)


def test_the_policy_says_what_it_reads():
    reads = find_account_reads(Capped(Cppi(), cap=2.0))
    assert reads == {"days", "equity", "leverage", "peak_equity"}
    assert not find_account_reads(Follow())


# ------------------------------------------------------------------------------------ memory


def test_what_was_held_for_its_longest_time_is_closed_by_the_next_order():
    account, venue = account_of(max_holding="5h"), venue_of()
    run = bt.run(MARKET.prefix(6), Follow(), venue=venue, account=account, compile=False)
    size, fill = float(run.bars["position"].iloc[-1]), run.fills.iloc[0]
    held = {"quantity": size, "entry": float(fill["price"]), "opened": fill["time"]}
    own = bt.AccountSnapshot(equity=float(run.bars["equity"].iloc[-1]), positions={"market": held})
    for state in (run, bt.AccountSnapshot.from_dict(json.loads(json.dumps(own.to_dict())))):
        decided = decide(state, MARKET.prefix(6), account=account)
        assert decided.order == {"market": -size}
        assert decided.may_act
    earlier = snapshot(held={"opened": END - pd.Timedelta("4h")})
    assert decide(earlier, account=account).order["market"] > 0.0
    with pytest.raises(bt.ParameterError, match="no opened: max_holding counts from it"):
        decide(snapshot(), account=account)


# ------------------------------------------------------------------------------------ sources


def test_the_structures_of_ccxt_are_read():
    balance = {"USDT": {"free": 900.0, "used": 100.0, "total": 1_000.0}}
    positions = [
        {"symbol": "BTC/USDT:USDT", "side": "short", "contracts": 0.5, "entryPrice": 30_000.0,
         "marginMode": "isolated", "collateral": 1_600.0, "unrealizedPnl": 100.0},
        {"symbol": "ETH/USDT:USDT", "side": "long", "contracts": 0.0},
    ]  # fmt: skip
    found = bt.AccountSnapshot.from_ccxt(balance, positions, peak_equity=1_100.0)
    assert (found.equity, found.peak_equity) == (1_000.0, 1_100.0)
    held = found.positions["BTCUSDT"]
    assert (held.quantity, held.entry, held.margin, held.mode) == (-0.5, 3e4, 1_500.0, "isolated")
    assert len(found.positions) == 1


# ------------------------------------------------------------------------------------ the command


def test_the_command_answers_and_its_exit_code_says_whether_to_act(capsys, tmp_path):
    account = tmp_path / "account.json"
    held = {"SYNTHETIC-PERP": {"quantity": 0.1, "entry": 20_000.0}}
    account.write_text(json.dumps({"equity": 10_000, "positions": held}), encoding="utf-8")
    file = tmp_path / "live.toml"
    file.write_text(f'[decide]\nsnapshot = "{account.name}"\nnow = 2024-01-01T00:10:00\n', "utf-8")
    code, out, _ = call(capsys, "decide", file, "--at", 30_000, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["price"] == {"SYNTHETIC-PERP": 30_000.0}
    code, out, _ = call(capsys, "decide", file, "--now", "2024-01-02")
    assert code == 1
    assert "do not act" in out
    assert "no order was sent" in out
    code, _, err = call(capsys, "decide", file, "--snapshot", "none.json")
    assert (code, "readable JSON" in err) == (2, True)
