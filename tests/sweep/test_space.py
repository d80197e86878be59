"""Sets of parameters: what may vary, what is refused, and how they are drawn."""

import dataclasses
import math
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Choice, ParameterError, Range
from backtest.strategies import VolTarget
from backtest.sweep.sets.sets import (
    BaseTerms,
    build_trio,
    check_sets,
    grid,
    read_settings,
)
from backtest.sweep.sets.space import draw_sets, read_space
from tests.kit import check_refused

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account()


class Modes(bt.Policy):
    """Parameters of every kind; the scale matters in one mode, its power with one scale."""

    mode: Annotated[str, Choice("plain", "scaled", "both")] = "plain"
    scale: Annotated[float, Range(0.5, 2.0, log=True, when=("mode", ("scaled", "both")))] = 1.0
    kind: Annotated[str, Choice("x", "y", when=("mode", "both"))] = "x"
    count: Annotated[int, Range(1, 4, "turns", when=("kind", "y"))] = 2
    is_on: bool = True

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return a number that depends on all of them."""
        return self.scale * self.count if self.is_on else 0.0


class Bare(bt.Policy):
    """A parameter without a default, and one without an end."""

    size: Annotated[float, Range(0.0, math.inf, "turns")]
    window: Annotated[int, Range(2, 100, log=True)] = 10

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the size."""
        return self.size


def check(policy: Any, sets: Any, account: bt.Account = ACCOUNT) -> Any:
    return check_sets(policy, account, VENUE, sets)


def space_of(policy: Any, given: Any = None, **fix: Any) -> Any:
    return read_space(policy, given, fix=fix, account=ACCOUNT, venue=VENUE)


# ----- where sets come from -----


def test_a_grid_is_the_product_with_the_last_name_fastest():
    sets = grid({"target": np.array([0.1, 0.2]), "account.margin": ["cross", "isolated"], "n": 3})
    assert sets["target"].tolist() == [0.1, 0.1, 0.2, 0.2]
    assert sets["account.margin"].tolist() == ["cross", "isolated"] * 2
    assert sets["n"].tolist() == [3] * 4


# ----- what may vary -----


def test_every_field_of_account_and_venue_may_vary():
    names = set(read_settings(BaseTerms(VolTarget, VENUE, ACCOUNT)))
    fields = {f"account.{each.name}" for each in dataclasses.fields(bt.Account)}
    for part in ("fees", "slippage", "liquidation", "contract"):
        kind = type(getattr(VENUE, part))
        fields |= {f"venue.{part}.{each.name}" for each in dataclasses.fields(kind)}
    fixed = {"contract.kind", "contract.expires", "contract.settles", "fees.tiers"}
    fixed = {"account.collateral", "account.flows", *(f"venue.{each}" for each in fixed)}
    assert fields - names == fixed
    assert {"venue.borrow_rate", "venue.call_grace", "venue.margin_multiplier"} <= names


def test_a_set_becomes_a_policy_a_venue_and_an_account():
    base = BaseTerms(VolTarget(power=2.0), VENUE, ACCOUNT)
    values = {
        "target": np.float64(0.3),
        "account.stop_loss": np.float64("nan"),
        "account.band": np.float64(0.1),
        "venue.fees.taker": np.float64(1e-3),
        "venue.liquidation.step": "bracket",
    }
    policy, venue, account = build_trio(base, read_settings(base), values)
    assert policy == VolTarget(target=0.3, power=2.0)
    assert account == bt.Account(band=0.1)
    assert venue.fees == bt.Fees(taker=1e-3, maker=VENUE.fees.maker)
    assert venue.liquidation.step == "bracket"
    assert venue.brackets == VENUE.brackets


def test_columns_come_in_their_settled_types():
    sets = check(
        Modes,
        {
            "scale": [1, 2],
            "count": np.array([2.0, 3.0], dtype=np.float32),
            "mode": np.array(["both", "both"]),
            "kind": ["y", "y"],
            "is_on": [True, np.False_],
            "account.stop_loss": [None, 0.1],
            "venue.call_grace": pd.Series([None, None], dtype=object),
            "venue.liquidation.step": [0.5, "bracket"],
            "account.band": np.array([-0.0, 0.1]),
        },
    )
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


# ----- what is refused -----


BAD_SETS: dict[str, tuple[Any, Any]] = {
    "count must be a whole number, got 1.5": (Modes, {"count": [1.5]}),
    "scale must be 0.5 to 2, got inf": (Modes, {"scale": [math.inf]}),
    "mode must be one of plain, scaled, both, got 3": (Modes, {"mode": [3]}),
    "account.capital must be over 0, got 0": (Modes, {"account.capital": [0]}),
    "nothing named 'venue.contract.kind'": (Modes, {"venue.contract.kind": ["inverse"]}),
    "one length, at least 1, got size 2, window 1": (Bare, {"size": [1.0, 2.0], "window": [3]}),
    "size has no default and must be given": (Bare, {"window": [3]}),
}


@pytest.mark.parametrize("words", BAD_SETS)
def test_bad_sets_are_refused(words):
    policy, sets = BAD_SETS[words]
    check_refused(lambda: check(policy, sets), words, ParameterError)


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


# ----- conditions -----


@pytest.mark.parametrize(("when", "words"), [
    (("mod", "b"), "another parameter, "),
    (("mode", ("a", "c")), "mode must be one of a, b, got 'c'"),
])  # fmt: skip
def test_a_condition_must_name_another_parameter_and_its_values(when, words):
    class Wrong(bt.Policy):
        mode: Annotated[str, Choice("a", "b")] = "a"
        size: Annotated[float, Range(0.0, 1.0, when=when)] = 0.5

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return self.size

    check_refused(Wrong.parameters, words, ParameterError)


def test_a_condition_may_name_a_later_parameter_but_not_lead_in_a_circle():
    class Later(bt.Policy):
        size: Annotated[float, Range(0.0, 1.0, when=("mode", "b"))] = 0.5
        mode: Annotated[str, Choice("a", "b", when=("is_on", True))] = "a"
        is_on: bool = False

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return self.size

    assert Later.parameters()["size"].space.when == ("mode", "b")
    sets = draw_sets(space_of(Later, is_on=True), 64)
    assert ((sets["size"] == 0.5) == (sets["mode"] == "a")).all()
    with pytest.raises(ParameterError, match="size has no effect in any set"):
        space_of(Later, {"size": (0.0, 1.0)}, is_on=False)
    assert not space_of(Later, is_on=False).dimensions

    class Circle(bt.Policy):
        one: Annotated[str, Choice("a", "b", when=("other", "a"))] = "a"
        other: Annotated[str, Choice("a", "b", when=("one", "a"))] = "a"

        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return 1.0

    with pytest.raises(ParameterError, match="in a circle"):
        Circle.parameters()
