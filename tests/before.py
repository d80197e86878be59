"""The numbers of before: runs of all kinds, kept in ``data/before.json`` while the program shrinks.

``python -m tests.before`` from the root of the repository writes that file anew. Do so in the
commit that changes a number on purpose, and say there which, before and after.
``python -m tests.before --measures`` renews the names of measures alone: a run gets those that the
file lacks, and loses those that it no longer has. All other numbers stay as they are.

The runs are the examples, and the first accounts of each kind that the oracle simulates too.

What is kept of a run are its measures, to 17 digits, and its events; of many events the first, and
totals of all. :func:`differences` says where a run is not *equal*: money, prices and quantities
within 1e-9 of the larger of equity and turnover so far, measures that both sides know within 1e-9
of themselves or 1e-12, the same events in the same order.
"""

import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main as run_command
from backtest.cli.regress import run_experiment
from tests import cases
from tests.agreement import run_engine, trust_data
from tests.option_cases import make_option_case

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "data" / "before.json"
WAS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
EXAMPLES = ROOT / "examples"
TOLERANCE = 1e-9
LEAST = 1e-12
FITTED = dict.fromkeys(("options.toml", "tail-hedge.toml"), 1e-6)
"""Tolerances of runs on fitted surfaces: the fit stops where another processor rounds otherwise."""
MOST = 300
FIRST = 150
"""A run of more events than MOST keeps as many as FIRST, and totals by kind and month."""
SEEDS = 8
MAKERS = {
    "exit": cases.make_exit_case, "full": cases.make_full_case, "margin": cases.make_margin_case,
    "dated": cases.make_dated_case, "limit": cases.make_limit_case, "spot": cases.make_spot_case,
    "option": make_option_case,
}  # fmt: skip


def run_case(kind: str, seed: int) -> bt.Result:
    with pytest.MonkeyPatch.context() as patch:
        trust_data(patch)
        return run_engine(MAKERS[kind](seed), is_compiled=False)


def run_example(name: str) -> bt.Result:
    return run_experiment(EXAMPLES / name)


def run_imported() -> bt.Result:
    """Run an example whose data a command imports first."""
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        shutil.copytree(EXAMPLES / "data", desk / "data")
        shutil.copy(EXAMPLES / "run-imported.toml", desk)

        columns = "time=day,open=o,high=h,low=l,close=c,volume=v,view=view"
        code = run_command([
            "data", "import", str(desk / "data" / "prices.csv"), "--columns", columns,
            "--timezone", "UTC", "--instrument", "BTCUSDT",
            "--funding", str(desk / "data" / "funding.csv"), "--out", str(desk / "btc"),
        ])  # fmt: skip
        assert code == 0

        file = desk / "run-imported.toml"
        file.write_text(file.read_text().replace('path = "data"', 'path = "btc"'))
        return run_experiment(file)


def list_runs() -> dict[str, Callable[[], bt.Result]]:
    examples = [
        "btc-vol-target.toml", "run-inverse-short.toml", "loan.toml", "sweep-cppi.toml",
        "tune-drawdown-control.toml", "portfolio.toml", "carry.toml", "options.toml",
        "tail-hedge.toml", "policy-repo/experiments/steady.toml",
    ]  # fmt: skip
    runs: dict[str, Callable[[], bt.Result]] = {
        name: partial(run_example, name) for name in examples
    }
    runs["run-imported.toml"] = run_imported
    for kind in MAKERS:
        runs |= {f"{kind} {seed}": partial(run_case, kind, seed) for seed in range(SEEDS)}
    return runs


def run_quietly(make: Callable[[], bt.Result]) -> bt.Result:
    """Run one in plain Python; what its warnings say is not compared."""
    os.environ.setdefault("BACKTEST_COMPILE", "auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def describe(result: bt.Result) -> dict[str, Any]:
    """Return the measures and the events of a run; NaN and infinite numbers as text. Payments of
    less than a trillionth are left out: rounding decides whether they are there."""
    events = result.events
    is_payment = events["kind"].isin(["interest", "expense", "funding"])
    is_rounding = is_payment & (events["amount"].abs() < LEAST)
    events = events[~is_rounding]

    names = [name for name in events.columns if name not in ("time", "kind", "instrument")]
    numbers = events[names].to_numpy(dtype=float)
    minutes = (events["time"] - result.bars.index[0]) / pd.Timedelta("1min")
    owners = events["instrument"] if "instrument" in events else [""] * len(events)
    rows = [
        [round(float(minute), 6), str(kind), str(owner), *map(keep, row)]
        for minute, kind, owner, row in zip(minutes, events["kind"], owners, numbers, strict=True)
    ]

    kept = {
        "columns": names,
        "metrics": {name: keep(value) for name, value in result.metrics.items()},
        "totals": {},
        "events": rows,
    }
    if len(rows) > MOST:
        months = events["time"].dt.strftime("%Y-%m")
        totals = events.groupby([months, "kind"], observed=True)["amount"].agg(["count", "sum"])
        kept["events"] = rows[:FIRST]
        kept["totals"] = {
            f"{month} {kind}": [int(count), float(total)]
            for (month, kind), count, total in totals.itertuples()
        }
    return kept


def keep(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)


def differences(
    was: dict[str, Any], result: bt.Result, tolerance: float = TOLERANCE
) -> Iterator[str]:
    now = describe(result)
    yield from compare_measures(was["metrics"], now["metrics"], tolerance)
    yield from compare_totals(was["totals"], now["totals"], result, tolerance)
    yield from compare_events(was["events"], now["events"], now["columns"], result, tolerance)


def compare_measures(was: dict[str, Any], now: dict[str, Any], tolerance: float) -> Iterator[str]:
    """Yield where measures that both sides know differ; names are :func:`find_moved_names`'s."""
    for key in sorted(was.keys() & now.keys()):
        before = float(was[key])
        after = float(now[key])
        are_unknown = math.isnan(before) and math.isnan(after)
        is_close = math.isclose(before, after, rel_tol=tolerance, abs_tol=LEAST)
        if not are_unknown and not is_close:
            yield f"{key}: {before!r} before, {after!r} now"


def compare_totals(
    was: dict[str, list[float]],
    now: dict[str, list[float]],
    result: bt.Result,
    tolerance: float,
) -> Iterator[str]:
    scale = max(float(result.bars["equity"].max()), result.events["amount"].abs().sum())
    for key in sorted({*was} | {*now}):
        count, total = was.get(key, (0, 0.0))
        count_now, total_now = now.get(key, (0, 0.0))
        if count != count_now or not is_near(total, total_now, scale, tolerance):
            yield f"{key}: {count} of {total!r} before, {count_now} of {total_now!r} now"


def compare_events(
    was: list[list[Any]],
    now: list[list[Any]],
    columns: list[str],
    result: bt.Result,
    tolerance: float,
) -> Iterator[str]:
    """Yield the first event that differs. An amount is measured by the account of its bar."""
    if len(was) != len(now):
        yield f"{len(was)} events before, {len(now)} now"

    equity = np.maximum.accumulate(result.bars["equity"].to_numpy(dtype=float))
    ends = (result.bars.index - result.bars.index[0]) / pd.Timedelta("1min")
    turnover = 0.0
    for old, new in zip(was, now, strict=False):
        before = dict(zip(columns, map(float, old[3:]), strict=True))
        after = dict(zip(columns, map(float, new[3:]), strict=True))
        if new[1] == "fill" and math.isfinite(after["amount"]):
            turnover += abs(after["amount"])
        bar = max(int(np.searchsorted(ends, new[0], "right")) - 1, 0)
        money = max(float(equity[bar]), result.account.capital, turnover)

        is_same = old[1:3] == new[1:3] and abs(old[0] - new[0]) <= 1e-6
        for column in columns:
            scale = money if column == "amount" else abs(after[column])
            is_same = is_same and is_near(before[column], after[column], scale, tolerance)
        if not is_same:
            yield f"event {old} before, {new} now"
            return


def is_near(before: float, after: float, scale: float, tolerance: float) -> bool:
    if math.isnan(before) or math.isinf(before):
        return before == after or (math.isnan(before) and math.isnan(after))
    return abs(before - after) <= tolerance * scale + LEAST


def find_moved_names(was: Iterable[str], now: Iterable[str]) -> str:
    """Return which measures a run of the file lacks, and which it no longer has; and the cure."""
    new = sorted({*now} - {*was})
    gone = sorted({*was} - {*now})
    if not new and not gone:
        return ""

    parts = []
    if new:
        parts.append(f"lacks {', '.join(new)}")
    if gone:
        parts.append(f"still has {', '.join(gone)}")
    cure = "python -m tests.before --measures"
    return f"tests/data/before.json {' and '.join(parts)}; renew its measures by: {cure}"


def renew_measures(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return a run of the file with the measures that it has now; known ones keep their values."""
    measures = {name: was["metrics"].get(name, value) for name, value in now["metrics"].items()}
    return {**was, "metrics": measures}


def write(runs: dict[str, dict[str, Any]], file: Path) -> None:
    """Write described runs into a file, an event a line."""
    lines = []
    for name, kept in runs.items():
        events = ",\n   ".join(json.dumps(row) for row in kept["events"])
        head = "".join(
            f'  "{key}": {json.dumps(value)},\n' for key, value in kept.items() if key != "events"
        )
        lines.append(f' {json.dumps(name)}: {{\n{head}  "events": [\n   {events}]}}')
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    is_measures_only = arguments == ["--measures"]
    if arguments and not is_measures_only:
        raise SystemExit("usage: python -m tests.before [--measures]")

    runs = {}
    for name, make in list_runs().items():
        now = describe(run_quietly(make))
        is_renewed = is_measures_only and name in WAS
        runs[name] = renew_measures(WAS[name], now) if is_renewed else now
    write(runs, FILE)


if __name__ == "__main__":
    main(sys.argv[1:])
