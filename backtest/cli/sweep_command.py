"""``backtest sweep``: run many sets of parameters, and rank them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import backtest
from backtest.base import ParameterError, Range
from backtest.base.compile_time import COMPILING
from backtest.cli import flags
from backtest.cli.cures import naming_source
from backtest.cli.exit_codes import INTERRUPTED
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft, flatten
from backtest.cli.experiment_keys import list_flags
from backtest.cli.experiment_venue import name_policies
from backtest.cli.printing import save_and_print
from backtest.cli.progress import show_progress
from backtest.cli.sweep_text import Ranking, SweepReport, print_sweep
from backtest.cli.typed_values import read_bounds, read_values
from backtest.measures import read_constraints, read_objective, total_violation
from backtest.measures.path_measures import PATH
from backtest.measures.run_measures import CORE
from backtest.sweep.set_evaluator import STREAMED

DRAWS = 1_024
"""Default number of sets to draw."""
ARGUMENTS = ("method", "seed", "metrics", "full", "accounts", "pool")
"""The keys of ``[sweep]`` that are passed to :func:`backtest.sweep` unchanged."""
MOST_SHOWN = 10_000

EXAMPLES = """
backtest sweep                 [dim]# 1,024 sets from the declared ranges[/dim]
backtest sweep --vary target=0.1:1:64 --vary half_life=24,72,168
backtest sweep --vary half_life=log:10:1000:32 --vary account.band=0:0.2:5
backtest sweep --signal breakout --vary signal.window=24,48,96 --vary target=0.3,0.6
backtest sweep --data btc/ --data eth/ --allocate equal-risk --vary allocate.half_life=24,168
backtest sweep --draws 100000 --objective calmar --constraint 'max_drawdown<=0.4'
backtest sweep examples/btc-vol-target.toml --cluster local:2 --json
"""


def sweep(
    draft: Draft,
    *,
    top: Annotated[
        int, flags.option(flags.RANKING, "How many of the best to print (10).", "--top")
    ] = 10,
    threads: flags.Threads = None,
    memory: flags.Memory = flags.MEMORY,
    cluster: flags.Cluster = None,
    as_json: flags.AsJson = False,
    save: flags.Save = True,
    results: flags.Results = flags.RESULTS,
) -> None:
    """Run many sets of parameters on one market, and rank them.

    Parameters of the policy may vary, fields such as account.band and venue.fees.taker, and
    parameters of a signal's rule such as signal.window, or allocate.half_life with --allocate.
    """
    flags.check_work(threads, memory)
    with naming_source(draft, "sweep"):
        request = read_request(draft, top)
    market, policy, terms = build_experiment(draft, warms=False)
    began, compiled = time.perf_counter(), COMPILING.seconds
    with (
        naming_source(draft, "sweep"),
        show_progress(name_policies(policy), "sets") as progress,
    ):
        done = backtest.sweep(
            market,
            policy,
            request.sets,
            **terms,
            **request.arguments,
            threads=threads,
            memory=memory,
            cluster=cluster,
            progress=progress,
        )
    seconds, compiled = time.perf_counter() - began, COMPILING.seconds - compiled
    report = SweepReport(done, request.ranking, draft, seconds, compiled)
    save_and_print(
        done,
        results if save else None,
        lambda: print_sweep(report),
        report.to_dict if as_json else None,
    )
    if not done.complete:
        raise typer.Exit(INTERRUPTED)


class SweepRequest(NamedTuple):
    """The sets and other arguments of :func:`backtest.sweep`, and the ranking of its sets."""

    sets: dict[str, list[Any]] | int
    arguments: dict[str, Any]
    ranking: Ranking


def read_request(draft: Draft, top: int) -> SweepRequest:
    """Read the table of a sweep."""
    table = draft.tables.get("sweep", {})
    is_grid, draws = choose_sets(draft)
    arguments = {name: table[name] for name in ARGUMENTS if name in table}
    ranking = Ranking(
        choose_objective(table.get("objective", "sharpe"), draft.locate("sweep")),
        table.get("constraints", {}),
        int(Range(1, MOST_SHOWN).check("top", top, where="--top", whole=True)),
    )
    check_ranking(ranking, arguments)
    return SweepRequest(
        draft.read_entries("sweep", "values", read_values) if is_grid else draws,
        {**arguments, "space": draft.read_entries("sweep", "space", read_bounds) or None},
        ranking,
    )


def choose_sets(draft: Draft) -> tuple[bool, int]:
    """Return whether the values of ``[sweep.values]`` are combined, and how many sets are drawn.

    Flags take precedence over the file.
    """
    table = draft.tables.get("sweep", {})
    is_grid, draws = bool(flatten(table.get("values", {}))), table.get("draws")
    typed = {flag.group for flag in draft.flags if flag.table == "sweep"}
    if is_grid and draws is not None:
        if ("values" in typed) == ("draws" in typed):
            raise ParameterError(
                "a sweep takes values or a number of draws, got both",
                where=draft.locate("sweep"),
                cure="leave one of them out; --space says where to draw from",
            )
        is_grid = "draws" not in typed
    given = typed if "values" in typed else table
    idle = [name for name in ("method", "seed") if name in given]
    if is_grid and idle:
        raise ParameterError(
            f"{idle[0]} is only for sets that are drawn, but values are given",
            where=draft.locate("sweep", idle),
            cure=f"leave {idle[0]} out, or draw the sets: --draws 1000",
        )
    return is_grid, DRAWS if draws is None else draws


def choose_objective(given: Any, where: str) -> str | dict[str, float]:
    """Return the objective that sets are ranked by."""
    several = given if isinstance(given, list) else [given]
    if len(several) != 1:
        raise ParameterError(
            f"a sweep is ranked by one objective, got {len(several)}",
            where=where,
            cure="give weights, --objective sharpe=1,turnover=-0.01; or tune for several",
        )
    objective: str | dict[str, float] = several[0]
    return objective


def check_ranking(ranking: Ranking, arguments: Mapping[str, Any]) -> None:
    """Check, before the sweep runs, that it will compute the measures of the ranking."""
    measured = CORE if arguments.get("metrics") == "core" else STREAMED
    names = (*measured, *(PATH if arguments.get("full") else ()))
    nothing = {name: np.zeros(1) for name in names}
    read_objective(ranking.objective).score(nothing)
    total_violation(read_constraints(ranking.constraints), nothing)


COMMAND = take_experiment(sweep, list_flags("sweep"))
