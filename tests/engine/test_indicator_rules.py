"""Signals by name: what the rules say bar by bar, their texts, and what is refused."""

import dataclasses
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.engine.signal_rules import RULES, read_rule, resolve_signal
from backtest.strategies import Constant
from tests.kit import live, market_of


class Rising(bt.signals.SignalRule):
    """Long while the close is over the close some bars ago."""

    bars: Annotated[int, bt.Range(1, 1000, "bars")] = 1

    def direction(self, market):
        return market.bars()["close"].diff(self.bars) > 0


class Peek(bt.signals.SignalRule):
    """Long if the next close is higher."""

    def direction(self, market):
        return market.bars()["close"].diff().shift(-1) > 0


def with_column(market, name, values):
    return dataclasses.replace(market, columns={name: np.asarray(values, dtype=np.float64)})


def test_each_rule_by_hand():
    """Closes 10 11 12 9 9 13, each bar opening at the close before."""
    closes = np.array([10.0, 11, 12, 9, 9, 13])
    market = market_of(closes)
    # averages of 1 and 2: the sign of close - mean, as 11 - 10.5, 12 - 11.5, 9 - 10.5, 0, 13 - 11
    cross = bt.signals.MaCross(fast=1, slow=2).compute(market)
    assert cross.tolist() == [0, 1, 1, -1, 0, 1]
    assert bt.signals.MaCross(1, 2, "long").compute(market).tolist() == [0, 1, 1, 0, 0, 1]
    # 12 > max(10, 11), 9 < min(10, 11), 9 is no new low of (11, 9), 13 > max(12, 9)
    assert bt.signals.Breakout(window=2).compute(market).tolist() == [0, 0, 1, -1, -1, 1]
    # index over 2 moves: 100, 25 (1 up, 3 down: 100 - 100 / (1 + 1/3)), 0, 100
    index = bt.signals.Rsi(window=2, low=30, high=90).compute(market)
    assert index.tolist() == [0, 0, -1, 1, 1, -1]
    # bands of 0.9 deviations around means of 2: a close is 1 deviation away, or 0
    bands = bt.signals.Bollinger(window=2, width=0.9).compute(market)
    assert bands.tolist() == [0, -1, -1, 1, 1, -1]


def test_a_text_names_a_rule_with_its_parameters_in_order():
    for title, rule in RULES.items():
        assert repr(read_rule(title)) == repr(rule())
        assert repr(read_rule(read_rule(title).text())) == repr(rule())
    assert bt.signals.Rsi(low=20).text() == "rsi:14:20:70"
    assert read_rule("ma-cross:20:50:long:true").text() == "ma-cross:20:50:long:true"
    assert read_rule("rsi:14", {"high": 80}).settings()["high"] == 80.0


@pytest.mark.parametrize(("text", "message"), [
    ("rsj", "did you mean 'rsi'"),
    ("rsi:60:1:2:both:5", "signal must be rsi:WINDOW:LOW:HIGH:SIDES, got"),
    ("rsi:14:60", "low must be 0 to 50"),
    ("ma-cross:50:20", "fast must be below slow 20, got 50"),
    ("breakout:x", "window must be a whole number"),
    ("breakout:9:up", "sides must be one of both, long, short"),
])  # fmt: skip
def test_a_wrong_text_is_one_clear_error(text, message):
    with pytest.raises(bt.ParameterError, match=message):
        resolve_signal(text, bt.Market.sample(bars=48))


def test_a_run_takes_a_rule_its_text_or_a_column_and_the_manifest_keeps_the_name():
    market = bt.Market.sample(bars=200)
    policy = Constant(leverage=2.0)
    by_text = live(market, policy, signal="breakout:10", compile=False)
    by_rule = live(market, policy, signal=bt.signals.Breakout(10), compile=False)
    given = live(market, policy, signal=bt.signals.breakout(market, 10), compile=False)
    name, _, digest = by_text.manifest["signal"].partition(" sha256:")
    assert (name, len(digest)) == ("breakout:10", 64)
    assert by_rule.manifest["id"] == by_text.manifest["id"] == given.manifest["id"]
    assert "signal checked at" in by_text.manifest["causality"]
    own = with_column(market, "view", by_text.signal)
    by_column = live(own, policy, signal="view", compile=False)
    assert by_column.manifest["signal"].startswith("column view sha256:")
    assert "signal not checked" in by_column.manifest["causality"]
    assert by_column.bars["equity"].tolist() == by_text.bars["equity"].tolist()


def test_an_own_rule_runs_and_one_that_looks_ahead_is_refused():
    market = bt.Market.sample(bars=200)
    found = live(market, Constant(leverage=1.0), signal=Rising(bars=3), compile=False)
    expected = market.close[3:] > market.close[:-3]
    assert found.signal[3:].tolist() == expected.astype(float).tolist()
    with pytest.raises(bt.PolicyError, match="peek"):
        live(market, Constant(leverage=1.0), signal=Peek(), compile=False)


def test_a_changed_signal_loses_its_name():
    market = bt.Market.sample(bars=100)
    signal = bt.signals.breakout(market, 10)
    changed = live(market, Constant(leverage=1.0), signal=0.5 * signal, compile=False)
    assert changed.manifest["signal"].startswith("series sha256:")


def test_a_rule_of_several_instruments_is_its_direction_in_each_times_one_over_n():
    pair = {"A": bt.Market.sample(bars=80), "B": bt.Market.sample(bars=80, seed=1)}
    markets = bt.Markets(pair)
    weights = resolve_signal("breakout:10", markets)
    for name, market in pair.items():
        direction = bt.signals.breakout(market, 10).to_numpy()
        assert weights[name].tolist()[:-1] == (0.5 * direction).tolist()[:-1]
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    terms = {"venue": venue, "account": bt.Account(), "compile": False}
    by_text = bt.run(markets, Constant(leverage=1.0), signal="breakout:10", **terms)
    given = bt.run(markets, Constant(leverage=1.0), signal=weights, **terms)
    assert by_text.manifest["signal"].startswith("breakout:10 sha256:")
    assert by_text.manifest["id"] == given.manifest["id"]
    with pytest.raises(bt.ParameterError, match="did you mean 'breakout'"):
        bt.run(markets, Constant(leverage=1.0), signal="breakuot", **terms)
