"""Arguments of public functions against their annotations."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import backtest as bt
from backtest import ParameterError, indicators, strategies
from backtest.core.checked_calls import CHECKED, checked, name_call
from backtest.strategies import Constant
from tests.kit import AT_BINANCE, check_refused


def test_the_annotations_of_every_checked_function_can_be_read():
    for module in pkgutil.walk_packages(bt.__path__, "backtest."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    ours = {name: read for name, read in CHECKED.items() if name.startswith("backtest.")}
    assert "backtest.risk.stress.stress" in ours
    for read in ours.values():
        read()  # a bad one raises, with its function and argument


@pytest.mark.parametrize("annotation", ["'None' | float", "float |", "1 + 'a'", "list[float][0]"])
def test_a_bad_annotation_is_named(annotation):
    def hold(days, size): ...

    hold.__annotations__ = {"days": "int", "size": annotation}

    with pytest.raises(TypeError, match=r"hold: the annotation of size is none: "):
        checked(hold)(3, 1.0)


BACKTEST = bt.Backtest(bt.Market.sample(), **AT_BINANCE)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: bt.stress(3), "bt.stress: result must be"),
    (lambda: bt.Market.sample(seed="x"), "bt.Market.sample: seed must be a whole number"),
    (lambda: BACKTEST.sweep(Constant, [], progress=3), "bt.Backtest.sweep: progress must be"),
    (lambda: BACKTEST.tune(Constant, progress=3), "bt.Backtest.tune: progress must be"),
    (lambda: BACKTEST.capacity(Constant(), progress=3), "bt.Backtest.capacity: progress must be"),
    (lambda: bt.signals.from_series(bt.Market.sample(), 4, carry=3), "bt.signals.from_series: ca"),
    (lambda: bt.indicators.ewma_volatility("x", half_life=3), "bt.indicators.ewma_volatility: "),
])  # fmt: skip
def test_an_error_names_a_function_as_users_call_it(call, said):
    check_refused(call, said, ParameterError)


def test_a_function_of_no_public_place_has_its_own_name():
    def hold(size: float) -> None: ...

    check_refused(lambda: checked(hold)("x"), "hold: size must be a number", ParameterError)

    assert name_call(np.mean) == "mean"
    assert strategies is bt.strategies
    assert indicators is bt.indicators
