"""Reports of sweeps, studies and comparisons."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from backtest.report.explored import explore_sweep, find_neighbors
from backtest.report.render import write_html, write_text
from backtest.report.write import build_page
from backtest.store import load_saved
from backtest.sweep.sweep_table import Sweep
from tests.tuning import seek, stand_in


def made_up(n=400):
    """Return a sweep in which one parameter decides the Sharpe ratio and the other is noise."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.0, 1.0, n), rng.uniform(1.0, 100.0, n)
    table = pd.DataFrame({"x": x, "y": y, "sharpe": -((x - 0.7) ** 2) + 0.01 * rng.normal(size=n)})
    table["ruined"] = (x < 0.1).astype(float)
    table["ruin_time"] = np.where(x < 0.1, 5.0, np.nan)
    return table


def test_neighbors_are_within_a_tenth_of_each_range(sweep):
    facts = {"x": {"unit": "", "log": False}, "y": {"unit": "bars", "log": True}}
    manifest = {**sweep.manifest, "parameters": facts}
    explored = explore_sweep(Sweep(made_up(), manifest))
    near = find_neighbors(explored)
    x = explored.table["x"].to_numpy()
    assert 0 < near.sum() < 80
    assert np.abs(x[near] - x[explored.best]).max() <= 0.1 * np.ptp(x) + 1e-9


@pytest.mark.slow
def test_a_study_is_told_with_its_verdict_and_its_search(monkeypatch, tmp_path):
    stand_in(put=monkeypatch.setattr)
    study = seek(store=tmp_path)
    page = build_page(study)
    text = write_text(page, "md")
    for words in ("Deflated Sharpe", "probability of overfitting", "holdout"):
        assert words in text
    assert write_html(build_page(load_saved(study.folder))) == write_html(page)
    assert "Deflated Sharpe" in study._repr_html_()
    unfinished = dataclasses.replace(study, outcome=None)
    assert any("UNFINISHED" in notice for notice in build_page(unfinished).notices)
    assert write_html(build_page(unfinished))
