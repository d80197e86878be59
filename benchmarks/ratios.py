"""Ratios of times that hold on any machine, with their limits. Prints JSON; exit 1 beyond a limit.

    python benchmarks/ratios.py [--repeat 5] [--bars 525600] [--no-limits]

Both sides of a ratio take turns in one run, and the best CPU time of each counts. ``aim`` is where
a ratio should be, ``limit`` what it must not pass, ``reason`` the figure reached and what stands in
the way of the aim: the nightly workflow runs this, so that nothing grows unnoticed. A limit is only
lowered, but for a change of the engine that gives speed up on purpose. With ``--no-limits`` it
never fails. Ratios to the C program ``limit.c`` need a compiler, those to vectorbt the package; a
row that cannot be run says why.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from run import ACCOUNT, POLICY, VENUE, measure_recorded, prepare_loop
from sweep import Case, make_cases, time_case, time_limit
from timing import best_of, print_json, read_flags, timed, timed_process

import backtest as bt
from backtest.risk import PathsRunner
from backtest.strategies import Constant, VolTarget

SETS, FEW = 512, 256
STATUS = Path("/proc/self/status")
"""Where Linux says the peak memory of a process."""
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
    "run_new": Ratio(
        1.7, 3.0, "a run of 8,760 hours with new numbers / with the same numbers again",
        "new numbers are observed at four more cuts, by which they may not look ahead",
    ),
    "few_sets": Ratio(
        0.5, 1.0, "256 sets of 2,000 hours / 1,024 of them", "lanes wherever they are compiled",
    ),
    "load_memory": Ratio(
        1.2, 1.2, "peak memory of Market.load of ten years of minutes / pandas.read_parquet",
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
    "accounts_never": Ratio(1.2, 1.2, "two accounts under Never, woken daily / their two runs"),
    "accounts_wake": Ratio(
        1.0, 1.0, "CPU of a wake and account under TopUp, above the runs / 120 us",
    ),
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


def measure_short(repeat: int) -> Iterator[tuple[str, float]]:
    """Yield the ratios of runs of a year of hours, and of sweeps of 2,000."""
    numbers = itertools.count(1)
    hours, short = bt.Market.sample(), bt.Market.sample(bars=2_000)

    def run(policy: bt.Policy) -> None:
        dict(bt.run(hours, policy, venue=VENUE, account=ACCOUNT).metrics)

    def run_new() -> None:
        run(VolTarget(target=0.3 + 1e-4 * next(numbers), half_life=50.0 + 0.1 * next(numbers)))

    def sweep(n_sets: int) -> Callable[[], float]:
        sets = {"target": np.linspace(0.1, 1.5, n_sets)}
        return time_case(short, Case(VolTarget, sets, VENUE, ACCOUNT, "core"), 1)

    again, new = best_of(repeat, *map(timed, (lambda: run(POLICY), run_new)))
    yield "run_new", new / again
    few, many = best_of(repeat, sweep(FEW), sweep(4 * FEW))  # ns a bar and set
    yield "few_sets", few / (4.0 * many)


def measure_accounts(repeat: int) -> Iterator[tuple[str, float]]:
    """Yield what several accounts cost beside their runs: without transfers, and for each wake."""

    def list_works(
        bars: int, every: str, rule: bt.TransferRule
    ) -> tuple[Callable[[], object], ...]:
        test = bt.Backtest(bt.Market.sample(bars=bars), venue=VENUE, account=ACCOUNT)
        tests = {"long": test, "short": test.replace(signal=-1.0)}
        book = bt.Accounts(tests, transfer=rule, every=every, delay="30min", fee=5.0)

        def run_apart() -> None:
            for each in tests.values():
                each.run(POLICY)

        return run_apart, lambda: book.run(POLICY)

    apart, together = best_of(repeat, *map(timed, list_works(35_040, "1d", bt.Never())))
    yield "accounts_never", together / apart
    hours = 8_760
    apart, together = best_of(repeat, *map(timed, list_works(hours, "1h", bt.TopUp())))
    yield "accounts_wake", (together - apart) / (2 * hours) / WAKE_SECONDS


WAKE_SECONDS = 120e-6


def measure_memory(repeat: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield how much more memory a file takes than in pandas."""
    if not STATUS.exists():
        return
    path = folder / "bars.parquet"
    market = bt.Market.sample(bars=5_256_000, interval="1m")
    columns = {name: getattr(market, name) for name in ("open", "high", "low", "close", "volume")}
    pd.DataFrame({"time": market.times, **columns}).to_parquet(path, index=False)
    ours = f"backtest.Market.load({str(path)!r})"
    theirs = f"pandas.read_parquet({str(path)!r})"
    yield "load_memory", min(read_peak(ours) / read_peak(theirs) for _ in range(min(repeat, 3)))


def read_peak(work: str) -> int:
    """Return by how much some work raises the peak memory of a process, kB."""
    text = (
        "import pandas, pyarrow.parquet, backtest, backtest.market.files\n"
        "backtest.Market.sample(bars=10)\n"
        f"def peak(): return int(open('{STATUS}').read().split('VmHWM:')[1].split()[0])\n"
        f"before = peak()\nkept = {work}\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    return int(done.stdout)


def explain_missing() -> Iterator[tuple[str, str]]:
    """Yield the rows that cannot be run here, and why."""
    if find_spec("vectorbt") is None:
        yield "run_vectorbt", "vectorbt is not installed"
    if shutil.which("cc") is None:
        yield "sweep_c", "there is no C compiler"
    if not STATUS.exists():
        yield "load_memory", f"there is no {STATUS}"


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
            **dict(measure_short(wanted.repeat)),
            **dict(measure_accounts(wanted.repeat)),
            **dict(measure_memory(wanted.repeat, Path(name))),
        }
    report = {
        name: {
            "ratio": round(ratio, 3),
            "is_over": ratio > RATIOS[name].limit,
            **RATIOS[name]._asdict(),
        }
        for name, ratio in found.items()
    }
    is_over = any(each["is_over"] for each in report.values())
    missing = {name: {"not run": why} for name, why in explain_missing()}
    print_json({**report, **missing})
    return int(not vars(wanted)["no-limits"] and is_over)


if __name__ == "__main__":
    raise SystemExit(main())
