"""sensitivity(parameters=True): a run with one parameter changed at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import AnyPolicy, Compile, Conditions
from backtest.policies import split_name
from backtest.results.differences import choose_block, resampling_error
from backtest.results.settings_result import SettingsResult
from backtest.risk.liquidations import describe_terms
from backtest.risk.shown_growth import choose_shown_growth
from backtest.search import equal_risk
from backtest.sweep import VariedTest, check_sets, read_runs
from backtest.sweep.sets import SIGNAL, find_condition

SMALL = 0.1
ALIKE = 1e-4
"""Deviation of the returns from those of constant leverage, over their own, up to which they are
the same."""
LOST_EDGE = 0.5
"""Share of the edge on constant leverage whose loss in a small step is a cliff."""


@dataclass(frozen=True, eq=False, repr=False)
class ParameterSensitivity(SettingsResult):
    """Results with one parameter changed at a time.

    Attributes
    ----------
    table : DataFrame
        By ``parameter`` and ``value``: ``step`` (a share of the value, or of the range where that
        is 0; NaN of an option), ``is_clipped`` at a bound, where the value is nearer than the step,
        ``growth`` (log growth per year; minus infinity at ruin), ``sharpe``, ``max_drawdown``,
        ``change`` of growth, ``error``, the standard error of that change in a paired stationary
        bootstrap, ``ruined``, and ``fault``, why a run failed, whose figures are NaN.
    verdicts : DataFrame
        By ``parameter``: ``value`` as run, and ``verdict``: ``"cliff"`` where a step of a tenth
        ruins the account or loses over half of its edge on constant leverage at equal risk, else
        ``"failed"`` where a run failed, else ``"flat"`` where no change is over its error, else
        ``"sloped"``.
    base, edge : float
        Log growth per year as run, and less that of constant leverage at equal risk: 0 where the
        returns are those of constant leverage.
    days : float
        How long the account ran.
    """

    table: pd.DataFrame
    verdicts: pd.DataFrame
    base: float
    edge: float
    days: float

    kind = "parameter-sensitivity"
    called = "parameter sensitivity"
    is_yearly = True
    call = "Backtest.sensitivity"
    details = (
        "One parameter is changed at a time. Flat: no change of growth is over its standard error. "
        "Cliff: a step of a tenth ruins the account, or loses over half of its edge on constant "
        "leverage at equal risk."
    )

    @property
    def note(self) -> str:
        counts = self.verdicts["verdict"].value_counts()
        names = ("flat", "sloped", "cliff", *["failed"] * ("failed" in counts))
        return ", ".join(f"{counts.get(name, 0)} {name}" for name in names)

    @property
    def verdict(self) -> str:
        cliffs = self.verdicts.index[self.verdicts["verdict"] == "cliff"]
        text = f"Of {core.count_nouns(len(self.verdicts), 'parameter')}: {self.note}."
        return f"{text} Cliff: {', '.join(cliffs)}." if len(cliffs) else text

    @property
    def notices(self) -> tuple[str, ...]:
        """Which steps end at a bound, and which runs failed, and why."""
        names = [f"{name} {value}" for name, value in self.table.index]
        rows = [*zip(names, self.table.to_dict("records"), strict=True)]
        clipped = [name for name, row in rows if row["is_clipped"]]
        bound = [f"Steps that end at a bound, before their size: {', '.join(clipped)}."]
        failed = [f"{name} failed: {row['fault']}" for name, row in rows if row["fault"]]
        return (*(bound if clipped else ()), *failed)

    def list_numbers(self) -> list[Headline]:
        shown = choose_shown_growth(self.days)
        base, edge = (shown.logarithmic(each) for each in (self.base, self.edge))
        of = "" if shown.is_yearly else "_of_days"
        return [
            Headline(f"base{of}", "log growth as run", base, "growth", shown.when),
            Headline(f"edge{of}", "edge on constant leverage", edge, "growth",
                     f"log growth {shown.when}, at equal risk"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        shown = choose_shown_growth(self.days)
        yearly = {name: self.table[name] for name in ("growth", "change", "error")}
        table = self.table.assign(**{name: shown.logarithmic(x) for name, x in yearly.items()})
        change = 100.0 * table["change"].replace(-np.inf, np.nan)
        heads = {
            "step": Head("step", "of the value", "signed percent"),
            "is_clipped": Head("at its bound", "", "claim"),
            "growth": Head("log growth", shown.when, "growth"),
            "change": Head("change", "of log growth", "growth"),
            "error": Head("its error", "of log growth, paired bootstrap", "percent"),
            "max_drawdown": Head("max drawdown", "", "percent"),
            "ruined": Head("ruined", "", "claim"),
        }
        caption = f"Change of log growth, % {shown.when}, for the lowest value and the highest."
        return [Part("parameters", "By parameter", "", (
            ShownTable(self.verdicts, labels=Head("parameter"), heads={"value": Head("value")}),
            ShownChart("tornado", "Tornado", caption, change, "tornado"),
            ShownTable(table.drop(columns="fault"), "Steps", labels=Head("parameter"),
                       heads=heads),
        ), shows="both")]  # fmt: skip


def step_parameters(
    test: Conditions, policy: AnyPolicy, is_compiled: Compile, progress: Progress | None
) -> ParameterSensitivity:
    if isinstance(policy, Mapping):
        raise core.ParameterError("parameters=True needs one policy, got policies by instrument")
    runs = read_runs(test, policy, compile=bool(is_compiled))
    own = {
        name: each for name, each in runs.varied.settings.items()
        if name.startswith(SIGNAL) or not split_name(name)[0]
    }  # fmt: skip
    used = {name: each for name, each in own.items() if is_in_use(runs.varied, name)}
    steps = [(name, *step) for name, each in used.items() for step in list_steps(each)]
    if not steps:
        raise core.ParameterError(f"parameters=True needs a parameter, {policy!r:.60} has none")
    today = {name: each.value for name, each in own.items()}
    if all(name.startswith(SIGNAL) for name in own):
        runs = runs.fit_to(own)
    tried = [today, *({**today, name: value} for name, value, *_ in steps)]
    sets = check_sets(runs.varied, {name: [row[name] for row in tried] for name in today})
    evaluator = runs.make(runs.market, runs.test.signal, "core")
    found = evaluator.evaluate(sets, returns=True, progress=progress)
    if found.errors[0] or not found.done.all() or found.returns is None:
        raise core.PolicyError(f"the policy as given failed: {found.errors[0]}")
    years = (runs.market.end - int(runs.market.time[runs.first])) / (YEAR_DAYS * DAY)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log1p(found.metrics["total_return"]) / years
        growth[found.metrics["ruined"] > 0.0] = -np.inf
        logs = np.log1p(found.returns.T)
    gaps = logs[1:] - logs[0]
    errors = np.full(len(steps), np.nan)
    known = np.isfinite(gaps).all(axis=1)
    if known.any() and gaps.shape[1] > 1:
        block = choose_block(gaps[known])
        errors[known] = resampling_error(gaps[known], block) * gaps.shape[1] / years
    result = evaluator.replay(today)
    held = equal_risk.hold_at_equal_risk(result)
    edge = math.nan
    if isinstance(held, equal_risk.ScaledAccount):
        away = result.returns - held.rest * held.result.returns
        is_own = bool(np.std(away) > ALIKE * np.std(result.returns))
        edge = is_own * (float(growth[0]) - math.log1p(held.result.metrics["total_return"]) / years)
    rows = [(name, write_value(value), *step) for name, value, *step in steps]
    table = pd.DataFrame(rows, columns=["parameter", "value", "step", "is_clipped"]).assign(
        growth=growth[1:],
        **{name: found.metrics[name][1:] for name in ("sharpe", "max_drawdown")},
        change=growth[1:] - growth[0],
        error=errors,
        ruined=found.metrics["ruined"][1:] > 0.0,
        fault=found.errors[1:],
    ).set_index(["parameter", "value"])  # fmt: skip
    judged = pd.DataFrame.from_dict(
        {
            name: [write_value(today[str(name)]), judge_steps(rows, edge)]
            for name, rows in table.groupby(level=0, sort=False)
        },
        orient="index",
        columns=["value", "verdict"],
    ).rename_axis("parameter")
    return ParameterSensitivity(
        table, judged, float(growth[0]), edge, years * YEAR_DAYS,
        settings=describe_terms(policy, test), market=test.market,
    )  # fmt: skip


def write_value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_in_use(varied: VariedTest, name: str) -> bool:
    """Return whether a parameter has an effect, and is not one that is off until it is set."""
    parameter = varied.policy_class.parameters().get(name)
    if parameter is None:
        return True
    is_off = varied.settings[name].value == parameter.default
    if is_off and not getattr(parameter.space, "searched", True):
        return False
    return not find_condition(name, {}, varied.settings, {})[1]


def list_steps(setting: Any) -> Iterator[tuple[Any, float, bool]]:
    """Yield the values of a setting that are tried, with their step and whether it is clipped."""
    value, space = setting.value, setting.space
    if not isinstance(value, int | float) or isinstance(value, bool):
        options = (True, False) if setting.kind is bool else getattr(space, "options", ())
        yield from ((each, math.nan, False) for each in options if each != value)
        return
    reach = abs(value) or (space.high - space.low if math.isfinite(space.high - space.low) else 1.0)
    found: dict[Any, tuple[float, bool]] = {}
    for step in (-0.1, 0.1, -0.25, 0.25):  # of two that end at one value, the smaller counts
        wanted = value + step * reach
        if setting.kind is int:
            least = value + (1 if step > 0.0 else -1)
            wanted = (max if step > 0.0 else min)(round(wanted), least)
        new = min(max(wanted, space.low), space.high)
        if new != value:
            found.setdefault(new, (step, new != wanted))
    yield from ((new, *found[new]) for new in sorted(found))


def judge_steps(rows: pd.DataFrame, edge: float) -> str:
    small = rows[rows["step"].abs() == SMALL]
    loses = (edge > 0.0) & (small["change"] < -LOST_EDGE * edge)
    if bool(small["ruined"].any() or loses.any()):
        return "cliff"
    if (rows["fault"] != "").any():
        return "failed"
    return "flat" if bool((rows["change"].abs() <= rows["error"]).all()) else "sloped"
