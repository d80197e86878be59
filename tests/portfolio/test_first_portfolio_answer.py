"""A first run of several positions answers in plain Python, to the same bits."""

import math
import pickle

import numpy as np
import pytest

import backtest as bt
from backtest.base import compile_choice
from backtest.base.argument_types import outline_argument, rebuild_argument
from backtest.base.compile_choice import set_hurry
from backtest.engine import portfolio_driver
from backtest.engine.compile import background_compiler, plain_or_compiled
from backtest.engine.compile.background_compiler import pack_order
from backtest.strategies.constant import Constant

NAMES = ("ONE", "TWO")


def run(policy: bt.Policy | None = None, **given):
    markets = bt.Markets({name: bt.Market.sample(bars=60, seed=k) for k, name in enumerate(NAMES)})
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    chosen = Constant(leverage=1.5) if policy is None else policy
    return bt.run(markets, chosen, venue=venue, account=bt.Account(), **given)


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """Nothing is compiled, and whoever compiles is caught; return what the background is given."""
    given = []
    find = portfolio_driver.find_simulate

    def refuse(*, is_compiled, **rest):
        assert not is_compiled, "compiled"
        return find(is_compiled=False, **rest)

    monkeypatch.setenv("BACKTEST_COMPILE", "auto")
    monkeypatch.setattr(compile_choice, "_spent", {})
    monkeypatch.setattr(plain_or_compiled, "find_rules_folder", lambda: tmp_path)
    monkeypatch.setattr(portfolio_driver, "find_simulate", refuse)
    monkeypatch.setattr(background_compiler, "start_compiling", lambda *order: given.append(order))
    yield given
    compile_choice.pop_kernels()
    set_hurry(False)


def test_a_first_run_compiles_nothing_before_it_answers(cold):
    result = run()
    ((_, order),) = cold
    plain = run(compile=False)
    assert result.record.values.tobytes() == plain.record.values.tobytes()
    assert result.entries.tobytes() == plain.entries.tobytes()
    assert result.manifest["compiled"] == "yes"  # the answer does not tell which way it came
    assert not order.marks[0].exists()


def test_what_is_compiled_is_used(cold):
    run()
    ((_, order),) = cold
    plain_or_compiled.mark_ready(order)
    with pytest.raises(AssertionError, match="compiled"):
        run()


def test_a_run_compiles_first_where_that_is_wanted(cold, monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    with pytest.raises(AssertionError, match="compiled"):
        run()


def test_a_long_market_and_many_short_runs_compile_first(cold):
    run()
    ((_, order),) = cold
    policies = [(Constant(), ())] * 2
    seconds = [plain_or_compiled.estimate_plain_general(2, n) for n in (1_000, 1_000_000, 40_000)]
    answers = [
        plain_or_compiled.is_loop_plain(order, policies, each)
        for each in (*seconds, seconds[2], seconds[2])
    ]
    assert answers == [True, False, True, True, False]  # 0.5 s, 500 s, then 20 s each time


class Rooted(bt.Policy):
    """Takes the root of a negative number: an error in Python, NaN in compiled code."""

    def leverage(self, bar, account):
        return math.sqrt(-bar.close)


def test_a_policy_that_raises_in_plain_python_is_compiled(cold):
    with pytest.raises(AssertionError, match="compiled"):
        run(Rooted())


def test_an_order_is_pickled_with_the_types_of_its_arguments(cold):
    run()
    ((kernels, order),) = cold
    packed = pickle.loads(pickle.dumps(pack_order(kernels, order)))
    assert packed.loop == order
    rebuilt = tuple(map(rebuild_argument, packed.loop.arguments))
    assert tuple(map(outline_argument, rebuilt)) == order.arguments


def test_the_background_compiles_what_the_next_run_calls(cold):
    """The types of the order are those of the call: nothing compiles after it."""
    from numba.core.typing.typeof import Purpose, typeof  # noqa: PLC0415

    run()
    ((_, order),) = cold
    seen = []

    def note(*arguments):
        seen.append(arguments)
        raise RuntimeError("seen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portfolio_driver, "find_simulate", lambda **_: note)
        patch.setenv("BACKTEST_COMPILE", "now")
        with pytest.raises(RuntimeError, match="seen"):
            run()
    expected = [typeof(each, Purpose.argument) for each in seen[0]]
    found = [typeof(rebuild_argument(each), Purpose.argument) for each in order.arguments]
    assert found == expected
    assert np.ndim(seen[0][3]) == 2
