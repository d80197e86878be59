"""Sweeps of one account, and of separate ones."""

import tracemalloc
import warnings
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, ParameterError, Range, policies
from backtest.results.measure_table import METRICS
from backtest.strategies import Constant, VolTarget
from backtest.sweep import set_runs
from backtest.sweep.lanes.runner import find_ends
from backtest.sweep.set_evaluator import PooledEvaluator, run_one_by_one
from backtest.sweep.sets import VariedTest, cut_rows_at, group_rows
from tests.kit import ask_test, call, check_refused
from tests.sweep.sweeps import ACCOUNT, CRASH, MARKET, VENUE, Modes, run

POOLS = {"mean": np.mean, "median": np.median, "worst": np.min}


class Fragile(bt.Policy):
    size: Annotated[float, Range(-10.0, 10.0)] = 1.0
    volatility: Annotated[float, Range(0.0, 1.0)] = 0.5

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return self.size


class Tabled(bt.Policy):
    """Holds what a table says, which does not compile."""

    size: Annotated[float, Range(0.0, 10.0)] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return {"size": self.size, "word": "x"}["size"]  # type: ignore[return-value]


@pytest.mark.slow
def test_sets_may_be_a_table_or_a_number_of_draws():
    table = pd.DataFrame({"target": [0.2, 0.4], "half_life": [24.0, 72.0]})
    pd.testing.assert_frame_equal(run(VolTarget, table).table[["target", "half_life"]], table)

    drawn = run(VolTarget, 5, seed=3)
    assert drawn.parameters == ("target", "half_life", "power", "estimator")
    pd.testing.assert_frame_equal(drawn.table, run(VolTarget, 5, seed=3).table)
    assert run(VolTarget, 5, space={"account.band": (0.0, 0.1)}).parameters == ("account.band",)

    again = run(VolTarget, drawn.table[list(drawn.parameters)])
    pd.testing.assert_frame_equal(again.table, drawn.table)


def test_equal_sets_are_run_once_and_keep_their_rows():
    seen = []
    sets = {"mode": ["plain"] * 4, "scale": [0.5, 1.0, 2.0, 0.5], "is_on": [True] * 3 + [False]}
    sets = pd.DataFrame(sets)

    sweep = run(Modes, sets, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert sweep.table["scale"].tolist() == [1.0] * 4
    assert sweep.table["final_equity"].nunique() == 2


def test_columns_are_checked_once_for_what_observe_reads(monkeypatch):
    """In each sweep once for equal values of what it reads."""
    checked = []
    check = policies.check_once

    def count(policy, *given):
        checked.append(repr(policy))
        return check(policy, *given)

    monkeypatch.setattr(policies, "check_once", count)
    market = MARKET.prefix(300)
    for sets, policy, n in (
        ({"target": [0.2, 0.4]}, VolTarget, 1), ({"half_life": [24.0, 72.0]}, VolTarget, 3),
        ({"size": [1.0, 2.0]}, Fragile, 4),
    ):  # fmt: skip
        run(policy, sets, market=market)
        assert len(checked) == n


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
    sweep = run(VolTarget, sets)
    full = sweep.detail(sweep.table)
    assert list(full) == [*sets, *METRICS]

    terms = {"venue": VENUE, "account": ACCOUNT}
    alone = bt.run(MARKET, VolTarget(target=0.8, half_life=72.0), **terms).metrics
    named = {name: alone[name] for name in METRICS}
    np.testing.assert_equal(full.loc[3, [*METRICS]].to_dict(), named)

    pd.testing.assert_frame_equal(sweep.detail([3, 0]), full.loc[[3, 0]])
    pd.testing.assert_frame_equal(sweep.detail(sweep.top(2)), full.loc[sweep.top(2).index])
    assert sweep.detail(1).index.tolist() == [1]
    check_refused(lambda: sweep.detail([1, 9]), "rows must be labels of the table, 0 to 3, got 9")


def test_a_ruined_set_is_a_row_below_all_others():
    sweep = run(Constant, {"leverage": [1.0, 60.0, 90.0]}, venue=CRASH)
    assert sweep.table["ruined"].tolist() == [0.0, 1.0, 1.0]
    assert sweep.table["ruin_time"].notna().tolist() == [False, True, True]

    lucky = bt.Sweep(sweep.table.assign(sharpe=[-1.0, 3.0, 4.0]), sweep.manifest)
    assert lucky.best().name == 0
    lived = sweep.table["ruin_time"]
    assert lucky.top(3).index[0] == 0
    assert lived[lucky.top(3).index[1]] >= lived[lucky.top(3).index[2]]


def test_where_nothing_keeps_the_constraints_the_best_says_so():
    sweep = run(Constant, {"leverage": [1.0, 2.0]})
    said = "no set satisfies all constraints, the best breaks sharpe >= 99"
    with pytest.warns(UserWarning, match=said):
        best = sweep.best(constraints={"sharpe": ">= 99"})
    assert best.name == sweep.table["sharpe"].idxmax()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep.best("max_drawdown", {"max_drawdown": "< 1"})


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


def test_an_interrupted_sweep_returns_what_is_done():
    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted: 3 of 5 sets were not done"):
        sweep = run(Constant, {"leverage": [1.0, 2.0, 3.0, 4.0, 5.0]}, progress=stop)
    assert sweep.table["leverage"].tolist() == [1.0, 2.0]
    assert sweep.table["sharpe"].notna().all()
    assert not sweep.complete
    assert "2 of 5 sets" in repr(sweep)


@pytest.mark.slow
def test_a_policy_that_does_not_compile_is_swept_with_one_warning():
    with pytest.warns(UserWarning, match="Tabled is swept in plain Python") as caught:
        sweep = run(Tabled, {"size": [1.0, 2.0, 3.0]}, compile=True)
    assert len(caught) == 1

    plain = run(Constant, {"leverage": [1.0, 2.0, 3.0]})
    both = (sweep.table.drop(columns="size"), plain.table.drop(columns="leverage"))
    pd.testing.assert_frame_equal(*both)


@pytest.mark.slow
def test_a_map_shows_the_median_of_the_other_parameters():
    sets = {"target": [0.2, 0.4, 0.8], "half_life": [24, 72], "account.band": [0.0, 0.1, 0.2]}
    sweep = run(VolTarget, sets)
    figure = sweep.heatmap("target", "half_life", "max_drawdown")
    medians = sweep.table.pivot_table("max_drawdown", "half_life", "target", aggfunc="median")

    assert np.array_equal(figure.data[0].z, medians.to_numpy())
    assert figure.layout.xaxis.title.text == "target"
    figure.to_json()


def test_a_map_leaves_out_what_is_ruined():
    sets = {"leverage": [1.0, 2.0, 60.0], "account.band": [0.0, 0.5]}
    figure = run(Constant, sets, venue=CRASH).heatmap("account.band", "leverage")
    assert np.isnan(figure.data[0].z).tolist() == [[False] * 2, [False] * 2, [True] * 2]

    # A page made of a notebook has the same cells, in a table without scripts.
    table = figure._repr_mimebundle_()["text/html"]
    assert "<script" not in table
    assert table.count('<td style="background') == 4
    assert table.count("<td></td>") == 2


def test_a_folder_of_another_kind_is_refused(tmp_path):
    sweep = run(Constant, {"leverage": [1.0]})
    result = sweep.replay(0).save(tmp_path)
    folder = sweep.save(tmp_path)

    said = "must be the folder of a saved"
    check_refused(lambda: bt.Sweep.load(result), f"{said} sweep, got a result", DataError)
    check_refused(lambda: bt.Result.load(folder), f"{said} result, got a sweep", DataError)

    loaded = bt.Sweep.load(folder)
    assert loaded.best().equals(sweep.best())
    check_refused(lambda: loaded.replay(0), "a loaded sweep has none", ParameterError)


def make_markets(**bars: int) -> dict[str, bt.Market]:
    return {name: bt.Market.sample(bars=n, seed=k) for k, (name, n) in enumerate(bars.items())}


MARKETS = make_markets(BTC=400, ETH=480, LTC=360)


def sweep_apart(market, **more):
    terms = {"venue": VENUE, "account": bt.Account(), **more}
    return ask_test(
        "sweep", market, bt.strategies.Constant, {"leverage": [0.5, 2.0, 60.0]}, **terms
    )


@pytest.fixture(scope="module")
def alone():
    return {name: sweep_apart(market).table for name, market in MARKETS.items()}


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_pools_the_rows_of_each_market(pool, alone):
    found = sweep_apart(MARKETS, accounts="separate", pool=pool).table
    joined = POOLS[pool]
    for name in ("sharpe", "total_return", "cagr"):
        expected = joined([table[name] for table in alone.values()], axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-15)

    for market, table in alone.items():
        assert found[f"sharpe {market}"].tolist() == table["sharpe"].tolist()
        assert found[f"ruined {market}"].tolist() == table["ruined"].tolist()


@pytest.mark.slow
def test_rows_hold_the_runs_of_each_market(alone):
    found = sweep_apart(bt.Markets(MARKETS), accounts="separate")
    sharpes = {name: run.metrics["sharpe"] for name, run in found.replay(1).items()}
    assert sharpes == {name: table["sharpe"].iloc[1] for name, table in alone.items()}

    named = {name: found.manifest[name] for name in ("accounts", "pool")}
    assert named == {"accounts": "separate", "pool": "mean"}
    assert "(mean of 3 markets)" in found.verdict


def test_groups_of_rows_take_no_memory_of_their_own():
    """Of 100,000 groups, a list has a view of 100 bytes or more each; the numbers have 8."""
    n = 100_000
    codes = np.arange(n)[::-1].copy()

    tracemalloc.start()
    try:
        total = sum(int(rows[0]) for rows in group_rows(codes))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert total == n * (n - 1) // 2
    assert peak < 64 * n


def test_rows_are_cut_where_a_value_of_any_column_changes():
    rows = np.array([4, 2, 0, 1, 3])
    columns = [np.array([1.0, 2.0, 1.0, 2.0, 1.0]), np.array(["a", "b", "a", "a", "a"], object)]
    ends = find_ends(rows, columns)  # in the order of rows: 1a 1a 1a 2b 2a
    assert ends.tolist() == [3, 4, 5]
    assert [each.tolist() for each in cut_rows_at(rows, ends)] == [[4, 2, 0], [1], [3]]
    assert find_ends(rows, []).tolist() == [5]


def test_warnings_of_sets_are_kept_once_and_so_many():
    """Each set may warn in words of its own; a million do not keep a million of them."""

    def replay(values):
        warnings.warn("the same", UserWarning, stacklevel=1)
        warnings.warn(f"of set {values['x']}", UserWarning, stacklevel=1)
        return SimpleNamespace(metrics={"sharpe": values["x"]})

    sets = {"x": np.arange(300.0)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = run_one_by_one(replay, sets, ("sharpe",), False, None)

    texts = [str(each.message) for each in caught]
    assert texts[:2] == ["the same", "of set 0.0"]
    assert len(texts) == 100
    assert rows.metrics["sharpe"].tolist() == sets["x"].tolist()


def test_sets_that_numpy_cannot_allocate_are_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(set_runs, "build_sets", lambda *_, **__: np.empty(2**59))
    said = "sweep needs more memory than there is: Unable to allocate 4.00 EiB"
    terms = {"venue": VENUE, "account": bt.Account()}
    check_refused(lambda: ask_test("sweep", MARKET, Constant, {"leverage": [1.0]}, **terms), said)

    words = ("--policy", "constant", "--vary", "leverage=1,2", "--no-save")
    code, _, err = call(capsys, "sweep", *words)
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert len(err.splitlines()) == 1


def test_settings_and_signals_may_be_tables_by_market():
    account = bt.Account(stop_loss={"BTC": 0.01, "ETH": 0.02, "LTC": 0.5})
    signal = {"BTC": 1.0, "ETH": -1.0, "LTC": 0.5}
    found = sweep_apart(MARKETS, account=account, signal=signal, accounts="separate").table
    for name, market in MARKETS.items():
        own = sweep_apart(market, account=account.for_instrument(name), signal=signal[name]).table
        assert found[f"sharpe {name}"].tolist() == own["sharpe"].tolist()


def test_returns_are_the_mean_on_the_days_that_all_have():
    names = {"A": MARKETS["BTC"].slice(0, 240), "B": MARKETS["BTC"].slice(48, 400)}
    test = bt.Backtest(names, venue=VENUE, account=bt.Account(), signal=dict.fromkeys(names, 1.0))
    evaluator = PooledEvaluator(VariedTest(test, bt.strategies.Constant))

    rows = evaluator.evaluate({"leverage": np.array([1.0])}, returns=True)
    series = [run.returns.to_numpy() for run in evaluator.replay({"leverage": 1.0}).values()]

    assert [len(each) for each in series] == [10, 15]  # days: 0 to 9, and 2 to 16
    np.testing.assert_array_equal(rows.returns[:, 0], 0.5 * (series[0][2:] + series[1][:8]))


@pytest.mark.slow
def test_copies_of_a_market_count_as_one():
    """The deflated Sharpe ratio of four copies is that of one, as are trials and scores."""
    terms = {"venue": VENUE, "account": bt.Account(), "trials": 40, "seed": 1}
    market = bt.Market.sample(bars=1_500)
    one = ask_test("tune", market, bt.strategies.VolTarget, **terms).verdict
    copies = dict.fromkeys("ABCD", market)
    found = ask_test("tune", copies, bt.strategies.VolTarget, accounts="separate", **terms).verdict

    np.testing.assert_allclose(
        [found.deflated_sharpe, found.effective_trials, found.score, found.holdout_score],
        [one.deflated_sharpe, one.effective_trials, one.score, one.holdout_score],
        rtol=1e-9,
    )


def map_of(*names: str) -> Any:
    return lambda: run(VolTarget, {"target": [0.2], "half_life": [24]}).heatmap(*names)


def separate(market: Any = MARKETS, **more: Any) -> Any:
    return lambda: sweep_apart(market, **{"accounts": "separate", **more})


def one_set(**more: Any) -> Any:
    return lambda: run(VolTarget, more.pop("sets", {"target": [0.2]}), **more)


@pytest.mark.parametrize(("call", "words"), [
    (one_set(sets={"targt": [1.0]}), "nothing named 'targt' to vary (did you mean 'target'"),
    (one_set(sets=pd.DataFrame({"target": [1.0], "sharpe": [2.0]})), "got the measure sharpe"),
    (one_set(metrics="some"), "metrics must be one of all, core"),
    (one_set(signal=2.0), "signal must be at least -1 and at most 1"),
    (one_set(account=bt.Account(venue_leverage=500.0)), "venue_leverage must be at most 125"),
    (separate(accounts="apart"), "accounts must be one of shared, separate, got 'apart'"),
    (separate(pool="best"), "pool must be one of mean, median, worst, got 'best'"),
    (separate(signal={"BTC": 1.0}), "one for each; ETH has none"),
    (separate(overlay=VolTarget()), "overlay needs accounts='shared'"),
    (separate(MARKETS["BTC"]), "accounts='separate' needs several markets"),
    (map_of("targt", "half_life"), "did you mean 'target'"),
    (map_of("target", "target"), "y must be half_life"),
    (map_of("target", "half_life", "sharp"), "did you mean 'sharpe'"),
    (map_of("target", "half_life", "es_95"), "metric must be one of"),
])  # fmt: skip
def test_wrong_arguments_are_refused(call, words):
    check_refused(call, words, ParameterError)


def test_sets_that_decide_on_few_of_their_bars_are_counted():
    """Of 400 bars, known from 24, 79, 80, 81 and 399 on: the last three under 80 %; one never."""
    sets = {"half_life": [24.0, 79.0, 80.0, 81.0, 399.0, 500.0]}
    said = (
        "3 of 6 parameter sets decided on under 80 % of their bars, since their columns were not "
        "known before; 1 never did: too long a warm-up; give more bars, or shorter windows"
    )

    with pytest.warns(UserWarning, match="2 of 6 parameter sets filled no order"):
        found = run(VolTarget, sets)
    assert f"{said}." in [*found.notices]
    assert found.table["turnover"].iloc[-1] == 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "warm_up" not in run(VolTarget, {"half_life": [24.0, 80.0]}).manifest
