"""Tolerances, directions and modes: which moves of a measure pass."""

import math

import pytest

from backtest.base.errors import ParameterError
from backtest.measures.measure_table import METRICS
from backtest.regress import compare_baselines
from backtest.regress.text import write_text
from backtest.regress.tolerances import (
    Band,
    choose_bands,
    read_band,
)
from tests.kit import check_refused
from tests.regress.baselines import VENUE, run, take


@pytest.mark.parametrize(("given", "band"), [
    ("5%", Band(relative=0.05)),
    ("0.05", Band(absolute=0.05)),
    (0.05, Band(absolute=0.05)),
    (2, Band(absolute=2.0)),
    ("any", Band()),
    ({"relative": 1e-9}, Band(relative=1e-9)),
])  # fmt: skip
def test_a_tolerance_is_read_and_written(given, band):
    assert read_band(given, "t") == band
    assert read_band(band.to_data(), "t") == band


@pytest.mark.parametrize(
    "given", ["-1", "x", "nan", "inf", "", None, True, [], {"relative": "y"}, {"rel": 1}, "-5%"]
)
def test_a_tolerance_that_is_none_is_refused(given):
    check_refused(lambda: read_band(given, "t"), "t must be a number from 0")


def test_a_band_holds_its_ends_and_what_does_not_exist():
    assert Band(absolute=0.1).holds(0.0, -0.1)
    assert not Band(absolute=0.1).holds(0.0, 0.11)
    assert Band(relative=0.0).holds(math.nan, math.nan)
    assert Band(relative=0.0).holds(math.inf, math.inf)
    assert not Band(relative=1.0).holds(math.nan, 1.0)
    assert not Band(relative=1.0).holds(math.inf, 1.0)
    assert Band().holds(math.nan, 1.0)
    assert Band(relative=1e-9).holds(0.0, 1e-17)


def test_the_last_pattern_that_names_a_measure_holds():
    bands = choose_bands(METRICS, {"*": "5%", "es_*": 0.1, "es_99": "any"}, {})
    assert bands["sharpe"] == Band(relative=0.05)
    assert bands["es_95"] == Band(absolute=0.1)
    assert bands["es_99"].is_open
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        choose_bands(METRICS, {"sharp": 1}, {})


@pytest.mark.slow
def test_a_move_for_the_better_fails_unless_it_is_allowed():
    held = take(mode="tolerance", tolerance={"*": "any", "fees": 0.0})
    cheaper = take(run(venue=VENUE.override({"fees.taker": 4e-4})))
    verdict = compare_baselines(held, cheaper)
    assert (verdict.exit_code, verdict.reason) == (1, "better in fees")
    verdict = compare_baselines(held, cheaper, allow_better=["fees"])
    assert (verdict.exit_code, verdict.accepted) == (0, ("fees",))
    assert "allowed" in write_text([verdict])
    dearer = take(run(venue=VENUE.override({"fees.taker": 6e-4})))
    assert compare_baselines(held, dearer, allow_better=["*"]).exit_code == 1
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        compare_baselines(held, cheaper, allow_better=["sharp"])
