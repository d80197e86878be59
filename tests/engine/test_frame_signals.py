"""Weight frames are read by time and name, and functions that make them may not look ahead."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import PolicyError
from backtest.engine.signal_rules import describe_signal_check, describe_weights, resolve_signal
from tests.kit import check_refused, every_nth

LONG = bt.Market.sample(bars=24 * 60)
MARKETS = bt.Markets(
    {
        "A": LONG,
        "B": bt.Market.sample(bars=24 * 60, seed=1),
        "C": bt.Market.sample(bars=24 * 60, seed=2).slice(400, 1000),
    }
)
FEW = MARKETS.slice(0, 96)


def closes(markets: bt.Markets) -> pd.DataFrame:
    return pd.DataFrame(markets.panel().close.T, index=markets.times, columns=[*markets.names])


def momentum(markets: bt.Markets) -> pd.DataFrame:
    """A third in each instrument, by the sign of the last day's return."""
    return np.sign(closes(markets).pct_change(24, fill_method=None)) / 3.0


def relative(markets: bt.Markets) -> np.ndarray:
    """Demeaned ranks across instruments, an array."""
    ranks = closes(markets).pct_change(24, fill_method=None).rank(axis=1)
    return ranks.sub(ranks.mean(axis=1), axis=0).to_numpy()


def test_a_causal_function_gives_weights_that_say_how_they_were_checked():
    frame = bt.signals.from_function(MARKETS, momentum)
    assert frame.columns.tolist() == ["A", "B", "C"]
    assert frame.index.equals(MARKETS.times)
    assert not frame.isna().any(axis=None)
    assert (frame["C"].to_numpy()[:424] == 0.0).all()  # a day after it is listed
    assert frame["C"].iloc[999] == 0.0  # in its last bar nothing is decided
    assert "signal checked at" in describe_signal_check(frame)
    assert describe_signal_check(frame * 0.5).startswith("signal not checked")
    assert "signal checked at" in describe_signal_check(-frame)
    assert describe_signal_check({"A": 1.0}) == ""


def test_an_array_and_constants_are_answers_too():
    frame = bt.signals.from_function(MARKETS, relative, "long")
    assert (frame >= 0.0).all(axis=None)
    assert frame.to_numpy().any()
    short = bt.signals.from_function(MARKETS, relative, "short")
    np.testing.assert_array_equal(
        frame + short, bt.signals.from_function(MARKETS, relative).to_numpy()
    )
    constant = bt.signals.from_function(MARKETS, lambda seen: {"A": 0.5})
    assert constant["A"].to_numpy().mean() == 0.5


def peek_next(markets: bt.Markets) -> pd.DataFrame:
    return np.sign(closes(markets).pct_change(fill_method=None).shift(-1)) / 3.0


def peek_mean(markets: bt.Markets) -> pd.DataFrame:
    moves = closes(markets).pct_change(fill_method=None)
    return np.sign(moves - moves.mean())


def peek_at_another(markets: bt.Markets) -> pd.DataFrame:
    """B is held by what A does in the next bar: a lead that nobody knows."""
    frame = closes(markets) * 0.0
    return frame.assign(B=np.sign(closes(markets)["A"].pct_change().shift(-1)))


def peek_at_the_day(markets: bt.Markets) -> pd.DataFrame:
    """The close of the day, known in all of its hours."""
    price = closes(markets)
    days = price.groupby(price.index.floor("D")).transform("last")
    return np.sign(days / price - 1.0)


def peek_at_the_end(markets: bt.Markets) -> pd.DataFrame:
    return np.sign(closes(markets).ffill().iloc[-1] / closes(markets) - 1.0)


def peek_at_a_listing(markets: bt.Markets) -> pd.DataFrame:
    """Half of A while C does not trade, although C is listed only later."""
    frame = closes(markets) * 0.0
    return frame.assign(A=0.5 if "C" in markets else 1.0)


PEEKS = (peek_next, peek_mean, peek_at_another, peek_at_the_day, peek_at_the_end, peek_at_a_listing)


@pytest.mark.parametrize("peek", every_nth(PEEKS, 3), ids=lambda each: each.__name__)
def test_functions_that_look_ahead_are_found(peek):
    with pytest.raises(PolicyError, match="looks ahead") as caught:
        bt.signals.from_function(MARKETS, peek)
    assert peek.__name__ in str(caught.value)


def test_rows_that_are_carried_hold_until_the_next():
    days = FEW.times[::24]
    daily = pd.DataFrame({"A": [0.1, 0.2, 0.3, np.nan], "B": 0.5}, index=days)
    frame = bt.signals.from_frame(FEW, daily, carry=True)
    # A row stamped 00:00 is known in the bar that closes at 01:00, not in the one before.
    assert frame["A"].tolist() == [0.1] * 24 + [0.2] * 24 + [0.3] * 24 + [0.0] * 24
    later = daily.set_axis(days + pd.Timedelta("1h"))
    assert bt.signals.from_frame(FEW, later, carry=True)["A"].tolist()[:3] == [0.0, 0.1, 0.1]
    backwards = daily.iloc[::-1]
    pd.testing.assert_frame_equal(bt.signals.from_frame(FEW, backwards, carry=True), frame)


def test_a_frame_by_bars_is_read_as_it_is():
    frame = pd.DataFrame({"B": np.linspace(-1.0, 1.0, 96)}, index=FEW.times)
    read = bt.signals.from_frame(FEW, frame, "long")
    assert read.columns.tolist() == ["A", "B"]
    np.testing.assert_array_equal(read["B"], np.maximum(frame["B"], 0.0))


def test_the_manifest_names_weights_by_their_values():
    one, other = np.ones((2, 3)), np.zeros((2, 3))
    assert describe_weights(None, one) == "equal weights"
    assert describe_weights({"A": 1.0}, one).startswith("frame sha256:")
    assert describe_weights({"A": 1.0}, one) != describe_weights({"A": 1.0}, other)


GOOD = pd.DataFrame({"A": 0.5}, index=FEW.times)
FRAME, FUNCTION = bt.signals.from_frame, bt.signals.from_function
BAD = {
    "unknown": (lambda: FRAME(FEW, GOOD.rename(columns={"A": "X"})), "got one of 'X'"),
    "no zone": (lambda: FRAME(FEW, GOOD.tz_localize(None)), "in UTC"),
    "carried twice": (lambda: FRAME(FEW, GOOD.iloc[[0, 0]], carry=True), "one row per time"),
    "infinite": (lambda: FRAME(FEW, GOOD * np.inf), "must be finite"),
    "days by bars": (lambda: FRAME(FEW, GOOD.iloc[::24]), "bars without one would be flat"),
    "too short": (lambda: FUNCTION(FEW, lambda seen: GOOD.iloc[:50]), "of 50 by other times"),
    "infinite answer": (lambda: FUNCTION(FEW, lambda seen: {"A": np.inf}), "finite"),
}


def test_a_rule_at_the_call_is_the_rule_by_name():
    few = MARKETS.slice(380, 480)
    found = bt.signals.rsi(few, 14, 35, 65)
    again = resolve_signal("rsi:14:35:65", few)
    pd.testing.assert_frame_equal(found, again)
    alone = bt.signals.rsi(few["A"], 14, 35, 65)
    share = np.where(few.tradable()[2], 3.0, 2.0)
    np.testing.assert_array_equal(found["A"], alone / share)
    assert describe_signal_check(found) == describe_signal_check(again) != ""


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    check_refused(*BAD[case])


def test_columns_may_have_the_names_of_instruments():
    """A panel of folders btc and eth: weights of BTCUSDT and ETHUSDT are theirs."""
    made = {name: bt.Market.sample(bars=50, seed=k) for k, name in enumerate(("btc", "eth"))}
    panel = {
        name: bt.Market.from_frames(each.bars(), instrument=f"{name.upper()}USDT")
        for name, each in made.items()
    }
    markets = bt.Markets(panel, currency="USDT")
    frame = pd.DataFrame({"ETHUSDT": -0.5, "BTCUSDT": 0.3}, index=markets.times)
    for carry in (False, True):
        found = bt.signals.from_frame(markets, frame, carry=carry)
        assert found.iloc[-1].to_dict() == {"btc": 0.3, "eth": -0.5}
    with pytest.raises(bt.ParameterError, match="each instrument has one column, 'eth'"):
        bt.signals.from_frame(markets, frame.assign(eth=0.1))
