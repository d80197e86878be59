"""Maps of a sweep over two parameters."""

from typing import Any

import numpy as np
import pytest

from backtest import ParameterError
from backtest.strategies import Constant, VolTarget
from tests.sweep.sweeps import CRASH, run


def heat(figure: Any) -> Any:
    return figure.data[0]


@pytest.mark.slow
def test_a_map_shows_the_median_of_the_other_parameters():
    sets = {"target": [0.2, 0.4, 0.8], "half_life": [24, 72], "account.band": [0.0, 0.1, 0.2]}
    sweep = run(VolTarget, sets)
    figure = sweep.heatmap("target", "half_life")
    medians = sweep.table.pivot_table("sharpe", "half_life", "target", aggfunc="median")
    assert np.array_equal(heat(figure).z, medians.to_numpy())
    assert figure.layout.xaxis.title.text == "target (per sqrt(year))"
    assert figure.layout.yaxis.title.text == "half_life (bars)"
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert "median over account.band" in figure.layout.title.text
    assert heat(figure).colorbar.title.text == "per sqrt(year)"
    best = sweep.heatmap("target", "half_life", "max_drawdown", reduce="best")
    least = sweep.table.pivot_table("max_drawdown", "half_life", "target", aggfunc="min")
    assert np.array_equal(heat(best).z, least.to_numpy())
    assert heat(best).reversescale
    figure.to_json()


def test_a_map_marks_what_is_ruined():
    sets = {"leverage": [1.0, 2.0, 60.0], "account.band": [0.0, 0.5]}
    figure = run(Constant, sets, venue=CRASH).heatmap("account.band", "leverage")
    assert np.isnan(heat(figure).z).tolist() == [[False] * 2, [False] * 2, [True] * 2]
    ruined = figure.data[1]
    assert ruined.name == "ruined"
    assert list(ruined.x) == [0.0, 0.5]
    assert ruined.text[0] == "1 sets, 1 ruined"


@pytest.mark.parametrize(("arguments", "problem"), [
    (("targt", "half_life"), "x must be one of .*; did you mean 'target'"),
    (("target", "target"), "x and y must be two parameters"),
    (("target", "half_life", "sharp"), "metric must be one of .*; did you mean 'sharpe'"),
    (("target", "half_life", "es_95"), "metric must be one of"),
    (("target", "half_life", "sharpe", "mean"), "reduce must be one of median, best"),
])  # fmt: skip
def test_a_map_of_what_is_not_there_is_refused(arguments, problem):
    sweep = run(VolTarget, {"target": [0.2], "half_life": [24]})
    with pytest.raises(ParameterError, match=problem):
        sweep.heatmap(*arguments)
