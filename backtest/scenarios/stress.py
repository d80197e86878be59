"""stress(): what scenarios do to an account from where a run ended."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked_only
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.json_values import repr_plain
from backtest.base.phrases import Place
from backtest.base.ranges import Choice
from backtest.base.text_layout import capitalize
from backtest.base.units import DAY, format_time
from backtest.engine import Result
from backtest.market import Market, Markets
from backtest.paths.risk_record import RiskRecord
from backtest.scenarios.crashes import crashes
from backtest.scenarios.panel_stress import PanelStress, halve, quiet_venues, run_panel_scenario
from backtest.scenarios.scenario import Scenario
from backtest.scenarios.scenario_bars import ShockBars, cut_replay, make_bars
from backtest.scenarios.stress_run import StressOutcome, StressRun, find_values, quiet_venue

WHERE = "bt.stress"
RULES = Choice("today", "then")
AXES = ("price", "volatility", "funding", "spread", "depth", "margin", "adl", "basis")
"""The fields of a scenario that a ladder may go along."""
STEPS = 60
LARGEST_RISE = 64.0
"""The largest rise of the price, as a multiple, that a search for the break-even tries."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Stress(RiskRecord):
    """Outcome of scenarios.

    Attributes
    ----------
    table : DataFrame
        A row per scenario: ``equity`` (wealth after it), ``loss``, ``liquidated``, ``distance``
        (the smallest of the mark from the liquidation price, a fraction; 0 once liquidated),
        ``margin_calls``, ``fees``, ``slippage``, ``impact``, ``funding``, ``lost_to_adl``,
        ``break_even`` (the move of the price, all else as in the scenario, at which the account is
        liquidated; NaN if none does), ``bars``, and ``from``: ``figures`` or ``data``.
    ladder : DataFrame or None
        ``equity``, ``loss`` and ``liquidated`` for every combination of the axes of the ladder.
    settings : dict
        What the numbers come from.
    market : Market or None
        The market of the run.
    """

    table: pd.DataFrame
    ladder: pd.DataFrame | None
    settings: dict[str, Any]
    market: Market | Markets | None = None

    kind = "stress"
    names = ("table", "ladder")

    def find_history(self) -> Market | Markets | None:
        """Return the market; None for a loaded result."""
        return self.market

    @property
    def lost(self) -> str:
        """When the account was ruined in the run, as words; empty if it was not."""
        return str(self.settings.get("lost", ""))

    @property
    def note(self) -> str:
        """How many scenarios liquidate, or that the account was lost before them."""
        if self.lost:
            return "account lost before"
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    def __repr__(self) -> str:
        return f"<Stress of {len(self.table)} scenarios: {self.note}>"

    def summary(self) -> str:
        """Return the table as text for a terminal; of a lost account, that it is lost."""
        if self.lost:
            return textwrap.fill(f"{capitalize(describe_lost(self.lost))}.", 80)
        before = float(self.table["equity"].iloc[0] + self.table["loss"].iloc[0])
        lines = [
            f"The account is worth {before:,.2f} at the last close of the run.",
            f"{'scenario':<22}{'equity':>14}{'loss':>14}  {'liquidated':<11}break-even",
        ]
        for name, row in self.table.iterrows():
            even = "none" if math.isnan(row["break_even"]) else f"{100 * row['break_even']:.2f} %"
            dead = "yes" if row["liquidated"] else "no"
            lines.append(
                f"{str(name)[:21]:<22}{row['equity']:>14,.2f}{row['loss']:>14,.2f}"
                f"  {dead:<11}{even}"
            )
        return "\n".join(lines)


@checked_only("progress", "data")
def stress(
    result: Result,
    scenarios: Sequence[Scenario] | Scenario | None = None,
    *,
    rules: str = "today",
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
        ``"today"``: the newest margin table of the venue; ``"then"``: the one in force at the date
        of a scenario, or at the end of the run for one without a date.
    data : Market or Markets, optional
        Where it covers the days of a scenario, and is of the same kind of asset, its bars and
        funding are replayed, relative to the close before them; otherwise bars are made from the
        figures of the scenario.
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
    Bars are those of the market of the run: a scenario takes whole ones, rounded up, and the policy
    decides at their closes. ``break_even`` is found by bisection on the move of the price in the
    direction that hurts the position; in a replay, all log moves are scaled. Of several instruments
    all log moves are always scaled together, and it is the move of the first that moves; in a
    scenario that moves none, of all alike, against the net position. Their ``distance`` is measured
    at closes, the prices of the others frozen, and their policies are not asked in an outage.
    """
    if not isinstance(result, Result):
        raise ParameterError(
            f"result must be a Result, was {str(result)[:60]!r}",
            where=Place("result", of=WHERE),
            cure="pass what bt.run returned",
        )
    chosen = read_scenarios(scenarios, of_several=not result.has_one_position)
    how = RULES.check("rules", rules, where=Place("rules", of=WHERE))
    grid = list_shocks(ladder)
    rows, total = {}, len(chosen) + len(grid)
    for done, each in enumerate(chosen, 1):
        rows[each.name] = run_scenario(result, each, how, data)
        if progress is not None:
            progress(done, total)
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="scenario"))
    climbed = run_ladder(result, grid, how, progress, len(chosen), total) if grid else None
    settings = {
        "lost": find_loss(result),
        "policy": result.manifest["policy"]["text"],
        "data": result.manifest["data"]["source"],
        "run": result.manifest["id"],
        "rules": how,
        "scenarios": [each.to_dict() for each in chosen],
        "ladder": None if ladder is None else {name: list(axis) for name, axis in ladder.items()},
    }
    market = result.market if result.has_one_position else result.markets
    return Stress(table, climbed, settings, market)


def find_loss(result: Result) -> str:
    """Return when the account of a run was ruined, and what was left; empty if it was not."""
    if not result.metrics["ruined"]:
        return ""
    time = format_time(result.span.start + round(result.metrics["ruin_time"] * DAY))
    return f"{time} UTC with {result.metrics['final_equity']:,.2f} left"


def describe_lost(lost: str) -> str:
    """Return that a scenario can do nothing more to an account, without a full stop."""
    return f"the account was ruined in the run, at {lost}: no scenario can change it"


def read_scenarios(
    scenarios: Sequence[Scenario] | Scenario | None, *, of_several: bool
) -> tuple[Scenario, ...]:
    """Return scenarios, checked to be some, with different names."""
    given = crashes() if scenarios is None else scenarios
    chosen = tuple(given) if isinstance(given, Sequence) else (given,)
    if not chosen or not all(isinstance(each, Scenario) for each in chosen):
        raise ParameterError(
            f"scenarios must be a list of bt.Scenario, was {repr_plain(given):.60}",
            where=Place("scenarios", of=WHERE),
            cure="pass bt.crashes(), or [bt.Scenario('fall', price=-0.3)]",
        )
    names = [each.name for each in chosen]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ParameterError(
            f"scenarios must have different names, {sorted(doubled)} occur more than once",
            where=Place("scenarios", of=WHERE),
            cure="rename them",
        )
    for each in () if of_several else chosen:
        for name in ("correlation", "prices"):
            if getattr(each, name) is not None:
                raise ParameterError(
                    f"{name} needs several instruments, {each.name!r} has {getattr(each, name)!r}",
                    where=Place("scenarios", of=WHERE),
                    cure=f"leave {name} out for an account with one instrument",
                )
    return chosen


def run_scenario(result: Result, scenario: Scenario, rules: str, data: Any) -> dict[str, Any]:
    """Return the row of a scenario."""
    if not result.has_one_position:
        return run_panel_scenario(result, scenario, rules, data)
    if data is not None and not isinstance(data, Market):
        raise ParameterError(
            f"data of one instrument must be a Market, was {str(data)[:60]!r}",
            where=Place("data", of=WHERE),
            cure="pass the Market of the instrument",
        )
    run = StressRun(result, quiet_venue(result, rules, scenario))
    replayed = cut_replay(scenario, data, run.history.interval)
    bars = make_bars(scenario, run.history) if replayed is None else replayed
    outcome = run.live(scenario, bars)
    if replayed is None:
        even = find_break_even(run, scenario)
    else:
        even = find_break_even_of(run, scenario, replayed)
    return {
        **outcome._asdict(),
        "break_even": even,
        "bars": bars.last.shape[1],
        "from": "figures" if replayed is None else "data",
    }


def find_side(run: StressRun) -> float:
    """Return the direction of the price that hurts: down for a long position, or none held."""
    held = run.result.state.books.positions[0].quantity
    return 1.0 if held < 0.0 else -1.0


def find_break_even(run: StressRun, scenario: Scenario) -> float:
    """Return the move of the price at which the account is liquidated; NaN if none does."""

    def is_dead(price: float) -> bool:
        moved = scenario.with_price(price)
        if moved.is_empty:
            return False
        return run.live(moved, make_bars(moved, run.history)).liquidated

    if find_side(run) < 0.0:
        return bisect(is_dead, 0.0, math.nextafter(-1.0, 0.0))
    return bisect(is_dead, 0.0, LARGEST_RISE)


def find_break_even_of(run: StressRun, scenario: Scenario, bars: ShockBars) -> float:
    """Return the move at the worst point of a replay, all log moves scaled, that liquidates."""
    worst = bars.last[2].min() if find_side(run) < 0.0 else bars.last[1].max()
    if worst == 1.0:
        return math.nan

    def is_dead(scale: float) -> bool:
        scaled = bars._replace(last=bars.last**scale, mark=bars.mark**scale)
        return run.live(scenario, scaled).liquidated

    limit = math.log(LARGEST_RISE) / abs(math.log(worst))
    scale = bisect(is_dead, 0.0, limit)
    return float(worst**scale - 1.0)


def bisect(is_dead: Callable[[float], bool], alive: float, dead: float) -> float:
    """Return where an account begins to be liquidated, from one end to another; NaN if nowhere."""
    if is_dead(alive):
        return alive
    if not is_dead(dead):
        return math.nan
    return halve(is_dead, alive, dead, STEPS)


def list_shocks(ladder: Mapping[str, Sequence[float]] | None) -> list[dict[str, float]]:
    """Return every combination of the axes of a ladder."""
    if ladder is None:
        return []
    if not isinstance(ladder, Mapping):
        raise ParameterError(
            f"a ladder must be a table of its axes, got {repr_plain(ladder)}",
            where=Place("ladder", of=WHERE),
            cure="give {'price': (-0.5, 0.5, 41)}, or leave it out",
        )
    for name in ladder:
        if name not in AXES:
            raise ParameterError(
                f"an axis of a ladder must be one of {', '.join(AXES)}, was {name!r}"
                + did_you_mean(name, AXES),
                where=Place("ladder", of=WHERE),
                cure="choose one of them",
            )
    if not len(ladder):
        raise ParameterError(
            "a ladder needs an axis, was empty",
            where=Place("ladder", of=WHERE),
            cure="give {'price': (-0.5, 0.5, 41)}, or leave it out",
        )
    values = [find_values(axis, name) for name, axis in ladder.items()]
    return [
        dict(zip(ladder, map(float, point), strict=True)) for point in itertools.product(*values)
    ]


def shock_once(result: Result, rules: str, shock: Scenario) -> StressOutcome:
    """Return what a shock of one bar does."""
    if not result.has_one_position:
        several = PanelStress(result, quiet_venues(result, rules, shock))
        return several.live(shock, several.make(shock))
    run = StressRun(result, quiet_venue(result, rules, shock))
    return run.live(shock, make_bars(shock, run.history))


def run_ladder(
    result: Result,
    grid: list[dict[str, float]],
    rules: str,
    progress: Progress | None,
    done: int,
    total: int,
) -> pd.DataFrame:
    """Return what the one-bar shocks of a ladder do, indexed by its axes."""
    rows: list[StressOutcome] = []
    for k, point in enumerate(grid, 1):
        shock = Scenario("ladder", shape="bar", **point)  # type: ignore[arg-type] # fields by name
        rows.append(shock_once(result, rules, shock))
        if progress is not None:
            progress(done + k, total)
    index = pd.MultiIndex.from_frame(pd.DataFrame(grid))
    found = pd.DataFrame(rows, index=index)[["equity", "loss", "liquidated"]]
    return found.astype({"liquidated": np.bool_})
