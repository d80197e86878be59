"""``backtest tune``: search for good parameters, and estimate how much of the result is luck."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

import backtest
from backtest.cli import flags
from backtest.cli.experiment import build_experiment, build_run_command, name_where
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft, flatten
from backtest.cli.experiment_keys import list_flags
from backtest.cli.experiment_venue import name_policies
from backtest.cli.paths_command import draw_paths
from backtest.cli.printing import FAILED, INTERRUPTED, print_json
from backtest.cli.progress import show_search
from backtest.cli.typed_values import parse_typed, read_bounds
from backtest.measures import read_risk_name
from backtest.tune import Study, find_names

EXAMPLES = """
backtest tune                  [dim]# 20,000 sets, the last quarter held out[/dim]
backtest tune --objective calmar --constraint 'liquidations==0' --trials 5000
backtest tune --space target=0.1:1 --space half_life=log:10:500 --fix power=1 --seconds 60
backtest tune --signal rsi --space signal.window=5:100 --space target=0.1:1
backtest tune --objective sharpe --objective max_drawdown
backtest tune --data btc --data eth --overlay 'Constant(leverage=0.5)'
backtest tune --constraint 'p_liquidation_30d<=0.01' --paths 2000 --model gbm --trials 200
backtest tune examples/btc-vol-target.toml --resume
"""


def tune(
    draft: Draft,
    *,
    threads: flags.Threads = None,
    memory: flags.Memory = flags.MEMORY,
    cluster: flags.Cluster = None,
    resume: Annotated[
        bool, flags.option(flags.OUTPUT, "Resume the study of the same arguments.", "--resume")
    ] = False,
    as_json: flags.AsJson = False,
    save: flags.Save = True,
    results: flags.Results = flags.RESULTS,
) -> None:
    """Search for good parameters, and estimate how much of the result is luck.

    Parameters of the policy may vary, fields such as account.band and venue.fees.taker, and
    parameters of a signal's rule such as signal.window. Exit code 1 if no set meets the
    constraints.
    """
    flags.check_work(threads, memory)
    search = read_search(draft)
    market, policy, terms = build_experiment(draft, warms=False)
    if needs_paths(draft, search):
        search["paths"] = draw_paths(draft, market, terms["venue"])
    name = name_objective(search["objective"])
    with show_search(name_policies(policy), name) as progress:
        study = backtest.tune(
            market,
            policy,
            **terms,
            **search,
            threads=threads,
            memory=memory,
            cluster=cluster,
            store=results if save else None,
            resume=resume,
            progress=progress,
        )
    best = None if study.best is None else build_run_command(draft, study.best_values)
    if as_json:
        print_json({**study.to_dict(), "command": best})
    else:
        print_study(study, draft, best)
    if not study.complete:
        raise typer.Exit(INTERRUPTED)
    if study.best is None:
        raise typer.Exit(FAILED)


def read_search(draft: Draft) -> dict[str, Any]:
    """Return the arguments of :func:`backtest.tune` that the table of a search gives."""
    table = draft.tables.get("tune", {})
    objective = table.get("objective", "sharpe")
    is_single = isinstance(objective, list) and len(objective) == 1
    holdout = {"holdout": read_holdout(table["holdout"])} if "holdout" in table else {}
    return {
        **table,
        **holdout,
        "objective": objective[0] if is_single else objective,
        "space": draft.read_entries("tune", "space", read_bounds) or None,
        "fix": {name: read_fixed(each) for name, each in flatten(table.get("fix", {})).items()},
    }


def needs_paths(draft: Draft, search: Mapping[str, Any]) -> bool:
    """Return whether paths are described and the search measures sets on them, or flags give any.

    The ``[paths]`` of a file may be meant for other commands.
    """
    names = find_names(search["objective"]) | {*search.get("constraints", {})}
    is_measured = any(read_risk_name(name) is not None for name in names)
    is_given = any(flag.table == "paths" for flag in draft.flags)
    return is_given or (is_measured and bool(draft.tables.get("paths")))


def read_fixed(given: Any) -> Any:
    return parse_typed(given) if isinstance(given, str) else given


def read_holdout(given: str | float) -> str | float | None:
    value = read_fixed(given)
    is_nothing = value is None or (isinstance(value, int | float) and value == 0)
    return None if is_nothing else value


def name_objective(objective: Any) -> str:
    first = objective[0] if isinstance(objective, list) else objective
    return first if isinstance(first, str) else "score"


def print_study(study: Study, draft: Draft, best: str | None) -> None:
    """Print the summary, and the commands that run the best set and resume the search."""
    typer.echo(study.summary())
    if best is not None:
        typer.echo(f"\nrun the best again{name_where(draft)}, on all of the data:\n{best}")
    if study.folder is not None:
        if not study.complete:
            resume = [] if "--resume" in draft.line else ["--resume"]
            line = shlex.join(["backtest", *draft.line, *resume])
            typer.echo(f"\ncontinue the search:\n{line}")
        typer.echo(f"\nfull result: {study.folder}")


USUAL = (
    "--data", "--policy", "--set", "--venue", "--capital", "--objective", "--constraint", "--space",
    "--trials", "--seconds",
)  # fmt: skip
PATH_FLAGS = [each for each in list_flags("paths") if each.name != "seed"]
COMMAND = take_experiment(tune, [*list_flags("tune"), *PATH_FLAGS], usual=USUAL)
