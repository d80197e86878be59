"""Parameters of a signal's rule vary beside those of the policy, and rows are runs bit for bit."""

from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from backtest.sweep.lookahead_at_ends import check_markets
from backtest.sweep.sets.sets import BaseTerms, read_settings
from tests.kit import simulate_pair
from tests.sweep.sweeps import are_equal

MARKET = bt.Market.sample(bars=400)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
TERMS = {"venue": VENUE, "account": bt.Account(band=0.02)}


class Peek(bt.signals.SignalRule):
    """Long if the close some bars later is higher; honest for 0 bars."""

    bars: Annotated[int, bt.Range(0, 100, "bars")] = 0

    def direction(self, market):
        close = market.bars()["close"]
        return close.shift(-self.bars) > close.shift(1)


def assert_rows_are_runs(sweep: bt.Sweep, market: bt.Market) -> None:
    """Run each row alone, with the rule as a text."""
    for _, row in sweep.table.iterrows():
        rule = dict(bt.engine.signal_rules.read_rule("rsi:14:30:60").settings())
        rule |= {name[7:]: row[name] for name in sweep.parameters if name.startswith("signal.")}
        own = bt.signals.Rsi(**rule | {"window": int(rule["window"])})
        alone = bt.run(
            market, VolTarget(target=row["target"]), signal=own.text(), compile=False, **TERMS
        )
        for name, value in alone.metrics.items():
            if name in sweep.table:
                assert are_equal(name, row[name], value, 10_000.0), name


SETS = {"target": [0.3, 0.9], "signal.window": [5, 14], "signal.low": [25.0, 40.0]}


@pytest.mark.slow
def test_rows_of_lanes_are_runs():
    found = bt.sweep(MARKET, VolTarget, SETS, signal="rsi:14:30:60", full=True, **TERMS)
    assert len(found.table) == 8
    assert found.manifest["signal"].startswith("rsi:14:30:60 sha256:")
    assert "signal checked" in found.manifest["causality"]
    assert_rows_are_runs(found, MARKET)


@pytest.mark.slow
def test_sets_whose_rule_is_refused_fail_with_the_reason():
    sets = {"signal.fast": [5, 60], "signal.slow": [50, 90]}
    with pytest.warns(UserWarning, match="1 of 4 sets failed"):
        found = bt.sweep(MARKET, Constant(leverage=1.0), sets, signal="ma-cross", **TERMS)
    failed = found.table[found.table["error"] != ""]
    assert failed[["signal.fast", "signal.slow"]].to_numpy().tolist() == [[60, 50]]
    assert "fast must be below slow 50, got 60" in failed["error"].iloc[0]


@pytest.mark.slow
def test_a_rule_that_looks_ahead_with_some_parameters_is_refused():
    policy = Constant(leverage=1.0)
    with pytest.raises(bt.PolicyError, match="peek:3"):
        bt.sweep(MARKET, policy, {"signal.bars": [0, 3]}, signal=Peek(), **TERMS)


@pytest.mark.parametrize(("signal", "name", "message"), [
    (None, "signal.window", "needs a signal rule"),
    ("rsi", "signal.windw", "did you mean 'signal.window'"),
    ("breakout", "signal.window", "window must be 1 to 100000 bars"),
])  # fmt: skip
def test_a_wrong_name_or_value_is_one_clear_error(signal, name, message):
    with pytest.raises(bt.ParameterError, match=message):
        bt.sweep(MARKET, VolTarget, {name: [0, 5]}, signal=signal, **TERMS)


@pytest.mark.slow
def test_a_search_varies_the_rule_and_its_best_runs_again(tmp_path):
    space = {"target": (0.2, 1.0), "signal.window": (5, 60), "signal.sides": ["both", "long"]}
    arguments = {"space": space, "signal": "breakout", "trials": 24, "sampler": "random"}
    study = bt.tune(MARKET, VolTarget, robust=False, store=tmp_path, **arguments, **TERMS)
    best = study.best_signal
    assert best.settings() == {
        "window": study.best_values["signal.window"],
        "sides": study.best_values["signal.sides"],
    }
    part = MARKET.prefix(300)  # the rest is held out
    alone = bt.run(part, study.best_policy, signal=best.text(), compile=False, **TERMS)
    assert alone.metrics["sharpe"] == study.best["sharpe"]
    again = bt.tune(
        MARKET, VolTarget, robust=False, store=tmp_path, resume=True, **arguments, **TERMS
    )
    assert again.best_signal == best
    equity = again.replay().bars["equity"]
    assert equity.tolist() == study.replay().bars["equity"].tolist()


def test_an_overlay_is_checked_from_the_first_weight_on_as_in_a_run():
    class Awake(bt.Policy):
        """Refuse an index that does not move."""

        def observe(self, market):
            moves = np.diff(market.close, prepend=market.open[0])
            if market.n_bars > 5 and not moves[:5].any():
                raise ValueError("nothing moves")
            return {"move": moves}

        def leverage(self, bar, account):
            return 1.0 + 0.0 * bar.move

    # a rule is flat until its window is full, and the index stays where it is
    pair = simulate_pair(30)
    flat = pd.DataFrame(0.0, index=pair.times[:10], columns=pair.names)
    held = pd.DataFrame(0.5, index=pair.times[10:], columns=pair.names)
    sets = {"leverage": np.array([1.0])}
    base = BaseTerms(Constant, TERMS["venue"], TERMS["account"], None, pair.names, Awake())
    check_markets(pair, base, read_settings(base), sets, signal=pd.concat([flat, held]), memory=1e6)
