"""``backtest paths``: possible continuations of the data, and how far they spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

import backtest
from backtest.base import ParameterError
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import OUTPUT, AsJson, option
from backtest.cli.printing import print_json
from backtest.market import Market, Markets, as_given, as_markets, label_names
from backtest.risk import (
    Paths,
    describe_drift,
    summarize_funding,
)
from backtest.venue import FundingTerms, Venue

EXAMPLES = """
backtest paths
backtest paths --model gbm --horizon 7d --paths 1000 --seed 1
backtest paths --drift history       [dim]# by default the mean price is today's[/dim]
backtest paths --data btc/ --write paths/ --number 3      [dim]# three paths as data[/dim]
backtest paths --data btc/ --data eth/ --model gbm --correlation 0.9
"""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def draw_paths(draft: Draft, market: Market | Markets, venue: Any) -> Paths:
    """Return the paths that the table or the flags describe.

    Fitted funding stays within the cap of the venue, a Venue or one for each instrument.
    """
    settings = dict(draft.tables.get("paths", {}))
    settings["funding"] = read_path_funding(settings.get("funding", "fitted"), venue)
    return backtest.simulate_paths(market, settings.pop("model", "filtered"), **settings)


def read_path_funding(given: float | str, venue: Any) -> Any:
    if given == "none":
        return None
    if given == "fitted" and isinstance(venue, Mapping):
        return {name: find_capped_funding(each) for name, each in venue.items()}
    if given == "fitted":
        return find_capped_funding(venue)
    try:
        return float(given)
    except ValueError:
        return given  # simulate_paths names what is allowed


def find_capped_funding(venue: Any) -> FundingTerms | str:
    if not isinstance(venue, Venue) or venue.in_force is None:
        return "fitted"
    name, _, symbol = venue.in_force.preset.rpartition(":")
    terms = backtest.funding.terms(name, symbol)
    return "fitted" if terms is None or math.isinf(terms.cap) else terms


def paths(
    draft: Draft,
    *,
    write: Annotated[
        Path | None, option(OUTPUT, "Write paths as data into this new folder.", "--write")
    ] = None,
    number: Annotated[int, option(OUTPUT, "How many to write (1).", "--number")] = 1,
    as_json: AsJson = False,
) -> None:
    """Simulate possible continuations of the data, and show how far they spread."""
    experiment = build_experiment(draft)
    drawn = draw_paths(draft, experiment.market, experiment.terms["venue"])
    if not 1 <= number <= len(drawn):
        raise ParameterError(
            f"number must be from 1 to {len(drawn)}, the number of paths, got {number}"
        )
    tables = {name: tabulate_spread(drawn, name) for name in drawn.names}
    for i in range(number if write is not None else 0):
        write_path(drawn[i], Path(str(write)) / f"path-{i}")
    if as_json:
        rows = {name: each.reset_index().to_dict("records") for name, each in tables.items()}
        print_json({"paths": drawn.describe(), "spread": as_given(rows, drawn.history)})
        return
    told = drawn.describe()
    typer.echo(f"{describe_drawn(drawn)}, {describe_drift(told)}")
    for line in summarize_funding(told["funding_fit"]):
        typer.echo(line)
    typer.echo()
    typer.echo(
        "Returns from the last close, by day: quantiles, and the mean lowest price on the way"
    )
    for name, label in label_names(tables).items():
        if label:
            typer.echo(f"\n{label}")
        typer.echo(tables[name].map(lambda x: f"{100 * x:.2f} %").to_string())
    if write is not None:
        typer.echo(f"\nwritten: {write}")


def describe_drawn(drawn: Paths) -> str:
    told = drawn.describe()
    model = dict(told["model"])
    name = model.pop("name")
    fitted = ", ".join(
        f"{key} {value:.4g}"
        for key, value in model.items()
        if isinstance(value, float) and value and key != "drift"
    )
    return (
        f"{drawn.count:,} paths of {drawn.n_bars:,} bars from {told['start']}, {name}"
        + (f" ({fitted})" if fitted else "")
        + (f" of {', '.join(drawn.names)}" if len(drawn.names) > 1 else "")
        + f", seed {drawn.seed}"
    )


def write_path(path: Market | Markets, folder: Path) -> None:
    parts = as_markets(path)
    for name, label in label_names(parts).items():
        parts[name].save(folder / label)


def tabulate_spread(drawn: Paths, name: str) -> pd.DataFrame:
    days = np.asarray(drawn.calendar.time[1:] - drawn.calendar.time[0]) / 86_400e9
    marks = [k for k in (1.0, 7.0, 30.0) if k < days[-1]]
    rows = {f"{day:g}": int(np.searchsorted(days, day)) for day in [*marks, float(days[-1])]}
    ends, lows, size = [], [], max(65_536 // drawn.width, 1)
    for first in range(0, len(drawn), size):
        bars = drawn.draw(first, min(first + size, len(drawn)), name)
        shaped = bars.prices.reshape(4, -1, drawn.width)
        base = shaped[3, :, :1]
        low = np.minimum.accumulate(shaped[2, :, 1:], axis=1) / base - 1.0
        ends.append((shaped[3, :, 1:] / base - 1.0)[:, list(rows.values())])
        lows.append(low[:, list(rows.values())])
    end, low = np.concatenate(ends), np.concatenate(lows)
    table = pd.DataFrame(np.quantile(end, QUANTILES, axis=0).T, index=pd.Index(rows, name="days"))
    table.columns = pd.Index([f"{100 * q:g} %" for q in QUANTILES])
    return table.assign(lowest=low.mean(axis=0))


COMMAND = take_experiment(paths, list_flags("paths"))
