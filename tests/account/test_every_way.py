"""An account has the same bits in plain Python, compiled, called back and in parts.

Its row in a block of lanes is that of the run, to rounding, without the terms that no block takes.
"""

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import formulas
from backtest.sweep import Evaluator, VariedTest
from backtest.sweep.lanes import runner
from tests.account.test_compiled import is_same
from tests.account.test_resumed import find_stop
from tests.agreement import choose_policy, place_of, run_engine, trust_data
from tests.cases import OBSERVED, PortfolioCase
from tests.kit import slow
from tests.option_cases import OptionCase, make_option_case
from tests.oracle.test_engine import KINDS
from tests.sweep.sweeps import are_equal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
MAKES = [*(make for make in KINDS if make is not make_option_case), *slow([make_option_case])]
"""The kinds of accounts: a loop that may hold options compiles for over a minute."""
SEEDS = 46
"""Of each of eleven kinds: 506 accounts."""
LEAST_RESUMED = 0.9
"""The share of accounts of a kind that go on after a part; the columns of others begin later."""


def call_back(case: PortfolioCase, **how: Any) -> Any:
    """Run a case whose formulas numba refuses."""

    def refuse(*_: object) -> None:
        raise TypeError("refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formulas, "compile_formula", refuse)
        return run_engine(case, **how)


OF_RUNS = ("equity_stop", "auto_margin", "max_holding", "offset", "closing")
"""Terms of an account that no block takes."""


def fit_lanes(case: PortfolioCase) -> PortfolioCase:
    """Return the account of a case without the terms that no block of lanes takes.

    Lanes have no overlay, decided settings, calls, requirements of their own, collateral or dated
    costs, fill at the next open, and are all isolated or none.
    """
    calm = {"margin_call": None, "reserve": 0.0, "top_up_to": None, "negative_limit": None}
    account = {name: value for name, value in case.account.items() if name not in OF_RUNS}
    account |= calm | {"fill": "next_open"}

    has_settings = all(setting is not None for setting in account["venue_leverage"].values())
    is_isolated = has_settings and "isolated" in account["margin"].values()
    account["margin"] = dict.fromkeys(case.tapes, "isolated" if is_isolated else "cross")

    tapes = dict(case.tapes)
    for name, tape in case.tapes.items():
        if "setting" in tape.bars:
            tapes[name] = replace(tape, bars=tape.bars.drop(columns="setting"))

    return replace(
        case,
        account=account,
        tapes=tapes,
        venues={name: fit_venue(venue) for name, venue in case.venues.items()},
        requirement=None,
        collateral=[],
        overlay=None,
    )


def fit_venue(venue: dict[str, Any]) -> dict[str, Any]:
    """Return the rules of an instrument, each the same at all times."""
    fixed: dict[str, Any] = dict(venue)

    # A cost that is a series or the name of a column becomes a number.
    for group in ("fees", "slippage", "liquidation", "contract"):
        fixed[group] = {}
        for name, value in venue[group].items():
            is_dated = isinstance(value, pd.Series) or f"{group}_{name}" == value
            fixed[group][name] = 0.001 if is_dated else value

    fixed["fees"].pop("per_order", None)
    for name in ("expense", "round_to_tick", "haircut", "borrow_rate"):
        fixed["contract"].pop(name, None)
    if fixed["contract"]["kind"] == "spot":
        fixed["contract"]["kind"] = "linear"
        fixed["brackets"] = [{**row, "maintenance_rate": 0.01} for row in venue["brackets"]]

    fixed["venue"] = venue["venue"] | {
        "call_grace": None,
        "maintenance_at": "mark",
        "interest_on": "balance",
        "short_rate": 0.0,
        "profit_counts": "all",
        "isolated_funding": "margin",
    }
    if isinstance(fixed["venue"]["margin_multiplier"], pd.Series):
        fixed["venue"]["margin_multiplier"] = 1.0
    return fixed


def take_lanes(case: PortfolioCase) -> Evaluator | None:
    """Return what evaluates the case in lanes; None where it has options, which no block takes."""
    if isinstance(case, OptionCase):
        return None

    policies = {type(choose_policy(case, tape)) for tape in case.tapes.values()}
    (kind,) = policies
    return Evaluator(VariedTest(bt.Backtest(**case.for_engine(bt)), kind), threads=1)


def check_lanes(case: PortfolioCase, label: str) -> int:
    """Compare the rows of four like accounts with a run, return how many were in a block."""
    fitted = fit_lanes(case)
    evaluator = take_lanes(fitted)
    if evaluator is None:
        return 0

    capital = fitted.account["capital"]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(runner, "LEAST_BAR_SETS", 0)
        rows = evaluator.evaluate({"account.capital": np.full(4, capital)})

    assert rows.errors == [""] * 4, label

    whole = run_engine(fitted)
    scale = max(capital, whole.metrics["turnover"])
    for name, column in rows.metrics.items():
        for value in column.tolist():
            assert are_equal(name, value, whole.metrics[name], scale), f"{label}: {name}"

    return evaluator.simulated.in_blocks


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


class Ways(NamedTuple):
    """How many accounts had a row in a block of lanes, and how many were resumed."""

    in_blocks: int
    resumed: int


def check_account(case: PortfolioCase, label: str) -> Ways:
    """Run an account in each way, return which ways it went."""
    terms = case.for_engine(bt)
    plain = run_engine(case, is_compiled=False, terms=terms)
    compiled = run_engine(case, terms=terms)

    called = call_back(case, terms=terms)

    assert compiled.manifest["compiled"] == "yes", label
    assert "refused" in called.manifest["compiled"], label

    assert is_same(plain, compiled), f"{label}: compiled"
    assert is_same(plain, called), f"{label}: called back"

    lanes = check_lanes(case, f"{label}: lanes")

    # Listed options of a case are those of its whole market, so that a part knows them not.
    stop = find_stop(case)
    can_resume = not isinstance(case, OptionCase) and is_known_before(case, stop)
    if can_resume:
        check_parts(case, plain, stop, f"{label}: resumed", terms)

    return Ways(in_blocks=int(lanes > 0), resumed=int(can_resume))


def check_parts(
    case: PortfolioCase, whole: Any, stop: int, label: str, terms: dict[str, Any]
) -> None:
    """Compare an account in two parts with the whole, the second compiled or called back."""
    head = run_engine(case, stop=stop, terms=terms)
    compiled = run_engine(case, resume=head, terms=terms)
    called = call_back(case, resume=head, terms=terms)
    for tail in (compiled, called):
        values = np.concatenate([head.record.values, tail.record.values])
        entries = np.concatenate([head.entries, tail.entries])
        assert values.tobytes() == whole.record.values.tobytes(), label
        assert entries.tobytes() == whole.entries.tobytes(), label
        assert tail.memory.tobytes() == whole.memory.tobytes(), label


@pytest.mark.compiled
@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, SEEDS), marks=pytest.mark.slow)], ids=str
)
def test_an_account_is_the_same_whatever_runs_it(make, seeds, monkeypatch):
    trust_data(monkeypatch)
    ways = [check_account(make(seed), f"{make.__name__}({seed})") for seed in seeds]

    if make is not make_option_case:  # of which no block takes any, and no part knows the options
        assert sum(way.in_blocks for way in ways) == len(seeds)
        assert sum(way.resumed for way in ways) >= LEAST_RESUMED * len(seeds)
