"""Bars in which only prices move take a short way, to the bits of the whole rules."""

from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.engine import loop
from backtest.policy.formula_reads import find_fields
from backtest.strategies import VolTarget
from tests.kit import flat, make_market, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NAMES = ("ONE", "TWO", "SIX")
MARKETS = bt.Markets({name: bt.Market.sample(bars=60, seed=k) for k, name in enumerate(NAMES)})
ACCOUNTS = {
    "cross": bt.Account(band=0.05),
    "isolated": bt.Account(band=0.05, margin="isolated", venue_leverage=10.0, stop_loss=0.02),
    "mixed": bt.Account(
        band=0.1, margin={"ONE": "isolated", "TWO": "cross", "SIX": "cross"}, venue_leverage=15.0,
        intrabar="worst", max_gross_leverage=4.0,
    ),
    "called": bt.Account(band=0.05, margin_call=0.3),
    "scenarios": bt.Account(
        band=0.05, requirement=bt.ScenarioMargin(moves={"all": [(-0.1, 1.0), (0.1, 1.0)]},
                                                 groups={"all": NAMES}),
    ),
}  # fmt: skip


class Watchful(VolTarget):
    """Read the account and the bar."""

    def leverage(self, bar, account):
        """Hold less after a bad bar or near failure."""
        return self.target / bar.sigma * (0.5 + 0.5 * (bar.close > bar.open)) * (
            1.0 - min(account.margin_ratio, 1.0)
        ) + 0.1 * account.gross_leverage  # fmt: skip


def count_fast(monkeypatch: Any) -> list[bool]:
    """Return a list to which every bar adds whether it took the short way."""
    taken: list[bool] = []
    live = loop.take_fast_path

    def counted(*given: Any) -> bool:
        taken.append(live(*given))
        return taken[-1]

    monkeypatch.setattr(loop, "take_fast_path", counted)
    return taken


def is_same(one: Any, other: Any) -> bool:
    """Return whether two results have the same bits."""
    return (
        one.record.values.tobytes() == other.record.values.tobytes()
        and one.entries.tobytes() == other.entries.tobytes()
        and all(
            np.array_equal(a, b, equal_nan=True)
            for a, b in zip(one.metrics.values(), other.metrics.values(), strict=True)
        )
    )


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_fast_bars_have_the_bits_of_the_whole_rules(kind, monkeypatch):
    signal = {"ONE": 1.0, "TWO": -0.8, "SIX": 0.5}
    policy = Watchful(half_life=20) if kind == "mixed" else VolTarget(half_life=20, target=1.5)
    given = {
        "venue": make_venue(taker=5e-4), "account": ACCOUNTS[kind], "signal": signal,
        "compile": False,
    }  # fmt: skip
    taken = count_fast(monkeypatch)
    short = bt.run(MARKETS, policy, **given)
    assert (sum(taken) > 5) == (kind not in {"called", "scenarios"}), sum(taken)
    monkeypatch.setattr(loop, "may_use_fast_path", lambda *_: False)
    assert is_same(short, bt.run(MARKETS, policy, **given))


def test_listings_settlements_and_liquidations_are_no_fast_bars(monkeypatch):
    markets = simulate_pair(120)
    given = {
        "venue": make_venue(taker=5e-4), "account": bt.Account(band=0.5),
        "signal": {"AAA": 1.0, "BBB": -1.0}, "compile": False,
    }  # fmt: skip
    taken = count_fast(monkeypatch)
    short = bt.run(markets, VolTarget(half_life=20, target=2.0), **given)
    assert any(taken)
    assert not all(taken)
    monkeypatch.setattr(loop, "may_use_fast_path", lambda *_: False)
    assert is_same(short, bt.run(markets, VolTarget(half_life=20, target=2.0), **given))


def test_a_policy_sees_the_margin_rules_from_the_listing_of_its_instrument_on():
    class Cautious(bt.Policy):
        """Read the venue."""

        def leverage(self, bar, account):
            """Return the share of 1 that maintenance margin of 5 % leaves."""
            return 1.0 - bt.margin.maintenance(account.venue, 100.0) / 100.0

    late = make_market([flat(50.0)] * 4, start="2024-01-01 04:00")
    markets = bt.Markets({"AAA": make_market([flat(100.0)] * 8), "BBB": late}, currency="USDT")
    account = bt.Account(band=2.0)  # nothing trades, so that the listing is all that happens
    result = bt.run(markets, Cautious(), venue=make_venue(), account=account, compile=False)
    assert result.record.positions.target[4:7, 1].tolist() == pytest.approx([0.95] * 3)


def test_what_a_formula_reads_is_found():
    def watch(settings, bar, account):
        return account.equity * bar.sigma

    def pass_on(settings, bar, account):
        return watch(settings, bar, account)

    def hide(settings, bar, account):
        def inner():
            return bar.close

        return inner()

    assert find_fields(watch, 2) == {"equity"}
    assert find_fields(watch, 1) == {"sigma"}
    assert find_fields(watch, 0) == set()
    assert "*" in find_fields(pass_on, 1)
    assert "*" in find_fields(hide, 1)
