"""The pages of the site: each block runs on its own, and dead links are found."""

from pathlib import Path

import pytest

from docs.ext import blocks, links

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FAST = ("tutorial",)
"""The pages of which `make test` runs every block; of the others it runs the first."""


def list_blocks():
    """Yield the Python blocks of each page: the fast ones, and the others marked slow."""
    for page in PAGES:
        found = [b for b in blocks.find_blocks(page.read_text("utf-8")) if b.language == "python"]
        for number, block in enumerate(found):
            is_slow = number > 0 and page.stem not in FAST
            marks = pytest.mark.slow if is_slow else ()
            yield pytest.param(page, block, marks=marks, id=f"{page.stem}-{number}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the data that blocks read."""
    folder = tmp_path_factory.mktemp("blocks")
    blocks.write_samples(folder)
    return folder


@pytest.fixture(autouse=True)
def _answer_in_plain_python(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "no")


@pytest.mark.parametrize(("page", "block"), [*list_blocks()])
def test_a_block_runs_on_its_own(page, block, folder):
    blocks.run_python(block, folder, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_is_a_comment(page):
    """A line that begins with a percent sign is left out of the page."""
    lines = page.read_text("utf-8").splitlines()
    assert not [line for line in lines if line.lstrip().startswith("%")]


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<a id="x" href="b.html#y">b</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#x">a</a><a href="https://a.b/c#d">d</a>')
    gone = f"{links.REPOSITORY}gone.py"
    (tmp_path / "d.html").write_text(
        f'<a href="{links.REPOSITORY}README.md#use">r</a><a href="{gone}">g'
    )
    found = ["a.html: b.html#y", "a.html: c.html", f"d.html: {gone}"]
    assert links.find_dead(tmp_path) == found
    assert "docs.ext.links build/docs" in (ROOT / "Makefile").read_text("utf-8")
