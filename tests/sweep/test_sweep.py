"""The sweep: its rows are runs, whatever is swept; what fails, is ruined or interrupted stays."""

import math
import warnings
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import ParameterError, Range
from backtest.measures.measure_table import METRICS, PATH
from backtest.measures.run_facts import DATES
from backtest.strategies import Constant, Cppi, VolTarget
from backtest.sweep.sets.sets import BaseTerms, build_trio, read_settings
from tests.sweep.sweeps import ACCOUNT, CRASH, MARKET, VENUE, Modes, run


class Fragile(bt.Policy):
    """Refuses some sizes."""

    size: Annotated[float, Range(-10.0, 10.0)] = 1.0
    volatility: Annotated[float, Range(0.0, 1.0)] = 0.5

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the size, which may be negative by mistake."""
        return self.size


class Tabled(bt.Policy):
    """Holds what a table says, which does not compile."""

    size: Annotated[float, Range(0.0, 10.0)] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the size through a dict of mixed values."""
        return {"size": self.size, "word": "x"}["size"]  # type: ignore[return-value]


def same_bits(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def check_rows(sweep: bt.Sweep, policy: Any, *, names: tuple[str, ...], **settings: Any) -> None:
    """Hold every row to the run of its parameters, bit for bit."""
    given = {"venue": VENUE, "account": ACCOUNT, "compile": False, **settings}
    market = given.pop("market", MARKET)
    base = BaseTerms(policy, given.pop("venue"), given.pop("account"))
    declared = read_settings(base)
    for row in sweep.table.to_dict("records"):
        values = {name: row[name] for name in sweep.parameters}
        built = build_trio(base, declared, values)
        result = bt.run(market, built.policy, venue=built.venue, account=built.account, **given)
        for name in names:
            assert same_bits(row[name], result.metrics[name]), (values, name)


STREAMED = tuple(name for name in METRICS if name not in PATH)
ISOLATED = bt.Account(margin="isolated", venue_leverage=20.0)
COIN = bt.Venue(
    contract=bt.Contract(kind="inverse", size=100.0, lot=1.0, tick=0.1, min_notional=0.0),
    brackets=[bt.Bracket(0.0, 5.0, 100.0, 0.005), bt.Bracket(5.0, 1e6, 50.0, 0.01)],
    fees=bt.Fees(taker=5e-4, maker=1e-4),
    slippage=bt.Slippage(rate=1e-4, impact=0.5),
    liquidation=bt.Liquidation(mode="partial", fee=0.005, slippage=0.002),
)
SCENES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "cross": (
        VolTarget(power=2.0),
        {"target": [0.2, 0.8, 2.0], "half_life": [24, 72], "account.band": [0.0, 0.2]},
        {},
    ),
    "isolated with limits, stops and costs": (
        VolTarget,
        {
            "target": [0.5, 2.0],
            "account.max_leverage": [2.0, math.inf],
            "account.venue_leverage": [5.0, 40.0],
            "account.stop_loss": [None, 0.03],
            "venue.fees.taker": [1e-4, 1e-3],
        },
        {"account": ISOLATED},
    ),
    "inverse, partial, impact": (
        Constant,
        {
            "leverage": [1.0, 30.0, 60.0],
            "venue.liquidation.step": [0.2, "bracket"],
            "venue.slippage.impact": [0.0, 1.0],
        },
        {"venue": COIN, "account": bt.Account(capital=1.0)},
    ),
    "margins and modes": (
        Constant,
        {
            "leverage": [2.0, 50.0],
            "account.margin": ["cross", "isolated"],
            "account.venue_leverage": [60.0],
            "venue.liquidation.mode": ["close", "takeover", "partial"],
        },
        {},
    ),
    "memory and a signal with flips": (
        Cppi,
        {"multiplier": [2.0, 8.0], "floor": [0.5, 0.9], "ratchet": [0.0, 0.8]},
        {"signal": np.where(np.arange(400) // 37 % 2 == 0, 1.0, -0.5)},
    ),
    "words, numbers and flags": (
        Modes,
        {"mode": ["plain", "scaled"], "scale": [0.5, 2.0], "count": [1, 3], "is_on": [True, False]},
        {"sampling": "8h"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_row_is_the_run_of_its_parameters_bit_for_bit(scene):
    policy, sets, settings = SCENES[scene]
    sweep = run(policy, sets, **settings)
    assert len(sweep.table) == math.prod(len(values) for values in sets.values())
    check_rows(sweep, policy, names=STREAMED, **settings)


COMPILED = [
    pytest.param(name, marks=pytest.mark.slow if name.startswith(("inverse", "margins")) else ())
    for name in SCENES
]


@pytest.mark.slow
@pytest.mark.parametrize("scene", COMPILED)
def test_a_row_is_the_run_of_its_parameters_compiled_on_any_threads(scene):
    policy, sets, settings = SCENES[scene]
    tables = [run(policy, sets, compile=True, threads=n, **settings).table for n in (1, 2)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    plain = run(policy, sets, **settings).table
    pd.testing.assert_frame_equal(tables[0], plain, rtol=1e-9, atol=1e-12)


# ----- the table -----


@pytest.mark.slow
def test_sets_may_be_a_table_or_a_number_of_draws():
    table = pd.DataFrame({"target": [0.2, 0.4], "half_life": [24.0, 72.0]})
    pd.testing.assert_frame_equal(run(VolTarget, table).table[["target", "half_life"]], table)
    drawn = run(VolTarget, 5, seed=3)
    assert drawn.parameters == ("target", "half_life", "power", "estimator")
    pd.testing.assert_frame_equal(drawn.table, run(VolTarget, 5, seed=3).table)
    narrow = run(VolTarget, 5, space={"account.band": (0.0, 0.1)}, method="lhs")
    assert narrow.parameters == ("account.band",)
    again = run(VolTarget, drawn.table[list(drawn.parameters)])
    pd.testing.assert_frame_equal(again.table, drawn.table)


def test_equal_sets_are_run_once_and_keep_their_rows():
    seen = []
    sets = pd.DataFrame(
        {"mode": ["plain"] * 4, "scale": [0.5, 1.0, 2.0, 0.5], "count": [1, 1, 1, 2]}
    )
    sweep = run(Modes, sets, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert sweep.table["scale"].tolist() == [1.0] * 4
    assert sweep.table["final_equity"].nunique() == 2


def test_a_parameter_named_like_a_measure_is_told_apart():
    sweep = run(Fragile, {"size": [1.0, 2.0], "volatility": [0.1]})
    assert sweep.parameters == ("size", "policy.volatility")
    assert sweep.table["volatility"].iloc[0] != 0.1
    assert sweep.replay(1).policy == Fragile(size=2.0, volatility=0.1)
    again = run(Fragile, sweep.table[list(sweep.parameters)])
    pd.testing.assert_frame_equal(again.table, sweep.table)


@pytest.mark.slow
def test_measures_of_the_path_come_by_replay():
    sets = {"target": [0.2, 0.8], "half_life": [24.0, 72.0]}
    sweep, full = run(VolTarget, sets), run(VolTarget, sets, full=True)
    assert list(full.table) == [*sets, *METRICS, *DATES]
    check_rows(full, VolTarget, names=METRICS)
    pd.testing.assert_frame_equal(sweep.detail(sweep.table), full.table)
    pd.testing.assert_frame_equal(sweep.detail([3, 0]), full.table.loc[[3, 0]])
    pd.testing.assert_frame_equal(sweep.detail(sweep.top(2)), full.table.loc[sweep.top(2).index])
    assert sweep.detail(1).index.tolist() == [1]
    with pytest.raises(ParameterError, match="rows must be labels of the table, 0 to 3, got 9"):
        sweep.detail([1, 9])


@pytest.mark.slow
def test_details_say_when_the_deepest_drawdown_was():
    sweep = run(Constant, {"leverage": [0.0, 0.5, 2.0]})
    table = sweep.detail(sweep.table)
    hour = pd.Timedelta(MARKET.interval, "ns")
    assert table.loc[0, list(DATES)].isna().all()  # it never held anything
    for row in (1, 2):
        bars = sweep.replay(row).bars
        deepest = bars["drawdown"].idxmax()
        assert table["drawdown_trough"][row] == deepest + hour  # bars go by the time they open
        assert table["drawdown_peak"][row] == bars["equity"][:deepest].idxmax() + hour
        after = bars["equity"][deepest:] >= bars["equity"][:deepest].max()
        over = after.idxmax() + hour if after.any() else pd.NaT
        assert table["drawdown_recovery"][row] is over or table["drawdown_recovery"][row] == over
        assert bool(table["recovered"][row]) == after.any()


# ----- ruin, failure, interruption -----


def test_a_ruined_set_is_a_row_below_all_others():
    sets = {"leverage": [1.0, 60.0, 90.0]}
    sweep = run(Constant, sets, venue=CRASH)
    assert sweep.table["ruined"].tolist() == [0.0, 1.0, 1.0]
    assert sweep.table["ruin_time"].notna().tolist() == [False, True, True]
    lucky = bt.Sweep(sweep.table.assign(sharpe=[-1.0, 3.0, 4.0]), sweep.manifest)
    assert lucky.best().name == 0
    lived = sweep.table["ruin_time"]
    assert lucky.top(3).index[0] == 0
    assert lived[lucky.top(3).index[1]] >= lived[lucky.top(3).index[2]]


def test_where_nothing_keeps_the_constraints_the_best_says_so():
    sweep = run(Constant, {"leverage": [1.0, 2.0]})
    with pytest.warns(
        UserWarning, match="no set keeps all constraints, the best breaks sharpe >= 99"
    ):
        best = sweep.best(constraints={"sharpe": ">= 99"})
    assert best.name == sweep.table["sharpe"].idxmax()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep.best("max_drawdown", {"max_drawdown": "<= 1"})


def test_a_failed_set_is_a_row_with_its_cause():
    with pytest.warns(UserWarning, match=r"2 of 4 sets failed, the first \(row 1\)") as caught:
        sweep = run(Fragile, {"size": [1.0, -1.0, 2.0, -2.0]})
    assert len(caught) == 1
    assert sweep.table["error"].iloc[[0, 2]].tolist() == ["", ""]
    assert "PolicyError" in sweep.table["error"][1]
    assert "\n" not in sweep.table["error"][1]
    assert list(sweep.table)[-1] == "error"
    assert sweep.table.loc[1, "sharpe":"final_equity"].isna().all()
    assert sweep.top(4).index.tolist()[2:] == [1, 3]


def interrupt_after(sets: int) -> Any:
    def report(done: int, total: int) -> None:
        if done >= sets:
            raise KeyboardInterrupt

    return report


def test_an_interrupted_sweep_returns_what_is_done():
    with pytest.warns(UserWarning, match="interrupted: 3 of 5 sets were not done"):
        sweep = run(Constant, {"leverage": [1.0, 2.0, 3.0, 4.0, 5.0]}, progress=interrupt_after(2))
    assert sweep.table["leverage"].tolist() == [1.0, 2.0]
    assert sweep.table["sharpe"].notna().all()
    assert not sweep.complete
    assert "2 of 5 sets" in repr(sweep)


@pytest.mark.slow
def test_a_policy_that_does_not_compile_is_swept_with_one_warning():
    with pytest.warns(UserWarning, match="Tabled is swept in plain Python") as caught:
        sweep = run(Tabled, {"size": [1.0, 2.0, 3.0]}, compile=True)
    assert len(caught) == 1
    check_rows(sweep, Tabled, names=STREAMED)


# ----- what is refused -----


@pytest.mark.parametrize(("change", "problem"), [
    ({"sets": {"targt": [1.0]}}, "nothing named 'targt' to vary; did you mean 'target'"),
    ({"sets": pd.DataFrame({"target": [1.0], "sharpe": [2.0]})}, "got the measure sharpe"),
    ({"method": "best"}, "method must be one of sobol, lhs, uniform, got 'best'"),
    ({"metrics": "some"}, "metrics must be one of all, core"),
    ({"signal": 2.0}, "signal must be at least -1 and at most 1"),
    ({"account": bt.Account(venue_leverage=500.0)}, "venue_leverage must be at most 125"),
])  # fmt: skip
def test_wrong_arguments_are_refused_before_anything_runs(change, problem):
    given = {"market": MARKET, "policy": VolTarget, "sets": {"target": [0.2]}, **change}
    rest = {"venue": VENUE, "account": ACCOUNT}
    rest |= {
        name: given.pop(name) for name in list(given) if name not in ("market", "policy", "sets")
    }
    with pytest.raises(ParameterError, match=problem):
        bt.sweep(given["market"], given["policy"], given["sets"], **rest)
