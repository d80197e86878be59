"""Every benchmark and replication loads, and runs at its smallest size."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py")}
HELPERS = {"timing.py", "replications/comparison.py", "replications/paths.py"}
"""What the others import: no commands."""

SMALLEST = {
    "forecast_models.py": "FOLDER --least 20 --paths 4 --models gbm --to 2023-03-17",
    "funding_paths.py": "FOLDER --paths 2 --least 20 --from 2023-01-01 --to 2023-07-01",
    "intervals.py": "--days 60 --pairs 1 --kinds normal",
    "leaderboard.py": "FOLDER --only VolTarget --risks 1 --train 30d --test 20d --trials 4 "
    "--from 2023-01-01 --to 2023-03-17",
    "options.py": "--options 2000",
    "portfolio.py": "--bars 2000 --sets 8 --repeat 1 --only recorded",
    "ratios.py": "--bars 3000 --repeat 1 --no-limits",
    "risk.py": "60",
    "run.py": "--bars 3000 --repeat 1",
    "sweep.py": "--bars 3000 --sets 64 --repeat 1 --only growth --cases core",
    "hedging_error.py": "--paths 8 --block 8 --steps 16 --implied 0.45",
    "tune.py": "--bars 2000 --seconds 0.1 --seeds 1 --only random",
    "replications/cppi_gap.py": "--paths 20",
    "replications/daily_funds.py": "FACTORS",
    "replications/grossman_zhou.py": "--years 1",
    "replications/kelly_growth.py": "--years 1",
    "replications/leveraged_funds.py": "--years 1",
    "replications/moreira_muir.py": "FACTORS",
    "replications/moreira_muir_factors.py": "FACTORS",
    "replications/real_time_scale.py": "FACTORS",
    "replications/rebalancing_flows.py": "--days 30",
    "replications/thorp_ruin.py": "--walks 4 --years 1",
    "replications/volatility_targeting.py": "FACTORS",
}
"""The arguments of each at its smallest size, by file."""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Return folders of made-up bars, and daily factors as Kenneth French's file has them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    fields = {**bt.Market.sample(bars=24 * 75).fields(), "instrument": "BTCUSDT"}
    bt.Market(**fields, source="made up").save(folder / "btc")
    days = pd.bdate_range("1926-07-01", "2015-04-30")
    rng = np.random.default_rng(0)
    risk = np.exp(np.convolve(rng.normal(0.0, 0.05, len(days) + 499), np.ones(500), "valid"))
    moves = 0.03 + 0.9 * np.clip(risk, 0.3, 5.0) * rng.standard_normal(len(days))
    size, value = rng.normal(0.01, 0.5, (2, len(days)))
    columns = zip(days.strftime("%Y%m%d"), moves, size, value, strict=True)
    lines = [f"{day},{m:8.2f},{s:8.2f},{v:8.2f},   0.010" for day, m, s, v in columns]
    (folder / "f.csv").write_text("\n".join([",Mkt-RF,SMB,HML,RF", *lines]), encoding="latin-1")
    return {"FOLDER": str(folder / "btc"), "FACTORS": str(folder / "f.csv")}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCRIPTS - HELPERS))
def test_it_runs_at_its_smallest_size(name, places, tmp_path):
    """Nothing of the environment leads to the package ``tests``."""
    words = [places.get(word, word) for word in SMALLEST[name].split()]
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", *words],
        cwd=BENCHMARKS.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        | {"BACKTEST_RESULTS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout


@pytest.mark.parametrize("name", sorted(SCRIPTS - HELPERS))
def test_it_loads(name, monkeypatch):
    """A name that the library no longer has is found at once."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), f"{BENCHMARKS}/replications", *sys.path])
    assert callable(runpy.run_path(str(BENCHMARKS / name), run_name="loaded")["main"])
