"""What one run costs, beside what a user would pick instead. Prints JSON.

    python benchmarks/run.py [--bars 525600] [--repeat 7] [--only PART ...]

Figures are the least CPU time of some repeats, ours and theirs in turn:

* ``recorded``: a run fully recorded with all its metrics, against vectorbt's fastest engine that
  is installed, doing ``from_orders`` on the same targets and then Sharpe, drawdown and return;
* ``loop``: the compiled bar loop alone, nothing recorded, under a policy whose formula costs
  nothing (a constant), and under the volatility target;
* ``process``: ``backtest run`` on the sample as a whole process, against importing its libraries;
* ``memory``: the peak of what a run allocates, against the size of what it records.
"""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import timing

import backtest as bt
from backtest.engine import begin, bind_loop, measure_account, set_up_run
from backtest.engine.batch import list_policies
from backtest.strategies import Constant, VolTarget

os.environ["BACKTEST_COMPILE"] = "now"  # compiled code is timed
POLICY = VolTarget()
ACCOUNT = bt.Account(band=0.02)
VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)
PARTS = ("recorded", "loop", "process", "memory")


def measure_recorded(market: bt.Market, repeat: int) -> dict[str, Any]:
    """Time a recorded run with all metrics against vectorbt on the same targets."""
    import vectorbt as vbt  # noqa: PLC0415 - two seconds, only where compared

    result = bt.run(market, POLICY, venue=VENUE, account=ACCOUNT)
    # Without their times: vectorbt takes ten times as long where an index has a time zone.
    targets = pd.Series(result.bars["target"].to_numpy()).clip(0, 1).shift(1)
    opens = pd.Series(market.open)
    closes = pd.Series(market.close)

    def ours() -> None:
        dict(bt.run(market, POLICY, venue=VENUE, account=ACCOUNT).metrics)

    def theirs(engine: str) -> Callable[[], None]:
        def work() -> None:
            portfolio = vbt.Portfolio.from_orders(
                closes, targets, size_type="targetpercent", price=opens, val_price=opens, fees=5e-4,
                slippage=1e-4, freq="1min", init_cash=10_000, engine=engine,
            )  # fmt: skip
            portfolio.sharpe_ratio()
            portfolio.max_drawdown()
            portfolio.total_return()

        return work

    engines = {name: theirs(name) for name in timing.list_engines()}
    seconds, *others = timing.best_of(repeat, *map(timing.timed, (ours, *engines.values())))
    fastest = min(zip(others, engines, strict=True))
    return {
        "ours_seconds": seconds,
        "ours_ns_per_bar": seconds / market.n_bars * 1e9,
        "vectorbt_seconds": dict(zip(engines, others, strict=True)),
        "vectorbt_fastest": fastest[1],
        "times_faster": fastest[0] / seconds,
    }


def measure_loop(market: bt.Market, repeat: int) -> dict[str, float]:
    """Time the compiled loop alone."""
    works = [prepare_loop(market, policy) for policy in (Constant(), POLICY)]
    seconds = timing.best_of(repeat, *map(timing.timed, works))
    names = ("ns_per_bar", "ns_per_bar_vol_target")
    return {n: each / market.n_bars * 1e9 for n, each in zip(names, seconds, strict=True)}


def prepare_loop(
    market: bt.Market | bt.Markets,
    policy: bt.Policy,
    account: bt.Account = ACCOUNT,
) -> Callable[[], Any]:
    """Return the loop around a policy, with its measures and without a record, to be timed."""
    setup = set_up_run(bt.Backtest(market, venue=VENUE, account=account), policy)
    policies = list_policies(setup.observed)

    def work() -> None:
        inputs, state, deciders, tally = begin(setup)
        (bound,) = bind_loop([(deciders, policies)], is_compiled=True).deciders
        measure_account(inputs, state, bound, tally, 0, has_units=False, progress=None)

    return work


def measure_process(repeat: int) -> dict[str, float]:
    """Time ``backtest run`` as a whole process against importing pandas, numba and pyarrow."""
    with tempfile.TemporaryDirectory() as folder:
        run = timing.timed_process("-m", "backtest", "run", "--results", folder)
        bare = timing.timed_process("-c", "import pandas, numba, pyarrow")
        ours, imports = timing.best_of(repeat, run, bare)
    return {"run_seconds": ours, "import_seconds": imports, "ratio": ours / imports}


def measure_memory(market: bt.Market) -> dict[str, float]:
    """Return the peak of a run's allocations and the size of what it recorded."""
    bt.run(market, POLICY, venue=VENUE, account=ACCOUNT)
    tracemalloc.start()
    result = bt.run(market, POLICY, venue=VENUE, account=ACCOUNT)
    dict(result.metrics)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    recorded = 18 * result.of_account("equity").nbytes + np.asarray(result.entries).nbytes
    return {"peak_bytes": peak, "recorded_bytes": recorded, "ratio": peak / recorded}


def main() -> None:
    """Measure everything asked for and print it."""
    wanted = timing.read_flags(__doc__, bars=525_600, repeat=7, only=PARTS)
    market = bt.Market.sample(bars=wanted.bars, interval="1m")
    parts: dict[str, Callable[[], Any]] = {
        "recorded": lambda: measure_recorded(market, wanted.repeat),
        "loop": lambda: measure_loop(market, wanted.repeat),
        "process": lambda: measure_process(wanted.repeat),
        "memory": lambda: measure_memory(market),
    }
    report = {
        "machine": timing.describe_machine(),
        "bars": wanted.bars,
        **{name: parts[name]() for name in PARTS if name in wanted.only},
    }
    timing.print_json(report)


if __name__ == "__main__":
    main()
