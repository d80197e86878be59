"""The README files of results/ and data/: what they list exists, and no command reads them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import backtest as bt
from tests.commands import call

ROOT = Path(__file__).parents[2]
CARD = ROOT / "results" / "README.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a folder of results that holds the README and one run."""
    folder = tmp_path_factory.mktemp("store") / "results"
    folder.mkdir()
    shutil.copy(CARD, folder)
    market = bt.Market.sample(bars=24 * 40)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")

    class Half(bt.Policy):
        """Hold half the equity."""

        def leverage(self, bar, account):
            return 0.5

    result = bt.run(market, Half(), venue=venue, account=bt.Account(), compile=False)
    result.save(folder)
    return folder


def test_git_ignores_results_but_not_their_readme():
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    paths = ["results/README.md", "results/half-0011223344556677/bars.parquet"]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == paths[1:]


def test_the_commands_on_results_ignore_the_readme(store, capsys):
    code, out, _ = call(capsys, "results", "list", "--results", store, "--json")
    assert code == 0
    assert "README" not in out
    code, out, _ = call(capsys, "results", "verify", "--results", store, "--json")
    assert code == 0
    assert "README" not in out
    assert len(json.loads(out)) > 0


def test_prune_deletes_results_and_keeps_the_readme(store, tmp_path, capsys):
    shutil.copytree(store, tmp_path / "results")
    command = ("results", "prune", "--results", tmp_path / "results", "--keep", 0, "--yes")
    assert call(capsys, *command)[0] == 0
    left = [each.name for each in (tmp_path / "results").iterdir() if each.name[0] != "."]
    assert left == ["README.md"]


def test_the_files_of_a_run_are_those_that_the_readme_lists(store):
    (folder,) = (each for each in store.iterdir() if each.is_dir())
    (row,) = (line for line in CARD.read_text().splitlines() if "| `backtest run` |" in line)
    listed = {*re.findall(r"`(\w+\.\w+)`", row), "manifest.json", "provenance.json"}
    assert listed < {each.name for each in folder.iterdir()}


def test_the_card_of_data_lists_every_embedded_folder():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    folders = {each.name for each in (ROOT / "data").iterdir() if each.is_dir()}
    assert set(re.findall(r"^\| \[([\w-]+)\]\(\1/README\.md\) \|", text, re.MULTILINE)) == (
        folders - {"__pycache__"}
    )
    for file in (ROOT / "data" / "sample-1h").iterdir():
        if file.suffix != ".md":
            assert f"| {file.name} |" in text
