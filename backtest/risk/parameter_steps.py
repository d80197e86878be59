"""sensitivity(parameters=True): a run with one parameter changed at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from backtest.risk.shown_growth import choose_shown_growth, describe_start
from backtest.search import equal_risk
from backtest.sweep import Rows, VariedTest, check_sets, read_runs
from backtest.sweep.sets import SIGNAL, Setting, find_condition

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
        names = ["flat", "sloped", "cliff"]
        if "failed" in counts:
            names.append("failed")
        numbers = [f"{counts.get(name, 0)} {name}" for name in names]
        return ", ".join(numbers)

    @property
    def verdict(self) -> str:
        cliffs = self.verdicts.index[self.verdicts["verdict"] == "cliff"]
        text = f"Of {core.count_nouns(len(self.verdicts), 'parameter')}: {self.note}."
        if not len(cliffs):
            return text
        return f"{text} Cliff: {', '.join(cliffs)}."

    @property
    def notices(self) -> tuple[str, ...]:
        """Which steps end at a bound, and which runs failed, and why."""
        steps = [f"{parameter} {value}" for parameter, value in self.table.index]
        clipped = []
        failures = []
        for step, row in zip(steps, self.table.to_dict("records"), strict=True):
            if row["is_clipped"]:
                clipped.append(step)
            if row["fault"]:
                failures.append(f"{step} failed: {row['fault']}")

        if not clipped:
            return tuple(failures)
        bound = f"Steps that end at a bound, before their size: {', '.join(clipped)}."
        return (bound, *failures)

    def list_numbers(self) -> list[Headline]:
        shown = choose_shown_growth(self.days)
        suffix = "_of_days"
        if shown.is_yearly:
            suffix = ""
        return [
            Headline(
                f"base{suffix}",
                "log growth as run",
                shown.logarithmic(self.base),
                "growth",
                shown.when,
            ),
            Headline(
                f"edge{suffix}",
                "edge on constant leverage",
                shown.logarithmic(self.edge),
                "growth",
                f"log growth {shown.when}, at equal risk",
            ),
        ]

    def list_parts(self) -> list[Part]:
        shown = choose_shown_growth(self.days)
        columns = ("growth", "change", "error")
        table = self.table.assign(**{name: shown.logarithmic(self.table[name]) for name in columns})
        heads = {
            "step": Head("step", "of the value", "signed percent"),
            "is_clipped": Head("at its bound", "", "claim"),
            "growth": Head("log growth", shown.when, "growth"),
            "change": Head("change", "of log growth", "growth"),
            "error": Head("its error", "of log growth, paired bootstrap", "percent"),
            "max_drawdown": Head("max drawdown", "", "percent"),
            "ruined": Head("ruined", "", "claim"),
        }
        tornado = ShownChart(
            key="tornado",
            title="Tornado",
            caption=f"Change of log growth, % {shown.when}, for the lowest value and the highest.",
            table=100.0 * table["change"].replace(-np.inf, np.nan),
            kind="tornado",
        )
        steps = table.drop(columns="fault")
        return [
            Part(
                key="parameters",
                title="By parameter",
                lead="",
                blocks=(
                    ShownTable(
                        self.verdicts, labels=Head("parameter"), heads={"value": Head("value")}
                    ),
                    tornado,
                    ShownTable(steps, "Steps", labels=Head("parameter"), heads=heads),
                ),
                shows="both",
            )
        ]


def list_stepped(
    today: Mapping[str, Any],
    steps: Sequence[Step],
) -> dict[str, list[Any]]:
    """Return sets by parameter: the values of today, then these with one step each."""
    columns = {name: [value] for name, value in today.items()}
    for step in steps:
        values = {**today, step.name: step.value}
        for name, value in values.items():
            columns[name].append(value)
    return columns


def step_parameters(
    test: Conditions,
    policy: AnyPolicy,
    is_compiled: Compile,
    progress: Progress | None,
) -> ParameterSensitivity:
    """Return the sensitivity of an account to the parameters of its policy and signal.

    Each parameter is moved by some steps, the others stay. The account runs once as it is and once
    for each step. Raises ParameterError without a parameter to move, PolicyError if the account as
    it is fails.
    """
    if isinstance(policy, Mapping):
        raise core.ParameterError("parameters=True needs one policy, got policies by instrument")
    runs = read_runs(test, policy, compile=bool(is_compiled))

    settings = find_stepped(runs.varied)
    steps: list[Step] = []
    for name, setting in settings.items():
        if is_in_use(runs.varied, name):
            steps += list_steps(setting)
    if not steps:
        raise core.ParameterError(f"parameters=True needs a parameter, {policy!r:.60} has none")

    # The account as it is comes first, then one set a step.
    today = {name: setting.value for name, setting in settings.items()}
    if all(name.startswith(SIGNAL) for name in settings):
        runs = runs.fit_to(settings)
    columns = list_stepped(today, steps)
    sets = check_sets(runs.varied, columns)

    evaluator = runs.make(runs.market, runs.test.signal, "core")
    measured = evaluator.evaluate(sets, returns=True, progress=progress)
    is_whole = not measured.errors[0] and measured.done.all()
    if not is_whole or measured.returns is None:
        raise core.PolicyError(f"the policy as given failed: {measured.errors[0]}")

    start = int(runs.market.time[runs.first])
    years = (runs.market.end - start) / (YEAR_DAYS * DAY)
    growth_today, table = tabulate_steps(steps, measured, years)

    # What the policy earns over constant leverage: a step is judged by how much of it is lost.
    edge = measure_edge(evaluator.replay(today), growth_today, years)
    judged: dict[Any, list[str]] = {}
    for parameter, rows in table.groupby(level=0, sort=False):
        value = write_value(today[str(parameter)])
        judged[parameter] = [value, judge_steps(rows, edge)]
    verdicts = pd.DataFrame.from_dict(
        judged,
        orient="index",
        columns=["value", "verdict"],
    )
    return ParameterSensitivity(
        table=table,
        verdicts=verdicts.rename_axis("parameter"),
        base=growth_today,
        edge=edge,
        days=years * YEAR_DAYS,
        settings=describe_terms(policy, test) | describe_start(test),
        market=test.market,
    )


def find_stepped(varied: VariedTest) -> dict[str, Setting]:
    """Return the parameters of policy and signal by name, not those of single instruments."""
    settings = {}
    for name, setting in varied.settings.items():
        owner, _ = split_name(name)
        if not owner or name.startswith(SIGNAL):
            settings[name] = setting
    return settings


class Step(NamedTuple):
    """A value of a parameter that is tried.

    ``size`` is the step as a share of the value as it is, NaN of an option. It ``is_clipped`` where
    the whole step would leave the parameter's range.
    """

    name: str
    value: Any
    size: float
    is_clipped: bool


def measure_errors(gaps: core.FloatArray, years: float) -> core.FloatArray:
    """Return the standard errors of changes of growth, (n_steps,), NaN where one is not finite.

    ``gaps`` (n_steps, n_returns) are log returns less those of the account as it is.
    """
    errors = np.full(len(gaps), np.nan)
    known = np.isfinite(gaps).all(axis=1)
    n_returns = gaps.shape[1]
    if known.any() and n_returns > 1:
        known_gaps = gaps[known]
        block = choose_block(known_gaps)
        errors[known] = resampling_error(known_gaps, block) * n_returns / years
    return errors


def tabulate_steps(
    steps: Sequence[Step],
    measured: Rows,
    years: float,
) -> tuple[float, pd.DataFrame]:
    """Return the growth of the account as it is, and a table with a row a step.

    ``measured`` are the sets of an evaluation over some ``years``: the account as it is first, then
    one for each step. Growth is logarithmic, per year; that of a ruined account is minus infinity.
    """
    metrics = measured.metrics
    is_ruined = metrics["ruined"] > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log1p(metrics["total_return"]) / years
        growth[is_ruined] = -np.inf

        # By set and sampling period.
        log_returns = np.log1p(measured.returns.T)

    table = pd.DataFrame(
        {
            "parameter": [step.name for step in steps],
            "value": [write_value(step.value) for step in steps],
            "step": [step.size for step in steps],
            "is_clipped": [step.is_clipped for step in steps],
            "growth": growth[1:],
            "sharpe": metrics["sharpe"][1:],
            "max_drawdown": metrics["max_drawdown"][1:],
            "change": growth[1:] - growth[0],
            "error": measure_errors(log_returns[1:] - log_returns[0], years),
            "ruined": is_ruined[1:],
            "fault": measured.errors[1:],
        }
    )
    return float(growth[0]), table.set_index(["parameter", "value"])


def measure_edge(result: Any, growth: float, years: float) -> float:
    """Return log growth less that of constant leverage at equal risk; NaN where that is unknown.

    0 where the returns are those of constant leverage.
    """
    constant = equal_risk.hold_at_equal_risk(result)
    if not isinstance(constant, equal_risk.ScaledAccount):
        return math.nan

    # ``rest`` is the factor that is left to the volatility of the account, 1 but for little.
    scaled = constant.rest * constant.result.returns
    difference = result.returns - scaled
    if not np.std(difference) > ALIKE * np.std(result.returns):
        return 0.0
    total_return = constant.result.metrics["total_return"]
    return growth - math.log1p(total_return) / years


def write_value(value: Any) -> str:
    """Return a value of a parameter as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def is_in_use(varied: VariedTest, name: str) -> bool:
    """Return whether a parameter has an effect, and is not one that is off until it is set.

    Those of a signal always count.
    """
    parameters = varied.policy_class.parameters()
    parameter = parameters.get(name)
    if parameter is None:
        return True

    # What searches leave out does nothing at its default.
    is_default = varied.settings[name].value == parameter.default
    is_searched = getattr(parameter.space, "searched", True)
    if is_default and not is_searched:
        return False

    _, unmet = find_condition(name, {}, varied.settings, {})
    return not unmet


def list_steps(setting: Setting) -> Iterator[Step]:
    """Yield the values of a setting that are tried: 10 and 25 % down and up, or all options."""
    value: Any = setting.value
    space = setting.space
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number:
        options = getattr(space, "options", ())
        if setting.kind is bool:
            options = (True, False)
        for option in options:
            if option != value:
                yield Step(setting.name, option, size=math.nan, is_clipped=False)
        return

    # Steps are shares of the value; of 0, shares of the range, or of 1 where it has no end.
    size = abs(value)
    if size == 0.0:
        size = 1.0
        if math.isfinite(space.high - space.low):
            size = space.high - space.low

    # Whole numbers move by at least 1. Of two steps that end at one value, the smaller counts.
    steps: dict[Any, Step] = {}
    for step in (-0.1, 0.1, -0.25, 0.25):
        wanted = value + step * size
        if setting.kind is int and step > 0.0:
            wanted = max(round(wanted), value + 1)
        elif setting.kind is int:
            wanted = min(round(wanted), value - 1)

        allowed = min(max(wanted, space.low), space.high)
        if allowed != value and allowed not in steps:
            is_clipped = allowed != wanted
            steps[allowed] = Step(setting.name, allowed, step, is_clipped)

    for allowed in sorted(steps):
        yield steps[allowed]


def judge_steps(rows: pd.DataFrame, edge: float) -> str:
    """Return the verdict on a parameter by the rows of its steps."""
    is_small = rows["step"].abs() == SMALL
    small = rows[is_small]
    loses = (edge > 0.0) & (small["change"] < -LOST_EDGE * edge)
    if small["ruined"].any() or loses.any():
        return "cliff"

    if (rows["fault"] != "").any():
        return "failed"
    is_within_error = rows["change"].abs() <= rows["error"]
    if is_within_error.all():
        return "flat"
    return "sloped"
