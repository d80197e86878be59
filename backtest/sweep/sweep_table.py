"""Sweep: the results of many parameter sets, to rank, draw, run again, save and load."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    Choice,
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    SavedResult,
    Whole,
    call_later,
    checked,
    format_value,
    list_records,
    to_plain,
    warn_caller,
)
from backtest.base.result_folders import MANIFEST
from backtest.measures import ObjectiveLike, rank_by_objective, read_constraints
from backtest.measures.measure_table import ABOUT, METRICS
from backtest.sweep.sets.sets import Sets, from_frame, take_sets
from backtest.sweep.tabulate import ERROR, convert_dates, name_parameter, order_columns

if TYPE_CHECKING:
    from backtest.engine import Result
    from backtest.sweep.set_evaluator import Evaluator


Reduce = Literal["median", "best"]

MOST_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""

BINS = 24


class Axis(NamedTuple):
    """The cell of each set, and the center and the name of each cell."""

    cells: IntArray
    centers: np.ndarray
    words: list[str]
    scale: str


def draw_map(
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    x: str,
    y: str,
    metric: str,
    reduce: Reduce = "median",
) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    facts = manifest["parameters"]
    Choice("median", "best").check("reduce", reduce)
    Choice(*facts).check("x", x)
    Choice(*facts).check("y", y)
    Choice(*(name for name in METRICS if name in table)).check("metric", metric)
    if x == y:
        raise ParameterError(f"x and y must be two parameters, got {x!r} twice")
    across, along = read_axis(table[x], facts[x]["log"]), read_axis(table[y], facts[y]["log"])
    is_falling = ABOUT[metric].better < 0
    ruined = table["ruined"].to_numpy() > 0.0
    sets = pd.DataFrame({"y": along.cells, "x": across.cells, "ruined": ruined})
    sets["value"] = table[metric].mask(ruined).to_numpy()
    how = "median" if reduce == "median" else "min" if is_falling else "max"
    cells = sets.groupby(["y", "x"]).agg(
        value=("value", how), n=("ruined", "size"), ruined=("ruined", "sum")
    )
    hides = cells["ruined"] >= (cells["n"] if reduce == "best" else (cells["n"] + 1) // 2)
    cells["value"] = cells["value"].mask(hides)
    cells["note"] = [f"{n} sets, {lost} ruined" for n, lost in zip(cells["n"], cells["ruined"],
                                                                  strict=True)]  # fmt: skip
    whole = pd.MultiIndex.from_product([range(len(along.words)), range(len(across.words))])
    shape = (len(along.words), len(across.words))
    filled = cells.reindex(whole)
    notes = np.empty((*shape, 3), dtype=object)
    notes[..., 0], notes[..., 1] = across.words, np.array(along.words, dtype=object)[:, np.newaxis]
    notes[..., 2] = filled["note"].fillna("0 sets").to_numpy().reshape(shape)
    figure = go.Figure(
        go.Heatmap(
            x=across.centers,
            y=along.centers,
            z=filled["value"].to_numpy(dtype=np.float64).reshape(shape),
            colorscale="Viridis",
            reversescale=is_falling,
            colorbar={"title": ABOUT[metric].unit},
            customdata=notes,
            hovertemplate=f"{x} %{{customdata[0]}}<br>{y} %{{customdata[1]}}"
            f"<br>{metric} %{{z:.4g}}<br>%{{customdata[2]}}<extra></extra>",
            hoverongaps=False,
        )
    )
    lost = cells[hides]
    if len(lost):
        figure.add_scatter(
            x=across.centers[lost.index.get_level_values("x")],
            y=along.centers[lost.index.get_level_values("y")],
            mode="markers",
            marker={"symbol": "x", "color": "#b2182b", "size": 9},
            name="ruined",
            showlegend=True,
            text=lost["note"].tolist(),
            hovertemplate="%{text}<extra></extra>",
        )
    others = [name for name in facts if name not in (x, y)]
    subtitle = f"{reduce} over {', '.join(others)}" if others else f"{len(table):,} sets"
    title = f"{metric.replace('_', ' ')} of {manifest['policy']['name']}"
    for update, name, axis in ((figure.update_xaxes, x, across), (figure.update_yaxes, y, along)):
        unit = facts[name]["unit"]
        update(title=f"{name} ({unit})" if unit else name, type=axis.scale, showgrid=False)
    return figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        title={"text": f"{title}<br><sup>{subtitle}</sup>"},
    )


def read_axis(column: pd.Series, is_log: bool) -> Axis:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not is_number or column.isna().any():
        cells, names = pd.factorize(column.fillna("none").astype(str), sort=True)
        return Axis(cells, np.array(names, dtype=object), [*names], "category")
    numbers = column.to_numpy(dtype=np.float64)
    values = np.unique(numbers)
    is_log = is_log and bool(values[0] > 0.0)
    scale = "log" if is_log else "linear"
    if len(values) <= MOST_VALUES:
        words = [f"{value:.6g}" for value in values]
        return Axis(np.searchsorted(values, numbers), values, words, scale)
    numbers = np.log(numbers) if is_log else numbers
    edges = np.linspace(numbers.min(), numbers.max(), BINS + 1)
    cells = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, BINS - 1)
    centers = (edges[1:] + edges[:-1]) / 2.0
    if is_log:
        edges, centers = np.exp(edges), np.exp(centers)
    words = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]
    return Axis(cells, centers, words, scale)


DECLARED = "backtest.report.set_parts"
"""Where the figures, tables and charts are declared."""
Labels: TypeAlias = "int | Iterable[int] | pd.DataFrame"


def find_failed(table: pd.DataFrame) -> BoolArray:
    return np.array(table[ERROR] != "" if ERROR in table else [False] * len(table), dtype=np.bool_)


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(SavedResult):
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
    """

    table: pd.DataFrame
    manifest: Mapping[str, Any]
    evaluator: Evaluator | None = None

    kind = "sweep"
    table_names = ("table",)
    aside = ("policy_module", "mixed", "causality")
    list_numbers = call_later(DECLARED, "list_sweep_numbers")
    list_parts = call_later(DECLARED, "list_sweep_parts")
    list_assumptions = call_later(DECLARED, "list_sweep_assumptions")
    verdict = property(call_later(DECLARED, "write_sweep_verdict"))
    notices = property(call_later(DECLARED, "list_sweep_notices"))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The columns that hold parameters."""
        return tuple(self.manifest["parameters"])

    @property
    def complete(self) -> bool:
        """Whether every set was run; False after Ctrl-C."""
        return len(self.table) == int(self.manifest["sets"]["asked"])

    @cached_property
    def metrics(self) -> dict[str, FloatArray]:
        """The measures by name, arrays of shape (n_sets,)."""
        return {name: self.table[name].to_numpy() for name in METRICS if name in self.table}

    @checked
    def rank(
        self, objective: ObjectiveLike = "sharpe", constraints: Mapping[str, str] | None = None
    ) -> IntArray:
        """Return the positions of the rows from the best to the worst.

        Rows that keep the constraints come first, then those that do not, then the ruined ones by
        their time to ruin, then the failed ones. See
        :func:`backtest.measures.ranking.read_objective`.
        """
        return rank_by_objective(self.metrics, objective, constraints, find_failed(self.table))

    @checked
    def best(
        self, objective: ObjectiveLike = "sharpe", constraints: Mapping[str, str] | None = None
    ) -> pd.Series:
        """Return the best row; its name is its label in the table.

        Warns if it is ruined or breaks a constraint, as then all others do too.
        """
        place = self.rank(objective, constraints)[0]
        row = {name: values[place : place + 1] for name, values in self.metrics.items()}
        broken = [str(each) for each in read_constraints(constraints) if each.violation(row)[0] > 0]
        if broken:
            text = f"no set keeps all constraints, the best breaks {', '.join(broken)}"
            warn_caller(text)
        return self.table.iloc[int(place)]

    @checked
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
        Whole(1).check("n", n)
        return self.table.iloc[self.rank(objective, constraints)[:n]]

    @checked
    def heatmap(self, x: str, y: str, metric: str = "sharpe", reduce: Reduce = "median") -> Any:
        """Return a Plotly figure of a measure over two parameters.

        See :func:`backtest.sweep.sweep_table.draw_map`.
        """
        return draw_map(self.table, self.manifest, x, y, metric, reduce)

    @checked
    def replay(self, row: int) -> Result:
        """Return the run of a row, by its label, as :func:`backtest.run` returns it."""
        evaluator = self._find_evaluator()
        return evaluator.replay(take_sets(self._find_sets(self._select(row)), 0))

    @checked
    def detail(self, rows: Labels) -> pd.DataFrame:
        """Return some rows with the measures that need their path, by running them again.

        They include ``drawdown_peak``, ``drawdown_trough`` and ``drawdown_recovery``: when the
        deepest drawdown began, was deepest and ended (UTC; NaT if there was none, or if it had not
        ended).

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
        found = evaluator.evaluate_path(self._find_sets(table))
        done = int(found.done.sum())
        if done == 0:
            raise KeyboardInterrupt
        if done < len(table):
            text = f"interrupted: {len(table) - done:,} of {len(table):,} rows were not run again"
            warn_caller(text)
        measured = convert_dates(table.assign(**found.metrics))[found.done]
        return order_columns(measured, self.parameters)

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return f"sweep {self.policy_name}"

    @property
    def policy_name(self) -> str:
        """The policy whose parameters vary."""
        return str(self.manifest["policy"]["name"])

    @property
    def title(self) -> str:
        """The policy, and the parameters that vary."""
        return f"{self.policy_name} over {', '.join(self.parameters)}"

    @property
    def note(self) -> str:
        """The number of sets."""
        asked = f" of {self.manifest['sets']['asked']:,}"
        return f"{len(self.table):,}{'' if self.complete else asked} sets"

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as data for JSON; a table of more than 10,000 sets is left out."""
        data: dict[str, Any] = to_plain(
            {"sweep": self.manifest, "verdict": self.verdict, "table": list_records(self.table)}
        )
        return data

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the set with the highest Sharpe ratio."""
        if not len(self.table):
            return {}
        best = self.table.iloc[self.rank("sharpe")[:1]].to_dict("records")[0]
        return {str(name): value for name, value in best.items() if name in self.metrics}

    def list_policies(self) -> Iterable[type]:
        """Return the class of the policy; nothing of a loaded sweep."""
        return [self.evaluator.base.policy_class] if self.evaluator else []

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        return {"table": lay_out_sets(self.table)}

    def _write_more(self, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002
        return {"mixed": find_mixed(self.table)}

    @classmethod
    def _read_back(
        cls, manifest: dict[str, Any], tables: Mapping[str, pd.DataFrame], folder: Path
    ) -> Self:
        return cls(read_sets(tables["table"], manifest.pop("mixed", None), folder), manifest)

    def __repr__(self) -> str:
        best = self.table.iloc[int(self.rank()[0])]
        values = ", ".join(f"{name}={format_value(best[name])}" for name in self.parameters)
        left_out = "" if self.complete else f" of {self.manifest['sets']['asked']:,}"
        return (
            f"<Sweep of {self.manifest['policy']['name']}: {len(self.table):,}{left_out} sets on "
            f"{self.manifest['data']['source']}, best sharpe {best['sharpe']:.2f} with {values}>"
        )

    def _select(self, rows: Labels) -> pd.DataFrame:
        given: Any = rows.index if isinstance(rows, pd.DataFrame) else rows
        is_many = isinstance(given, Iterable) and not isinstance(given, str)
        given = [repr(k) if isinstance(k, bool | np.bool_) else k for k in
                 (given if is_many else [given])]  # fmt: skip
        labels = pd.Index(given, tupleize_cols=False, name=self.table.index.name)
        is_known = labels.isin(self.table.index) & (labels.inferred_type != "boolean")
        unknown = labels[~is_known].tolist()
        if unknown or not len(labels):
            raise ParameterError(
                f"rows must be labels of the table, {self.table.index[0]} to "
                f"{self.table.index[-1]}, got {unknown[0] if unknown else labels!r}"
            )
        found: pd.DataFrame = self.table.loc[labels]
        return found

    def _find_sets(self, table: pd.DataFrame) -> Sets:
        names = self.manifest["parameters"]
        return from_frame(
            table[list(names)].set_axis([name_parameter(name) for name in names], axis=1)
        )

    def _find_evaluator(self) -> Evaluator:
        if self.evaluator is None:
            raise ParameterError(
                "a row can be run again only with its market, and a loaded sweep has none; run the "
                "policy with the parameters of the row"
            )
        return self.evaluator


LABEL = "label"


def find_mixed(table: pd.DataFrame) -> list[str]:
    objects = [str(name) for name in table if table[name].dtype == object]
    return [name for name in objects if pd.api.types.infer_dtype(table[name]) != "string"]


def lay_out_sets(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.copy()
    for name in find_mixed(table):
        words = [None if value is None else str(value) for value in table[name]]
        shown[name] = pd.Series(words, index=table.index, dtype=object)
    shown.insert(0, LABEL, shown.index)
    return shown


def read_sets(stored: pd.DataFrame, mixed: object, folder: Path) -> pd.DataFrame:
    table = stored.set_index(LABEL).rename_axis(None)
    if not isinstance(mixed, list) or not {*map(str, mixed)} <= {*table}:
        raise DataError(
            f"{folder / MANIFEST}: mixed must be a list of columns of the table, got {mixed!r}"
        )
    for name in mixed:
        table[name] = pd.Series(map(_read_word, table[name]), index=table.index, dtype=object)
    return table


def _read_word(text: object) -> Any:
    if not isinstance(text, str):  # a missing word comes back from the file as NaN
        return None
    try:
        return float(text)
    except ValueError:
        return text
