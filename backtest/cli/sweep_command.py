"""``backtest sweep``: run many sets of parameters, and rank them."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import backtest
from backtest.base.errors import BacktestError, ParameterError
from backtest.base.ranges import Range
from backtest.cli.cures import explained
from backtest.cli.data_span import find_cut
from backtest.cli.experiment import Draft, Experiment, build_experiment, draft_experiment
from backtest.cli.flags import (
    MEMORY,
    RANKING,
    RESULTS,
    AsJson,
    Cluster,
    Memory,
    Option,
    Results,
    Said,
    Save,
    Text,
    Texts,
    Threads,
    Whole,
    check_work,
    entry,
    option,
    pairs,
    rank_by,
)
from backtest.cli.printing import print_json
from backtest.cli.progress import show_progress
from backtest.cli.sweep_text import Ranking, Report, print_report
from backtest.cli.typed_values import flatten, read_bounds, read_values
from backtest.measures.ranking import read_constraints, read_objective, total_violation
from backtest.measures.run_measures import CORE, PATH
from backtest.sweep.evaluator import STREAMED
from backtest.sweep.sweep_table import Sweep

SETS = "Sets"
DRAWS = 1_024
"""Sets that are drawn where nothing is said."""
MOST_SHOWN = 10_000
INTERRUPTED = 130

EXAMPLES = """
backtest sweep                 [dim]# 1,024 sets from the declared ranges[/dim]
backtest sweep --vary target=0.1:1:64 --vary half_life=24,72,168
backtest sweep --vary half_life=log:10:1000:32 --vary account.band=0:0.2:5
backtest sweep --draws 100000 --objective calmar --constraint 'max_drawdown<=0.4'
backtest sweep examples/btc-vol-target.toml --cluster local:2 --json
"""

OPTIONS = (
    Option("--vary", Texts, pairs("sweep", "values"), SETS,
           "NAME=24,72 or NAME=0.1:1:64 or NAME=log:10:500:16; again for more names."),
    Option("--draws", Whole, entry("sweep", "draws"), SETS,
           "Draw so many sets instead (1024, where nothing varies)."),
    Option("--space", Texts, pairs("sweep", "space"), SETS,
           "Draw from here: NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; again for more."),
    Option("--method", Text, entry("sweep", "method"), SETS,
           "How to draw: 'sobol' (default), 'lhs' or 'uniform'."),
    Option("--seed", Whole, entry("sweep", "seed"), SETS, "Of the draws (0)."),
    *rank_by("sweep"),
    Option("--metrics", Text, entry("sweep", "metrics"), RANKING,
           "'all' (default) or 'core', which is faster."),
    Option("--full", bool, entry("sweep", "full"), RANKING,
           "Also the measures that need the path: every set runs once more."),
)  # fmt: skip


def sweep(
    said: Said,
    *,
    top: Annotated[int, option(RANKING, "Print so many of the best (10).", "--top")] = 10,
    threads: Threads = None,
    memory: Memory = MEMORY,
    cluster: Cluster = None,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Run many sets of parameters on one market, and rank them.

    Parameters of the policy may vary, and fields such as account.band and venue.fees.taker.
    """
    check_work(threads, memory)
    draft = draft_experiment(said.file, said.flags, said.command)
    with explained(draft, "sweep"):
        order = read_order(draft, top)
    experiment = build_experiment(draft, warms=False)
    began = time.perf_counter()
    with explained(draft, "sweep"):
        done = execute(experiment, order, threads=threads, memory=memory, cluster=cluster)
    words = (*said.words, *find_cut(draft))
    report = Report(done, order.ranking, words, time.perf_counter() - began)
    path, trouble = None, None
    if save:
        try:
            path = done.save(results)
        except BacktestError as error:
            trouble = error
    if as_json:
        print_json(report.to_dict(path))
    else:
        print_report(report, path)
    if trouble is not None:
        raise trouble
    if not done.complete:
        raise typer.Exit(INTERRUPTED)


# --------------------------------------------------------------------------------- what is asked


class Order(NamedTuple):
    """What a sweep is asked for: the arguments of :func:`backtest.sweep`, and the ranking."""

    sets: dict[str, list[Any]] | int
    space: dict[str, Any] | None
    method: Any
    seed: int
    metrics: Any
    full: bool
    ranking: Ranking


def read_order(draft: Draft, top: int) -> Order:
    """Return what the tables ask for.

    Raises
    ------
    ParameterError
        If it cannot be read, or ranks by what is not measured.
    """
    table, where = draft.tables.get("sweep", {}), draft.place("sweep")
    place = partial(draft.place_entry, "sweep")
    values, draws = choose_sets(draft)
    space = flatten(table.get("space", {}))
    order = Order(
        sets={name: read_values(each, where=place(name)) for name, each in values.items()} or draws,
        space={name: read_bounds(each, where=place(name)) for name, each in space.items()} or None,
        method=table.get("method", "sobol"),
        seed=table.get("seed", 0),
        metrics=table.get("metrics", "all"),
        full=table.get("full", False),
        ranking=Ranking(
            choose_objective(table.get("objective", "sharpe"), where),
            table.get("constraints", {}),
            int(Range(1, MOST_SHOWN).check("top", top, where="--top", whole=True)),
        ),
    )
    check_ranking(order)
    return order


def choose_sets(draft: Draft) -> tuple[dict[str, Any], int]:
    """Return the values of each name, or none and how many sets to draw; flags take precedence.

    Raises
    ------
    ParameterError
        If both are said in one place, or values and how to draw.
    """
    table = draft.tables.get("sweep", {})
    values, draws = flatten(table.get("values", {})), table.get("draws")
    flags = {flag.group for flag in draft.flags if flag.table == "sweep"}
    if values and draws is not None:
        if ("values" in flags) == ("draws" in flags):
            raise ParameterError(
                "a sweep takes values or a number of draws, was given both",
                where=draft.place("sweep"),
                cure="leave one of them out; --space says where to draw from",
            )
        values = {} if "draws" in flags else values
    said = flags if "values" in flags else table
    idle = [name for name in ("method", "seed") if name in said]
    if values and idle:
        raise ParameterError(
            f"{idle[0]} says how sets are drawn, but values are given",
            where=draft.place("sweep", idle),
            cure=f"leave {idle[0]} out, or draw the sets: --draws 1000",
        )
    return values, DRAWS if draws is None else draws


def choose_objective(given: Any, where: str) -> str | dict[str, float]:
    """Return the one objective.

    Raises
    ------
    ParameterError
        If there are several.
    """
    several = given if isinstance(given, list) else [given]
    if len(several) != 1:
        raise ParameterError(
            f"a sweep is ranked by one objective, was given {len(several)}",
            where=where,
            cure="give weights, --objective sharpe=1,turnover=-0.01; or tune for several",
        )
    wanted: str | dict[str, float] = several[0]
    return wanted


def check_ranking(order: Order) -> None:
    """Refuse a ranking by what will not have been measured, before it is.

    Raises
    ------
    ParameterError
        Naming it.
    """
    names = [*(CORE if order.metrics == "core" else STREAMED), *(PATH if order.full else ())]
    nothing = {name: np.zeros(1) for name in names}
    read_objective(order.ranking.objective).score(nothing)
    total_violation(read_constraints(order.ranking.constraints), nothing)


def execute(
    experiment: Experiment, order: Order, *, threads: int | None, memory: str, cluster: str | None
) -> Sweep:
    """Run the sets, with progress where it takes long and somebody watches."""
    given = experiment._asdict()
    market, policy = given.pop("market"), given.pop("policy")
    del given["start"]  # the market begins there
    with show_progress(type(policy).__name__, "sets") as progress:
        return backtest.sweep(
            market,
            policy,
            order.sets,
            **given,
            metrics=order.metrics,
            full=order.full,
            space=order.space,
            method=order.method,
            seed=order.seed,
            threads=threads,
            memory=memory,
            cluster=cluster,
            progress=progress,
        )
