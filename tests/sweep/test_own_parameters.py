"""Parameters of one instrument and of the overlay: sweeps, searches and validations by hand."""

from typing import Any

import pytest

import backtest as bt
from backtest.strategies import VolTarget
from tests.kit import Hold, make_venue, simulate_pair

PAIR = simulate_pair(80)
TERMS = {"venue": make_venue(taker=0.0005), "account": bt.Account(), "compile": False}
GRID = {"level": [0.5, 1.0], "AAA.level": [0.2, 0.9], "overlay.target": [0.2, 0.6]}
OVERLAY = VolTarget(target=0.4, half_life=12.0)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def run_set(row: Any, **terms: Any) -> bt.Result:
    """Return the run of one set by hand: AAA has a level of its own, BBB that of all."""
    policies = {"AAA": Hold(float(row["AAA.level"])), "BBB": Hold(float(row["level"]))}
    overlay = VolTarget(target=float(row["overlay.target"]), half_life=12.0)
    return bt.run(PAIR, policies, overlay=overlay, **TERMS | terms)


@pytest.mark.slow
def test_a_sweep_varies_one_instrument_and_the_overlay():
    sweep = bt.sweep(PAIR, Hold, GRID, overlay=OVERLAY, **TERMS)
    assert len(sweep.table) == 8
    for _, row in sweep.table.iloc[::3].iterrows():
        for name in ("total_return", "sharpe", "fees", "turnover"):
            assert row[name] == run_set(row).metrics[name], name
    assert sweep.table["total_return"].nunique() == 8


@pytest.mark.slow
def test_a_search_finds_and_returns_them():
    space = {"AAA.level": [0.2, 0.9], "overlay.target": [0.2, 0.6]}
    study = bt.tune(
        PAIR, Hold(1.0), space=space, objective="total_return", trials=4, sampler="grid",
        overlay=OVERLAY, **TERMS,
    )  # fmt: skip
    best = study.best_values
    policies, overlay = study.best_policy, study.best_overlay
    assert policies["AAA"] == Hold(best["AAA.level"])
    assert policies["BBB"] == Hold(1.0)
    assert overlay == VolTarget(target=best["overlay.target"], half_life=12.0)
    again = bt.run(PAIR, policies, overlay=overlay, **TERMS)
    assert study.replay().metrics["total_return"] == again.metrics["total_return"]


@pytest.mark.parametrize(("grid", "overlay", "message"), [
    ({"CCC.level": [0.2]}, None, "there is nothing named 'CCC.level' to vary"),
    ({"AAA.size": [0.2]}, None, "there is nothing named 'AAA.size' to vary"),
    ({"AAA.level": [-1.0]}, None, "AAA.level must be"),
    ({"overlay.target": [0.2]}, None, "there is nothing named 'overlay.target' to vary"),
    ({"overlay.level": [0.2]}, OVERLAY, "there is nothing named 'overlay.level' to vary"),
    ({"overlay.target": ["x"]}, OVERLAY, "overlay.target must be"),
])  # fmt: skip
def test_unknown_names_are_refused(grid, overlay, message):
    with pytest.raises(bt.ParameterError, match=message):
        bt.sweep(PAIR, Hold(1.0), grid, overlay=overlay, **TERMS)
