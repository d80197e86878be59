"""Where a result came from: the commit, whether it was dirty, how long it took; beside all else."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

import backtest as bt
from backtest import DataError
from backtest.core.provenance import PROVENANCE, Making, find_commit, read_provenance
from backtest.experiments.policy_names import read_policy
from backtest.results import read_entry, verify_folder
from backtest.strategies import Constant
from tests.kit import AT_BINANCE, MY_POLICY, check_refused

MARKET = bt.Market.sample(bars=24 * 5)


def git(folder: Path, *words: str) -> str:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    command = ["git", *who, "-C", str(folder), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()

    git(folder, "init", "-q")
    (folder / "mine.py").write_text(MY_POLICY)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def run(policy=None):
    return bt.run(MARKET, policy or Constant(leverage=1.0), **AT_BINANCE)


def making_of(folder: Path) -> Making:
    return read_provenance(folder, folder.name.rpartition("-")[2])


def test_a_commit_is_dirty_after_any_edit_and_unknown_of_a_file_that_git_does_not_know(
    project, tmp_path, monkeypatch
):
    head = git(project, "rev-parse", "HEAD")
    (project / "new.py").write_text(MY_POLICY)  # not git's

    assert find_commit(project / "mine.py") == head
    assert find_commit(project / "new.py") is None

    (project / "mine.py").write_text(MY_POLICY + "\n")
    assert find_commit(project / "mine.py") == f"{head}-dirty"

    (tmp_path / "alone.py").write_text(MY_POLICY)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert find_commit(tmp_path / "alone.py") is None

    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit(project / "mine.py") is None

    folder = run().save(tmp_path / "results")
    assert making_of(folder).code == {"backtest": None, "Constant": None}
    assert read_entry(folder).is_dirty is None


def test_a_run_says_its_time_and_the_commits_of_package_and_policy(project, tmp_path):
    mine = read_policy(f"{project / 'mine.py'}:Mine", {})

    began = time.perf_counter()
    result = run(mine)
    spent = time.perf_counter() - began

    folder = result.save(tmp_path / "results")
    making = making_of(folder)
    assert 0.0 < making.seconds <= spent
    assert list(making.code) == ["backtest", "Mine"]

    head = git(project, "rev-parse", "HEAD")
    assert making.code["Mine"] == head

    entry = read_entry(folder)
    assert entry.commit == head
    assert entry.seconds == making.seconds


def test_only_the_provenance_depends_on_commits_and_time(project, tmp_path):
    mine = read_policy(f"{project / 'mine.py'}:Mine", {})

    one = run(mine).save(tmp_path / "one")
    git(project, "commit", "-q", "--allow-empty", "-m", "two")
    two = run(mine).save(tmp_path / "two")

    assert one.name == two.name
    contents = {path.name: path.read_bytes() for path in one.iterdir()}
    again = {path.name: path.read_bytes() for path in two.iterdir()}
    assert [name for name in contents if contents[name] != again[name]] == [PROVENANCE]


@pytest.fixture
def folder(tmp_path):
    return run().save(tmp_path / "results")


@pytest.mark.parametrize("edit", [b"", b"[]", b'{"id": 1}', b'{"id": "other", "made": {}}'])
def test_a_damaged_file_is_named_and_the_result_is_read_without_it(folder, edit):
    (folder / PROVENANCE).write_bytes(edit)

    assert PROVENANCE in read_entry(folder).trouble
    assert [name for name, _ in verify_folder(folder).faults] == [PROVENANCE]
    assert bt.Result.load(folder).metrics["sharpe"] == run().metrics["sharpe"]
    check_refused(lambda: making_of(folder), PROVENANCE, DataError)
