"""The loop compiled, called back and without options has the bits of plain Python."""

import gc
import math
import os
import signal
import weakref
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import _compile, strategies
from backtest import account as accounts
from backtest._compile import arguments
from backtest.engine import batch, driver, make_recipe
from backtest.policies import Combinator
from backtest.strategies import Constant, VolTarget
from tests.agreement import run_engine, trust_data
from tests.cases import make_full_case, make_limit_case, make_margin_case, make_mode_case
from tests.kit import Hold, Loud, Once, check_refused, flat, make_market, make_venue, simulate_pair
from tests.scenes import account_of, play

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def is_same(one: Any, other: Any) -> bool:
    return (
        one.record.values.tobytes() == other.record.values.tobytes()
        and one.entries.tobytes() == other.entries.tobytes()
        and repr(dict(one.metrics)) == repr(dict(other.metrics))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [make_mode_case, make_full_case, make_margin_case, make_limit_case]
)
def test_compiled_runs_of_random_accounts_are_plain_runs(make, monkeypatch):
    """Tiers, ticks, calls, limits, wallets that add margin, decided settings, time stops."""
    trust_data(monkeypatch)
    for seed in range(8):
        case = make(seed)

        compiled = run_engine(case)
        assert compiled.manifest["compiled"] == "yes"
        assert is_same(run_engine(case, is_compiled=False), compiled), seed


@pytest.mark.slow
@pytest.mark.parametrize("after", ["continue", "12h", "halt", "next month"])
def test_compiled_pauses_after_equity_stops_are_plain_ones(after):
    """Of one position and of two, with a fund's expense: stops and pauses by the bit."""
    fund = make_venue(taker=1e-3).override({"contract": {"expense": 0.02}})
    account = bt.Account(capital=10_000.0, equity_stop=0.03, after_stop=after)
    pair = simulate_pair(1_000)
    terms = {"venue": fund, "account": account}
    for market in (pair["AAA"], pair):
        compiled = bt.run(market, Hold(3.0), **terms)
        plain = bt.run(market, Hold(3.0), **terms, compile=False)

        assert compiled.manifest["compiled"] == "yes"
        assert plain.metrics["stops"] >= 1.0
        assert plain.metrics["expense"] > 0.0
        assert is_same(compiled, plain)


class Tabled(bt.Policy):
    def observe(self, market):
        return {"rise": np.sign(market.close - market.open)}

    def leverage(self, bar, account):
        return {1.0: [2.0], -1.0: [0.5 + [account][0].drawdown]}.get(bar.rise, [float("nan")])[0]


class Averaged(bt.Policy):
    """Ask pandas, and leave the position alone on the first days; keep the whole view."""

    def leverage(self, bar, account):
        kept = [account]
        if kept[0].days < 3.0:
            return float("nan")

        rates = pd.Series(kept[0].venue.rates)
        mean_price = pd.Series([bar.close, 100.0]).mean()
        return float(mean_price / bar.close * (1.0 + rates.iloc[0]))


def live(policy, **more):
    account = bt.Account(capital=10_000.0)
    return bt.run(simulate_pair(400), policy, venue=make_venue(taker=1e-3), account=account, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "more"), [
    (Averaged(), {"overlay": Tabled()}),
    ({"AAA": Tabled(), "BBB": Once()}, {}),
], ids=["pandas", "beside a compiled one"])  # fmt: skip
def test_a_policy_called_back_has_the_bits_of_plain_python(policy, more):
    called = live(policy, **more)
    plain = live(policy, compile=False, **more)

    assert "test_compiled.py, line" in called.manifest["compiled"]
    pd.testing.assert_frame_equal(called.bars, plain.bars, check_exact=True)
    pd.testing.assert_frame_equal(called.trades, plain.trades, check_exact=True)


class Failing(bt.Policy):
    def leverage(self, bar, account):
        return {True: 1.0}[account.days < 5.0]


class Falling(bt.Policy):
    def leverage(self, bar, account):
        return {True: 1.0, False: -1.0}.get(account.days < 5.0, [1.0][0])


class Sinking(bt.Policy):
    """The same, compiled."""

    def leverage(self, bar, account):
        return 5.0 - account.days


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Failing, Falling, Sinking])
def test_what_is_wrong_is_placed_as_in_plain_python(kind):
    errors = []
    for is_compiled in (True, False):
        with pytest.raises(bt.PolicyError, match="at the close of bar 1") as caught:
            live(kind(), compile=is_compiled)
        errors.append(str(caught.value))

    assert errors[0] == errors[1]


class Interrupted(bt.Policy):
    def leverage(self, bar, account):
        if account.days > 5.0:
            os.kill(os.getpid(), signal.SIGINT)
        return [1.0][0]


@pytest.mark.slow
def test_ctrl_c_ends_the_run_at_once():
    with pytest.raises(KeyboardInterrupt):
        live(Interrupted())


@pytest.mark.slow
def test_what_a_compiled_rule_raises_ends_the_run():
    check_refused(lambda: live(Loud(4.5)), "ValueError: too loud", bt.PolicyError)


def test_what_is_packed_again_shares_what_stays_and_lets_go_of_what_does_not():
    """A search calls the loop with other arrays for each block: those of the last alone stay."""
    stays = np.zeros(3)
    columns = [np.full(5, value) for value in (1.0, 2.0)]
    gone = weakref.ref(columns[0])

    first = arguments.pack((stays, columns[0], 0.5))
    second = arguments.pack((stays, columns[1], 0.5), last=first)
    assert second.leaves[id(stays)] is first.leaves[id(stays)]
    assert second[:2] == arguments.pack((stays, columns[1], 0.5))[:2]

    del first, columns[0]
    gc.collect()
    assert gone() is None


def test_a_policy_sees_the_margin_rules_from_the_listing_of_its_instrument_on():
    class Cautious(bt.Policy):
        def leverage(self, bar, account):
            """Return the share of 1 that maintenance margin of 5 % leaves."""
            return 1.0 - bt.margin.maintenance(account.venue, 100.0) / 100.0

    late = make_market([flat(50.0)] * 4, start="2024-01-01 04:00")
    markets = bt.Markets({"AAA": make_market([flat(100.0)] * 8), "BBB": late}, currency="USDT")
    account = bt.Account(band=2.0)  # nothing trades, so that the listing is all that happens
    result = bt.run(markets, Cautious(), venue=make_venue(), account=account, compile=False)

    assert result.record.positions.target[4:7, 1].tolist() == pytest.approx([0.95] * 3)


def run_cold(policy: bt.Policy, n: int = 1, **terms):
    """Run a policy on one sample market, or on two of them."""
    market: Any = bt.Market.sample(bars=100)
    if n > 1:
        market = bt.Markets(dict.fromkeys("AB", market))
    return bt.run(market, policy, venue=VENUE, account=bt.Account(), **terms)


@pytest.fixture
def cold(monkeypatch):
    """Nothing is compiled, and whoever compiles is caught."""
    find = driver.find_simulate

    def refuse(*, is_compiled, **rest):
        assert not is_compiled, "compiled"
        return find(is_compiled=False, **rest)

    monkeypatch.setenv("BACKTEST_COMPILE", "auto")
    monkeypatch.setattr(batch, "is_loop_compiled", lambda **_: False)
    monkeypatch.setattr(driver, "find_simulate", refuse)


@pytest.mark.parametrize("n", [1, 2])
def test_a_first_run_compiles_nothing_and_does_not_tell(cold, monkeypatch, n):
    first = run_cold(VolTarget(), n)
    monkeypatch.undo()
    again = run_cold(VolTarget(), n, compile=False)

    assert first.manifest["compiled"] == "yes"
    assert is_same(again, first)
    assert again.tally == first.tally


def test_what_is_compiled_is_used(cold, monkeypatch):
    monkeypatch.setattr(batch, "is_loop_compiled", lambda **_: True)
    with pytest.raises(AssertionError, match="compiled"):
        run_cold(VolTarget())


def test_a_long_run_compiles_first(cold, monkeypatch):
    """100 bars of two instruments are 200."""
    monkeypatch.setattr(batch, "MOST_PLAIN", 200)
    run_cold(VolTarget(), 2)

    monkeypatch.setattr(batch, "MOST_PLAIN", 199)
    with pytest.raises(AssertionError, match="compiled"):
        run_cold(VolTarget(), 2)


@pytest.mark.parametrize("way", ["variable", "argument"])
def test_what_asks_for_it_compiles_first_and_says_so(cold, monkeypatch, capsys, way):
    choice: Any = "now"
    if way == "variable":
        monkeypatch.setenv("BACKTEST_COMPILE", "now")
        choice = True

    with pytest.raises(AssertionError, match="compiled"):
        run_cold(Constant(), 2, compile=choice)
    assert "compiling the engine once on this machine" in capsys.readouterr().err


class Typo(bt.Policy):
    def leverage(self, bar, account):
        return bar.clsoe


class Root(bt.Policy):
    def leverage(self, bar, account):
        return math.sqrt(bar.open - bar.close)


@pytest.mark.parametrize("n", [1, 2])
def test_a_mistake_is_told_at_once_and_a_root_of_a_negative_number_is_nan(cold, n):
    check_refused(lambda: run_cold(Typo(), n), "clsoe", bt.PolicyError)

    result = run_cold(Root(), n)
    market = bt.Market.sample(bars=100)
    is_negative = market.open < market.close
    targets = result.record.positions.target[:, 0]
    assert np.array_equal(np.isnan(targets), is_negative)


def test_formulas_of_shipped_policies_are_named_without_bytecode(monkeypatch):
    """One wheel serves all versions of Python."""

    def refuse(code):
        raise AssertionError(f"bytecode of {code.co_name}")

    monkeypatch.setattr(_compile.bytecode, "describe_bytecode", refuse)
    for name in strategies.__all__:
        kind = getattr(strategies, name)
        if not issubclass(kind, Combinator):
            assert make_recipe(kind(), (), lambda *_: [], "test").is_complete, name

    with pytest.raises(AssertionError, match="bytecode of leverage"):
        make_recipe(Root(), (), lambda *_: [], "test")


def test_a_log_that_fills_up_is_enlarged_with_the_same_events(monkeypatch):
    """Room for one event, and 20 of them."""
    prices = [100.0 + k % 3 for k in range(20)]
    targets = [1.0 + k % 2 for k in range(20)]
    events = play(*prices, targets=targets).entries
    assert len(events) >= 10

    monkeypatch.setattr(driver, "LOGGED", -79)
    assert play(*prices, targets=targets).entries.tolist() == events.tolist()


@pytest.fixture
def give(monkeypatch):
    """Let an amount appear from nowhere in a bar."""

    def give(at: int, amount: float) -> None:
        for name in ("process_bar", "take_together"):
            live = getattr(accounts, name)

            def live_with_gift(bar, t, *rest, live=live):
                how = live(bar, t, *rest)
                if how != accounts.LEFT:
                    bar.state.wallet.equity += amount * (t == at)
                return how

            monkeypatch.setattr(accounts, name, live_with_gift)

    return give


def test_a_run_stops_at_the_bar_whose_terms_miss_a_change_of_equity(give):
    """5,000 in each of two: prices rise by 10 % and 5 %, and 2 appear from nowhere."""
    give(1, 2.0)
    first = flat(100.0)
    markets = bt.Markets(
        {
            "A": make_market([first, (100.0, 110.0, 100.0, 110.0)]),
            "B": make_market([first, (100.0, 105.0, 100.0, 105.0)]),
        }
    )
    account = bt.Account(capital=10_000.0)

    with pytest.raises(bt.AccountingError) as raised:
        bt.run(markets, Hold(), venue=make_venue(), account=account, compile=False)

    assert str(raised.value).startswith(
        "equity changed by 752.0 in bar 1, 2024-01-01 01:00 UTC, its terms add up to 750.0, "
        "a difference of 2.0; ledger [["
    )


@pytest.mark.parametrize(("wrong", "is_found"), [(1e-6, True), (1e-11, False)])
def test_a_wrong_term_of_a_millionth_is_found_in_a_flat_bar(wrong, is_found, give):
    """4 turns were traded before; 1e-11 of the capital is rounding."""
    give(5, wrong * 10_000.0)
    account = account_of(capital=10_000.0, margin_call=0.9)
    run = partial(play, *[100.0] * 8, targets=(2.0, 0.0), account=account)

    if is_found:
        check_refused(run, "its terms add up to 0.0", bt.AccountingError)
    else:
        assert run().bars["equity"].iloc[-1] == pytest.approx(10_000.0)


def test_an_account_at_zero_equity_with_a_debt_and_collateral_goes_on():
    """0.26 are owed where the coins fall to 0.11: the rest is bad debt, and pays interest."""
    coins = make_market([flat(1.0)] * 4 + [flat(0.1)] * 4)
    falling = make_market([flat(100.0)] * 2 + [flat(40.0)] * 6)
    markets = bt.Markets({"A": falling, "B": make_market([flat(100.0)] * 8)})
    venue = make_venue(maintenance_rate=0.01).override(
        {"interest_on": "balance", "borrow_rate": 0.137}
    )
    account = bt.Account(
        capital=1.0,
        negative_limit=1e6,
        collateral=[bt.Collateral("C", 1.1, prices=coins, rate=0.9)],
    )
    signal = pd.DataFrame({"A": [1.0, 1.0, *[0.0] * 6], "B": 0.0}, index=falling.times)

    result = bt.run(
        markets, Once(level=1.0), signal=signal, venue=venue, account=account, compile=False
    )

    assert result.bars["equity"].iloc[4:].to_numpy() == pytest.approx(0.0, abs=1e-15)
    assert result.bars["balance"].iloc[-1] == pytest.approx(-0.11)
    assert result.metrics["ruined"] == 1.0


@pytest.mark.parametrize(
    "seeds", [range(2), pytest.param(range(500, 750), marks=pytest.mark.slow)], ids=str
)
def test_drawn_accounts_end_with_balanced_books(seeds, monkeypatch):
    """Several instruments, collateral, flows and ruin; the oracle lives the seeds up to 500."""
    trust_data(monkeypatch)
    for seed in seeds:
        run_engine(make_full_case(seed))
