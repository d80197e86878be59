"""Every benchmark and replication runs at its smallest size, and prints JSON."""

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HELPERS = ("known_truth.py", "real_walks.py", "replications/comparison.py", "replications/paths.py")
"""What the others import: no commands."""

SMALLEST: dict[str, str] = {
    "both.py": "--only import --repeat 1",
    "contagion.py": "--out PICTURE",
    "carry.py": "FOLDER --from 2023-01-01 --to 2023-02-10",
    "cascades.py": "--accounts 500 --repeat 1",
    "defaults.py": "FOLDER --draws 4 --only VolTarget Constant --from 2023-01-01 --to 2023-02-10",
    "fetch.py": "--months 1 --interval 1h",
    "forecast_models.py": "QUARTER --least 20 --paths 4 --models gbm --from 2023-01-01 "
    "--to 2023-03-17",
    "forecast.py": "FOLDER --from 2023-01-01 --to 2023-02-10",
    "funding_paths.py": "FOLDER --paths 2 --days 2",
    "intervals.py": "--days 60 --pairs 1 --kinds normal",
    "lookahead.py": "--bars 2000 --sets 4 --repeat 1 --only Kelly",
    "pictures.py": "--bars 240 --sets 2 --out PICTURES",
    "policies.py": "--bars 500 --sets 2 --repeat 1 --only Constant",
    "portfolio.py": "--bars 2000 --sets 8 --repeat 1 --only recorded",
    "real_portfolio.py": "COINS --json --gross 5 --from 2023-01-01 --to 2023-01-03",
    "real.py": "FOLDER --json --from 2023-01-01 --to 2023-02-10",
    "restarts.py": "--only sample --seeds 1 --budget 600",
    "options.py": "--options 2000",
    "pooled.py": "QUARTER --trials 20 --tune 2023-01-01 2023-02-15 --score 2023-02-15 2023-03-17",
    "leaderboard.py": "QUARTER --only VolTarget --risks 1 --train 30d --test 20d --trials 4 "
    "--from 2023-01-01 --to 2023-03-17 --out LEADERS",
    "luck.py": "--paths 2 --sets 24 --days 240 --only Lever",
    "order_in_bars.py": "FOLDER --json --from 2023-01-01 --to 2023-01-04",
    "ratios.py": "--bars 3000 --repeat 1 --no-limits",
    "replays.py": "FOLDER --json --from 2023-01-01",
    "report.py": "--bars 3000 --sets 60",
    "risk.py": "60",
    "run.py": "--bars 3000 --repeat 1",
    "slow_decisions.py": "MINUTES --json --sets 8 --from 2023-01-01 --to 2023-01-02",
    "store.py": "--results 2",
    "hedging_error.py": "--paths 8 --block 8 --steps 16 --implied 0.45",
    "tail_hedge.py": "--leverage 2",
    "sweep.py": "--bars 3000 --sets 64 --repeat 1 --only growth --cases core",
    "validation.py": "speed --bars 4000 --sets 64 --folds 2",
    "tune.py": "--bars 2000 --seconds 0.1 --seeds 1 --only random",
    "reproduced.py": "FACTORS --only rebalancing_flows --out REPRODUCED",
    "replications/rebalancing_flows.py": "--days 30",
    "replications/thorp_ruin.py": "--walks 4 --years 1",
    "replications/cppi_gap.py": "--paths 20",
    "replications/daily_funds.py": "FACTORS",
    "replications/grossman_zhou.py": "--years 1",
    "replications/kelly_growth.py": "--years 1",
    "replications/leveraged_funds.py": "--years 1",
    "replications/moreira_muir.py": "FACTORS",
    "replications/moreira_muir_factors.py": "FACTORS",
    "replications/real_time_scale.py": "FACTORS",
    "replications/volatility_targeting.py": "FACTORS",
}
"""The arguments of each at its smallest size, by file."""

QUICK = ("fetch.py",)
"""What takes a second: the others compile, or are many runs."""

NEEDS = {
    "pictures.py": lambda: (
        importlib.util.find_spec("playwright")
        and (shutil.which("chromium") or shutil.which("google-chrome"))
    )
}


def find_scripts() -> set[str]:
    """Return the files of benchmarks and replications, helpers apart."""
    found = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py")}
    return found - {*HELPERS}


def write_factors(path: Path) -> Path:
    """Write daily factors as Kenneth French's file has them: made up, of the same days."""
    days = pd.bdate_range("1926-07-01", "2015-04-30")
    rng = np.random.default_rng(0)
    risk = np.exp(np.convolve(rng.normal(0.0, 0.05, len(days) + 499), np.ones(500), "valid"))
    moves = 0.03 + 0.9 * np.clip(risk, 0.3, 5.0) * rng.standard_normal(len(days))
    others = rng.normal(0.01, 0.5, (len(days), 2))
    lines = [
        f"{day:%Y%m%d},{move:8.2f},{size:8.2f},{value:8.2f},   0.010"
        for day, move, (size, value) in zip(days, moves, others, strict=True)
    ]
    path.write_text("\n".join([",Mkt-RF,SMB,HML,RF", *lines]), encoding="latin-1")
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the paths that commands are given."""
    folder = tmp_path_factory.mktemp("benchmarks")
    return {
        "FOLDER": str(folder / "btc"),
        "MINUTES": str(folder / "minutes"),
        "QUARTER": str(folder / "quarter"),
        "PICTURES": str(folder),
        "PICTURE": str(folder / "contagion.svg"),
        "COINS": str(folder / "coins"),
        "FACTORS": str(folder / "f.csv"),
        "REPRODUCED": str(folder / "reproduced.json"),
        "LEADERS": str(folder / "leaderboard.json"),
    }


def save_coins(folder: Path) -> None:
    """Save three made-up markets, each in a folder of its own."""
    for seed, name in enumerate(("BTCUSDT", "ETHUSDT", "LTCUSDT")):
        bt.Market.sample(bars=48, seed=seed).save(folder / name)


def prepare(words: list[str], places: dict[str, str]) -> list[str]:
    """Return arguments with paths, and make what they lead to."""
    if "FOLDER" in words and not Path(places["FOLDER"]).exists():
        bt.Market.sample(bars=24 * 40).save(places["FOLDER"])
    if "MINUTES" in words:
        bt.Market.sample(bars=24 * 60, interval="1m").save(places["MINUTES"])
    if "QUARTER" in words and not Path(places["QUARTER"]).exists():
        fields = {**bt.Market.sample(bars=24 * 75).fields(), "instrument": "BTCUSDT"}
        bt.Market(**fields, source="made up").save(places["QUARTER"])
    if "COINS" in words and not Path(places["COINS"]).exists():
        save_coins(Path(places["COINS"]))
    if "FACTORS" in words:
        write_factors(Path(places["FACTORS"]))
    return [places.get(word, word) for word in words]


def call(*words: str, home: str) -> str:
    """Run a script of the root as the pages say it, and return what it printed.

    Nothing of the environment leads to the package ``tests``.
    """
    facts = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**facts, "BACKTEST_RESULTS": home},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read_json(text: str) -> Any:
    """Return the JSON object that ends a text."""
    return json.loads(text[("\n" + text).rindex("\n{") :])


def list_commands() -> list[tuple[str, str, list[str]]]:
    """Return the commands of the pages: page, script and flags."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for script, rest in re.findall(r"benchmarks/([\w/]+\.py)([^`\n]*)`", text):
            found.append((page.name, script, re.findall(r"--[\w-]+", rest)))
    return found


def test_every_benchmark_and_replication_has_its_smallest_size():
    assert {*SMALLEST} == find_scripts()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SMALLEST]
)
def test_it_runs_and_prints_json(name, places, tmp_path):
    if name in NEEDS and not NEEDS[name]():
        pytest.skip("needs Chromium")
    if name in ("ratios.py", "run.py", "sweep.py"):
        pytest.importorskip("vectorbt")
    words = prepare(SMALLEST[name].split(), places)
    report = read_json(call(f"benchmarks/{name}", *words, home=str(tmp_path)))
    assert isinstance(report, dict)
    assert report


@pytest.mark.slow
def test_walks_on_real_prices_run(places, tmp_path):
    words = "QUARTER --json --walks --trials 4 --train 40d --test 30d"
    span = "--from 2023-01-01 --to 2023-03-17"
    given = prepare([*words.split(), *span.split()], places)
    report = read_json(call("benchmarks/real.py", *given, home=str(tmp_path)))
    assert [row["policy"] for row in report["walks"]] == [
        "VolTarget", "SharpeScaling", "Cppi", "TrendVol",
    ]  # fmt: skip


@pytest.mark.slow
def test_they_all_load_where_tests_cannot_be_imported(tmp_path):
    """In one process: a name that the library no longer has is found at once."""
    script = tmp_path / "load.py"
    script.write_text(
        "import runpy, sys\n"
        "sys.modules['tests'] = None  # what is asked of it cannot be imported\n"
        f"sys.path[:0] = [{str(BENCHMARKS)!r}, {str(BENCHMARKS / 'replications')!r}]\n"
        f"for name in {sorted(find_scripts())!r}:\n"
        f"    found = runpy.run_path({str(BENCHMARKS)!r} + '/' + name, run_name='loaded')\n"
        "    assert callable(found['main']), name\n"
        "print('{}')\n",
        encoding="utf-8",
    )
    assert read_json(call(str(script), home=str(tmp_path))) == {}


def test_the_commands_of_the_pages_exist_with_their_flags():
    commands = list_commands()
    assert {"run.py", "fetch.py", "sweep.py"} <= {script for _, script, _ in commands}
    for page, script, flags in commands:
        assert script in SMALLEST, f"{page}: {script}"
        text = (BENCHMARKS / script).read_text(encoding="utf-8")
        for flag in flags:
            assert f'"{flag}"' in text, f"{page}: {script} has no {flag}"


def test_a_drift_of_0_is_refused(monkeypatch, capsys):
    """The leverage of the third arm divides by it."""
    monkeypatch.setattr(sys, "argv", ["tail_hedge.py", "--drift", "0"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(BENCHMARKS / "tail_hedge.py"), run_name="__main__")
    assert "--drift must be above 0, got 0.0" in capsys.readouterr().err


def test_each_says_how_it_is_called():
    """The command in the docstring is the one that is tested, with flags that it has."""
    for name in SMALLEST:
        text = (BENCHMARKS / name).read_text(encoding="utf-8")
        said = re.search(rf"^    python benchmarks/{re.escape(name)}(.*)$", text, re.MULTILINE)
        assert said, name
        for flag in re.findall(r"--[\w-]+", said[1]):
            assert f'"{flag}"' in text, f"{name} has no {flag}"
