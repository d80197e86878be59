"""``backtest report --all``: a page of every result, and an index that links to them."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

import backtest as bt
from backtest.report import write_all
from backtest.strategies import Constant
from tests.kit import call
from tests.report.reported import live

HOSTILE = "<b>x&y%2F</b>\u202e"


@pytest.fixture
def store(tmp_path):
    """Return a store of a run under a hostile name, a stress test, and a damaged copy."""
    folder = tmp_path / "results"
    run = live(Constant(leverage=0.5), days=40)
    saved = run.save(folder)
    fall = bt.Scenario("fall", price=-0.3, over="2h")
    bt.stress(run, [fall], ladder={"price": (-0.3, 0.3, 3)}).save(folder)
    shutil.copytree(saved, folder / "broken")
    (folder / "broken" / "bars.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (folder / "empty").mkdir()
    saved.rename(folder / HOSTILE.replace("/", "_"))
    return folder


def read_links(index: Path) -> list[Path]:
    text = index.read_text("utf-8")
    return [index.parent / unquote(each) for each in re.findall(r'href="(pages/.*?)"', text)]


def test_every_result_has_a_page_and_damaged_ones_a_reason(store, tmp_path, capsys):
    out = tmp_path / "site"
    code, said, err = call(capsys, "report", "--all", "--results", store, "--out", out)
    assert (code, said.strip()) == (0, str(out / "index.html"))
    pages = read_links(out / "index.html")
    assert len(pages) == 2
    assert all(page.read_text("utf-8").startswith("<!DOCTYPE html>") for page in pages)
    text = (out / "index.html").read_text("utf-8")
    assert "results: 1 stress, 1 run, 2 damaged" in text
    for reason in ("bars.parquet: was changed or truncated", "holds no manifest.json"):
        assert text.count(f"damaged: {reason}") == 1
        assert reason in err
    metrics = live(Constant(leverage=0.5), days=40).metrics
    assert text.count(f'<td class="number">{metrics["sharpe"]:.2f}</td>') == 1
    assert "0 of 1 liquidate" in text


def test_names_are_escaped(store, tmp_path):
    out = tmp_path / "site"
    write_all(store, out)
    text = (out / "index.html").read_text("utf-8")
    assert "&lt;b&gt;x&amp;y%2F&lt;_b&gt;" in text
    assert "<b>" not in text
    assert "\u202e" not in text
    assert "<script" not in text
