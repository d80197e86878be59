"""A first run answers in plain Python where that is sooner, to the same bits."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.base import compile_choice, kernels
from backtest.base.compile_choice import MOST_PLAIN, is_plain_sooner, set_single
from backtest.engine import driver, plain_or_compiled
from backtest.features import kernels as feature_kernels
from backtest.strategies.constant import Constant
from backtest.strategies.vol_target import VolTarget

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def run(policy: bt.Policy, n: int = 1, **given):
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
    first = run(VolTarget(), n)
    monkeypatch.undo()
    again = run(VolTarget(), n, compile=False)
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
    run(VolTarget(), n)
    compile_choice.write_mark(marks[-1])
    with pytest.raises(AssertionError, match="compiled"):
        run(VolTarget(), n)


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
        run(Constant(), 2)
    assert "compiling the engine once on this machine" in capsys.readouterr().err


def test_a_kernel_that_raises_in_plain_python_is_undone_and_compiled(cold, monkeypatch):
    def spoil(values, out):
        out[:] = 1.0
        raise ValueError("math domain error")

    monkeypatch.setattr(feature_kernels, "peak_lanes", spoil)
    kernel = kernels.Kernel(feature_kernels, "peak_lanes")
    values, out = np.zeros(3), np.full((5, 3), 7.0)
    set_single(True)
    with pytest.raises(AssertionError, match="compiled"):
        kernel(values, out)
    assert (out == 7.0).all()


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
        run(Typo(), n)
    with pytest.raises(AssertionError, match="compiled"):
        run(Root(), n)


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
    run(Branch(), n)
    with pytest.raises(AssertionError, match="compiled"):
        run(Votes(), n)
