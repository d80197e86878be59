"""Runs of all kinds equal what they were when ``data/before.json`` was written."""

import pytest

import backtest as bt
from backtest._compile.cache_folders import BUILT
from backtest._compile.object_code import COMPILED
from backtest.strategies import Constant
from tests import before
from tests.before import WAS

RUNS = before.list_runs()
OF_OPTIONS = {"fill_prices", "fill_greeks", "fill_volatilities"}
"""Kernels that only chains of options call."""
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name.endswith(".toml")]


def test_every_run_is_kept_and_every_kept_run_is_run():
    assert {*WAS} == {*RUNS}


@pytest.mark.parametrize("kind", before.MAKERS)
def test_every_measure_is_kept(kind):
    """The first run of a kind speaks for the rest, whose numbers are compared."""
    name = f"{kind} 0"
    measures = before.run_quietly(RUNS[name]).metrics
    moved = before.find_moved_names(WAS[name]["metrics"], measures)
    assert not moved, moved


def test_measures_are_compared_where_both_sides_know_them():
    was = {"fees": 1.0, "gone": 2.0}
    now = {"fees": 1.0, "new": 3.0}
    assert [*before.compare_measures(was, now, before.TOLERANCE)] == []

    moved = {**now, "fees": 1.1}
    texts = [*before.compare_measures(was, moved, before.TOLERANCE)]
    assert texts == ["fees: 1.0 before, 1.1 now"]


def test_a_new_measure_is_named_with_the_command_that_adds_it():
    """And the command adds it alone: what is known keeps its number, whatever it is now."""
    assert before.find_moved_names({"sharpe", "gone"}, {"sharpe", "new"}) == (
        "tests/data/before.json lacks new and still has gone; "
        "renew its measures by: python -m tests.before --measures"
    )

    was = {"metrics": {"sharpe": 1.0, "gone": 2.0}, "events": [[0.0, "fill"]]}
    now = {"metrics": {"sharpe": 9.0, "new": 3.0}, "events": []}
    renewed = {"metrics": {"sharpe": 1.0, "new": 3.0}, "events": [[0.0, "fill"]]}
    assert before.renew_measures(was, now) == renewed


def test_the_file_is_written_as_it_stands(tmp_path):
    file = tmp_path / "before.json"
    before.write(WAS, file)

    assert file.read_text("utf-8") == before.FILE.read_text("utf-8")


@pytest.mark.parametrize("name", [*[name for name in RUNS if not name.endswith(".toml")], *SLOW])
def test_a_run_equals_that_of_before(name):
    tolerance = before.FITTED.get(name, before.TOLERANCE)
    result = before.run_quietly(RUNS[name])

    assert [*before.differences(WAS[name], result, tolerance)] == []


@pytest.mark.slow
def test_no_run_without_options_compiles_what_the_core_has():
    """``make test`` builds the core into the package; policies of tests compile their formulas."""
    if not any(BUILT.glob("*/simulate_batch-*.o")):
        pytest.skip("backtest compile has not built the core of this checkout")

    COMPILED.clear()
    for make in RUNS.values():
        before.run_quietly(make)

    names = {name.partition("-")[0] for name in COMPILED}
    assert {name for name in names if "option" not in name and "policy" not in name} <= OF_OPTIONS


def test_a_fee_that_is_off_by_a_ten_millionth_is_seen():
    """5e-4 + 1e-7 of a turnover of three equities is 3e-7 of the equity: 300 times what may be."""
    was = run_with_a_fee(5e-4)
    described = before.describe(was)
    assert [*before.differences(described, was)] == []

    texts = [*before.differences(described, run_with_a_fee(5e-4 + 1e-7))]
    assert any(text.startswith("fees: ") for text in texts)
    assert any(text.startswith("event ") for text in texts)


def run_with_a_fee(taker: float) -> bt.Result:
    venue = bt.Venue.simple(
        taker=taker, slippage=0.0, maintenance_rate=0.005, max_leverage=50.0, liquidation_fee=0.01
    )
    market = bt.Market.sample(bars=24)
    account = bt.Account(capital=10_000.0)
    return bt.run(market, Constant(leverage=3.0), venue=venue, account=account, compile=False)
