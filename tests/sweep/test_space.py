"""Sets of parameters and spaces: what may vary, what is refused, how they are drawn."""

import dataclasses
import math
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Choice, ParameterError, Range
from backtest.indicators import VOLATILITY_ESTIMATORS, WEIGHTED_ESTIMATORS
from backtest.strategies import Constant, SharpeScaling, VolTarget
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import VariedTest, as_column, check_sets, draw_sets, grid, read_space
from tests.kit import Hold, ask_test, check_refused, make_venue, simulate_pair
from tests.sweep.sweeps import ACCOUNT, MARKET, VENUE, Modes

PAIR = simulate_pair(80)
OF_PAIR = {"venue": make_venue(taker=0.0005), "account": bt.Account(), "compile": False}
GRID = {"level": [0.5, 1.0], "AAA.level": [0.2, 0.9], "overlay.target": [0.2, 0.6]}
OVERLAY = VolTarget(target=0.4, half_life=12.0)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TERMS = {"venue": VENUE, "account": bt.Account(band=0.02)}
ALL_FIXED = {"target": 0.1, "half_life": 5, "power": 1, "estimator": "ewma"}


class Still(bt.Policy):
    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return 1.0


class Bare(Still):
    """A parameter without a default, and one without an end."""

    size: Annotated[float, Range(0.0, math.inf, "turns")]
    window: Annotated[int, Range(2, 100, log=True)] = 10


def vary(policy: Any) -> VariedTest:
    return VariedTest(bt.Backtest(MARKET, venue=VENUE, account=ACCOUNT), policy)


def check(policy: Any, sets: Any) -> Any:
    return check_sets(vary(policy), sets)


def space_of(policy: Any, given: Any = None, **fix: Any) -> Any:
    return read_space(vary(policy), given, fix=fix)


def test_a_grid_is_the_product_with_the_last_name_fastest():
    sets = grid({"target": np.array([0.1, 0.2]), "account.margin": ["cross", "isolated"], "n": 3})
    assert sets["target"].tolist() == [0.1, 0.1, 0.2, 0.2]
    assert sets["account.margin"].tolist() == ["cross", "isolated"] * 2
    assert sets["n"].tolist() == [3] * 4


def test_every_field_of_account_and_venue_may_vary():
    names = set(vary(VolTarget).settings)
    fields = {f"account.{each.name}" for each in dataclasses.fields(bt.Account)}

    for part in ("fees", "slippage", "liquidation", "contract"):
        kind = type(getattr(VENUE, part))
        fields |= {f"venue.{part}.{each.name}" for each in dataclasses.fields(kind)}

    of_venue = ("contract.kind", "contract.expires", "contract.settles", "fees.tiers")
    fixed = {"account.collateral", "account.flows", *(f"venue.{each}" for each in of_venue)}
    assert fields - names == fixed
    assert {"venue.borrow_rate", "venue.call_grace", "venue.margin_multiplier"} <= names


def test_a_set_becomes_a_policy_a_venue_and_an_account():
    base = vary(VolTarget(power=2.0))
    values = {
        "target": np.float64(0.3),
        "account.stop_loss": np.float64("nan"),
        "account.band": np.float64(0.1),
        "venue.fees.taker": np.float64(1e-3),
        "venue.liquidation.step": "bracket",
    }

    policy = base.build_policies(values)
    test = base.build_test(values)

    assert policy == VolTarget(target=0.3, power=2.0)
    assert test.account == bt.Account(band=0.1)
    venue = test.venue
    assert venue.fees == bt.Fees(taker=1e-3, maker=VENUE.fees.maker)
    assert venue.liquidation.step == "bracket"
    assert venue.brackets == VENUE.brackets


def test_a_list_of_bools_and_numbers_stays_as_it_is():
    column = as_column("level", [True, 2, 0.5])

    assert column.dtype == object
    assert [type(value) for value in column] == [bool, int, float]
    assert column.tolist() == [True, 2, 0.5]
    assert as_column("level", [1, 2.5]).dtype == np.float64
    assert as_column("level", [True, False]).dtype == np.bool_


def test_columns_come_in_their_settled_types():
    given = {
        "scale": [1, 2], "count": np.array([2.0, 3.0], dtype=np.float32),
        "mode": np.array(["both", "both"]), "kind": ["y", "y"], "is_on": [True, np.False_],
        "account.stop_loss": [None, 0.1], "account.band": np.array([-0.0, 0.1]),
        "venue.call_grace": pd.Series([None, None], dtype=object),
        "venue.liquidation.step": [0.5, "bracket"],
    }  # fmt: skip

    sets = check(Modes, given)
    kinds = {name: values.dtype.kind for name, values in sets.items()}
    assert [kinds[name] for name in ("scale", "count", "mode", "is_on")] == ["f", "i", "O", "b"]
    assert kinds["account.stop_loss"] == kinds["venue.call_grace"] == "f"
    assert sets["venue.liquidation.step"].tolist() == [0.5, "bracket"]
    assert np.isnan(sets["account.stop_loss"][0])
    assert not np.signbit(sets["account.band"][0])


def test_what_does_not_matter_is_set_to_its_default():
    sets = check(Modes(scale=1.5), grid({"mode": ["plain", "scaled"], "scale": [1.0, 2.0]}))
    assert sets["scale"].tolist() == [1.5, 1.5, 1.0, 2.0]

    sets = check(Modes, {"mode": ["both", "scaled"], "kind": ["y", "y"], "count": [3, 3]})
    assert sets["kind"].tolist() == ["y", "x"]
    assert sets["count"].tolist() == [3, 2]


@pytest.mark.parametrize(("sets", "words"), [
    ({"account.min_leverage": [1, 5], "account.max_leverage": [3, 3]}, "account.min_leverage"),
    ({"account.margin": ["cross", "isolated"]}, "venue_leverage: is needed with isolated margin"),
    ({"account.venue_leverage": [100.0, 200.0]}, "at most 125, the limit of the first bracket"),
    ({"venue.call_grace": [None, 2]}, "needs a margin_call"),
    ({"venue.includes_close_fee": [False, True], "venue.fees.taker": [0.9, 0.9]}, "brackets"),
])  # fmt: skip
def test_what_must_go_together_is_checked_for_all_sets(sets, words):
    check_refused(lambda: check(VolTarget, sets), words)
    check_refused(lambda: check(VolTarget, sets), "in 1 of 2 sets, first in set 1")


def conditioned(*when: Any) -> Any:
    """Return the method that lists the parameters of a policy whose ``size`` has a condition."""

    class Wrong(Still):
        mode: Annotated[str, Choice("a", "b")] = "a"
        size: Annotated[float, Range(0.0, 1.0, when=when)] = 0.5

    return Wrong.parameters


def test_a_condition_may_name_a_later_parameter_but_not_lead_in_a_circle():
    class Later(Still):
        size: Annotated[float, Range(0.0, 1.0, when=("mode", "b"))] = 0.5
        mode: Annotated[str, Choice("a", "b", when=("is_on", True))] = "a"
        is_on: bool = False

    assert Later.parameters()["size"].space.when == ("mode", "b")
    sets = draw_sets(space_of(Later, is_on=True), 64)
    assert ((sets["size"] == 0.5) == (sets["mode"] == "a")).all()
    given = {"size": (0.0, 1.0)}
    check_refused(lambda: space_of(Later, given, is_on=False), "size has no effect in any set")
    assert not space_of(Later, is_on=False).dimensions

    class Circle(Still):
        one: Annotated[str, Choice("a", "b", when=("other", "a"))] = "a"
        other: Annotated[str, Choice("a", "b", when=("one", "a"))] = "a"

    check_refused(Circle.parameters, "in a circle", ParameterError)


def test_a_space_is_all_declared_ranges_unless_told_otherwise():
    space = space_of(VolTarget, power=2)
    target, half_life, estimator = space.dimensions

    assert target[:7] == ("target", "float", 0.05, 2.0, True, (), None)
    assert half_life.value == 72.0
    assert half_life.when == ("estimator", WEIGHTED_ESTIMATORS)
    assert estimator.options == VOLATILITY_ESTIMATORS
    assert space.fixed == {"power": 2.0}

    assert len(space_of(VolTarget, power=2, estimator="ewma").dimensions) == 2
    assert len(space_of(VolTarget, power=2, estimator="garch").dimensions) == 1
    assert read_space(vary(VolTarget), {"feedback": (0.0, 0.1)}).dimensions[0].name == "feedback"


def test_a_space_reads_bounds_ranges_options_and_fields():
    given = {
        "target": (0.1, 1.0), "window": (24.0, 100.5), "account.margin": ["cross", "isolated"],
        "account.stop_loss": [None, 0.1], "account.band": Range(0.0, 0.2),
        "venue.liquidation.step": [0.2, "bracket"],
    }  # fmt: skip

    dimensions = space_of(SharpeScaling, given).dimensions
    kinds = ["float", "int", "choice", "choice", "float", "choice"]
    assert [each.kind for each in dimensions] == kinds
    assert dimensions[1][2:5] == (24, 100, True)
    assert dimensions[2].options == ("cross", "isolated")


def test_all_defects_of_a_space_are_listed_at_once():
    given = {"targt": (0, 1), "half_life": (1, 9000), "power": "high", "target": (0.1, 0.2, 0.3)}
    with pytest.raises(ParameterError) as caught:
        space_of(VolTarget, given, power=99.0)
    for text in (
        "nothing named 'targt'",
        "half_life must be 2 to 2000 bars, got 1",
        "power must be given as bounds or as a list of options, got 'high'",
        r"bounds of target must be (low, high), got (0.1, 0.2, 0.3)",
        "power must not be both varied and fixed",
        "power must be 0.5 to 3, got 99",
    ):
        assert text in str(caught.value)


def test_points_become_sets_and_sets_become_points():
    given = {"mode": ["plain", "both"], "scale": (0.5, 2), "count": (1, 4)}
    space = space_of(Modes, given, kind="y")
    cube = np.array([[0.9, 0.0, 0.0], [0.9, 1.0, 1.0], [0.6, 0.5, 0.3], [0.1, 0.9, 0.9]])

    sets = space.decode(cube)
    assert sets["mode"].tolist() == ["both", "both", "both", "plain"]
    assert sets["scale"].tolist() == [0.5, 2.0, 1.0, 1.0]
    assert sets["count"].tolist() == [1, 4, 2, 2]
    assert sets["kind"].tolist() == ["y"] * 4
    assert sets["count"].dtype == np.int64

    again = space.decode(space.encode(sets))
    for name, column in sets.items():
        if name not in ("mode", "kind"):
            assert again[name].tolist() == pytest.approx(column.tolist())

    check(Modes, sets)


def test_a_parameter_that_never_matters_is_no_dimension():
    names = [each.name for each in space_of(Modes, mode="plain").dimensions]
    assert names == ["is_on"]

    reduced = space_of(Modes, mode="both").dimensions
    assert {each.name: each.when for each in reduced}["scale"] is None
    assert {each.name: each.when for each in reduced}["count"] == ("kind", ("y",))

    chained = space_of(Modes, kind="y").dimensions
    assert {each.name: each.when for each in chained}["count"] == ("mode", ("both",))


def test_draws_fill_the_space_and_depend_on_the_seed_alone():
    space = space_of(VolTarget)
    one = draw_sets(space, 300, seed=1)
    same = draw_sets(space, 300, seed=1)
    other = draw_sets(space, 300, seed=2)

    for name in one:
        assert (one[name] == same[name]).all()
        assert not (one[name] == other[name]).all()

    assert np.median(one["half_life"]) == pytest.approx(math.sqrt(2 * 2000), rel=0.25)
    assert len(check(VolTarget, one)["target"]) == 300


@pytest.mark.slow
def test_a_sweep_varies_one_instrument_and_the_overlay():
    sweep = ask_test("sweep", PAIR, Hold, GRID, overlay=OVERLAY, **OF_PAIR)
    assert len(sweep.table) == 8
    for _, row in sweep.table.iloc[::3].iterrows():
        policies = {"AAA": Hold(float(row["AAA.level"])), "BBB": Hold(float(row["level"]))}
        overlay = VolTarget(target=float(row["overlay.target"]), half_life=12.0)

        result = bt.run(PAIR, policies, overlay=overlay, **OF_PAIR)
        for name in ("total_return", "sharpe", "fees", "turnover"):
            assert row[name] == result.metrics[name], name

    assert sweep.table["total_return"].nunique() == 8


@pytest.mark.slow
def test_a_search_finds_and_returns_them():
    space = {"AAA.level": [0.2, 0.9], "overlay.target": [0.2, 0.6]}
    how = {"objective": "total_return", "trials": 4, "sampler": "grid", "overlay": OVERLAY}
    study = ask_test("tune", PAIR, Hold(1.0), space=space, **how, **OF_PAIR)

    best = study.best_values
    policies = study.best_policy
    overlay = study.best_overlay
    assert policies["AAA"] == Hold(best["AAA.level"])
    assert policies["BBB"] == Hold(1.0)
    assert overlay == VolTarget(target=best["overlay.target"], half_life=12.0)

    again = bt.run(PAIR, policies, overlay=overlay, **OF_PAIR)
    assert study.replay().metrics["total_return"] == again.metrics["total_return"]


class Peek(bt.signals.SignalRule):
    """Long if the close some bars later is higher; honest for 0 bars."""

    bars: Annotated[int, bt.Range(0, 100, "bars")] = 0

    def direction(self, market):
        close = market.bars()["close"]
        return close.shift(-self.bars) > close.shift(1)


@pytest.mark.slow
def test_sets_whose_rule_is_refused_fail_with_the_reason():
    sets = {"signal.fast": [5, 60], "signal.slow": [50, 90]}
    with pytest.warns(UserWarning, match="1 of 4 sets failed"):
        found = bt.Backtest(MARKET, signal="ma-cross", **TERMS).sweep(Constant(leverage=1.0), sets)

    failed = found.table[found.table["error"] != ""]
    assert failed[["signal.fast", "signal.slow"]].to_numpy().tolist() == [[60, 50]]
    assert "fast must be below slow 50, got 60" in failed["error"].iloc[0]


@pytest.mark.slow
def test_a_rule_that_looks_ahead_with_some_parameters_is_refused():
    policy = Constant(leverage=1.0)
    with pytest.raises(bt.PolicyError, match="peek:3"):
        bt.Backtest(MARKET, signal=Peek(), **TERMS).sweep(policy, {"signal.bars": [0, 3]})


def sweep_pair(sets: Any, overlay: Any = None) -> bt.Sweep:
    return ask_test("sweep", PAIR, Hold(1.0), sets, overlay=overlay, **OF_PAIR)


def sweep_rule(signal: Any, name: str) -> bt.Sweep:
    return bt.Backtest(MARKET, signal=signal, **TERMS).sweep(VolTarget, {name: [0, 5]})


@pytest.mark.parametrize(("make", "words"), [
    (lambda: check(Modes, {"count": [1.5]}), "count must be a whole number, got 1.5"),
    (lambda: check(Modes, {"scale": [math.inf]}), "scale must be 0.5 to 2, got inf"),
    (lambda: check(Modes, {"mode": [3]}), "mode must be one of plain, scaled, both, got 3"),
    (lambda: check(Modes, {"account.capital": [0]}), "account.capital must be over 0, got 0"),
    (lambda: check(Modes, {"venue.contract.kind": ["inverse"]}), "named 'venue.contract.kind'"),
    (lambda: check(Bare, {"size": [1.0, 2.0], "window": [3]}), "got size 2, window 1"),
    (lambda: check(Bare, {"window": [3]}), "size has no default and must be given"),
    (conditioned("mod", "b"), "another parameter, "),
    (conditioned("mode", ("a", "c")), "mode must be one of a, b, got 'c'"),
    (lambda: space_of(SharpeScaling, {"window": (10, 100)}), "window must be 24 to 20000"),
    (lambda: space_of(VolTarget, {"target": (1.0, 0.1)}), "bounds of target must be low <= high"),
    (lambda: space_of(Bare), "must be finite to be drawn from, size has 0 to inf"),
    (lambda: space_of(Bare, {"window": (2, 3)}), "size has no default"),
    (lambda: space_of(VolTarget, **ALL_FIXED), "space must have something to vary"),
    (lambda: space_of(Modes, {"scale": (0.5, 1.0)}), "no effect in any set: it is used only where"),
    (lambda: draw_sets(space_of(VolTarget), 0), "the number of sets must be"),
    (lambda: space_of(VolTarget, ["target"]), "space must be a mapping"),
    (lambda: sweep_pair({"CCC.level": [0.2]}), "there is nothing named 'CCC.level' to vary"),
    (lambda: sweep_pair({"AAA.size": [0.2]}), "there is nothing named 'AAA.size' to vary"),
    (lambda: sweep_pair({"AAA.level": [-1.0]}), "AAA.level must be"),
    (lambda: sweep_pair({"overlay.target": [0.2]}), "nothing named 'overlay.target' to vary"),
    (lambda: sweep_pair({"overlay.level": [0.2]}, OVERLAY), "nothing named 'overlay.level'"),
    (lambda: sweep_pair({"overlay.target": ["x"]}, OVERLAY), "overlay.target must be"),
    (lambda: sweep_rule(None, "signal.window"), "needs a signal rule"),
    (lambda: sweep_rule("rsi", "signal.windw"), "did you mean 'signal.window'"),
    (lambda: sweep_rule("breakout", "signal.window"), "window must be 1 to 100000 bars"),
])  # fmt: skip
def test_bad_sets_and_spaces_are_refused(make, words):
    check_refused(make, words, ParameterError)


def test_an_overlay_is_checked_from_the_first_weight_on_as_in_a_run():
    class Awake(Still):
        """Refuse an index that does not move."""

        def observe(self, market):
            moves = np.diff(market.close, prepend=market.open[0])
            if market.n_bars > 5 and not moves[:5].any():
                raise ValueError("nothing moves")
            return {"move": moves}

    # a rule is flat until its window is full, and the index stays where it is
    pair = simulate_pair(30)
    flat = pd.DataFrame(0.0, index=pair.times[:10], columns=pair.names)
    signal = pd.concat([flat, pd.DataFrame(0.5, index=pair.times[10:], columns=pair.names)])
    test = bt.Backtest(pair, **TERMS, overlay=Awake(), signal=signal)

    Evaluator(VariedTest(test, Constant), compile=False).check_causal({"leverage": np.array([1.0])})
