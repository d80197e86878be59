"""``backtest sweep``: run many sets of parameters, and rank them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer

import backtest
from backtest.base import (
    BoolArray,
    ParameterError,
    Range,
    format_paragraph,
    format_rate,
    format_span,
    format_time,
    format_value,
)
from backtest.base.compile_choice import COMPILING
from backtest.cli import flags
from backtest.cli.experiment import build_experiment, build_run_command, name_where
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft, flatten
from backtest.cli.experiment_keys import list_flags
from backtest.cli.experiment_venue import name_policies
from backtest.cli.printing import INTERRUPTED, break_name, print_table, save_and_print
from backtest.cli.progress import show_progress
from backtest.cli.typed_values import read_bounds, read_values
from backtest.engine import count_unfilled
from backtest.measures import (
    count_cautions,
    find_cautions,
    read_constraints,
    read_objective,
    total_violation,
)
from backtest.measures.measure_table import CORE, PATH, STREAMED
from backtest.measures.run_facts import DATES
from backtest.sweep import ERROR, Sweep, name_parameter, to_plain_value

DRAWS = 1_024
"""Default number of sets to draw."""
ARGUMENTS = ("method", "seed", "metrics", "full", "accounts", "pool")
MOST_SHOWN = 10_000

EXAMPLES = """
backtest sweep                 [dim]# 1,024 sets from the declared ranges[/dim]
backtest sweep --vary target=0.1:1:64 --vary half_life=24,72,168
backtest sweep --vary half_life=log:10:1000:32 --vary account.band=0:0.2:5
backtest sweep --signal breakout --vary signal.window=24,48,96 --vary target=0.3,0.6
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
    parameters of a signal's rule such as signal.window.
    """
    flags.check_work(threads, memory)
    request = read_request(draft, top)
    market, policy, terms = build_experiment(draft, warms=False)
    began, compiled = time.perf_counter(), COMPILING.seconds
    with show_progress(name_policies(policy), "sets") as progress:
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


SHOWN = ("sharpe", "total_return", "max_drawdown", "liquidations", "turnover")
LEAST_COMPILED = 0.1
"""Seconds of compiling that are mentioned; the rate never counts them."""
CURE = "--constraint 'cagr>=0' --constraint 'max_drawdown<=0.8' ranks such sets last"
GAP = 3
"""Spaces between two columns of a printed table."""


class Ranking(NamedTuple):
    objective: str | dict[str, float]
    constraints: dict[str, str]
    top: int


class SweepReport:
    def __init__(
        self, sweep: Sweep, ranking: Ranking, draft: Draft, seconds: float, compiled: float
    ) -> None:
        self.sweep = sweep
        self.ranking = ranking
        self.draft = draft
        self.seconds = seconds
        self.compiled = compiled
        self.objective = read_objective(ranking.objective)
        self.rules = read_constraints(ranking.constraints)
        self.places = sweep.rank(ranking.objective, ranking.constraints)
        self.scores = self.objective.score(sweep.metrics)
        self.over = total_violation(self.rules, sweep.metrics)
        self.top = sweep.table.iloc[self.places[: ranking.top]]
        errors = sweep.table.get(ERROR, pd.Series("", sweep.table.index))
        self.failed: BoolArray = (errors != "").to_numpy()

    def count(self) -> dict[str, int]:
        failed = self.failed
        ruined = ~failed & (self.sweep.metrics["ruined"] > 0.0)
        return {
            "asked": int(self.sweep.manifest["sets"]["asked"]),
            "done": len(failed),
            "ruined": int(ruined.sum()),
            "failed": int(failed.sum()),
            "unfilled": count_unfilled(self.sweep.metrics),
            "breaking": int((~failed & ~ruined & ~(self.over == 0.0)).sum()),
        }

    def measures(self, row: int) -> dict[str, float]:
        return {name: float(values[row]) for name, values in self.sweep.metrics.items()}

    def build_rerun_command(self) -> str | None:
        sweep, best = self.sweep, int(self.places[0])
        if self.failed[best]:
            return None
        values = {name_parameter(name): sweep.table.iloc[best][name] for name in sweep.parameters}
        if sweep.evaluator is not None:
            settings = sweep.evaluator.settings
            values = {name: to_plain_value(settings[name], each) for name, each in values.items()}
        return build_run_command(self.draft, values)

    def to_dict(self, path: str | None) -> dict[str, Any]:
        manifest = self.sweep.manifest
        rows = zip(self.top.index, self.top.to_dict("records"), strict=True)
        return {
            "id": manifest["id"],
            "path": path,
            "policy": manifest["policy"],
            "data": manifest["data"],
            "objective": self.objective.name,
            "constraints": [str(each) for each in self.rules],
            "parameters": list(self.sweep.parameters),
            "complete": self.sweep.complete,
            "sets": self.count(),
            "seconds": self.seconds,
            "compiled_seconds": self.compiled,
            "top": [
                {"row": label, **format_dates(row), "note": describe_fate(self, int(place))}
                for (label, row), place in zip(rows, self.places, strict=False)
            ],
            "command": self.build_rerun_command(),
        }


def format_dates(row: Mapping[Any, Any]) -> dict[Any, Any]:
    dates = {name: row[name] for name in DATES if name in row}
    texts = {name: None if pd.isna(at) else format_time(at.value) for name, at in dates.items()}
    return {**row, **texts}


def print_sweep(report: SweepReport) -> None:
    typer.echo("\n".join(describe_sweep(report)))
    typer.echo("")
    columns, rows = tabulate_top(report)
    print_table(columns, rows, right=[name for name in columns if name != "note"])
    typer.echo("")
    typer.echo("\n".join(describe_counts(report)))
    typer.echo(f"\nrun the best again{name_where(report.draft)}:\n{report.build_rerun_command()}")


def describe_sweep(report: SweepReport) -> Iterator[str]:
    manifest, data = report.sweep.manifest, report.sweep.manifest["data"]
    asked = report.count()["asked"]
    names = ", ".join(report.sweep.parameters)
    yield from format_paragraph("Sweep", f"{manifest['policy']['name']}: {asked:,} sets of {names}")
    name = data["instrument"] or "unnamed instrument"
    notes = ["SYNTHETIC: these prices are made up"] if data["synthetic"] else []
    yield from format_paragraph("Data", f"{name}, {format_span(data)}", *notes)
    if pool := manifest.get("pool"):
        n = len(data["instruments"])
        text = f"one in each of {n} markets; measures are their {pool}"
        yield from format_paragraph("Accounts", text)
    rules = ", ".join(map(str, report.rules))
    yield from format_paragraph("Ranking", f"{report.objective.name}, where {rules}")
    shown = [report.measures(row) for row in report.places[: len(report.top)].tolist()]
    if caution := count_cautions(shown):
        yield from format_paragraph("Caution", f"{caution}: see their notes. {CURE}")


def tabulate_top(report: SweepReport) -> tuple[list[str], list[list[str]]]:
    top = report.top
    columns = {"row": [str(label) for label in top.index]}
    if not isinstance(report.ranking.objective, str):  # a weighted sum of measures
        scores = report.scores[report.places[: len(top)]]
        columns["score"] = [format_value(score) for score in scores.tolist()]
    ranked = [report.objective.name.removeprefix("-"), *(rule.name for rule in report.rules[1:])]
    for name in [*list_varying(report.sweep), *ranked, *SHOWN]:
        if name in top:
            columns[name] = [format_value(value) for value in top[name].tolist()]
    notes = [describe_fate(report, row) for row in report.places[: len(top)].tolist()]
    if any(notes):
        columns["note"] = notes
    spare = [name for name in reversed(SHOWN) if name in columns and name not in ranked]
    while spare and calculate_width(columns) > shutil.get_terminal_size().columns:
        del columns[spare.pop(0)]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def list_varying(sweep: Sweep) -> list[str]:
    names = [name for name in sweep.parameters if sweep.table[name].nunique(dropna=False) > 1]
    return names or list(sweep.parameters)


def calculate_width(columns: Mapping[str, list[str]]) -> int:
    heads = {name: max(map(len, break_name(name).splitlines())) for name in columns}
    widths = (max(heads[name], *map(len, cells)) for name, cells in columns.items())
    return sum(width + GAP for width in widths) - GAP


def describe_fate(report: SweepReport, row: int) -> str:
    if report.failed[row]:
        return "failed"
    cautions = find_cautions(report.measures(row))
    is_over = report.over[row] > 0.0 and not cautions.startswith("ruined")
    return ", ".join(filter(None, ["breaks a bound" if is_over else "", cautions]))


def describe_counts(report: SweepReport) -> Iterator[str]:
    n = report.count()
    done = f"{n['done']:,}" if n["done"] == n["asked"] else f"{n['done']:,} of {n['asked']:,}"
    rate = n["done"] / max(report.seconds - report.compiled, 1e-9)
    text = f"{done} in {report.seconds:,.1f} s, {format_rate(rate)} per second"
    if report.compiled >= LEAST_COMPILED:
        text += f" without the {report.compiled:,.1f} s that were spent compiling, once"
    fates = [f"{n[name]:,} {name}" for name in ("ruined", "failed") if n[name]]
    if n["unfilled"]:
        fates.append(f"{n['unfilled']:,} without a fill")
    if n["breaking"]:
        fates.append(f"{n['breaking']:,} breaking a bound")
    yield from format_paragraph("Sets", "; ".join([text, *fates]))
    if n["done"] > 1:
        yield from format_paragraph(
            "Luck",
            f"the best of {n['done']:,} sets is in part the luckiest: backtest tune shows how much",
        )


class SweepRequest(NamedTuple):
    sets: dict[str, list[Any]] | int
    arguments: dict[str, Any]
    ranking: Ranking


def read_request(draft: Draft, top: int) -> SweepRequest:
    """Read the table of a sweep."""
    table = draft.tables.get("sweep", {})
    is_grid, draws = choose_sets(draft)
    arguments = {name: table[name] for name in ARGUMENTS if name in table}
    ranking = Ranking(
        choose_objective(table.get("objective", "sharpe")),
        table.get("constraints", {}),
        int(Range(1, MOST_SHOWN).check("top", top, whole=True)),
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
            raise ParameterError("a sweep takes values or draws, got both")
        is_grid = "draws" not in typed
    given = typed if "values" in typed else table
    idle = [name for name in ("method", "seed") if name in given]
    if is_grid and idle:
        raise ParameterError(
            f"sweep.{idle[0]} is only for sets that are drawn, but values are given"
        )
    return is_grid, DRAWS if draws is None else draws


def choose_objective(given: Any) -> str | dict[str, float]:
    several = given if isinstance(given, list) else [given]
    if len(several) != 1:
        raise ParameterError(
            f"a sweep is ranked by one objective, got {len(several)}; give weights, "
            "sharpe=1,turnover=-0.01 for example, or tune for several"
        )
    objective: str | dict[str, float] = several[0]
    return objective


def check_ranking(ranking: Ranking, arguments: Mapping[str, Any]) -> None:
    measured = CORE if arguments.get("metrics") == "core" else STREAMED
    names = (*measured, *(PATH if arguments.get("full") else ()))
    nothing = {name: np.zeros(1) for name in names}
    read_objective(ranking.objective).score(nothing)
    total_violation(read_constraints(ranking.constraints), nothing)


COMMAND = take_experiment(sweep, list_flags("sweep"))
