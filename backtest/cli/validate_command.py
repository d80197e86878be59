"""``backtest validate``: walk-forward, cross-validation, and their spans."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import backtest
from backtest.base import ParameterError, from_plain, list_records
from backtest.cli import flags
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_data import load_data
from backtest.cli.experiment_draft import Draft, flatten
from backtest.cli.experiment_keys import Key, list_flags
from backtest.cli.experiment_venue import name_policies
from backtest.cli.printing import add_command, print_json, print_message, print_table
from backtest.cli.progress import show_progress
from backtest.cli.tune_command import read_fixed
from backtest.cli.typed_values import read_bounds
from backtest.validation import name_result

SEARCHED = ("accounts", "pool", "markets_left_out", "objective", "constraints", "trials", "space",
            "fix", "seed")  # fmt: skip
WALK = ("train", "test", "anchored", "gap", "carry", *SEARCHED, "sampler", "robust")
CROSS = ("groups", "test_groups", "embargo", *SEARCHED)
FOLDS = ("train", "test", "anchored", "gap", "groups", "test_groups", "embargo")
MOST_ROWS = 100
"""Most rows of spans that are printed."""

EXAMPLES = """
backtest validate walk-forward --train 180d --test 30d
backtest validate cross-validate --groups 8 --trials 500
backtest validate walk-forward --data btc --data eth --trials 200
backtest validate folds --train 180d          [dim]# only the spans[/dim]
"""
Resume = Annotated[
    bool, flags.option(flags.OUTPUT, "Resume the validation of the same arguments.", "--resume")
]


@dataclass(frozen=True, kw_only=True)
class ValidationFlags:
    threads: flags.Threads = None
    memory: flags.Memory = flags.MEMORY
    cluster: flags.Cluster = None
    resume: Resume = False
    as_json: flags.AsJson = False
    save: flags.Save = True
    results: flags.Results = flags.RESULTS


app = typer.Typer(help="Test a way of choosing parameters on the data after each choice.")


def walk_forward(draft: Draft, *, how: ValidationFlags) -> None:
    """Tune on each train span, trade the test span after it, and judge the procedure."""
    run_validation(draft, backtest.walk_forward, WALK, how)


def cross_validate(draft: Draft, *, how: ValidationFlags) -> None:
    """Choose the best set on each choice of groups of time, and test it on the others."""
    run_validation(draft, backtest.cross_validate, CROSS, how)


def folds(draft: Draft, *, as_json: flags.AsJson = False) -> None:
    """Print the spans of a walk, or with --groups those of a cross-validation."""
    market = load_data(draft)
    table = {name: read_one(name, value) for name, value in read_table(draft, FOLDS).items()}
    sampling = draft.tables.get("run", {}).get("sampling", "1d")
    found = backtest.folds(market, **table, sampling=sampling)
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


def run_validation(
    draft: Draft,
    validate: Callable[..., Any],
    names: Sequence[str],
    how: ValidationFlags,
) -> None:
    """Run one kind of validation, and print it; on Ctrl-C, print the command that continues it."""
    flags.check_work(how.threads, how.memory)
    store = how.results if how.save else None
    arguments = read_validation(draft, names)
    market, policy, terms = build_experiment(draft, warms=False)
    with (
        resumable(draft, is_stored=how.save),
        show_progress(name_policies(policy), "sets") as progress,
    ):
        found = validate(
            market,
            policy,
            **terms,
            **arguments,
            threads=how.threads,
            memory=how.memory,
            cluster=how.cluster,
            store=store,
            resume=how.resume,
            progress=progress,
        )
    print_validation(found, store, as_json=how.as_json)


def walk_experiment(draft: Draft) -> backtest.WalkForward:
    """Return the walk forward of an experiment, with the arguments of ``[validate]``, not saved."""
    arguments = read_validation(draft, WALK)
    market, policy, terms = build_experiment(draft, warms=False)
    with show_progress(name_policies(policy), "sets") as progress:
        return backtest.walk_forward(market, policy, **terms, **arguments, progress=progress)


def print_validation(found: Any, results: Path | None, *, as_json: bool) -> None:
    path = None if results is None else str(results / name_result(found.manifest))
    if as_json:
        print_json(from_plain({"path": path, **found.to_dict()}))
        return
    typer.echo(found.summary())
    if path is not None:
        typer.echo(f"\nfull result: {path}")


@contextmanager
def resumable(draft: Draft, *, is_stored: bool) -> Iterator[None]:
    """Print the command that continues the validation, if Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        if is_stored:
            resume = [] if "--resume" in draft.line else ["--resume"]
            line = shlex.join(["backtest", *draft.line, *resume])
            print_message(f"unfinished; continue with:\n{line}")
        raise


def read_table(draft: Draft, names: Sequence[str]) -> dict[str, Any]:
    """Return the entries of ``[validate]`` that a command uses."""
    table = draft.tables.get("validate", {})
    return {name: table[name] for name in names if name in table}


def read_one(name: str, value: Any) -> Any:
    if isinstance(value, list):
        if name != "objective" or len(value) != 1:
            raise ParameterError(f"validate.{name} must be one value here, got {value!r}")
        return value[0]
    return read_fixed(value) if name == "embargo" and isinstance(value, str) else value


def read_validation(draft: Draft, names: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a validation that ``[validate]`` gives."""
    table = read_table(draft, names)
    found = {
        name: read_one(name, value) for name, value in table.items() if name not in ("space", "fix")
    }
    found["space"] = draft.read_entries("validate", "space", read_bounds) or None
    fixed = flatten(table.get("fix", {}))
    found["fix"] = {name: read_fixed(each) for name, each in fixed.items()}
    return found


def add(name: str, function: Callable[..., None], keys: Sequence[str]) -> None:
    own: list[Key] = [key for key in list_flags("validate") if key.name in keys]
    taken = take_experiment(function, own)
    add_command(app, name, taken, EXAMPLES)


add("walk-forward", walk_forward, WALK)
add("cross-validate", cross_validate, CROSS)
add("folds", folds, FOLDS)
COMMAND = app
