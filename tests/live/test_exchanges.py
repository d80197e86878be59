"""An account as ccxt reports it: contracts, meanings of fields, figures that contradict."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.live.contracts import is_near
from backtest.strategies import Constant
from backtest.venue.account_fields import find_meaning, read_account_fields
from docs.ext.markdown import escape
from docs.ext.pages import list_exchanges
from tests.kit import ask_test, check_refused
from tests.scenes import account_of, bracket, market_of, venue_of

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HELD = {
    "symbol": "BTC/USDT:USDT", "side": "long", "contracts": 10.0, "contractSize": 0.01,
    "entryPrice": 60_000.0, "markPrice": 60_000.0, "notional": 6_000.0, "marginMode": "cross",
}  # fmt: skip
DOGE = {
    "symbol": "DOGE/USDT:USDT", "side": "long", "contracts": 2.0, "contractSize": 1_000.0,
    "entryPrice": 0.06367, "marginMode": "isolated", "collateral": 42.42,
}  # fmt: skip
START = pd.Timestamp("2024-01-01T00:00Z")


def name_market(*prices: float, name: str = "BTCUSDT", has_mark: bool = False) -> bt.Market:
    bars = market_of(*prices).bars()
    mark = bars[["open", "high", "low", "close"]] if has_mark else None
    return bt.Market.from_frames(bars, mark=mark, instrument=name)


def read(*positions: Any, balance: float = 10_000.0, **more: Any) -> bt.AccountSnapshot:
    terms = {"exchange": "binance", **more}
    return bt.AccountSnapshot.from_ccxt({"USDT": {"total": balance}}, positions, **terms)


def decide(state: Any, price: float = 60_000.0, leverage: float = 1.0, **more: Any) -> Any:
    terms = {"venue": venue_of(), "account": account_of(), **more}
    market = terms.pop("market", None) or name_market(*[price] * 30)
    end = market.times[-1] + pd.Timedelta("1h")
    return ask_test("decide", market, Constant(leverage), state=state, now=end, **terms)


def sized(size: float, **more: Any) -> bt.Venue:
    return venue_of(contract={"size": size}, **more)


@pytest.mark.parametrize("changes", [
    {}, {"contractSize": None}, {"contractSize": "0.01", "notional": None},
    {"contractSize": None, "notional": 6_100.0}, {"contractSize": 0.01, "markPrice": None},
], ids=range(5))  # fmt: skip
@pytest.mark.parametrize("size", [1.0, 0.01, 0.1])
def test_ten_contracts_of_a_hundredth_are_a_tenth_of_a_coin(changes, size):
    """1x of 10,000 at 60,000 is .16667 BTC, and .1 is held: buy .0667."""
    decision = decide(read(HELD | changes), venue=sized(size))
    assert decision.order["BTCUSDT"] == pytest.approx((10_000.0 / 60_000.0 - 0.1) / size)
    assert decision.may_act

    if size == 0.01:
        assert not decision.warnings
    else:
        (warning,) = decision.warnings
        words = f"10 contracts of 0.01 of BTCUSDT are {0.1 / size:g} of the venue's"
        assert words in str(warning)


@pytest.mark.parametrize("changes", [{"notional": None}, {"markPrice": 0}], ids=range(2))
@pytest.mark.parametrize("size", [0.01, 1.0])
def test_a_size_that_nothing_shows_is_that_of_the_venue_and_stops_unless_it_is_1(changes, size):
    row = HELD | {"contractSize": None, "contracts": 0.1 / size} | changes
    decision = decide(read(row), venue=sized(size))

    assert decision.order["BTCUSDT"] == pytest.approx(1.0 / 15.0 / size)
    assert decision.may_act == (size == 1.0)
    assert "contract size of BTCUSDT is not known" in decision.warnings[0].text


@pytest.mark.parametrize("changes", [
    {"notional": 600.0}, {"notional": 6_130.0}, {"contractSize": 1.0},
    {"contractSize": None, "notional": 12_345.0},
], ids=range(4))  # fmt: skip
def test_a_notional_of_another_size_is_an_error_that_shows_both(changes):
    state = read(HELD | changes)
    words = f"got {changes.get('notional', 6_000.0):,.2f}"
    check_refused(lambda: decide(state), words)

    without_mark = HELD | changes | {"markPrice": None, "contractSize": 0.01}
    assert decide(read(without_mark)).may_act


def test_an_inverse_notional_is_in_coins():
    """600 USD in contracts of 1 at 60,000 are .01 BTC, 6 contracts of 100."""
    row = HELD | {
        "symbol": "BTC/USD:BTC", "contracts": 600.0, "contractSize": None, "notional": 0.01,
        "side": "short",
    }  # fmt: skip
    state = bt.AccountSnapshot.from_ccxt(
        {"BTC": {"total": 0.01}}, [row], exchange="okx", currency="BTC"
    )
    venue = venue_of(contract={"kind": "inverse", "size": 100.0, "settles": "BTC"})
    market = name_market(*[60_000.0] * 30, name="BTCUSD")
    decision = decide(state, market=market, venue=venue, leverage=0.0, account=account_of())

    assert decision.order == {"BTCUSD": 6.0}


def test_the_total_of_bybit_is_a_wallet():
    """10,000 and a loss of 2,000 on half a BTC: 2 x 8,000 / 56,000 less .5 is -.214."""
    row = HELD | {
        "contracts": 0.5, "contractSize": 1.0, "notional": 28_000.0, "markPrice": 56_000.0,
        "unrealizedPnl": -2_000.0,
    }  # fmt: skip
    wallet = read(row, exchange="bybit")
    assert wallet.wallet == 10_000.0
    assert read(row, exchange="okx").equity == 10_000.0

    decision = decide(wallet, 56_000.0, leverage=2.0)
    assert decision.order["BTCUSDT"] == pytest.approx(-0.5 + 2.0 * 8_000.0 / 56_000.0)


@pytest.mark.parametrize("exchange", ["", "kraken", "gate", "bitget"])
def test_a_total_that_the_table_does_not_have_must_be_given(exchange):
    check_refused(lambda: read(HELD, exchange=exchange), "total must be given, 'equity'")
    check_refused(lambda: read(HELD, exchange=exchange), "give from_ccxt(..., total='wallet'), or")

    assert read(HELD, exchange=exchange, total="equity").equity == 10_000.0
    assert read(HELD, exchange=exchange, total="wallet").wallet == 10_000.0


@pytest.mark.parametrize("exchange", ["", "kraken"])
def test_a_collateral_that_the_table_does_not_have_must_be_given(exchange):
    terms = {"exchange": exchange, "total": "equity"}
    check_refused(lambda: read(DOGE, **terms), "collateral must be given, 'equity'")

    state = read(DOGE, **terms, collateral="wallet")
    assert state.positions["DOGEUSDT"].margin == 42.42


def test_an_isolated_position_without_its_collateral_is_refused():
    bare = DOGE | {"collateral": None, "initialMargin": 42.42}
    check_refused(lambda: read(bare), "an isolated position must have its collateral, got None")


@pytest.mark.parametrize("mark", [0.05, 0.06367, 0.08])
@pytest.mark.parametrize(("exchange", "has_profit"), [
    ("okx", False), ("bybit", False), ("gate", False), ("binance", True), ("hyperliquid", True),
])  # fmt: skip
def test_what_is_posted_is_without_profit_whatever_the_exchange(exchange, has_profit, mark):
    """42.42 + 2,000 (P - .06367) = .0065 x 2,000 P at P = 84.92 / 1,987 = .042738, at any mark."""
    profit = 2_000.0 * (mark - 0.06367)
    collateral = 42.42 + (profit if has_profit else 0.0)
    row = DOGE | {
        "unrealizedPnl": profit, "collateral": collateral, "markPrice": mark,
        "notional": 2_000.0 * mark,
    }  # fmt: skip
    state = read(row, exchange=exchange, total="equity", balance=1_000.0)
    market = name_market(*[mark] * 30, name="DOGEUSDT")
    account = account_of(margin="isolated", venue_leverage=3.0)

    for size in (1_000.0, 1.0):
        venue = sized(size, brackets=[bracket(rate=0.0065)])
        decision = decide(state, market=market, venue=venue, account=account, leverage=0.2)
        assert decision.account["liquidation_before"].item() == pytest.approx(84.92 / 1_987.0)
        assert decision.equity[0] == pytest.approx(1_000.0)


def test_a_wallet_of_ccxt_contains_what_is_posted():
    """1,000 without a profit of 20 on 2,000 coins that rose by .01: equity 1,020."""
    row = DOGE | {"unrealizedPnl": 20.0}
    state = read(row, exchange="bybit", balance=1_000.0)
    market = name_market(*[0.07367] * 30, name="DOGEUSDT")
    account = account_of(margin="isolated", venue_leverage=3.0)
    decision = decide(state, market=market, venue=sized(1_000.0), account=account, leverage=0.2)

    assert decision.equity[0] == pytest.approx(1_020.0)


def test_a_position_without_a_mode_is_posted_where_the_account_is_isolated():
    """Rows of Bybit have no marginMode."""
    row = DOGE | {"marginMode": None}
    market = name_market(*[0.06367] * 30, name="DOGEUSDT")
    terms: dict[str, Any] = {"market": market, "venue": sized(1_000.0), "leverage": 0.2}
    isolated = account_of(margin="isolated", venue_leverage=3.0)

    posted = read(row, exchange="bybit")
    assert decide(posted, account=isolated, **terms).may_act

    bare = read(row | {"collateral": None}, exchange="bybit")
    assert not decide(bare, account=isolated, **terms).may_act
    assert decide(bare, **terms).may_act


@pytest.mark.parametrize(("mode", "theirs", "is_close"), [
    ("isolated", 0.0431, True), ("isolated", 0.0437, False), ("isolated", 0.0418, False),
    ("cross", 0.0437, True), ("cross", 0.0465, False),
    ("cross", 0, True), ("cross", None, True), ("cross", "", True),
])  # fmt: skip
def test_liquidation_prices_are_compared(mode, theirs, is_close):
    """Ours is .042738: 1 % of the mark is .00064 in isolated margin, 5 % .0032 in cross."""
    row = DOGE | {"marginMode": mode, "liquidationPrice": theirs, "markPrice": 0.06367}
    balance = 42.42 if mode == "cross" else 1_000.0
    account = account_of()
    if mode == "isolated":
        account = account_of(margin="isolated", venue_leverage=3.0)
    terms: dict[str, Any] = {
        "market": name_market(*[0.06367] * 30, name="DOGEUSDT"),
        "venue": sized(1_000.0, brackets=[bracket(rate=0.0065)]),
        "account": account,
        "leverage": 0.2,
    }
    state = read(row, exchange="okx", balance=balance)

    decision = decide(state, **terms)
    texts = [str(warning) for warning in decision.warnings]
    is_told = any("0.0427378" in text and str(theirs) in text for text in texts)
    assert decision.may_act == is_close, texts
    assert is_told != is_close, texts

    # Where ours is taken the same is said, and stops nothing.
    by_decision = decide(state, **terms, liquidation="ours")
    stated = read(row, exchange="okx", balance=state.equity, liquidation="ours")
    by_snapshot = decide(stated, **terms)
    for ours in (by_decision, by_snapshot):
        assert ours.may_act
        assert len(ours.warnings) == len(decision.warnings)


@pytest.mark.parametrize(("mode", "share", "is_close"), [
    ("cross", 1e-12, True), ("cross", 0.0096, True), ("cross", 0.049, True),
    ("cross", 0.051, False), ("cross", 0.9, False),
    ("isolated", 0.009, True), ("isolated", 0.011, False),
])  # fmt: skip
def test_no_liquidation_price_of_a_long_position_is_a_price_of_zero(mode, share, is_close):
    """2,000 coins with their whole cost posted: at any price over 0 there is margin."""
    row = DOGE | {"marginMode": mode, "collateral": 2_000.0 * 0.06367, "markPrice": 0.06367}
    account = account_of()
    if mode == "isolated":
        account = account_of(margin="isolated", venue_leverage=1.0)
    state = read(
        row | {"liquidationPrice": share * 0.06367},
        exchange="okx",
        balance=2_000.0 * 0.06367 if mode == "cross" else 1_000.0,
    )

    decision = decide(
        state,
        market=name_market(*[0.06367] * 30, name="DOGEUSDT"),
        venue=sized(1_000.0, brackets=[bracket(rate=0.0065)]),
        account=account,
        leverage=0.05,
    )
    assert math.isnan(decision.account["liquidation_before"].item())
    assert decision.may_act == is_close, decision.warnings
    assert any("is none by the rules" in str(text) for text in decision.warnings) != is_close


@pytest.mark.parametrize(("theirs", "is_near_none"), [
    (100.0, False), (105.0, False), (1_900.0, False), (2_100.0, True), (1e9, True),
])  # fmt: skip
def test_no_liquidation_price_of_a_short_position_is_infinite(theirs, is_near_none):
    """5 % of the mark of 100, of a price over it: 20 times the mark and more is none."""
    terms: dict[str, float] = {"mark": 100.0, "tolerance": 0.05}
    assert is_near(math.nan, theirs, -1.0, **terms) == is_near_none
    assert not is_near(math.nan, theirs, 1.0, **terms)
    assert is_near(theirs - 4.9, theirs, -1.0, **terms)
    assert not is_near(theirs - 5.1, theirs, -1.0, **terms)


def test_an_order_that_adds_and_leaves_too_much_stops_and_a_reduction_does_not():
    """20 coins bought at 100 of 1,000 with the mark at 70: 1,400 of 400 is 3.5x, 2x decided."""
    market = name_market(*[100.0] * 30, has_mark=True)
    terms: dict[str, Any] = {"market": market, "at": 100.0, "leverage": 2.0}
    flat = bt.AccountSnapshot(equity=1_000.0)
    words = "the order leaves 3.50x of BTCUSDT, over 1.5 times the 2.00x decided"
    for mark, is_over in ((70.0, True), (95.0, False)):
        decision = decide(flat, **terms, mark=mark)
        assert decision.order["BTCUSDT"] == pytest.approx(20.0)
        assert (words in [warning.text for warning in decision.warnings]) == is_over
        assert decision.may_act != is_over

    held = {"BTCUSDT": {"quantity": 30.0, "entry": 100.0}}
    state = bt.AccountSnapshot(equity=1_000.0, positions=held)
    reduction = decide(state, **terms, mark=90.0)
    assert reduction.order["BTCUSDT"] < 0.0
    assert reduction.account["leverage_after"].item() > 2.0
    assert not [text for text in reduction.warnings if "the order leaves" in text.text]


def test_an_order_that_leaves_more_than_the_table_allows_stops():
    """A cap of 1,500 cuts 2x of 1,000 to 15 coins at 100, which are 1,650 at a mark of 110."""
    venue = venue_of(brackets=[bt.Bracket(0.0, 1_500.0, 20.0, 0.01)])
    market = name_market(*[100.0] * 30, has_mark=True)
    state = bt.AccountSnapshot(equity=1_000.0)
    terms: dict[str, Any] = {"market": market, "venue": venue, "leverage": 2.0, "at": 100.0}
    assert decide(state, **terms, mark=100.0).may_act

    decision = decide(state, **terms, mark=110.0)
    assert decision.order["BTCUSDT"] == pytest.approx(15.0)
    assert not decision.may_act
    assert "1,650.00 of BTCUSDT, over the 1,500.00" in decision.warnings[-1].text


def trade(hours: int, **changes: Any) -> dict[str, Any]:
    """Return a row of ccxt: 10 contracts bought at 100, some hours after the start."""
    time = START + pd.Timedelta(hours=hours)
    return {
        "timestamp": int(time.timestamp() * 1_000), "symbol": "BTC/USDT:USDT", "side": "buy",
        "amount": 10.0, "price": 100.0, "cost": 10.0, "fee": {"cost": 0.0, "currency": "USDT"},
        **changes,
    }  # fmt: skip


def replay(fills: pd.DataFrame, size: float, **more: Any) -> Any:
    market = name_market(100.0, 100.0, 110.0, 110.0)
    return ask_test("replay", market, fills, venue=sized(size), account=account_of(), **more)


def test_the_cost_of_fills_shows_the_size_of_their_contracts(tmp_path):
    """10 contracts of .01 at 100 cost 10: .1 coin, which gains 1 on the way to 110."""
    rows = bt.read_fills([trade(1), trade(2, side="sell", amount=5.0, price=110.0, cost=5.5)])
    rows.to_csv(tmp_path / "fills.csv", index=False)
    for fills in (rows, bt.read_fills(tmp_path / "fills.csv")):
        for size in (1.0, 0.01):
            result = replay(fills, size)
            quantities = [0.1 / size, -0.05 / size]
            assert result.fills["quantity"].tolist() == pytest.approx(quantities)
            assert result.bars["equity"].iloc[-1] == pytest.approx(1_001.0)

    with pytest.warns(UserWarning, match="15 contracts of 0.01 of BTCUSDT are 0.15 of the venue's"):
        replay(rows, 1.0)

    ledger = pd.Series([1_000.0, 1_001.0], index=rows["time"] + pd.Timedelta("1h"))
    assert replay(rows, 1.0).reconcile(ledger).empty


def test_a_cost_of_another_size_is_an_error_and_no_cost_is_said():
    rows = bt.read_fills([trade(1), trade(2, price=110.0, cost=110.0)])
    check_refused(lambda: replay(rows, 1.0), "the cost of fill 1 (BTCUSDT) must be within")

    bare = bt.read_fills([trade(1, cost=None)])
    with pytest.warns(UserWarning, match="the contract size of BTCUSDT is not known"):
        replay(bare, 0.01)

    assert replay(bare, 1.0).fills["quantity"].tolist() == [10.0]


def test_a_replay_begins_with_the_contracts_of_ccxt():
    """.1 coin bought at 90 of an equity of 1,000 gains 1 from 100 to 110."""
    row = HELD | {"entryPrice": 90.0, "markPrice": 100.0, "notional": 10.0}
    start = read(row, balance=1_000.0, time=START + pd.Timedelta("1h"))
    result = replay(bt.read_fills([]), 1.0, start=start)

    assert result.bars["equity"].tolist() == pytest.approx([1_000.0, 1_001.0, 1_001.0])


def read_deribit(row: dict[str, Any], currency: str, balance: float) -> bt.AccountSnapshot:
    return bt.AccountSnapshot.from_ccxt(
        {currency: {"total": balance}}, [row], exchange="deribit", currency=currency
    )


@pytest.mark.parametrize("changes", [
    {}, {"notional": None}, {"markPrice": None}, {"contractSize": None},
], ids=range(4))  # fmt: skip
def test_deribit_counts_dollars_whatever_size_ccxt_gives(changes):
    """ccxt fills in the market's contractSize, 10 USD; the notional is in coins."""
    row = HELD | {
        "symbol": "BTC/USD:BTC", "contracts": 6_000.0, "contractSize": 10.0, "notional": 0.1,
        "marginMode": None,
    }  # fmt: skip
    terms: dict[str, Any] = {
        "market": name_market(*[60_000.0] * 30, name="BTCUSD"),
        "venue": venue_of(contract={"kind": "inverse"}),
        "leverage": 0.0,
    }

    decision = decide(read_deribit(row | changes, "BTC", balance=1.0), **terms)
    assert decision.order == {"BTCUSD": -6_000.0}
    assert decision.may_act

    wrong = read_deribit(row | {"notional": 0.01}, "BTC", balance=1.0)
    check_refused(lambda: decide(wrong, **terms), "the notional of BTCUSD at its mark price must")


def test_deribit_counts_coins_whatever_size_ccxt_gives():
    """ccxt fills in the market's contractSize, .0001 BTC; the notional is in coins."""
    row = HELD | {
        "symbol": "BTC/USDC:USDC", "contracts": 0.1, "contractSize": 0.0001, "notional": 0.1,
        "marginMode": None,
    }  # fmt: skip
    state = read_deribit(row, "USDC", balance=10_000.0)
    decision = decide(state, market=name_market(*[60_000.0] * 30, name="BTCUSDC"))

    assert decision.order["BTCUSDC"] == pytest.approx(10_000.0 / 60_000.0 - 0.1)
    assert decision.may_act


def test_a_cost_or_notional_of_zero_is_unknown():
    fills = bt.read_fills([trade(1, amount=0.1, cost=0.0), trade(2, amount=0.1, cost=0)])
    with pytest.warns(UserWarning, match="the contract size of BTCUSDT is not known"):
        assert replay(fills, 0.01).fills["quantity"].tolist() == [0.1, 0.1]

    # One cost shows the size for all.
    some = bt.read_fills([trade(1, cost=0.0), trade(2, price=110.0, cost=11.0)])
    assert replay(some, 1.0).fills["quantity"].tolist() == pytest.approx([0.1, 0.1])

    (position,) = read(HELD | {"notional": 0.0}).positions.values()
    assert position.notional is None


def test_a_snapshot_is_reconciled_in_the_contracts_of_the_venue():
    """.1 coin bought at 100 of 1,000 gains 1 from 100 to 110; theirs are contracts of .01."""
    rows = bt.read_fills([trade(1)])
    row = HELD | {"entryPrice": 100.0, "markPrice": 110.0, "notional": 11.0}
    time = START + pd.Timedelta("3h")
    state = read(row, balance=1_001.0, time=time)
    for size in (1.0, 0.01):
        assert replay(rows, size).reconcile(state).empty
    with pytest.warns(UserWarning, match="10 contracts of 0.01 of BTCUSDT are 0.1 of the venue's"):
        replay(rows, 1.0).reconcile(state)

    other = read(row | {"contracts": 12.0, "notional": 13.2}, balance=1_002.0)
    differences = replay(rows, 0.01).reconcile(other)
    assert differences["term"].tolist() == ["quantity of BTCUSDT", "equity"]
    assert differences["difference"].tolist() == pytest.approx([2.0, 1.0])
    assert differences.index.tolist() == [time] * 2

    without = replay(rows, 1.0).reconcile(read(balance=1_001.0))
    assert without[["term", "theirs"]].values.tolist() == [["quantity of BTCUSDT", 0.0]]


def test_a_snapshot_of_another_time_or_instrument_is_not_reconciled():
    rows = bt.read_fills([trade(1)])
    row = HELD | {"entryPrice": 100.0, "markPrice": 110.0, "notional": 11.0}

    late = read(row, time=START + pd.Timedelta("9h"))
    check_refused(lambda: replay(rows, 1.0).reconcile(late), "must be of a time within the replay")
    foreign = read(row | {"symbol": "ETH/USDT:USDT"})
    check_refused(lambda: replay(rows, 1.0).reconcile(foreign), "has no instrument 'ETHUSDT'")


def test_names_is_the_cure_where_symbols_are_not_those_of_the_market():
    decision = decide(read(HELD | {"symbol": "BTC/USDC:USDC"}))
    (text,) = [warning.text for warning in decision.warnings if "BTCUSDC" in warning.text]
    assert "names= of from_ccxt maps its symbol to 'BTCUSDT'" in text
    assert not decision.may_act

    # Where the market has a position already, to map another on it would be a duplicate.
    other = HELD | {"symbol": "SOL/USDT:USDT"}
    (text,) = [each.text for each in decide(read(HELD, other)).warnings if "SOL" in each.text]
    assert "names=" not in text
    assert "add its data: one more --data" in text
    panel = bt.Markets({name: name_market(*[60_000.0] * 30, name=name)
                        for name in ("BTCUSDT", "SOLUSDT")})  # fmt: skip
    added = decide(read(HELD, other), market=panel)
    assert not [each.text for each in added.warnings if "not in the market" in each.text]

    row = trade(1, symbol="BTC/USDC:USDC")
    cure = "read_fills(..., names={symbol: 'BTCUSDT'}) maps symbols"
    check_refused(lambda: replay(bt.read_fills([row]), 0.01), cure)
    mapped = bt.read_fills([row], names={"BTC/USDC:USDC": "BTCUSDT"})
    assert replay(mapped, 0.01).fills["quantity"].tolist() == [10.0]


@pytest.mark.parametrize("exchange", ["binanceusdm", "binancecoinm", "BYBIT", "gateio", "myokx"])
def test_other_ids_of_an_exchange_have_its_meanings(exchange):
    rows = [row for row in read_account_fields() if exchange.lower() in row.exchanges]
    assert rows

    expected = "equity" if "binance" in exchange else "wallet"
    assert find_meaning(exchange, "collateral", "USDT") == expected


def test_the_reference_shows_the_table_of_fields():
    text = list_exchanges()["exchanges"]
    rows = read_account_fields()
    assert {row.field for row in rows} == {"total", "collateral"}

    for row in rows:
        exchanges = ", ".join(row.exchanges)
        money = f" ({row.settles})" if row.settles else ""
        has_profit = "yes" if row.has_profit else "no"
        assert f"| {exchanges} | `{row.field}`{money} | {has_profit} |" in text
        assert escape(row.source) in text


@pytest.mark.parametrize("contracts", [None, ""])
def test_a_position_of_an_unknown_quantity_is_no_flat_one(contracts):
    """Rows of Deribit may have contracts of None: the order would be one of a flat account."""
    row = HELD | {"contracts": contracts, "notional": 6_000.0}
    check_refused(lambda: read(row), "a position must have its contracts, got")

    # An entry alone says that something is held.
    entered = HELD | {"contracts": contracts, "notional": None, "initialMargin": None}
    check_refused(lambda: read(entered), "with entryPrice = 60000.0")
    assert len(read(entered | {"contracts": 0.0}).positions) == 0


@pytest.mark.parametrize("price", [None, "", 0.0, "0"])
def test_a_row_without_any_amount_is_no_position(price):
    empty = HELD | {"contracts": None, "notional": None, "entryPrice": price}
    assert len(read(empty).positions) == 0


@pytest.mark.parametrize("field", ["contracts", "contractSize", "notional", "liquidationPrice"])
def test_a_text_that_is_no_number_is_refused_with_its_field(field):
    check_refused(
        lambda: read(HELD | {field: "6,000"}),
        f"{field} of a position must be a number, got '6,000' (BTC/USDT:USDT)",
    )


@pytest.mark.parametrize("total", ["", "10,000", math.nan])
def test_a_total_that_is_no_number_is_refused(total):
    check_refused(lambda: read(balance=total), "the total of USDT must be a number")


@pytest.mark.parametrize("price", [None, "", 0, "0", -1000.0, math.nan])
def test_a_liquidation_price_of_none_is_left_out_however_it_is_written(price):
    (position,) = read(HELD | {"liquidationPrice": price}).positions.values()
    assert position.liquidation_price is None


def test_collateral_with_profit_needs_the_profit():
    row = DOGE | {"unrealizedPnl": None}
    check_refused(
        lambda: read(row, collateral="equity"),
        "whose collateral contains its profit must have its unrealizedPnl, got None",
    )
