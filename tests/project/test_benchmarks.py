"""Every benchmark and replication loads."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py")}
HELPERS = {"timing.py", "replications/comparison.py", "replications/paths.py"}
"""What the others import: no commands."""


@pytest.mark.parametrize("name", sorted(SCRIPTS - HELPERS))
def test_it_loads(name, monkeypatch):
    """A name that the library no longer has is found at once."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), f"{BENCHMARKS}/replications", *sys.path])
    assert callable(runpy.run_path(str(BENCHMARKS / name), run_name="loaded")["main"])
