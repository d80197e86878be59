"""The metadata of the project, its workflows and its make targets agree."""

import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def load_jobs(name):
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    return yaml.safe_load(text)["jobs"]


@pytest.mark.parametrize("name", ["test.yml", "newest.yml"])
def test_the_matrix_covers_every_supported_python_on_linux_and_macos(name):
    (job,) = load_jobs(name).values()
    matrix = job["strategy"]["matrix"]
    classifier = "Programming Language :: Python :: 3."
    supported = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if classifier in each]
    assert matrix["python"] == supported
    assert {each.partition("-")[0] for each in matrix["os"]} == {"ubuntu", "macos"}


@pytest.mark.slow
def test_a_folder_of_the_users_called_strategies_changes_nothing(tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "__init__.py").write_text("raise ImportError('not ours')\n")
    done = subprocess.run(
        [sys.executable, "-m", "backtest", "policies", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "vol-target" in done.stdout


# --------------------------------------------------------------------------------------- benchmarks


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py")}
HELPERS = {"timing.py", "replications/comparison.py", "replications/paths.py"}
"""What the others import: no commands."""


@pytest.mark.parametrize("name", sorted(SCRIPTS - HELPERS))
def test_it_loads(name, monkeypatch):
    """A name that the library no longer has is found at once."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), f"{BENCHMARKS}/replications", *sys.path])
    assert callable(runpy.run_path(str(BENCHMARKS / name), run_name="loaded")["main"])
