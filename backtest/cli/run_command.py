"""``backtest run``: run an account through a market."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer

import backtest
from backtest.cli.draft import Draft
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.flags import RESULTS, AsJson, Results, Save
from backtest.cli.printing import print_json, save_result
from backtest.cli.progress import show_progress
from backtest.cli.unit_hints import describe_bars
from backtest.engine.result import Result

PYTHON_START = "bt.run(start=...)"
"""The cure of columns that were not warm, in Python; here it is a flag."""

EXAMPLES = """
backtest run
backtest run --policy vol-target --set target=0.6 --set half_life=168
backtest run --data btc/ --from 2021-01-01 --to 2022-01-01 --resample 1d
backtest run --data btc/ --start 2022-01-01 --end 2022-07-01   [dim]# warm from the start[/dim]
backtest run --margin isolated --venue-leverage 5 --stop-loss 0.1
backtest run --policy my_policy.py:MyPolicy --taker-bps 4 --no-save
backtest run examples/btc-vol-target.toml --capital 50000 --json
"""


def run(
    draft: Draft, *, as_json: AsJson = False, save: Save = True, results: Results = RESULTS
) -> None:
    """Run an account through a market under a policy, and summarize what happened to it."""
    experiment = build_experiment(draft)
    note = describe_bars(experiment.policy, experiment.market)
    if note is not None:
        typer.echo(f"note: {note}", err=True)
    result = execute(experiment)
    path, trouble = save_result(result, results if save else None)
    if as_json:
        print_json(describe_result(result, path))
    else:
        typer.echo(result.summary().replace(PYTHON_START, "--start"))
        if path is not None:
            typer.echo(f"\nfull result: {path}")
    if trouble is not None:
        raise trouble


def execute(experiment: Experiment) -> Result:
    """Run an experiment; show progress if it takes long and output goes to a terminal."""
    with show_progress(type(experiment.policy).__name__) as progress:
        return backtest.run(
            experiment.market, experiment.policy, **experiment.terms, progress=progress
        )


def describe_result(result: Result, path: Path | None) -> dict[str, Any]:
    """Return a result as data: its identity, what it ran on, its metrics, where it is saved."""
    manifest = result.manifest
    return {
        "id": manifest["id"],
        "path": None if path is None else str(path),
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
        "target_cuts": result.cut_rows,
        "no_fill": result.no_fill or None,
        "infinite_leverage": int(np.isinf(result.bars["target"]).sum()),
    }
