"""A first run answers in plain Python where that is sooner; books that do not balance stop it."""

import math

import pytest

import backtest as bt
from backtest.account.records import EQUITY
from backtest.base import compile_choice, kernels
from backtest.base.compile_choice import MOST_PLAIN, is_plain_sooner, set_single
from backtest.engine import driver, loop, plain_or_compiled
from backtest.strategies.constant import Constant
from backtest.strategies.vol_target import VolTarget
from tests.kit import Hold, flat, make_market, make_venue
from tests.scenes import play

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def run_cold(policy: bt.Policy, n: int = 1, **given):
    market = bt.Market.sample(bars=100)
    markets = bt.Markets(dict.fromkeys("AB", market)) if n > 1 else market
    return bt.run(markets, policy, venue=VENUE, account=bt.Account(), **given)


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """Nothing is compiled, and whoever compiles is caught; return the folder of marks."""
    find = driver.find_simulate

    def refuse(*_):
        raise AssertionError("compiled")

    def refuse_general(*, is_compiled, **rest):
        assert not is_compiled, "compiled"
        return find(is_compiled=False, **rest)

    monkeypatch.setenv("BACKTEST_COMPILE", "auto")
    monkeypatch.setattr(compile_choice, "find_lasting_folder", lambda: tmp_path)
    monkeypatch.setattr(plain_or_compiled, "find_rules_folder", lambda: tmp_path)
    monkeypatch.setattr(kernels, "write_copy", lambda module: tmp_path / module.__name__)
    kernels.compile_module.cache_clear()  # kernels of other tests are compiled already
    monkeypatch.setattr(kernels.Kernel, "compiled", property(refuse))
    monkeypatch.setattr(driver, "find_simulate", refuse_general)
    yield tmp_path
    kernels.compile_module.cache_clear()
    set_single(False)


@pytest.mark.parametrize("n", [1, 2])
def test_a_first_run_compiles_nothing_and_does_not_tell(cold, monkeypatch, n):
    first = run_cold(VolTarget(), n)
    monkeypatch.undo()
    again = run_cold(VolTarget(), n, compile=False)
    assert first.manifest["compiled"] == "yes"
    assert again.record.values.tobytes() == first.record.values.tobytes()
    assert again.entries.tobytes() == first.entries.tobytes()
    assert again.tally == first.tally


@pytest.mark.parametrize("n", [1, 2])
def test_what_is_compiled_is_used(cold, monkeypatch, n):
    marks = []
    find = plain_or_compiled.find_mark
    monkeypatch.setattr(
        "backtest.engine.batch.find_mark",
        lambda *given: marks.append(find(*given)) or marks[-1],
    )
    run_cold(VolTarget(), n)
    compile_choice.write_mark(marks[-1])
    with pytest.raises(AssertionError, match="compiled"):
        run_cold(VolTarget(), n)


def test_what_takes_long_or_has_taken_long_compiles_first(cold):
    set_single(True)
    mark = cold / "none.ready"
    assert not is_plain_sooner(mark, 1.01 * MOST_PLAIN)
    answers = [is_plain_sooner(mark, 0.3 * MOST_PLAIN) for _ in range(5)]
    assert answers == [True, True, True, False, False]


def test_sweeps_and_checks_compile_first(cold, monkeypatch):
    mark = cold / "none.ready"
    set_single(False)
    assert not is_plain_sooner(mark, 1.0)
    set_single(True)
    with compile_choice.compiling_first():
        assert not is_plain_sooner(mark, 1.0)
    assert is_plain_sooner(mark, 1.0)
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    set_single(True)
    assert not is_plain_sooner(mark, 1.0)


def test_a_general_loop_that_compiles_says_so(cold, monkeypatch, capsys):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    with pytest.raises(AssertionError, match="compiled"):
        run_cold(Constant(), 2)
    assert "compiling the engine once on this machine" in capsys.readouterr().err


class Typo(bt.Policy):
    def leverage(self, bar, account):
        return bar.clsoe


class Root(bt.Policy):
    def leverage(self, bar, account):
        return math.sqrt(bar.open - bar.close)


@pytest.mark.parametrize("n", [1, 2])
def test_a_mistake_is_told_at_once_and_a_root_is_compiled(cold, n):
    """The root of a negative number is NaN when compiled."""
    with pytest.raises(bt.PolicyError, match="clsoe"):
        run_cold(Typo(), n)
    with pytest.raises(AssertionError, match="compiled"):
        run_cold(Root(), n)


def is_over(one: float, other: float) -> bool:
    return one > other


class Votes(bt.Policy):
    """Adds comparisons: 2 compiled, 1 with the scalars of NumPy."""

    def leverage(self, bar, account):
        return 1.0 * (is_over(bar.close, 0.0) + is_over(bar.high, 0.0))


class Branch(bt.Policy):
    def leverage(self, bar, account):
        return 1.0 if bar.close > bar.open and not bar.high > bar.open else 0.5


@pytest.mark.parametrize("n", [1, 2])
def test_a_policy_that_adds_comparisons_is_compiled(cold, n):
    """The first run would take 1, and later ones 2."""
    run_cold(Branch(), n)
    with pytest.raises(AssertionError, match="compiled"):
        run_cold(Votes(), n)


# ------------------------------------------------------------------------------------------- books


def test_a_log_that_fills_up_is_enlarged_with_the_same_events(monkeypatch):
    """Room for one event, and 20 of them."""
    prices, targets = [100.0 + k % 3 for k in range(20)], [1.0 + k % 2 for k in range(20)]
    events = play(*prices, targets=targets).entries
    monkeypatch.setattr(driver, "LOGGED", -79)
    assert len(events) >= 10
    assert play(*prices, targets=targets).entries.tolist() == events.tolist()


def test_a_run_stops_at_the_bar_whose_terms_miss_a_change_of_equity(monkeypatch):
    """5,000 in each of two: prices rise by 10 % and 5 %, and 2 appear from nowhere."""
    live = loop.live_bar

    def live_with_gift(bar, t):
        live(bar, t)
        if t == 1:
            bar.state.wallet[EQUITY] += 2.0

    monkeypatch.setattr(loop, "live_bar", live_with_gift)
    up = {"A": (100.0, 110.0, 100.0, 110.0), "B": (100.0, 105.0, 100.0, 105.0)}
    markets = bt.Markets({name: make_market([flat(100.0), last]) for name, last in up.items()})
    with pytest.raises(bt.AccountingError) as raised:
        bt.run(
            markets, Hold(), venue=make_venue(), account=bt.Account(capital=10_000.0), compile=False
        )
    assert str(raised.value).startswith(
        "equity changed by 752.0 in bar 1, 2024-01-01 01:00 UTC, its terms add up to 750.0, "
        "a difference of 2.0; ledger [["
    )
