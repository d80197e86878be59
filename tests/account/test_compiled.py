"""The loop compiled, called back and without options has the bits of plain Python."""

import os
import signal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base import find_own_functions, make_twin
from backtest.engine import driver
from backtest.engine.compiler import MODULES, WITHOUT_OPTIONS, return_always
from backtest.engine.policies import ask_plain
from backtest.policy.formulas import find_fields
from backtest.strategies import Capped, LiquidationDistance, VolTarget
from tests.agreement import run_engine, trust_data
from tests.cases import make_full_case, make_margin_case, make_mode_case, make_spot_case
from tests.kit import Hold, Once, flat, make_market, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two results have the same bits."""
    return (
        one.record.values.tobytes() == other.record.values.tobytes()
        and one.entries.tobytes() == other.entries.tobytes()
        and repr(dict(one.metrics)) == repr(dict(other.metrics))
    )


# ---------------------------------------------------------------------------------------- compiled

SAMPLE = bt.Market.sample(bars=600)
DATES = SAMPLE.times[[0, 200, 400]]
BINANCE = bt.Venue.preset("binance-usdm", "BTCUSDT")
TIERED = make_venue(taker=5e-4, slippage=1e-4, liquidation_fee=0.01, mode="partial").override({
    "contract.round_to_tick": True, "contract.tick": 5.0, "fees.per_order": 0.5,
    "fees.tiers": [bt.FeeTier(3e4, 3e-4, 1e-4), bt.FeeTier(1e5, 1e-4, -1e-4)],
    "initial_multiplier": pd.Series([1.0, 3.0, 2.0], index=DATES), "call_grace": 3,
    "profit_counts": 0.3,
})  # fmt: skip
ISOLATED = {"margin": "isolated", "venue_leverage": 10.0}
ACCOUNTS: dict[str, tuple[Any, bt.Venue, dict[str, Any]]] = {
    "limits by date, tiers, ticks, calls": (
        VolTarget(target=1.5), TIERED,
        {"max_leverage": pd.Series([np.inf, 1.5, 3.0], index=DATES), "margin_call": 0.3},
    ),
    "a wallet that adds margin": (
        Hold(8.0), TIERED,
        {"margin_call": 0.6, "reserve": 500.0, "top_up_to": 0.4, "auto_margin": True} | ISOLATED,
    ),
    "decided settings": (Capped(LiquidationDistance(target=4.0), cap=3.0), BINANCE, ISOLATED),
    "time stops": (LiquidationDistance(), BINANCE, {"max_holding": "2d"} | ISOLATED),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ACCOUNTS)
def test_compiled_runs_are_plain_runs(kind):
    policy, venue, terms = ACCOUNTS[kind]
    given = {"venue": venue, "account": bt.Account(capital=10_000.0, **terms)}
    compiled, plain = (bt.run(SAMPLE, policy, compile=each, **given) for each in (True, False))
    assert compiled.manifest["compiled"] == "yes"
    assert is_same(compiled, plain)


@pytest.mark.slow
def test_compiled_runs_of_random_accounts_are_plain_runs(monkeypatch):
    trust_data(monkeypatch)
    for seed in range(20):
        case = make_mode_case(seed)
        assert is_same(run_engine(case, is_compiled=False), run_engine(case)), seed


# ------------------------------------------------------------------------- what numba refuses


class Tabled(bt.Policy):
    """Look up the direction of the bar in a dict."""

    def observe(self, market):
        return {"rise": np.sign(market.close - market.open)}

    def leverage(self, bar, account):
        table = {1.0: [2.0], -1.0: [0.5 + account.drawdown]}
        return table.get(bar.rise, [float("nan")])[0]


class Averaged(bt.Policy):
    """Ask pandas, and leave the position alone on the first days; keep the whole view."""

    def leverage(self, bar, account):
        kept = [account]
        if kept[0].days < 3.0:
            return float("nan")
        rates = pd.Series(kept[0].venue.rates)
        return float(pd.Series([bar.close, 100.0]).mean() / bar.close * (1.0 + rates.iloc[0]))


def live(policy, **more):
    account = bt.Account(capital=10_000.0)
    return bt.run(simulate_pair(400), policy, venue=make_venue(taker=1e-3), account=account, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "more"), [
    (Averaged(), {"overlay": Tabled()}),
    ({"AAA": Tabled(), "BBB": Once()}, {}),
], ids=["pandas", "beside a compiled one"])  # fmt: skip
def test_a_policy_called_back_has_the_bits_of_plain_python(policy, more):
    called, plain = live(policy, **more), live(policy, compile=False, **more)
    assert "test_compiled.py, line" in called.manifest["compiled"]
    pd.testing.assert_frame_equal(called.bars, plain.bars, check_exact=True)
    pd.testing.assert_frame_equal(called.trades, plain.trades, check_exact=True)


class Failing(bt.Policy):
    """Find no word in a table on the fifth day."""

    def leverage(self, bar, account):
        return {True: 1.0}[account.days < 5.0]


class Falling(bt.Policy):
    """Fall below zero on the fifth day."""

    def leverage(self, bar, account):
        return {True: 1.0, False: -1.0}.get(account.days < 5.0, [1.0][0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Failing, Falling])
def test_what_is_wrong_is_placed_as_in_plain_python(kind):
    told = []
    for is_compiled in (True, False):
        with pytest.raises(bt.PolicyError, match="at the close of bar 1") as caught:
            live(kind(), compile=is_compiled)
        told.append(str(caught.value))
    assert told[0] == told[1]


class Interrupted(bt.Policy):
    """Press Ctrl-C on the fifth day."""

    def leverage(self, bar, account):
        if account.days > 5.0:
            os.kill(os.getpid(), signal.SIGINT)
        return [1.0][0]


@pytest.mark.slow
def test_ctrl_c_ends_the_run_at_once():
    with pytest.raises(KeyboardInterrupt):
        live(Interrupted())


class Loud(bt.Policy):
    """Raise where a parameter says so."""

    least: Annotated[float, bt.Range(-5.0, 5.0)] = 1.0

    def leverage(self, bar, account):
        if self.least > 4.0:
            raise ValueError("too loud")
        return self.least


@pytest.mark.slow
def test_what_a_compiled_rule_raises_ends_the_run():
    with pytest.raises(bt.PolicyError, match="ValueError: too loud"):
        live(Loud(4.5))


# ---------------------------------------------------------------------------- without options

ABSENT = {"fill_option", "compute_option_value", "compute_option_requirement", "settle"}
"""Functions that the loop without options never calls."""


def make_shorter() -> dict[str, Any]:
    """Return the functions of the loop in plain Python, as compiled without options, by module."""
    spaces = {module: {**vars(module), "ask": ask_plain} for module in MODULES}
    twins: dict[int, Any] = {}
    for module, space in spaces.items():
        path = Path(str(module.__file__))
        for name, own in find_own_functions(module, {"ask"}):
            is_absent = name in WITHOUT_OPTIONS
            value = WITHOUT_OPTIONS.get(name)
            twins[id(own)] = return_always(value) if is_absent else make_twin(own, space, path)
    for space in spaces.values():
        space |= {name: twins[id(value)] for name, value in space.items() if id(value) in twins}
    return {module.__name__.rsplit(".", 1)[-1]: space for module, space in spaces.items()}


SHORTER = make_shorter()


@pytest.mark.parametrize("make", [make_full_case, make_margin_case, make_spot_case])
def test_random_accounts_without_options_keep_their_bits(monkeypatch, make):
    case = make(0)
    whole = run_engine(case, is_compiled=False)
    simulate = SHORTER["loop"]["simulate_account"]
    monkeypatch.setattr(driver, "find_simulate", lambda **_: simulate)
    assert is_same(whole, run_engine(case, is_compiled=False))


def test_nothing_of_the_absent_parts_is_left_to_compile():
    waiting: list[Any] = [SHORTER["loop"]["simulate_account"]]
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        found = [function.__globals__.get(name) for name in function.__code__.co_names]
        called = [each for each in found if hasattr(each, "__code__") and id(each) not in seen]
        seen |= {id(each) for each in called}
        waiting += called
        assert function.__name__ not in ABSENT
    assert len(seen) > 300


# --------------------------------------------------------------------------- what formulas read


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

    assert [find_fields(watch, k) for k in (2, 1, 0)] == [{"equity"}, {"sigma"}, set()]
    assert "*" in find_fields(pass_on, 1)
    assert "*" in find_fields(hide, 1)
