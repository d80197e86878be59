"""Two results side by side: curves, measures, settings, and the first bar that differs."""

import dataclasses
import json
import math

import pytest

import backtest as bt
from backtest.report import write_pair
from backtest.report.render import write_html
from backtest.report.side_by_side import (
    Pair,
    build_pair_page,
    find_first_difference,
    list_settings,
    write_change,
)
from backtest.strategies import Constant
from tests.kit import Hold, check_refused, flat, make_market, make_venue

ROWS = [flat(100), flat(100), flat(110), flat(121)]


def hold(leverage, **settings):
    account = bt.Account(capital=1_000.0, **settings)
    market = make_market(ROWS)
    return bt.run(market, Hold(leverage), venue=make_venue(), account=account, compile=False)


@pytest.fixture(scope="module")
def pair():
    return Pair(hold(1.0), hold(2.0, band=0.1), ("one", "two"))


def test_the_first_bar_that_differs_is_that_of_the_first_decision(pair):
    """At the close of the first bar one asks for 1x, the other for 2x; equity parts later."""
    found = find_first_difference(pair)
    assert found.values["target"] == (1.0, 2.0)
    assert "equity" not in found.values
    assert find_first_difference(Pair(pair.first, pair.first, pair.names)) is None


def test_the_settings_that_differ_are_named_with_both_values(pair):
    rows = {name: values for name, *values in list_settings(pair)}
    assert rows["account band"] == ["0", "0.1"]
    assert "account capital" not in rows
    assert not list(list_settings(Pair(pair.first, pair.first, pair.names)))


def test_a_change_has_an_arrow_and_says_if_it_is_for_the_better():
    assert write_change("total_return", 0.1, 0.2) == "▲ 10.00 points better"
    assert write_change("max_drawdown", 0.1, 0.2) == "▲ 10.00 points worse"
    assert write_change("fills", 10.0, 12.0) == "▲ 2"  # neither better nor worse
    assert write_change("mean_leverage", 2.0, 1.0) == "▼ 1.00"
    assert write_change("sharpe", 1.0, 1.0) == "="
    assert write_change("sharpe", math.nan, 1.0) == "only one has it"


def test_the_page_has_both_curves_from_one_and_their_ratio(pair):
    """Of 100, 100, 110, 121: 1x gains a tenth twice, 2x a fifth and then more."""
    page = build_pair_page(pair.first, pair.second)
    lines = {line["name"]: line["y"] for line in page.charts[0].figure["data"]}
    first, second, ratio = lines.values()

    assert first[0] == second[0] == 1.0
    assert first[-1] == pytest.approx(pair.first.metrics["final_equity"] / 1_000.0)
    assert ratio[-1] == pytest.approx(second[-1] / first[-1])

    assert "they share no bar" not in " ".join(page.notices)
    html = write_html(page)
    assert "account band" in html
    assert "First bar that differs" in html


def test_two_markets_are_both_named_and_said_to_differ(pair):
    """The page showed the data of the first alone, as if both were of it."""
    market = dataclasses.replace(make_market(ROWS), instrument="OTHER")
    other = bt.run(market, Hold(1.0), venue=make_venue(), account=bt.Account(capital=1_000.0))
    page = build_pair_page(pair.first, other)
    name = pair.first.manifest["data"]["instrument"] or "unnamed instrument"
    assert page.subtitle.startswith(f"{name} and OTHER, ")
    assert page.notices[0].startswith(f"They are of different markets, {name} and OTHER: ")


def test_two_results_of_other_kinds_are_refused(pair, tmp_path):
    run = pair.first.save(tmp_path)
    test = bt.Backtest(make_market(ROWS), venue=make_venue(), account=bt.Account())
    sweep = test.sweep(Constant, {"leverage": [0.5, 1.0]}, compile=False)
    other = sweep.save(tmp_path)

    page = tmp_path / "pair.json"
    words = "two results side by side must be of one"
    check_refused(lambda: write_pair((run, other), page, "json"), words)

    write_pair((run, run), page, "json")
    assert json.loads(page.read_text())["first_difference"] is None
