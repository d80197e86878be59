"""The times of docs/found.md in two trees, in turn, on one machine. Prints JSON.

    python benchmarks/both.py [--before FOLDER] [--repeat 5] [--only LINE ...]

The folder is another checkout; the other tree is that of this file, also without a folder, which
shows how much the machine's speed varies. Each runs its own benchmarks, from
a cache folder of its own that is warm after the first turn, which is not counted. Each figure is
the least of its repeats: CPU seconds of whole processes, or what a benchmark prints.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parents[1]


class Line(NamedTuple):
    """What is timed: a command, and the figures in the JSON that it prints, by their path.

    Without figures it is the CPU time of the process. ``aims`` are those of the figures, in order;
    ``most`` is the most turns that are worth their time.
    """

    command: tuple[str, ...]
    figures: tuple[str, ...] = ()
    aims: tuple[str, ...] = ()
    most: int = 100


RATIOS = (
    "run", "run_vectorbt", "measures", "sweep_c", "every_bar", "rules", "rules_all", "power",
    "risk", "risk_columns", "import", "process",
)  # fmt: skip
LINES = {
    "recorded": Line(
        ("benchmarks/run.py", "--only", "recorded", "loop"),
        (
            "recorded.ours_seconds", "recorded.times_faster", "loop.ns_per_bar",
            "loop.ns_per_bar_vol_target", "loop.ns_per_bar_with_all_measures",
        ),
        ("1.2 loops", ">= 2"),
    ),
    "import": Line(("-c", "import backtest")),
    "libraries": Line(("-c", "import pandas, numba, pyarrow")),
    "run": Line(("-m", "backtest", "run", "--results", "{folder}"), aims=("0.8",)),
    "risk": Line(("-m", "backtest", "risk", "--results", "{folder}"), aims=("6",), most=2),
    "several_cold": Line(
        ("benchmarks/portfolio.py", "--only", "cold"),
        ("cold.compiling_cpu_seconds", "cold.plain_answer_cpu_seconds"), ("30", "3"), most=2,
    ),
    "sweep_cold": Line(
        ("benchmarks/sweep.py", "--only", "compile"),
        ("compile.cold", "compile.new_policy", "compile.second_process"), ("8",), most=2,
    ),
    "million": Line(
        ("benchmarks/sweep.py", "--only", "million"),
        ("million.peak_bytes_over_before", "million.ns_per_bar_and_set"), ("2**30",), most=1,
    ),
    "ratios": Line(
        ("benchmarks/ratios.py", "--no-limits"), tuple(f"{name}.ratio" for name in RATIOS), most=2,
    ),
}  # fmt: skip


def measure(line: Line, tree: Path, folder: Path) -> list[float]:
    """Run a command in a tree and return its figures."""
    words = [each.format(folder=folder / "results") for each in line.command]
    places = {
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "",  # modules are compiled in the first turn, as for a user
        "BACKTEST_CACHE_DIR": str(folder),
        "BACKTEST_COMPILE": "now",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, env={**os.environ, **places}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not line.figures:
        return [after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime]
    printed = json.loads(done.stdout)
    return [find_figure(printed, path) for path in line.figures]


def find_figure(printed: Any, path: str) -> float:
    """Return the number at a path in what was printed; NaN if it is not there."""
    found = reduce(lambda part, name: part.get(name, {}), path.split("."), printed)
    return float(found or "nan")


def compare(line: Line, trees: list[Path], folders: list[Path], repeat: int) -> dict[str, Any]:
    """Return the best of each figure of a line in each tree, their ratio, and its aim."""
    turns: list[list[list[float]]] = [[], []]
    for _ in range(min(repeat, line.most) + 1):
        for found, tree, folder in zip(turns, trees, folders, strict=True):
            found.append(measure(line, tree, folder))
    report = {}
    for k, name in enumerate(line.figures or ("cpu_seconds",)):
        choose = max if name.endswith("times_faster") else min
        old, new = (choose(row[k] for row in found[1:]) for found in turns)
        aim = line.aims[k] if k < len(line.aims) else ""
        report[name] = {"before": old, "after": new, "ratio": round(new / old, 3), "aim": aim}
    return report


def main() -> None:
    """Print the figures of the lines that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--before", type=Path, default=HERE)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=LINES, default=[*LINES])
    wanted = parser.parse_args()
    trees = [wanted.before.resolve(), HERE]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "before", Path(name) / "after"]
        for folder in folders:
            folder.mkdir()
        report = {line: compare(LINES[line], trees, folders, wanted.repeat) for line in wanted.only}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
