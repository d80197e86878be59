"""Reports in their formats, written by the command, through links, or not at all."""

import json

import plotly.graph_objects as go
import pytest

from backtest.cli import main
from backtest.report.render import write_page, write_text
from backtest.report.write import build_page
from tests.kit import check_refused


def test_json_holds_the_numbers_and_null_for_those_that_are_none(page, result):
    found = json.loads(write_text(page, "json"))
    assert found["metrics"]["sharpe"] == result.metrics["sharpe"]
    assert found["metrics"]["ruin_time"] is None
    assert found["drawdowns"][0]["depth"] == result.metrics["max_drawdown"]


def test_the_format_is_that_of_the_name_unless_it_is_said(page, tmp_path):
    assert write_page(page, tmp_path / "a.json").read_text().startswith("{")
    assert write_page(page, tmp_path / "a.txt", "md").read_text().startswith("# ")
    for name, format_, words in (
        ("a.txt", "pdf", "format must be one of"),
        ("a.json/b.md", None, "cannot write"),
        ("a.png", None, "cannot be a picture"),
        ("a.html", "png", "a button that saves it as a picture"),
    ):
        check_refused(lambda: write_page(page, tmp_path / name, format_), words)  # noqa: B023


def test_every_figure_is_one_that_plotly_knows(page, sweep, result):
    for chart in (*page.charts, *build_page(sweep).charts):
        assert go.Figure(chart.figure).data
    assert {"account", "leverage", "mark price"} <= {trace.name for trace in result.plot().data}


@pytest.fixture
def saved(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return result.save("results")


@pytest.mark.slow
def test_the_command_writes_one_file_and_says_which(saved, tmp_path, capsys):
    assert main(["report", saved.name]) == 0
    assert capsys.readouterr().out.strip() == f"{saved.name}.html"
    assert (tmp_path / f"{saved.name}.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert main(["report", "constant", str(saved), "--format", "md", "--out", "there"]) == 0
    assert (tmp_path / "there" / f"{saved.name}.md").is_file()
    assert main(["report", "constant", "--out", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["kind"] == "run"
