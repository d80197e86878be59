"""Ratios of times that hold on any machine, with their limits. Prints JSON; exit 1 beyond a limit.

    python benchmarks/ratios.py [--repeat 5] [--bars 525600] [--no-limits] [--only PART ...]

Both sides of a ratio take turns in one run, and the best CPU time of each counts. ``aim`` is where
a ratio should be, ``limit`` what it must not pass, ``reason`` the figure reached and what stands in
the way of the aim: the nightly workflow runs this, so that nothing grows unnoticed. A limit is only
lowered, but for a change of the engine that gives speed up on purpose. With ``--no-limits`` it
never fails. Ratios to the C programs ``limit.c`` and ``one_account.c`` need a compiler, those to
vectorbt and raptorbt the packages; a row that cannot be run says why. ``--only`` names parts:
processes, runs, loops, sweeps, short, accounts, memory, plain and once, whose works take minutes.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from run import ACCOUNT, POLICY, VENUE, measure_recorded, prepare_loop
from sweep import Case, make_cases, time_case, time_limit
from timing import best_of, print_json, read_flags, time_process, timed, timed_process

import backtest as bt
from backtest.risk import PathsRunner
from backtest.strategies import Constant, VolTarget

SETS, FEW, MANY = 512, 256, 4096
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
    "run_raptorbt": Ratio(
        4.0, 12.0, "the same run / raptorbt's simulate_rebalance_policy",
        "it has no margin, funding, liquidation or record, and trades at closes",
    ),
    "loop_c": Ratio(
        2.2, 6.0, "loop of one account, band .02 / the same by hand in C (one_account.c)",
        "each bar asks for more than C has: stops, brackets, ruin, policies by address",
    ),
    "loop_c_every": Ratio(2.2, 8.0, "loop of one account, band 0 / the same by hand in C"),
    "loop_stop": Ratio(2.2, 6.5, "loop of one account with a stop / the same C without one"),
    "loop_isolated": Ratio(3.0, 7.0, "loop of an isolated account / the same C, which is cross"),
    "loop_two": Ratio(
        1.0, 1.6, "loop of two positions, band 0 / two loops of one position",
        "their quiet bars go through memory, those of one position through registers",
    ),
    "plain_quiet": Ratio(1.0, 5.0, "CPU of a quiet bar in plain Python / 25 us"),
    "plain_fill": Ratio(1.0, 4.0, "CPU of a bar with a fill in plain Python / 125 us"),
    "walk": Ratio(
        1.0, 6.0, "CPU of a walk of 13 folds of 100 trials on 35,000 hours / 15 s",
        "look-ahead checks, fits of volatility, benchmarks and luck of each fold",
    ),
    "compile": Ratio(
        1.0, 2.0, "CPU of `backtest compile` / 75 s",
        "800 functions at 0.1 s each in numba, and 30 s in LLVM",
    ),
    "run_new": Ratio(
        1.7, 3.0, "a run of 8,760 hours with new numbers / with the same numbers again",
        "new numbers are observed at four more cuts, by which they may not look ahead",
    ),
    "run_again": Ratio(
        1.0, 4.0, "CPU of a run of 8,760 hours with the same numbers again / 6 ms",
        "packing the arguments, reading the inputs, measures, the manifest",
    ),
    "run_fresh": Ratio(
        1.0, 4.0, "CPU of a run of 8,760 hours with new numbers / 10 ms",
        "the same, and four more cuts of the look-ahead check",
    ),
    "set_start": Ratio(
        1.0, 3.0, "CPU of a set before its first bar, as one of 4,096 / 60 us",
        "packing and starting a block of 64 sets, and measures of each set",
    ),
    "million": Ratio(1.0, 2.0, "CPU of a set of 2,000 hours, as one of 4,096 / 90 us"),
    "help": Ratio(1.0, 1.5, "CPU of `backtest run --help` / 0.45 s"),
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


def time_raptorbt(market: bt.Market) -> Callable[[], float]:
    """Return a function that says the seconds of raptorbt's fastest engine on the same targets."""
    import raptorbt  # noqa: PLC0415 - only where compared

    result = bt.run(market, POLICY, venue=VENUE, account=ACCOUNT)
    weights = np.clip(result.bars["target"].fillna(0.0).to_numpy(), 0.0, 1.0)[:, None]
    prices = np.ascontiguousarray(market.close)[:, None]
    bars_a_year = 525_600.0

    def work() -> None:
        raptorbt.simulate_rebalance_policy(
            prices, weights, 10_000.0, "band", 0.02, periods_per_year=bars_a_year
        )

    return timed(work)


def measure_peers(market: bt.Market, repeat: int) -> Iterator[tuple[str, float]]:
    """Yield the ratio of a recorded run to raptorbt."""
    if find_spec("raptorbt") is None:
        return

    def run() -> None:
        dict(bt.run(market, POLICY, venue=VENUE, account=ACCOUNT).metrics)

    ours, theirs = best_of(repeat, timed(run), time_raptorbt(market))
    yield "run_raptorbt", ours / theirs


def measure_loops(market: bt.Market, repeat: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the ratios of the bare loop, to C and of two positions to one."""
    accounts = {
        "loop_c": ACCOUNT,
        "loop_c_every": bt.Account(band=0.0),
        "loop_stop": bt.Account(band=0.02, stop_loss=0.05),
        "loop_isolated": bt.Account(band=0.02, margin="isolated", venue_leverage=10.0),
    }
    n = market.n_bars
    loops = [timed(prepare_loop(market, POLICY, each), n / 1e9) for each in accounts.values()]
    two = bt.Markets({"ONE": market, "TWO": market})
    pair = timed(prepare_loop(two, POLICY, accounts["loop_c_every"]), n / 1e9)

    program = build_program("one_account", folder)
    in_c = [] if program is None else [run_program(program, n, band) for band in (0.02, 0.0)]
    times = best_of(repeat, *loops, pair, *in_c)
    yield "loop_two", times[len(loops)] / (2.0 * times[1])
    if program is not None:
        plain, every = times[-2:]
        for name, ns in zip(accounts, times, strict=False):
            yield name, ns / (every if name == "loop_c_every" else plain)


def run_program(program: str, n_bars: int, band: float) -> Callable[[], float]:
    """Return a function that runs the account in C and says its ns a bar."""

    def work() -> float:
        command = [program, str(n_bars), str(band)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[0])

    return work


def measure_plain(repeat: int) -> Iterator[tuple[str, float]]:
    """Yield what a bar costs in plain Python, by the difference of a long and a short run."""
    cases = {
        "plain_quiet": (Constant(1.0), bt.Account(band=0.5), 25e-6),
        "plain_fill": (VolTarget(), bt.Account(band=0.0), 125e-6),
    }
    for name, (policy, account, seconds) in cases.items():

        def run(n_bars: int, policy: bt.Policy = policy, account: bt.Account = account) -> object:
            market = bt.Market.sample(bars=n_bars)
            return bt.run(market, policy, venue=VENUE, account=account, compile=False)

        long, short = best_of(repeat, timed(lambda: run(4_000)), timed(lambda: run(1_000)))
        yield name, (long - short) / 3_000 / seconds


def measure_once(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the ratios of works of minutes, each done once."""
    test = bt.Backtest(bt.Market.sample(bars=35_000), venue=VENUE, account=ACCOUNT)
    began = time.process_time()
    test.walk_forward(VolTarget, trials=100, train="1070d", test="30d", seed=1)
    yield "walk", (time.process_time() - began) / 15.0
    command = ("-m", "backtest", "compile", "--into", str(folder / "core"))
    yield "compile", time_process(*command) / 75.0


def measure_short(repeat: int) -> Iterator[tuple[str, float]]:
    """Yield the ratios of runs of a year of hours, and of sweeps of 2,000."""
    numbers = itertools.count(1)
    hours = bt.Market.sample()
    short = bt.Market.sample(bars=2_000)

    def run(policy: bt.Policy) -> None:
        dict(bt.run(hours, policy, venue=VENUE, account=ACCOUNT).metrics)

    def run_new() -> None:
        run(VolTarget(target=0.3 + 1e-4 * next(numbers), half_life=50.0 + 0.1 * next(numbers)))

    def sweep(n_sets: int) -> Callable[[], float]:
        sets = {"target": np.linspace(0.1, 1.5, n_sets)}
        return time_case(short, Case(VolTarget, sets, VENUE, ACCOUNT, "core"), 1)

    again, new = best_of(4 * repeat, *map(timed, (lambda: run(POLICY), run_new)))
    yield "run_new", new / again
    yield "run_again", again / 6e-3
    yield "run_fresh", new / 10e-3
    few, many = best_of(repeat, sweep(FEW), sweep(4 * FEW))  # ns a bar and set
    yield "few_sets", few / (4.0 * many)

    # What a set takes besides its bars, by the difference of markets of two lengths.
    sets = {"target": np.linspace(0.1, 1.5, MANY)}
    case = Case(VolTarget, sets, VENUE, ACCOUNT, "core")
    markets = (short, bt.Market.sample(bars=2 * short.n_bars))
    in_short, in_long = best_of(repeat, *(time_case(market, case, 1) for market in markets))
    of_short = in_short * short.n_bars / 1e9
    of_long = in_long * 2 * short.n_bars / 1e9
    yield "set_start", (2.0 * of_short - of_long) / 60e-6
    yield "million", of_short / 90e-6


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
    times = market.times - pd.Timedelta(days=3_653)  # ten years from 2023 on would be to come
    pd.DataFrame({"time": times, **columns}).to_parquet(path, index=False)
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
    if find_spec("raptorbt") is None:
        yield "run_raptorbt", "raptorbt is not installed"
    if shutil.which("cc") is None:
        for name in ("sweep_c", "loop_c", "loop_c_every", "loop_stop", "loop_isolated"):
            yield name, "there is no C compiler"
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
    program = build_program("limit", folder)
    if program is not None:
        works.append(time_limit(program, market.n_bars, SETS, 1))
    plain, *others = best_of(repeat, *works)
    yield from ((name, ns / plain) for name, ns in zip(names, others, strict=False))
    bare, columns = others[len(names) : len(names) + 2]
    yield "risk", bare / plain
    yield "risk_columns", columns / bare
    if program is not None:
        yield "sweep_c", plain / others[-1]


def build_program(name: str, folder: Path) -> str | None:
    """Return the binary of a program in C; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = Path(__file__).with_name(f"{name}.c")
    program = str(folder / name)
    flags = NATIVE if name == "limit" else NATIVE[:2]  # the account checks for NaN
    subprocess.run([compiler, *flags, str(source), "-lm", "-o", program], check=True)
    return program


def measure_processes(repeat: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the ratios of whole processes."""
    command = ("-m", "backtest", "run", "--results", str(folder))
    words = (("-c", LIBRARIES), ("-c", "import backtest"), command)
    libraries, package, run = best_of(repeat, *(timed_process(*each) for each in words))
    yield "import", package / libraries
    yield "process", run / libraries
    yield "help", best_of(repeat, timed_process("-m", "backtest", "run", "--help"))[0] / 0.45


PARTS = (
    "processes", "runs", "loops", "sweeps", "short", "accounts", "memory", "plain", "once",
)  # fmt: skip


def main() -> int:
    """Measure and print; return 1 if a ratio is beyond its limit."""
    flags: dict[str, Any] = {"no-limits": False}
    wanted = read_flags(__doc__, repeat=5, bars=525_600, only=PARTS, **flags)
    market = bt.Market.sample(bars=wanted.bars, interval="1m")
    repeat = wanted.repeat
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Iterator[tuple[str, float]]]] = {
            "processes": lambda: measure_processes(repeat, folder),
            "runs": lambda: itertools.chain(
                measure_runs(market, repeat), measure_peers(market, repeat)
            ),
            "loops": lambda: measure_loops(market, repeat, folder),
            "sweeps": lambda: measure_sweeps(market, repeat, folder),
            "short": lambda: measure_short(repeat),
            "accounts": lambda: measure_accounts(repeat),
            "memory": lambda: measure_memory(repeat, folder),
            "plain": lambda: measure_plain(repeat),
            "once": lambda: measure_once(folder),
        }
        found = dict(itertools.chain(*(parts[part]() for part in wanted.only)))
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
