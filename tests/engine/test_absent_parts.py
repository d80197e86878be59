"""The loop without options gives the bits of the whole loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest.base import find_own_functions, make_twin
from backtest.engine import driver
from backtest.engine.compiler import MODULES, WITHOUT_OPTIONS, return_always
from backtest.engine.policies import ask_plain
from tests.agreement import run_engine
from tests.cases import make_full_case, make_margin_case, make_spot_case

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
@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
def test_random_accounts_keep_their_bits(monkeypatch: Any, make: Any, seed: int) -> None:
    case = make(seed)
    whole = run_engine(case, is_compiled=False)
    simulate = SHORTER["loop"]["simulate_account"]
    monkeypatch.setattr(driver, "find_simulate", lambda **_: simulate)
    shorter = run_engine(case, is_compiled=False)
    assert np.array_equal(whole.record.values, shorter.record.values, equal_nan=True)
    assert np.array_equal(whole.entries, shorter.entries, equal_nan=True)


def test_nothing_of_the_absent_parts_is_left_to_compile() -> None:
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
