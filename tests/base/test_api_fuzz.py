"""No public name raises anything but a BacktestError, whatever it is given, or takes for ever.

The calls are those of :mod:`tests.api_fuzzing`.
"""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.json_values import repr_plain
from tests import api_fuzzing
from tests.api_values import Mute, build_objects

FAST, CHUNK = 200, 250


def test_two_hundred_calls_end_well():
    faults = api_fuzzing.fuzz(range(FAST))
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, api_fuzzing.COUNT, CHUNK))
def test_every_call_ends_well(first):
    faults = api_fuzzing.fuzz(range(first, first + CHUNK))
    assert not faults, "\n".join(faults)


def test_every_public_callable_is_drawn_from_and_the_same_call_every_time():
    drawn = {api_fuzzing.make(k).name for k in range(0, api_fuzzing.COUNT, 2)}
    assert len(drawn) > 0.95 * len(api_fuzzing.list_callables())
    assert api_fuzzing.make(7).name == api_fuzzing.make(7).name


@pytest.mark.parametrize("call", [
    lambda: bt.Crowd(10**400, 1.0, 1.0, 1.0),
    lambda: bt.Stress.load("a" * 100_000),
    lambda: bt.Stress.load("\0"),
    lambda: bt.Market.load(3),
    lambda: bt.Range("0", 1),
    lambda: bt.measures.fit_market([0.1] * 5, [0.1] * 4, 365.0),
    lambda: bt.measures.expected_max_sharpe(1e308, 1.0),
    lambda: bt.margin_rules.by_calendar(build_objects()["market"], spans=[None]),
    lambda: bt.Contract(expires=Mute()),
    lambda: bt.margin.requirement(build_objects()["venue"], 1.0, 1.0, {None: Mute()}),
    lambda: bt.signals.from_function(3, len),
    lambda: bt.paths.block_length([0.01] * 10),
    lambda: build_objects()["sweep"].detail([(1, 2), (3,)]),
    lambda: build_objects()["sweep"].detail([True]),
    lambda: build_objects()["result"].of_account("wealth"),
    lambda: build_objects()["result"].of_positions({}),
])  # fmt: skip
def test_what_cannot_be_an_argument_is_one_error_with_a_cure(call):
    """Before: TypeError, OverflowError, OSError, ValueError, AttributeError."""
    with pytest.raises((bt.ParameterError, bt.DataError)) as caught:
        call()
    assert caught.value.where
    assert caught.value.cure
    assert len(caught.value.problem) < 500


def test_measures_of_nothing_are_unknown():
    """Before: ValueError and IndexError."""
    assert np.isnan(bt.measures.max_drawdown([]))
    assert bt.measures.find_bulls([]).tolist() == []


def test_a_value_that_cannot_write_itself_is_named():
    assert "Mute" in repr_plain([Mute()])
    assert repr_plain(10**5_000) == "an int of 16,610 bits"
    assert repr_plain(pd.DataFrame({"a": [1, 2]})) == "a DataFrame of shape (2, 1)"
    assert len(repr_plain("a" * 100_000)) < 250
