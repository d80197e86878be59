"""``backtest sweep``, ``tune`` and ``validate``: sets of parameters, and how far to trust one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import typer

import backtest
from backtest.base import ParameterError, format_time, list_records
from backtest.cli.build import build_experiment, load_data, name_policies
from backtest.cli.command import AsJson, Output, take_experiment
from backtest.cli.experiment import Draft, build_run_command, flatten, name_where
from backtest.cli.experiment_keys import read_keys
from backtest.cli.printing import (
    FAILED,
    INTERRUPTED,
    add_command,
    print_json,
    print_message,
    print_table,
)
from backtest.cli.progress import show_progress, show_search
from backtest.cli.typed_values import parse_entries, read_bounds, read_values
from backtest.measures import (
    find_cautions,
    read_constraints,
    read_objective,
    total_violation,
)
from backtest.measures.measure_table import CORE, PATH, STREAMED
from backtest.measures.run_facts import DATES
from backtest.sweep import ERROR, Sweep, name_parameter, to_plain_value
from backtest.validation import name_result

DRAWS = 1_024
"""Default number of sets to draw."""
TOP = 10
"""The best sets that JSON lists."""
SWEEP_EXAMPLES = """
backtest sweep --vary target=0.1:1:64 --vary half_life=log:10:1000:32
backtest sweep --draws 100000 --objective calmar --constraint 'max_drawdown<=0.4'
"""


def sweep(draft: Draft, *, output: Output) -> None:
    """Run many sets of parameters on one market, and rank them.

    Parameters of the policy may vary, fields such as account.band and venue.fees.taker, and
    parameters of a signal's rule such as signal.window.
    """
    table = dict(draft.table("sweep"))
    sets = choose_sets(draft)
    objective, constraints = table.pop("objective", "sharpe"), table.pop("constraints", {})
    table = {name: x for name, x in table.items() if name not in ("values", "draws")}
    check_ranking(objective, constraints, table)
    table["space"] = draft.read_entries("sweep", "space", read_bounds) or None
    market, policy, terms = build_experiment(draft, warms=False)
    with show_progress(name_policies(policy), "sets") as progress:
        done = backtest.sweep(market, policy, sets, **terms, **table, progress=progress)
    vars(done)["ranked_by"], vars(done)["ranked_where"] = objective, constraints
    again = build_best_command(done, draft, int(done.rank(objective, constraints)[0]))
    more = [f"run the best again{name_where(draft)}:\n{again}"] if again else []
    output.give_out(done, lambda path: {"path": path, **list_sweep(done, again)}, more)
    if not done.complete:
        raise typer.Exit(INTERRUPTED)


def choose_sets(draft: Draft) -> dict[str, list[Any]] | int:
    table = draft.table("sweep")
    is_grid, draws = bool(flatten(table.get("values", {}))), table.get("draws")
    typed = {flag.group for flag in draft.flags if flag.table == "sweep"}
    if is_grid and draws is not None:
        if ("values" in typed) == ("draws" in typed):
            raise ParameterError("a sweep takes values or draws, got both")
        is_grid = "draws" not in typed
    given = typed if "values" in typed else table
    idle = [name for name in ("method", "seed") if name in given]
    if is_grid and idle:
        raise ParameterError(
            f"sweep.{idle[0]} is only for sets that are drawn, but values are given"
        )
    if is_grid:
        return draft.read_entries("sweep", "values", read_values)
    return DRAWS if draws is None else int(draws)


def check_ranking(objective: Any, constraints: Mapping[str, str], table: Mapping[str, Any]) -> None:
    measured = CORE if table.get("metrics") == "core" else STREAMED
    names = (*measured, *(PATH if table.get("full") else ()))
    nothing = {name: np.zeros(1) for name in names}
    read_objective(objective).score(nothing)
    total_violation(read_constraints(constraints), nothing)


def build_best_command(sweep: Sweep, draft: Draft, best: int) -> str | None:
    row = sweep.table.iloc[best]
    if row.get(ERROR, ""):
        return None
    values = {name_parameter(name): row[name] for name in sweep.parameters}
    if sweep.evaluator is not None:
        settings = sweep.evaluator.settings
        values = {name: to_plain_value(settings[name], each) for name, each in values.items()}
    return build_run_command(draft, values)


def list_sweep(sweep: Sweep, again: str | None) -> dict[str, Any]:
    """Return what JSON says of a sweep: its best sets, and how many fared ill."""
    manifest, rules = sweep.manifest, read_constraints(sweep.ranked_where)
    places = sweep.rank(sweep.ranked_by, sweep.ranked_where)[:TOP].tolist()
    failed = (sweep.table.get(ERROR, pd.Series("", sweep.table.index)) != "").to_numpy()
    ruined = ~failed & (sweep.metrics["ruined"] > 0.0)
    over = total_violation(rules, sweep.metrics)
    top = []
    for place in places:
        row = sweep.table.iloc[place].to_dict()
        dates = {name: row[name] for name in DATES if name in row}
        row |= {x: None if pd.isna(at) else format_time(at.value) for x, at in dates.items()}
        note = find_cautions({name: float(x[place]) for name, x in sweep.metrics.items()})
        top.append({"row": int(sweep.table.index[place]), **row, "note": note})
    return {
        "id": manifest["id"],
        "policy": manifest["policy"],
        "data": manifest["data"],
        "objective": read_objective(sweep.ranked_by).name,
        "constraints": [str(each) for each in rules],
        "parameters": list(sweep.parameters),
        "complete": sweep.complete,
        "sets": {
            "asked": int(manifest["sets"]["asked"]),
            "done": len(failed),
            "ruined": int(ruined.sum()),
            "failed": int(failed.sum()),
            "breaking": int((~failed & ~ruined & ~(over == 0.0)).sum()),
        },
        "top": top,
        "command": again,
    }


# ------------------------------------------------------------------------------------------- tune

TUNE_EXAMPLES = """
backtest tune --space target=0.1:1 --space half_life=log:10:500 --seconds 60
backtest tune btc.toml --constraint 'max_drawdown<=0.4' --resume
"""


def tune(draft: Draft, *, output: Output) -> None:
    """Search for good parameters, and estimate how much of the result is luck.

    Parameters of the policy may vary, fields such as account.band and venue.fees.taker, and
    parameters of a signal's rule such as signal.window. Exit code 1 if no set meets the
    constraints.
    """
    search = read_search(draft, "tune", tuple(read_keys("tune")))
    if "holdout" in search:
        search["holdout"] = read_holdout(search["holdout"])
    search.setdefault("objective", "sharpe")
    market, policy, terms = build_experiment(draft, warms=False)
    with show_search(name_policies(policy), name_objective(search["objective"])) as progress:
        study = backtest.tune(
            market, policy, **terms, **search, store=output.store, progress=progress
        )
    best = None if study.best is None else build_run_command(draft, study.best_values)
    more = (
        []
        if best is None
        else [f"run the best again{name_where(draft)}, on all of the data:\n{best}"]
    )
    if study.folder is not None and not study.complete:
        more.append(f"continue the search:\n{build_resume_command(draft)}")
    output.give_out(
        study, lambda _: {**study.to_dict(), "command": best}, more, folder=study.folder
    )
    if not study.complete:
        raise typer.Exit(INTERRUPTED)
    if study.best is None:
        raise typer.Exit(FAILED)


def read_search(draft: Draft, table: str, names: tuple[str, ...]) -> dict[str, Any]:
    given = draft.table(table)
    found = {name: given[name] for name in names if name in given}
    found["space"] = draft.read_entries(table, "space", read_bounds) or None
    found["fix"] = parse_entries(flatten(given.get("fix", {})))
    return found


def read_holdout(given: str | float) -> str | float | None:
    value = parse_entries(given)
    is_nothing = value is None or (isinstance(value, int | float) and value == 0)
    return None if is_nothing else value


def name_objective(objective: Any) -> str:
    return objective if isinstance(objective, str) else "score"


def build_resume_command(draft: Draft) -> str:
    resume = [] if "--resume" in draft.line else ["--resume"]
    return shlex.join(["backtest", *draft.line, *resume])


# --------------------------------------------------------------------------------------- validate

SEARCHED = ("objective", "constraints", "trials", "space", "fix", "seed", "threads", "memory",
            "cluster", "resume")  # fmt: skip
WALK = ("train", "test", "anchored", "gap", "carry", *SEARCHED, "sampler", "robust")
CROSS = ("groups", "test_groups", "embargo", *SEARCHED)
FOLDS = ("train", "test", "anchored", "gap", "groups", "test_groups", "embargo")
MOST_ROWS = 100
"""Most rows of spans that are printed."""
VALIDATE_EXAMPLES = """
backtest validate walk-forward --train 180d --test 30d
backtest validate cross-validate --groups 8 --trials 500
"""

app = typer.Typer(help="Test a way of choosing parameters on the data after each choice.")


def walk_forward(draft: Draft, *, output: Output) -> None:
    """Tune on each train span, trade the test span after it, and judge the procedure."""
    run_validation(draft, "walk_forward", WALK, output)


def cross_validate(draft: Draft, *, output: Output) -> None:
    """Choose the best set on each choice of groups of time, and test it on the others."""
    run_validation(draft, "cross_validate", CROSS, output)


def folds(draft: Draft, *, as_json: AsJson = False) -> None:
    """Print the spans of a walk, or with --groups those of a cross-validation."""
    market = load_data(draft)
    table = {name: x for name, x in draft.table("validate").items() if name in FOLDS}
    sampling = draft.table("run").get("sampling", "1d")
    found = backtest.folds(market, **parse_embargo(table), sampling=sampling)
    if as_json:
        print_json(list_records(found))
        return
    rows = [[format_entry(each) for each in row] for row in found.reset_index().to_numpy().tolist()]
    names = [str(name) for name in found.reset_index().columns]
    print_table(names, rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        typer.echo(f"and {len(rows) - MOST_ROWS:,} more: --json names all")


def format_entry(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)


def read_validation(draft: Draft, names: tuple[str, ...]) -> dict[str, Any]:
    found = read_search(draft, "validate", names)
    return parse_embargo(found)


def parse_embargo(table: Mapping[str, Any]) -> dict[str, Any]:
    own = {"embargo": parse_entries(table["embargo"])} if "embargo" in table else {}
    return {**table, **own}


def run_validation(draft: Draft, name: str, names: tuple[str, ...], output: Output) -> None:
    arguments = read_validation(draft, names)
    market, policy, terms = build_experiment(draft, warms=False)
    validate = getattr(backtest, name)
    try:
        with show_progress(name_policies(policy), "sets") as progress:
            found = validate(
                market, policy, **terms, **arguments, store=output.store, progress=progress
            )
    except KeyboardInterrupt:
        if output.save:
            print_message(f"unfinished; continue with:\n{build_resume_command(draft)}")
        raise
    folder = None if output.store is None else output.store / name_result(found.manifest)
    output.give_out(found, folder=folder)


def walk_experiment(draft: Draft) -> backtest.WalkForward:
    arguments = read_validation(draft, WALK)
    market, policy, terms = build_experiment(draft, warms=False)
    with show_progress(name_policies(policy), "sets") as progress:
        return backtest.walk_forward(market, policy, **terms, **arguments, progress=progress)


def list_flags(table: str, names: str) -> str:
    return " ".join(f"{table}.{name}" for name in names.split())


SHARED = "objective constraints trials space fix seed threads cluster resume"
add_command(
    app,
    "walk-forward",
    take_experiment(
        walk_forward, list_flags("validate", f"train test anchored gap carry {SHARED} sampler")
    ),
    VALIDATE_EXAMPLES,
)
add_command(
    app,
    "cross-validate",
    take_experiment(cross_validate, list_flags("validate", f"groups test_groups embargo {SHARED}")),
    VALIDATE_EXAMPLES,
)
add_command(
    app,
    "folds",
    take_experiment(folds, list_flags("validate", " ".join(FOLDS))),
    "backtest validate folds --train 180d          [dim]# only the spans[/dim]",
)
COMMANDS = {
    "sweep": (
        take_experiment(
            sweep,
            list_flags(
                "sweep",
                "values draws space method seed objective constraints metrics threads cluster",
            ),
        ),
        SWEEP_EXAMPLES,
    ),
    "tune": (
        take_experiment(
            tune,
            list_flags(
                "tune",
                "objective constraints space fix trials seconds sampler robust holdout seed "
                "threads cluster resume",
            ),
        ),
        TUNE_EXAMPLES,
    ),
    "validate": app,
}
