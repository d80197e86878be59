"""Inputs are shared by accounts in several threads: none of them writes into what others read."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import engine
from backtest._compile.compiler import read_kinds
from backtest.engine import batch, driver, run_setup
from backtest.strategies import Constant
from tests.agreement import run_engine, trust_data
from tests.cases import make_full_case, make_margin_case
from tests.kit import flat, make_market, make_venue
from tests.oracle.test_engine import KINDS

BARS = 300


def list_arrays(record: Any, place: str = "inputs") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a named tuple, of those in it and of lists, with where they stand."""
    if isinstance(record, np.ndarray):
        yield place, record
    elif hasattr(record, "_fields"):
        for name in record._fields:
            yield from list_arrays(getattr(record, name), f"{place}.{name}")
    elif isinstance(record, list | tuple):
        for k, value in enumerate(record):
            yield from list_arrays(value, f"{place}[{k}]")


def keep_bytes(inputs: Any) -> dict[str, bytes]:
    """Return what the arrays of inputs hold, and in words the rules of plain Python."""
    kept = {place: array.tobytes() for place, array in list_arrays(inputs)}
    return kept | {"instruments": repr(inputs.terms.instruments).encode()}


def list_changed(before: dict[str, bytes], inputs: Any) -> list[str]:
    """Return the places of inputs whose bytes are others than before."""
    after = keep_bytes(inputs)
    assert [*after] == [*before]
    return [place for place in before if after[place] != before[place]]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_an_account_leaves_its_inputs_as_they_were(make, monkeypatch):
    """Of each kind three accounts: brackets by date, costs by date, settings that are decided."""
    trust_data(monkeypatch)
    begin = batch.begin
    kept: list[dict[str, bytes]] = []

    def keep(setup: Any) -> Any:
        kept.append(keep_bytes(setup.inputs))
        return begin(setup)

    monkeypatch.setattr(batch, "begin", keep)
    for seed in range(3):
        kept.clear()
        result = run_engine(make(seed), is_compiled=False)
        assert list_changed(kept[0], result.setup.inputs) == [], seed


@pytest.mark.parametrize("make", [make_full_case, make_margin_case], ids=lambda make: make.__name__)
def test_copied_terms_share_no_memory(make):
    for seed in range(20):
        inputs = run_engine(make(seed), is_compiled=False).setup.inputs
        copied = driver.copy_terms(inputs)

        shared = dict(list_arrays(inputs.terms))
        for place, array in list_arrays(copied.terms):
            assert array.dtype == shared[place].dtype
            assert array.tobytes() == shared[place].tobytes()
            assert not np.shares_memory(array, shared[place]), place


class Settings(bt.Policy):
    """Ask for another venue leverage at each close."""

    def leverage(self, bar, account):
        return 1.0

    def venue_leverage(self, bar, account):
        return 5.0 + bar.close % 7.0


@pytest.fixture
def setup() -> engine.Setup:
    """An account whose costs and venue leverage are others in each bar."""
    closes = 100.0 + np.arange(BARS) % 11
    market = make_market([flat(close) for close in closes])
    market = market.with_columns(dear=1e-4 * (1.0 + np.arange(BARS) % 7))
    venue = make_venue().override({"fees.taker": "dear", "fees.maker": "dear"})
    account = bt.Account(margin="isolated", venue_leverage=10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return engine.set_up(bt.Backtest(market, venue=venue, account=account), Settings())


@pytest.mark.compiled
def test_a_measured_account_leaves_its_inputs_as_they_were(setup):
    before = keep_bytes(setup.inputs)
    inputs, state, deciders, tally = batch.begin(setup)
    deciders = engine.bind_compiled(deciders, engine.list_policies(setup.observed))
    engine.measure_account(
        inputs, state, deciders, tally, setup.first, has_units=False, progress=None
    )

    assert tally.money.traded > 0.0
    assert state.positions[0].setting != 10.0
    assert list_changed(before, setup.inputs) == []


def test_a_test_keeps_the_inputs_of_its_last_run_until_its_signal_changes():
    """The array of a signal stays the user's own, who may write into it between two runs."""
    market = make_market([flat(100.0 + k % 11) for k in range(BARS)])
    signal = np.ones(BARS)
    fields = {"venue": make_venue(), "account": bt.Account()}
    test = bt.Backtest(market, signal=signal, **fields)

    first = test.run(Constant(1.0))
    again = test.run(Constant(2.0))
    signal[BARS // 2 :] = -1.0
    changed = test.run(Constant(2.0))

    assert again.setup.inputs is first.setup.inputs
    assert changed.setup.inputs is not first.setup.inputs
    fresh = bt.Backtest(market, signal=signal.copy(), **fields).run(Constant(2.0))
    assert changed.record.values.tobytes() == fresh.record.values.tobytes()
    assert again.record.values.tobytes() != fresh.record.values.tobytes()


def test_nobody_writes_into_inputs_that_runs_share(setup):
    shared = setup.inputs
    arrays = list_arrays((shared.feed._replace(options=None), shared.clock, shared.log_returns))
    for place, array in arrays:
        assert not array.flags.writeable, place


@pytest.mark.parametrize("most", [0, BARS], ids=["inputs read again", "inputs kept"])
def test_what_is_written_into_a_table_of_bars_changes_no_other_number(monkeypatch, most):
    """The bars of a result are a table of the user's; record and market stay as they are."""
    monkeypatch.setattr(run_setup, "MOST_KEPT", most)
    market = make_market([flat(100.0 + k % 11) for k in range(BARS)])
    test = bt.Backtest(market, venue=make_venue(), account=bt.Account())

    result = test.run(Constant(2.0))
    record = result.record.values.tobytes()
    bars = result.bars
    for name in ("equity", "close"):
        bars.loc[bars.index[5:], name] = 7.0

    assert result.record.values.tobytes() == record
    again = test.run(Constant(2.0))
    assert again.record.values.tobytes() == record
    np.testing.assert_array_equal(again.bars["close"], [100.0 + k % 11 for k in range(BARS)])


def test_an_account_on_paths_leaves_its_inputs_as_they_were(setup):
    before = keep_bytes(setup.inputs)
    loop = engine.BatchLoop(setup, is_compiled=False)
    lives = [lives.copy() for _, lives in loop.simulate_from(np.array([5, 50, 120]), 40)]

    assert len(lives) == 3
    assert lives[0].any()
    assert list_changed(before, setup.inputs) == []


def test_one_object_serves_arrays_that_are_read_only_and_others():
    """Compiled code is typed by its arguments; a sealed array has the type of any other."""
    array = np.zeros(3)
    kinds = read_kinds(((array, 1.0), array))
    array.flags.writeable = False
    assert read_kinds(((array, 1.0), array)) == kinds
    assert kinds[1].mutable


def test_a_flow_at_the_first_time_of_a_run_is_paid_and_one_before_it_is_refused():
    market = bt.Market.sample(bars=24)
    first = market.times[0]

    def pay(time: pd.Timestamp) -> bt.Result:
        flows = pd.Series([500.0], index=pd.DatetimeIndex([time]))
        account = bt.Account(capital=1_000.0, flows=flows)
        return bt.run(market, Constant(0.0), venue=make_venue(), account=account, compile=False)

    assert pay(first).bars["equity"].iloc[0] == 1_500.0
    with pytest.raises(bt.ParameterError, match="flows must not lie before the first bar"):
        pay(first - pd.Timedelta("1ns"))
