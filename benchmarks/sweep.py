"""What a sweep costs per bar and set, beside the same by hand in C and vectorbt. Prints JSON.

    python benchmarks/sweep.py [--limit PATH] [--bars 525600] [--sets 512] [--only PART ...]

``--limit`` is the binary of the same sweep in C, called with bars, sets and threads, which prints
nanoseconds per bar and set; it is built with ``-O3 -march=native -ffast-math -fopenmp``. Ours and
theirs take turns and the best of each counts. Before anything is timed, rows of the sweep must
equal single runs to 1e-9.

* ``core``: linear contract, one bracket, no lots, ``metrics="core"``, 1 and 2 threads;
* ``every_bar``: the same where every set trades at every bar, as the C code does;
* ``all``: every measure, with lots and the cap of initial margin;
* ``rules``: five brackets, isolated margin, partial liquidation, a stop, an inverse contract, with
  every measure; ``rules_core`` with those of ``core``;
* ``power``: a power that varies;
* ``vectorbt``: target-percent orders with fees, 64 columns, without and with measures;
* ``million``: 1,000,000 sets on 61,320 hourly bars, with the peak of memory.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import timing

import backtest as bt
from backtest.strategies import VolTarget
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import VariedTest

HOURLY_BARS = 61_320
SIMPLE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)
ACCOUNT = bt.Account(band=0.02, max_leverage=20.0)
PARTS = ("ratios", "vectorbt", "million")


class Restless(bt.Policy):
    """Ask for another leverage at every bar."""

    target: Annotated[float, bt.Range(0.01, 10.0)] = 0.5

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return noise, the same at every call."""
        noise = np.random.default_rng(0).random(10_000_000)[: market.n_bars]
        return {"sigma": 0.6 * (0.7 + 0.6 * noise)}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return target / sigma."""
        return self.target / bar.sigma


class Case(NamedTuple):
    """A sweep to be timed."""

    policy: type[bt.Policy] | bt.Policy
    sets: Mapping[str, np.ndarray]
    venue: bt.Venue
    account: bt.Account
    metrics: Any


def make_cases(n_sets: int) -> dict[str, Case]:
    """Return the sweeps by name."""
    targets = 0.05 + 1.95 * np.arange(n_sets) / n_sets
    both = {"target": targets, "account.max_leverage": 1.0 + (np.arange(n_sets) * 7919 % 20)}
    lots = bt.Venue.simple(
        taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=10, liquidation_fee=0.0125,
        lot=0.001,
    )  # fmt: skip
    brackets = [
        bt.Bracket(
            floor=1.0 * k, cap=1.0 * (k + 1), max_leverage=50.0 / (k + 1),
            maintenance_rate=0.004 * (k + 1),
        )
        for k in range(5)
    ]  # fmt: skip
    full = bt.Venue(
        contract=bt.Contract(kind="inverse", size=100.0, lot=1.0),
        brackets=brackets,
        fees=bt.Fees(taker=5e-4, maker=2e-4),
        slippage=bt.Slippage(rate=1e-4),
        liquidation=bt.Liquidation(mode="partial", fee=0.0125, slippage=0.002, step=0.2),
    )
    isolated = bt.Account(
        capital=0.5, margin="isolated", venue_leverage=10.0, band=0.02, stop_loss=0.2,
        max_leverage=8.0,
    )  # fmt: skip
    powers = 0.5 + 2.5 * (np.arange(n_sets) * 7919 % n_sets) / n_sets
    return {
        "core": Case(VolTarget(half_life=2000), both, SIMPLE, ACCOUNT, "core"),
        "every_bar": Case(Restless, both, SIMPLE, ACCOUNT, "core"),
        "all": Case(VolTarget(half_life=2000), both, lots, ACCOUNT, "all"),
        "rules": Case(VolTarget(half_life=2000), {"target": targets}, full, isolated, "all"),
        "rules_core": Case(VolTarget(half_life=2000), {"target": targets}, full, isolated, "core"),
        "power": Case(
            VolTarget(half_life=2000), {**both, "power": powers}, SIMPLE, ACCOUNT, "core"
        ),
    }


def build(market: bt.Market, case: Case, threads: int = 1) -> Evaluator:
    """Return what scores a case's sets."""
    varied = VariedTest(bt.Backtest(market, venue=case.venue, account=case.account), case.policy)
    return Evaluator(varied, metrics=case.metrics, threads=threads, memory="4GiB")


def check_parity(cases: Mapping[str, Case]) -> dict[str, int]:
    """Compare rows of each sweep with single runs to 1e-9; raise where one differs."""
    market = bt.Market.sample(bars=20_000, interval="1m")
    compared = {}
    for name, case in cases.items():
        evaluator = build(market, case)
        rows = evaluator.evaluate(case.sets)
        if any(rows.errors):
            raise SystemExit(f"{name}: {next(filter(None, rows.errors))}")
        chosen = range(0, len(rows.done), max(1, len(rows.done) // 8))
        for k in chosen:
            result = evaluator.replay({key: values[k] for key, values in case.sets.items()})
            for metric, column in rows.metrics.items():
                known = result.metrics[metric]
                if not np.isclose(column[k], known, rtol=1e-9, atol=1e-9, equal_nan=True):
                    raise SystemExit(f"{name}, set {k}, {metric}: the sweep differs from the run")
        compared[name] = len(chosen)
    return compared


def time_case(market: bt.Market, case: Case, threads: int) -> Callable[[], float]:
    """Return a function that sweeps a case and says the nanoseconds per bar and set.

    CPU time on one thread, wall time on several.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    evaluator = build(market, case, threads)
    n_sets = len(next(iter(case.sets.values())))
    evaluator.evaluate({name: values[:64] for name, values in case.sets.items()})

    def work() -> float:
        start = clock()
        evaluator.evaluate(case.sets)
        return (clock() - start) / market.n_bars / n_sets * 1e9

    return work


def time_limit(path: str, n_bars: int, n_sets: int, threads: int) -> Callable[[], float]:
    """Return a function that runs the C program and says what it printed."""
    command = [path, str(n_bars), str(n_sets), str(threads)]

    def work() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[0])

    return work


def measure_ratios(
    market: bt.Market, cases: Mapping[str, Case], limit: str, repeat: int
) -> dict[str, Any]:
    """Time every case at 1 and 2 threads beside the C program."""
    report: dict[str, Any] = {}
    for threads in (1, 2):
        for name, case in cases.items():
            n_sets = len(next(iter(case.sets.values())))
            works = [time_case(market, case, threads)]
            if limit:
                works.append(time_limit(limit, market.n_bars, n_sets, threads))
            ours, *theirs = timing.best_of(repeat, *works)
            found = {"ns_per_bar_and_set": ours}
            if theirs:
                found |= {"limit_ns": theirs[0], "ratio": ours / theirs[0]}
            report.setdefault(name, {})[f"threads_{threads}"] = found
    return report


def measure_vectorbt(market: bt.Market, case: Case, repeat: int) -> dict[str, Any]:
    """Time the core case against vectorbt at 64 columns, its fastest engine."""
    import vectorbt as vbt  # noqa: PLC0415 - two seconds, only where compared

    engine = timing.list_engines()[-1]
    columns = 64
    sigma = VolTarget(half_life=2000).observe(market)["sigma"]
    with np.errstate(divide="ignore"):
        targets = np.linspace(0.05, 1.0, columns)[None, :] / sigma[:, None]
    targets = pd.DataFrame(np.clip(targets, 0.0, 1.0)).shift(1)
    opens = pd.Series(market.open)
    closes = pd.Series(market.close)

    def simulate() -> Any:
        return vbt.Portfolio.from_orders(
            closes, targets, size_type="targetpercent", price=opens, val_price=opens, fees=5e-4,
            freq="1min", init_cash=10_000, engine=engine,
        )  # fmt: skip

    def simulate_and_measure() -> None:
        portfolio = simulate()
        portfolio.sharpe_ratio()
        portfolio.max_drawdown()
        portfolio.total_return()

    unit = market.n_bars * columns / 1e9
    theirs = (timing.timed(simulate, unit), timing.timed(simulate_and_measure, unit))
    ours, bare, measured = timing.best_of(repeat, time_case(market, case, 1), *theirs)
    return {
        "engine": engine,
        "ours_ns": ours,
        "simulation_ns": bare,
        "with_measures_ns": measured,
        "times_faster_than_simulation": bare / ours,
        "times_faster_than_with_measures": measured / ours,
    }


def measure_million(n_sets: int) -> dict[str, float]:
    """Sweep many sets on hourly bars; return rates and the peak of memory over the market."""
    market = bt.Market.sample(bars=HOURLY_BARS)
    cases = [make_cases(n)["core"] for n in (512, n_sets)]
    few = timing.best_of(5, time_case(market, cases[0], 2))[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = time_case(market, cases[1], 2)()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "sets": n_sets,
        "ns_per_bar_and_set": many,
        "ns_with_512_sets": few,
        "slower_by": many / few - 1.0,
        "seconds": many * n_sets * HOURLY_BARS / 1e9,
        "peak_bytes_over_before": (after - before) * 1024.0,
    }


def main() -> None:
    """Measure everything asked for and print it."""
    wanted = timing.read_flags(
        __doc__, limit="", bars=525_600, sets=512, million=1_000_000, repeat=5, only=PARTS,
        cases=[*make_cases(1)],
    )  # fmt: skip
    cases = make_cases(wanted.sets)
    cases = {name: cases[name] for name in wanted.cases}
    report: dict[str, Any] = {
        "machine": timing.describe_machine(),
        "bars": wanted.bars,
        "sets": wanted.sets,
        "sets_equal_to_runs": check_parity(cases),
    }
    market = bt.Market.sample(bars=wanted.bars, interval="1m")
    if "ratios" in wanted.only:
        report["ratios"] = measure_ratios(market, cases, wanted.limit, wanted.repeat)
    core = make_cases(wanted.sets)["core"]
    if "vectorbt" in wanted.only:
        report["vectorbt"] = measure_vectorbt(market, core, max(1, wanted.repeat // 2))
    if "million" in wanted.only:
        report["million"] = measure_million(wanted.million)
    timing.print_json(report)


if __name__ == "__main__":
    main()
