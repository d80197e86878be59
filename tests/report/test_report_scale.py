"""Charts of money survive zero and ruin."""

import numpy as np

from backtest.report.charts import draw_declared, drop_dust, encode_figure
from backtest.report.run_parts import draw_story
from backtest.strategies import Constant
from tests.report.reported import live


def test_a_ruined_account_is_drawn_on_both_scales():
    result = live(Constant(leverage=60.0), days=20)
    figure = draw_declared(draw_story(result)).figure
    assert result.metrics["ruined"] == 1.0
    equity = next(each for each in figure["data"] if each["name"] == "account")["y"]
    assert equity[-1] == 0.0
    assert all(value > 0.0 for value in figure["layout"]["meta"]["log"].get("tickvals", ()))
    encode_figure(figure)


def test_dust_is_dropped_at_the_end_only():
    values = np.array([1.0, 1e-7, 0.5, 1e-8, 0.0])
    assert drop_dust(values).tolist() == [1.0, 1e-7, 0.5, 0.0, 0.0]
