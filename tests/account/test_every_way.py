"""An account has the same bits in plain Python, compiled, called back and in parts.

Its row in a block of lanes is that of the run, to rounding.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import formulas
from backtest.sweep.lanes import runner
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import VariedTest
from tests.account.test_compiled import is_same
from tests.account.test_resumed import find_stop
from tests.agreement import choose_policy, place_of, run_engine, trust_data
from tests.cases import OBSERVED, PortfolioCase
from tests.option_cases import OptionCase
from tests.oracle.test_engine import KINDS
from tests.sweep.sweeps import are_equal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
SEEDS = 46
"""Of each of eleven kinds: 506 accounts."""


def call_back(case: PortfolioCase, **how: Any) -> Any:
    """Run a case whose formulas numba refuses."""

    def refuse(*_: object) -> None:
        raise TypeError("refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formulas, "compile_formula", refuse)
        return run_engine(case, **how)


def take_lanes(case: PortfolioCase) -> Evaluator | None:
    """Return what evaluates the case in lanes; None where its instruments have other policies."""
    policies = {type(choose_policy(case, tape)) for tape in case.tapes.values()}
    if len(policies) > 1 or case.overlay is not None:
        return None
    (kind,) = policies
    return Evaluator(VariedTest(bt.Backtest(**case.for_engine(bt)), kind), threads=1)


def check_lanes(case: PortfolioCase, whole: Any, label: str) -> int:
    """Compare the rows of four like accounts with a run, return how many were in a block."""
    capital = case.account["capital"]
    with warnings.catch_warnings(), case.feeding(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(runner, "LEAST_BAR_SETS", 0)
        evaluator = take_lanes(case)
        if evaluator is None:
            return 0
        rows = evaluator.evaluate({"account.capital": np.full(4, capital)})
    assert rows.errors == [""] * 4, label
    scale = max(capital, whole.metrics["turnover"])
    for name, column in rows.metrics.items():
        for value in column.tolist():
            assert are_equal(name, value, whole.metrics[name], scale), f"{label}: {name}"
    return evaluator.taken.in_blocks


def is_known_before(case: PortfolioCase, stop: int) -> bool:
    """Return whether each column that has a value has one before a bar of the clock.

    A column without any in the first part is one that never has a value there (§4).
    """
    for name, tape in case.tapes.items():
        for column in OBSERVED:
            known = tape.bars.get(column, pd.Series(dtype=float)).notna().to_numpy()
            if known.any() and place_of(case, name).start + int(known.argmax()) >= stop:
                return False
    return True


def check_account(case: PortfolioCase, label: str) -> int:
    """Run an account in each way, return how many of its lanes were in a block."""
    plain = run_engine(case, is_compiled=False)
    compiled, called = run_engine(case), call_back(case)
    assert compiled.manifest["compiled"] == "yes", label
    assert "refused" in called.manifest["compiled"], label
    assert is_same(plain, compiled), f"{label}: compiled"
    assert is_same(plain, called), f"{label}: called back"

    # In two parts, the second of which is called back after one that was compiled. Listed options
    # of a case are those of its whole market.
    stop = find_stop(case)
    if isinstance(case, OptionCase) or not is_known_before(case, stop):
        return 0
    head = run_engine(case, stop=stop)
    for tail in (run_engine(case, resume=head), call_back(case, resume=head)):
        both = np.concatenate([head.record.values, tail.record.values])
        assert both.tobytes() == plain.record.values.tobytes(), f"{label}: resumed"
        entries = np.concatenate([head.entries, tail.entries])
        assert entries.tobytes() == plain.entries.tobytes(), f"{label}: resumed"
        assert tail.memory.tobytes() == plain.memory.tobytes(), f"{label}: resumed"
    return check_lanes(case, plain, f"{label}: lanes")


@pytest.mark.compiled
@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, SEEDS), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_an_account_is_the_same_whatever_runs_it(make, seeds, monkeypatch):
    trust_data(monkeypatch)
    for seed in seeds:
        check_account(make(seed), f"{make.__name__}({seed})")
