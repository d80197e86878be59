"""Searches bounded or ranked by the risk on simulated paths."""

import math

import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.measures.measure_table import read_risk_name
from backtest.strategies import Constant
from backtest.tune.path_risk import PathRisk
from tests.risk.accounts import Hold, free_account, free_venue

MARKET = bt.Market.sample(bars=24 * 20)
TERMS = {"venue": free_venue(), "account": free_account()}
FALL = models.GBM(volatility=1e-6, drift=-1800.0)
"""In four hours the price falls to exp(-1800 x 4 / 8760) = exp(-300 / 365), on every path."""
EDGE = 1.0 / (1.0 - 0.995 * math.exp(-300.0 / 365.0))
"""A long of leverage L has its liquidation price at (L - 1) / (0.995 L) of its entry, which is
exp(-300 / 365) = 0.4396 at L = 1.777."""
LEVERS = [1.5, 1.7, 1.8, 2.0]


def fall(**settings) -> bt.Paths:
    return bt.simulate_paths(MARKET, FALL, **{"paths": 10, "horizon": "4h", "seed": 1, **settings})


def search(paths, **settings) -> bt.Study:
    given = {
        "space": {"lever": LEVERS}, "sampler": "grid", "trials": 8, "robust": False,
        "holdout": None, "compile": False, "objective": "mean_leverage", **settings,
    }  # fmt: skip
    return bt.tune(MARKET, Hold, **TERMS, paths=paths, **given)


def list_searched(study: bt.Study) -> pd.DataFrame:
    """Return the sets of the grid, without neighbors."""
    return study.table[study.table["stage"] == "search"].sort_values("lever")


@pytest.mark.slow
def test_a_bound_on_the_risk_excludes_what_dies_on_the_paths():
    study = search(fall(), constraints={"p_liquidation_4h": "<= 0.01"})
    table = list_searched(study)
    assert 1.7 < EDGE < 1.8
    assert table["p_liquidation_4h"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert table["violation"].tolist() == pytest.approx([0.0, 0.0, 99.0, 99.0])  # (1 - .01) / .01
    assert study.best_values == {"lever": 1.7}
    assert study.manifest["paths"]["model"]["name"] == "GBM"
    assert "p_liquidation_4h" in " ".join(study.summary().split())


@pytest.mark.slow
def test_the_largest_leverage_is_a_factor_on_the_policy():
    # held at L, the factor f with f L = 1.777
    study = search(
        fall(paths=21), space={"lever": [1.0, 1.25, 1.5, 2.0]}, objective="max_leverage_at_99pct"
    )
    table = list_searched(study)
    expected = [EDGE / lever for lever in (1.0, 1.25, 1.5, 2.0)]
    assert table["max_leverage_at_99pct"].tolist() == pytest.approx(expected, rel=2e-3)
    assert study.best_values == {"lever": 1.0}


@pytest.mark.slow
def test_the_measures_are_those_of_the_public_functions_on_the_same_paths():
    model = models.GBM(volatility=3.0)
    paths = bt.simulate_paths(MARKET, model, paths=40, horizon="6h", seed=3)
    measures = tuple(map(read_risk_name, ("p_liquidation_3h", "max_leverage_at_50pct")))
    found = PathRisk(paths, measures, threads=2, compile=False).measure(Hold(12.0), *TERMS.values())
    risk = bt.liquidation_risk(paths, Hold(12.0), **TERMS, horizons=("3h",), compile=False)
    assert found["p_liquidation_3h"] == risk.table["p_liquidation"].iloc[0] > 0.0
    largest = bt.max_leverage(
        MARKET, Hold(12.0), **TERMS, probability=0.5, horizon="6h", models=[model], paths=40,
        seed=3, compile=False,
    )  # fmt: skip
    assert found["max_leverage_at_50pct"] == largest.leverage


@pytest.mark.slow
def test_neighbors_parts_and_the_holdout_see_the_same_paths(tmp_path):
    study = search(
        fall(), constraints={"p_liquidation_4h": "<= 0.01"}, space={"lever": (1.0, 3.0)},
        sampler="sobol", trials=24, robust=True, holdout="25%", store=tmp_path,
    )  # fmt: skip
    table = study.table
    assert ((table["lever"] > EDGE) == (table["p_liquidation_4h"] == 1.0)).all()
    assert study.best_values["lever"] < EDGE
    assert study.outcome.holdout["p_liquidation_4h"] == 0.0
    assert any("bars of the holdout" in text for text in study.outcome.warnings)
    loaded = bt.Study.load(study.folder)
    pd.testing.assert_frame_equal(loaded.table, table)
    assert study.report(tmp_path / "study.html").exists()
    with pytest.raises(bt.ParameterError, match="no study of Hold of these data"):
        search(
            fall(seed=2), constraints={"p_liquidation_4h": "<= 0.01"}, space={"lever": (1.0, 3.0)},
            sampler="sobol", trials=24, robust=True, holdout="25%", store=tmp_path, resume=True,
        )  # fmt: skip


BOTH = bt.Markets({"AAA": MARKET, "BBB": MARKET})


@pytest.mark.slow
def test_a_bound_on_the_risk_of_several_excludes_what_dies_on_their_paths():
    """Both fall together: half of L in each is the one long of L, whose edge is 1.777.

    An overlay of a half doubles the edge, and a weight of 1 in one alone leaves it.
    """
    paths = bt.simulate_paths(BOTH, FALL, paths=10, horizon="4h", seed=1)
    given = {
        "space": {"lever": LEVERS}, "sampler": "grid", "trials": 8, "robust": False,
        "holdout": None, "compile": False, "objective": "mean_leverage",
        "constraints": {"p_liquidation_4h": "<= 0.01"}, **TERMS,
    }  # fmt: skip
    for more, dies in (
        ({}, [0.0, 0.0, 1.0, 1.0]),
        ({"signal": {"AAA": 0.0, "BBB": 1.0}}, [0.0, 0.0, 1.0, 1.0]),
        ({"overlay": Constant(leverage=0.5)}, [0.0, 0.0, 0.0, 0.0]),
    ):
        study = bt.tune(BOTH, Hold, paths=paths, **{**given, **more})
        assert list_searched(study)["p_liquidation_4h"].tolist() == dies


OF_BOTH = bt.simulate_paths(BOTH, FALL, paths=10, horizon="4h", seed=1)


@pytest.mark.parametrize(("settings", "words"), [
    ({"paths": None}, "measured on simulated paths"),
    ({"constraints": {"p_liquidation_5h": "<= 0.01"}}, "horizons must lie"),
    ({"objective": "max_leverage_at_1pct"}, "at least 20"),
    ({"paths": OF_BOTH}, "got paths of 'AAA"),
    ({"signal": pd.Series(1.0, index=MARKET.times)}, "signal must be a number"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(settings, words):
    given = {"paths": fall(), "constraints": {"p_liquidation_4h": "<= 0.01"}, **settings}
    with pytest.raises(bt.ParameterError, match=words):
        search(given.pop("paths"), **given)
