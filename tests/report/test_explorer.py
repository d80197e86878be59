"""What the explorer of a search holds: marks, curves, measures; and its size."""

import numpy as np
import pandas as pd
import pytest

from backtest.core.result_parts import ShownExplorer
from backtest.report.explored_sets import explore_sweep, find_neighbors
from backtest.report.explorer import MOST_SETS, describe_sets, write_explorer
from backtest.report.packing import encode_figure
from backtest.report.page import Explorer
from backtest.report.render import pack_text, unpack_text, write_html, write_terminal
from backtest.report.write import build_page
from backtest.results import load_saved
from backtest.results.ranking import thin_order
from backtest.sweep.equity_curves import MOST_CURVES, lay_out_curves
from backtest.sweep.sweep_table import Sweep


@pytest.fixture(scope="module")
def explorer(sweep):
    page = build_page(sweep)
    blocks = [block for section in page.sections for block in section.blocks]
    (explorer,) = (block for block in blocks if isinstance(block, Explorer))
    return explorer


def test_a_curve_ends_at_the_return_of_its_set(sweep):
    curves = sweep.curves
    ends = 1.0 + sweep.table["total_return"]
    assert (curves.iloc[0] == 1.0).all()
    for label, end in ends.items():
        assert curves[str(label)].iloc[-1] == pytest.approx(end, rel=1e-9)


def test_curves_are_saved_with_a_sweep(sweep, tmp_path):
    loaded = load_saved(sweep.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.curves, sweep.curves, check_freq=False)


def test_the_best_half_has_curves_and_others_down_to_the_worst():
    order = np.arange(1_000)[::-1]
    rows = thin_order(order, MOST_CURVES)
    assert len({*rows.tolist()}) == MOST_CURVES
    assert rows[:100].tolist() == order[:100].tolist()
    assert rows[-1] == order[-1]
    assert thin_order(order[:7], MOST_CURVES).tolist() == order[:7].tolist()


def test_curves_of_two_hundred_sets_take_less_than_300_kilobytes():
    """200 random walks of 1,460 days: thinned to 200 times, packed as a page has them."""
    rng = np.random.default_rng(0)
    times = np.arange(1_461) * 86_400_000_000_000
    returns = {str(k): 0.03 * rng.standard_normal(1_460) for k in range(200)}
    curves = lay_out_curves(times, returns)

    assert curves.shape == (200, 200)
    for name, own in returns.items():
        assert curves[name].iloc[-1] == pytest.approx(np.prod(1.0 + own))

    values = curves.to_numpy().T.ravel()
    assert len(pack_text(str(encode_figure(values)))) < 300_000


def test_a_set_that_failed_has_no_curve_and_no_set_none():
    times = np.arange(4) * 1_000_000
    known = {"1": np.full(3, 0.1), "2": np.full(3, np.nan), "3": np.zeros(2)}
    assert [*lay_out_curves(times, known)] == ["1"]
    assert lay_out_curves(times, {"2": known["2"]}) is None


def test_marks_are_those_of_the_search(sweep, explorer):
    explored = explore_sweep(sweep)
    data = explorer.data

    best = data["labels"][data["best"]]
    assert best == str(sweep.table.index[explored.best])

    near = {data["labels"][place] for place in np.flatnonzero(data["near"])}
    neighbors = np.flatnonzero(find_neighbors(explored))
    assert near == {str(sweep.table.index[place]) for place in neighbors}

    assert data["default"] == {"target": 0.4, "half_life": 72.0, "account.band": 0.0}
    assert data["objective"] == data["measures"][0]["name"] == "sharpe"


def test_ruined_sets_are_flagged_and_have_no_score(sweep):
    table = sweep.table.copy()
    table.loc[3, "ruined"] = 1.0
    data = describe_sets(explore_sweep(Sweep(table, sweep.manifest)), None)
    place = data["labels"].index("3")
    assert data["ruined"].tolist() == [float(k == place) for k in range(len(table))]
    assert np.isnan(data["measures"][0]["values"][place])
    assert data["curves"] is None


def test_hidden_measures_cannot_be_chosen(explorer):
    names = [each["name"] for each in explorer.data["measures"]]
    assert "cagr" not in names  # of 5 days
    shown = ShownExplorer("map", "", "", {"measures": [{"name": "sharpe"}, {"name": "cagr"}]})
    assert write_explorer(shown, ("cagr",)).data["measures"] == [{"name": "sharpe"}]


def test_of_very_many_sets_the_best_half_is_drawn_and_others_evenly():
    order = np.arange(10_000)
    shown = thin_order(order, MOST_SETS)
    assert len({*shown.tolist()}) == MOST_SETS
    assert shown[0] == 0
    assert shown[-1] == order[-1]


def test_the_page_of_a_sweep_needs_no_library_of_charts(sweep):
    html = write_html(build_page(sweep))
    assert len(html) < 400_000
    assert 'id="plotly"' not in html
    packed = html.partition('id="page-data">')[2].partition("</script>")[0]
    assert '"explorers":[{' in unpack_text(packed)


def test_a_terminal_shows_no_explorer(sweep):
    page = build_page(sweep)
    assert "Choose what the axes" not in write_terminal(page, [])
    assert "Choose what the axes" not in sweep.summary()
