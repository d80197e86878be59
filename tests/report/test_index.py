"""``backtest report --all``: a page of every result, and an index that links to them."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

import backtest as bt
from backtest.report import write_all
from backtest.report.packing import encode_figure
from backtest.report.render import (
    LIBRARY,
    pack_text,
    read_library,
    unpack_text,
    write_html,
    write_text,
)
from backtest.report.write import build_page
from backtest.strategies import Constant
from tests.kit import call
from tests.report.conftest import AT_BINANCE, live

HOSTILE_TEXTS = (
    "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "../../x",
    "{{ 7 * 7 }}{% raw %}", "a\u202eb\u2066", "x" * 10_000,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "results"
    run = live(Constant(leverage=0.5))
    saved = run.save(folder)
    fall = bt.Scenario("fall", price=-0.3, over="2h")
    bt.stress(run, [fall], ladder={"price": (-0.3, 0.3, 3)}).save(folder)

    shutil.copytree(saved, folder / "broken")
    (folder / "broken" / "bars.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (folder / "empty").mkdir()
    saved.rename(folder / "<b>x&y%2F</b>\u202e".replace("/", "_"))
    return folder


def read_links(index: Path) -> list[Path]:
    text = index.read_text("utf-8")
    return [index.parent / unquote(each) for each in re.findall(r'href="(pages/.*?)"', text)]


def test_every_result_has_a_page_and_damaged_ones_a_reason(store, tmp_path, capsys):
    out = tmp_path / "site"
    code, said, err = call(capsys, "report", "--all", "--results", store, "--out", out)
    assert code == 0
    assert said.strip() == str(out / "index.html")

    pages = read_links(out / "index.html")
    assert len(pages) == 2
    assert all(page.read_text("utf-8").startswith("<!DOCTYPE html>") for page in pages)

    text = (out / "index.html").read_text("utf-8")
    assert "4 results in <code>results</code>: 1 stress, 1 run, 2 damaged" in text
    for reason in ("bars.parquet: was changed or truncated", "holds no manifest.json"):
        assert text.count(f"damaged: {reason}") == 1
        assert reason in err

    metrics = live(Constant(leverage=0.5)).metrics
    shown = f'<td class="number" data-value="{metrics["total_return"]}">'
    assert text.count(shown) == 1
    assert text.count("<polyline") == 1  # the curve of the run
    assert "0 of 1 liquidate" in text


def test_names_are_escaped(store, tmp_path):
    """The folder of the run is named "<b>x&y%2F<_b>", then a sign that turns the text around."""
    out = tmp_path / "site"
    write_all(store, out)
    text = (out / "index.html").read_text("utf-8")

    assert "&lt;b&gt;x&amp;y%2F&lt;_b&gt;" in text
    assert "<b>" not in text
    assert "\u202e" not in text


def test_the_scripts_of_an_index_are_its_curves_and_its_own(store, tmp_path):
    """A curve is drawn of 160 values, however long the run."""
    out = tmp_path / "site"
    write_all(store, out)
    text = (out / "index.html").read_text("utf-8")

    assert [head for head, _ in scripts_of(text)] == [' type="application/json" id="curves"', ""]
    curves = json.loads(scripts_of(text)[0][1])
    assert {len(row["values"]) for row in curves["rows"].values()} == {160}


def test_pages_of_a_store_share_one_library_and_those_without_charts_have_none(store, tmp_path):
    """The library is in a file beside them, and checked by the same hash as inside a page."""
    out = tmp_path / "site"
    test = bt.Backtest(bt.Market.sample(bars=48), **AT_BINANCE)
    test.sweep(Constant, {"leverage": [0.5, 1.0]}).save(store)  # its explorer needs no library

    write_all(store, out)

    library = (out / "pages" / LIBRARY).read_text("utf-8")
    packed = re.fullmatch('window.packedLibrary = "(.*)";\n', library)
    assert unpack_text(packed[1]) == read_library()

    pages = [page.read_text("utf-8") for page in read_links(out / "index.html")]
    assert len(pages) == 3
    assert max(map(len, pages)) < 400_000

    has_charts = [f'<script src="{LIBRARY}"></script>' in page for page in pages]
    assert sorted(has_charts) == [False, True, True]

    for page, has in zip(pages, has_charts, strict=True):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
        assert policy.count("sha256-") == (2 if has else 1)
        assert 'id="plotly"' not in page


@pytest.mark.slow
def test_the_same_result_makes_the_same_bytes(result, tmp_path):
    html = write_html(build_page(result))
    assert write_html(build_page(result)) == html
    again = bt.Result.load(result.save(tmp_path))
    assert write_html(build_page(again)) == html
    assert again.report(tmp_path / "deep" / "report.html").read_text("utf-8") == html


def scripts_of(html):
    return re.findall(r"<script([^>]*)>(.*?)</script>", html, flags=re.S)


def test_nothing_in_the_page_leads_outside(html):
    rest = re.sub(r'<script type="application/octet-stream".*?</script>', "", html, flags=re.S)
    assert not re.search(r"(?i)\b(https?|wss?|ftp|file):", rest)
    assert not re.search(r"(?i)\bsrc=|@import|url\((?!#)", rest)
    assert re.findall(r"<link[^>]*>", rest) == ['<link rel="icon" href="data:,">']
    assert all(link.startswith("#") for link in re.findall(r'<a [^>]*href="([^"]*)"', rest))


def test_the_security_policy_lets_run_our_two_scripts_only(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    hashes = re.findall(r"'sha256-([^']*)'", policy)
    own = next(text for head, text in scripts_of(html) if head == "")
    packed = next(text for head, text in scripts_of(html) if 'id="plotly"' in head)
    library = unpack_text(packed)

    assert library == read_library()
    expected = [hashlib.sha256(text.encode()).digest() for text in (own, library)]
    assert hashes == [base64.b64encode(each).decode() for each in expected]

    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe-eval" not in policy


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", HOSTILE_TEXTS, ids=["script", "image", "path", "jinja", "bidi", "long"]
)
def test_hostile_names_of_a_run_are_text(result, name):
    manifest = json.loads(json.dumps(result.manifest))
    manifest["policy"] |= {"text": name, "name": name}
    manifest["data"] |= {"instrument": name, "source": name, "filled": {name: name}}
    manifest["causality"] = name

    page = build_page(dataclasses.replace(result, manifest=manifest))
    html = write_html(page)
    assert len(re.findall(r"<script", html)) == len(scripts_of(html)) == 3
    assert len(re.findall(r"<img", html)) == 0
    assert not {"\u202e", "\u2066"} & set(html)
    assert ("{{ 7 * 7 }}" in html) == ("7 * 7" in name)

    prose = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", write_text(page, "md"))
    assert "backtest run" not in prose, "commands stand in blocks of code, as they are"
    assert "<script" not in prose
    assert json.loads(write_text(page, "json"))["title"]


def test_data_in_a_script_element_cannot_end_it():
    text = pack_text('{"</script>": "<!--", "&": "\u2028"}')
    assert not set("<>&\u2028") & set(text)


def test_a_notebook_shows_names_as_text(result):
    manifest = json.loads(json.dumps(result.manifest))
    manifest["policy"]["text"] = HOSTILE_TEXTS[0]
    manifest["data"]["instrument"] = HOSTILE_TEXTS[1]
    cell = dataclasses.replace(result, manifest=manifest)._repr_html_()

    assert "<script" not in cell
    assert "<img" not in cell
    assert "<svg" in cell

    for name in HOSTILE_TEXTS[4:]:
        manifest["policy"]["text"] = manifest["data"]["instrument"] = name
        cell = dataclasses.replace(result, manifest=manifest)._repr_html_()
        assert not {"\u202e", "\u2066"} & set(cell)
    assert "…</b>" in cell


@pytest.mark.parametrize(
    "name", HOSTILE_TEXTS[:2] + HOSTILE_TEXTS[5:], ids=["script", "image", "long"]
)
def test_hostile_names_of_parameters_are_text(sweep, name):
    facts = {}
    for key, fact in sweep.manifest["parameters"].items():
        facts[name if key == "target" else key] = fact

    table = sweep.table.rename(columns={"target": name})

    hostile = bt.Sweep(table, {**sweep.manifest, "parameters": facts})
    page = build_page(hostile)
    html = write_html(page)
    assert len(scripts_of(html)) == html.count("<script") == 2  # data and ours

    figures = json.dumps([encode_figure(chart.figure) for chart in page.charts])
    assert "<img" not in figures
    assert "<script" not in figures
    data = next(text for head, text in scripts_of(html) if 'id="page-data"' in head)
    assert "<" not in data
