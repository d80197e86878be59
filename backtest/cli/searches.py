"""``backtest sweep``, ``tune`` and ``validate``: sets of parameters, and how far to trust one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

import backtest
from backtest.cli import experiment, printing
from backtest.cli.build import build_experiment, name_policies
from backtest.cli.command import AsJson, Output, command, list_flags, option
from backtest.core import ParameterError, list_records, name_result
from backtest.experiments.data_table import load_data
from backtest.experiments.draft import Draft, flatten
from backtest.results import rank_by_objective, read_constraints, read_objective
from backtest.results.measure_table import CORE, STREAMED
from backtest.sweep import ERROR, find_failed, name_parameter, to_plain_value

SWEPT = "values draws space seed objective constraints metrics threads cluster"
TUNED = (
    "objective constraints space fix trials seconds patience sampler robust holdout seed threads "
    "cluster"
)
SHARED = "objective constraints trials space fix seed threads cluster resume"
DRAWS = 1_024
"""Default number of sets to draw."""
TOP = 10
"""The best sets that JSON lists."""


@command("sweep", list_flags("sweep", SWEPT))
def sweep(draft: Draft, *, output: Output) -> None:
    """Run many parameter sets on one market, and rank them.

    Parameters of the policy, fields such as account.band and venue.fees.taker, and parameters of a
    signal's rule such as signal.window may vary.

    backtest sweep --vary target=0.1:1:64 --vary half_life=log:10:1000:32
    backtest sweep --draws 100000 --objective calmar --constraints 'max_drawdown<=0.4'
    """
    if not output.as_json:  # a notice says it
        warnings.simplefilter("ignore", backtest.NoFillWarning)

    table = dict(draft.table("sweep"))
    values = draft.read_entries("sweep", "values", experiment.read_values)
    table.pop("values", None)
    if values and "draws" in table:
        raise ParameterError("a sweep needs either values or draws, got both")
    if values and "seed" in table:
        raise ParameterError("sweep.seed is only for sets that are drawn, but values are given")
    draws = table.pop("draws", DRAWS)
    objective = table.pop("objective", "sharpe")
    constraints = table.pop("constraints", {})
    check_ranking(table, objective, constraints)

    table["space"] = draft.read_entries("sweep", "space", experiment.read_bounds) or None
    test, policy, is_compiled = build_experiment(draft)
    with printing.show_progress(name_policies(policy), "sets") as progress:
        swept = test.sweep(
            policy,
            values or draws,
            compile=is_compiled,
            **table,
            progress=progress,
        )

    # The sweep is frozen; its summary and its page rank by what the flags say.
    vars(swept)["ranked_by"] = objective
    vars(swept)["ranked_where"] = constraints
    ranked = swept.rank(objective, constraints)
    best = swept.table.iloc[int(ranked[0])]
    facts = describe_sweep(swept, ranked, objective, constraints)
    output.give_out(
        swept,
        lambda path: {"path": path, **facts},
        more=list_best_settings(swept, best),
    )
    if not swept.complete:
        raise typer.Exit(printing.INTERRUPTED)


def check_ranking(table: Mapping[str, Any], objective: Any, constraints: Any) -> None:
    """Refuse an unknown measure, or one that the constraints fix, before the sweep."""
    measured = STREAMED
    if table.get("metrics") == "core":
        measured = CORE

    # One set whose measures are 0 is ranked: what raises here would raise after the sweep.
    zeros = {name: np.zeros(1) for name in measured}
    failed = np.zeros(1, dtype=np.bool_)
    rank_by_objective(zeros, objective, constraints, failed=failed)


def describe_sweep(done: Any, ranked: Any, objective: Any, constraints: Any) -> dict[str, Any]:
    """Return what a sweep found as JSON has it: how it ranked, how many sets, and the best."""
    facts = done.manifest
    failed = find_failed(done.table)
    is_ruined = ~failed & (done.metrics["ruined"] > 0.0)
    return {
        "id": facts["id"],
        "policy": facts["policy"],
        "data": facts["data"],
        "objective": read_objective(objective).name,
        "constraints": [str(constraint) for constraint in read_constraints(constraints)],
        "parameters": list(done.parameters),
        "complete": done.complete,
        "sets": {
            "asked": int(facts["sets"]["asked"]),
            "done": len(failed),
            "ruined": int(is_ruined.sum()),
            "failed": int(failed.sum()),
        },
        "top": list_records(done.table.iloc[ranked[:TOP]].rename_axis("row")),
    }


def list_best_settings(done: Any, best: Any) -> list[str]:
    """Return how the best set of a sweep is run again; nothing if it failed."""
    if best.get(ERROR, ""):
        return list_settings({})

    values = {name_parameter(name): best[name] for name in done.parameters}
    if done.evaluator is None:
        return list_settings(values)

    # Values of a table are numbers; of whole numbers, flags and choices the settings are.
    settings = done.evaluator.varied.settings
    for name, value in values.items():
        values[name] = to_plain_value(settings[name], value)
    return list_settings(values)


def list_settings(values: Mapping[str, Any]) -> list[str]:
    """Return a line with the flags of the values of a set, under one that says what they do."""
    if not values:
        return []
    words = [f"--set {name}={experiment.format_typed(value)}" for name, value in values.items()]
    again = "run the best again by `backtest run`, with this experiment's other options and"
    return [f"{again}\n{' '.join(words)}"]


Gate = Annotated[bool, option("Also exit with code 1 if there is no evidence of a gain.", "--gate")]
Timing = Annotated[bool, option("Test its timing too, out of sample.", "--timing")]


def test_timing(chosen: Any, output: Output) -> Any:
    """Return the timing test of a study or a validation, out of sample, and save it."""
    with printing.show_progress("shifts in time", "replays") as progress:
        tested = backtest.timing_test(chosen, progress=progress)
    if output.store is not None:
        tested.save(output.store)
    return tested


@command("timing", list_flags("timing", "threads"))
def timing(draft: Draft, *, output: Output) -> None:
    """Test whether the timing of the leverage earned the result, by shifting it in time.

    For a policy with tuned parameters use `backtest tune --timing`, which tests the holdout.

    backtest timing --policy vol-target
    backtest timing examples/btc-vol-target.toml --report timing.html
    """
    test, policy, is_compiled = build_experiment(draft)
    result = test.run(policy, compile=is_compiled)
    with printing.show_progress("shifts in time", "replays") as progress:
        tested = backtest.timing_test(result, **draft.table("timing"), progress=progress)
    output.give_out(tested)


@command("tune", list_flags("tune", f"{TUNED} resume"))
def tune(draft: Draft, *, output: Output, gate: Gate = False, timing: Timing = False) -> None:
    """Search for good parameters, and estimate the selection bias of the result.

    Parameters of the policy, fields such as account.band and venue.fees.taker, and parameters of a
    signal's rule such as signal.window may vary. Exit code 1 if no set meets the constraints.

    backtest tune --space target=0.1:1 --space half_life=log:10:500 --seconds 60
    backtest tune btc.toml --constraints 'max_drawdown<=0.4' --resume
    backtest tune --objective cagr --objective max_drawdown
    """
    search = {"objective": "sharpe", **read_search(draft, "tune")}
    holdout = search.get("holdout", "25%")
    search["holdout"] = None if holdout in ("none", 0) else holdout
    if timing and search["holdout"] is None:
        raise ParameterError("--timing tests the holdout, tune.holdout='25%' for example, got none")

    test, policy, search["compile"] = build_experiment(draft)
    search["store"] = output.store
    objective = search["objective"]
    if isinstance(objective, list):
        check_frontier(search, gate=gate, timing=timing)
        search["objectives"] = search.pop("objective")
        search.pop("robust", None)
        title = next(iter(objective), "score")
        frontier = run_search(test.frontier, policy, search, title, output)
        output.give_out(frontier)
        return

    title = objective if isinstance(objective, str) else "score"
    study = run_search(test.tune, policy, search, title, output)
    more = []
    if study.best is not None:
        more = list_settings(study.best_values)
    if study.folder is not None and not study.complete:
        more.append(RESUME)
    if timing and study.complete and study.best is not None:
        more.append(test_timing(study, output).verdict)
    output.give_out(study, lambda _: study.to_dict(), more, folder=study.folder)

    if not study.complete:
        raise typer.Exit(printing.INTERRUPTED)
    if study.best is None or (gate and not study.has_evidence):
        raise typer.Exit(printing.FAILED)


def check_frontier(search: Mapping[str, Any], *, gate: bool, timing: bool) -> None:
    """Refuse what needs a set that was chosen: several objectives choose none."""
    for flag, is_given in (("--gate", gate), ("--timing", timing)):
        if is_given:
            raise ParameterError(f"several objectives choose no set, and take no {flag}")
    if search.get("robust", False):
        raise ParameterError("several objectives take no tune.robust, got true")


def run_search(
    method: Any,
    policy: Any,
    search: Mapping[str, Any],
    title: str,
    output: Output,
) -> Any:
    """Return what a search finds; ``title`` names its score in the progress."""
    with printing.show_progress(name_policies(policy), "sets") as meter, noting_resume(output):
        report = partial(meter.report_search, objective=title)
        return method(policy, **search, progress=report)


RESUME = "continue with the same command and --resume"


@contextmanager
def noting_resume(output: Output) -> Iterator[None]:
    """Say how an interrupted search is continued, if it was saved."""
    try:
        yield
    except KeyboardInterrupt:
        if output.save:
            printing.print_message(f"unfinished; {RESUME}")
        raise


def read_search(draft: Draft, table: str) -> dict[str, Any]:
    """Return the keys of a search, its space and its fixed values as their functions take them."""
    search = dict(draft.table(table))
    search["space"] = draft.read_entries(table, "space", experiment.read_bounds) or None
    search["fix"] = flatten(search.get("fix", {}))
    return search


SPANS = "train test anchored gap"
GROUPS = "groups test_groups embargo"


OWN = {"walk_forward": f"{SPANS} sampler robust patience", "cross_validate": GROUPS}
"""Keys of ``[validate]`` that only one of its functions has."""


@command("validate walk-forward", list_flags("validate", f"{SPANS} {SHARED} sampler patience"))
def walk_forward(draft: Draft, *, output: Output, timing: Timing = False) -> None:
    """Tune on each train span, trade the test span after it, and judge the procedure.

    backtest validate walk-forward --train 180d --test 30d
    """
    give_out_validation(draft, "walk_forward", output, timing=timing)


@command("validate cross-validate", list_flags("validate", f"{GROUPS} {SHARED}"))
def cross_validate(draft: Draft, *, output: Output) -> None:
    """Choose the best set on each combination of time groups, and test it on the other groups.

    backtest validate cross-validate --groups 8 --trials 500
    """
    give_out_validation(draft, "cross_validate", output)


@command("validate folds", list_flags("validate", f"{SPANS} {GROUPS}"))
def folds(draft: Draft, *, as_json: AsJson = False) -> None:
    """Print the spans of a walk-forward validation, or with --groups of a cross-validation.

    backtest validate folds --train 180d
    """
    table = draft.table("validate")
    run = draft.table("run")
    names = f"{GROUPS} {SPANS}".split()
    terms = {name: table[name] for name in names if name in table}
    terms["sampling"] = run.get("sampling", "1d")
    terms["start"] = run.get("start")

    market = load_data(draft).slice(None, run.get("end"))
    spans = backtest.folds(market, **terms)
    if as_json:
        printing.print_json(list_records(spans))
    else:
        printing.render(spans.reset_index())


def give_out_validation(draft: Draft, how: str, output: Output, *, timing: bool = False) -> None:
    """Validate, test the timing if asked to, and print both; the validation saves itself."""
    with noting_resume(output):
        validated = run_validation(draft, how, store=output.store)

    folder = None
    if output.store is not None:
        folder = output.store / name_result(validated.manifest)
    more = []
    if timing:
        more.append(test_timing(validated, output).verdict)
    output.give_out(validated, more=more, folder=folder)


def run_validation(draft: Draft, method: str = "walk_forward", **more: Any) -> Any:
    """Validate by ``[validate]``, by walk-forward unless ``method`` is another one."""
    search = read_search(draft, "validate")
    for other in OWN.keys() - {method}:
        for name in OWN[other].split():
            search.pop(name, None)

    test, policy, search["compile"] = build_experiment(draft)
    with printing.show_progress(name_policies(policy), "sets") as progress:
        return getattr(test, method)(policy, **search, **more, progress=progress)
