"""Ratios of times that hold on any machine, with their limits. Prints JSON; exit 1 beyond a limit.

    python benchmarks/ratios.py [--repeat 5] [--bars 525600] [--no-limits]

Both sides of a ratio take turns in one run, and the best CPU time of each counts. ``aim`` is where
a ratio should be, ``limit`` what it must not pass, ``reason`` the figure reached and what stands in
the way of the aim: the nightly workflow runs this, so that nothing grows unnoticed. A limit is only
lowered, but for a change of the engine that gives speed up on purpose. With ``--no-limits`` it
never fails. Ratios to the C program ``limit.c`` need a compiler, those to vectorbt the package;
without them they are left out.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from run import ACCOUNT, POLICY, VENUE, measure_recorded, prepare_loop
from sweep import Case, make_cases, time_case, time_limit
from timing import best_of, print_json, read_flags, timed, timed_process

import backtest as bt
from backtest.risk import PathsRunner
from backtest.strategies import Constant, VolTarget

SETS = 512
PATHS, PATH_BARS = 2000, 720
NATIVE = ("-O3", "-march=native", "-ffast-math", "-fopenmp")
LIBRARIES = "import pandas, numba, pyarrow"


class Ratio(NamedTuple):
    """One time over another: what is aimed at, what must not be passed, and why that is more."""

    aim: float
    limit: float
    meaning: str
    reason: str = ""


RATIOS = {
    "run": Ratio(
        1.2, 2.0, "recorded run with all metrics / its bare loop with all measures",
        "1.6 to 1.8: writing the record, measures of the path, reading inputs, the manifest",
    ),
    "run_vectorbt": Ratio(
        0.75, 1.2, "the same run / vectorbt's from_orders, its faster engine",
        "0.73 and 0.77 on a loaded machine: quiet bars and fills take one pass",
    ),
    "sweep_c": Ratio(
        1.2, 2.7, "sweep of 512 sets / the same by hand in C",
        "2.0 to 2.3: a bar is four passes over 64 sets (look, decide, close, count), one in C",
    ),
    "every_bar": Ratio(
        1.8, 2.4, "every set trades at every bar / the plain sweep",
        "1.5 to 2.0: the plain sweep leaves out the trades that its sets do not make",
    ),
    "rules": Ratio(
        2.0, 2.5, "five brackets, isolated, partial liquidation / the plain sweep",
        "1.9 to 2.3, as the plain sweep is faster than it was",
    ),
    "rules_all": Ratio(2.5, 3.3, "the same with all metrics / the plain sweep", "2.4 to 2.6"),
    "power": Ratio(
        2.0, 3.3, "formula with a power that varies / the plain sweep",
        "2.7 to 3.0: 166 vector instructions and two divisions for eight sets, without fused ones",
    ),
    "risk": Ratio(
        50.0, 180.0, "a bar of a path of the risk / a bar of a set of the plain sweep",
        "130 to 140: paths run one by one, and are drawn; 430 ns, and the plain sweep takes 3.3",
    ),
    "risk_columns": Ratio(1.4, 1.7, "risk of a policy with columns / of one without"),
    "import": Ratio(1.25, 1.25, f"import backtest / {LIBRARIES}"),
    "process": Ratio(1.8, 2.4, f"backtest run, whole process / {LIBRARIES}"),
}  # fmt: skip


def time_risk(market: bt.Market, policy: bt.Policy) -> Callable[[], float]:
    """Return a function that takes an account through paths and says ns per bar of a path."""
    paths = bt.simulate_paths(market, "filtered", paths=PATHS, horizon=f"{PATH_BARS}h", seed=1)
    runner = PathsRunner(paths, policy, bt.Backtest(market, venue=VENUE, account=bt.Account()))
    return timed(lambda: [None for _ in runner.run_chunks()], PATHS * PATH_BARS / 1e9)


def measure_runs(market: bt.Market, repeat: int) -> Iterator[tuple[str, float]]:
    """Yield the ratios of single runs."""

    def run() -> None:
        dict(bt.run(market, POLICY, venue=VENUE, account=ACCOUNT).metrics)

    recorded, bare = best_of(repeat, *map(timed, (run, prepare_loop(market, POLICY))))
    yield "run", recorded / bare
    if find_spec("vectorbt") is not None:
        yield "run_vectorbt", 1.0 / measure_recorded(market, repeat)["times_faster"]


def measure_sweeps(market: bt.Market, repeat: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the ratios of sweeps and of paths, to the plain sweep."""
    cases = make_cases(SETS)
    names = {"every_bar": "every_bar", "rules": "rules_core", "rules_all": "rules"}
    names["power"] = "power"

    def sweep(case: Case) -> Callable[[], float]:
        return time_case(market, case, 1)

    sample = bt.Market.sample()
    risks = (time_risk(sample, Constant()), time_risk(sample, VolTarget()))
    works = [sweep(cases["core"]), *(sweep(cases[name]) for name in names.values()), *risks]
    program = build_program(folder)
    if program is not None:
        works.append(time_limit(program, market.n_bars, SETS, 1))
    plain, *others = best_of(repeat, *works)
    yield from ((name, ns / plain) for name, ns in zip(names, others, strict=False))
    bare, columns = others[len(names) : len(names) + 2]
    yield "risk", bare / plain
    yield "risk_columns", columns / bare
    if program is not None:
        yield "sweep_c", plain / others[-1]


def build_program(folder: Path) -> str | None:
    """Return the binary of the sweep in C; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, program = Path(__file__).with_name("limit.c"), str(folder / "limit")
    subprocess.run([compiler, *NATIVE, str(source), "-lm", "-o", program], check=True)
    return program


def measure_processes(repeat: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the ratios of whole processes."""
    command = ("-m", "backtest", "run", "--results", str(folder))
    words = (("-c", LIBRARIES), ("-c", "import backtest"), command)
    libraries, package, run = best_of(repeat, *(timed_process(*each) for each in words))
    yield "import", package / libraries
    yield "process", run / libraries


def main() -> int:
    """Measure and print; return 1 if a ratio is beyond its limit."""
    wanted = read_flags(__doc__, repeat=5, bars=525_600, **{"no-limits": False})
    market = bt.Market.sample(bars=wanted.bars, interval="1m")
    with tempfile.TemporaryDirectory() as name:
        found = {
            **dict(measure_processes(wanted.repeat, Path(name))),
            **dict(measure_runs(market, wanted.repeat)),
            **dict(measure_sweeps(market, wanted.repeat, Path(name))),
        }
    report = {
        name: {
            "ratio": round(ratio, 3),
            "is_over": ratio > RATIOS[name].limit,
            **RATIOS[name]._asdict(),
        }
        for name, ratio in found.items()
    }
    print_json(report)
    return int(not vars(wanted)["no-limits"] and any(each["is_over"] for each in report.values()))


if __name__ == "__main__":
    raise SystemExit(main())
