"""stress(): what scenarios do to an account from where a run ended."""

from __future__ import annotations

import functools
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    Choice,
    FloatArray,
    ParameterError,
    checked_only,
    did_you_mean,
    format_time,
    repr_plain,
)
from backtest.base.units import DAY
from backtest.engine import Progress, Result, is_same_account
from backtest.market import Market, Markets, as_markets
from backtest.risk.scenarios.break_even_move import find_break_even, find_break_even_of
from backtest.risk.scenarios.crash_bars import replay_crash
from backtest.risk.scenarios.scenario import Scenario
from backtest.risk.scenarios.scenario_bars import Bars, is_calm, make_flat_bars, slice_replay
from backtest.risk.scenarios.stress_result import Stress
from backtest.risk.scenarios.stress_run import (
    StressOutcome,
    StressRun,
    find_table_time,
    fix_margin_tables,
)

FILE = Path(__file__).with_name("crashes.toml")


@functools.cache
def crashes() -> tuple[Scenario, ...]:
    """Return historical crashes of bitcoin and of stocks, with their dates and sources.

    Figures that no source gives are at their defaults: they change nothing.

    Examples
    --------
    >>> [each.name for each in crashes()][2:4]
    ['2020-03-12', '2021-05-19']
    """
    with FILE.open("rb") as file:
        found = tomllib.load(file)["episode"]
    return tuple(Scenario.from_dict(each, where=FILE.name) for each in found)


RULES = Choice("run", "today", "then")
AXES = (
    "price", "implied_volatility", "volatility", "funding", "spread", "depth", "margin", "adl",
    "basis",
)  # fmt: skip


@checked_only("result", "progress", "data")
def stress(
    result: Result,
    scenarios: Sequence[Scenario] | Scenario | None = None,
    *,
    rules: str = "run",
    data: Market | Markets | None = None,
    ladder: Mapping[str, Sequence[float]] | None = None,
    progress: Progress | None = None,
) -> Stress:
    """Return what scenarios after the last close of a run would do to its account.

    Parameters
    ----------
    result : Result
        Of :func:`backtest.run`, in this process. Its policies go on deciding at the closes of the
        scenario, with the last direction and weights of the signal.
    scenarios : sequence of Scenario, optional
        By default :func:`backtest.crashes`.
    rules : str
        ``"run"``: the margin table in force at the end of the run; ``"today"``: the newest one of
        the venue; ``"then"``: the one in force at the date of a scenario, or at the end of the run
        for one without a date. The column ``rules`` says which.
    data : Market or Markets, optional
        Where it covers the days of a scenario, and is of the same kind of asset, its bars and
        funding are replayed, relative to the close before them. Otherwise crashes of history are
        replayed from the hours of BTC, ETH, XRP, LTC, ADA, and the days of the S&P 500, that are
        shipped; a coin without hours of its own takes the median of ADA, LTC and XRP. Bars of other
        scenarios are made from their figures.
    ladder : mapping, optional
        Axes of a grid of one-bar shocks by field of a scenario: ``{"price": (-0.5, 0.5, 41),
        "depth": (0.1, 0.3, 1)}``. ``(low, high, n)`` with a whole n over 2 is a range, anything
        else a list of values.
    progress : callable, optional
        Called with scenarios done and scenarios in all.

    Returns
    -------
    Stress

    Raises
    ------
    ParameterError
        If an argument is not allowed.
    DataError
        If the data have another interval than the run.

    Notes
    -----
    Bars are those of the market of the run: a scenario takes whole ones, rounded up, and policies
    decide at their closes. ``distance`` is measured at the marks inside the bars: of several
    positions, at each waypoint of a bar for each position, with all marks at the waypoint.

    ``break_even`` is found by bisection on the move of the price in the direction that hurts the
    account, with bars made anew for each move. Of several instruments it is the move of the first
    that moves in the scenario (of a scenario that moves none, the move of all alike). The others
    move with it as the scenario says: where all move alike, by the same; otherwise all log moves
    of the scenario are multiplied by one factor. Funding, basis, noise of a bridge and everything
    else stay as they are. In a replay, all log moves of all bars and marks are multiplied by one
    factor, and it is the move of the first that moves against its position, at its worst point.

    Options are valued by the last surface, moved by ``implied_volatility``, without quotes of
    their own; the crashes of history move prices alone.

    Instruments that ended in the run have no bars; one whose contract expires during a scenario is
    closed at its mark price then. Collateral moves as the instrument whose prices it has; with
    prices of its own it moves as an instrument without a move of its own, under its name, and with
    a constant price only where ``prices`` name it. Collateral pays no funding and has no basis.
    """
    chosen = read_scenarios(scenarios)
    how = RULES.check("rules", rules)
    grid = list_shocks(ladder)
    rows, leads, total, runs = {}, {}, len(chosen) + len(grid), Runs(result, how)
    calm: list[str] = []
    for done, each in enumerate(chosen, 1):
        row, leads[each.name], is_misled = run_scenario(runs.under(each), each, data)
        rows[each.name] = row | {"rules": "run" if how == "then" and each.date is None else how}
        calm += [each.name] if is_misled else []
        if progress is not None:
            progress(done, total)
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="scenario"))
    climbed = run_ladder(runs, grid, progress, len(chosen), total) if grid else None
    settings = {
        "lost": find_loss(result),
        "policy": result.manifest["policy"]["text"],
        "data": result.manifest["data"]["source"],
        "run": result.manifest["id"],
        "rules": how,
        "scenarios": [each.to_dict() for each in chosen],
        "ladder": None if ladder is None else {name: list(axis) for name, axis in ladder.items()},
        "calm": calm,
        "leads": leads if len(runs.under(chosen[0]).moving) > 1 else {},
    }
    return Stress(table, climbed, settings, result.markets)


def find_loss(result: Result) -> str:
    if not result.metrics["ruined"]:
        return ""
    time = format_time(result.span.start + round(result.metrics["ruin_time"] * DAY))
    return f"{time} UTC with {result.metrics['final_equity']:,.2f} left"


class Runs:
    def __init__(self, result: Result, rules: str) -> None:
        self.result, self.rules = result, rules
        self.by_time: dict[int, StressRun] = {}

    def under(self, scenario: Scenario) -> StressRun:
        time = find_table_time(self.result, self.rules, scenario)
        if time not in self.by_time:
            self.by_time[time] = StressRun(self.result, fix_margin_tables(self.result, time))
        return self.by_time[time]


def read_scenarios(scenarios: Sequence[Scenario] | Scenario | None) -> tuple[Scenario, ...]:
    given = crashes() if scenarios is None else scenarios
    chosen = tuple(given) if isinstance(given, Sequence) else (given,)
    if not chosen or not all(isinstance(each, Scenario) for each in chosen):
        raise ParameterError(
            f"scenarios must be a list of bt.Scenario, got {repr_plain(given):.60}"
        )
    names = [each.name for each in chosen]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ParameterError(
            f"scenarios must have different names, {sorted(doubled)} occur more than once"
        )
    return chosen


def run_scenario(run: StressRun, scenario: Scenario, data: Any) -> tuple[dict[str, Any], str, bool]:
    replayed, source = slice_replays(run, scenario, data), "data"
    if replayed is None:
        bare = {*run.moving} - {*run.history}
        known = {each.name: each for each in crashes()}
        shipped = replay_crash(scenario, known, run.moving, run.account.resting, bare)
        replayed, source = (None, "figures") if shipped is None else shipped
    bars = run.make(scenario) if replayed is None else replayed
    outcome = run.live(scenario, bars)
    if replayed is None:
        even = find_break_even(run, scenario)
    else:
        even = find_break_even_of(run, scenario, replayed)
    row = {
        **outcome._asdict(),
        "break_even": even.move,
        "bars": next(iter(bars.values())).last.shape[1],
        "from": source,
    }
    is_misled = replayed is None and run.account.has_columns
    is_misled = is_misled and any(is_calm(bars[name], run.moving[name]) for name in bars)
    return row, even.lead, is_misled


def slice_replays(run: StressRun, scenario: Scenario, data: Any) -> Bars | None:
    markets = read_data(data, run)
    found = {
        name: slice_replay(scenario, markets.get(name), run.history.interval) for name in run.moving
    }
    cut = {name: bars for name, bars in found.items() if bars is not None}
    still = {name for name in found if name in run.account.resting and name not in markets}
    if not cut or {*cut, *still} != {*found}:
        return None
    flat = make_flat_bars(next(iter(cut.values())).last.shape[1])
    return {name: cut.get(name, flat) for name in found}


def read_data(data: Any, run: StressRun) -> Mapping[str, Market]:
    if data is None:
        return {}
    markets: Markets = as_markets(data)
    names = run.history.names
    if data is markets:
        return {**markets}
    if not is_same_account(markets.names, names):
        raise ParameterError(f"data must be Markets of {', '.join(names)}, got {repr_plain(data)}")
    return dict(zip(names, markets.values(), strict=True))


def list_shocks(ladder: Mapping[str, Sequence[float]] | None) -> list[dict[str, float]]:
    if ladder is None:
        return []
    if not isinstance(ladder, Mapping) or not ladder:
        raise ParameterError(
            "ladder must map axes to values, as {'price': (-0.5, 0.5, 41)}, "
            f"got {repr_plain(ladder)}"
        )
    for name in ladder:
        if name not in AXES:
            raise ParameterError(
                f"an axis of ladder must be one of {', '.join(AXES)}, got {name!r}"
                + did_you_mean(name, AXES)
            )
    values = [find_values(axis, name) for name, axis in ladder.items()]
    return [
        dict(zip(ladder, map(float, point), strict=True)) for point in itertools.product(*values)
    ]


def run_ladder(
    runs: Runs, grid: list[dict[str, float]], progress: Progress | None, done: int, total: int
) -> pd.DataFrame:
    rows: list[StressOutcome] = []
    for k, point in enumerate(grid, 1):
        shock = Scenario("ladder", shape="bar", **point)  # type: ignore[arg-type] # fields by name
        run = runs.under(shock)
        rows.append(run.live(shock, run.make(shock)))
        if progress is not None:
            progress(done + k, total)
    index = pd.MultiIndex.from_frame(pd.DataFrame(grid))
    found = pd.DataFrame(rows, index=index)[["equity", "loss", "liquidated"]]
    return found.astype({"liquidated": np.bool_})


def find_values(axis: Any, name: str) -> FloatArray:
    try:
        given = [float(x) for x in axis]
        is_range = len(given) == 3 and isinstance(axis[2], int) and axis[2] > 2
    except (TypeError, ValueError):
        given, is_range = [], False
    values = np.linspace(given[0], given[1], int(given[2])) if is_range else np.array(given)
    if not len(values) or not np.isfinite(values).all():
        raise ParameterError(
            f"ladder: {name} must be (low, high, n) or finite values, got {repr_plain(axis)}"
        )
    return values
