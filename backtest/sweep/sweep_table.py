"""Sweep: the table of many parameter sets, to rank, draw, run again, save and load."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import Progress
from backtest.core.result_parts import Headline, Part
from backtest.results import (
    ObjectiveLike,
    Result,
    find_far_bounds,
    rank_by_objective,
    read_constraints,
)
from backtest.results.measure_table import METRICS, OPTION_COSTS, Measures
from backtest.sweep.equity_curves import MOST_CURVES, trace_sets
from backtest.sweep.set_evaluator import Evaluator, describe_decided
from backtest.sweep.sets import Sets, count_sets, from_frame, number_rows, take_sets

ERROR = "error"
SCORE = "score"
VIOLATION = "violation"
STAGE = "stage"
ROBUST = "robust_score"
PLATEAU = "plateau"
TAKEN = frozenset({*METRICS, *OPTION_COSTS, ERROR, SCORE, VIOLATION, STAGE, ROBUST, PLATEAU})


class BuiltTable(NamedTuple):
    """The table of sets, and how many of them decided on few of their bars, in words.

    ``sampled`` are the sampled returns by label, where the sets are so few that all are kept.
    """

    table: pd.DataFrame
    decided: str
    sampled: dict[int, core.FloatArray]


def build_table(
    evaluator: Evaluator,
    sets: Sets,
    progress: Progress | None,
) -> BuiltTable:
    """Return the table of sets; equal ones run once. Warns of those that failed.

    After Ctrl-C the table has the sets that were done, with a warning. Raises KeyboardInterrupt if
    none was, and the error of the first set if all failed.
    """
    # ``places`` are rows of different sets, and ``codes`` the number of the one that each row has.
    places, codes = find_different(sets)
    different = take_sets(sets, places)

    # Of few sets the returns are kept too, for curves.
    are_few = len(codes) <= MOST_CURVES and not evaluator.is_pooled
    rows = evaluator.evaluate(different, returns=are_few, progress=progress)
    if not rows.done.any():
        raise KeyboardInterrupt

    errors = np.array(rows.errors, dtype=object)
    if all(errors[rows.done]):
        first = int(np.argmax(rows.done))
        evaluator.replay(take_sets(different, first))  # raises the error of the set itself
        raise core.PolicyError(f"every set failed, the first with: {errors[first]}")

    # Every row of the table has the measures of its set: equal ones have the same.
    columns = {name_column(name): column for name, column in sets.items()}
    metrics = take_sets(rows.metrics, codes)
    table = pd.DataFrame({**columns, **metrics})
    if any(rows.errors):
        table[ERROR] = errors[codes]
        warn_of_failed(errors[codes])

    n = len(codes)
    done = rows.done[codes]
    if not done.all():
        n_left = n - int(done.sum())
        core.warn_caller(f"interrupted: {n_left:,} of {n:,} sets were not done")
    decided = describe_decided(rows.shares[codes][done])

    # Labels of the table are places of its rows, before those that are not done leave it.
    sampled = {}
    for label, code in enumerate(codes.tolist()):
        if code in rows.sampled:
            sampled[label] = rows.sampled[code]
    return BuiltTable(
        table=order_columns(table[done], tuple(columns)),
        decided=decided,
        sampled=sampled,
    )


def warn_of_failed(errors: np.ndarray) -> None:
    """Warn of sets that failed, with the error of the first; the errors of others are empty."""
    failed = np.flatnonzero(errors != "")
    first = failed[0]
    core.warn_caller(
        f"{len(failed):,} of {len(errors):,} sets failed, the first (row {first}) with: "
        f"{errors[first]}"
    )


def find_different(sets: Sets) -> tuple[core.IntArray, core.IntArray]:
    """Return the first row of each different set, and the code of every row."""
    codes = number_rows(sets, count_sets(sets))
    _, places = np.unique(codes, return_index=True)
    return places.astype(np.int64), codes


def order_columns(table: pd.DataFrame, parameters: tuple[str, ...]) -> pd.DataFrame:
    """Return the table with its parameters first, then measures, those by market, and errors."""
    measures = [name for name in (*METRICS, *OPTION_COSTS) if name in table]
    names = [*parameters, *measures]

    # Those by market are called "sharpe BTC".
    others = [name for name in map(str, table) if name not in names]
    names += [name for name in others if name.partition(" ")[0] in METRICS]
    if ERROR in table:
        names.append(ERROR)
    return table[names]


def name_column(name: str) -> str:
    """Return the column of a parameter, ``policy.name`` where the name is that of a measure."""
    if name in TAKEN:
        return f"policy.{name}"
    return name


def name_parameter(column: str) -> str:
    return column.removeprefix("policy.")


Labels: TypeAlias = "int | Iterable[int] | pd.DataFrame"


def find_failed(table: pd.DataFrame) -> core.BoolArray:
    """Return which sets failed, of shape (n_sets,)."""
    if ERROR not in table:
        return np.zeros(len(table), dtype=np.bool_)
    return np.array(table[ERROR] != "", dtype=np.bool_)


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(core.SavedResult):
    """Results of many parameter sets.

    Attributes
    ----------
    table : DataFrame
        One row per set: its parameters, its measures (NaN if it failed), and ``error`` if any set
        failed. A parameter with the name of a measure is called ``policy.name``.
    manifest : mapping
        Everything that produced the table: data, venue, account, policy, settings, versions.
    evaluator : Evaluator or None
        Runs rows again; None in a sweep that was loaded.
    sampled : mapping
        Returns by sampling period, by label; empty of more than 200 sets, and in a loaded sweep.
    """

    table: pd.DataFrame
    manifest: Mapping[str, Any]
    evaluator: Evaluator | None = None
    sampled: Mapping[int, core.FloatArray] = field(default_factory=dict)

    kind = "sweep"
    is_yearly = True
    table_names = ("table", "curves")
    ranked_by: ClassVar[str | Mapping[str, float]] = "sharpe"
    """The objective by which the page ranks the sets."""
    ranked_where: ClassVar[Mapping[str, str]] = core.NOTHING
    """The constraints that it ranks them under."""

    def list_numbers(self) -> list[Headline]:
        """Return the headline numbers, the most important first."""
        from backtest.report.sweep_parts import list_sweep_numbers  # noqa: PLC0415 - only when it is shown

        return list_sweep_numbers(self)

    def list_parts(self) -> list[Part]:
        """Return the sections of the page, before those on data and assumptions."""
        from backtest.report.sweep_parts import list_sweep_parts  # noqa: PLC0415 - only when it is shown

        return list_sweep_parts(self)

    def list_assumptions(self) -> tuple[str, ...]:
        """Return what the numbers assume beside the rules of the account, in sentences."""
        from backtest.report.sweep_parts import list_sweep_assumptions  # noqa: PLC0415 - only when it is shown

        return tuple(list_sweep_assumptions(self))

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence."""
        from backtest.report.sweep_parts import write_sweep_verdict  # noqa: PLC0415 - only when it is shown

        return write_sweep_verdict(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before any number."""
        from backtest.report.sweep_parts import list_sweep_notices  # noqa: PLC0415 - only when it is shown

        return tuple(list_sweep_notices(self))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The columns that hold parameters."""
        return tuple(self.manifest["parameters"])

    @property
    def complete(self) -> bool:
        """Whether every set was run; False after Ctrl-C."""
        return len(self.table) == int(self.manifest["sets"]["asked"])

    @cached_property
    def metrics(self) -> Measures[core.FloatArray]:
        """The measures by name, arrays of shape (n_sets,)."""
        known = [name for name in METRICS if name in self.table]
        return Measures({name: self.table[name].to_numpy() for name in known})

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """The equity of up to 200 sets over time, 1 at the start, and of constant leverage.

        Columns are labels of the table as text, and the constant at the risk of the best. Of more
        sets these are the hundred best by Sharpe ratio, and others down to the worst, which are
        run again. None of an account for each market, and of a part of a loaded sweep.
        """
        if self.evaluator is None:
            return None
        return trace_sets(
            self.evaluator,
            self._find_sets(self.table),
            labels=[*self.table.index],
            order=self.rank(),
            sampled=self.sampled,
        )

    @core.checked
    def rank(
        self,
        objective: ObjectiveLike = "sharpe",
        constraints: Mapping[str, str] | None = None,
    ) -> core.IntArray:
        """Return the positions of the rows from the best to the worst.

        Rows that satisfy the constraints come first, then those that do not, then the ruined ones
        by their time to ruin, then the failed ones. See
        :func:`backtest.results.ranking.read_objective`.
        """
        return rank_by_objective(self.metrics, objective, constraints, find_failed(self.table))

    @core.checked
    def best(
        self,
        objective: ObjectiveLike = "sharpe",
        constraints: Mapping[str, str] | None = None,
    ) -> pd.Series:
        """Return the best row; its name is its label in the table.

        Warns if it is ruined or breaks a constraint, as then all others do too, and of a bound of
        an open measure that no row came within a factor 10 of.
        """
        place = self.rank(objective, constraints)[0]
        bounds = read_constraints(constraints)

        # Bounds take measures as arrays: those of the best row have one element.
        row = {name: values[place : place + 1] for name, values in self.metrics.items()}
        doubts = []
        broken = [str(bound) for bound in bounds if bound.violation(row)[0] > 0]
        if broken:
            doubts.append(f"no set satisfies all constraints, the best breaks {', '.join(broken)}")
        doubts += find_far_bounds(bounds, self.metrics)
        if doubts:
            core.warn_caller("; ".join(doubts))
        return self.table.iloc[int(place)]

    @core.checked
    def top(
        self,
        n: int = 10,
        objective: ObjectiveLike = "sharpe",
        constraints: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Return the n best rows, the best first.

        Raises
        ------
        ParameterError
            If n is less than 1, a measure is unknown, or a constraint is no bound.
        """
        core.Whole(1).check("n", n)
        return self.table.iloc[self.rank(objective, constraints)[:n]]

    @core.checked
    def heatmap(
        self,
        x: str,
        y: str,
        metric: str = "sharpe",
    ) -> Any:
        """Return a Plotly figure of the median of a measure over two parameters."""
        core.Choice(*self.parameters).check("x", x)
        others = [name for name in self.parameters if name != x]
        core.Choice(*others).check("y", y)
        core.Choice(*self.metrics).check("metric", metric)
        from backtest.report.sweep_parts import draw_sweep_map  # noqa: PLC0415 - only when it is shown

        return draw_sweep_map(self, x, y, metric)

    @core.checked
    def replay(self, row: int) -> Result:
        """Return the run of a row, by its label, as :func:`backtest.run` returns it."""
        evaluator = self._find_evaluator()
        sets = self._find_sets(self._select(row))
        return evaluator.replay(take_sets(sets, 0))

    @core.checked
    def detail(self, rows: Labels) -> pd.DataFrame:
        """Return some rows with the measures that need their path, by running them again.

        Parameters
        ----------
        rows : int, several, or DataFrame
            Labels of the table, or a part of it such as :meth:`top` returns.

        Returns
        -------
        DataFrame
            After Ctrl-C, the rows that were done, with a warning.

        Raises
        ------
        ParameterError
            If a row is not in the table, or the sweep was loaded without its market.
        """
        evaluator = self._find_evaluator()
        table = self._select(rows)
        measured = evaluator.evaluate_path(self._find_sets(table))
        n_done = int(measured.done.sum())
        if n_done == 0:
            raise KeyboardInterrupt

        if n_done < len(table):
            n_left = len(table) - n_done
            core.warn_caller(f"interrupted: {n_left:,} of {len(table):,} rows were not run again")
        detailed = table.assign(**measured.metrics)
        return order_columns(detailed[measured.done], self.parameters)

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return f"sweep {self.policy_name}"

    @property
    def title(self) -> str:
        """The policy, and the parameters that vary."""
        return f"{self.policy_name} over {', '.join(self.parameters)}"

    @property
    def note(self) -> str:
        """The number of sets."""
        return f"{self._count()} sets"

    def _count(self) -> str:
        """Return how many sets ran; after Ctrl-C, of how many."""
        if self.complete:
            return f"{len(self.table):,}"
        return f"{len(self.table):,} of {self.manifest['sets']['asked']:,}"

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as data for JSON; a table of more than 10,000 sets is left out."""
        data: dict[str, Any] = core.to_plain(
            {
                "sweep": self.manifest,
                "verdict": self.verdict,
                "table": core.list_records(self.table),
            }
        )
        return data

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the set with the highest Sharpe ratio."""
        if not len(self.table):
            return {}
        best = self.table.iloc[self.rank("sharpe")[:1]]
        (row,) = best.to_dict("records")
        return {str(name): value for name, value in row.items() if name in self.metrics}

    def list_policies(self) -> Iterable[type]:
        """Return the class of the policy; nothing of a loaded sweep."""
        if self.evaluator is None:
            return []
        return [self.evaluator.varied.policy_class]

    def _lay_out(self) -> dict[str, pd.DataFrame | None]:
        words = {name: encode_objects(self.table[name].to_numpy()) for name in self.parameters}
        return {"table": self.table.assign(**words), "curves": self.curves}

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:  # noqa: ARG003
        table = tables["table"]
        words = {name: decode_objects(table[name].to_numpy()) for name in manifest["parameters"]}
        sweep = cls(table.assign(**words), manifest)
        vars(sweep)["curves"] = tables["curves"]
        return sweep

    def __repr__(self) -> str:
        best = self.table.iloc[int(self.rank()[0])]
        values = [f"{name}={core.format_value(best[name])}" for name in self.parameters]
        policy = self.manifest["policy"]["name"]
        source = self.manifest["data"]["source"]
        return (
            f"<Sweep of {policy}: {self._count()} sets on {source}, "
            f"best sharpe {best['sharpe']:z.2f} with {', '.join(values)}>"
        )

    def _select(self, rows: Labels) -> pd.DataFrame:
        """Return the rows with some labels, in their order; refuse labels that are unknown."""
        asked: Any = rows
        if isinstance(rows, pd.DataFrame):
            asked = rows.index
        labels = pd.Index(np.atleast_1d(np.asarray(asked)), name=self.table.index.name)

        # Of bools, pandas would find the rows 0 and 1.
        is_known = labels.isin(self.table.index) & (labels.inferred_type != "boolean")
        refused: Any = None
        if not len(labels):
            refused = labels
        elif not is_known.all():
            refused = labels[~is_known].tolist()[0]
        if refused is not None:
            raise core.ParameterError(
                f"rows must be labels of the table, {self.table.index[0]} to "
                f"{self.table.index[-1]}, got {refused!r}"
            )
        selected: pd.DataFrame = self.table.loc[labels]
        return selected

    def _find_sets(self, table: pd.DataFrame) -> Sets:
        """Return the sets of some rows of the table."""
        columns = list(self.manifest["parameters"])
        names = [name_parameter(column) for column in columns]
        return from_frame(table[columns].set_axis(names, axis=1))

    def _find_evaluator(self) -> Evaluator:
        """Return the evaluator; ParameterError of a loaded sweep."""
        if self.evaluator is None:
            raise core.ParameterError(
                "a row can be run again only with its market, and a loaded sweep has none; run the "
                "policy with the parameters of the row"
            )
        return self.evaluator


def encode_objects(values: np.ndarray) -> np.ndarray:
    """Return values of any kind as JSON, and numbers and claims as they are."""
    if values.dtype != object:
        return values
    return np.array([json.dumps(core.to_plain(value)) for value in values], dtype=object)


def decode_objects(values: np.ndarray) -> np.ndarray:
    """Return the values that :func:`encode_objects` wrote as JSON."""
    if values.dtype.kind in "iufb":
        return values
    objects = np.empty(len(values), dtype=object)
    objects[:] = [core.from_plain(json.loads(text)) for text in values]
    return objects
