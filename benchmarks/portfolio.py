"""What several positions on one collateral cost, beside single runs and vectorbt. Prints JSON.

    python benchmarks/portfolio.py [--bars 100000] [--sets 256] [--repeat 3] [--only PART ...]

Figures are CPU time, the best of some repeats, the works taking turns, on one thread:

* ``recorded``: a run of 8 instruments, fully recorded with its metrics, against eight recorded
  single runs of the same markets and policy (at most 1.5 times);
* ``sweep``: nanoseconds per bar, set and instrument of a sweep of 8 instruments, against a sweep of
  one instrument under the full rules of ``benchmarks/sweep.py`` (at most 2.5 times); rows must
  equal single runs bit for bit;
* ``vectorbt``: the sweep against ``from_orders(cash_sharing=True)`` on the same weights, its
  fastest engine that is installed, simulation only (at least 20 times faster). Ours has a band of
  2 %, and once more none, so that it trades at every open as vectorbt does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sweep import SIMPLE as VENUE
from sweep import make_cases
from timing import best_of, describe_machine, list_engines, print_json, read_flags, timed

import backtest as bt
from backtest.strategies import VolTarget

os.environ["BACKTEST_COMPILE"] = "now"  # compiled code is timed
N = 8
NAMES = tuple(f"COIN{k}" for k in range(N))
ACCOUNT = bt.Account(band=0.02)
POLICY = VolTarget()
PARTS = ("recorded", "sweep", "vectorbt")


def make_markets(bars: int) -> bt.Markets:
    """Return eight synthetic markets of one minute."""
    samples = (bt.Market.sample(bars=bars, interval="1m", seed=k) for k in range(N))
    return bt.Markets(dict(zip(NAMES, samples, strict=True)))


def measure_recorded(markets: bt.Markets, repeat: int) -> dict[str, Any]:
    """Time a run of all instruments against a run of each."""

    def together() -> None:
        dict(bt.run(markets, POLICY, venue=VENUE, account=ACCOUNT).metrics)

    def apart() -> None:
        for market in markets.values():
            dict(bt.run(market, POLICY, venue=VENUE, account=ACCOUNT).metrics)

    ours, singles = best_of(repeat, timed(together), timed(apart))
    return {"portfolio_seconds": ours, "single_runs_seconds": singles, "ratio": ours / singles}


def sweep_of(market: Any, case: Any) -> Callable[[], Any]:
    """Return a function that sweeps a case on one thread."""

    def work() -> Any:
        return bt.Backtest(market, venue=case.venue, account=case.account).sweep(
            case.policy, case.sets, metrics=case.metrics, threads=1
        )

    return work


def check_parity(markets: bt.Markets, case: Any) -> int:
    """Compare rows of a sweep with runs; raise where one is not equal to 1e-9."""
    table = sweep_of(markets, case)().table
    chosen = range(0, len(table), max(1, len(table) // 4))
    for k in chosen:
        row = table.iloc[k]
        policy = VolTarget(target=float(row["target"]))
        metrics = bt.run(markets, policy, venue=case.venue, account=case.account).metrics
        for name in ("final_equity", "sharpe", "fees"):
            if not np.isclose(row[name], metrics[name], rtol=1e-9, atol=0.0, equal_nan=True):
                raise SystemExit(f"set {k}, {name}: the sweep differs from the run")
    return len(chosen)


def measure_sweep(markets: bt.Markets, n_sets: int, repeat: int) -> dict[str, Any]:
    """Time a sweep per bar, set and instrument against the full rules of one instrument."""
    full = make_cases(n_sets)["rules"]._replace(sets={"target": np.linspace(0.05, 2.0, n_sets)})
    case = full._replace(venue=VENUE, account=ACCOUNT, policy=VolTarget())
    equal = check_parity(markets.prefix(min(markets.n_bars, 2000)), case)
    single = next(iter(markets.values()))
    several, one = best_of(repeat, *map(timed, (sweep_of(markets, case), sweep_of(single, full))))
    per_bar = several / (markets.n_bars * n_sets * N) * 1e9
    of_one = one / (single.n_bars * n_sets) * 1e9
    return {
        "ns_per_bar_set_and_instrument": per_bar,
        "full_rules_of_one_ns": of_one,
        "ratio": per_bar / of_one,
        "sets_equal_to_runs": equal,
    }


def measure_vectorbt(markets: bt.Markets, n_sets: int, repeat: int) -> dict[str, Any]:
    """Time the sweep against vectorbt with one wallet for each set's instruments."""
    import vectorbt as vbt  # noqa: PLC0415 - two seconds, only where compared

    engine = list_engines()[-1]
    columns = min(n_sets, 16)
    case = make_cases(columns)["core"]._replace(account=ACCOUNT, venue=VENUE, policy=VolTarget())
    case = case._replace(sets={"target": np.linspace(0.05, 0.5, columns)})
    opens = []
    closes = []
    weights = []
    for target in case.sets["target"]:
        for market in markets.values():
            with np.errstate(divide="ignore"):
                wanted = target / VolTarget().observe(market)["sigma"]
            opens.append(market.open)
            closes.append(market.close)
            weights.append(np.clip(wanted, 0.0, 1.0) / N)
    names = pd.MultiIndex.from_product([range(columns), NAMES], names=["set", "name"])
    price, close = (pd.DataFrame(np.array(rows).T, columns=names) for rows in (opens, closes))
    size = pd.DataFrame(np.array(weights).T, columns=names).shift(1)

    def theirs() -> object:
        return vbt.Portfolio.from_orders(
            close, size, size_type="targetpercent", price=price, val_price=price, fees=5e-4,
            slippage=1e-4, freq="1min", init_cash=10_000, cash_sharing=True, group_by="set",
            engine=engine,
        ).value()  # fmt: skip

    restless = case._replace(account=bt.Account())
    works = (sweep_of(markets, case), theirs, sweep_of(markets, restless))
    ours, their, always = best_of(repeat, *map(timed, works))
    unit = 1e9 / (markets.n_bars * columns * N)
    return {
        "engine": engine, "ours_ns": ours * unit, "vectorbt_ns": their * unit,
        "times_faster": their / ours, "ours_with_orders_at_every_open_ns": always * unit,
        "times_faster_with_them": their / always,
    }  # fmt: skip


def main() -> None:
    """Measure everything asked for and print it."""
    wanted = read_flags(__doc__, bars=100_000, sets=256, repeat=3, only=PARTS)
    markets = make_markets(wanted.bars)
    report: dict[str, Any] = {"machine": describe_machine(), "bars": wanted.bars, "instruments": N}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "recorded" in wanted.only:
            report["recorded"] = measure_recorded(markets, wanted.repeat)
        if "sweep" in wanted.only:
            report["sweep"] = measure_sweep(markets, wanted.sets, wanted.repeat)
        if "vectorbt" in wanted.only:
            report["vectorbt"] = measure_vectorbt(markets, wanted.sets, wanted.repeat)
    print_json(report)


if __name__ == "__main__":
    main()
